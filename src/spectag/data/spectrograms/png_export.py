"""A bank's log_mels as images with a table of labels: what image tools, and `spectag train`, can learn from."""

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
from spectag.system.work_folder import ended_work, work_folder
from spectag.system.worker_pool import WorkerDiedError, map_unordered, n_usable_cores

_IMAGES_WORTH_A_WORKER = 500  # made in about the time that a worker process takes to start


@dataclass(frozen=True)
class PngReport:
    """What an export did."""

    n_new: int
    n_kept: int  # there before, of the same log_mel and settings
    n_left_out: int  # clips without a log_mel
    labels_path: Path  # the multi-hot CSV
    seconds: float

    def __str__(self) -> str:
        """One line for people."""
        left_out = f"; {self.n_left_out} clips without a log_mel left out" if self.n_left_out else ""
        if self.n_new == 0:
            return f"nothing to do: {self.n_kept} images are there{left_out}"
        kept = f", {self.n_kept} were there" if self.n_kept else ""
        return f"{self.n_new} images made in {self.seconds:.1f} s{kept}{left_out}"


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

    An image is named like its clip, with .png for the suffix, in the same sub-folder; a stretch of a recording has its
    times in the name. The table is named after the manifest: `train_curated.csv` gives
    `train_curated_image_labels.csv`. Killed and started again, it goes on where it stopped.

    Parameters
    ----------
    keys
        Of the manifest's clips in the bank, as `SpectrogramCache.prepare` reports them. A clip with None is left out.
    folder
        Made when it is missing.
    workers
        Number of processes; 1 is this one alone. None: one per core, or 1 when little is to be done.

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
    log_mel_to_image(np.zeros((1, 1), np.float32), config)  # a colour map that can't be had is told of at once
    pairs = [(clip, key) for clip, key in zip(manifest.clips, keys, strict=True) if key is not None]
    names = _image_names([clip for clip, _ in pairs], manifest.source)
    tasks = [_Task(key, name) for (_, key), name in zip(pairs, names, strict=True)]
    if workers is None:
        workers = min(n_usable_cores(), 1 + len(tasks) // _IMAGES_WORTH_A_WORKER)
    try:
        n_new = _write_images(cache, folder, config, tasks, workers, progress)
    except OSError as error:
        raise DataError(f"{folder}: can't write the images: {error.strerror or error}; export again") from error
    except WorkerDiedError as error:
        raise DataError(f"{folder}: {error}; the images that are done are kept") from error
    labels_path = folder / f"{manifest.source.stem}_image_labels.csv"
    write_multi_hot(labels_path, replace(manifest, clips=tuple(clip for clip, _ in pairs)), names)
    return PngReport(
        n_new=n_new,
        n_kept=len(tasks) - n_new,
        n_left_out=len(manifest.clips) - len(tasks),
        labels_path=labels_path,
        seconds=time.perf_counter() - started,
    )


class _Task(NamedTuple):
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
                f"rename one of the files, or export them to different folders"
            )
    return list(clip_of)


def _image_name(clip: Clip) -> str:
    """Name of a clip's image within the folder; one from outside the manifest's folder loses its own folders."""
    path = PurePath(clip.fname)
    if path.is_absolute() or ".." in path.parts:
        path = PurePath(path.name)
    if path.suffix.lower() in AUDIO_SUFFIXES:
        path = path.with_suffix("")
    if (clip.start_seconds, clip.end_seconds) == (0.0, None):
        return f"{path.as_posix()}.png"
    end = "end" if clip.end_seconds is None else f"{clip.end_seconds:.3f}"
    return f"{path.as_posix()}_{clip.start_seconds:.3f}-{end}.png"


def _write_images(
    cache: SpectrogramCache,
    folder: Path,
    config: ImageConfig,
    tasks: Sequence[_Task],
    n_workers: int,
    progress: Progress,
) -> int:
    """Write the images that are missing; gives their number."""
    _remove_ended_work(folder)
    n_new = 0
    try:
        with (
            work_folder(folder) as work,
            closing(
                map_unordered(partial(_write_image, cache, folder, work, config), tasks, n_workers=n_workers)
            ) as written,
        ):
            for n_done, (_, is_new) in enumerate(written, 1):
                n_new += is_new
                progress("images", n_done, len(tasks))
    finally:
        _remove_ended_work(folder)
    return n_new


def _write_image(cache: SpectrogramCache, folder: Path, work: Path, config: ImageConfig, task: _Task) -> bool:
    """Write an image unless it is there: the work of a worker."""
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


def _remove_ended_work(folder: Path) -> None:
    with ended_work(folder):
        pass
