"""Reading tables: parsing CSV and TSV records with their line numbers, and their times."""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from spectag.data.readers.text_files import first_lines, lines_with_ends, read_text, shorten, split_lines
from spectag.errors import DataError
from spectag.system.output import quote_commas, unescape_formula

__all__ = [
    "CLOCK_TIME",
    "DELIMITERS",
    "Table",
    "abbreviate",
    "first_lines",
    "normal_name",
    "open_table",
    "parse_time_field",
    "parse_times",
    "preamble",
    "read_text",
    "shorten",
    "split_lines",
]

DELIMITERS = ",;\t|"
MAX_FIELD_CHARACTERS = 1_000_000
_UNIT = re.compile(r"\s*[(\[]\s*\w{1,12}\s*[)\]]\s*$")
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?[\s,;]*', re.IGNORECASE)  # the first line of a CSV for Excel
_MAX_NAME = 200  # characters; longer texts are no names of known columns
CLOCK_TIME = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):([0-5]?\d(?:[.,]\d+)?)")
_ROUNDING_SECONDS = 0.01  # label tracks can start this much before their sound

Record = tuple[int, list[str]]
"""Line number, and one field per column."""


def normal_name(column: str) -> str:
    """The name of a column without its unit, case and punctuation: "Begin Time (s)" → "begin_time"."""
    return re.sub(r"\W+", "_", _UNIT.sub("", column[:_MAX_NAME].casefold())).strip("_")


@dataclass(frozen=True)
class Table:
    """A header, and an iterator over the records."""

    path: Path
    columns: tuple[str, ...]
    records: Iterator[Record]

    @cached_property
    def _positions(self) -> dict[str, int]:
        """Position by name in lower case, and by normal name. The first column of a name counts."""
        positions: dict[str, int] = {}
        for spelling in (str.lower, normal_name):
            for position, column in enumerate(self.columns):
                positions.setdefault(spelling(column), position)
        positions.pop("", None)
        return positions

    def position(self, *names: str) -> int | None:
        """Position of the first of these columns that the table has, ignoring case; None if it has none of them.

        Punctuation and a unit in brackets do not matter either.
        """
        spellings = (spelling for name in names for spelling in (name.lower(), normal_name(name)))
        return next((self._positions[spelling] for spelling in spellings if spelling in self._positions), None)

    def peek(self, n_records: int) -> tuple["Table", list[Record]]:
        """The first records, and the table with all of them."""
        first = list(islice(self.records, n_records))
        return Table(self.path, self.columns, chain(first, self.records)), first


def preamble(text: str) -> tuple[int, str | None, list[str]]:
    """The number of lines before the table, the delimiter of a line such as `sep=;`, and the comments above the table.

    Comments start with #. If the last one contains the header, it is not counted: see `open_table`.
    """
    n_lines, delimiter, comments = 0, None, list[str]()
    for line in split_lines(text):
        if match := _SEPARATOR_LINE.fullmatch(line) if not n_lines else None:
            delimiter = match[1]
        elif line.lstrip().startswith("#"):
            comments.append(line.lstrip())
        elif line.strip():
            break
        n_lines += 1
    return n_lines, delimiter, comments


def open_table(path: Path, text: str, delimiter: str, *, header: str | None = None) -> Table:
    """Parse the header of a table. The records are parsed while they are read.

    Parameters
    ----------
    path : Path
        For error messages.
    text : str
    delimiter : str
    header : str, optional
        The header, if it is in a comment above the records.

    Raises
    ------
    DataError
        If there is no header, it contains a column twice, or (while records are read) a line has too few or too many
        fields or an unclosed quote.
    """
    n_skipped, _, _ = preamble(text)
    records = _records(path, text, delimiter, n_skipped)
    if header is not None:
        columns = next(_records(path, header, delimiter, 0), (1, []))[1]
        line = n_skipped
    else:
        line, columns = next(records, (1, []))
    if not columns:
        raise DataError(f"{path}: the table is empty; expected a line with the column names, then one line per entry")
    duplicates = sorted(column for column, count in Counter(columns).items() if column and count > 1)
    if duplicates:
        raise DataError(f"{path}, line {line}: duplicate columns: {abbreviate(duplicates)}; keep one of each")
    first = list(islice(records, 1))
    if delimiter == "\t" and first and len(first[0][1]) == len(columns) + 1 and first[0][1][0] == "1":
        columns = ["", *columns]  # R has written the numbers of the rows, without a name
    records = chain(first, records)
    return Table(path, tuple(columns), _check_width(path, records, columns, is_padded=delimiter == "\t"))


