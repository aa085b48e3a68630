"""Sound files from their beginning to their end, block by block: memory does not grow with their length."""

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from spectag.array_types import Waveform
from spectag.audio.decoding import (
    RefusedError,
    av_blocks,
    existing_file,
    mean_of_channels,
    not_finite,
    open_with_av,
    open_with_soundfile,
)
from spectag.audio.files import read_audio
from spectag.errors import AudioError

_BLOCK_SAMPLES = 1 << 17  # per channel: about 3 s
_BLOCK_SECONDS = 60  # at most: at some samples a second, a block would be days, and resampled fill the memory


@dataclass(frozen=True)
class AudioStream:
    """A sound under way: mono blocks, float32 of shape (n_samples,), to be drawn once."""

    sample_rate: int
    """In Hz."""
    blocks: Iterator[Waveform]


@contextmanager
def open_stream(path: str | Path) -> Generator[AudioStream, None, None]:
    """Decode a sound file block by block. All blocks together are what `audio.read_audio` gives of the whole file.

    Raises
    ------
    AudioError
        As `audio.read_audio`: at once, or when the blocks come to where the file is damaged.
    MissingExtraError
        If only PyAV could read it, and PyAV is not installed.
    """
    path = existing_file(path)
    try:
        file = open_with_soundfile(path, forward=True)
    except RefusedError as refusal:
        with open_with_av(path, refusal) as (container, stream):
            rate = stream.codec_context.sample_rate
            yield AudioStream(rate, _checked(av_blocks(container, stream, 0, sys.maxsize), path, rate))
        return
    with file:
        file.seek(0)  # as `read_audio` does: an mp3's samples differ in their last bit without it
        yield AudioStream(file.samplerate, _checked(_soundfile_blocks(file, path), path, file.samplerate))


@contextmanager
def open_stretch(
    path: str | Path, start_seconds: float = 0.0, end_seconds: float | None = None
) -> Generator[AudioStream, None, None]:
    """The same for a stretch of a sound file, which comes in one block; the whole file where neither limit is given.

    Raises
    ------
    AudioError
        As `open_stream`; also if the stretch is empty or begins where the sound has ended.
    MissingExtraError
        If only PyAV could read it, and PyAV is not installed.
    """
    if (start_seconds, end_seconds) == (0.0, None):
        with open_stream(path) as sound:
            yield sound
        return
    waveform, sample_rate = read_audio(path, start_seconds=start_seconds, end_seconds=end_seconds)
    yield AudioStream(sample_rate, iter((waveform,)))


def _soundfile_blocks(file: soundfile.SoundFile, path: Path) -> Iterator[Waveform]:
    n_block = min(_BLOCK_SAMPLES, _BLOCK_SECONDS * file.samplerate)
    while True:
        try:
            samples = file.read(n_block, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: the sound is damaged: {error.error_string}") from error
        yield mean_of_channels(samples)
        if len(samples) < n_block:
            return


def _checked(blocks: Iterator[Waveform], path: Path, sample_rate: int) -> Iterator[Waveform]:
    n_samples = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise not_finite(path, block, n_samples / sample_rate, sample_rate)
        n_samples += len(block)
        if block.size:
            yield block
    if n_samples == 0:
        raise AudioError(f"{path}: the file holds no samples")
