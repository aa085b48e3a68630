"""Markers of audio editors."""

import csv
import io

import pytest
from hypothesis import given

from helpers.file_events import TRICKY_LABELS, any_text, make_image, make_recording, make_recording_with_labels
from spectag.errors import DataError
from spectag.system.output import one_line, unescape_formula
from spectag.tagging.formats.markers import write_audition, write_only_audition, write_reaper


def written(write, file):
    out = io.StringIO(newline="")
    write(file, out)
    return out.getvalue()


EVENTS = ((0.25, 1.0, "Dog", 0.5), (59.9996, 61.5, "Türklingel", 0.25), (3723.004, 7200.0, "Cat", 0.125))


def test_reaper_regions_are_as_its_region_manager_writes_them():
    assert written(write_reaper, make_recording("a.wav", *EVENTS)).splitlines() == [
        "#,Name,Start,End,Length",
        "R1,Dog,0:00:00.250,0:00:01.000,0:00:00.750",
        "R2,Türklingel,0:01:00.000,0:01:01.500,0:00:01.500",
        "R3,Cat,1:02:03.004,2:00:00.000,0:57:56.996",
    ]


def test_audition_cues_are_as_its_markers_panel_writes_them():
    assert written(write_audition, make_recording("a.wav", *EVENTS)).splitlines() == [
        "Name\tStart\tDuration\tTime Format\tType\tDescription",
        "Dog\t0:00.250\t0:00.750\tdecimal\tCue\t0.500000",
        "Türklingel\t1:00.000\t0:01.500\tdecimal\tCue\t0.250000",
        "Cat\t1:02:03.004\t57:56.996\tdecimal\tCue\t0.125000",
    ]


@given(any_text)
def test_any_label_stays_in_its_field(label):
    recording = make_recording_with_labels(label, "x")
    rows = list(csv.reader(io.StringIO(written(write_reaper, recording), newline="")))
    assert [unescape_formula(row[1]) for row in rows[1:]] == [one_line(label), "x"]
    lines = written(write_audition, recording).rstrip("\n").split("\n")
    assert [len(line.split("\t")) for line in lines] == [6, 6, 6]
    assert unescape_formula(lines[1].split("\t")[0]) == one_line(label)


def test_no_program_runs_a_label_as_a_formula():
    recording = make_recording_with_labels(*TRICKY_LABELS)
    assert "R8,'=1+1,0:00:07.000" in written(write_reaper, recording)
    assert "\n'=1+1\t0:07.000" in written(write_audition, recording)


@pytest.mark.parametrize("write", [write_reaper, write_audition])
def test_an_image_is_refused(write):
    with pytest.raises(DataError, match=r"a\.png: an image has no times"):
        write(make_image("a.png", ("Dog", 0.5)), io.StringIO())


def test_a_single_file_holds_one_recording():
    files = [make_recording(name, (0.0, 1.0, "Dog", 0.5)) for name in ("a.wav", "b.wav")]
    with pytest.raises(DataError, match=r"b\.wav: a second recording.*give a folder as -o"):
        write_only_audition(iter(files), io.StringIO())
