"""Selection tables, read back by crowsetta, by pandas, and the way OpenSoundscape does it."""

import io

import numpy as np
import pandas as pd
import pytest
import soundfile
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
    write_folder,
)
from spectag.data.manifest import read_manifest
from spectag.errors import DataError
from spectag.system.output import one_line, open_output
from spectag.tagging.formats.raven import write_raven_combined

crowsetta = pytest.importorskip("crowsetta")
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # crowsetta's, in pandas 3

ONE_LINE = (*TRICKY_LABELS, *map(one_line, MULTILINE_LABELS))


def tables_of(tmp_path, *files):
    """The paths of the tables written to tmp_path / out."""
    write_folder("raven", files, tmp_path / "out")
    return sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.txt"))


def combined(*files):
    out = io.StringIO(newline="")
    write_raven_combined(files, out, low_hz=50.5, high_hz=14_000)
    return pd.read_csv(
        io.StringIO(out.getvalue(), newline=""), sep="\t", keep_default_na=False, dtype={"Annotation": str}
    )


# ------------------------------------------------------------------------------------------------ single tables


def test_table_looks_like_one_that_raven_saved(tmp_path):
    file = tmp_path / "rec" / "a.wav"
    tables_of(tmp_path, make_recording(file, (0.5, 2.0, "Bark", 0.9), (2.0, 3.25, "Hi-hat", 0.123456789)))
    assert (tmp_path / "out" / "a.Table.1.selections.txt").read_text().splitlines() == [
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\tScore\t"
        "Begin Path\tFile Offset (s)",
        f"1\tSpectrogram 1\t1\t0.500000\t2.000000\t0.0\t16000.0\tBark\t0.900000\t{file}\t0.500000",
        f"2\tSpectrogram 1\t1\t2.000000\t3.250000\t0.0\t16000.0\tHi-hat\t0.123457\t{file}\t2.000000",
    ]


def test_crowsetta_reads_the_boxes_of_a_table(tmp_path):
    tables_of(tmp_path, make_recording("a.wav", *((i / 3, i / 3 + 1, label, 0.5) for i, label in enumerate(ONE_LINE))))
    boxes = crowsetta.formats.bbox.Raven.from_file(tmp_path / "out" / "a.Table.1.selections.txt").to_bbox()
    assert [box.label for box in boxes] == list(ONE_LINE)
    assert [box.onset for box in boxes] == pytest.approx([i / 3 for i in range(len(ONE_LINE))], abs=1e-6)
    assert [box.offset for box in boxes] == pytest.approx([i / 3 + 1 for i in range(len(ONE_LINE))], abs=1e-6)
    assert {(box.low_freq, box.high_freq) for box in boxes} == {(0.0, 16_000.0)}


def test_labels_are_in_the_default_column_of_opensoundscape(tmp_path):
    tables_of(tmp_path, make_recording_with_labels(*ONE_LINE))
    table = pd.read_csv(tmp_path / "out" / "a.Table.1.selections.txt", delimiter="\t")
    assert table.iloc[:, 8 - 1].tolist() == list(ONE_LINE)  # its default annotation_column_idx=8


@given(labels=st.lists(any_text, min_size=1, max_size=5), file=any_text)
def test_any_label_becomes_one_line(labels, file):
    table = combined(make_recording_with_labels(*labels, file=f"/{file.replace('/', '')}"))
    assert table["Annotation"].tolist() == [one_line(label) for label in labels]
    assert table["Selection"].tolist() == list(range(1, len(labels) + 1))


def test_recording_without_events_has_an_empty_table(tmp_path):
    assert tables_of(tmp_path, make_recording("/rec/a.wav")) == ["a.Table.1.selections.txt"]
    assert len(pd.read_csv(tmp_path / "out" / "a.Table.1.selections.txt", sep="\t")) == 0


def test_tables_are_in_the_folders_of_their_recordings(tmp_path):
    files = ["/rec/x/a.wav", "/rec/y/a.wav", "/rec/y/a.flac", "/rec/b.wav"]
    assert tables_of(tmp_path, *(make_recording(file, (0, 1, "Bark", 0.5)) for file in files)) == [
        "b.Table.1.selections.txt",
        "x/a.Table.1.selections.txt",
        "y/a.Table.1.selections.txt",
        "y/a.flac.Table.1.selections.txt",
    ]
    table = pd.read_csv(tmp_path / "out" / "y" / "a.flac.Table.1.selections.txt", sep="\t")
    assert table["Begin Path"].tolist() == ["/rec/y/a.flac"]


