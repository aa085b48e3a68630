"""What is in a manifest, and what is wrong with it, before anything is trained on it."""

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from spectag.array_types import Waveform
from spectag.audio.files import audio_info, read_audio
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import manifest_of
from spectag.errors import EndOfSoundError, SpectagError
from spectag.system.progress import Progress, silent
from spectag.system.worker_pool import map_unordered, n_usable_cores

SILENT_PEAK_DB = -60.0  # dBFS: a clip whose loudest sample is below is silent
FULL_SCALE = 32767 / 32768  # the greatest 16-bit sample
CLIPPED_SHARE = 0.001  # of the samples at full scale: a clip with more is clipped
_PAST_END_SECONDS = 0.05  # a clip may end as much after its file; annotation programs round
_BLOCK_SECONDS = 300.0  # read at once: memory does not grow with the length of a recording
_CLIPS_WORTH_A_WORKER = 100  # about as long to read as a worker process takes to start


@dataclass(frozen=True)
class Durations:
    """How long the clips are."""

    min_seconds: float
    median_seconds: float
    mean_seconds: float
    max_seconds: float
    total_hours: float


@dataclass(frozen=True)
class Duplicates:
    """Clips with the same samples (or images with the same pixels)."""

    clips: tuple[str, ...]
    across_folds: bool
    labels_differ: bool


@dataclass(frozen=True)
class Leak:
    """A group (or a recording, where clips have no group) that is in more than one fold."""

    group: str
    clips_per_fold: dict[str, int]


@dataclass(frozen=True)
class RareLabel:
    """A label that can't be in every fold, because it has fewer groups than there are folds."""

    label: str
    n_clips: int
    n_groups: int


