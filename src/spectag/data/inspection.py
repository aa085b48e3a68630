"""Checking a manifest before training: label counts, durations, unreadable clips, duplicates, shared audio, leaks."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from spectag.array_types import Waveform
from spectag.audio.files import audio_info, open_stream, read_audio
from spectag.audio.sound_faults import CLIPPED_FRACTION, SILENT_PEAK_DB, VERY_SHORT_SECONDS, SoundFaults, SoundLevels
from spectag.config.base import Channel
from spectag.data.clips import Clip, Manifest, labels_contradict, unknown_labels
from spectag.data.fingerprint_cache import cached_shared_audio, clip_fingerprints
from spectag.data.manifest import ManifestInput, as_manifest
from spectag.data.shared_audio import SharedAudio
from spectag.errors import EndOfSoundError
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Progress, shows_progress, silent
from spectag.system.short_texts import short_repr
from spectag.system.worker_pool import map_unordered, n_usable_cores

_END_TOLERANCE_SECONDS = 0.05  # annotation programs round the end of a clip
_BLOCK_SECONDS = 300.0  # long recordings are read in blocks, which bounds the memory
_CLIPS_PER_WORKER = 100  # reading them takes about as long as starting a worker process


@dataclass(frozen=True)
class Durations:
    """Statistics of the durations of clips."""

    min_seconds: float
    median_seconds: float
    mean_seconds: float
    max_seconds: float
    total_hours: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Durations":
        """The statistics of at least one duration."""
        return cls(min(seconds), median(seconds), fmean(seconds), max(seconds), sum(seconds) / 3600)


@dataclass(frozen=True)
class Duplicates:
    """Clips with identical samples, or images with identical pixels."""

    clips: tuple[str, ...]
    across_folds: bool
    labels_differ: bool
    """Whether a label is true for one of the clips and false for another."""


@dataclass(frozen=True)
class Leak:
    """A group, or a recording without a group, with clips in more than one fold."""

    group: str
    clips_per_fold: dict[str, int]


@dataclass(frozen=True)
class SharedPair:
    """Two clips that contain the same part of a recording."""

    clip: str
    other: str
    offset_seconds: float
    """The shared audio is this much later in the first clip than in the second one."""
    across_folds: bool


@dataclass(frozen=True)
class SharedClips:
    """Clips that share audio, with each other or with the clips of another manifest."""

    other: str | None
    """The other manifest; None: pairs within the manifest, except those of one file or group."""
    n_clips: int
    """Clips of the inspected manifest that share audio."""
    n_others: int
    """Clips that they share it with."""
    pairs: tuple[SharedPair, ...]
    """Pairs with the most equal landmarks first."""

    @classmethod
    def of(cls, clips: Sequence[Clip], others: Sequence[Clip], shared: SharedAudio, other: str | None) -> "SharedClips":
        """The summary of these pairs of a clip and another one."""
        order = np.argsort(-shared.n_matches, kind="stable")
        first, second = (set(column) for column in shared.pairs.T.tolist())
        return cls(
            other=other,
            n_clips=len(first if other else first | second),
            n_others=len(second if other else first | second),
            pairs=tuple(
                SharedPair(clips[a].name, others[b].name, offset, across_folds=_are_across_folds(clips[a], others[b]))
                for (a, b), offset in zip(
                    shared.pairs[order].tolist(), shared.offsets_seconds[order].round(3).tolist(), strict=True
                )
            ),
        )


@dataclass(frozen=True)
class RareLabel:
    """A label that can't be in every fold, because it has fewer groups than there are folds."""

    label: str
    n_clips: int
    n_groups: int


