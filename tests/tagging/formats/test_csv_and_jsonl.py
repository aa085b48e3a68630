"""CSV and JSON Lines, read back by pandas and json."""

import csv
import io
import json
from dataclasses import replace

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
from spectag.models.timeline import Timeline
from spectag.system.output import escape_formula, open_output, unescape_formula
from spectag.tagging.formats.csv_and_jsonl import write_csv, write_json, write_jsonl, write_tsv


def csv_of(*files):
    out = io.StringIO(newline="")
    write_csv(files, out)
    return out.getvalue()


def records_of(*files, **settings):
    out = io.StringIO()
    write_jsonl(files, out, **settings)
    return [json.loads(line) for line in out.getvalue().split("\n")[:-1]]


def test_csv_has_a_line_for_each_event():
    files = [
        make_recording("a.wav", (0.0, 1.0, "Bark", 0.9), (0.5, 1.25, "Sink_(filling_or_washing)", 0.7)),
        make_recording("b.wav"),
        make_recording("c.wav", (0, 1, "Hi-hat", 1)),
    ]
    assert csv_of(*files).splitlines() == [
        "file,start,end,label,probability",
        "a.wav,0.000,1.000,Bark,0.900000",
        "a.wav,0.500,1.250,Sink_(filling_or_washing),0.700000",
        "c.wav,0.000,1.000,Hi-hat,1.000000",
    ]


@given(labels=st.lists(any_text, max_size=5), file=any_text)
def test_pandas_reads_any_label_and_any_file_name_from_a_csv(labels, file):
    table = pd.read_csv(
        io.StringIO(csv_of(make_recording_with_labels(*labels, file=file)), newline=""),
        keep_default_na=False,
        dtype=str,
    )
    assert [unescape_formula(label) for label in table["label"]] == labels
    assert set(table["file"]) <= {escape_formula(file)}


@given(labels=st.lists(any_text, max_size=5), file=any_text)
def test_csv_module_reads_any_label_and_any_file_name(labels, file):
    rows = list(csv.DictReader(io.StringIO(csv_of(make_recording_with_labels(*labels, file=file)), newline="")))
    read = [(unescape_formula(row["file"]), unescape_formula(row["label"])) for row in rows]
    assert read == [(file, label) for label in labels]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_times_and_probabilities_are_read_as_numbers(name):
    (row,) = pd.read_csv(io.StringIO(csv_of(make_recording(name, (0.5, 1.25, "1", 0.123456)))))[:1].to_dict("records")
    assert row == {"file": escape_formula(name), "start": 0.5, "end": 1.25, "label": 1, "probability": 0.123456}


def test_image_has_no_end():
    assert csv_of(make_image("a.png", ("Bark", 0.9))).splitlines()[1] == "a.png,0.000,,Bark,0.900000"
    assert records_of(make_image("a.png", ("Bark", 0.9)))[0]["end"] is None


def make_windows(*rows):
    starts = np.arange(len(rows)) * 2.0
    return Timeline(starts, starts + 2, np.array(rows, np.float32))


def test_jsonl_has_an_object_for_each_window_even_without_tags():
    two = make_recording(
        "a.wav", (0.0, 2.0, "Bark", 0.9), (0.0, 2.0, "Hi-hat", 0.12345678), timeline=make_windows([1], [0])
    )
    assert records_of(two) == [
        {
            "file": "a.wav",
            "start": 0.0,
            "end": 2.0,
            "tags": [{"label": "Bark", "probability": 0.9}, {"label": "Hi-hat", "probability": 0.123457}],
        },
        {"file": "a.wav", "start": 2.0, "end": 4.0, "tags": []},
    ]


def test_json_and_csv_have_the_same_times():
    sound = make_recording("a.wav", (1.23456789, 5.0009977324263035, "Bark", 0.9))
    sound = replace(sound, by_window=False)
    [record], out = records_of(sound), io.StringIO()
    write_csv([sound], out)
    assert (record["start"], record["end"]) == (1.235, 5.001)
    assert out.getvalue().splitlines()[1].startswith("a.wav,1.235,5.001,")


