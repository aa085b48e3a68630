"""Reading files that come from strangers: only regular files, and only up to a size."""

import errno
import stat
from collections.abc import Iterable
from pathlib import Path

_MEGABYTE = 1_000_000


def read_regular_file(path: Path, *, max_bytes: int) -> bytes:
    """The content of a regular file; symbolic links to one are followed.

    Raises
    ------
    OSError
        If the file cannot be read, is larger than `max_bytes`, or is a folder, pipe, socket or device, which might
        never end.
    """
    check_regular_file(path, max_bytes=max_bytes)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # it has grown
        raise _too_large(path, len(content), max_bytes)
    return content


def check_regular_file(path: Path, *, max_bytes: int) -> None:
    """Raise an OSError if a path is not a regular file, or a larger one than `max_bytes`. The file is not opened."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file, but a folder, pipe or device", str(path))
    if status.st_size > max_bytes:
        raise _too_large(path, status.st_size, max_bytes)


def irregular(folder: str, names: Iterable[str]) -> set[str]:
    """The pipes and devices among the files of a folder, for `shutil.copytree`: their copy would never end."""
    return {name for name in names if not ((path := Path(folder, name)).is_file() or path.is_dir())}


def hidden_or_irregular(folder: str, names: Iterable[str]) -> set[str]:
    """Those and the hidden files."""
    return {name for name in names if name.startswith(".")} | irregular(folder, names)


def _too_large(path: Path, n_bytes: int, max_bytes: int) -> OSError:
    sizes = f"{n_bytes / _MEGABYTE:.0f} MB, expected at most {max_bytes / _MEGABYTE:.0f} MB"
    return OSError(errno.EFBIG, f"the file is too large: {sizes}", str(path))
