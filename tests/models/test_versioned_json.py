import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from spectag.config.base import Config
from spectag.errors import DataError
from spectag.models import versioned_json
from spectag.models.versioned_json import parse_json, read_versioned_json

text = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\t\n\r\x85"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(text, values, max_size=4),
    max_leaves=20,
)


@given(value=json_values)
def test_what_json_writes_is_read(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested more than 32 deep"),
        ('{"a":' * 50 + "1" + "}" * 50, "nested more than 32 deep"),
        ('{"labels": [], "labels": ["a"]}', "the key 'labels' occurs twice"),
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e999]", "the number 1e999 is too large"),
        ("[" + "9" * 5_000 + "]", "an integer has 5000 digits"),
        (r'["\ud800"]', "half a character"),
        (r'{"\udfff": 1}', "half a character"),
        (r'["\u001b[2Jlow"]', r"the text '\\x1b\[2Jlow' contains a control character"),
        ("[" + "[]," * 2_000_000 + "1]", "about 4,000,001 values, expected at most 2,000,000"),
        ("", "Expecting value"),
        ("[1] 2", "Extra data"),
    ],
)
def test_other_json_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


class Small(Config):
    format_version: int = Field(1, le=9)
    name: str


def read(path):
    return read_versioned_json(
        path, Small, version=1, missing="missing", outdated="write it again", error_type=DataError
    )


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"\xc3\x28", b"[]", b"7", b'"text"', b"{}", b'{"format_version": 1}', b'{"format_version": [[1]]}'],
)
def test_other_content_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: "):
        read(tmp_path / "a.json")


def test_wrong_version_is_shown_shortened(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"format_version": "x" * 10_000}))
    with pytest.raises(DataError, match=r"format version 'x+\.\.\.") as error:
        read(tmp_path / "a.json")
    assert len(str(error.value)) < 300


def test_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(versioned_json, "MAX_JSON_BYTES", 1_000)
    (tmp_path / "a.json").write_text('{"format_version": 1, "name": "%s"}' % ("a" * 1_000))
    with pytest.raises(DataError, match="cannot be read: the file is too large: 0 MB, expected at most 0 MB"):
        read(tmp_path / "a.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_and_folder_are_refused_instead_of_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "folder.json"):
        with pytest.raises(DataError, match=rf"{name}: cannot be read: not a regular file"):
            read(tmp_path / name)


def test_link_to_a_regular_file_is_followed(tmp_path):
    (tmp_path / "a.json").write_text('{"format_version": 1, "name": "a"}')
    (tmp_path / "link.json").symlink_to("a.json")
    assert read(tmp_path / "link.json").name == "a"