def _records(path: Path, text: str, delimiter: str, n_skipped: int) -> Iterator[Record]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    lines = islice(lines_with_ends(text), n_skipped, None)
    if delimiter == "\t" and not _has_closed_quotes(text, n_skipped):  # annotation programs do not quote labels
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    line = n_skipped + 1
    is_escaped = delimiter != "\t" and "'" in text  # tables of annotation programs are not
    try:
        for record in reader:
            fields = [field.strip() for field in record]
            if is_escaped:
                fields = [unescape_formula(field) for field in fields]
            if any(fields):
                yield line, fields
            line = n_skipped + reader.line_num + 1  # the first line of a record: a quoted field may contain line breaks
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}; is a closing quote missing?") from error


def _has_closed_quotes(text: str, n_skipped: int) -> bool:
    """Whether the quotes of a text with tabs enclose fields; otherwise they are characters of labels."""
    if '"' not in text:
        return False
    try:
        lines = islice(lines_with_ends(text), n_skipped, None)
        for _ in csv.reader(lines, delimiter="\t", skipinitialspace=True, strict=True):  # as `_records` reads them
            pass
    except csv.Error:
        return False
    return True


def _check_width(path: Path, records: Iterator[Record], columns: list[str], *, is_padded: bool) -> Iterator[Record]:
    """The records with one field per column. Empty fields at the end of a line with tabs may be missing."""
    width = len(columns)
    for line, fields in records:
        if len(fields) == width:
            yield line, fields
            continue
        if is_padded and len(fields) < width:
            fields += [""] * (width - len(fields))
        if len(fields) < width or any(fields[width:]):
            raise DataError(
                f"{path}, line {line}: the line has {len(fields)} fields, but the header has {width} columns; "
                "put quotes around a field that contains commas"
            )
        yield line, fields[:width]


def parse_time_field(field: str, column: str, where: str) -> float:
    """A time in seconds, 0 or more, with a decimal point or a decimal comma, or as hours, minutes and seconds."""
    with suppress(ValueError):
        seconds = float(field.replace(",", "."))
        if 0 <= seconds < math.inf:
            return seconds
        if -_ROUNDING_SECONDS < seconds < 0:
            return 0.0
    if match := CLOCK_TIME.fullmatch(field):
        hours, minutes, rest = match.groups(default="0")
        return int(hours) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
    raise DataError(f"{where}: {column} is '{shorten(field)}'; expected seconds, 0 or more")


def parse_times(fields: Mapping[str, str], where: str) -> tuple[float, float | None]:
    """The fields `start` and `end` of a row; a missing or empty field is the start or the end of the file."""
    start, end = fields.get("start"), fields.get("end")
    return (
        parse_time_field(start, "start", where) if start else 0.0,
        parse_time_field(end, "end", where) if end else None,
    )


def abbreviate(names: Iterable[str], n_shown: int = 5) -> str:
    """The first names, separated by commas, and the number of the others: "a, b and 3 more".

    A name with a comma is in quotes.
    """
    names = list(names)
    n_more = len(names) - n_shown
    return ", ".join(quote_commas(shorten(name, 250)) for name in names[:n_shown]) + (
        f" and {n_more} more" if n_more > 0 else ""
    )
