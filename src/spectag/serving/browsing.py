"""What the page may see of the disk: some folders and everything below them, and nothing else."""

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.models.bundle import INFO_FILE
from spectag.serving.problems import ProblemError
from spectag.serving.project.database import DATABASE

EntryKind = Literal["folder", "project", "model", "sound", "table"]

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".parquet"})
MAX_ENTRIES = 5_000
"""Of a folder that are listed."""

_MAX_SCANNED = 50_000  # entries of a folder that are looked at, also files of other kinds
_MAX_CHARACTERS = 4_096  # of a path
_FOLDER_KINDS = ("folder", "project", "model")
_NETWORK_STARTS = ("//", "\\\\", "/\\", "\\/")
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class FolderEntry:
    """A folder or file in a listing."""

    name: str
    path: str
    kind: EntryKind
    n_bytes: int | None
    """None for folders."""
    changed: str
    """Time in UTC, as ISO 8601."""


@dataclass(frozen=True)
class FolderListing:
    """What is in a folder."""

    path: Path
    parents: tuple[Path, ...]
    """The folders from the allowed one down to this one, both included."""
    entries: tuple[FolderEntry, ...]
    """Folders first, then files, both by name. Hidden files and those of other kinds are left out."""
    is_complete: bool
    """False if the folder has more entries than are listed."""


class AllowedFolders:
    """Folders that the page may read, with everything below them.

    Parameters
    ----------
    folders : iterable of Path
        Links among them are followed once, now. Those that do not exist are left out.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        resolved = (Path(os.path.realpath(folder)) for folder in folders)
        self._roots = tuple(dict.fromkeys(folder for folder in resolved if folder.is_dir()))

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders themselves, in the given order."""
        return self._roots

    def resolve(self, text: str) -> Path:
        """The file or folder that a path from the page names, without links in it.

        Parameters
        ----------
        text : str
            An absolute path. It is taken as it is: `%2e%2e` and `~` are names like others.

        Raises
        ------
        ProblemError
            If this is no path (422), it leaves the allowed folders (403, whether it exists or not), it does not exist
            (404), or it may not be read (403).
        """
        path = self._inside(text)
        try:
            path.stat()
        except (OSError, ValueError) as error:
            raise _problem(path, error) from None
        return path

    def resolve_new(self, text: str) -> Path:
        """The path of a file or folder that may be created: its folder exists and is allowed.

        Raises
        ------
        ProblemError
            As `resolve`, for its folder.
        """
        path = self._inside(text)
        self.resolve(str(path.parent))
        return path

    def list(self, folder: Path) -> FolderListing:
        """The folders, sounds, tables, models and projects in a folder from `resolve`.

        At most 5000 are listed. What vanishes during the listing is left out, and so is a link to a place outside.

        Raises
        ------
        ProblemError
            If it is not a folder (422), does not exist any more (404), or may not be read (403).
        """
        if folder.is_file():
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{folder}: this is a file; expected a folder")
        entries: list[FolderEntry] = []
        is_complete = True
        try:
            with os.scandir(folder) as children:
                for number, child in enumerate(children):
                    if number >= _MAX_SCANNED:
                        is_complete = False
                        break
                    if (entry := self._entry(child)) is not None:
                        entries.append(entry)
        except (OSError, ValueError) as error:
            raise _problem(folder, error) from None
        entries.sort(key=lambda entry: (entry.n_bytes is not None, entry.name.casefold(), entry.name))
        is_complete = is_complete and len(entries) <= MAX_ENTRIES
        return FolderListing(folder, self._parents(folder), tuple(entries[:MAX_ENTRIES]), is_complete)

    def _inside(self, text: str) -> Path:
        """The path without links. Paths outside are refused before anything says whether they exist."""
        if not text or len(text) > _MAX_CHARACTERS or "\0" in text or not _is_text(text):
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "expected the path of a file or folder")
        if text.startswith(_NETWORK_STARTS):  # Windows would send the user's name to that computer
            raise _outside()
        if not Path(text).is_absolute():
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{text[:200]}: expected a complete path, from its start"
            )
        path = Path(os.path.realpath(text))
        if self._root_of(path) is None:
            raise _outside()
        return path

    def _root_of(self, path: Path) -> Path | None:
        return next((root for root in self._roots if path.is_relative_to(root)), None)

    def _parents(self, folder: Path) -> tuple[Path, ...]:
        root = self._root_of(folder)
        if root is None:
            raise _outside()
        return (*(parent for parent in reversed(folder.parents) if parent.is_relative_to(root)), folder)

    def _entry(self, child: os.DirEntry[str]) -> FolderEntry | None:
        """None for what is not shown."""
        if child.name.startswith(".") or not _is_text(child.name):
            return None
        try:
            if child.is_symlink() and self._root_of(Path(os.path.realpath(child.path))) is None:
                return None
            status = child.stat()
        except (OSError, ValueError):  # it has vanished, or is a link to nothing
            return None
        kind = _kind(Path(child.path), status)
        if kind is None or getattr(status, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_HIDDEN:
            return None
        n_bytes = None if kind in _FOLDER_KINDS else status.st_size
        return FolderEntry(child.name, child.path, kind, n_bytes, _time(status.st_mtime))


def _kind(path: Path, status: os.stat_result) -> EntryKind | None:
    """What a file or folder is, by its name and the names in it; None for other files, such as pipes."""
    if stat.S_ISDIR(status.st_mode):
        if _has(path, DATABASE):
            return "project"
        return "model" if _has(path, INFO_FILE) else "folder"
    suffix = path.suffix.lower()
    if not stat.S_ISREG(status.st_mode):
        return None
    if suffix in AUDIO_SUFFIXES:
        return "sound"
    return "table" if suffix in TABLE_SUFFIXES else None


def _has(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except OSError:  # a folder that may not be read
        return False


def _is_text(text: str) -> bool:
    """Whether a name can be sent: Linux has names that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):  # beyond the year 9999
        return ""


def _outside() -> ProblemError:
    detail = "this path is outside the folders that the page may read; start spectag with --folder to add its folder"
    return ProblemError(HTTPStatus.FORBIDDEN, detail)


def _problem(path: Path, error: OSError | ValueError) -> ProblemError:
    number = error.errno if isinstance(error, OSError) else None
    if number in _NOT_THERE:
        return ProblemError(HTTPStatus.NOT_FOUND, f"{path}: this does not exist any more; choose another one")
    if number in _NOT_ALLOWED:
        return ProblemError(HTTPStatus.FORBIDDEN, f"{path}: you may not read this; choose another one")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path of this system"
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{str(path)[:200]}: {reason}")
