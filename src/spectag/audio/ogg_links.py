"""The links of a chained Ogg file: sounds that were joined, such as the songs of a recorded radio stream."""

import mmap
from pathlib import Path

_PAGE = b"OggS\0"
_FIRST_PAGE = b"OggS\0\2"
"""A page that starts a stream."""


_SEARCHED_BYTES = 1 << 24
"""A page has up to 65,307 bytes: so many bytes without one are not Ogg, such as the zeros of a preallocated file."""


def ogg_links(path: Path) -> list[tuple[int, int]]:
    """The position of the first and last byte + 1 of each link; one link for an ordinary file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        starts = [0]
        while (start := _next_link(data, starts[-1])) is not None:
            starts.append(start)
        return list(zip(starts, [*starts[1:], len(data)], strict=True))


def end_of_pages(path: Path) -> int | None:
    """The end of the part with pages, if no page is near the end of an Ogg file; None for all other files."""
    with path.open("rb") as file:
        if file.read(len(_PAGE)) != _PAGE or path.stat().st_size < 2 * _SEARCHED_BYTES:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.rfind(_PAGE, len(data) - _SEARCHED_BYTES) >= 0:
                return None
            position = last = 0
            while position >= 0:
                last = position
                position = data.rfind(_PAGE, last + 1, last + _SEARCHED_BYTES)
            return last + _SEARCHED_BYTES


def _next_link(data: mmap.mmap, start: int) -> int | None:
    """The start of the link after the one at `start`. The first pages of a link may start several streams."""
    position = start
    while data[position : position + len(_FIRST_PAGE)] == _FIRST_PAGE:
        position = data.find(_PAGE, position + 1, position + _SEARCHED_BYTES)
        if position < 0:
            return None
    while position >= 0:
        end = position + _SEARCHED_BYTES
        link = data.find(_FIRST_PAGE, position + 1, end)
        if link >= 0:
            return link
        position = data.rfind(_PAGE, position + 1, end)
    return None
