"""Output files, and functions that format text for them."""

import csv
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

from spectag.errors import DataError
from spectag.system.storage import unfinished_copy

_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")


@contextmanager
def open_output(location: str | Path | None) -> Iterator[TextIO]:
    """A text file at a path or URL that appears complete or not at all; stdout for None.

    Bytes of a file name that are not valid UTF-8 are written as \\udcff, which JSON can read.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    if location is None:
        yield sys.stdout
        return
    with open_binary_output(location) as binary, TextIOWrapper(binary, "utf-8", "backslashreplace", "") as file:
        yield file


@contextmanager
def open_binary_output(location: str | Path | None) -> Iterator[BinaryIO]:
    """A binary file at a path or URL that appears complete or not at all; stdout for None.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    if location is None:
        yield sys.stdout.buffer
        return
    try:
        with unfinished_copy(str(location)) as path, path.open("wb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{location}: can't be written: {error.strerror or error}") from error


def csv_writer(out: TextIO) -> Callable[[Sequence[str]], None]:
    """A function that writes one row of a CSV file, with quotes where they are needed."""
    plain = csv.writer(out, lineterminator="\n")
    quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write_row(fields: Sequence[str]) -> None:
        # before Python 3.13, the csv module does not quote a carriage return, and readers end the row there
        (quoted if any("\r" in field for field in fields) else plain).writerow(fields)

    return write_row


def tsv_field(text: str) -> str:
    """A text as a field of a tab-separated table: tabs and line breaks become spaces.

    Only a text that starts with a quotation mark is quoted. Programs that read such tables show other quotation marks
    as they are. Readers with quoting would take an unclosed mark at the start as the start of a very long field.
    """
    line = one_line(text)
    return f'"{line.replace(chr(34), chr(34) * 2)}"' if line.startswith('"') else line


def one_line(text: str) -> str:
    """The text with a space for each tab, line break and other control character."""
    return _CONTROL_CHARACTERS.sub(" ", text)


def unicode_text(text: str) -> str:
    """The text with \\udcff for bytes of a file name that are not valid UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
