"""The windows of a sound that comes block by block, each at every rate that is asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from spectag.array_types import Waveform


@dataclass(frozen=True)
class Window:
    """A stretch of a sound, resampled."""

    start_seconds: float
    end_seconds: float
    waveforms: Mapping[int, Waveform]
    """Samples (n_samples,) by sample rate."""


def cut(
    blocks: Iterable[Waveform],
    sample_rate: int,
    rates: Sequence[int],
    *,
    window_seconds: float,
    overlap_seconds: float = 0.0,
    keep_tail: bool = False,
) -> Iterator[Window]:
    """The windows of a sound, in order of time, made while it comes.

    A window is what one would cut out of the whole sound after resampling it as a whole, bit for bit. The last one
    ends with the sound and is as long as the others, so it may overlap the one before it more than they do: a moment
    of sound is no window. A sound shorter than a window is one window.

    Parameters
    ----------
    blocks : iterable of float32 arrays of shape (n_samples,)
        The sound, mono, in pieces of any size.
    sample_rate : int
        Its rate in Hz.
    rates : sequence of int
        Rates in Hz at which the windows are wanted.
    window_seconds, overlap_seconds : float
        Length of a window, and what it shares with the one before it. Both are rounded to samples of the sound.
    keep_tail : bool
        Let the last window be what is left, however short.
    """
    cutter = WindowCutter(
        sample_rate, rates, window_seconds=window_seconds, overlap_seconds=overlap_seconds, keep_tail=keep_tail
    )
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class WindowCutter:
    """What `cut` does, for a sound that somebody else hands on: push its blocks, then finish."""

    def __init__(
        self,
        sample_rate: int,
        rates: Sequence[int],
        *,
        window_seconds: float,
        overlap_seconds: float = 0.0,
        keep_tail: bool = False,
    ) -> None:
        if not 0 <= overlap_seconds < window_seconds:
            raise ValueError(f"need 0 <= overlap < window, got {overlap_seconds:g} s and {window_seconds:g} s")
        self.sample_rate = sample_rate
        self._n_window = max(1, round(window_seconds * sample_rate))
        self._hop = max(1, round((window_seconds - overlap_seconds) * sample_rate))
        self._keep_tail = keep_tail
        self._sounds = [_Resampled(sample_rate, rate) for rate in dict.fromkeys(rates)]
        self._n_samples = 0  # that have come
        self._start = 0  # of the next window

    def push(self, block: Waveform) -> Iterator[Window]:
        """Take the next samples; give the windows that are whole now."""
        self._n_samples += len(block)
        for sound in self._sounds:
            sound.push(block)
        while self._next_is_whole():
            yield self._window(self._start, self._n_window)
            self._start += self._hop
            for sound in self._sounds:
                sound.forget_before(min(self._start, self._n_samples - self._n_window))

    def finish(self) -> Iterator[Window]:
        """Give the windows that are left when the sound has ended."""
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
            start = self._start if self._keep_tail else self._n_samples - self._n_window
            yield self._window(start, self._n_samples - start)

    def _next_is_whole(self) -> bool:
        is_window = self._n_window < self._n_samples and self._start + self._n_window <= self._n_samples
        return is_window and all(sound.has(self._start, self._n_window) for sound in self._sounds)

    def _window(self, start: int, length: int) -> Window:
        waveforms = {sound.rate: sound.stretch(start, length) for sound in self._sounds}
        return Window(start / self.sample_rate, (start + length) / self.sample_rate, waveforms)


class _Resampled:
    """A sound at another rate, of which the beginning is forgotten when nobody needs it any more.

    Places and lengths are in samples of the sound as it came.
    """

    def __init__(self, sample_rate: int, rate: int) -> None:
        self.rate = rate
        self._ratio = rate / sample_rate
        self._resampler = None if rate == sample_rate else soxr.ResampleStream(sample_rate, rate, 1, dtype="float32")
        self._first = np.empty(0, np.float32)  # sample that came, for a sound so short that resampling leaves none
        self._pieces: list[Waveform] = []
        self._begin = self._end = 0  # of what is kept, in samples at the new rate

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
        return self._place(start) + self._length(length) <= self._end

    def stretch(self, start: int, length: int) -> Waveform:
        n_samples = self._length(length)
        begin = min(self._place(start), self._end - n_samples)  # the resampler may round the sound's end down
        return self.all()[begin - self._begin : begin - self._begin + n_samples]

    def all(self) -> Waveform:
        """What is kept."""
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        return self._pieces[0]

    def forget_before(self, start: int) -> None:
        n_samples = self._place(start) - 1 - self._begin  # one more is kept: see `stretch`
        if n_samples > 0:
            self._pieces = [self.all()[n_samples:]]
            self._begin += n_samples

    def _place(self, start: int) -> int:
        return round(start * self._ratio)

    def _length(self, length: int) -> int:
        return max(1, round(length * self._ratio))

    def _add(self, samples: Waveform) -> None:
        self._pieces.append(samples)
        self._end += len(samples)
