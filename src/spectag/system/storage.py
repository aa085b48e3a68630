"""Access to files by location: a path on this machine, or a URL such as s3://bucket/a.wav that fsspec can open.

A location is a string, because pathlib would replace the two slashes of a URL with one.
"""

import errno
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from spectag.errors import AudioError, DataError, MissingExtraError, SpectagError
from spectag.system.atomic_files import unfinished_file

_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # a single letter is a Windows drive
_WILDCARD = re.compile(r"[*?\[]")
_SUFFIX = re.compile(r"\.\w+(?=$|\?)")  # a web address may have a query after the suffix


def is_url(location: object) -> TypeGuard[str]:
    """Whether a location is a URL for fsspec, such as s3://bucket/a.wav, and not a path."""
    return isinstance(location, str) and _PROTOCOL.match(location) is not None


def join_location(folder: str, name: str) -> str:
    """The location of a file name in a folder; the folder may be a URL."""
    if not is_url(folder):
        return str(Path(folder, name))
    protocol, _, path = folder.partition("://")
    return f"{protocol}://{path.rstrip('/')}/{name}" if path else folder + name


@contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """A local path with the content of a location.

    For a URL, it is a temporary copy that is deleted after the `with` block. A path or a file:// URL is not copied. An
    error in the block that names the copy names the URL instead.

    Raises
    ------
    AudioError
        If the file at the URL can't be copied.
    MissingExtraError
        If fsspec is not installed.
    """
    filesystem, name = _resolve(location)
    if filesystem is None:
        with _url_in_errors(location, Path(name)):
            yield Path(name)
        return
    with _temporary_file(location) as copy, _url_in_errors(location, copy):
        with _filesystem_errors(location, "can't read the sound"):
            _download(filesystem, name, copy)
        yield copy


@contextmanager
def unfinished_copy(location: str) -> Iterator[Path]:
    """A local path to write to. The file appears at `location` only if the `with` block succeeds.

    For a path and for a file:// URL, see `unfinished_file`. For other URLs, the file is uploaded after the block, and
    object stores show it only when it is complete.

    Raises
    ------
    DataError
        If the URL can't be written.
    MissingExtraError
        If fsspec is not installed.
    OSError
        If the path can't be written.
    """
    filesystem, name = _resolve(location)
    if filesystem is None:
        with unfinished_file(Path(name)) as unfinished:
            yield unfinished
        return
    with _temporary_file(location) as copy, _url_in_errors(location, copy):
        yield copy
        with _filesystem_errors(location, "can't be written", DataError):
            filesystem.put_file(str(copy), name)


def find_in_url(url: str, suffixes: Collection[str]) -> list[str]:
    """URLs of the sounds at a URL, sorted as paths are.

    A file is returned whatever its suffix. A folder gives the files in it and its subfolders that have one of the
    suffixes, in upper or lower case. A pattern with `*`, `?`, `[` or `**` gives the matching files and the files in
    matching folders. A file whose name looks like a pattern takes precedence. Names that start with a dot are ignored.

    Raises
    ------
    AudioError
        If the URL does not exist, a folder can't be read, or there is no sound.
    MissingExtraError
        If fsspec is not installed.
    """
    filesystem, name = _open_filesystem(url)
    with _filesystem_errors(url, "can't read the folder"):
        try:
            info = filesystem.info(name)
        except FileNotFoundError:
            if not _WILDCARD.search(name):
                raise
            root = url[: url.rfind("/", 0, _WILDCARD.search(url).start()) + 1]  # type: ignore[union-attr]
            files = _matching_files(filesystem, name)
            name = _open_filesystem(root)[1]
        else:
            if info["type"] != "directory" and not url.endswith("/"):
                return [url]
            root, files = url, _files_below(filesystem, name)
        paths = [file.removeprefix(name).strip("/") for file in files]
    sounds = [path for path in paths if PurePosixPath(path).suffix.lower() in suffixes and "/." not in f"/{path}"]
    if not sounds:
        raise AudioError(f"{url}: no sound found; looked for files that end in {' '.join(sorted(suffixes))}")
    return [join_location(root, path) for path in sorted(sounds, key=lambda path: path.split("/"))]


