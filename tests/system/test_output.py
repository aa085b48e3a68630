"""Output files, and the paths of the tables of recordings."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.file_events import UNDECODABLE_NAME
from spectag.errors import ConfigError, DataError
from spectag.system.output import check_output_folder, csv_writer, one_line, open_binary_output, open_output
from spectag.system.paths import TablePaths, common_folder, join_parts, split_below, split_location

# ------------------------------------------------------------------------------------------------ files


def test_output_appears_when_it_is_complete_also_in_a_new_folder(tmp_path):
    path = tmp_path / "neu" / "tags.csv"
    with open_output(path) as out:
        out.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("open_file", [open_output, open_binary_output])
def test_old_file_stays_when_writing_fails(tmp_path, open_file):
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(DataError, match="too bad"), open_file(tmp_path / "a.csv"):
        raise DataError("too bad")
    assert (tmp_path / "a.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("open_file", [open_output, open_binary_output])
def test_path_that_cannot_be_written_raises_an_error(tmp_path, open_file):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written: a folder has this name"), open_file(tmp_path):
        pytest.fail("the work has started")
    with pytest.raises(DataError, match=r"b\.csv: can't be written: "), open_file(tmp_path / "file" / "b.csv"):
        pytest.fail("the work has started")


def test_output_without_a_path_is_stdout(capsysbinary):
    with open_output(None) as out:
        out.write("a\n")
    with open_binary_output(None) as table:
        table.write(b"\xff")
    assert capsysbinary.readouterr().out == b"a\n\xff"


def test_only_rows_with_a_carriage_return_are_quoted():
    out = io.StringIO(newline="")
    write_row = csv_writer(out)
    write_row(["a", "b"])
    write_row(["a", "b\rc"])
    assert out.getvalue() == 'a,b\n"a","b\rc"\n'


def test_one_line_replaces_control_characters_only():
    assert one_line("a\tb\r\nc\u2028d\x00e ä\u00a0\u200b\\") == "a b  c d e ä\u00a0\u200b\\"


# ------------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["/rec/a/1.wav", "/rec/b/2.wav"], "/rec"),
        (["/rec/a/1.wav", "/rec/ab/2.wav"], "/rec"),  # not /rec/a
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
def test_common_folder_of_files(files, expected):
    assert join_parts(common_folder(iter(files))) == expected


def test_relative_paths_start_at_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = common_folder(["rec/a.wav", "./rec/b/c.wav"])
    assert join_parts(root) == str(tmp_path / "rec")
    assert split_below("rec/b/c.wav", root) == (root, ("b", "c.wav"))


def test_file_outside_the_root_keeps_all_its_parts():
    root = common_folder(["/rec/a.wav"])
    assert split_below("/other/x/b.wav", root) == ((), ("/", "other", "x", "b.wav"))


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=4).filter(
    lambda name: name not in (".", "..")
)


@given(folders=st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=5))
def test_root_and_parts_below_it_make_the_path_again(folders):
    files = ["/" + "/".join(parts) for parts in folders]
    root = common_folder(files)
    for file in files:
        parent, below = split_below(file, root)
        assert parent == root
        assert join_parts(parent + below) == file
        assert str(Path(join_parts(parent), *below)) == file


def paths_of(folder, files):
    """The paths of the tables, relative to the folder if it is not a URL."""
    chooser = TablePaths(folder, common_folder(files), ".txt")
    paths = [chooser.path_for(file) for file in files]
    return paths if "://" in folder else [os.path.relpath(path, folder) for path in paths]


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
        (["s3://b/../../etc/1.wav", "/x/2.wav"], ["s3/b/etc/1.txt", "x/2.txt"]),  # never outside the folder
    ],
)
def test_tables_have_the_subfolders_of_the_recordings_and_unique_names(tmp_path, files, expected):
    assert paths_of(str(tmp_path), files) == expected


def test_recordings_with_very_long_names_have_tables(tmp_path):
    files = [str(tmp_path / f"{'鳥' * 83}{end}.wav") for end in "ab"]  # 254 bytes
    paths = TablePaths(tmp_path / "out", common_folder(files), ".Table.1.selections.txt")
    for file in files:
        with open_output(paths.path_for(file)) as out:
            out.write("a")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_folder_of_the_tables_can_be_a_bucket():
    assert paths_of("s3://out/raven", ["s3://in/a/1.wav", "s3://in/2.wav"]) == [
        "s3://out/raven/a/1.txt",
        "s3://out/raven/2.txt",
    ]


@given(folders=st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=8))
def test_tables_have_different_paths_inside_the_folder(folders):
    files = ["/rec/" + "/".join(parts) for parts in folders]
    paths = paths_of("/out", files)
    assert len({path.casefold() for path in paths}) == len(files)
    assert not any(path.startswith("..") for path in paths)


def test_file_name_that_is_not_utf_8_has_a_table(tmp_path):
    file = str(tmp_path / UNDECODABLE_NAME)
    path = TablePaths(tmp_path / "out", common_folder([file]), ".txt").path_for(file)
    with open_output(path) as out:
        out.write("a")
    assert [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()] == [b"caf\xe9.txt"]
    assert split_location(file)[-1] == UNDECODABLE_NAME
    assert Path(path).read_text() == "a"


@pytest.mark.parametrize("name", ["report.html", "clips.zip", "Model.ONNX"])
def test_name_of_a_file_is_refused_for_a_folder_of_results(tmp_path, name):
    with pytest.raises(
        ConfigError, match=rf"{name}: the results are several files in a folder; leave out \.\w+, such as"
    ):
        check_output_folder(tmp_path / name)
    (tmp_path / name).mkdir()
    check_output_folder(tmp_path / name)
    check_output_folder(tmp_path / "model 1.5")
