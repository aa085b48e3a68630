"""Files that are written whole or not at all."""

import errno
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = re.compile(r"\..+\.[0-9]+\.[^.]+")


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: it takes its place when the `with` block ends well, and goes when not.

    Its folder is made where there is none. Of a link, what it points to is replaced. A pipe or a device, such as
    /dev/stdout, is written to as it is.

    Raises
    ------
    IsADirectoryError
        If `path` is a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "there is a folder of this name", str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    if path.is_symlink():
        path = path.resolve()
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what processes left that were killed while they wrote a file, or the files in a folder.

    Nobody may be writing there meanwhile.
    """
    if path.is_dir():
        left = [file for file in path.rglob(".*") if _UNFINISHED.fullmatch(file.name)]
    else:
        beside = path.parent.glob(f".{glob.escape(path.stem)}.*{glob.escape(path.suffix)}")
        left = [file for file in beside if file.name[len(path.stem) + 2 :].removesuffix(path.suffix).isdecimal()]
    for file in left:
        file.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
