"""Files that are written whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
