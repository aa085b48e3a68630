"""Places of files: paths on this machine, and addresses such as s3://bucket/a.wav, which fsspec reads and writes.

A location is text, for pathlib makes one slash of the two in an address.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from spectag.errors import AudioError, DataError, MissingExtraError, SpectagError
from spectag.system.atomic_files import unfinished_file

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # one letter alone is a Windows drive
_MAGIC = re.compile(r"[*?\[]")
_SUFFIX = re.compile(r"\.\w+(?=$|\?)")  # the address of a web page may go on with questions
_MARKS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "modified", "created")


def is_address(location: str | Path) -> bool:
    """Whether a location is an address for fsspec, such as s3://bucket/a.wav, and not a path."""
    return isinstance(location, str) and _ADDRESS.match(location) is not None


def joined(folder: str, name: str) -> str:
    """The location of a name in a folder, which may be an address."""
    if not is_address(folder):
        return str(Path(folder, name))
    protocol, _, place = folder.partition("://")
    return f"{protocol}://{place.rstrip('/')}/{name}" if place else folder + name


@contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """A path to read what is at a location: of an address a temporary copy, which goes when the `with` block ends.

    A path, and a file:// address, is taken as it is, unread. A foreseen error in the block that names the copy is
    given on with the address in its place.

    Raises
    ------
    AudioError
        If what the address names can't be copied.
    MissingExtraError
        If fsspec is not installed.
    """
    if not is_address(location):
        yield Path(location)
        return
    filesystem, name = _opened(location)
    if _is_of_this_machine(filesystem):
        with _told_by_address(location, Path(name)):
            yield Path(name)
        return
    with _temporary_file(location) as copy, _told_by_address(location, copy):
        with _errors_of(location, "can't read the sound"):
            _get(filesystem, name, copy)
        yield copy


@contextmanager
def unfinished_copy(location: str) -> Iterator[Path]:
    """A path to write to: what is there is at `location` when the `with` block ends well, and nowhere when not.

    A path is written as `unfinished_file` does it. What is for an address is first written to a temporary file.

    Raises
    ------
    DataError
        If the address can't be written.
    OSError
        If the path can't be written.
    """
    if not is_address(location):
        with unfinished_file(Path(location)) as unfinished:
            yield unfinished
        return
    with _temporary_file(location) as copy, _told_by_address(location, copy):
        yield copy
        upload(copy, location)


def upload(path: Path, address: str) -> None:
    """Copy a file to an address, over what is there; folders on the way are made where the filesystem needs them.

    Object stores show the file when it is whole; of other filesystems, file:// does.

    Raises
    ------
    DataError
        If the address can't be written.
    MissingExtraError
        If fsspec is not installed.
    """
    filesystem, name = _opened(address)
    with _errors_of(address, "can't be written", DataError):
        if _is_of_this_machine(filesystem):
            with unfinished_file(Path(name)) as unfinished:
                shutil.copyfile(path, unfinished)
        else:
            filesystem.put_file(str(path), name)


def find_in_address(address: str, suffixes: Collection[str]) -> list[str]:
    """Addresses of the sounds at an address, sorted as paths are.

    A file is taken as it is given, whatever its suffix. A folder gives the files in it, and in the folders in it, that
    have one of the suffixes in any case of letters. An address with `*`, `?`, `[` or `**` gives such files, and those
    in such folders. Names that begin with a dot are left out. What the address itself names wins over a pattern.

    Raises
    ------
    AudioError
        If nothing is at the address, a folder can't be read, or no sound is there.
    MissingExtraError
        If fsspec is not installed.
    """
    filesystem, name = _opened(address)
    with _errors_of(address, "can't read the folder"):
        try:
            info = filesystem.info(name)
        except FileNotFoundError:
            if not _MAGIC.search(name):
                raise
            root = address[: address.rfind("/", 0, _MAGIC.search(address).start()) + 1]  # type: ignore[union-attr]
            files = _matching(filesystem, name)
            name = _opened(root)[1]
        else:
            if info["type"] != "directory" and not address.endswith("/"):
                return [address]
            root, files = address, _files_below(filesystem, name)
        below = [file.removeprefix(name).strip("/").split("/") for file in files]
    sounds = [
        parts
        for parts in sorted(below)
        if PurePosixPath(parts[-1]).suffix.lower() in suffixes and not any(part.startswith(".") for part in parts)
    ]
    if not sounds:
        looked_for = " ".join(sorted(suffixes))
        raise AudioError(f"{address}: no sound found; looked for files that end in {looked_for}")
    return [joined(root, "/".join(parts)) for parts in sounds]


