"""Tables of detections: one recording under several names, and lines that cannot be true."""

import json

import numpy as np
import pytest
import soundfile

from spectag.data.detections import read_detections
from spectag.data.relabelling import relabel
from spectag.errors import DataError
from spectag.system.output import csv_writer

HEADER = "file,start,end,label,probability\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with a recording."""
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 1000)
    return tmp_path


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_every_spelling_of_a_recording_is_one_recording_and_shown_as_in_the_table(folder):
    (folder / "tables").mkdir()
    spellings = [str(folder / "a.wav"), "../a.wav", "../tables/../a.wav"]
    lines = "".join(f"{name},1,2,Dog,0.9\n" for name in spellings)
    table = read_detections(write(folder / "tables" / "tags.csv", HEADER + lines))
    assert table.recordings == ((folder / "a.wav").resolve(),)
    assert {detection.path for detection in table.detections} == set(table.recordings)
    assert [detection.file for detection in table.detections] == spellings


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_labels_that_look_like_escaped_formulas_are_read_as_they_were_written(folder, delimiter):
    labels = ["'=1+1", "=1+1", "''=1+1", "Dog"]
    table = folder / "tags"
    with table.open("w", encoding="utf-8", newline="") as file:
        write_row = csv_writer(file, delimiter=delimiter)
        write_row(HEADER.strip().split(","))
        for label in labels:
            write_row(["a.wav", "1", "2", label, "0.9"])
    assert [sound.label for sound in read_detections(table).detections] == labels
    relabel(table, {"Dog": "'@Hound"}, folder / "new")
    assert [sound.label for sound in read_detections(folder / "new").detections] == [*labels[:3], "'@Hound"]


GOOD = {"file": "a.wav", "start": 1.0, "end": 2.0, "label": "Dog", "probability": 0.5}
IN_ALL_TABLES = [
    ({"end": 1.0}, "the sound ends at 1 s but starts at 1 s; expected an end after the start"),
    ({"end": 0.5}, "the sound ends at 0.5 s but starts at 1 s"),
    ({"label": " "}, "the label is '.*'; expected the name of a sound"),
    ({"probability": 1.5}, "the probability is 1.5; expected a number from 0 to 1"),
    ({"probability": -0.1}, "the probability is -0.1; expected a number from 0 to 1"),
    ({"start": -3.0}, "start is '?-3.0'?; expected seconds, 0 or more"),
    ({"start": float("nan")}, "start is '?nan'?; expected seconds, 0 or more"),
    ({"end": float("inf")}, "end is '?inf'?; expected seconds, 0 or more"),
]
WITH_TYPES = [
    ({"file": None}, "the file name is missing; expected the name of a recording"),
    ({"label": None}, "the label is missing; expected the name of a sound"),
    ({"start": None}, "the start is missing; expected seconds, 0 or more"),
    ({"start": "1.0"}, "the start is '1.0'; expected seconds, 0 or more"),
    ({"end": "2.0"}, "the end is '2.0'; expected seconds, 0 or more"),
    ({"probability": "0.5"}, "the probability is '0.5'; expected a number from 0 to 1"),
    ({"probability": float("nan")}, "the probability is nan; expected a number from 0 to 1"),
]


@pytest.mark.parametrize(("change", "message"), IN_ALL_TABLES)
def test_lines_of_csv_that_cannot_be_true_are_errors(folder, change, message):
    lines = (",".join(map(str, record.values())) for record in (GOOD, GOOD | change))
    with pytest.raises(DataError, match=f"tags.csv, line 3: .*{message}"):
        read_detections(write(folder / "tags.csv", HEADER + "\n".join(lines)))


@pytest.mark.parametrize(("change", "message"), [*IN_ALL_TABLES, *WITH_TYPES, ({"start": 10**400}, "start is 1000")])
def test_objects_of_json_lines_that_cannot_be_true_are_errors(folder, change, message):
    lines = []
    for record in (GOOD, GOOD | change):
        tag = {name: record[name] for name in ("label", "probability")}
        lines.append(json.dumps({name: record[name] for name in ("file", "start", "end")} | {"tags": [tag]}))
    with pytest.raises(DataError, match=f"tags.jsonl, line 2: .*{message}"):
        read_detections(write(folder / "tags.jsonl", "\n".join(lines)))


@pytest.mark.parametrize(("change", "message"), [*IN_ALL_TABLES, *WITH_TYPES])
def test_rows_of_parquet_that_cannot_be_true_are_errors(folder, change, message):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (name, value), *_ = change.items()
    good = str(GOOD[name]) if isinstance(value, str) and name != "label" else GOOD[name]
    n_good = 0 if isinstance(value, str) else 1  # a column has one type
    columns = {key: n_good * [GOOD[key]] + [GOOD[key]] for key in GOOD} | {name: n_good * [good] + [value]}
    parquet.write_table(arrow.table(columns), folder / "tags.parquet")
    with pytest.raises(DataError, match=f"tags.parquet, row {n_good + 1}: .*{message}"):
        read_detections(folder / "tags.parquet")


