"""Damaged and odd tables give one clear line, never a traceback."""

import os
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spectag.data.manifest import read_manifest
from spectag.errors import DataError

GOOD = b"fname,labels,start,end\na.wav,Dog,0,1\nb.wav,Cat,1,2\n"


def labels_or_error(source: Path) -> str:
    """The labels of a manifest, or the error, which must be one short line."""
    with warnings.catch_warnings(action="ignore"):
        try:
            return ", ".join(read_manifest(source).labels.names)
        except DataError as error:
            message = str(error)
    return message if message.isprintable() and len(message) < 1500 else f"not one short line: {message!r}"


def read(folder: Path, content: bytes, name: str = "clips.csv") -> str:
    """The labels of a table with this content, or the error."""
    for sound in ("a.wav", "b.wav"):
        (folder / sound).touch()
    (folder / name).write_bytes(content)
    return labels_or_error(folder / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the table is empty"),
        (b"\n\n  \n", "the table is empty"),
        (b"# a comment\n", "the table is empty"),
        (b"sep=;\n", "the table is empty"),
        (b"\0" * 100, "not text"),
        (GOOD.replace(b"Dog", b"D\0g"), "not text"),
        (GOOD.decode().encode("utf-16")[:-1], "the text is damaged"),
        (GOOD.replace(b"Dog", "イヌ".encode("shift-jis")), "neither UTF-8 nor Windows-1252"),
        (GOOD.replace(b"Dog", "собака".encode("cp1251")), "neither UTF-8 nor Windows-1252"),
        (GOOD.replace(b"Dog", "麻雀".encode("gbk")), "neither UTF-8 nor Windows-1252"),
        (GOOD.replace(b"Dog", "Möwe".encode("cp1252")), "Cat, Möwe"),
        (GOOD.replace(b"Dog", "L’étourneau – mâle".encode("cp1252")), "Cat, L’étourneau – mâle"),
        (GOOD.replace(b"Dog", b'"Dog'), "line 2: .*is a closing quote missing"),
        (GOOD.replace(b"Dog", b'"D"og'), "line 2: "),
        (GOOD.replace(b"Dog", b"D" * 10_000_000), "line 2: field larger than field limit"),
        (GOOD.replace(b"fname", b"f" * 10_000_000), "field larger than field limit"),
        (GOOD.replace(b"start", b"labels"), "duplicate columns: labels"),
        (GOOD.replace(b"0,1", b"0,1,,,extra"), "line 2: the line has 7 fields"),
        (GOOD.replace(b"0,1", b"1e999,1"), "line 2: start is '1e999'"),
        (GOOD.replace(b"a.wav", b"a\nb.wav"), "the line has 1 fields"),
        (GOOD.replace(b"a.wav", b'"a\n.wav"'), r"files are missing: a\\n\.wav"),
        (GOOD.replace(b"a.wav", b"../" * 5000 + b"c.wav"), "files are missing"),
        (GOOD.replace(b"0,1", b"0:" + b"9" * 5000 + b",1"), "line 2: start is '0:9999"),
        (b"1" + b"\t" * 100_000 + b"\n", "no column with file names"),
        (GOOD.replace(b"\n", b"\r"), "Cat, Dog"),
        (b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"), "Cat, Dog"),
        (b"fname\n", "no labels"),
        (b'{"fname": "a.wav", "labels": ["Dog"]}\n', r"clips\.csv: this looks like JSON; .* pandas\.read_json"),
        (b'[\n {"fname": "a.wav", "labels": ["Dog"]}\n]', "this looks like JSON"),
        (b"fname labels\na.wav Dog\n", "the first line is 'fname labels', .* separated by .*, not by spaces"),
        (b"file   start end  label\na.wav  0     1    Dog\n", "not by spaces"),
        (GOOD.replace(b",", b"|"), "Cat, Dog"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00", "not text"),
    ],
)
def test_damaged_table_is_one_clear_line(tmp_path, content, message):
    assert re.search(message, read(tmp_path, content))


@pytest.mark.parametrize("name", ["clips.csv", "clips.txt", "clips.tsv"])
def test_folder_with_the_name_of_a_table_is_read_as_a_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="no sounds in sub-folders"):
        read_manifest(tmp_path / name)
    (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / "Dog").mkdir()
    (tmp_path / "data" / "Dog" / "a.wav").touch()
    assert read_manifest(tmp_path / "data").labels.names == ("Dog",)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_table_that_may_not_be_read_is_an_error(tmp_path):
    (tmp_path / "clips.csv").write_bytes(GOOD)
    (tmp_path / "clips.csv").chmod(0)
    with pytest.raises(DataError, match="the file can't be read"):
        read_manifest(tmp_path / "clips.csv")


fragments = st.sampled_from(
    [
        *(
            "fname",
            "labels",
            "label",
            "start",
            "end",
            "onset",
            "offset",
            "Begin Time (s)",
            "End Time (s)",
            "Annotation",
        ),
        *("a.wav", "b.wav", "Dog", "['Dog']", "0", "1", "0.5", "1e-5", "-1", "nan", "", '"', '""', "\\", "#", "sep=;"),
        *(",", ";", "\t", " ", "\n", "\r\n", "\r", ",", "\t", "\n", "\ufeff", "é", "\x85", "\u2028", "YTID", "["),
    ]
)
tables = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(fragments, max_size=60).map(lambda parts: "".join(parts).encode()),
    st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=8)).map(
        lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :]
    ),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=tables, name=st.sampled_from(["clips.csv", "a.txt", "b.Table.1.selections.txt"]))
@example(content=b"1 2", name="a.txt")
@example(content=b'\t ""\x01', name="clips.csv")
def test_any_bytes_are_read_or_an_error_in_one_line(tmp_path, content, name):
    assert not read(tmp_path, content, name).startswith("not one short line")
    (tmp_path / name).unlink()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=tables)
def test_any_bytes_in_a_folder_are_read_or_an_error_in_one_line(tmp_path, content):
    for sound in ("a.wav", "b.wav"):
        (tmp_path / sound).touch()
    (tmp_path / "b.txt").write_bytes(b"1\t2\tDog\n")
    (tmp_path / "a.txt").write_bytes(content)
    assert not labels_or_error(tmp_path).startswith("not one short line")
