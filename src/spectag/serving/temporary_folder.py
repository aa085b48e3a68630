"""The temporary folder of a server, and those that servers left which were killed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "spectag-serve-"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is deleted at the end. Those of killed servers of this user are deleted now."""
    if hasattr(os, "getuid"):  # elsewhere, there is no harmless way to ask whether a process lives
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
            if _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _is_left(folder: Path) -> bool:
    """Whether a folder is ours, and the process in its name does not live."""
    number = folder.name.removeprefix(_PREFIX).partition("-")[0]
    try:
        if not number.isdecimal() or folder.is_symlink() or folder.lstat().st_uid != os.getuid():
            return False
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
