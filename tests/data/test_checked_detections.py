"""decisions.csv and check.json: round trips, and damaged files."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.data.checked_detections import (
    CheckedDetection,
    CheckInfo,
    SampledLabel,
    read_check_info,
    read_decisions,
    write_check_info,
    write_decisions,
)
from spectag.errors import DataError

NOW = datetime(2026, 5, 1, 14, 30, tzinfo=UTC)
ROWS = [
    CheckedDetection("a.wav", 0.5, 3, "Dog", 0.25, "site3", datetime(2024, 5, 1, 5, 30), "low", 7, 3.5, "yes"),
    CheckedDetection("a.wav", 3, None, "Dog", 0.3, "", None, "low", 7, 3.5, "no", ("Cat, big", "Cow"), "Zoë", NOW, "?"),
    CheckedDetection("=b.wav", 0, 3, "@Dog", None, "", None, "high", 1, 1.0),
]


def write(path, rows=ROWS):
    write_decisions(path, rows)
    return path


def test_decisions_are_read_as_they_were_written(tmp_path):
    path = write(tmp_path / "decisions.csv")
    assert read_decisions(path) == ROWS
    assert "\n'=b.wav,0,3,'@Dog," in path.read_text()


@given(
    probability=st.floats(0, 1),
    start=st.floats(0, 1e6),
    other=st.lists(st.text("ab,\"' =é", min_size=1).map(str.strip).filter(bool), unique=True),
)
def test_numbers_and_labels_survive_writing_and_reading(tmp_path_factory, probability, start, other):
    other = tuple(label for label in other if label.strip('"') == label)
    row = CheckedDetection("a.wav", start, None, "Dog", probability, "", None, "s", 3, 3.0, "no", other, "Z", NOW)
    [found] = read_decisions(write(tmp_path_factory.mktemp("check") / "decisions.csv", [row]))
    assert (found.probability, found.start_seconds, found.other_labels) == (probability, start, other)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (",yes,", ",maybe,", r"line 2: decision is 'maybe'; expected yes, no, unsure or nothing"),
        (",3.5,yes", ",nan,yes", r"line 2: weight is 'nan'; expected a number from 0.999"),
        (",3.5,yes", ",3,yes", r"stratum 'low' have different weights"),
        (",7,3.5,yes", ",7.5,3.5,yes", r"line 2: n_in_stratum is '7.5'; expected a whole number"),
        (",0.25,", ",1.25,", r"line 2: probability is '1.25'; expected a number from 0 to 1"),
        ("2026-05-01T14:30:00+00:00", "2026-05-01T14:30:00", r"line 3: time is .*; expected a time with its time zone"),
        ("2024-05-01T05:30:00.000", "yesterday", r"line 2: recorded is 'yesterday'"),
        ("a.wav,3,", "a.wav,-3,", r"line 3: start is '-3'"),
        ("a.wav,0.5,", ",0.5,", r"line 2: file is empty"),
        ("decision,", "choice,", r"no column decision; expected the decisions.csv"),
        ("a.wav,3,,Dog,0.3", "a.wav,0.5,3,Dog,0.3", r"line 3: the same detection as in line 2"),
        ("a.wav,0.5,3,", 'a.wav,0.5,3,"', r"closing quote"),
    ],
)
def test_damaged_decisions_are_an_error_that_names_the_line_and_what_was_expected(tmp_path, before, after, message):
    path = write(tmp_path / "decisions.csv")
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(DataError, match=message):
        read_decisions(path)


def test_missing_rows_of_a_stratum_are_an_error_because_the_weights_would_be_wrong(tmp_path):
    path = write(tmp_path / "decisions.csv", ROWS[1:])
    with pytest.raises(DataError, match="1 rows of Dog are in the stratum 'low', but 2 were sampled"):
        read_decisions(path)


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"\xff\xfe\x00", b"a\n" * 3])
def test_files_that_are_no_table_of_decisions_are_errors(tmp_path, content):
    path = tmp_path / "decisions.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"decisions\.csv"):
        read_decisions(path)


def test_check_json_is_found_beside_the_decisions_and_read_as_it_was_written(tmp_path):
    labels = {"Dog": SampledLabel(n_detections=7, n_sampled=2, lowest_probability=0.2)}
    info = CheckInfo(
        table="tags.csv",
        model="model",
        seed=0,
        n_per_label=96,
        across=("scores", "sites"),
        created=NOW,
        spectag="0.1.0",
        labels=labels,
    )
    write_check_info(tmp_path / "check.json", info)
    assert read_check_info(tmp_path / "decisions.csv") == read_check_info(tmp_path) == info


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"seed": NaN}', '{"format_version": 2}', "{}"])
def test_damaged_check_json_is_an_error_in_one_line(tmp_path, content):
    (tmp_path / "check.json").write_text(content)
    with pytest.raises(DataError, match=r"check\.json") as raised:
        read_check_info(tmp_path)
    assert "\n" not in str(raised.value)