def test_names_that_differ_only_in_case_get_different_tables(tmp_path):
    assert tables_of(tmp_path, make_recording("/rec/A.wav"), make_recording("/rec/a.wav")) == [
        "A.Table.1.selections.txt",
        "a.wav.Table.1.selections.txt",
    ]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_begin_path_is_the_absolute_path_of_any_name(tmp_path, name):
    tables_of(tmp_path, make_recording(tmp_path / name, (0, 1, "Bark", 0.5)))
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == f"{name.removesuffix('.wav')}.Table.1.selections.txt"
    assert pd.read_csv(path, sep="\t")["Begin Path"].tolist() == [str(tmp_path / name)]


def test_relative_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert combined(make_recording("a.wav", (0, 1, "Bark", 0.5)))["Begin Path"].tolist() == [str(tmp_path / "a.wav")]
    assert combined(make_recording("s3://b/a.wav", (0, 1, "Bark", 0.5)))["Begin Path"].tolist() == ["s3://b/a.wav"]


def test_file_with_an_undecodable_name_has_a_table(tmp_path):
    tables_of(tmp_path, make_recording(tmp_path / UNDECODABLE_NAME, (0, 1, "Bark", 0.5)))
    (path,) = (tmp_path / "out").iterdir()
    assert path.read_text().endswith("/caf\\udce9.wav\t0.000000\n")


def test_tables_can_be_read_as_a_manifest(tmp_path):
    """Tags that were corrected in Raven are read with their times and labels."""
    for name in ("a.wav", "zwölf Töne.wav"):
        soundfile.write(tmp_path / name, np.zeros(32_000, np.float32), 8_000)
    files = [
        make_recording(tmp_path / "a.wav", (0.0, 1.0, "Bark", 0.9), (2.5, 4.0, "Türklingel", 0.5), duration=4.0),
        make_recording(tmp_path / "zwölf Töne.wav", (1.0, 2.0, "Bark", 0.9), duration=4.0),
    ]
    expected = [("a.wav", 0.0, 1.0, ("Bark",)), ("a.wav", 2.5, 4.0, ("Türklingel",))]
    expected.append(("zwölf Töne.wav", 1.0, 2.0, ("Bark",)))

    write_folder("raven", files, tmp_path, high_hz=4_000)
    with open_output(tmp_path / "all" / "all.selections.txt") as out:
        write_raven_combined(files, out, low_hz=0, high_hz=4_000)
    for source in (tmp_path, tmp_path / "all" / "all.selections.txt"):
        clips = read_manifest(source, audio_dir=tmp_path).clips
        assert [(c.path.name, c.start_seconds, c.end_seconds, c.labels) for c in clips] == expected


# ------------------------------------------------------------------------------------------------ one table


def test_combined_table_adds_up_the_lengths_of_all_recordings():
    table = combined(
        make_recording("/rec/a.wav", (1.0, 2.0, "Bark", 0.9), (4.0, 5.0, "Hi-hat", 0.8), duration=10.5),
        make_recording("/rec/silent.wav", duration=20.25),
        make_recording("/rec/b.wav", (0.0, 3.0, "Bark", 0.7), duration=5.0),
        make_recording("/rec/c.wav", (2.0, 3.0, "Bark", 0.6), duration=5.0),
    )
    assert table["Begin Time (s)"].tolist() == [1.0, 4.0, 30.75, 37.75]
    assert table["End Time (s)"].tolist() == [2.0, 5.0, 33.75, 38.75]
    assert table["File Offset (s)"].tolist() == [1.0, 4.0, 0.0, 2.0]
    assert table["Begin Path"].tolist() == ["/rec/a.wav", "/rec/a.wav", "/rec/b.wav", "/rec/c.wav"]
    assert table["Selection"].tolist() == [1, 2, 3, 4]
    assert set(table["Low Freq (Hz)"]) == {50.5}


def test_crowsetta_reads_a_combined_table(tmp_path):
    with open_output(tmp_path / "all.selections.txt") as out:
        files = [
            make_recording("a.wav", (1.0, 2.0, "Bark", 0.9)),
            make_recording("b.wav", (0.0, 1.0, "Bark, loud", 0.9)),
        ]
        write_raven_combined(files, out, low_hz=0, high_hz=16_000)
    boxes = crowsetta.formats.bbox.Raven.from_file(tmp_path / "all.selections.txt").to_bbox()
    assert [(box.onset, box.label) for box in boxes] == [(1.0, "Bark"), (10.0, "Bark, loud")]


def test_images_and_recordings_of_unknown_length_are_errors(tmp_path):
    with pytest.raises(
        DataError, match=r"a\.png: an image has no times for this format; write csv, jsonl, parquet or wide"
    ):
        tables_of(tmp_path, make_image("a.png", ("Bark", 0.9)))
    with pytest.raises(DataError, match=r"a\.png: its length is unknown"):
        combined(make_image("a.png"))