def size_and_time(location: str) -> tuple[int, str]:
    """The size of a file in bytes, and a text that changes with what it holds: a time, or an object store's tag.

    Of a path, and of a file:// address, the mark is the time of the last change in nanoseconds. It is empty where a
    filesystem tells nothing.

    Raises
    ------
    AudioError
        If there is no such file.
    MissingExtraError
        If fsspec is not installed.
    """
    if not is_address(location):
        return _of_path(location, location)
    filesystem, name = _opened(location)
    if _is_of_this_machine(filesystem):
        return _of_path(name, location)
    with _errors_of(location, "can't read the sound"):
        info = filesystem.info(name)
    mark = next((info[key] for key in _MARKS if info.get(key) is not None), "")
    return int(info.get("size") or 0), str(mark)


def _of_path(path: str, location: str) -> tuple[int, str]:
    try:
        status = os.stat(path)  # noqa: PTH116 - making a Path of it takes longer
    except (OSError, ValueError) as error:  # ValueError: no name for a file
        raise AudioError(f"{location}: can't read the sound: {getattr(error, 'strerror', error)}") from error
    return status.st_size, str(status.st_mtime_ns)


def _opened(address: str) -> tuple[Any, str]:
    """The filesystem of an address, and the name that the file has there."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError("fsspec", "cloud", f"{address}: reading and writing addresses") from error

    # fsspec would take :: for one filesystem in another; in an object store it is a part of a name.
    first, colons, rest = address.partition("::")
    try:
        filesystem, name = url_to_fs(first)
    except ImportError as error:  # such as "Install s3fs to access S3"
        raise AudioError(f"{address}: a package is missing that reads such addresses: {error}") from error
    except Exception as error:  # the errors of filesystems share no class
        raise AudioError(f"{address}: can't be reached: {_reason(error)}") from error
    return filesystem, name + colons + rest


def _is_of_this_machine(filesystem: Any) -> bool:
    return getattr(filesystem, "local_file", False) is True


def _get(filesystem: Any, name: str, copy: Path) -> None:
    """Copy a file; of a folder some filesystems make a folder, and others say that they don't know it."""
    try:
        filesystem.get_file(name, str(copy))
    except Exception:
        if not filesystem.isdir(name):
            raise
    if not copy.is_file():
        raise IsADirectoryError(errno.EISDIR, "need a sound file, got a folder")


def _matching(filesystem: Any, pattern: str) -> Iterator[str]:
    """The files that match a pattern, and those in folders that do."""
    matches = filesystem.glob(pattern, detail=True)
    expanded = None
    for name in sorted(matches, key=lambda name: f"{name}/"):  # a folder, then what is in it, then its neighbour
        if expanded is not None and name.startswith(expanded):
            continue
        if matches[name]["type"] == "directory":
            expanded = f"{name.rstrip('/')}/"
            yield from _files_below(filesystem, name)
        else:
            yield name


def _files_below(filesystem: Any, folder: str) -> Iterator[str]:
    """Names of all files below a folder; fsspec's own `find` leaves out, silently, folders that can't be read."""
    folders = [folder]
    while folders:
        folder = folders.pop().rstrip("/")
        for info in filesystem.ls(folder, detail=True):
            name = info["name"].rstrip("/")
            if info["type"] == "directory" and name != folder:
                folders.append(name)
            elif name != folder:  # object stores may keep an empty object for a folder
                yield name


@contextmanager
def _temporary_file(location: str) -> Iterator[Path]:
    """An empty file with the location's suffix, for the time of the `with` block."""
    suffix = _SUFFIX.search(location.rpartition("/")[2])
    with tempfile.TemporaryDirectory(prefix="spectag-") as folder:
        yield Path(folder, f"copy{suffix[0] if suffix else ''}")


@contextmanager
def _told_by_address(address: str, path: Path) -> Iterator[None]:
    """Foreseen errors name the address instead of the path."""
    try:
        yield
    except SpectagError as error:
        error.args = tuple(str(part).replace(str(path), address) for part in error.args)
        raise


@contextmanager
def _errors_of(address: str, trouble: str, kind: type[SpectagError] = AudioError) -> Iterator[None]:
    try:
        yield
    except SpectagError:
        raise
    except Exception as error:  # the errors of filesystems share no class
        raise kind(f"{address}: {trouble}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What went wrong; some filesystems give the name of a missing file for all reason."""
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
