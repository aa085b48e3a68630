"""The links of a chained Ogg file: sounds that were joined, such as the songs of a recorded radio stream."""

import mmap
from pathlib import Path

_PAGE = b"OggS\0"
_FIRST_PAGE = b"OggS\0\2"
"""A page that starts a stream."""


def ogg_links(path: Path) -> list[tuple[int, int]]:
    """The position of the first and last byte + 1 of each link; one link for an ordinary file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        starts = [0]
        while (start := _next_link(data, starts[-1])) is not None:
            starts.append(start)
        return list(zip(starts, [*starts[1:], len(data)], strict=True))


def _next_link(data: mmap.mmap, start: int) -> int | None:
    """The start of the link after the one at `start`. The first pages of a link may start several streams."""
    position = start
    while data[position : position + len(_FIRST_PAGE)] == _FIRST_PAGE:
        position = data.find(_PAGE, position + 1)
        if position < 0:
            return None
    position = data.find(_FIRST_PAGE, position + 1)
    return position if position >= 0 else None
