"""A competition submission has the rows and columns of its template."""

import io
from pathlib import Path

import numpy as np
import pytest

from helpers.file_events import make_recording
from spectag.data.labels import LabelSet
from spectag.errors import DataError
from spectag.models.timeline import Timeline
from spectag.tagging.formats.submission import Template, write_submission

LABELS = LabelSet(("Bark", "Hi-hat", "Sink_(filling_or_washing)"))


def make_tagged(file, *rows):
    """A recording with these probabilities of its windows."""
    starts = np.arange(len(rows), dtype=np.float64)
    return make_recording(file, timeline=Timeline(starts, starts + 1, np.array(rows, np.float32)))


def rows_of(template, *files):
    out = io.StringIO()
    write_submission(files, out, labels=LABELS, template=template)
    return out.getvalue()


def write_template(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


TEMPLATE = "fname,Sink_(filling_or_washing),Bark\nb.wav,0,0\na.wav,0,0\n"


def test_submission_has_the_rows_and_columns_of_the_template_in_order(tmp_path):
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    assert template.files(["x/a.wav", "x/other.wav", "x/b.wav"]) == ["x/b.wav", "x/a.wav"]
    rows = rows_of(template, make_tagged("b.wav", [0.1, 0.2, 0.3]), make_tagged("a.wav", [0.4, 0.5, 0.6]))
    assert [row.split(",")[0] for row in rows.splitlines()] == ["fname", "b.wav", "a.wav"]
    assert rows.splitlines()[0] == "fname,Sink_(filling_or_washing),Bark"
    found = np.array([row.split(",")[1:] for row in rows.splitlines()[1:]], np.float32)
    assert np.array_equal(found, np.array([[0.3, 0.1], [0.6, 0.4]], np.float32))


def test_submission_keeps_every_digit(tmp_path, rng):
    """Rounding makes ties, and ties lower the score."""
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    probabilities = (rng.random((2, 3)) * 1e-7).astype(np.float32)
    rows = rows_of(template, make_tagged("b.wav", probabilities[0]), make_tagged("a.wav", probabilities[1]))
    found = np.array([row.split(",")[1:] for row in rows.splitlines()[1:]], np.float64)
    assert np.array_equal(found, probabilities[:, [2, 0]].astype(np.float64))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TEMPLATE, "utf-8-sig"),
        (TEMPLATE, "utf-16"),
        (TEMPLATE.replace(",", ";"), "utf-8-sig"),
        (TEMPLATE.replace(",", "\t"), "utf-16"),
        ("sep=;\n" + TEMPLATE.replace(",", ";"), "utf-8"),
        (TEMPLATE.replace("\n", "\r\n") + ",,\r\n\r\n", "utf-8"),
        (TEMPLATE.replace("a.wav", '"a.wav"').replace("Bark", '"Bark"'), "utf-8"),
    ],
)
def test_template_saved_by_a_spreadsheet_program_is_the_same(tmp_path, text, encoding):
    plain = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    changed = Template.read(write_template(tmp_path / "t.csv", text, encoding), LABELS)
    assert changed == plain


@pytest.mark.parametrize("column", ["fname", "which"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_labels_may_have_commas(tmp_path, column, delimiter):
    label = "Chicken, rooster"
    name = f'"{label}"' if delimiter == "," else label
    text = f"{column},Bark,LABEL\na.wav,0,0\n".replace(",", delimiter).replace("LABEL", name)
    template = Template.read(write_template(tmp_path / "t.csv", text), LabelSet(("Bark", label)))
    assert (template.labels, template.fnames) == (("Bark", label), ("a.wav",))


def test_clip_names_may_have_umlauts_commas_and_spaces(tmp_path):
    text = 'fname,Bark\n"Hund, groß.wav",0\nzwei Töne.wav,0\n'
    template = Template.read(write_template(tmp_path / "t.csv", text), LABELS)
    files = ["x/Hund, groß.wav", "x/zwei Töne.wav"]
    assert template.files(reversed(files)) == files
    rows = rows_of(template, *(make_tagged(path, [1, 0, 0]) for path in files))
    assert rows == 'fname,Bark\n"Hund, groß.wav",1.0\nzwei Töne.wav,1.0\n'


def test_unknown_label_in_a_template_is_an_error_with_a_suggestion(tmp_path):
    path = write_template(tmp_path / "t.csv", TEMPLATE.replace("Bark", "Brak"))
    with pytest.raises(DataError, match=r"t\.csv, line 1: unknown label 'Brak'; did you mean 'Bark'\?"):
        Template.read(path, LABELS)


@pytest.mark.parametrize("text", ["fname,Bark\n", "fname\na.wav\n"])
def test_template_without_rows_or_labels_is_an_error(tmp_path, text):
    with pytest.raises(DataError, match=r"t\.csv: expected a header \(fname, then the labels\) and a row for each"):
        Template.read(write_template(tmp_path / "t.csv", text), LABELS)


def test_template_that_is_no_table_is_an_error(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(DataError, match=r"t\.xlsx: the file is not text"):
        Template.read(tmp_path / "t.xlsx", LABELS)
    with pytest.raises(DataError, match=r"gone\.csv: the file can.*t be read"):
        Template.read(tmp_path / "gone.csv", LABELS)


def test_missing_clip_is_an_error_that_names_it(tmp_path):
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    with pytest.raises(DataError, match=r"1 of its 2 clips are missing, such as a\.wav; give the folder"):
        template.files(["b.wav"])


def test_unreadable_clip_is_an_error_with_its_reason(tmp_path):
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    template.refuse_skipped([])
    with pytest.raises(DataError, match=r"1 of its 2 clips cannot be tagged, .* all of them: a\.wav: .* is empty"):
        template.refuse_skipped(["a.wav: the file is empty (0 bytes)"])


@pytest.mark.parametrize(
    "files",
    [
        [make_tagged("a.wav", [0.1, 0.2, 0.3]), make_tagged("b.wav", [0.1, 0.2, 0.3])],
        [make_tagged("b.wav", [0.1, 0.2, 0.3])],
        [make_tagged("b.wav", [0.1, 0.2, 0.3]), make_tagged("a.wav", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])],
    ],
)
def test_other_clips_or_several_windows_are_an_error(tmp_path, files):
    template = Template.read(write_template(tmp_path / "t.csv", TEMPLATE), LABELS)
    with pytest.raises(ValueError, match=r"need b\.wav as one window|shorter|need a\.wav .* got a\.wav and 2 windows"):
        rows_of(template, *files)


def test_folder_in_a_row_decides_between_files_of_the_same_name(tmp_path):
    files = ["x/a.wav", "s3://bucket/y/a.wav"]
    ambiguous = Template.read(write_template(tmp_path / "t.csv", "fname,Bark\na.wav,0\n"), LABELS)
    with pytest.raises(DataError, match=r"a\.wav may be x/a\.wav or s3://bucket/y/a\.wav; give the folder of one"):
        ambiguous.files(files)
    unambiguous = Template.read(write_template(tmp_path / "t.csv", "fname,Bark\ny/a.wav,0\nx/a.wav,0\n"), LABELS)
    assert unambiguous.files(files) == files[::-1]


def test_row_with_a_folder_matches_a_path_relative_to_that_folder():
    template = Template(Path("t.csv"), "fname", ("Bark",), ("test/a.wav",))
    assert template.files(["a.wav"]) == ["a.wav"]
