"""Tables of all labels, read back by pandas and pyarrow."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.file_events import (
    FILE_NAMES,
    MULTILINE_LABELS,
    TRICKY_LABELS,
    UNDECODABLE_NAME,
    any_text,
    make_image,
    make_recording,
    make_recording_with_labels,
)
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.errors import MissingExtraError
from spectag.models.timeline import Timeline
from spectag.system.output import escape_formula, open_binary_output, open_output, unescape_formula
from spectag.tagging.events import window_events
from spectag.tagging.formats import parquet as parquet_module
from spectag.tagging.formats.parquet import write_parquet, write_wide_parquet
from spectag.tagging.formats.wide import write_multi_hot_tags, write_wide

pq = pytest.importorskip("pyarrow.parquet")

LABELS = (*TRICKY_LABELS, *MULTILINE_LABELS)


def random_recording(file, n_windows, rng):
    starts = np.arange(n_windows) * 0.1
    probabilities = (rng.random((n_windows, len(LABELS))) ** 20).astype(np.float32)  # down to 1e-30
    return make_recording(file, timeline=Timeline(starts, starts + 5, probabilities))


def written_wide(path, files, labels=LABELS):
    with open_output(path) as out:
        write_wide(files, out, labels=LabelSet(tuple(labels)))
    return path


def written_parquet(path, files, labels=None):
    with open_binary_output(path) as out:
        if labels is None:
            write_parquet(files, out)
        else:
            write_wide_parquet(files, out, labels=LabelSet(tuple(labels)))
    return path


# ------------------------------------------------------------------------------------------------ wide CSV


def test_wide_table_has_the_index_and_columns_of_opensoundscape_predictions(tmp_path, rng):
    files = [random_recording(name, 3, rng) for name in FILE_NAMES]
    table = pd.read_csv(written_wide(tmp_path / "a.csv", files), index_col=[0, 1, 2])
    assert table.index.names == ["file", "start_time", "end_time"]
    assert list(map(unescape_formula, table.columns)) == list(LABELS)
    for file in files:
        rows = table.loc[escape_formula(file.file)]
        assert rows.index.get_level_values("start_time").tolist() == file.timeline.starts.tolist()
        assert rows.index.get_level_values("end_time").tolist() == file.timeline.ends.tolist()
        assert np.array_equal(rows.to_numpy().astype(np.float32), file.timeline.probabilities)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5))
def test_wide_table_keeps_every_bit_of_every_probability(values):
    timeline = Timeline(np.zeros(1), np.ones(1), np.array([values], np.float32))
    out = io.StringIO()
    labels = LabelSet(tuple(map(str, range(len(values)))))
    write_wide([make_recording("a.wav", timeline=timeline)], out, labels=labels)
    _, row = csv.reader(out.getvalue().splitlines())
    assert np.array(row[3:], np.float64).astype(np.float32).tobytes() == timeline.probabilities.tobytes()


def test_wide_table_is_identical_to_that_of_pandas(tmp_path, rng):
    file = random_recording("a.wav", 4, rng)
    index = pd.MultiIndex.from_arrays(
        [["a.wav"] * 4, file.timeline.starts, file.timeline.ends], names=["file", "start_time", "end_time"]
    )
    expected = pd.DataFrame(
        file.timeline.probabilities, index=index, columns=[f"label {i}" for i in range(len(LABELS))]
    )
    path = written_wide(tmp_path / "a.csv", [file], labels=list(expected.columns))
    assert path.read_text() == expected.to_csv(lineterminator="\n")


def test_image_has_no_end_in_a_wide_table(tmp_path):
    path = written_wide(tmp_path / "a.csv", [make_image("a.png")], ["Bark"])
    assert path.read_text() == "file,start_time,end_time,Bark\na.png,0.0,,0.25\n"
    table = pq.read_table(written_parquet(tmp_path / "a.parquet", [make_image("a.png")], ["Bark"]))
    assert table.to_pylist() == [{"file": "a.png", "start_time": 0.0, "end_time": None, "Bark": 0.25}]


# ------------------------------------------------------------------------------------------------ multi-hot CSV


def written_multi_hot(path, files, labels):
    with open_output(path) as out:
        write_multi_hot_tags(files, out, labels=LabelSet(tuple(labels)))
    return path


def test_multi_hot_table_is_one_where_the_probability_reaches_the_threshold(tmp_path, rng):
    """The table is that of NumPy's comparison, window by window; a label at its threshold is detected."""
    thresholds = rng.random(len(LABELS)).astype(np.float32)
    probabilities = rng.random((9, len(LABELS))).astype(np.float32)
    probabilities[4], probabilities[5] = thresholds, 0
    starts = np.arange(9) / 3
    timeline = Timeline(starts, starts + 1 / 3, probabilities)
    events = window_events(timeline, LABELS, thresholds)
    path = written_multi_hot(tmp_path / "a.csv", [make_recording("a.wav", *events, timeline=timeline)], LABELS)
    table = pd.read_csv(path, index_col=[0, 1, 2])
    assert np.array_equal(table.to_numpy(), probabilities >= thresholds)
    assert table.index.get_level_values("start_time").tolist() == timeline.starts.tolist()
    assert table.index.get_level_values("end_time").tolist() == timeline.ends.tolist()
    assert list(map(unescape_formula, table.columns)) == list(LABELS)


