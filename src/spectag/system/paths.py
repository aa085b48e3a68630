"""Where recordings lie below the folder that holds them all, and tables, one for each, in the same folders."""

import os
from collections.abc import Iterable
from itertools import chain, count, takewhile
from pathlib import Path, PurePath

from spectag.system.storage import is_address, joined

_LONGEST_NAME = 200  # bytes; disks take 255, with the suffix

Parts = tuple[str, ...]
"""Of a location: where it begins (/, C:\\, s3://), its folders and its name."""


def parts_of(location: str) -> Parts:
    """The parts of a path, made absolute, or of an address."""
    if not is_address(location):
        return Path(os.path.abspath(location)).parts  # noqa: PTH100 - as it is given, links and all
    protocol, mark, place = location.partition("://")
    return (protocol + mark, *(part for part in place.split("/") if part not in ("", ".", "..")))


def location_of(parts: Parts) -> str:
    """The location that has these parts; "" where there are none."""
    if parts and is_address(parts[0]):
        return parts[0] + "/".join(parts[1:])
    return str(Path(*parts)) if parts else ""


def divided(location: str, root: Parts) -> tuple[Parts, Parts]:
    """The parts of `root`, and those from there on; () and all parts for what does not lie below it."""
    parts = parts_of(location)
    return (root, parts[len(root) :]) if parts[: len(root)] == root else ((), parts)


def common_folder(files: Iterable[str]) -> Parts:
    """The parts of the nearest folder that all files are below; () where some have nothing in common."""
    common: Parts | None = None
    for file in files:
        folder = parts_of(file)[:-1]
        pairs = zip(folder if common is None else common, folder, strict=False)
        common = tuple(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return common or ()


class TablePlaces:
    """Where the table of each recording goes: below `folder` as the recording lies below `root`.

    It is named like the recording without its suffix; or, where that name is taken (by the table of a.flac beside
    a.wav), with it.

    Parameters
    ----------
    folder : str or Path
        A path or an address.
    root : tuple of str
        Parts of the folder that holds the recordings, as `common_folder` finds it.
    suffix : str
        Of the tables, such as .txt.
    """

    def __init__(self, folder: str | Path, root: Parts, suffix: str) -> None:
        self._folder = str(folder)
        self._root = root
        self._suffix = suffix
        self._taken: set[int] = set()  # hashes: of a million names they need little memory

    def of(self, file: str) -> str:
        """The location of the next recording's table."""
        root, (*folders, name) = divided(file, self._root)
        if not root and folders:
            folders[0] = folders[0].strip(":/\\")  # of s3://, s3; of /, nothing
        stem, name = _short(PurePath(name).stem), _short(name)
        names = chain((stem, name), (f"{name} ({number})" for number in count(2)))
        for unlike in names:
            place = "/".join([*filter(None, folders), unlike + self._suffix])
            key = hash(place.casefold())  # there are disks to which A.txt is a.txt
            if key not in self._taken:
                break
        self._taken.add(key)
        return joined(self._folder, place)


def _short(name: str) -> str:
    """As much of a name as leaves room for a suffix."""
    while len(os.fsencode(name)) > _LONGEST_NAME:
        name = name[:-1]
    return name
