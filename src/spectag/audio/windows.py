"""Windows of a sound that is read block by block, at one or more sample rates."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, Self

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

    def parts(self, seconds: float) -> list["Window"]:
        """Parts of this length, which is shorter than the window; the last one ends with the window."""
        last = self.end_seconds - self.start_seconds - seconds
        starts = [*np.arange(0, last, seconds).tolist(), last]
        return [
            Window(
                self.start_seconds + start,
                self.start_seconds + start + seconds,
                {
                    rate: waveform[round(start * rate) :][: round(seconds * rate)]
                    for rate, waveform in self.waveforms.items()
                },
            )
            for start in starts
        ]


class SoundCutter(Protocol):
    """Cuts a sound into windows while it is read."""

    sample_rate: int
    """Of the sound, in Hz."""
    n_samples: int
    """Of the sound, received so far."""


@dataclass(frozen=True)
class WindowStream:
    """The windows of a sound, which can be read once."""

    windows: Iterator[Window]
    faults: SoundFaults
    """What is wrong with the sound, when all windows are read."""
    cutter: SoundCutter
    is_whole: bool
    """Whether they are the parts of a clip, which is tagged as a whole."""

    @property
    def duration_seconds(self) -> float:
        """Length of the sound, when all windows are read."""
        return self.cutter.n_samples / self.cutter.sample_rate

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Window:
        return next(self.windows)


LEAST_NEW = 0.1
"""A last window with less new sound than this fraction of a step almost equals the one before it, and is left out."""


def window_starts(n_samples: int, *, window: int, hop: int, least_new: float = LEAST_NEW) -> list[int]:
    """The first sample of each window of a sound.

    The last window ends with the sound and is as long as the others, so its overlap may be larger. It is left out if
    less than `least_new` of a step in it is new. A sound shorter than a window is one window; one without samples has
    none.

    Parameters
    ----------
    n_samples, window, hop : int
        Length of the sound, of a window, and of the step between their starts, in samples.
    least_new : float
        0 covers the sound to its last sample.

    Examples
    --------
    >>> window_starts(2_300, window=1_000, hop=1_000), window_starts(2_050, window=1_000, hop=1_000)
    ([0, 1000, 1300], [0, 1000])
    """
    if n_samples <= window:
        return [0] if n_samples else []
    starts = list(range(0, n_samples - window + 1, hop))
    n_new = n_samples - (starts[-1] + window)
    return [*starts, n_samples - window] if n_new and n_new >= least_new * hop else starts


def is_longer(blocks: Iterator[Waveform], n_samples: int) -> tuple[bool, Iterator[Waveform]]:
    """Whether a sound has more samples than this, and its blocks, of which only those up to there are read."""
    read: list[Waveform] = []
    n_read = 0
    for block in blocks:
        read.append(block)
        n_read += len(block)
        if n_read > n_samples:
            return True, chain(read, blocks)
    return False, iter(read)


class WindowCutter:
    """Cuts a sound into windows while its blocks arrive. Call `cut`, or `push` for each block and then `finish`.

    Each window equals, bit for bit, the same part of the whole resampled sound. They start at `window_starts`.

    Parameters
    ----------
    sample_rate : int
        Sample rate of the sound in Hz.
    rates : sequence of int
        Sample rates of the windows in Hz.
    window_seconds, overlap_seconds : float
        Length of a window, and its overlap with the previous one. Both are rounded to samples of the sound.
    least_new : float
        See `window_starts`.
    """

    def __init__(
        self,
        sample_rate: int,
        rates: Sequence[int],
        *,
        window_seconds: float,
        overlap_seconds: float = 0.0,
        least_new: float = LEAST_NEW,
    ) -> None:
        if not 0 <= overlap_seconds < window_seconds:
            raise ValueError(f"need 0 <= overlap < window, got {overlap_seconds:g} s and {window_seconds:g} s")
        self.sample_rate = sample_rate
        self._n_window = max(1, round(window_seconds * sample_rate))
        self._hop = max(1, round((window_seconds - overlap_seconds) * sample_rate))
        self._least_new = least_new
        self._sounds = [_Resampled(sample_rate, rate) for rate in dict.fromkeys(rates)]
        self.n_samples = 0
        """Received so far."""
        self._start = 0  # of the next window

    def cut(self, blocks: Iterable[Waveform]) -> Iterator[Window]:
        """Yield all windows of a sound, given as mono blocks (n_samples,) of any size."""
        for block in blocks:
            yield from self.push(block)
        yield from self.finish()

    def push(self, block: Waveform) -> Iterator[Window]:
        """Add the next samples, and yield the windows that are complete now."""
        self.n_samples += len(block)
        for sound in self._sounds:
            sound.push(block)
        while self._next_is_complete():
            yield self._window(self._start, self._n_window)
            self._start += self._hop
            for sound in self._sounds:
                sound.drop_before(min(self._start, self.n_samples - self._n_window))

    def finish(self) -> Iterator[Window]:
        """Yield the remaining windows at the end of the sound."""
        if self.n_samples == 0:
            return
        for sound in self._sounds:
            sound.finish()
        if self.n_samples <= self._n_window:
            waveforms = {sound.rate: sound.all() for sound in self._sounds}
            yield Window(0.0, self.n_samples / self.sample_rate, waveforms)
            return
        starts = window_starts(self.n_samples, window=self._n_window, hop=self._hop, least_new=self._least_new)
        for start in starts[self._start // self._hop :]:
            yield self._window(start, self._n_window)

    def _next_is_complete(self) -> bool:
        is_window = self._n_window < self.n_samples and self._start + self._n_window <= self.n_samples
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
