"""Windows of a sound that is read block by block, at one or more sample rates."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import soxr

from spectag.array_types import Waveform
from spectag.audio.sound_faults import SoundFaults


@dataclass(frozen=True)
class Window:
    """An excerpt of a sound, at one or more sample rates."""

    start_seconds: float
    end_seconds: float
    waveforms: Mapping[int, Waveform]
    """Samples (n_samples,) by sample rate."""


@dataclass(frozen=True)
class WindowStream:
    """The windows of a sound, which can be read once."""

    windows: Iterator[Window]
    faults: SoundFaults
    """What is wrong with the sound, when all windows are read."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Window:
        return next(self.windows)


class WindowCutter:
    """Cuts a sound into windows while its blocks arrive. Call `cut`, or `push` for each block and then `finish`.

    Each window equals, bit for bit, the same part of the whole resampled sound. The last window ends with the sound and
    is as long as the others, so its overlap may be larger. A sound shorter than a window is one window.

    Parameters
    ----------
    sample_rate : int
        Sample rate of the sound in Hz.
    rates : sequence of int
        Sample rates of the windows in Hz.
    window_seconds, overlap_seconds : float
        Length of a window, and its overlap with the previous one. Both are rounded to samples of the sound.
    """

    def __init__(
        self,
        sample_rate: int,
        rates: Sequence[int],
        *,
        window_seconds: float,
        overlap_seconds: float = 0.0,
    ) -> None:
        if not 0 <= overlap_seconds < window_seconds:
            raise ValueError(f"need 0 <= overlap < window, got {overlap_seconds:g} s and {window_seconds:g} s")
        self.sample_rate = sample_rate
        self._n_window = max(1, round(window_seconds * sample_rate))
        self._hop = max(1, round((window_seconds - overlap_seconds) * sample_rate))
        self._sounds = [_Resampled(sample_rate, rate) for rate in dict.fromkeys(rates)]
        self._n_samples = 0  # received
        self._start = 0  # of the next window

    def cut(self, blocks: Iterable[Waveform]) -> Iterator[Window]:
        """Yield all windows of a sound, given as mono blocks (n_samples,) of any size."""
        for block in blocks:
            yield from self.push(block)
        yield from self.finish()

    def push(self, block: Waveform) -> Iterator[Window]:
        """Add the next samples, and yield the windows that are complete now."""
        self._n_samples += len(block)
        for sound in self._sounds:
            sound.push(block)
        while self._next_is_complete():
            yield self._window(self._start, self._n_window)
            self._start += self._hop
            for sound in self._sounds:
                sound.drop_before(min(self._start, self._n_samples - self._n_window))

    def finish(self) -> Iterator[Window]:
        """Yield the remaining windows at the end of the sound."""
        if self._n_samples == 0:
            return
        for sound in self._sounds:
            sound.finish()
        if self._n_samples <= self._n_window:
            waveforms = {sound.rate: sound.all() for sound in self._sounds}
            yield Window(0.0, self._n_samples / self.sample_rate, waveforms)
            return
        while self._start + self._n_window <= self._n_samples:
            yield self._window(self._start, self._n_window)
            self._start += self._hop
        if self._start - self._hop + self._n_window < self._n_samples:
            yield self._window(self._n_samples - self._n_window, self._n_window)

    def _next_is_complete(self) -> bool:
        is_window = self._n_window < self._n_samples and self._start + self._n_window <= self._n_samples
        return is_window and all(sound.has(self._start, self._n_window) for sound in self._sounds)

    def _window(self, start: int, length: int) -> Window:
        waveforms = {sound.rate: sound.excerpt(start, length) for sound in self._sounds}
        return Window(start / self.sample_rate, (start + length) / self.sample_rate, waveforms)


class _Resampled:
    """A sound at another rate, without the beginning that is no longer needed.

    Arguments are in samples at the original rate.
    """

    def __init__(self, sample_rate: int, rate: int) -> None:
        self.rate = rate
        self._ratio = rate / sample_rate
        self._resampler = None if rate == sample_rate else soxr.ResampleStream(sample_rate, rate, 1, dtype="float32")
        self._first = np.empty(0, np.float32)  # sample, in case resampling leaves none of a very short sound
        self._blocks: list[Waveform] = []
        self._begin = self._end = 0  # of the blocks, in samples at the new rate

    def push(self, block: Waveform) -> None:
        if not self._first.size:
            self._first = block[:1]
        self._add(block if self._resampler is None else self._resampler.resample_chunk(np.ascontiguousarray(block)))

    def finish(self) -> None:
        if self._resampler is not None:
            self._add(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        if self._end == 0:
            self._add(self._first)

    def has(self, start: int, length: int) -> bool:
        return self._position(start) + self._length(length) <= self._end

    def excerpt(self, start: int, length: int) -> Waveform:
        n_samples = self._length(length)
        begin = min(self._position(start), self._end - n_samples)  # the resampler may round the length down
        return self.all()[begin - self._begin : begin - self._begin + n_samples]

    def all(self) -> Waveform:
        """The samples that have not been dropped."""
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0]

    def drop_before(self, start: int) -> None:
        n_samples = self._position(start) - 1 - self._begin  # keep one more: see `excerpt`
        if n_samples > 0:
            self._blocks = [self.all()[n_samples:]]
            self._begin += n_samples

    def _position(self, start: int) -> int:
        return round(start * self._ratio)

    def _length(self, length: int) -> int:
        return max(1, round(length * self._ratio))

    def _add(self, samples: Waveform) -> None:
        self._blocks.append(samples)
        self._end += len(samples)