@short_repr
@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`. Clips are listed by name, in the order of the manifest."""

    source: Path
    holds_images: bool
    n_clips: int
    n_files: int
    n_groups: int
    clips_per_label: dict[str, int]
    labels_per_clip: dict[int, int]
    """Number of clips with 0, 1, 2, ... labels."""
    unknown_per_label: dict[str, int]
    """Number of clips in which each label is unknown, of the labels with such clips."""
    weights: tuple[float, float] | None
    """The smallest and the largest weight of a clip; None if all are 1."""
    clips_per_fold: dict[str, int]
    durations: Durations | None
    """None for images, or if no clip can be read."""
    sample_rates: dict[int, int]
    """Number of clips by sample rate in Hz."""
    channels: dict[int, int]
    """Number of clips by number of channels."""
    image_sizes: dict[str, int]
    """Number of clips by size, "width x height" in pixels."""
    without_labels: tuple[str, ...]
    """Clips without a true or unknown label."""
    unreadable: dict[str, str]
    """Clips that can't be read, each with the reason."""
    silent: tuple[str, ...]
    clipped: dict[str, float]
    """Clipped clips, each with the fraction of its samples at full scale."""
    channels_cancel: tuple[str, ...]
    """Clips whose channels are inverse to each other, so that little is left of their mean."""
    truncated: dict[str, float | None]
    """Clips of which only a part can be read, each with the seconds that the header announces, if it does."""
    very_short: dict[str, float]
    """Clips below half a second, each with its length in seconds."""
    past_end: tuple[str, ...]
    """Clips with an end after the end of their file."""
    duplicates: tuple[Duplicates, ...]
    shared_audio: tuple[SharedClips, ...]
    """Within the manifest, then with each other manifest; empty for images, or if it was not looked for."""
    leaks: tuple[Leak, ...]
    n_folds: int | None
    """The number of folds that the rare labels refer to: the argument, or the number in the manifest."""
    rare_labels: tuple[RareLabel, ...]

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self) | {"source": str(self.source)}


@dataclass(frozen=True)
class _SoundFacts:
    """Measurements of a clip's samples."""

    duration_seconds: float
    sample_rate: int
    n_channels: int
    peak: float
    clipped: float
    """Fraction of the samples at full scale."""
    past_end: bool
    digest: bytes
    faults: SoundFaults


@dataclass(frozen=True)
class _ImageFacts:
    """Measurements of a clip's image."""

    size: str
    digest: bytes


_Facts = _SoundFacts | _ImageFacts | str
"""Measurements, or the reason why the clip can't be read."""


@shows_progress
def inspect(
    manifest: ManifestInput,
    *,
    folds: int | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: str | Path | None = None,
    channel: Channel = "mix",
    find_shared_audio: bool = True,
    compare_with: Sequence[ManifestInput] = (),
    cache: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Inspection:
    """Read every clip of a manifest; report label counts, durations, faults, duplicates, shared audio and leaks.

    Parameters
    ----------
    manifest : path, DataFrame or Manifest
        Of sounds or of images.
    folds : int, optional
        Report labels that are too rare for this number of folds. By default the number of folds in the manifest.
    audio_dir, group_column, label_column, label_separator, corrections
        As for `read_manifest`.
    channel : "mix", "loudest" or int
        How several channels become one before a clip is measured, as for `train`.
    find_shared_audio : bool
        Whether to look for clips that contain the same part of a recording. The time grows with the square of the
        number of clips: about a minute for 1,500 clips on two cores.
    compare_with : sequence of paths or Manifests
        Other manifests of sounds, such as that of the test clips: which of their clips share audio with these?
    cache : path, optional
        Folder of the cache of fingerprints. By default in the user's cache folder.
    workers : int, optional
        Number of processes. By default one per core, or fewer if there are few clips.
    progress : Progress
        Called after each clip.

    Returns
    -------
    Inspection
        A clip that can't be read is in `unreadable` with the reason. It is counted for labels and folds only.

    Raises
    ------
    DataError
        If the manifest mixes images and sounds.
    WorkerDiedError
        If a worker process was killed.

    Notes
    -----
    Several channels become one before a clip is measured. A clip is silent if no sample reaches -60 dBFS. It is clipped
    if more than 0.1 % of its samples are at 16-bit full scale or beyond. Two clips are duplicates if their sample rates
    and all their samples are equal; the formats of their files can differ. Missing ends and channels that cancel each
    other are found in whole recordings, not in excerpts.
    """
    manifest = as_manifest(
        manifest,
        audio_dir=audio_dir,
        group_column=group_column,
        label_column=label_column,
        label_separator=label_separator,
        corrections=corrections,
    )
    clips = manifest.clips
    facts = _measure_all(manifest, channel, workers, progress)
    sounds = {clip: fact for clip in clips if isinstance(fact := facts[clip], _SoundFacts)}
    images = {clip: fact for clip in clips if isinstance(fact := facts[clip], _ImageFacts)}
    clips_per_fold = Counter(fold for fold in manifest.folds if fold is not None)
    n_folds = folds or len(clips_per_fold) or None
    return Inspection(
        source=manifest.source,
        holds_images=manifest.holds_images,
        n_clips=len(clips),
        n_files=len({clip.path for clip in clips}),
        n_groups=len(set(manifest.groups)),
        clips_per_label=dict(zip(manifest.labels.names, manifest.multi_hot().sum(axis=0).tolist(), strict=True)),
        labels_per_clip=_count(len(clip.labels) for clip in clips),
        unknown_per_label=_unknown_per_label(manifest),
        weights=_weights(manifest),
        clips_per_fold=dict(sorted(clips_per_fold.items())),
        durations=Durations.of([sound.duration_seconds for sound in sounds.values()]) if sounds else None,
        sample_rates=_count(sound.sample_rate for sound in sounds.values()),
        channels=_count(sound.n_channels for sound in sounds.values()),
        image_sizes=dict(Counter(image.size for image in images.values()).most_common()),
        without_labels=tuple(clip.name for clip in clips if clip.is_negative),
        unreadable={clip.name: fact for clip in clips if isinstance(fact := facts[clip], str)},
        silent=tuple(clip.name for clip, sound in sounds.items() if sound.peak < 10 ** (SILENT_PEAK_DB / 20)),
        clipped={clip.name: sound.clipped for clip, sound in sounds.items() if sound.clipped > CLIPPED_FRACTION},
        channels_cancel=tuple(clip.name for clip, sound in sounds.items() if sound.faults.channels_cancel),
        truncated={
            clip.name: sound.faults.expected_seconds for clip, sound in sounds.items() if sound.faults.is_truncated
        },
        very_short={
            clip.name: sound.duration_seconds
            for clip, sound in sounds.items()
            if sound.duration_seconds < VERY_SHORT_SECONDS
        },
        past_end=tuple(clip.name for clip, sound in sounds.items() if sound.past_end),
        duplicates=_duplicates({clip: fact.digest for clip, fact in facts.items() if not isinstance(fact, str)}),
        shared_audio=_shared(manifest, compare_with, channel, cache, workers, progress) if find_shared_audio else (),
        leaks=_leaks(manifest),
        n_folds=n_folds,
        rare_labels=_rare_labels(manifest, n_folds) if n_folds else (),
    )


def _unknown_per_label(manifest: Manifest) -> dict[str, int]:
    counts = unknown_labels(manifest.clips, manifest.labels).sum(axis=0).tolist()
    return {label: count for label, count in zip(manifest.labels.names, counts, strict=True) if count}


def _weights(manifest: Manifest) -> tuple[float, float] | None:
    weights = manifest.weights
    return (float(weights.min()), float(weights.max())) if (weights != 1).any() else None


def _measure_all(manifest: Manifest, channel: Channel, workers: int | None, progress: Progress) -> dict[Clip, _Facts]:
    """The measurements of each clip, or the reason why it can't be read."""
    measure = _measure_image if manifest.holds_images else partial(_measure_sound, channel)
    n_clips = len(manifest.clips)
    n_workers = workers or min(n_usable_cores(), 1 + n_clips // _CLIPS_PER_WORKER)
    facts: dict[Clip, _Facts] = {}
    progress("inspect", 0, n_clips)
    for clip, fact in map_unordered(measure, manifest.clips, n_workers=n_workers):
        facts[clip] = fact
        progress("inspect", len(facts), n_clips)
    return facts


def _measure_sound(channel: Channel, clip: Clip) -> _SoundFacts | str:
    try:
        info = audio_info(clip.path)
        levels, faults = SoundLevels(), SoundFaults()
        digest = hashlib.blake2b(str(info.sample_rate).encode(), digest_size=16)
        for waveform in _blocks(clip, channel, info.duration_seconds, faults):
            levels.add(waveform)
            digest.update(np.ascontiguousarray(waveform).data)
    except Exception as error:
        return skip_reason(clip.path, error).removeprefix(f"{clip.path}: ")
    past_end = clip.end_seconds is not None and clip.end_seconds > info.duration_seconds + _END_TOLERANCE_SECONDS
    return _SoundFacts(
        levels.n_samples / info.sample_rate,
        info.sample_rate,
        info.n_channels,
        levels.peak,
        levels.clipped_fraction,
        past_end,
        digest.digest(),
        faults,
    )


def _blocks(clip: Clip, channel: Channel, file_seconds: float, faults: SoundFaults) -> Iterator[Waveform]:
    """The samples of a clip; the faults are filled in for a whole recording."""
    if (clip.start_seconds, clip.end_seconds) == (0.0, None):
        with open_stream(clip.path, channel=channel) as sound:
            yield from sound.blocks
        faults.is_truncated, faults.channels_cancel = sound.faults.is_truncated, sound.faults.channels_cancel
        faults.expected_seconds = sound.faults.expected_seconds
        return
    end = file_seconds if clip.end_seconds is None else min(clip.end_seconds, file_seconds)
    start = clip.start_seconds
    while end - start > _BLOCK_SECONDS:
        yield read_audio(clip.path, start_seconds=start, end_seconds=start + _BLOCK_SECONDS, channel=channel)[0]
        start += _BLOCK_SECONDS
    try:
        yield read_audio(clip.path, start_seconds=start, end_seconds=clip.end_seconds, channel=channel)[0]
    except EndOfSoundError:
        if start == clip.start_seconds:
            raise
        # otherwise the file is truncated: its header announces more samples than it contains


def _measure_image(clip: Clip) -> _ImageFacts | str:
    try:
        with Image.open(clip.path) as image:
            digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
            digest.update(image.tobytes())
            return _ImageFacts(f"{image.width} x {image.height}", digest.digest())
    except UnidentifiedImageError:
        return "the file is not an image"
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return str(error)
    except Exception as error:
        return skip_reason(clip.path, error).removeprefix(f"{clip.path}: ")


def _count(values: Iterator[int]) -> dict[int, int]:
    return dict(sorted(Counter(values).items()))


def _duplicates(digests: dict[Clip, bytes]) -> tuple[Duplicates, ...]:
    clips_by_digest: dict[bytes, list[Clip]] = {}
    for clip, digest in digests.items():
        clips_by_digest.setdefault(digest, []).append(clip)
    return tuple(
        Duplicates(
            clips=tuple(clip.name for clip in clips),
            across_folds=len({clip.fold for clip in clips}) > 1,
            labels_differ=labels_contradict(clips),
        )
        for clips in clips_by_digest.values()
        if len(clips) > 1
    )


def _shared(
    manifest: Manifest,
    compare_with: Sequence[ManifestInput],
    channel: Channel,
    cache: str | Path | None,
    workers: int | None,
    progress: Progress,
) -> tuple[SharedClips, ...]:
    """Shared audio within the manifest, and with each of the other ones."""
    if manifest.holds_images:
        return ()
    fingerprints = clip_fingerprints(manifest.clips, cache, channel=channel, workers=workers, progress=progress)
    compare = partial(cached_shared_audio, fingerprints, root=cache, workers=workers, progress=progress)
    shared = compare()
    groups = np.array(manifest.groups)
    apart = np.not_equal(*groups[shared.pairs.T])
    shared = SharedAudio(shared.pairs[apart], shared.n_matches[apart], shared.offsets_seconds[apart])
    found = [SharedClips.of(manifest.clips, manifest.clips, shared, None)]
    for other in map(as_manifest, compare_with):
        of_other = clip_fingerprints(other.clips, cache, channel=channel, workers=workers, progress=progress)
        found.append(SharedClips.of(manifest.clips, other.clips, compare(of_other), str(other.source)))
    return tuple(found)


def _are_across_folds(clip: Clip, other: Clip) -> bool:
    return clip.fold is not None and other.fold is not None and clip.fold != other.fold


def _leaks(manifest: Manifest) -> tuple[Leak, ...]:
    folds: dict[str, Counter[str]] = {}
    for group, fold in zip(manifest.groups, manifest.folds, strict=True):
        if fold is not None:
            folds.setdefault(group, Counter())[fold] += 1
    return tuple(Leak(group, dict(sorted(counts.items()))) for group, counts in folds.items() if len(counts) > 1)


def _rare_labels(manifest: Manifest, n_folds: int) -> tuple[RareLabel, ...]:
    groups = np.array(manifest.groups)
    columns = zip(manifest.labels.names, manifest.multi_hot().T, strict=True)
    rows = [RareLabel(label, int(is_true.sum()), len(set(groups[is_true]))) for label, is_true in columns]
    return tuple(row for row in rows if row.n_groups < n_folds)
