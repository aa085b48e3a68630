"""Files that appear complete or not at all."""

import errno
import glob
import hashlib
import os
import platform
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

_UNFINISHED = re.compile(r"\..+\.[0-9]+\.[^.]+")


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to.

    The temporary file replaces `path` when the `with` block succeeds and is deleted when it fails. Those that killed
    processes of this machine left for the same path are deleted. Missing folders are created. If `path` is a symbolic
    link, the target is replaced. A pipe or a device, such as /dev/stdout, is written directly.

    Raises
    ------
    IsADirectoryError
        If `path` is a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder has this name", str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve() if path.is_symlink() else path
    unfinished = path.with_name(f".{path.stem}.{_machine()}{os.getpid():07}{path.suffix}")
    for name in _unfinished_names(path.parent):
        if _is_left_over(name, path):
            path.with_name(name).unlink(missing_ok=True)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Five digits for this machine or container: another one that shares the folder has other process numbers."""
    try:
        processes = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - Linux
    except OSError:
        processes = 0
    return f"{zlib.crc32(f'{platform.node()} {processes}'.encode()) % 100_000:05}"


@lru_cache(maxsize=16)
def _unfinished_names(folder: Path) -> tuple[str, ...]:
    """The names of temporary files in a folder when this process first writes there: it may have many files."""
    with os.scandir(folder) as entries:
        return tuple(entry.name for entry in entries if entry.name[0] == "." and _UNFINISHED.fullmatch(entry.name))


def _is_left_over(name: str, path: Path) -> bool:
    """Whether a name is that of a temporary file for `path` whose process, on this machine, has ended."""
    beginning = f".{path.stem}.{_machine()}"
    number = name.removeprefix(beginning).removesuffix(path.suffix)
    if os.name != "posix" or not number.isdecimal() or name != f"{beginning}{number}{path.suffix}":
        return False
    try:
        os.kill(int(number), 0)  # sends no signal
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def remove_unfinished(path: Path) -> None:
    """Delete the temporary files that killed processes left for a file, or for all files in a folder.

    No other process may write there at the same time.
    """
    if path.is_dir():
        leftovers = [file for file in path.rglob(".*") if _UNFINISHED.fullmatch(file.name)]
    else:
        siblings = path.parent.glob(f".{glob.escape(path.stem)}.*{glob.escape(path.suffix)}")
        leftovers = [file for file in siblings if file.name[len(path.stem) + 2 :].removesuffix(path.suffix).isdecimal()]
    for file in leftovers:
        file.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