def file_fingerprint(location: str) -> str:
    """A string that changes when a file changes. Empty for a missing file, and for a URL, where a request is slow."""
    if is_url(location):
        return ""
    try:
        status = os.stat(location)  # noqa: PTH116 - faster than a Path
    except (OSError, ValueError):  # ValueError: not a valid file name
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _resolve(location: str) -> tuple[Any, str]:
    """The file system of a location and the name of the file there; None and a path for a file on this machine."""
    if not is_url(location):
        return None, location
    filesystem, name = _open_filesystem(location)
    return (None if getattr(filesystem, "local_file", False) is True else filesystem), name


def _open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the name of the file there."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError("fsspec", "cloud", f"{url}: reading and writing URLs") from error

    # fsspec reads :: as a file system inside another one, but object stores allow it in names
    first, colons, rest = url.partition("::")
    try:
        filesystem, name = url_to_fs(first)
    except ImportError as error:  # such as "Install s3fs to access S3"
        raise AudioError(f"{url}: a package for such URLs is missing: {error}") from error
    except Exception as error:  # the exceptions of file systems have no common class
        raise AudioError(f"{url}: can't be reached: {_reason(error)}") from error
    return filesystem, name + colons + rest


def _download(filesystem: Any, name: str, copy: Path) -> None:
    """Copy a file. For a folder, some file systems create a folder, and others report that it does not exist."""
    try:
        filesystem.get_file(name, str(copy))
    except Exception:
        if not filesystem.isdir(name):
            raise
    if not copy.is_file():
        raise IsADirectoryError(errno.EISDIR, "need a sound file, got a folder")


def _matching_files(filesystem: Any, pattern: str) -> Iterator[str]:
    """The files that match a pattern, and the files in matching folders."""
    matches = filesystem.glob(pattern, detail=True)
    folder = None
    for name in sorted(matches, key=lambda name: f"{name}/"):  # a folder comes before its content
        if folder is not None and name.startswith(folder):
            continue
        if matches[name]["type"] == "directory":
            folder = f"{name.rstrip('/')}/"
            yield from _files_below(filesystem, name)
        else:
            yield name


def _files_below(filesystem: Any, folder: str) -> Iterator[str]:
    """Names of all files below a folder. fsspec's `find` would silently skip folders that it can't read."""
    folders = [folder]
    while folders:
        folder = folders.pop().rstrip("/")
        for info in filesystem.ls(folder, detail=True):
            name = info["name"].rstrip("/")
            if info["type"] == "directory" and name != folder:
                folders.append(name)
            elif name != folder:  # object stores may have an empty object with the name of the folder
                yield name


@contextmanager
def _temporary_file(location: str) -> Iterator[Path]:
    """A temporary path with the suffix of the location."""
    suffix = _SUFFIX.search(location.rpartition("/")[2])
    with tempfile.TemporaryDirectory(prefix="spectag-") as folder:
        yield Path(folder, f"copy{suffix[0] if suffix else ''}")


@contextmanager
def _url_in_errors(url: str, path: Path) -> Iterator[None]:
    """Name the URL instead of the path in the messages of expected errors; no change if it is not a URL."""
    try:
        yield
    except SpectagError as error:
        if is_url(url):
            error.args = tuple(str(argument).replace(str(path), url) for argument in error.args)
        raise


@contextmanager
def _filesystem_errors(url: str, problem: str, error_class: type[SpectagError] = AudioError) -> Iterator[None]:
    """Raise the exceptions of a file system as expected errors."""
    try:
        yield
    except SpectagError:
        raise
    except Exception as error:  # the exceptions of file systems have no common class
        raise error_class(f"{url}: {problem}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What went wrong. For a missing file, some file systems report only its name."""
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
