"""Published weights: from the folder SPECTAG_WEIGHTS, from the cache, or downloaded and verified.

The SHA-256 of some published files is not known. Their first download is trusted, and its SHA-256 is kept in the cache.
A later download with other content is refused. Files in the folder SPECTAG_WEIGHTS are the user's choice.
"""

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from spectag.config.backbones import WeightsSource
from spectag.errors import WeightsError
from spectag.system.atomic_files import sha256_of, unfinished_file
from spectag.system.cache import cache_folder, writable_cache_folder
from spectag.system.progress import Progress, silent

WEIGHTS_VARIABLE = "SPECTAG_WEIGHTS"
_TRAINING_ALTERNATIVES = "or use --backbone efficientnet_lite0, whose weights are part of the package"


def local_weights(file_name: str) -> Path | None:
    """The file in the folder SPECTAG_WEIGHTS, or None if it is not there.

    Raises
    ------
    WeightsError
        If the folder SPECTAG_WEIGHTS does not exist.
    """
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"{WEIGHTS_VARIABLE}: {folder} is not a folder; correct or unset the variable")
    path = folder / file_name
    return path if path.is_file() else None


def cached_weights(file_name: str) -> Path:
    """The path of a file in the cache, whether it exists or not."""
    return cache_folder() / "weights" / file_name


def find_weights(
    source: WeightsSource,
    *,
    backbone: str,
    alternatives: str = _TRAINING_ALTERNATIVES,
    max_bytes: int | None = None,
    progress: Progress = silent,
) -> Path:
    """The path of a weights file, which is downloaded into the cache if necessary.

    Several processes may call this at the same time: one downloads the file, the others wait.

    Parameters
    ----------
    source : WeightsSource
    backbone : str
        Its name in messages.
    alternatives : str
        What else a user can do if the file is not available.
    max_bytes : int, optional
        A larger file is not downloaded.
    progress : Progress
        Called during the download.

    Raises
    ------
    WeightsError
        If the file is not available, not the published one, or not the one that was used before. The message contains
        what to do.
    """
    path = local_weights(source.file_name)
    if path is None:
        path = _cached_or_downloaded(source, backbone, alternatives, max_bytes, progress)
        _check_unchanged(path, source, backbone)
        return path
    if not _is_published(path, source):
        raise WeightsError(
            f"{path}: not the published weights of {backbone}: SHA-256 is {sha256_of(path)}, expected {source.sha256}; "
            "delete the file and download it again"
        )
    return path


def _is_published(path: Path, source: WeightsSource) -> bool:
    return source.sha256 is None or sha256_of(path) == source.sha256


def _first_sha256_file(source: WeightsSource) -> Path:
    return cached_weights(f"{source.file_name}.sha256")


def _check_unchanged(path: Path, source: WeightsSource, backbone: str) -> None:
    """Compare a file without a known SHA-256 with the first one of its name; if it is the first, remember it.

    Raises
    ------
    WeightsError
        If it has other content than the first one.
    """
    if source.sha256 is not None:
        return
    found, memory = sha256_of(path), _first_sha256_file(source)
    try:
        first = memory.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        with suppress(OSError), unfinished_file(memory) as unfinished:  # a cache that cannot be written is no obstacle
            unfinished.write_text(f"{found}\n", encoding="ascii")
        return
    if found != first:
        raise WeightsError(
            f"{path}: the weights of {backbone} have changed: SHA-256 is {found}, but was {first} when they were first "
            f"used. If you do not know why, delete {path.name} and download it again. If the publisher has replaced "
            f"the file, delete {memory}"
        )


def _cached_or_downloaded(
    source: WeightsSource, backbone: str, alternatives: str, max_bytes: int | None, progress: Progress
) -> Path:
    path = cached_weights(source.file_name)
    if path.is_file() and _is_published(path, source):
        return path
    path = writable_cache_folder() / "weights" / source.file_name
    from spectag.system.download import download  # slow to import

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.is_file() or not _is_published(path, source):  # another process may have downloaded it
                download(source.url, path, sha256=source.sha256, max_bytes=max_bytes, progress=progress)
    except OSError as error:
        reason = f"{error.filename or 'the disk'}: {error.strerror}" if error.strerror else str(error)
        raise WeightsError(
            f"cannot download the weights of {backbone} from {source.url}: {reason}. Alternatives: put "
            f"{_file_to_put(source)} into a folder and set {WEIGHTS_VARIABLE} to it; {alternatives}"
        ) from error
    return path


def _file_to_put(source: WeightsSource) -> str:
    """The name that the file must have in SPECTAG_WEIGHTS, and the one that it has when a browser downloads it."""
    downloaded = PurePosixPath(unquote(urlsplit(source.url).path)).name
    if downloaded == source.file_name:
        return source.file_name
    return f"{downloaded}, renamed to {source.file_name}," if downloaded else source.file_name
