"""The network input of each clip of a manifest: from the spectrogram cache for sounds, from the files for images."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from spectag.array_types import Float32Array
from spectag.audio.files import open_excerpt, read_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import n_frames
from spectag.audio.sound_faults import truncation_warning
from spectag.audio.spectrogram_image import read_png
from spectag.audio.windows import WindowCutter
from spectag.config.base import WindowConfig
from spectag.data.clips import Clip, Manifest, connected_groups
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.spectrograms.cache import SpectrogramCache, content_key
from spectag.errors import DataError
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Log, Progress

MAX_CLIP_SECONDS = WindowConfig().max_clip_seconds
"""Longer clips are predicted in parts, by a new model as in its training."""


class ClipPart(NamedTuple):
    """A part of a clip as the network takes it."""

    start_seconds: float
    end_seconds: float
    """From the start of the clip; NaN for the single part of a short clip or an image."""
    inputs: Float32Array
    """(channels, height, width)"""

    @classmethod
    def of_whole(cls, inputs: Float32Array) -> Self:
        """The single part of a short clip."""
        return cls(0.0, math.nan, inputs)


@dataclass(frozen=True)
class ClipInputs:
    """The readable clips of a manifest. Each clip has a content key, and an input that is computed on demand."""

    manifest: Manifest
    keys: tuple[str, ...]
    inputs: Callable[[int], Float32Array]
    """The input (channels, height, width) of the clip at an index, whatever its length."""
    parts: Callable[[int], Iterator[ClipPart]]
    """The parts of the clip at an index, each the same as in `Tagger.tag`. A clip of up to 60 s is one part, or less
    if the network takes less."""
    part_keys: tuple[str, ...]
    """The content keys, with the length of the parts for clips that may have several."""
    seconds: tuple[float, ...]
    """The length of each clip, rounded to frames; 0 for images."""
    skipped: tuple[tuple[Clip, str], ...]
    """The clips that can't be read, each with the reason."""

    @property
    def rows_in_parts(self) -> list[int]:
        """The indices of the clips that may have several parts."""
        return [row for row, part_key in enumerate(self.part_keys) if part_key != self.keys[row]]

    @property
    def example(self) -> Float32Array:
        """An input of the network: the first part of the first clip."""
        return next(self.parts(0)).inputs


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
    store = SpectrogramCache(cache, front_end.mel, channel=front_end.channel)
    report = store.prepare(manifest.clips, workers=workers, progress=progress)
    log(f"spectrogram cache: {report}")
    if report.truncated:
        log(truncation_warning([clip.name for clip in report.truncated]))
    keys = [key for key in report.keys if key is not None]
    kept = _readable_clips(manifest, report.skipped, keys, log)
    frame_counts = [store.log_mel(key).shape[1] for key in keys]
    part_seconds = front_end.part_seconds
    most_frames = n_frames(round(part_seconds * front_end.sample_rate), front_end.mel)
    # may be a single part of exactly 60 s; waveforms are not cached, and padding is not in cached log_mels
    is_long = [front_end.has_limits or frames >= most_frames for frames in frame_counts]

    def inputs(index: int) -> Float32Array:
        if front_end.has_limits:
            return _whole_input(kept.clips[index], front_end)
        return front_end.input_of_log_mel(store.log_mel(keys[index]))

    def parts(index: int) -> Iterator[ClipPart]:
        clip, rate = kept.clips[index], front_end.sample_rate
        if not is_long[index]:
            if not np.isfinite(store.log_mel(keys[index])).all():
                raise DataError(
                    f"{clip.path}: its spectrogram in the cache is not finite; delete the cache ({cache}), so "
                    "that the sound is read and checked again"
                )
            yield ClipPart.of_whole(inputs(index))
            return
        with open_excerpt(clip.path, clip.start_seconds, clip.end_seconds, channel=front_end.channel) as sound:
            # read again: a part of the cached log_mel differs at its ends, and if levels are relative to the maximum
            cutter = WindowCutter(sound.sample_rate, [rate], window_seconds=part_seconds, least_new=0.0)
            for part in cutter.cut(sound.blocks):
                part_inputs = front_end.input_of_waveform(part.waveforms[rate])
                yield ClipPart(part.start_seconds, part.end_seconds, part_inputs)

    part_keys = tuple(f"{key}-{part_seconds:g}s" if long else key for key, long in zip(keys, is_long, strict=True))
    seconds = tuple(frames * front_end.mel.hop_length / front_end.mel.sample_rate for frames in frame_counts)
    return ClipInputs(kept, tuple(keys), inputs, parts, part_keys, seconds, report.skipped)


def _whole_input(clip: Clip, front_end: FrontEnd) -> Float32Array:
    """The input for a clip, also if it is longer than the network takes at once."""
    waveform, _ = read_audio(
        clip.path,
        sample_rate=front_end.sample_rate,
        start_seconds=clip.start_seconds,
        end_seconds=clip.end_seconds,
        channel=front_end.channel,
    )
    return front_end.model_copy(update={"max_samples": None}).input_of_waveform(waveform)


def _open_images(manifest: Manifest, front_end: FrontEnd, progress: Progress, log: Log) -> ClipInputs:
    keys, skipped = [], []
    for n_done, clip in enumerate(manifest.clips, start=1):
        progress("images", n_done, len(manifest.clips))
        try:
            read_png(clip.path)
            keys.append(_image_key(clip))
        except Exception as error:
            skipped.append((clip, skip_reason(clip.path, error)))
    kept = _readable_clips(manifest, skipped, keys, log)

    def inputs(index: int) -> Float32Array:
        return front_end.input_of_image(kept.clips[index].path)

    def parts(index: int) -> Iterator[ClipPart]:
        yield ClipPart.of_whole(inputs(index))

    return ClipInputs(kept, tuple(keys), inputs, parts, tuple(keys), (0.0,) * len(keys), tuple(skipped))


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