@dataclass(frozen=True)
class Inspection:
    """What was found in a manifest. Clips are told by their names, in the order of the manifest."""

    source: Path
    holds_images: bool
    n_clips: int
    n_files: int
    n_groups: int
    clips_per_label: dict[str, int]
    labels_per_clip: dict[int, int]  # number of clips that have 0, 1, 2, ... labels
    clips_per_fold: dict[str, int]
    durations: Durations | None  # None: images, or nothing could be read
    sample_rates: dict[int, int]  # Hz: number of clips
    channels: dict[int, int]
    image_sizes: dict[str, int]  # width x height in pixels: number of clips
    without_labels: tuple[str, ...]
    unreadable: dict[str, str]  # with the reason
    silent: tuple[str, ...]
    clipped: dict[str, float]  # with the share of the samples at full scale
    past_end: tuple[str, ...]  # that should end after their file does
    duplicates: tuple[Duplicates, ...]
    leaks: tuple[Leak, ...]
    n_folds: int | None  # asked for, or given in the manifest
    rare_labels: tuple[RareLabel, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return asdict(self) | {"source": str(self.source)}


@dataclass(frozen=True)
class _Sound:
    duration_seconds: float
    sample_rate: int
    n_channels: int
    peak: float
    full_scale_share: float
    past_end: bool
    content: bytes


@dataclass(frozen=True)
class _Picture:
    size: str
    content: bytes


def inspect(
    manifest: str | Path | Manifest,
    *,
    folds: int | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Inspection:
    """Read every clip of a manifest once, and count labels, lengths, faults, duplicates and leaks.

    Parameters
    ----------
    manifest : path or Manifest
        Of sounds or of images.
    folds : int, optional
        The number of folds that labels must suffice for; by default the number of folds in the manifest.
    audio_dir, group_column, corrections
        As in `read_manifest`.
    workers : int, optional
        Number of processes; by default one per core, or one where there are few clips.
    progress : Progress
        Told of each clip.

    Returns
    -------
    Inspection
        A clip that can't be read is in `unreadable` with the reason, and in the counts of labels, but in no others.

    Raises
    ------
    DataError
        If images and sounds are mixed.
    WorkerDiedError
        If a worker process was killed.

    Notes
    -----
    Channels are averaged before a clip is measured. A clip is silent if no sample reaches -60 dBFS; clipped if more
    than 0.1 % of its samples are at 16-bit full scale or beyond; a duplicate if sample rate and all samples are equal
    to another's, whatever the format of the file.
    """
    manifest = manifest_of(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    clips = manifest.clips
    found = _look_at(manifest, workers, progress)
    sounds = {clip: look for clip in clips if isinstance(look := found[clip], _Sound)}
    pictures = {clip: look for clip in clips if isinstance(look := found[clip], _Picture)}
    given_folds = Counter(fold for fold in manifest.folds if fold is not None)
    n_folds = folds or len(given_folds) or None
    return Inspection(
        source=manifest.source,
        holds_images=manifest.holds_images,
        n_clips=len(clips),
        n_files=len({clip.path for clip in clips}),
        n_groups=len(set(manifest.groups)),
        clips_per_label=dict(zip(manifest.labels.names, manifest.multi_hot().sum(axis=0).tolist(), strict=True)),
        labels_per_clip=_counted(len(clip.labels) for clip in clips),
        clips_per_fold=dict(sorted(given_folds.items())),
        durations=_durations([sound.duration_seconds for sound in sounds.values()]),
        sample_rates=_counted(sound.sample_rate for sound in sounds.values()),
        channels=_counted(sound.n_channels for sound in sounds.values()),
        image_sizes=dict(Counter(picture.size for picture in pictures.values()).most_common()),
        without_labels=tuple(clip.name for clip in clips if not clip.labels),
        unreadable={clip.name: look for clip in clips if isinstance(look := found[clip], str)},
        silent=tuple(clip.name for clip, sound in sounds.items() if sound.peak < 10 ** (SILENT_PEAK_DB / 20)),
        clipped={
            clip.name: sound.full_scale_share
            for clip, sound in sounds.items()
            if sound.full_scale_share > CLIPPED_SHARE
        },
        past_end=tuple(clip.name for clip, sound in sounds.items() if sound.past_end),
        duplicates=_duplicates(
            {clip: sound.content for clip, sound in sounds.items()}
            | {clip: picture.content for clip, picture in pictures.items()}
        ),
        leaks=_leaks(manifest),
        n_folds=n_folds,
        rare_labels=_rare_labels(manifest, n_folds) if n_folds else (),
    )


def _look_at(manifest: Manifest, workers: int | None, progress: Progress) -> dict[Clip, _Sound | _Picture | str]:
    look = _picture if manifest.holds_images else _sound
    n_clips = len(manifest.clips)
    n_workers = workers or min(n_usable_cores(), 1 + n_clips // _CLIPS_WORTH_A_WORKER)
    found: dict[Clip, _Sound | _Picture | str] = {}
    progress("inspect", 0, n_clips)
    for clip, seen in map_unordered(look, manifest.clips, n_workers=n_workers):
        found[clip] = seen
        progress("inspect", len(found), n_clips)
    return found


def _sound(clip: Clip) -> _Sound | str:
    """What a clip's samples tell, or why they can't be read."""
    try:
        info = audio_info(clip.path)
        n_samples = n_full = 0
        peak = 0.0
        content = hashlib.blake2b(str(info.sample_rate).encode(), digest_size=16)
        for waveform in _blocks(clip, info.duration_seconds):
            loudness = np.abs(waveform)
            n_samples += len(waveform)
            n_full += int(np.count_nonzero(loudness >= FULL_SCALE))
            peak = max(peak, float(loudness.max()))
            content.update(np.ascontiguousarray(waveform).data)
    except SpectagError as error:
        return str(error).removeprefix(f"{clip.path}: ")
    return _Sound(
        duration_seconds=n_samples / info.sample_rate,
        sample_rate=info.sample_rate,
        n_channels=info.n_channels,
        peak=peak,
        full_scale_share=n_full / n_samples,
        past_end=clip.end_seconds is not None and clip.end_seconds > info.duration_seconds + _PAST_END_SECONDS,
        content=content.digest(),
    )


def _blocks(clip: Clip, file_seconds: float) -> Iterator[Waveform]:
    end = file_seconds if clip.end_seconds is None else min(clip.end_seconds, file_seconds)
    start = clip.start_seconds
    while end - start > _BLOCK_SECONDS:
        yield read_audio(clip.path, start_seconds=start, end_seconds=start + _BLOCK_SECONDS)[0]
        start += _BLOCK_SECONDS
    try:
        yield read_audio(clip.path, start_seconds=start, end_seconds=clip.end_seconds)[0]
    except EndOfSoundError:
        if start == clip.start_seconds:
            raise
        # else the header of a file that was cut off promised more than there is


def _picture(clip: Clip) -> _Picture | str:
    """What a clip's image tells, or why it can't be read."""
    try:
        with Image.open(clip.path) as image:
            content = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
            content.update(image.tobytes())
            return _Picture(f"{image.width} x {image.height}", content.digest())
    except UnidentifiedImageError:
        return "the file is not an image"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return str(error)


def _counted(values: Iterator[int]) -> dict[int, int]:
    return dict(sorted(Counter(values).items()))


def _durations(seconds: list[float]) -> Durations | None:
    if not seconds:
        return None
    return Durations(
        min_seconds=min(seconds),
        median_seconds=statistics.median(seconds),
        mean_seconds=statistics.fmean(seconds),
        max_seconds=max(seconds),
        total_hours=sum(seconds) / 3600,
    )


def _duplicates(contents: dict[Clip, bytes]) -> tuple[Duplicates, ...]:
    alike: dict[bytes, list[Clip]] = {}
    for clip, content in contents.items():
        alike.setdefault(content, []).append(clip)
    return tuple(
        Duplicates(
            clips=tuple(clip.name for clip in clips),
            across_folds=len({clip.fold for clip in clips}) > 1,
            labels_differ=len({frozenset(clip.labels) for clip in clips}) > 1,
        )
        for clips in alike.values()
        if len(clips) > 1
    )


def _leaks(manifest: Manifest) -> tuple[Leak, ...]:
    folds: dict[str, Counter[str]] = {}
    for group, fold in zip(manifest.groups, manifest.folds, strict=True):
        if fold is not None:
            folds.setdefault(group, Counter())[fold] += 1
    return tuple(Leak(group, dict(sorted(counts.items()))) for group, counts in folds.items() if len(counts) > 1)


def _rare_labels(manifest: Manifest, n_folds: int) -> tuple[RareLabel, ...]:
    groups: dict[str, set[str]] = {label: set() for label in manifest.labels.names}
    n_clips: Counter[str] = Counter()
    for clip, group in zip(manifest.clips, manifest.groups, strict=True):
        for label in clip.labels:
            groups[label].add(group)
            n_clips[label] += 1
    return tuple(RareLabel(label, n_clips[label], len(of)) for label, of in groups.items() if len(of) < n_folds)
