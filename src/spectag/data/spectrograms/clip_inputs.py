"""The network input of each clip of a manifest: from the spectrogram cache for sounds, from the files for images."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spectag.array_types import Float32Array
from spectag.audio.front_end import FrontEnd
from spectag.audio.spectrogram_image import read_png
from spectag.data.clips import Clip, Manifest, connected_groups
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.spectrograms.cache import SpectrogramCache, content_key
from spectag.errors import DataError, SpectagError
from spectag.system.progress import Log, Progress


@dataclass(frozen=True)
class ClipInputs:
    """The readable clips of a manifest. Each clip has a content key, and an input that is computed on demand."""

    manifest: Manifest
    keys: tuple[str, ...]
    inputs: Callable[[int], Float32Array]
    """The input (channels, height, width) of the clip at an index."""
    skipped: tuple[tuple[Clip, str], ...]
    """The clips that can't be read, each with the reason."""


def open_clips(
    manifest: Manifest, front_end: FrontEnd, cache: Path, *, workers: int | None, progress: Progress, log: Log
) -> ClipInputs:
    """Prepare the network inputs of a manifest's clips. Exact copies of a clip get the same group.

    Raises
    ------
    SpectrogramCacheError
        If the spectrograms can't be computed or stored.
    DataError
        If no clip can be read, or the clips are sounds and the model accepts images only.
    """
    if manifest.holds_images:
        return _open_images(manifest, front_end, progress, log)
    if front_end.mel is None:
        raise DataError(f"{manifest.source}: the clips are sounds, but this model accepts images only")
    store = SpectrogramCache(cache, front_end.mel)
    report = store.prepare(manifest.clips, workers=workers, progress=progress)
    log(f"spectrogram cache: {report}")
    keys = [key for key in report.keys if key is not None]
    kept = _readable_clips(manifest, report.skipped, keys, log)
    return ClipInputs(
        kept, tuple(keys), lambda index: front_end.input_of_log_mel(store.log_mel(keys[index])), report.skipped
    )


def _open_images(manifest: Manifest, front_end: FrontEnd, progress: Progress, log: Log) -> ClipInputs:
    keys, skipped = [], []
    for n_done, clip in enumerate(manifest.clips, start=1):
        progress("images", n_done, len(manifest.clips))
        try:
            read_png(clip.path)
            keys.append(_image_key(clip))
        except (SpectagError, OSError) as error:
            skipped.append((clip, str(error)))
    kept = _readable_clips(manifest, skipped, keys, log)
    return ClipInputs(kept, tuple(keys), lambda index: front_end.input_of_image(kept.clips[index].path), tuple(skipped))


def clip_key(clip: Clip) -> str | None:
    """The content key of a clip, as in `ClipInputs.keys`; None if its file can't be read."""
    try:
        return _image_key(clip) if clip.path.suffix.lower() in IMAGE_SUFFIXES else content_key(clip)
    except OSError:
        return None


def _image_key(clip: Clip) -> str:
    return hashlib.blake2b(clip.path.read_bytes(), digest_size=16).hexdigest()


def _readable_clips(manifest: Manifest, skipped: Sequence[tuple[Clip, str]], keys: Sequence[str], log: Log) -> Manifest:
    """The manifest without the skipped clips. Exact copies are in one group, and so in one fold."""
    unreadable = {clip for clip, _ in skipped}
    manifest = replace(manifest, clips=tuple(clip for clip in manifest.clips if clip not in unreadable))
    if not manifest.clips:
        raise DataError(f"{manifest.source}: none of its {len(skipped)} clips can be read: {skipped[0][1]}")
    n_copies = len(keys) - len(set(keys))
    if not n_copies:
        return manifest
    log(f"{n_copies} clips are exact copies of other clips; spectag puts them into the same fold")
    groups = manifest.groups
    numbers = connected_groups([(("content", key), ("group", group)) for key, group in zip(keys, groups, strict=True)])
    _, first_rows = np.unique(numbers, return_index=True)
    names = [groups[row] for row in first_rows]
    clips = (replace(clip, group=names[number]) for clip, number in zip(manifest.clips, numbers, strict=True))
    return replace(manifest, clips=tuple(clips))
