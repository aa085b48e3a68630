"""Export of cached log_mels as PNG images, with a table of labels, for image tools and for `spectag train`."""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.audio.spectrogram_image import log_mel_to_image, read_png_source, write_png
from spectag.config.base import ImageConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import write_multi_hot
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.errors import DataError
from spectag.system.progress import Progress, silent
from spectag.system.work_folder import abandoned_work, work_folder
from spectag.system.worker_pool import WorkerDiedError, map_unordered, n_usable_cores

_IMAGES_PER_WORKER = 500  # written in about the time that a worker process takes to start


@dataclass(frozen=True)
class PngReport:
    """The result of `export_png`."""

    n_new: int
    n_existing: int
    """Images of the same log_mels with the same settings that were in the folder before."""
    n_left_out: int
    """Clips without a log_mel."""
    labels_path: Path
    """The multi-hot CSV."""
    seconds: float

    def __str__(self) -> str:
        """A summary in one line."""
        left_out = f"; {self.n_left_out} clips without a spectrogram left out" if self.n_left_out else ""
        if self.n_new == 0:
            return f"nothing to do: {self.n_existing} images exist{left_out}"
        existing = f", {self.n_existing} existed" if self.n_existing else ""
        return f"{self.n_new} images written in {self.seconds:.1f} s{existing}{left_out}"


def export_png(
    cache: SpectrogramCache,
    manifest: Manifest,
    keys: Sequence[str | None],
    folder: str | Path,
    config: ImageConfig,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> PngReport:
    """Write an image of each clip's log_mel, and the labels as a multi-hot CSV beside them.

    An image has the name of its clip with the suffix .png, in the same sub-folder; for a part of a recording, the name
    contains its times. The table is named after the manifest: `train_curated.csv` gives
    `train_curated_image_labels.csv`. If the process is killed, the next run writes the missing images only.

    Parameters
    ----------
    keys
        The keys of the manifest's clips in the cache, from `SpectrogramCache.prepare`. Clips with None are left out.
    folder
        Created if it does not exist.
    workers
        Number of processes; 1 uses the calling process alone. By default one per core, or 1 for little work.

    Raises
    ------
    ConfigError, MissingExtraError
        If the colour map is unknown, or needs a package that is not installed.
    DataError
        If two clips would have the same image, the folder can't be written, or a worker process was killed.
    SpectrogramCacheError
        If a log_mel is missing or damaged.
    """
    started = time.perf_counter()
    folder = Path(folder)
    log_mel_to_image(np.zeros((1, 1), np.float32), config)  # checks the colour map before any work
    pairs = [(clip, key) for clip, key in zip(manifest.clips, keys, strict=True) if key is not None]
    names = _image_names([clip for clip, _ in pairs], manifest.source)
    tasks = [_Task(key, name) for (_, key), name in zip(pairs, names, strict=True)]
    n_workers = workers or min(n_usable_cores(), 1 + len(tasks) // _IMAGES_PER_WORKER)
    n_new = 0
    try:
        with work_folder(folder) as work:
            write = partial(_write_image, cache, folder, work, config)
            with closing(map_unordered(write, tasks, n_workers=n_workers)) as results:
                for n_done, (_, is_new) in enumerate(results, 1):
                    n_new += is_new
                    progress("images", n_done, len(tasks))
    except OSError as error:
        raise DataError(
            f"{folder}: the images can't be written: {error.strerror or error}; run the command again"
        ) from error
    except WorkerDiedError as error:
        raise DataError(f"{folder}: {error}; completed images are kept") from error
    finally:
        with abandoned_work(folder):
            pass  # removes the work folders of this run and of killed runs
    labels_path = folder / f"{manifest.source.stem}_image_labels.csv"
    write_multi_hot(labels_path, replace(manifest, clips=tuple(clip for clip, _ in pairs)), names)
    n_existing, n_left_out = len(tasks) - n_new, len(manifest.clips) - len(tasks)
    return PngReport(n_new, n_existing, n_left_out, labels_path, time.perf_counter() - started)


class _Task(NamedTuple):
    """An image to write."""

    key: str
    name: str

    def __str__(self) -> str:
        return self.name


def _image_names(clips: Sequence[Clip], source: Path) -> list[str]:
    clip_of: dict[str, Clip] = {}
    for clip in clips:
        other = clip_of.setdefault(_image_name(clip), clip)
        if other is not clip:
            raise DataError(
                f"{source}: {other.name} and {clip.name} would both have the image {_image_name(clip)}; "
                "rename one of the files, or export them to different folders"
            )
    return list(clip_of)


def _image_name(clip: Clip) -> str:
    """Path of a clip's image in the folder. Of a file outside the manifest's folder only the name is used."""
    path = PurePath(clip.fname)
    if path.is_absolute() or ".." in path.parts:
        path = PurePath(path.name)
    if path.suffix.lower() in AUDIO_SUFFIXES:
        path = path.with_suffix("")
    if (clip.start_seconds, clip.end_seconds) == (0.0, None):
        return f"{path.as_posix()}.png"
    end = "end" if clip.end_seconds is None else f"{clip.end_seconds:.3f}"
    return f"{path.as_posix()}_{clip.start_seconds:.3f}-{end}.png"


def _write_image(cache: SpectrogramCache, folder: Path, work: Path, config: ImageConfig, task: _Task) -> bool:
    """Write an image, in a worker process, unless it exists; return whether it was written."""
    path = folder / task.name
    source = f"{cache.folder.name}/{task.key} {config.model_dump_json()}"
    if read_png_source(path) == source:
        return False
    image, (low, high) = log_mel_to_image(cache.log_mel(task.key), config)
    unfinished = work / f"{os.getpid()}.png"
    write_png(unfinished, image, low=low, high=high, mel=cache.config, source=source)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.replace(path)
    return True