def test_multi_hot_table_is_a_manifest_with_the_detected_labels(tmp_path):
    windows = Timeline(np.array([0.0, 0.5]), np.array([0.5, 1.0]), np.zeros((2, 2), np.float32))
    files = [
        make_recording(tmp_path / "a.wav", (0.5, 1.0, "Bark, loud", 0.9), (0.5, 1.0, "Hum", 0.8), timeline=windows),
        make_image(tmp_path / "b.png", ("Hum", 0.7)),
    ]
    for file in files:
        Path(file.file).touch()
    manifest = read_manifest(written_multi_hot(tmp_path / "tags.csv", files, ["Hum", "Bark, loud"]))
    assert manifest.labels.names == ("Hum", "Bark, loud")
    assert [(clip.path.name, clip.start_seconds, clip.end_seconds, clip.labels) for clip in manifest.clips] == [
        ("a.wav", 0.0, 0.5, ()),
        ("a.wav", 0.5, 1.0, ("Hum", "Bark, loud")),
        ("b.png", 0.0, None, ("Hum",)),
    ]


def test_multi_hot_table_of_segments_is_an_error():
    with pytest.raises(ValueError, match="no window has the times"):
        write_multi_hot_tags([make_recording("a.wav", (1, 2, "a", 0.9))], io.StringIO(), labels=LabelSet(("a",)))


# ------------------------------------------------------------------------------------------------ Parquet


@given(labels=st.lists(any_text, max_size=5), file=any_text)
def test_pyarrow_reads_any_label_and_any_file_name(labels, file):
    out = io.BytesIO()
    write_parquet([make_recording_with_labels(*labels, file=file)], out)
    table = pq.read_table(io.BytesIO(out.getvalue()))
    assert table.column_names == ["file", "start", "end", "label", "probability"]
    assert table["label"].to_pylist() == labels
    assert set(table["file"].to_pylist()) <= {file}


def test_pandas_reads_all_digits_of_numbers(tmp_path, rng):
    values = rng.random(50).astype(np.float32)
    events = [(i / 3, i / 3 + 0.1, "Bark", float(value)) for i, value in enumerate(values)]
    table = pd.read_parquet(written_parquet(tmp_path / "a.parquet", [make_recording("a.wav", *events)]))
    assert table["start"].tolist() == [event[0] for event in events]
    assert table["end"].tolist() == [event[1] for event in events]
    assert table["probability"].tolist() == values.tolist()
    assert table["probability"].dtype == np.float32


def test_recording_without_events_gives_no_rows(tmp_path):
    table = pd.read_parquet(written_parquet(tmp_path / "a.parquet", [make_recording("a.wav")]))
    assert list(table.columns) == ["file", "start", "end", "label", "probability"]
    assert len(table) == 0


def test_unknown_end_is_null(tmp_path):
    table = pq.read_table(written_parquet(tmp_path / "a.parquet", [make_image("a.png", ("Bark", 0.5))]))
    assert table.to_pylist()[0]["end"] is None


def test_undecodable_name_is_written_with_its_bytes(tmp_path):
    path = written_parquet(tmp_path / "a.parquet", [make_recording(UNDECODABLE_NAME, (0, 1, "Bark", 0.5))])
    assert pq.read_table(path)["file"].to_pylist() == ["caf\\udce9.wav"]
    path = written_parquet(tmp_path / "b.parquet", [make_recording(UNDECODABLE_NAME)], ["Bark"])
    assert pq.read_table(path)["file"].to_pylist() == ["caf\\udce9.wav"]


def test_wide_parquet_equals_the_wide_csv(tmp_path, rng):
    files = [random_recording(name, n, rng) for name, n in zip(FILE_NAMES, (3, 1, 0, 8, 2, 1), strict=True)]
    table = pd.read_parquet(written_parquet(tmp_path / "a.parquet", files, LABELS))
    assert list(table.columns) == ["file", "start_time", "end_time", *LABELS]
    assert np.array_equal(table[list(LABELS)].to_numpy(), np.concatenate([f.timeline.probabilities for f in files]))
    assert table["file"].tolist() == [file.file for file in files for _ in file.timeline.starts]
    assert table["start_time"].tolist() == [start for file in files for start in file.timeline.starts.tolist()]


def test_rows_are_written_in_groups_and_none_is_lost(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(parquet_module, "_GROUP_ROWS", 7)
    monkeypatch.setattr(parquet_module, "_GROUP_PROBABILITIES", 7 * len(LABELS))
    files = [make_recording_with_labels(*map(str, range(n)), file=f"{n}.wav") for n in (0, 5, 9, 1)]
    table = pq.ParquetFile(written_parquet(tmp_path / "a.parquet", files))
    assert [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)] == [7, 7, 1]
    assert table.read()["label"].to_pylist() == [str(i) for n in (0, 5, 9, 1) for i in range(n)]

    files = [random_recording(f"{n}.wav", n, rng) for n in (0, 5, 16, 1)]
    table = pq.ParquetFile(written_parquet(tmp_path / "b.parquet", files, LABELS))
    assert max(table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)) < 14
    assert table.num_row_groups > 2
    assert table.read()["file"].to_pylist() == [f"{n}.wav" for n in (0, 5, 16, 1) for _ in range(n)]


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"writing Parquet needs the package pyarrow: .*spectag\[parquet\]"):
        write_parquet([], io.BytesIO())
