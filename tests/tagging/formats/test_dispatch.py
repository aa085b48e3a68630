"""Every format can be written by its name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.file_events import make_recording
from spectag.audio.files import write_audio
from spectag.data.labels import LabelSet
from spectag.errors import DataError
from spectag.models.timeline import Timeline
from spectag.system.paths import common_folder
from spectag.tagging.formats.dispatch import FORMATS, TableContext, write
from spectag.tagging.formats.submission import Template


def recordings():
    windows = Timeline(np.array([0.0, 5.0]), np.array([5.0, 10.0]), np.array([[0.9, 0.1], [0.2, 0.3]], np.float32))
    yield make_recording("/rec/x/a.wav", (0.0, 5.0, "Bark", 0.9), timeline=windows)
    yield make_recording("/rec/b.wav", timeline=windows)


def whole_clip():
    timeline = Timeline(np.zeros(1), np.ones(1), np.array([[0.9, 0.1]], np.float32))
    return make_recording("/rec/x/a.wav", timeline=timeline)


def write_as(name, location, *, files=None, in_folder=True):
    context = TableContext(
        labels=LabelSet(("Bark", "Hi-hat")),
        root=common_folder(file.file for file in recordings()),
        low_hz=0,
        high_hz=16_000,
        template=Template(Path("t.csv"), "fname", ("Bark",), ("a.wav",)),
    )
    write(name, recordings() if files is None else files, location, context, in_folder=in_folder)
    return location


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_contains_the_label(tmp_path, tmp_path_factory, name):
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    if name == "xlsx":
        pytest.importorskip("xlsxwriter")
    in_folder, suffix = FORMATS[name].write_recording is not None, FORMATS[name].suffix
    files = [whole_clip()] if name == "submission" else None
    if name in ("sonic-visualiser", "soundevent"):  # they open the recordings
        files = [replace(file, file=str(tmp_path_factory.mktemp("sounds") / "a.wav")) for file in recordings()]
        for file in files:
            write_audio(file.file, np.zeros(80_000, np.float32), 8000)
    location = write_as(name, tmp_path / ("out" if in_folder else f"tags{suffix}"), files=files)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.name.endswith(suffix) for path in files)
    assert len(files) == (2 if in_folder else 1)
    if "parquet" in name:
        table = pd.read_parquet(location)
        assert "Bark" in (table["label"].tolist() if name == "parquet" else table.columns)
    elif name == "xlsx":
        assert "Bark" in pd.read_excel(location)["label"].tolist()
    else:
        assert any("Bark" in path.read_text() for path in files)


def test_single_tables_have_different_names():
    names = [each.stem + each.suffix for each in FORMATS.values() if each.write_recording is None]
    assert len(set(names)) == len(names)


def test_raven_without_a_folder_writes_the_combined_table(tmp_path, capsys):
    write_as("raven", None)
    table = capsys.readouterr().out
    assert table == write_as("raven-combined", tmp_path / "all.txt").read_text()
    assert write_as("raven", tmp_path / "one.txt", in_folder=False).read_text() == table


def test_audacity_without_a_folder_writes_the_track_of_one_recording(tmp_path, capsys):
    write_as("audacity", None, files=list(recordings())[:1])
    assert capsys.readouterr().out == "0.000000\t5.000000\tBark\n"
    with pytest.raises(
        DataError, match=r"/rec/b\.wav: a second recording, but an Audacity track holds one; give a folder as -o"
    ):
        write_as("audacity", tmp_path / "a.txt", in_folder=False)
    assert list(tmp_path.iterdir()) == []


def test_jsonl_has_all_windows_or_only_segments(capsys):
    files = [list(recordings()), list(recordings())]
    segments = [replace(file, by_window=False) for file in files[1]]
    for chosen, n_objects in ((files[0], 4), (segments, 1)):
        write_as("jsonl", None, files=chosen)
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(records) == n_objects


def test_urls_are_written_to():
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    try:
        write_as("csv", "memory://formats/tags.csv")
        write_as("raven", "memory://formats/raven")
        assert sorted(memory.find("/formats")) == [
            "/formats/raven/b.Table.1.selections.txt",
            "/formats/raven/x/a.Table.1.selections.txt",
            "/formats/tags.csv",
        ]
        assert memory.cat("/formats/tags.csv").decode().splitlines()[1] == "/rec/x/a.wav,0.000,5.000,Bark,0.900000"
    finally:
        memory.rm("/formats", recursive=True)
