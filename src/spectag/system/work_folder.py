"""Work folders: where files are made until they are whole, so that a killed run leaves nothing half-written in sight.

A run makes its files in a folder of its own and moves each, once it is whole, to where it belongs. The run holds a
lock on the folder, which the system lets go when the process ends in any way at all: a folder whose lock is free is
what an ended run has left.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_PATTERN = ".work-*"


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder under `parent`, locked within the `with` block; `ended_work` takes it from there."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / _PATTERN.replace("*", uuid.uuid4().hex)
    lock = FileLock(folder / "lock")
    with _lock(parent):  # or another run might find the folder before it is locked
        folder.mkdir()
        lock.acquire()
    try:
        yield folder
    finally:
        lock.release()


@contextmanager
def ended_work(parent: Path) -> Iterator[list[Path]]:
    """The work folders of ended runs under `parent`, for one process at a time; removed after the `with` block."""
    if not any(parent.glob(_PATTERN)):
        yield []
        return
    with _lock(parent):
        ended = [folder for folder in parent.glob(_PATTERN) if _has_ended(folder)]
        yield ended
        for folder in ended:
            shutil.rmtree(folder, ignore_errors=True)  # an orphaned worker may still write; the next run tries again


def _lock(parent: Path) -> FileLock:
    return FileLock(parent / ".lock")


def _has_ended(folder: Path) -> bool:
    try:
        with FileLock(folder / "lock", timeout=0):
            return True
    except Timeout:
        return False
