"""Published weights: from a folder of the user's, else from the cache, else a verified download."""

import hashlib
import os
from pathlib import Path

import platformdirs
import pooch
import requests

from spectag.catalogue import WeightsSource
from spectag.errors import WeightsError

WEIGHTS_VARIABLE = "SPECTAG_WEIGHTS"
CACHE_VARIABLE = "SPECTAG_CACHE"


def cache_folder() -> Path:
    """Where spectag keeps what it can make or fetch again: SPECTAG_CACHE, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("spectag")


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


def find_weights(source: WeightsSource, *, backbone: str) -> Path:
    """The path of a weights file, fetched into the cache if it isn't here yet.

    Raises
    ------
    WeightsError
        If the file can't be had, or is not the published one. The message names the ways out.
    """
    path = local_weights(source.file_name) or _downloaded(source, backbone=backbone)
    found = sha256_of(path)
    if source.sha256 is not None and found != source.sha256:
        raise WeightsError(
            f"{path}: not the published weights of {backbone}: SHA-256 is {found}, expected {source.sha256}; "
            "delete the file and fetch it again"
        )
    return path


def _downloaded(source: WeightsSource, *, backbone: str) -> Path:
    folder = cache_folder() / "weights"
    known_hash = f"sha256:{source.sha256}" if source.sha256 else None
    if known_hash is None and (folder / source.file_name).is_file():
        return folder / source.file_name
    try:
        return Path(pooch.retrieve(source.url, known_hash, fname=source.file_name, path=folder, progressbar=False))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
        raise WeightsError(
            f"the weights of {backbone} can't be had from {source.url}: {_reason(error)}. Ways out: put "
            f"{source.file_name} into a folder and set {WEIGHTS_VARIABLE} to it; take --backbone efficientnet_lite0, "
            "whose weights come with the package; or train without them by --no-pretrained"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
