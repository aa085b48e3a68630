"""Files that are written whole or not at all, and where the table of a recording goes."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.file_events import UNDECODABLE_NAME
from spectag.errors import DataError
from spectag.system.output import csv_writer, one_line, written, written_bytes
from spectag.system.paths import TablePlaces, common_folder, divided, location_of, parts_of

# ------------------------------------------------------------------------------------------------ files


def test_table_is_written_whole_also_into_a_folder_that_does_not_exist(tmp_path):
    path = tmp_path / "neu" / "tags.csv"
    with written(path) as out:
        out.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("opened", [written, written_bytes])
def test_failed_table_leaves_the_old_one(tmp_path, opened):
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(DataError, match="too bad"), opened(tmp_path / "a.csv"):
        raise DataError("too bad")
    assert (tmp_path / "a.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("opened", [written, written_bytes])
def test_place_that_can_not_be_written_is_told(tmp_path, opened):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written: there is a folder of this name"), opened(tmp_path):
        pytest.fail("the work has begun")
    with pytest.raises(DataError, match=r"b\.csv: can't be written: "), opened(tmp_path / "file" / "b.csv"):
        pytest.fail("the work has begun")


def test_without_a_path_it_goes_to_stdout(capsysbinary):
    with written(None) as out:
        out.write("a\n")
    with written_bytes(None) as table:
        table.write(b"\xff")
    assert capsysbinary.readouterr().out == b"a\n\xff"


def test_carriage_return_is_quoted_and_plain_rows_are_not():
    out = io.StringIO(newline="")
    write_row = csv_writer(out)
    write_row(["a", "b"])
    write_row(["a", "b\rc"])
    assert out.getvalue() == 'a,b\n"a","b\rc"\n'


def test_one_line_keeps_all_but_what_would_break_it():
    assert one_line("a\tb\r\nc\u2028d\x00e ä\u00a0\u200b\\") == "a b  c d e ä\u00a0\u200b\\"


# ------------------------------------------------------------------------------------------------ places


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["/rec/a/1.wav", "/rec/b/2.wav"], "/rec"),
        (["/rec/a/1.wav", "/rec/ab/2.wav"], "/rec"),  # not /rec/a, though the letters go on
        (["/rec/1.wav", "/rec/b/c/2.wav", "/rec/b/3.wav"], "/rec"),
        (["/rec/a/1.wav"], "/rec/a"),
        (["/a/1.wav", "/b/2.wav"], "/"),
        (["/rec/../rec2/1.wav"], "/rec2"),
        (["s3://bucket/a/1.wav", "s3://bucket/b/2.wav"], "s3://bucket"),
        (["s3://one/1.wav", "s3://two/2.wav"], "s3://"),
        (["s3://bucket/1.wav", "/rec/2.wav"], ""),
        ([], ""),
    ],
)
def test_common_folder_worked_by_hand(files, expected):
    assert location_of(common_folder(iter(files))) == expected


def test_relative_paths_are_those_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = common_folder(["rec/a.wav", "./rec/b/c.wav"])
    assert location_of(root) == str(tmp_path / "rec")
    assert divided("rec/b/c.wav", root) == (root, ("b", "c.wav"))


def test_file_that_lies_elsewhere_keeps_all_its_parts():
    root = common_folder(["/rec/a.wav"])
    assert divided("/other/x/b.wav", root) == ((), ("/", "other", "x", "b.wav"))


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=4).filter(
    lambda name: name not in (".", "..")
)


@given(folders=st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=5))
def test_folder_and_rest_make_the_path_again(folders):
    files = ["/" + "/".join(parts) for parts in folders]
    root = common_folder(files)
    for file in files:
        above, below = divided(file, root)
        assert above == root
        assert location_of(above + below) == file
        assert str(Path(location_of(above), *below)) == file


def places_of(folder, files):
    places = TablePlaces(folder, common_folder(files), ".txt")
    return [os.path.relpath(places.of(file), folder) if "://" not in folder else places.of(file) for file in files]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["/rec/a/1.wav", "/rec/b/1.wav", "/rec/2.wav"], ["a/1.txt", "b/1.txt", "2.txt"]),
        (["/rec/1.wav", "/rec/1.flac", "/rec/1.wav.mp3"], ["1.txt", "1.flac.txt", "1.wav.txt"]),
        (["/rec/1.wav.mp3", "/rec/1.mp3", "/rec/1.wav"], ["1.wav.txt", "1.txt", "1.wav (2).txt"]),
        (["/rec/a.wav", "/rec/A.wav"], ["a.txt", "A.wav.txt"]),
        (["/rec/1.wav", "/rec/1.wav", "/rec/1.wav"], ["1.txt", "1.wav.txt", "1.wav (2).txt"]),
        (["/rec/a.b.c.wav", "/rec/.hidden", "/rec/plain"], ["a.b.c.txt", ".hidden.txt", "plain.txt"]),
        (["/rec/1.wav", "s3://b/x/1.wav"], ["rec/1.txt", "s3/b/x/1.txt"]),
        (["s3://b/../../etc/1.wav", "/x/2.wav"], ["s3/b/etc/1.txt", "x/2.txt"]),  # never out of the folder
    ],
)
def test_tables_lie_as_the_recordings_lie_each_with_a_name_of_its_own(tmp_path, files, expected):
    assert places_of(str(tmp_path), files) == expected


def test_recordings_of_the_longest_names_have_tables_too(tmp_path):
    files = [str(tmp_path / f"{'鳥' * 83}{end}.wav") for end in "ab"]  # 254 bytes
    places = TablePlaces(tmp_path / "out", common_folder(files), ".Table.1.selections.txt")
    for file in files:
        with written(places.of(file)) as out:
            out.write("a")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_tables_of_a_bucket_go_to_a_bucket():
    assert places_of("s3://out/raven", ["s3://in/a/1.wav", "s3://in/2.wav"]) == [
        "s3://out/raven/a/1.txt",
        "s3://out/raven/2.txt",
    ]


@given(folders=st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=8))
def test_no_two_tables_share_a_place_and_none_lies_outside(folders):
    files = ["/rec/" + "/".join(parts) for parts in folders]
    places = places_of("/out", files)
    assert len({place.casefold() for place in places}) == len(files)
    assert not any(place.startswith("..") for place in places)


def test_name_that_no_encoding_knows_has_its_table(tmp_path):
    file = str(tmp_path / UNDECODABLE_NAME)
    place = TablePlaces(tmp_path / "out", common_folder([file]), ".txt").of(file)
    with written(place) as out:
        out.write("a")
    assert [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()] == [b"caf\xe9.txt"]
    assert parts_of(file)[-1] == UNDECODABLE_NAME
    assert Path(place).read_text() == "a"
