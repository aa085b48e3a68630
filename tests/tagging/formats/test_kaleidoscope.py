"""The table for Kaleidoscope, read back by pandas."""

import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.file_events import (
    FILE_NAMES,
    MULTILINE_LABELS,
    TRICKY_LABELS,
    any_text,
    make_image,
    make_recording,
    make_recording_with_labels,
)
from spectag.errors import DataError
from spectag.system.paths import common_folder
from spectag.tagging.formats.kaleidoscope import write_kaleidoscope


def table_of(*files):
    out = io.StringIO(newline="")
    write_kaleidoscope(files, out, root=common_folder(file.file for file in files))
    return pd.read_csv(io.StringIO(out.getvalue(), newline=""), keep_default_na=False, dtype={"TOP1MATCH": str})


def test_table_has_only_kaleidoscope_columns_and_a_row_for_each_event():
    table = table_of(
        make_recording("/rec/x/y/a.wav", (0.5, 2.0, "Bark", 0.9), (0.5, 2.0, "Hi-hat", 0.25)),
        make_recording("/rec/b.wav", (3.0, 3.5, "Bark", 1.0)),
        make_recording("/rec/silent.wav"),
    )
    assert list(table.columns) == ["INDIR", "FOLDER", "IN FILE", "OFFSET", "DURATION", "TOP1MATCH", "TOP1DIST"]
    assert table.to_numpy().tolist() == [
        ["/rec", str(Path("x", "y")), "a.wav", 0.5, 1.5, "Bark", 0.1],
        ["/rec", str(Path("x", "y")), "a.wav", 0.5, 1.5, "Hi-hat", 0.75],
        ["/rec", "", "b.wav", 3.0, 0.5, "Bark", 0.0],
    ]


def test_most_probable_events_come_first_when_sorted_by_distance():
    table = table_of(
        make_recording("/rec/a.wav", (0, 1, "uncertain", 0.2), (1, 2, "certain", 0.99), (2, 3, "probable", 0.6))
    )
    assert table.sort_values("TOP1DIST")["TOP1MATCH"].tolist() == ["certain", "probable", "uncertain"]


def test_folder_columns_make_up_the_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [str(Path("rec", folder, name)) for folder in ("", "x", "ü 1") for name in FILE_NAMES]
    table = table_of(*(make_recording(file, (0, 1, "Bark", 0.5)) for file in files))
    paths = [str(Path(*row)) for row in table[["INDIR", "FOLDER", "IN FILE"]].to_numpy()]
    assert paths == [str(tmp_path / file) for file in files]


@given(labels=st.lists(any_text | st.sampled_from([*TRICKY_LABELS, *MULTILINE_LABELS]), min_size=1, max_size=5))
def test_any_label_is_read_back(labels):
    assert table_of(make_recording_with_labels(*labels))["TOP1MATCH"].tolist() == labels


def test_image_is_an_error():
    with pytest.raises(DataError, match=r"a\.png: an image has no times for this format"):
        table_of(make_image("a.png", ("Bark", 0.9)))
