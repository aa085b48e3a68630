"""Reading tables: decoding text files, and parsing CSV and TSV records with their line numbers."""

import codecs
import csv
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spectag.errors import DataError
from spectag.system.output import unescape_formula


def read_text(path: Path) -> str:
    """The text of a table, encoded in UTF-8, UTF-16 (with a byte order mark) or Windows-1252."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the file can't be read: {error.strerror}") from error
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in content and not is_utf16:
        raise DataError(
            f"{path}: the file is not text; expected a CSV, a Raven selection table or an Audacity label track "
            "(spreadsheet programs can save tables as CSV)"
        )
    encodings = ["utf-16"] if is_utf16 else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            return content.decode(encoding)
    raise DataError(f"{path}: the text is neither UTF-8 nor {encodings[-1]}; save it as UTF-8")


def split_lines(text: str) -> Iterator[str]:
    """The lines, with any line ending. (`str.splitlines` also breaks at characters that a label may contain.)"""
    return (line.rstrip("\n") for line in io.StringIO(text, newline=None))


def first_lines(text: str, n_lines: int) -> list[str]:
    """The first lines that are not blank."""
    return list(islice((line for line in split_lines(text) if line.strip()), n_lines))


@dataclass(frozen=True)
class Table:
    """A header, and an iterator over the records: line number and one field per column."""

    path: Path
    columns: tuple[str, ...]
    records: Iterator[tuple[int, list[str]]]

    def position(self, *names: str) -> int | None:
        """Position of the first of these columns that the table has, ignoring case; None if it has none of them."""
        lower = [column.lower() for column in self.columns]
        return next((lower.index(name.lower()) for name in names if name.lower() in lower), None)


def open_table(path: Path, text: str, delimiter: str) -> Table:
    """Parse the header of a table. The records are parsed while they are read.

    Raises
    ------
    DataError
        If there is no header, it contains a column twice, or (while records are read) a line has too few or too many
        fields or an unclosed quote.
    """
    records = _records(path, text, delimiter)
    line, columns = next(records, (1, []))
    if not columns:
        raise DataError(f"{path}: the table is empty; expected a line with the column names, then one line per clip")
    duplicates = sorted({column for column in columns if column and columns.count(column) > 1})
    if duplicates:
        raise DataError(f"{path}, line {line}: duplicate columns: {', '.join(duplicates)}; keep one of each")
    return Table(path, tuple(columns), _check_width(path, records, len(columns)))


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    is_escaped = delimiter != "\t" and "'" in text  # tables of annotation programs are not
    try:
        for record in reader:
            fields = [field.strip() for field in record]
            if is_escaped:
                fields = [unescape_formula(field) for field in fields]
            if any(fields):
                yield line, fields
            line = reader.line_num + 1  # the first line of a record: a quoted field may contain line breaks
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}; is a closing quote missing?") from error


def _check_width(path: Path, records: Iterator[tuple[int, list[str]]], width: int) -> Iterator[tuple[int, list[str]]]:
    for line, fields in records:
        if len(fields) < width or any(fields[width:]):
            raise DataError(
                f"{path}, line {line}: the line has {len(fields)} fields, but the header has {width} columns; "
                "put quotes around a field that contains commas"
            )
        yield line, fields[:width]


def parse_time_field(field: str, column: str, where: str) -> float:
    """A time in seconds, 0 or more, with a decimal point or a decimal comma."""
    with suppress(ValueError):
        seconds = float(field.replace(",", "."))
        if 0 <= seconds < math.inf:
            return seconds
    raise DataError(f"{where}: {column} is {field!r}; expected seconds, 0 or more")


def parse_times(fields: Mapping[str, str], where: str) -> tuple[float, float | None]:
    """The fields `start` and `end` of a row; a missing or empty field is the start or the end of the file."""
    start, end = fields.get("start"), fields.get("end")
    return (
        parse_time_field(start, "start", where) if start else 0.0,
        parse_time_field(end, "end", where) if end else None,
    )


def abbreviate(names: list[str], n_shown: int = 5) -> str:
    """The first names, separated by commas, and the number of the others: "a, b and 3 more"."""
    n_more = len(names) - n_shown
    return ", ".join(names[:n_shown]) + (f" and {n_more} more" if n_more > 0 else "")
