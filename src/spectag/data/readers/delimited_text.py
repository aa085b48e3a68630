"""A file as text, and text as records that know their line."""

import codecs
import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spectag.errors import DataError


def read_text(path: Path) -> str:
    """The text of a table in UTF-8, UTF-16 (with its byte order mark) or, where it is neither, Windows' cp1252."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decode(content, "utf-16", path)
    if b"\0" in content:
        raise DataError(
            f"{path}: this is not text; expected a CSV, a Raven selection table or an Audacity label track "
            "(a spreadsheet program can save its tables as CSV)"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _decode(content, "cp1252", path)


def _decode(content: bytes, encoding: str, path: Path) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the text is neither UTF-8 nor {encoding}; save it as UTF-8") from error


def lines_of(text: str) -> Iterator[str]:
    """The lines, whichever way they end (`str.splitlines` also breaks at characters that a label may hold)."""
    return (line.rstrip("\n") for line in io.StringIO(text, newline=None))


def first_lines(text: str, n_lines: int) -> list[str]:
    """The first lines that are not blank."""
    return list(islice((line for line in lines_of(text) if line.strip()), n_lines))


@dataclass(frozen=True)
class Table:
    """A header, and an iterator over the records below it: each its line in the file, and a field per column."""

    path: Path
    columns: tuple[str, ...]
    records: Iterator[tuple[int, list[str]]]

    def position(self, *names: str) -> int | None:
        """Where the first of these columns is that the table has; case does not matter."""
        lower = [column.lower() for column in self.columns]
        return next((lower.index(name.lower()) for name in names if name.lower() in lower), None)


def open_table(path: Path, text: str, delimiter: str) -> Table:
    """Read the header of a table, and its records as they are asked for.

    Raises
    ------
    DataError
        If there is no header, it names a column twice, or (while records are read) a line has too few or too many
        fields or a quote is left open.
    """
    records = _records(path, text, delimiter)
    line, columns = next(records, (1, []))
    if not columns:
        raise DataError(f"{path}: the table is empty; expected a line with the names of the columns, then one per clip")
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise DataError(f"{path}, line {line}: the columns {', '.join(twice)} are there twice; keep one of each")
    return Table(path, tuple(columns), _of_width(path, records, len(columns)))


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1  # a quoted field may hold line breaks: a record is where it begins
        try:
            fields = [field.strip() for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: {error}; is a quote left open?") from error
        if any(fields):
            yield line, fields


def _of_width(path: Path, records: Iterator[tuple[int, list[str]]], width: int) -> Iterator[tuple[int, list[str]]]:
    for line, fields in records:
        if len(fields) < width or any(fields[width:]):
            raise DataError(
                f"{path}, line {line}: number of fields is {len(fields)}, but the header has {width} columns; "
                "a field that holds commas needs quotes around it"
            )
        yield line, fields[:width]


def parse_seconds(field: str, column: str, where: str) -> float:
    """A time of 0 s or more, with a decimal point or a decimal comma."""
    try:
        seconds = float(field.replace(",", "."))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{where}: {column} is {field!r}; expected seconds, 0 or more")
    return seconds


def some_of(names: list[str], n_shown: int = 5) -> str:
    """The first names, and how many more there are."""
    more = len(names) - n_shown
    return ", ".join(names[:n_shown]) + (f" and {more} more" if more > 0 else "")
