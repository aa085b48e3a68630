"""Output files, and functions that format text for them."""

import csv
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

from spectag.errors import ConfigError, DataError
from spectag.system.storage import unfinished_copy

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_FORMULA_STARTS = frozenset("'=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_FILE_SUFFIXES = frozenset({
    *(".csv", ".html", ".json", ".jsonl", ".md", ".onnx", ".parquet", ".pdf", ".png", ".pt", ".tflite", ".tsv"),
    *(".txt", ".xlsx", ".zip"),
})  # fmt: skip
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CANNOT_BE_STORED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def check_output_folder(folder: Path, option: str = "-o") -> None:
    """Refuse a file, or a name that looks like that of a file, for the folder of several results.

    Raises
    ------
    ConfigError
        It names the option that gave the folder.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise ConfigError(f"{option} {folder}: this is a file; give a folder")
    if folder.suffix.lower() in _FILE_SUFFIXES:
        raise ConfigError(
            f"{option} {folder}: the results are several files in a folder; leave out {folder.suffix}, such as "
            f"{option} {folder.with_suffix('')}"
        )


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


def csv_writer(out: TextIO, *, exact: bool = False, delimiter: str = ",") -> Callable[[Sequence[str]], None]:
    """A function that writes one row of a CSV file, with quotes where they are needed.

    Fields that a spreadsheet would run as a formula are escaped (`escape_formula`), unless the rows are `exact`: for
    programs that need file names and labels as they are, or if they are escaped already.
    """
    plain = csv.writer(out, lineterminator="\n", delimiter=delimiter)
    quoted = csv.writer(out, lineterminator="\n", delimiter=delimiter, quoting=csv.QUOTE_ALL)

    def write_row(fields: Sequence[str]) -> None:
        if not exact:
            fields = [escape_formula(field) if field[:1] in _FORMULA_STARTS else field for field in fields]
        # before Python 3.13, the csv module does not quote a carriage return, and readers end the row there
        (quoted if any("\r" in field for field in fields) else plain).writerow(fields)

    return write_row


def escape_formula(text: str) -> str:
    """A text that a spreadsheet shows as text: with an apostrophe before it if it looks like a formula.

    Formulas start with = + - @, also in full width, or with a tab or line break before them. A label such as
    =HYPERLINK("http://...") would otherwise run when somebody opens a table. Numbers do not change. A text that already
    starts with an apostrophe before one of these characters gets a second one, so that `unescape_formula` gives back
    every text.

    Examples
    --------
    >>> escape_formula("=1+1"), escape_formula("-3.2"), escape_formula("Dog")
    ("'=1+1", '-3.2', 'Dog')
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_formula(text: str) -> str:
    """The text that `escape_formula` wrote; any other text does not change.

    Examples
    --------
    >>> unescape_formula("'=1+1"), unescape_formula("'Dog'"), unescape_formula("-3.2")
    ('=1+1', "'Dog'", '-3.2')
    """
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def tsv_field(text: str) -> str:
    """A text as a field of a tab-separated table: tabs and line breaks become spaces.

    Only a text that starts with a quotation mark is quoted. Programs that read such tables show other quotation marks
    as they are. Readers with quoting would take an unclosed mark at the start as the start of a very long field.
    """
    line = one_line(text)
    return f'"{line.replace(chr(34), chr(34) * 2)}"' if line.startswith('"') else line


def quote_commas(name: str) -> str:
    """The name as an item of a list with commas: in quotes, if it contains a comma.

    >>> quote_commas("Dog"), quote_commas("Chicken, rooster")
    ('Dog', '"Chicken, rooster"')
    """
    return f'"{name}"' if "," in name else name


def one_line(text: str) -> str:
    """The text with a space for each tab, line break and other control character."""
    return _CONTROL_CHARACTERS.sub(" ", text)


def xml_text(text: str) -> str:
    """The text with a replacement character for each character that XML cannot contain."""
    return _NOT_IN_XML.sub("\ufffd", text)


def text_problem(text: str) -> str | None:
    """Why a text cannot be stored in files such as spectag.json; None if it can. Tabs and line breaks can."""
    match = _CANNOT_BE_STORED.search(text)
    if match is None:
        return None
    if "\ud800" <= match[0] <= "\udfff":
        return "half a character (an unpaired surrogate)"
    return "a control character, which a terminal might obey"


def unicode_text(text: str) -> str:
    """The text with \\udcff for bytes of a file name that are not valid UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
