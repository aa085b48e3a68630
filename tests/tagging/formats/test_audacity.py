"""Label tracks, read back by crowsetta, and by mir_eval, which keeps quotation marks as Audacity does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.file_events import (
    MULTILINE_LABELS,
    TRICKY_LABELS,
    any_text,
    make_image,
    make_recording,
    make_recording_with_labels,
    write_folder,
)
from spectag.errors import DataError
from spectag.system.output import one_line


def tracks_of(folder, *files):
    write_folder("audacity", files, folder)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_track_has_lines_of_three_fields_and_no_header(tmp_path):
    events = (0.5, 2.0, "Bark", 0.9), (1 / 3, 3.25, "tab\there", 0.8)
    assert tracks_of(tmp_path, make_recording("/rec/a.wav", *events)) == {
        "a.txt": "0.500000\t2.000000\tBark\n0.333333\t3.250000\ttab here\n"
    }


def test_each_recording_has_a_track_in_its_folder_even_without_events(tmp_path):
    files = [
        make_recording("/rec/x/a.wav", (0, 1, "Bark", 0.5)),
        make_recording("/rec/y/a.wav"),
        make_recording("/rec/y/a.mp3"),
    ]
    assert tracks_of(tmp_path, *files) == {
        "x/a.txt": "0.000000\t1.000000\tBark\n",
        "y/a.txt": "",
        "y/a.mp3.txt": "",
    }


def test_crowsetta_reads_a_track(tmp_path):
    crowsetta = pytest.importorskip("crowsetta")
    labels = [
        one_line(label) for label in (*TRICKY_LABELS, *MULTILINE_LABELS) if not label.startswith('"')
    ]  # crowsetta would unquote these
    tracks_of(tmp_path, make_recording_with_labels(*labels))
    sequence = crowsetta.formats.seq.AudSeq.from_file(tmp_path / "a.txt").to_seq()
    assert sequence.labels.tolist() == labels
    assert sequence.onsets_s.tolist() == [float(i) for i in range(len(labels))]
    assert sequence.offsets_s.tolist() == [i + 0.5 for i in range(len(labels))]


def test_mir_eval_reads_a_track_with_quotation_marks(tmp_path):
    io = pytest.importorskip("mir_eval.io")
    labels = [
        one_line(label).strip() for label in (*TRICKY_LABELS, *MULTILINE_LABELS) if not label.startswith("#")
    ]  # comments
    tracks_of(tmp_path, make_recording_with_labels(*labels))
    intervals, found = io.load_labeled_intervals(str(tmp_path / "a.txt"), delimiter="\t")
    assert found == labels
    assert intervals.tolist() == [[i, i + 0.5] for i in range(len(labels))]


@given(labels=st.lists(any_text, max_size=5))
def test_any_label_becomes_one_field_of_one_line(labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracks")
    tracks_of(folder, make_recording_with_labels(*labels))
    lines = (folder / "a.txt").read_bytes().decode().split("\n")[:-1]
    assert [line.split("\t")[2:] for line in lines] == [[one_line(label)] for label in labels]
    assert lines == "\n".join(lines).splitlines()


def test_image_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: an image has no times for this format"):
        tracks_of(tmp_path, make_image("a.png", ("Bark", 0.9)))
