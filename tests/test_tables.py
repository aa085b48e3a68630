"""Tags as CSV, JSON lines and a competition's submission."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from spectag.errors import DataError
from spectag.labels import LabelSet
from spectag.runtime import Tags
from spectag.tables import Choice, Template, write_csv, write_jsonl, write_submission, written
from spectag.tag import TaggedFile

LABELS = LabelSet(("Bark", "Hi-hat", "Sink_(filling_or_washing)"))


def tags_of(probabilities, *, start=0.0, end=1.0, path="a.wav"):
    thresholds = np.array([0.5, 0.4, 0.6], np.float32)
    return Tags(Path(path), start, end, LABELS, np.array(probabilities, np.float32), thresholds)


def tagged(path, *probabilities, **times):
    return TaggedFile(Path(path), tuple(tags_of(row, path=path, **times) for row in probabilities))


def text_of(write, *arguments):
    out = io.StringIO()
    write(*arguments, out)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------ which tags


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), ["Hi-hat"]),  # 0.55 is below 0.6, and 0.4 reaches 0.4
        (Choice(top=2), ["Sink_(filling_or_washing)", "Hi-hat"]),
        (Choice(top=9), ["Sink_(filling_or_washing)", "Hi-hat", "Bark"]),
        (Choice(threshold=0.3), ["Sink_(filling_or_washing)", "Hi-hat", "Bark"]),
        (Choice(threshold=0.5), ["Sink_(filling_or_washing)"]),
        (Choice(threshold=1.0), []),
        (Choice(threshold=0.0), ["Sink_(filling_or_washing)", "Hi-hat", "Bark"]),
        (Choice(top=2, threshold=0.5), ["Sink_(filling_or_washing)"]),
    ],
)
def test_choice_takes_the_top_or_what_reaches_thresholds_most_probable_first(choice, expected):
    assert [tag.label for tag in choice(tags_of([0.3, 0.4, 0.55]))] == expected


# ------------------------------------------------------------------------------------------------ CSV, JSON lines


def test_csv_has_a_line_for_each_tag():
    files = [tagged("a.wav", [0.9, 0.1, 0.7]), tagged("b.wav", [0.1, 0.1, 0.1]), tagged("c.wav", [0.123456789, 1, 0])]
    assert text_of(write_csv, files, Choice()).splitlines() == [
        "file,start,end,label,probability",
        "a.wav,0.000,1.000,Bark,0.900000",
        "a.wav,0.000,1.000,Sink_(filling_or_washing),0.700000",
        "c.wav,0.000,1.000,Hi-hat,1.000000",
    ]


@pytest.mark.parametrize("name", ["zwölf Töne.wav", 'a,b "c".wav', "a\nb.wav"])
def test_csv_and_json_lines_keep_any_file_name(name):
    files = [tagged(name, [0.9, 0.1, 0.1])]
    (row,) = csv.DictReader(io.StringIO(text_of(write_csv, files, Choice())))
    assert row["file"] == name
    assert json.loads(text_of(write_jsonl, files, Choice()))["file"] == name


def test_image_has_no_end():
    files = [tagged("a.png", [0.9, 0.1, 0.1], end=None)]
    assert text_of(write_csv, files, Choice()).splitlines()[1] == "a.png,0.000,,Bark,0.900000"
    assert json.loads(text_of(write_jsonl, files, Choice()))["end"] is None


def test_json_lines_have_an_object_for_each_stretch_also_without_tags():
    files = [tagged("a.wav", [0.9, 0.1, 0.7], [0.1, 0.1, 0.1]), TaggedFile(Path("b.wav"), (), "b.wav: damaged")]
    records = [json.loads(line) for line in text_of(write_jsonl, files, Choice()).splitlines()]
    assert records == [
        {
            "file": "a.wav",
            "start": 0.0,
            "end": 1.0,
            "tags": [
                {"label": "Bark", "probability": 0.9},
                {"label": "Sink_(filling_or_washing)", "probability": 0.7},
            ],
        },
        {"file": "a.wav", "start": 0.0, "end": 1.0, "tags": []},
    ]


# ------------------------------------------------------------------------------------------------ files


def test_table_is_written_whole_also_into_a_folder_that_does_not_exist(tmp_path):
    path = tmp_path / "neu" / "tags.csv"
    with written(path) as out:
        out.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_failed_table_leaves_the_old_one(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(DataError, match="unknown label 'Brak'"), written(tmp_path / "a.csv") as out:
        out.write(f"half {LABELS.index('Brak')}")
    assert (tmp_path / "a.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_place_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written: there is a folder of this name"), written(tmp_path):
        pytest.fail("the work has begun")
    with pytest.raises(DataError, match=r"b\.csv: can't be written: "), written(tmp_path / "file" / "b.csv"):
        pytest.fail("the work has begun")


def test_name_that_no_encoding_knows_is_written_so_that_json_reads_it_again(tmp_path):
    name = b"caf\xe9.wav".decode("utf-8", "surrogateescape")  # Latin-1, as in an old archive
    for write, path in ((write_csv, tmp_path / "a.csv"), (write_jsonl, tmp_path / "a.jsonl")):
        with written(path) as out:
            write([tagged(name, [0.9, 0.1, 0.1])], Choice(), out)
    assert "caf\\udce9.wav" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))["file"] == name


# ------------------------------------------------------------------------------------------------ submissions


def write_template(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


TEMPLATE = "fname,Sink_(filling_or_washing),Bark\nb.wav,0,0\na.wav,0,0\n"


def test_submission_has_the_rows_and_columns_of_the_template_in_its_order(tmp_path):
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    files = template.files([tmp_path / "a.wav", tmp_path / "other.wav", tmp_path / "b.wav"])
    assert files == [tmp_path / "b.wav", tmp_path / "a.wav"]
    rows = text_of(write_submission, [tagged("b.wav", [0.1, 0.2, 0.3]), tagged("a.wav", [0.4, 0.5, 0.6])], template)
    assert [row.split(",")[0] for row in rows.splitlines()] == ["fname", "b.wav", "a.wav"]
    assert rows.splitlines()[0] == "fname,Sink_(filling_or_washing),Bark"
    found = np.array([row.split(",")[1:] for row in rows.splitlines()[1:]], np.float32)
    assert np.array_equal(found, np.array([[0.3, 0.1], [0.6, 0.4]], np.float32))


def test_submission_keeps_every_digit(tmp_path, rng):
    """Rounding makes ties, and ties cost rank."""
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    probabilities = (rng.random((2, 3)) * 1e-7).astype(np.float32)
    rows = text_of(write_submission, [tagged("b.wav", probabilities[0]), tagged("a.wav", probabilities[1])], template)
    found = np.array([row.split(",")[1:] for row in rows.splitlines()[1:]], np.float64)
    assert np.array_equal(found, probabilities[:, [2, 0]].astype(np.float64))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TEMPLATE, "utf-8-sig"),
        (TEMPLATE, "utf-16"),
        (TEMPLATE.replace(",", ";"), "utf-8-sig"),
        (TEMPLATE.replace(",", "\t"), "utf-16"),
        (TEMPLATE.replace("\n", "\r\n") + ",,\r\n\r\n", "utf-8"),
        (TEMPLATE.replace("a.wav", '"a.wav"').replace("Bark", '"Bark"'), "utf-8"),
    ],
)
def test_template_that_went_through_a_spreadsheet_program_is_the_same_template(tmp_path, text, encoding):
    plain = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    changed = Template.read(write_template(tmp_path / "t.csv", text, encoding), LABELS)
    assert changed == plain


def test_template_may_name_clips_with_umlauts_commas_and_spaces(tmp_path):
    text = 'fname,Bark\n"Hund, groß.wav",0\nzwei Töne.wav,0\n'
    template = Template.read(write_template(tmp_path / "t.csv", text), LABELS)
    files = [tmp_path / "Hund, groß.wav", tmp_path / "zwei Töne.wav"]
    assert template.files(reversed(files)) == files
    rows = text_of(write_submission, [tagged(path, [1, 0, 0]) for path in files], template)
    assert rows == 'fname,Bark\n"Hund, groß.wav",1.0\nzwei Töne.wav,1.0\n'


def test_unknown_label_in_a_template_is_told_with_the_nearest(tmp_path):
    path = write_template(tmp_path / "t.csv", TEMPLATE.replace("Bark", "Brak"))
    with pytest.raises(DataError, match=r"t\.csv, line 1: unknown label 'Brak'; did you mean 'Bark'\?"):
        Template.read(path, LABELS)


@pytest.mark.parametrize("text", ["fname,Bark\n", "fname\na.wav\n"])
def test_template_without_rows_or_labels_is_told(tmp_path, text):
    with pytest.raises(DataError, match=r"t\.csv: expected a header \(fname, then the labels\) and a row for each"):
        Template.read(write_template(tmp_path / "t.csv", text), LABELS)


def test_template_that_is_no_table_is_told(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(DataError, match=r"t\.xlsx: this is not text"):
        Template.read(tmp_path / "t.xlsx", LABELS)
    with pytest.raises(DataError, match=r"gone\.csv: can't be read"):
        Template.read(tmp_path / "gone.csv", LABELS)


def test_missing_clip_is_an_error_that_names_it(tmp_path):
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    with pytest.raises(DataError, match=r"1 of its 2 clips are not there, such as a\.wav; give the folder"):
        template.files([tmp_path / "b.wav"])


def test_unreadable_clip_is_an_error_with_its_reason(tmp_path):
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    files = [tagged("b.wav", [0.1, 0.2, 0.3]), TaggedFile(Path("a.wav"), (), "a.wav: the file is empty (0 bytes)")]
    with pytest.raises(DataError, match=r"1 of its 2 clips can't be tagged, .* all of them: a\.wav: the file is empty"):
        text_of(write_submission, files, template)


def test_of_two_files_of_one_name_the_row_must_tell_which(tmp_path):
    files = [tmp_path / "x" / "a.wav", tmp_path / "y" / "a.wav"]
    ambiguous = Template.read(write_template(tmp_path / "t.csv", "fname,Bark\na.wav,0\n"), LABELS)
    with pytest.raises(DataError, match=r"a\.wav may be .*a\.wav or .*a\.wav; give the folder of one"):
        ambiguous.files(files)
    told = Template.read(write_template(tmp_path / "t.csv", "fname,Bark\ny/a.wav,0\nx/a.wav,0\n"), LABELS)
    assert told.files(files) == files[::-1]


def test_row_with_a_folder_finds_its_file_also_from_within_the_folder():
    template = Template(Path("t.csv"), "fname", ("Bark",), ("test/a.wav",))
    assert template.files([Path("a.wav")]) == [Path("a.wav")]
