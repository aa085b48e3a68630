"""Events as an Excel workbook."""

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

from spectag.errors import MissingExtraError
from spectag.system.output import unicode_text
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.csv_and_jsonl import columns_of, place_fields

MAX_ROWS = 1_048_576
"""Of a sheet in Excel."""
_DECIMALS = (None, 3, 3, None, 6, 3)  # of the columns, as in the CSV


def load_xlsxwriter() -> Any:
    """The module xlsxwriter.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import xlsxwriter
    except ImportError as error:
        raise MissingExtraError("xlsxwriter", "excel", "writing Excel workbooks") from error
    return xlsxwriter


def write_excel(
    files: Iterable[FileEvents],
    out: BinaryIO,
    *,
    has_novelty: bool = False,
    has_places: bool = False,
    max_rows: int = MAX_ROWS,
) -> None:
    """Write a workbook with a row for each event and the columns of `write_csv`; numbers are numbers.

    File names and labels are always text, so none of them runs as a formula. When a sheet is full, the next one goes
    on.

    Parameters
    ----------
    files : iterable of FileEvents
    out : binary file
    has_novelty : bool
        Whether there is a column of the novelty.
    has_places : bool
        Whether there are `PLACE_COLUMNS`.
    max_rows : int
        Of a sheet, with its header.

    Raises
    ------
    MissingExtraError
        If xlsxwriter is not installed.
    """
    columns = columns_of(has_novelty=has_novelty, has_places=has_places)
    rows = (
        (file.file, *event[: 4 + has_novelty], *(place_fields(file, event.start_seconds) if has_places else ()))
        for file in files
        for event in file.events
    )
    # constant_memory: rows go to a temporary file one by one
    with load_xlsxwriter().Workbook(out, {"constant_memory": True}) as workbook:
        sheet, n_rows = _new_sheet(workbook, columns), 1
        for row in rows:
            if n_rows == max_rows:
                sheet, n_rows = _new_sheet(workbook, columns), 1
            _write_row(sheet, n_rows, row)
            n_rows += 1


def _new_sheet(workbook: Any, columns: Sequence[str]) -> Any:
    """A sheet with a header that stays on the screen."""
    n_sheets = len(workbook.worksheets())
    sheet = workbook.add_worksheet("tags" if not n_sheets else f"tags {n_sheets + 1}")
    sheet.freeze_panes(1, 0)
    sheet.set_column(0, 0, 40)  # characters
    sheet.set_column(3, 3, 25)
    for column, name in enumerate(columns):
        sheet.write_string(0, column, name)
    return sheet


def _write_row(sheet: Any, number: int, row: Sequence[str | float | None]) -> None:
    for column, value in enumerate(row):
        if isinstance(value, str):
            sheet.write_string(number, column, unicode_text(value))
        elif value is not None:  # the end of an image is empty
            sheet.write_number(number, column, round(value, _DECIMALS[column]))
