"""One file field of a form (multipart/form-data), written to a file while it arrives."""

from collections.abc import Callable
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MAX_PARTS = 20
_MAX_HEADER_BYTES = 8_000  # of all headers of a part


class FormError(Exception):
    """A form is broken, or has what no client sends."""


class FormField:
    """Reads a form, and writes the content of one field to a file. Other fields are skipped.

    Starlette's own reader makes a copy of the whole form first.

    Parameters
    ----------
    content_type : str
        The header Content-Type of the request, which has the boundary.
    name : str
        The name of the field.
    file : binary file
        Where its content goes.
    check_file_name
        Called with the file name as soon as it is known; may raise an exception.

    Raises
    ------
    FormError
        If there is no boundary.
    """

    def __init__(self, content_type: str, name: str, file: BinaryIO, check_file_name: Callable[[str], None]) -> None:
        _, options = parse_options_header(content_type.encode("latin-1"))
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= 256:
            raise FormError("the header Content-Type has no boundary, or a very long one")
        self._name, self._file, self._check_file_name = name.encode(), file, check_file_name
        self.file_name: str | None = None
        """The file name that the client gave; None: there is no such field yet."""
        self._n_parts = 0
        self._is_wanted = self._has_ended = False
        self._header_name = self._header_value = self._disposition = b""
        self._n_header_bytes = 0
        self._parser = MultipartParser(boundary, {
            "on_part_begin": self._begin_part,
            "on_header_field": self._read_header_name,
            "on_header_value": self._read_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._read_data,
            "on_end": self._end,
        })  # fmt: skip

    def write(self, data: bytes) -> None:
        """Read the next bytes of the form. A FormError if they are wrong."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise FormError(str(error)) from error

    def finish(self) -> None:
        """Check that the form was whole. A FormError if it was not."""
        if not self._has_ended:
            raise FormError("it ends too early")

    def _begin_part(self) -> None:
        self._n_parts += 1
        if self._n_parts > _MAX_PARTS:
            raise FormError(f"more than {_MAX_PARTS} fields")
        self._is_wanted, self._disposition, self._n_header_bytes = False, b"", 0

    def _read_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += self._header_bytes(data, start, end)

    def _read_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += self._header_bytes(data, start, end)

    def _header_bytes(self, data: bytes, start: int, end: int) -> bytes:
        self._n_header_bytes += end - start
        if self._n_header_bytes > _MAX_HEADER_BYTES:
            raise FormError("the headers of a field are too long")
        return data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != self._name or b"filename" not in options:
            return
        if self.file_name is not None:
            raise FormError(f"more than one field {self._name.decode()}; send one request for each sound")
        self._is_wanted, self.file_name = True, _text(options[b"filename"])
        self._check_file_name(self.file_name)

    def _read_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_wanted:
            self._file.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._has_ended = True


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
