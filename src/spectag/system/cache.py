"""The cache folder for files that spectag can compute or download again.

A run whose result does not need the cache must not end because of it. So if the folder cannot be written, a temporary
one takes its place, and a warning says so.
"""

import atexit
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

from spectag.errors import ConfigError

CACHE_VARIABLE = "SPECTAG_CACHE"
_MIN_FREE_BYTES = 50_000_000  # the features and the spectrograms of a small training
_PROBE = bytes(4096)
_UNKNOWN_HOME = Path("~", ".cache", "spectag")  # for messages; nothing is written to a relative path
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

    The temporary folder is deleted when this process ends. Processes that it starts use the same folder. If it is not
    better than the cache folder, there is no replacement, and the first file to write raises the error.
    """
    folder = cache_folder()
    problem = _problem(folder)
    if problem is not None and (replacement := _temporary_folder()) is not None:
        _logger.warning("WARNING: the cache folder %s %s; this run uses a temporary one", folder, problem)
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
    if problem := _problem(folder, n_free_wanted=0):
        raise ConfigError(f"the cache folder {folder} {problem}; set {CACHE_VARIABLE} to another folder")
    return folder


def _problem(folder: Path, n_free_wanted: int = _MIN_FREE_BYTES) -> str | None:
    """Why the folder cannot be used to write; None if it can."""
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