def test_jsonl_has_an_object_for_each_segment():
    two = make_recording("a.wav", (0.0, 3.0, "Bark", 0.9), (1.0, 2.0, "Hi-hat", 0.8), timeline=make_windows([1], [0]))
    assert records_of(replace(two, by_window=False)) == [
        {"file": "a.wav", "start": 0.0, "end": 3.0, "tags": [{"label": "Bark", "probability": 0.9}]},
        {"file": "a.wav", "start": 1.0, "end": 2.0, "tags": [{"label": "Hi-hat", "probability": 0.8}]},
    ]


def test_event_without_a_window_is_an_error():
    with pytest.raises(ValueError, match=r"a\.wav: no window has the times of the event at \(0\.0, 3\.0\) s"):
        records_of(make_recording("a.wav", (0.0, 3.0, "Bark", 0.9), timeline=make_windows([1], [0])))


@given(labels=st.lists(any_text, max_size=5), file=any_text)
def test_json_reads_any_label_and_any_file_name(labels, file):
    records = records_of(replace(make_recording_with_labels(*labels, file=file), by_window=False))
    assert [record["tags"][0]["label"] for record in records] == labels
    assert {record["file"] for record in records} <= {file}


def test_json_is_the_list_of_the_objects_of_json_lines():
    files = [make_recording_with_labels(*TRICKY_LABELS), make_recording("b.wav")]
    out = io.StringIO(newline="")
    write_json([replace(file, by_window=False) for file in files], out)
    assert json.loads(out.getvalue()) == records_of(replace(files[0], by_window=False))
    assert len(out.getvalue().splitlines()) == len(TRICKY_LABELS) + 2
    empty = io.StringIO(newline="")
    write_json([], empty)
    assert json.loads(empty.getvalue()) == []


def test_tsv_has_the_fields_of_the_csv():
    recording = make_recording_with_labels(*TRICKY_LABELS, *MULTILINE_LABELS)
    out = io.StringIO(newline="")
    write_tsv([recording], out)
    rows = list(csv.reader(io.StringIO(out.getvalue(), newline=""), delimiter="\t"))
    assert rows == list(csv.reader(io.StringIO(csv_of(recording), newline="")))


def test_pandas_reads_json_lines(tmp_path):
    with open_output(tmp_path / "a.jsonl") as out:
        recording = make_recording_with_labels(*TRICKY_LABELS, *MULTILINE_LABELS)
        write_jsonl([replace(recording, by_window=False)], out)
    table = pd.read_json(tmp_path / "a.jsonl", lines=True)
    assert [tags[0]["label"] for tags in table["tags"]] == [*TRICKY_LABELS, *MULTILINE_LABELS]


def test_undecodable_name_is_read_back_from_json(tmp_path):
    for write, path in ((write_csv, tmp_path / "a.csv"), (write_jsonl, tmp_path / "a.jsonl")):
        with open_output(path) as out:
            write([make_recording(UNDECODABLE_NAME, (0.0, 10.0, "Bark", 0.9))], out)
    assert "caf\\udce9.wav" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))["file"] == UNDECODABLE_NAME


def test_novelty_is_the_last_column_if_the_model_has_it():
    file = make_recording("a.wav", (0.0, 1.0, "Bark", 0.5, 1.23456))
    out = io.StringIO(newline="")
    write_csv([file], out, has_novelty=True)
    assert out.getvalue() == "file,start,end,label,probability,novelty\na.wav,0.000,1.000,Bark,0.500000,1.235\n"
    segments = replace(file, by_window=False)
    [record] = records_of(segments, has_novelty=True)
    assert record["novelty"] == 1.235
    assert "novelty" not in csv_of(file)
    assert "novelty" not in records_of(segments)[0]


def test_each_window_has_its_novelty_in_json_lines_also_without_tags():
    probabilities, novelty = np.zeros((2, 1), np.float32), np.array([0.25, 2], np.float32)
    timeline = Timeline(np.arange(2.0), np.arange(2.0) + 1, probabilities, novelty)
    records = records_of(make_recording("a.wav", timeline=timeline), has_novelty=True)
    assert [record["novelty"] for record in records] == [0.25, 2.0]
    assert [record["tags"] for record in records] == [[], []]
