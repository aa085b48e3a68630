"""Files that are written whole or not at all, and how text is put into them."""

import csv
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from spectag.errors import DataError
from spectag.system.storage import unfinished_copy

_BREAKS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")  # of lines, of fields, and what no program shows


@contextmanager
def written(location: str | Path | None) -> Iterator[TextIO]:
    """A text file that is written whole or not at all, at a path or an address, or stdout where there is neither.

    Of a file name that no encoding knows, bytes are written as \\udcff, which JSON reads again.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    if location is None:
        yield sys.stdout
        return
    with (
        _unfinished(location) as path,
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


@contextmanager
def written_bytes(location: str | Path | None) -> Iterator[BinaryIO]:
    """The same for a file that is not text.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    if location is None:
        yield sys.stdout.buffer
        return
    with _unfinished(location) as path, path.open("wb") as file:
        yield file


@contextmanager
def _unfinished(location: str | Path) -> Iterator[Path]:
    try:
        with unfinished_copy(str(location)) as path:
            yield path
    except OSError as error:
        raise DataError(f"{location}: can't be written: {error.strerror or error}") from error


def csv_writer(out: TextIO) -> Callable[[Sequence[str]], None]:
    """A function that writes a row of a CSV, quoting what needs it."""
    plain = csv.writer(out, lineterminator="\n")
    quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write_row(fields: Sequence[str]) -> None:
        # before Python 3.13 the module leaves a carriage return bare, and readers take it for the end of the row
        (quoted if any("\r" in field for field in fields) else plain).writerow(fields)

    return write_row


def tsv_field(text: str) -> str:
    """A text for a table with tabs between the fields: tabs and ends of lines become spaces.

    Quotation marks stay as they are, for the programs that such tables are for show them so. Only a text that begins
    with one is quoted: the readers that know quoting would else take what follows, to the end of the table, for one
    field.
    """
    line = one_line(text)
    return f'"{line.replace(chr(34), chr(34) * 2)}"' if line.startswith('"') else line


def one_line(text: str) -> str:
    """The text with a space for each tab, end of line and other control character."""
    return _BREAKS.sub(" ", text)


def unicode_text(text: str) -> str:
    """The text, with \\udcff for bytes of a file name that no encoding knows."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
