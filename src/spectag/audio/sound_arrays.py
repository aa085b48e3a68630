"""Sounds in memory: arrays of samples, checked and scaled like the samples of a file."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectag.array_types import Float32Array, Waveform
from spectag.audio.channels import loudest_channel, one_channel
from spectag.audio.decoding import MAX_CHANNELS, MAX_RATE, MIN_RATE, check_samples
from spectag.audio.files import AudioStream
from spectag.config.base import Channel
from spectag.errors import AudioError, EndOfSoundError
from spectag.system.storage import local_copy

SoundInput = str | os.PathLike[str] | ArrayLike
"""A path, a URL, or samples (n_samples,) or (n_samples, n_channels)."""
_BLOCK = 1 << 17  # samples per channel converted at once, as many as a decoder gives
_OFFSET_AND_SCALE = {"int8": (0, 2.0**-7), "uint8": (128, 2.0**-7), "int16": (0, 2.0**-15), "int32": (0, 2.0**-31)}
"""From integers to [-1, 1], as libsndfile reads them from files."""


@dataclass(frozen=True, eq=False)
class SoundArray:
    """Samples of any type that a sound file may have, and their rate."""

    samples: NDArray[Any]
    """(n_samples, n_channels)"""
    sample_rate: int
    """In Hz."""
    name: str
    """The sound in messages."""

    @classmethod
    def of(cls, samples: ArrayLike, sample_rate: float | None, *, name: str = "array") -> Self:
        """A sound from samples (n_samples,) or (n_samples, n_channels): an array, a list, or a tensor on the CPU.

        Floats are expected in [-1, 1]. int16, int32, int8 and uint8 are scaled as those of a file.

        Raises
        ------
        AudioError
            If the samples have another shape or type, or there are none; if there is no sample rate from 100 to
            2,000,000 Hz, or more than 1,024 channels.
        """
        return cls(_checked_samples(samples, name), _checked_rate(sample_rate, name), name)

    @property
    def duration_seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / self.sample_rate

    def open(
        self, start_seconds: float = 0.0, end_seconds: float | None = None, *, channel: Channel = "mix"
    ) -> AudioStream:
        """The mono blocks of the sound or of an excerpt, as `open_excerpt` gives those of a file.

        Raises
        ------
        AudioError
            As `read_audio`: at once, or when the blocks reach a sample that is NaN or beyond 1e10.
        """
        end = np.inf if end_seconds is None else end_seconds
        if not 0 <= start_seconds < end:
            raise AudioError(f"{self.name}: need 0 <= start < end, got {start_seconds:g} s and {end:g} s")
        begin, stop = (
            round(min(seconds, self.duration_seconds) * self.sample_rate) for seconds in (start_seconds, end)
        )
        if begin == stop:
            raise EndOfSoundError(f"{self.name}: the sound has no samples from {start_seconds:g} s on")
        index = self._channel_index(channel)
        return AudioStream(self.sample_rate, self._mono(begin, stop, index))

    def _channel_index(self, channel: Channel) -> int | None:
        """The channel to take, counted from 0; None: the mean of all."""
        n_channels = self.samples.shape[1]
        if channel == "loudest" and n_channels > 1:
            return loudest_channel(self._blocks(0, len(self.samples)), self.sample_rate)
        if not isinstance(channel, int):
            return None
        if channel > n_channels:
            has = "1 channel" if n_channels == 1 else f"{n_channels} channels"
            raise AudioError(f"{self.name}: there is no channel {channel}, it has {has}; use channel mix or loudest")
        return channel - 1

    def _mono(self, begin: int, stop: int, index: int | None) -> Iterator[Waveform]:
        n_samples = begin
        for block in self._blocks(begin, stop):
            waveform = one_channel(block, index)
            check_samples(Path(self.name), waveform, n_samples / self.sample_rate, self.sample_rate)
            n_samples += len(waveform)
            yield waveform

    def _blocks(self, begin: int, stop: int) -> Iterator[Float32Array]:
        """The samples (n_samples, n_channels) as float32, block by block."""
        offset, scale = _OFFSET_AND_SCALE.get(self.samples.dtype.name, (0, 1.0))
        for start in range(begin, stop, _BLOCK):
            block = self.samples[start : min(start + _BLOCK, stop)]
            if offset:
                block = block.astype(np.int16) - np.int16(offset)
            with np.errstate(over="ignore"):  # float64 beyond float32 is infinite, which is an error of the block
                values = np.ascontiguousarray(block, np.float32)
            yield values if scale == 1.0 else values * np.float32(scale)


@contextmanager
def sound_source(
    sound: SoundInput, sample_rate: float | None = None, *, name: str = "array"
) -> Generator[Path | SoundArray]:
    """A sound that a person gives: a file by its path or URL, or an array with its sample rate.

    The path is that of a temporary copy if a file is at a URL. The name is that of an array in messages.

    Raises
    ------
    AudioError
        If the array is not a sound, it has no sample rate, or a path has one; if a URL can't be read.
    """
    if not isinstance(sound, str | os.PathLike):
        yield SoundArray.of(sound, sample_rate, name=name)
        return
    if sample_rate is not None:
        raise AudioError(f"{sound}: a file has its own sample rate; leave out sample_rate={sample_rate}")
    with local_copy(os.fspath(sound)) as path:
        yield path


def _checked_samples(samples: ArrayLike, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(samples)
    except Exception as error:  # of lists of unequal length, of tensors on another device or with a gradient
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AudioError(f"{name}: cannot be read as an array of samples: {reason}") from error
    if array.dtype.kind != "f" and array.dtype.name not in _OFFSET_AND_SCALE:
        raise AudioError(
            f"{name}: need a path, or samples as floats in [-1, 1] or as {', '.join(_OFFSET_AND_SCALE)}, got "
            + _what_came(samples, array)
        )
    if array.ndim not in (1, 2):
        raise AudioError(
            f"{name}: need samples of shape (n_samples,) or (n_samples, n_channels), got {array.shape}; give one sound "
            "at a time, or a list of sounds to tag_many"
        )
    if array.size == 0:
        raise AudioError(f"{name}: there are no samples: the shape is {array.shape}")
    if array.ndim == 1:
        return array[:, None]
    if array.shape[1] > array.shape[0]:
        raise AudioError(
            f"{name}: the shape {array.shape} looks like (n_channels, n_samples), but (n_samples, n_channels) is "
            "expected; transpose it: array.T"
        )
    if array.shape[1] > MAX_CHANNELS:
        raise AudioError(f"{name}: has {array.shape[1]:,} channels, need 1 to {MAX_CHANNELS:,}")
    return array


def _what_came(samples: ArrayLike, array: NDArray[Any]) -> str:
    """A description of samples of the wrong type, and what to do."""
    if isinstance(samples, bytes | bytearray | memoryview) or hasattr(samples, "read"):
        return "the bytes of a file; decode them: samples, sample_rate = soundfile.read(io.BytesIO(data))"
    if array.ndim == 0:
        return repr(samples)
    hints = {
        "i": "; convert 16-bit samples with array.astype('int16')",
        "u": "; convert 16-bit samples with array.astype('int16')",
        "O": "; is it a list of several sounds? Then use tag_many",
        "U": "; is it a list of several files? Then use tag_many",
    }
    return f"{array.dtype} of shape {array.shape}{hints.get(array.dtype.kind, '')}"


def _checked_rate(sample_rate: float | None, name: str) -> int:
    if sample_rate is None:
        raise AudioError(f"{name}: an array has no sample rate of its own; add it, such as sample_rate=48_000 (Hz)")
    try:
        rate = int(sample_rate)
        is_whole = rate == sample_rate and not isinstance(sample_rate, str | bool)
    except (TypeError, ValueError, OverflowError):
        is_whole = False
    if not is_whole or not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: sample_rate must be a whole number of Hz from {MIN_RATE} to {MAX_RATE:,}, got {sample_rate!r}"
        )
    return rate