def test_folder_of_recordings_is_an_error_that_says_to_tag_it_first(folder):
    with pytest.raises(
        DataError, match=r"folder of recordings, such as a\.wav, not of detections; tag it first: spectag"
    ):
        read_detections(folder)
    (folder / "sub").mkdir()
    (folder / "a.wav").rename(folder / "sub" / "a.wav")  # not a label, as it is in a folder to train on
    with pytest.raises(DataError, match="folder of recordings"):
        read_detections(folder)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no selection tables or label tracks"):
        read_detections(folder / "empty")
    write(folder / "sub" / "a.txt", "1.0\t2.0\tDog\n")
    assert [row.label for row in read_detections(folder).detections] == ["Dog"]


def test_missing_end_is_the_end_of_the_recording_and_an_object_without_tags_names_its_recording(folder):
    lines = [{"file": "a.wav", "start": 0, "end": None, "tags": [{"label": "Dog", "probability": 1}]}]
    [detection] = read_detections(write(folder / "one.jsonl", json.dumps(lines[0]))).detections
    assert (detection.start_seconds, detection.end_seconds, detection.probability) == (0, None, 1)
    table = read_detections(write(folder / "none.jsonl", json.dumps(lines[0] | {"tags": []})))
    assert (len(table.detections), len(table.recordings)) == (0, 1)


def test_json_list_is_read_like_json_lines(folder):
    """The text is that of `spectag tag --format json`: an object in each line."""
    records = [
        {"file": "a.wav", "start": n, "end": n + 1, "tags": [{"label": "Dog", "probability": 0.5}]} for n in (0, 1)
    ]
    lines = [json.dumps(record) for record in records]
    in_list = read_detections(write(folder / "tags.json", "[\n" + ",\n".join(lines) + "\n]\n")).detections
    assert in_list == read_detections(write(folder / "tags.jsonl", "\n".join(lines))).detections
    for text, message in (
        ("{}", "expected a list"),
        ("[", "not JSON"),
        ('[{"file": "a.wav"}]', "entry 1: expected an"),
    ):
        with pytest.raises(DataError, match=message):
            read_detections(write(folder / "bad.json", text))


WINDOWS = "file,start_time,end_time,Dog\na.wav,0,1,0.7\na.wav,1,2,0.2\n"


def test_table_of_probabilities_names_the_option_of_its_caller(folder):
    table = write(folder / "wide.csv", WINDOWS)
    message = "a probability for each of 1 labels in each window, not detections; "
    with pytest.raises(DataError, match=f"{message}say which .* with --min-probability, such as --min-probability 0.5"):
        read_detections(table, min_option="--min-probability")
    with pytest.raises(DataError, match=f"{message}expected a start, an end and a label in each line"):
        read_detections(table, min_option=None)


def test_recordings_without_detections_are_named_by_a_table_of_probabilities(folder):
    table = read_detections(write(folder / "wide.csv", WINDOWS), min_in_windows=0.9)
    assert (len(table.detections), len(table.recordings)) == (0, 1)
    [detection] = read_detections(folder / "wide.csv", min_in_windows=0.5).detections
    assert (detection.label, detection.end_seconds, detection.probability) == ("Dog", 1.0, 0.7)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.wav,1,2,-3.5", "the probability is -3.5; expected a number from 0 to 1"),
        ("a.wav,2,2,0.7", "the sound ends at 2 s but starts at 2 s"),
        (",1,2,0.7", "the file name is ''"),
    ],
)
def test_windows_that_cannot_be_true_are_errors(folder, line, message):
    with pytest.raises(DataError, match=f"wide.csv, line 4: {message}"):
        read_detections(write(folder / "wide.csv", WINDOWS + line), min_probability=0.5)


def test_wide_parquet_is_read_like_the_wide_csv(folder):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = ["file", "start_time", "end_time", "Dog", "Cat, big"]
    columns = [["a.wav"] * 2, [0.0, 1.0], [1.0, None], np.float32([0.7, 0.2]), np.float32([0.1, 0.9])]
    parquet.write_table(arrow.table(dict(zip(names, columns, strict=True))), folder / "tags.wide.parquet")
    text = 'file,start_time,end_time,Dog,"Cat, big"\na.wav,0,1,0.7,0.1\na.wav,1,,0.2,0.9\n'
    expected = read_detections(write(folder / "tags.wide.csv", text), min_in_windows=0.5)
    table = read_detections(folder / "tags.wide.parquet", min_in_windows=0.5)
    assert [(sound.label, sound.span) for sound in table.detections] == [("Dog", (0, 1)), ("Cat, big", (1, None))]
    assert [(sound.label, sound.span) for sound in table.detections] == [
        (sound.label, sound.span) for sound in expected.detections
    ]
    with pytest.raises(DataError, match=r"wide.parquet: the table has a probability for each of 2 labels .* --min 0.5"):
        read_detections(folder / "tags.wide.parquet")
    columns[3] = np.float32([0.7, 1.5])
    parquet.write_table(arrow.table(dict(zip(names, columns, strict=True))), folder / "bad.parquet")
    with pytest.raises(DataError, match=r"bad.parquet, row 2: the probability is 1.5; expected a number from 0 to 1"):
        read_detections(folder / "bad.parquet", min_in_windows=0.5)


def test_parquet_of_something_else_is_an_error_that_names_the_columns(folder):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"file": ["a.wav"], "start": [0.0], "comment": ["x"]}), folder / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet: there is no column end, label, probability"):
        read_detections(folder / "x.parquet")
