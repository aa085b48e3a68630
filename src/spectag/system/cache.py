"""The cache folder for files that spectag can compute or download again.

A run whose result does not need the cache must not end because of it. So if the folder cannot be written, a temporary
one takes its place, and a warning says so. The files of the cache are read there, too.
"""

import atexit
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from spectag.errors import ConfigError

if TYPE_CHECKING:
    from filelock import BaseFileLock

CACHE_VARIABLE = "SPECTAG_CACHE"
_MIN_FREE_BYTES = 50_000_000  # the features and the spectrograms of a small training
_PROBE = bytes(4096)
_UNKNOWN_HOME = Path("~", ".cache", "spectag")  # for messages; nothing is written to a relative path
_GATE = ".gate"
_locks: dict[tuple[Path, int], "BaseFileLock"] = {}  # of this process and of its parents, by the cache folder
_logger = logging.getLogger("spectag")


def cache_folder() -> Path:
    """The folder that SPECTAG_CACHE names; by default, the user's cache folder. It may not exist.

    Raises
    ------
    ConfigError
        If SPECTAG_CACHE starts with ~ and the user has no home folder.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    try:
        return Path(folder).expanduser() if folder else platformdirs.user_cache_path("spectag")
    except RuntimeError as error:  # an unknown user without HOME
        if folder:
            raise ConfigError(f"{CACHE_VARIABLE}: {folder}: {error}; write the path in full") from error
        return _UNKNOWN_HOME


def writable_cache_folder() -> Path:
    """The cache folder, or a temporary folder if it cannot be written or has less than 50 MB of free space.

    The temporary folder also has the files of the cache folder that can be read. It is deleted when this process ends.
    Processes that it starts use the same folder. If it is not better than the cache folder, there is no replacement,
    and the first file to write raises the error.
    """
    folder = cache_folder()
    problem = cache_problem(folder)
    if problem is None:
        hold_cache(folder)
    elif (replacement := _temporary_folder()) is not None:
        _logger.warning("WARNING: the cache folder %s %s; this run uses a temporary one", folder, problem)
        if replacement != folder:
            from spectag.system.cache_content import link_cached_files

            link_cached_files(replacement)
        os.environ[CACHE_VARIABLE] = str(replacement)
        return replacement
    return folder


def permanent_cache_folder() -> Path:
    """The cache folder, for files that must still be there when the process has ended.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    folder = cache_folder()
    if problem := cache_problem(folder, n_free_wanted=0):
        raise ConfigError(f"the cache folder {folder} {problem}; set {CACHE_VARIABLE} to another folder")
    hold_cache(folder)
    return folder


def hold_cache(folder: Path) -> None:
    """Keep other processes from deleting files of the cache until this one ends.

    Does nothing if the folder does not exist or cannot be written. The limit of the cache applies when the process
    ends.
    """
    from filelock import FileLock

    process_id, in_use = os.getpid(), folder / "in-use"
    if (folder, process_id) in _locks or not folder.is_absolute() or not folder.is_dir():
        return
    with suppress(OSError):
        in_use.mkdir(exist_ok=True)
        lock = FileLock(in_use / f"{uuid.uuid4().hex}.lock")
        with FileLock(in_use / _GATE):  # not while another process deletes files
            _is_used_by_others(in_use)  # to remove the locks of killed processes
            lock.acquire()
        _locks[folder, process_id] = lock
        atexit.register(_release, folder, process_id)


def _release(folder: Path, process_id: int) -> None:
    lock = _locks.pop((folder, process_id), None)
    if lock is None or os.getpid() != process_id:  # a forked process
        return
    lock.release()
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    if cache_folder() == folder:
        from spectag.system.cache_content import apply_cache_limit

        with suppress(OSError):
            apply_cache_limit()


@contextmanager
def only_user(folder: Path) -> Iterator[None]:
    """No other process uses the cache in the `with` block; those that want to wait.

    Raises
    ------
    ConfigError
        If another process uses it now.
    """
    from filelock import FileLock

    in_use = folder / "in-use"
    if not folder.is_dir():
        yield
        return
    in_use.mkdir(exist_ok=True)
    with FileLock(in_use / _GATE):
        if _is_used_by_others(in_use):
            raise ConfigError(
                f"{folder}: another run of spectag uses the cache; wait until it has ended, and try again"
            )
        yield


def _is_used_by_others(in_use: Path) -> bool:
    """Whether another process holds a lock. Removes the locks of killed processes; the caller holds the gate."""
    from filelock import FileLock, Timeout

    own, is_used = {lock.lock_file for lock in _locks.values()}, False
    for path in in_use.glob("*.lock"):
        if str(path) in own:
            continue
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            is_used = True
        else:
            path.unlink(missing_ok=True)
    return is_used


def cache_problem(folder: Path, n_free_wanted: int = _MIN_FREE_BYTES) -> str | None:
    """Why the folder cannot be used to write, as the end of a sentence; None if it can."""
    if not os.environ.get(CACHE_VARIABLE) and not _has_home(folder):
        return "is in a home folder that does not exist"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
        n_free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"cannot be written ({error.strerror or error})"
    return f"has only {n_free / 1e6:.0f} MB of free space" if n_free < n_free_wanted else None


def _has_home(folder: Path) -> bool:
    """Whether the user's cache folder is where somebody wants it: not in a home that would have to be created."""
    if os.environ.get("XDG_CACHE_HOME"):
        return True
    try:
        return folder.is_absolute() and Path.home().is_dir()
    except RuntimeError:  # an unknown user without HOME
        return False


@cache
def _temporary_folder() -> Path | None:
    """A folder for this process; None if the temporary folder of the system has no space either."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="spectag-cache-"))
        atexit.register(_remove, folder, os.getpid())
        (folder / "probe").write_bytes(_PROBE)
        return folder if shutil.disk_usage(folder).free >= _MIN_FREE_BYTES else None
    except OSError:
        return None


def _remove(folder: Path, process_id: int) -> None:
    if os.getpid() == process_id:  # not in a forked process
        shutil.rmtree(folder, ignore_errors=True)
