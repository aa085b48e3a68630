"""Published weights: from a folder of the user's, else from the cache, else a verified download."""

import os
from pathlib import Path

from filelock import FileLock

from spectag.config.backbones import WeightsSource
from spectag.errors import WeightsError
from spectag.system.atomic_files import sha256_of
from spectag.system.cache import cache_folder
from spectag.system.progress import Progress, silent

WEIGHTS_VARIABLE = "SPECTAG_WEIGHTS"
_WAYS_OF_TRAINING = (
    "take --backbone efficientnet_lite0, whose weights come with the package; or train without them by --no-pretrained"
)


def local_weights(file_name: str) -> Path | None:
    """The file in the folder that SPECTAG_WEIGHTS names, or None where it isn't.

    Raises
    ------
    WeightsError
        If SPECTAG_WEIGHTS names a folder that doesn't exist.
    """
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"{WEIGHTS_VARIABLE} names {folder}, which is not a folder; mend or unset it")
    path = folder / file_name
    return path if path.is_file() else None


def cached_weights(file_name: str) -> Path:
    """Where a file lies in the cache, or would."""
    return cache_folder() / "weights" / file_name


def find_weights(
    source: WeightsSource, *, backbone: str, other_ways: str = _WAYS_OF_TRAINING, progress: Progress = silent
) -> Path:
    """The path of a weights file, fetched into the cache if it isn't here yet.

    Several processes may look for it at once: one fetches it, the others wait.

    Parameters
    ----------
    source : WeightsSource
    backbone : str
        What it is called in messages.
    other_ways : str
        What else a user can do who can't have the file.
    progress : Progress
        Told of the download.

    Raises
    ------
    WeightsError
        If the file can't be had, or is not the published one. The message names the ways out.
    """
    path = local_weights(source.file_name)
    if path is None:
        return _cached_or_fetched(source, backbone, other_ways, progress)
    if not _is_published(path, source):
        raise WeightsError(
            f"{path}: not the published weights of {backbone}: SHA-256 is {sha256_of(path)}, expected {source.sha256}; "
            "delete the file and fetch it again"
        )
    return path


def _is_published(path: Path, source: WeightsSource) -> bool:
    return source.sha256 is None or sha256_of(path) == source.sha256


def _cached_or_fetched(source: WeightsSource, backbone: str, other_ways: str, progress: Progress) -> Path:
    path = cached_weights(source.file_name)
    if path.is_file() and _is_published(path, source):
        return path
    from spectag.system.download import download  # loaded where there is something to fetch

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.is_file() or not _is_published(path, source):  # another process may have fetched it meanwhile
                download(source.url, path, sha256=source.sha256, progress=progress)
    except OSError as error:
        raise WeightsError(
            f"the weights of {backbone} can't be had from {source.url}: {_reason(error)}. Ways out: put "
            f"{source.file_name} into a folder and set {WEIGHTS_VARIABLE} to it; {other_ways}"
        ) from error
    return path


def _reason(error: OSError) -> str:
    return f"{error.filename or 'the disk'}: {error.strerror}" if error.strerror else str(error)
