"""Excel workbooks, read back by openpyxl."""

import io
import sys

import pytest

from helpers.file_events import (
    MULTILINE_LABELS,
    TRICKY_LABELS,
    UNDECODABLE_NAME,
    make_image,
    make_recording,
    make_recording_with_labels,
)
from spectag.errors import MissingExtraError
from spectag.tagging.formats.excel import load_xlsxwriter, write_excel

HEADER = ("file", "start", "end", "label", "probability")


def sheets_of(*files, **options):
    """The rows of each sheet; formulas, which openpyxl reads as text, are reported as such."""
    pytest.importorskip("xlsxwriter")
    openpyxl = pytest.importorskip("openpyxl")
    out = io.BytesIO()
    write_excel(files, out, **options)
    workbook = openpyxl.load_workbook(out)
    assert all(cell.data_type != "f" for sheet in workbook for row in sheet for cell in row)
    return {sheet.title: list(sheet.values) for sheet in workbook}


def test_numbers_are_numbers_and_an_image_has_no_end():
    recording = make_recording("zwölf Töne.wav", (0.5, 1.25, "Bark", 0.1234567))
    assert sheets_of(recording, make_image("a.png", ("Bark", 0.5))) == {
        "tags": [HEADER, ("zwölf Töne.wav", 0.5, 1.25, "Bark", 0.123457), ("a.png", 0, None, "Bark", 0.5)]
    }


def test_any_label_is_text_and_read_back():
    labels = [*TRICKY_LABELS, *MULTILINE_LABELS[:2], "-5", "http://a.example", "2024-01-01"]
    [rows] = sheets_of(make_recording_with_labels(*labels, file="=1+1.wav")).values()
    assert [row[3] for row in rows[1:]] == labels
    assert {row[0] for row in rows[1:]} == {"=1+1.wav"}


def test_undecodable_name_is_written():
    [rows] = sheets_of(make_recording(UNDECODABLE_NAME, (0.0, 1.0, "Bark", 0.5))).values()
    assert rows[1][0] == "caf\\udce9.wav"


def test_full_sheet_continues_on_the_next_one():
    sheets = sheets_of(make_recording_with_labels(*"abcde"), max_rows=3)
    assert [[row[3] for row in rows] for rows in sheets.values()] == [
        ["label", *"ab"],
        ["label", *"cd"],
        ["label", "e"],
    ]
    assert list(sheets) == ["tags", "tags 2", "tags 3"]


def test_novelty_is_the_last_column_and_an_empty_table_has_a_header():
    with_novelty = make_recording("a.wav", (0.0, 1.0, "Bark", 0.5, 1.23456))
    assert sheets_of(with_novelty, has_novelty=True)["tags"] == [
        (*HEADER, "novelty"),
        ("a.wav", 0, 1, "Bark", 0.5, 1.235),
    ]
    assert sheets_of() == {"tags": [HEADER]}


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(MissingExtraError, match=r"xlsxwriter: pip install 'spectag\[excel\]'"):
        load_xlsxwriter()
