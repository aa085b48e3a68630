"""Paths of output tables: one per recording, in the same subfolders as the recordings."""

import os
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path, PurePath

from spectag.system.storage import is_url, join_location

_MAX_NAME_BYTES = 200  # file systems allow 255, including the suffix

Parts = tuple[str, ...]
"""The parts of a path or URL: the root (/, C:\\, s3://), the folders and the file name."""


def split_location(location: str) -> Parts:
    """The parts of a URL, or of a path made absolute."""
    if not is_url(location):
        return Path(os.path.abspath(location)).parts  # noqa: PTH100 - symbolic links stay
    protocol, separator, path = location.partition("://")
    return (protocol + separator, *(part for part in path.split("/") if part not in ("", ".", "..")))


def join_parts(parts: Parts) -> str:
    """The path or URL with these parts; "" without parts."""
    if parts and is_url(parts[0]):
        return parts[0] + "/".join(parts[1:])
    return str(Path(*parts)) if parts else ""


def split_below(location: str, root: Parts) -> tuple[Parts, Parts]:
    """`root` and the parts below it; () and all parts if the location is not below `root`."""
    parts = split_location(location)
    return (root, parts[len(root) :]) if parts[: len(root)] == root else ((), parts)


def common_folder(files: Iterable[str]) -> Parts:
    """The parts of the deepest folder that contains all files; () if there is none."""
    folders = (split_location(file)[:-1] for file in files)
    common = next(folders, ())
    for folder in folders:
        while folder[: len(common)] != common:
            common = common[:-1]
    return common


def relative_name(path: Path, name: str, folder: Path) -> str:
    """The name of a file in a table in `folder`: `name`, if it leads from there to the file, else a relative path."""
    if path.absolute() == folder.absolute() / name:
        return name
    return Path(os.path.relpath(path.absolute(), folder.resolve())).as_posix()


class TablePaths:
    """Chooses a path for the table of each recording, in the same subfolder as the recording.

    The table has the name of the recording without its suffix. If that name is used already (a.flac beside a.wav), it
    has the name with the suffix.

    Parameters
    ----------
    folder : str or Path
        Output folder: a path or a URL.
    root : tuple of str
        Parts of the folder that contains all recordings; see `common_folder`.
    suffix : str
        Suffix of the tables, such as .txt.
    """

    def __init__(self, folder: str | Path, root: Parts, suffix: str) -> None:
        self._folder = str(folder)
        self._root = root
        self._suffix = suffix
        self._used: set[int] = set()  # hashes need little memory, even for a million names

    def path_for(self, file: str) -> str:
        """The path or URL of the table of the next recording."""
        root, (*folders, name) = split_below(file, self._root)
        if not root and folders:
            folders[0] = folders[0].strip(":/\\")  # s3:// becomes s3; / becomes an empty name
        stem, name = _shortened(PurePath(name).stem), _shortened(name)
        for candidate in chain((stem, name), (f"{name} ({number})" for number in count(2))):
            path = "/".join([*filter(None, folders), candidate + self._suffix])
            key = hash(path.casefold())  # some file systems ignore case
            if key not in self._used:
                break
        self._used.add(key)
        return join_location(self._folder, path)


def _shortened(name: str) -> str:
    """The name without the characters at its end that leave no room for a suffix."""
    while len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = name[:-1]
    return name
