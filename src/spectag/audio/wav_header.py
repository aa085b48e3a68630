"""Where the samples of a wav are, also if a recorder lost its power before it wrote their number."""

import io
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MAX_CHUNKS = 10_000
_MIN_PLACEHOLDER = 0x7FFF_0000
"""Programs that write to a pipe don't know the size; they write a number from here on."""
_UNKNOWN_SIZE = 0xFFFF_FFFF


class WavHeader(NamedTuple):
    """Where the samples of a wav are. Positions and sizes are in bytes."""

    start: int
    """Position of the first sample."""
    declared_size: int | None
    """Size of the samples; None if it was not known when the header was written."""
    present_size: int
    """From the first sample to the end of the file."""
    is_unfinished: bool
    """Whether the declared size is too small: the recorder lost its power before it wrote the right one."""
    size_field: tuple[int, str]
    """Position of the declared size, and its format for `struct`."""

    @property
    def present_fraction(self) -> float:
        """The part of the declared samples that is in the file, up to 1."""
        return min(1.0, self.present_size / self.declared_size) if self.declared_size else 1.0

    @property
    def correction(self) -> tuple[int, bytes]:
        """The position of the declared size, and the bytes that make it reach to the end of the file."""
        position, layout = self.size_field
        size = self.present_size if layout == "<Q" else min(self.present_size, _UNKNOWN_SIZE)
        return position, struct.pack(layout, size)


def read_wav_header(path: Path) -> WavHeader | None:
    """The header of a wav or RF64 file; None for other files and for those without samples."""
    with path.open("rb") as file:
        file_size = file.seek(0, io.SEEK_END)
        file.seek(0)
        form, form_size = _read_chunk_header(file)
        if form not in (b"RIFF", b"RF64", b"BW64") or file.read(4) != b"WAVE":
            return None
        long_size = None
        for _ in range(_MAX_CHUNKS):
            position = file.tell()
            name, size = _read_chunk_header(file)
            if name == b"data":
                is_long = long_size is not None and size == _UNKNOWN_SIZE
                size_field = (28, "<Q") if is_long else (position + 4, "<I")
                declared = long_size if is_long and long_size is not None else size
                is_known = is_long or declared < _MIN_PLACEHOLDER
                is_form_size_known = 0 < form_size < _MIN_PLACEHOLDER or is_long
                is_too_small = declared == 0 or (not is_form_size_known and declared < file_size - position - 8)
                is_unfinished = is_too_small and not _are_chunks(file, position + 8 + declared, file_size)
                present = file_size - position - 8
                return WavHeader(position + 8, declared if is_known else None, present, is_unfinished, size_field)
            if name == b"ds64" and position == 12 and size >= 16:
                long_size = int.from_bytes(file.read(16)[8:], "little")
            if not name or position + 8 + size >= file_size:
                return None
            file.seek(position + 8 + size + size % 2)
    return None


def wav_chunks(path: Path, names: Collection[bytes], *, max_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a wav or RF64 file with these names, and up to `max_bytes` of the content of each.

    It ends at the first chunk that reaches beyond the end of the file, or whose size is not known.

    Raises
    ------
    OSError
        If the file can't be read.
    """
    with path.open("rb") as file:
        file_size = file.seek(0, io.SEEK_END)
        file.seek(0)
        form, _ = _read_chunk_header(file)
        if form not in (b"RIFF", b"RF64", b"BW64") or file.read(4) != b"WAVE":
            return
        long_size = _UNKNOWN_SIZE
        for _ in range(_MAX_CHUNKS):
            name, size = _read_chunk_header(file)
            start = file.tell()
            if name == b"ds64":
                long_size = int.from_bytes(file.read(16)[8:], "little")
            elif name == b"data" and size == _UNKNOWN_SIZE:
                size = long_size
            if not name or start + size > file_size:
                return
            if name in names:
                yield name, file.read(min(size, max_bytes))
            file.seek(start + size + size % 2)


def _read_chunk_header(file: BinaryIO) -> tuple[bytes, int]:
    """Name and size of the next chunk; an empty name at the end of the file."""
    header = file.read(8)
    return (header[:4], int.from_bytes(header[4:], "little")) if len(header) == 8 else (b"", 0)


def _are_chunks(file: BinaryIO, position: int, file_size: int) -> bool:
    """Whether chunks fill the file from a position to its end."""
    for _ in range(_MAX_CHUNKS):
        position += position % 2
        if position >= file_size:
            return True
        file.seek(position)
        name, size = _read_chunk_header(file)
        if not name or any(byte not in range(32, 127) for byte in name) or position + 8 + size > file_size:
            return False
        position += 8 + size
    return False
