"""A part of a file, or a file with some bytes replaced, as a file object for a decoder."""

import io
from pathlib import Path


class FileView(io.RawIOBase):
    """The bytes of a file from `start` to `end`, with `replacement` at a position from the start of the view."""

    def __init__(
        self, path: Path, start: int = 0, end: int | None = None, replacement: tuple[int, bytes] = (0, b"")
    ) -> None:
        self._file = path.open("rb")
        self._start = start
        self._size = (self._file.seek(0, io.SEEK_END) if end is None else end) - start
        self._position = 0
        self._replacement = replacement

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        n_bytes = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._start + self._position)
        data = bytearray(self._file.read(n_bytes))
        position, new = self._replacement
        first, last = max(position, self._position), min(position + len(new), self._position + len(data))
        if first < last:
            data[first - self._position : last - self._position] = new[first - position : last - position]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
