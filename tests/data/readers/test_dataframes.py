"""DataFrames of pandas, polars and pyarrow are manifests like the CSV with the same table."""

from pathlib import Path

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from spectag.data.manifest import read_manifest
from spectag.data.readers.dataframes import dataframe_as_csv
from spectag.errors import DataError

KINDS = {"pandas": pandas.DataFrame, "polars": polars.DataFrame, "pyarrow": pyarrow.table}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Two files in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav"):
        Path(name).write_bytes(b"sound")
    return tmp_path


def clips_of(table):
    return [(clip.fname, clip.labels, clip.fold, clip.start_seconds, clip.end_seconds) for clip in table.clips]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "columns",
    [
        {"fname": ["a.wav", "b.wav"], "labels": ["Dog,Bark", ""], "fold": [1, 2]},
        {"file": ["a.wav", "b.wav"], "label": ["Dog", "Cat, hiss"]},
        {"fname": ["a.wav", "a.wav"], "labels": ["Dog", "Cat"], "start": [0.0, 1.5], "end": [1.5, 3.25]},
        {"fname": ["a.wav", "b.wav"], "Dog": [1, 0], "Cat": [0, 1]},
        {"fname": ["a.wav", "b.wav"], "labels": ["=1+1", "'Dog"]},
    ],
    ids=["labels", "comma", "excerpts", "multi-hot", "formula"],
)
def test_dataframe_equals_the_csv(kind, columns):
    frame = pandas.DataFrame(columns)
    Path("t.csv").write_text(dataframe_as_csv(frame), encoding="utf-8")
    of_csv, of_frame = read_manifest("t.csv"), read_manifest(KINDS[kind](columns))
    assert clips_of(of_frame) == clips_of(of_csv)
    assert of_frame.labels == of_csv.labels
    assert str(of_frame.source) == "DataFrame"


@pytest.mark.parametrize("kind", KINDS)
def test_cells_may_be_lists_of_labels(kind):
    labels = [["Dog", "Cat, hiss"], []]
    frame = KINDS[kind]({"fname": ["a.wav", "b.wav"], "labels": labels})
    assert [clip.labels for clip in read_manifest(frame).clips] == [("Dog", "Cat, hiss"), ()]


def test_cells_may_be_arrays_sets_and_paths():
    frame = pandas.DataFrame({"fname": [Path("a.wav"), Path("b.wav")], "labels": [np.array(["Dog"]), {"Cat", "Bird"}]})
    assert [clip.labels for clip in read_manifest(frame).clips] == [("Dog",), ("Bird", "Cat")]


def test_missing_values_are_empty_and_integers_stay_integers():
    frame = pandas.DataFrame(
        {"fname": ["a.wav", "b.wav"], "labels": ["Dog", None], "fold": [1, np.nan], "end": [2.5, pandas.NA]}
    )
    first, second = read_manifest(frame).clips
    assert (first.labels, first.fold, first.end_seconds) == (("Dog",), "1", 2.5)
    assert (second.labels, second.fold, second.end_seconds) == ((), None, None)


def test_boolean_columns_are_labels():
    frame = pandas.DataFrame({"fname": ["a.wav", "b.wav"], "Dog": [True, False], "Cat": [False, False]})
    assert [clip.labels for clip in read_manifest(frame).clips] == [("Dog",), ()]


def test_named_index_is_a_column_and_a_filtered_frame_can_be_used():
    frame = pandas.DataFrame({"fname": ["a.wav", "x.wav", "b.wav"], "labels": ["Dog", "Cat", "Dog"]})
    kept = frame[frame.labels == "Dog"]
    assert clips_of(read_manifest(kept.set_index("fname"))) == clips_of(read_manifest(kept))


def test_column_that_is_also_the_index_is_one_column():
    frame = pandas.DataFrame({"fname": ["a.wav", "b.wav"], "labels": ["Dog", None], "fold": [1.0, np.nan]})
    for name in ("fname", "fold"):
        assert clips_of(read_manifest(frame.set_index(name, drop=False))) == clips_of(read_manifest(frame))
    assert clips_of(read_manifest(frame.set_index(["fname", "fold"]))) == clips_of(read_manifest(frame))


@pytest.mark.parametrize("names", ["fname", ["fname", "fname"]])
def test_index_with_the_name_and_not_the_values_of_a_column_is_an_error(names):
    frame = pandas.DataFrame({"fname": ["a.wav", "b.wav"], "labels": ["Dog", "Cat"]})
    levels = [["b.wav", "a.wav"]] * (1 if names == "fname" else 2)
    other = frame.set_index(pandas.MultiIndex.from_arrays(levels, names=np.atleast_1d(names)))
    with pytest.raises(DataError, match="DataFrame: need columns of different names, got fname more than once"):
        read_manifest(other)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (pandas.Series(["a.wav"], name="fname"), "pandas.Series"),
        (polars.Series("fname", ["a.wav"]), "polars.Series"),
        (pyarrow.table({"fname": ["a.wav"]}).to_reader(), "pyarrow.RecordBatchReader"),
    ],
)
def test_single_columns_and_streams_are_an_error_that_says_what_to_do(value, kind):
    with pytest.raises(DataError, match=rf"expected a table with columns, got {kind}; make a DataFrame .*to_frame\(\)"):
        read_manifest(value)


def test_errors_name_the_dataframe_and_the_line():
    frame = pandas.DataFrame({"fname": ["a.wav", "x.wav"], "labels": ["Dog", "Cat"]})
    with pytest.raises(DataError, match=r"DataFrame, line 3: 1 of 2 files are missing: x\.wav"):
        read_manifest(frame)
    with pytest.raises(DataError, match="DataFrame: it has no columns"):
        read_manifest(pandas.DataFrame())
    repeated = pandas.DataFrame([["a.wav", "Dog", "Cat"]], columns=["fname", "labels", "labels"])
    with pytest.raises(DataError, match="DataFrame: need columns of different names, got labels more than once"):
        read_manifest(repeated)


@pytest.mark.parametrize("value", [None, 7, {"fname": ["a.wav"]}, [("a.wav", "Dog")], pandas.DataFrame])
def test_other_values_are_an_error_that_says_what_is_expected(value):
    with pytest.raises(DataError, match="expected the path of a table or a folder, or a DataFrame, got"):
        read_manifest(value)
