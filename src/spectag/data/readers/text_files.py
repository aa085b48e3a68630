"""Decoding text files: the encodings in which spreadsheet and annotation programs write tables."""

import codecs
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from spectag.errors import DataError, DataWarning

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins like that of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1f]")
# Text in another encoding that is read as Windows-1252 has runs of accented letters, or letters of no word.
_NOT_WESTERN = re.compile(r"[^\x00-\x7f“”„‘’‚–—…€«»©®°\xa0]{3}|[ƒ†‡ˆ‰‹›˜¢¤¦¨¬¯´¶·¸¹]")


def read_text(path: Path) -> str:
    """The text of a table, encoded in UTF-8, UTF-16, UTF-32 (with a byte order mark) or Windows-1252.

    Raises
    ------
    DataError
        If the file can't be read, is not text, or has another encoding.

    Warns
    -----
    DataWarning
        If the encoding is taken for Windows-1252, which cannot be told from those of other European languages.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the file can't be read: {error.strerror}") from error
    encoding = _encoding(content)
    if encoding is None:
        raise DataError(
            f"{path}: the file is not text; expected a CSV, a Raven selection table or an Audacity label track "
            "(spreadsheet programs can save tables as CSV)"
        )
    with suppress(UnicodeDecodeError):
        return content.decode(encoding)
    if encoding == "utf-8":
        with suppress(UnicodeDecodeError):
            text = content.decode("cp1252")
            if not _NOT_WESTERN.search(text):
                _warn_of_encoding(path, text)
                return text
        raise DataError(f"{path}: the text is neither UTF-8 nor Windows-1252; save it as UTF-8")
    raise DataError(f"{path}: the text is damaged; its byte order mark says {encoding}. Save it as UTF-8")


def _warn_of_encoding(path: Path, text: str) -> None:
    match = re.search(r"\w*[^\x00-\x7f]\w*", text)
    example = shorten(match[0]) if match else ""
    warnings.warn(
        f"{path}: the text is not UTF-8 and is read as Windows-1252, such as '{example}'; "
        "save it as UTF-8 if these letters are wrong, or to avoid this warning (Excel: CSV UTF-8)",
        DataWarning,
        stacklevel=3,
    )


def _encoding(content: bytes) -> str | None:
    """The encoding according to the byte order mark and the zero bytes, or None if this is not text."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return encoding
    if b"\0" not in content:
        return "utf-8"
    even, odd = content[0:2000:2], content[1:2000:2]
    for encoding, low, high in (("utf-16-le", even, odd), ("utf-16-be", odd, even)):
        if high.count(0) > len(high) / 2 and not _CONTROLS.search(low):
            return encoding
    return None


def lines_with_ends(text: str) -> Iterator[str]:
    """The lines with their ends. (`str.splitlines` also breaks at characters that a label may contain.)"""
    return (match[0] for match in _LINE.finditer(text))


def split_lines(text: str) -> Iterator[str]:
    """The lines, with any line ending."""
    return (line.rstrip("\r\n") for line in lines_with_ends(text))


def shorten(text: str, n_characters: int = 80) -> str:
    """A text from a file in one short line, for messages."""
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text[:1000])
    return text if len(text) <= n_characters else f"{text[: n_characters - 3]}..."


def first_lines(text: str, n_lines: int) -> list[str]:
    """The first lines that are not blank."""
    return list(islice((line for line in split_lines(text) if line.strip()), n_lines))
