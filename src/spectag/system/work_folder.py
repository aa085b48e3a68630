"""Temporary work folders: a killed run leaves no incomplete files in the output folder.

A run writes its files to its own work folder and moves each complete file to its destination. The run holds a lock on
the work folder. The operating system releases the lock when the process ends for any reason. So a work folder without
a lock was left by a run that has ended.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_PATTERN = ".work-*"
_LOCK = ".lock"  # of the parent folder


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, locked during the `with` block. `abandoned_work` finds and removes it later."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / _PATTERN.replace("*", uuid.uuid4().hex)
    lock = FileLock(folder / "lock")
    with FileLock(parent / _LOCK):  # else another run could find the folder before it is locked
        folder.mkdir()
        lock.acquire()
    try:
        yield folder
    finally:
        lock.release()


@contextmanager
def abandoned_work(parent: Path) -> Iterator[list[Path]]:
    """The work folders that ended runs left in `parent`; removed after the `with` block.

    Only one process at a time gets them.
    """
    if not any(parent.glob(_PATTERN)):
        yield []
        return
    with FileLock(parent / _LOCK):
        folders = [folder for folder in parent.glob(_PATTERN) if _is_abandoned(folder)]
        yield folders
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)  # an orphaned worker may still write; the next run tries again


def _is_abandoned(folder: Path) -> bool:
    try:
        with FileLock(folder / "lock", timeout=0):
            return True
    except Timeout:
        return False
