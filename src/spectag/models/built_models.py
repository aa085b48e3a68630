"""Models that are built in the cache folder at their first use."""

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from spectag.errors import BundleError
from spectag.models.bundle import ONNX_FILE, read_info
from spectag.system.cache import CACHE_VARIABLE, cache_folder, hold_cache, writable_cache_folder


def built_model(name: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder of a model in the cache, and whether it was built now, completely or not at all.

    Parameters
    ----------
    name : str
        Of the folder; it changes with everything that the model is built from.
    build : callable
        Writes the model into an empty folder.

    Raises
    ------
    BundleError
        If it cannot be written.
    """
    folder = cache_folder() / "models" / name
    if (folder / ONNX_FILE).is_file():
        try:
            read_info(folder)
        except BundleError:
            shutil.rmtree(folder, ignore_errors=True)  # damaged; it is built again
        else:
            hold_cache(cache_folder())
            return folder, False
    folder = writable_cache_folder() / "models" / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{name}.lock")):
            is_new = not (folder / ONNX_FILE).is_file()
            if is_new:  # otherwise another process has built it
                _build(folder, build)
    except OSError as error:
        raise BundleError(
            f"{folder}: cannot write the model: {error.strerror or error}; set {CACHE_VARIABLE} to a writable folder "
            "with enough space"
        ) from error
    return folder, is_new


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
    unfinished.mkdir()
    try:
        build(unfinished)
        shutil.rmtree(folder, ignore_errors=True)  # without its network, of a deletion that broke off
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
