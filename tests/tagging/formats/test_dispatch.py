"""Each format is written by its name."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers.file_events import make_recording
from spectag.errors import DataError
from spectag.models.timeline import Timeline
from spectag.system.paths import common_folder
from spectag.tagging.formats.dispatch import FORMATS, write


def recordings():
    windows = Timeline(np.array([0.0, 5.0]), np.array([5.0, 10.0]), np.array([[0.9, 0.1], [0.2, 0.3]], np.float32))
    yield make_recording("/rec/x/a.wav", (0.0, 5.0, "Bark", 0.9), timeline=windows)
    yield make_recording("/rec/b.wav", timeline=windows)


def written_as(name, location, *, files=None, by_window=True, in_folder=True):
    write(
        name,
        recordings() if files is None else files,
        location,
        labels=("Bark", "Hi-hat"),
        by_window=by_window,
        root=common_folder(file.file for file in recordings()),
        low_hz=0,
        high_hz=16_000,
        in_folder=in_folder,
    )
    return location


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_tells_what_is_heard(tmp_path, name):
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    location = written_as(name, tmp_path / ("out" if FORMATS[name].in_folder else f"tags{FORMATS[name].suffix}"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.name.endswith(FORMATS[name].suffix) for path in files)
    assert len(files) == (2 if FORMATS[name].in_folder else 1)
    if "parquet" in name:
        table = pd.read_parquet(location)
        assert "Bark" in (table["label"].tolist() if name == "parquet" else table.columns)
    else:
        assert any("Bark" in path.read_text() for path in files)


def test_formats_of_one_file_can_lie_side_by_side():
    suffixes = [kind.suffix for kind in FORMATS.values() if not kind.in_folder]
    assert len(set(suffixes)) == len(suffixes)


def test_raven_without_a_folder_is_the_table_of_all(tmp_path, capsys):
    written_as("raven", None)
    one = capsys.readouterr().out
    assert one == written_as("raven-combined", tmp_path / "all.txt").read_text()
    assert written_as("raven", tmp_path / "one.txt", in_folder=False).read_text() == one


def test_audacity_without_a_folder_is_the_track_of_a_single_recording(tmp_path, capsys):
    written_as("audacity", None, files=list(recordings())[:1])
    assert capsys.readouterr().out == "0.000000\t5.000000\tBark\n"
    with pytest.raises(DataError, match=r"/rec/b\.wav: a label track .* of one recording.*give a folder as -o"):
        written_as("audacity", tmp_path / "a.txt", in_folder=False)
    assert list(tmp_path.iterdir()) == []


def test_json_lines_have_all_windows_or_the_segments_alone(capsys):
    for by_window, n_objects in ((True, 4), (False, 1)):
        written_as("jsonl", None, by_window=by_window)
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(records) == n_objects


def test_addresses_are_written_to():
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    try:
        written_as("csv", "memory://formats/tags.csv")
        written_as("raven", "memory://formats/raven")
        assert sorted(memory.find("/formats")) == [
            "/formats/raven/b.Table.1.selections.txt",
            "/formats/raven/x/a.Table.1.selections.txt",
            "/formats/tags.csv",
        ]
        assert memory.cat("/formats/tags.csv").decode().splitlines()[1] == "/rec/x/a.wav,0.000,5.000,Bark,0.900000"
    finally:
        memory.rm("/formats", recursive=True)
