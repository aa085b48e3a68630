"""Tagging live sound: windows are tagged as they arrive, and the onsets and offsets of labels are reported."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from types import FrameType

import numpy as np

from spectag.array_types import BoolArray, Float32Array
from spectag.audio.live_stream import Block, LiveStream
from spectag.audio.windows import Window, WindowCutter
from spectag.config.base import WindowConfig
from spectag.config.listening import ListenSettings
from spectag.errors import AudioError
from spectag.models.tagger import Tagger
from spectag.models.timeline import divide_overlap, median_filtered
from spectag.system.progress import Log, no_log

Clock = Callable[[], float]
"""Returns the time in seconds."""


@dataclass(frozen=True)
class LabelEvent:
    """The onset or offset of a label."""

    time_seconds: float
    """Position in the stream."""
    label: str
    is_onset: bool
    """Whether the label goes on; False: it goes off."""
    probability: float
    latency_seconds: float
    """From the moment when the window with the event was captured to the moment when it was tagged."""


@dataclass(frozen=True, eq=False)
class TaggedWindow:
    """The probabilities (n_labels,) of a window of live sound."""

    start_seconds: float
    end_seconds: float
    probabilities: Float32Array
    captured_at: float
    """Clock time of its last sample, in seconds."""


def listen(
    tagger: Tagger,
    stream: LiveStream,
    settings: ListenSettings | None = None,
    *,
    log: Log = no_log,
    clock: Clock = time.monotonic,
) -> Iterator[LabelEvent]:
    """Tag live sound, and yield the onset and offset of each label. At the end of the stream, all labels go off.

    A label goes on with the first window that reaches its threshold, and off with the first window below `hysteresis`
    times the threshold. Where two windows overlap, the boundary lies in the middle, as in `Timeline.cells`. Without
    hysteresis, the labels are on in exactly the segments that `spectag.models.timeline.find_segments` finds in the
    whole recording.

    With `min_windows`, an onset is reported, with its own time, in the last of so many windows in which the label is
    on; a label that goes off before is not reported.

    Parameters
    ----------
    tagger : Tagger
    stream : LiveStream
        If tagging is slower than a stream that does not wait, windows are left out: only the newest of the windows that
        have arrived in the meantime is tagged.
    settings : ListenSettings, optional
    log : Log
        Called when windows are left out for the first time, and at the end with their number.
    clock : callable
        Returns the time in seconds: the clock of the stream's blocks.

    Yields
    ------
    LabelEvent
        In order of time, except that onsets wait for `min_windows`. Of one window, offsets come before onsets, and more
        probable labels first.

    Raises
    ------
    AudioError
        If the stream breaks off, after the offsets of all labels that are on.
    """
    settings = settings or ListenSettings()
    windows_config = settings.windows(tagger.info.window)
    thresholds = tagger.thresholds_for(windows_config)
    if settings.min_confidence is not None:
        thresholds = np.full_like(thresholds, settings.min_confidence)
    detector = OnOffDetector(tagger.labels.names, thresholds, settings.hysteresis, clock, settings.min_windows)
    windows = tag_stream(tagger, stream, windows_config, log=log, clock=clock)
    try:
        for window in median_windows(windows, settings.smooth_windows):
            yield from detector.update(window)
    except AudioError:
        yield from detector.finish()
        raise
    yield from detector.finish()


class OnOffDetector:
    """Turns the probabilities of successive windows into onsets and offsets.

    Parameters
    ----------
    labels : sequence of str
    thresholds : float array of shape (n_labels,)
        The probability at which each label goes on.
    hysteresis : float
        A label goes off below this fraction of its threshold.
    clock : callable
        Returns the time in seconds.
    min_windows : int
        Successive windows in which a label must be on before its onset is reported.
    """

    def __init__(
        self, labels: Sequence[str], thresholds: Float32Array, hysteresis: float, clock: Clock, min_windows: int = 1
    ) -> None:
        self._labels = labels
        self._high = thresholds.astype(np.float32)
        self._low = (hysteresis * self._high.astype(np.float64)).astype(np.float32)
        self._is_on = np.zeros(len(labels), bool)
        self._waiting: dict[int, _Onset] = {}  # by label: on, but not for enough windows yet
        self._last: TaggedWindow | None = None
        self._clock = clock
        self._min_windows = min_windows

    def update(self, window: TaggedWindow) -> list[LabelEvent]:
        """The onsets and offsets that the next window causes."""
        onset = offset = window.start_seconds
        if self._last is not None:
            offset, onset = map(float, divide_overlap(self._last.end_seconds, window.start_seconds))
        self._last = window
        limits = np.where(self._is_on, self._low, self._high)
        return self._switch(window.probabilities >= limits, window, onset, offset)

    def finish(self) -> list[LabelEvent]:
        """The offsets of all labels that are on, at the end of the last window."""
        if self._last is None:
            return []
        end = self._last.end_seconds
        return self._switch(np.zeros_like(self._is_on), self._last, end, end)

    def _switch(self, is_on: BoolArray, window: TaggedWindow, onset: float, offset: float) -> list[LabelEvent]:
        now = self._clock()
        events = [
            self._event(index, False, offset, float(window.probabilities[index]), now, window)
            for index in np.flatnonzero(~is_on & self._is_on).tolist()
            if self._waiting.pop(index, None) is None  # otherwise its onset was not reported
        ]
        for index in np.flatnonzero(is_on & ~self._is_on).tolist():
            self._waiting[index] = _Onset(onset, window)
        for index, waiting in list(self._waiting.items()):
            waiting.n_windows += 1
            waiting.probability = max(waiting.probability, float(window.probabilities[index]))
            if waiting.n_windows >= self._min_windows:
                del self._waiting[index]
                events.append(self._event(index, True, waiting.time_seconds, waiting.probability, now, waiting.window))
        self._is_on = is_on
        return sorted(events, key=lambda event: (event.is_onset, -event.probability))

    def _event(
        self, index: int, is_onset: bool, seconds: float, probability: float, now: float, window: TaggedWindow
    ) -> LabelEvent:
        return LabelEvent(seconds, self._labels[index], is_onset, probability, now - window.captured_at)


@dataclass
class _Onset:
    """A label that is on, but not for enough windows to be reported."""

    time_seconds: float
    window: "TaggedWindow"
    """The window with the onset."""
    n_windows: int = 0
    """In which it is on."""
    probability: float = 0.0
    """The largest one so far."""


def median_windows(windows: Iterable[TaggedWindow], n_windows: int) -> Iterator[TaggedWindow]:
    """The windows with median-filtered probabilities, each as soon as the windows that it needs have arrived.

    The result is that of `spectag.models.timeline.median_filtered`, which repeats the first and the last window.
    """
    half = n_windows // 2
    neighbours: deque[TaggedWindow] = deque(maxlen=n_windows)
    repeated_last = (neighbours[-1] for _ in range(half) if neighbours)  # not evaluated before the last window is there
    for window in chain(windows, repeated_last):
        neighbours.extend([window] * (1 if neighbours else half + 1))
        if len(neighbours) == n_windows:
            probabilities = np.stack([neighbour.probabilities for neighbour in neighbours])
            yield replace(neighbours[half], probabilities=median_filtered(probabilities, n_windows)[half])


def tag_stream(
    tagger: Tagger, stream: LiveStream, config: WindowConfig, *, log: Log = no_log, clock: Clock = time.monotonic
) -> Iterator[TaggedWindow]:
    """Tag the windows of live sound as they arrive: all of a stream that waits, otherwise as many as time permits.

    The probabilities are those of `Tagger.tag_windows`.

    Parameters
    ----------
    tagger, stream, log, clock
        See `listen`.
    config : WindowConfig

    Raises
    ------
    AudioError
        If the stream breaks off.
    ValueError
        If `config` has no window length.
    """
    length, overlap = config.window_seconds, config.overlap_seconds
    if length is None:
        raise ValueError("need the length of a window, got window_seconds=None")
    # tag silence, so that the networks are open, and errors are raised, before the first window arrives
    rate = tagger.sample_rates[0]
    tagger.probabilities(np.zeros(max(1, round(length * rate)), np.float32), rate)
    cutter = WindowCutter(stream.sample_rate, tagger.sample_rates, window_seconds=length, overlap_seconds=overlap)
    n_windows = n_left_out = 0
    for complete in _complete_windows(stream, cutter):
        n_windows += len(complete)
        for window, captured_at in complete if stream.waits else complete[-1:]:
            begin = clock()
            probabilities = tagger.probabilities_of_window(window)
            seconds = clock() - begin
            yield TaggedWindow(window.start_seconds, window.end_seconds, probabilities, captured_at)
        if len(complete) > 1 and not stream.waits:
            if n_left_out == 0:
                log(
                    f"tagging is too slow, so windows are left out: one arrives every {length - overlap:.2f} s, and "
                    f"the last took {seconds:.2f} s to tag (use a smaller --overlap to get fewer windows)"
                )
            n_left_out += len(complete) - 1
    if n_left_out:
        log(f"left out {n_left_out:,} of {n_windows:,} windows")


def _complete_windows(stream: LiveStream, cutter: WindowCutter) -> Iterator[list[tuple[Window, float]]]:
    """The windows that each block completes, each with the clock time of its last sample."""
    n_samples = 0
    began_at = 0.0  # clock time of the first sample, according to the last block
    for block in stream.blocks:
        n_samples += len(block.waveform)
        began_at = block.captured_at - n_samples / stream.sample_rate
        yield [(window, began_at + window.end_seconds) for window in cutter.push(block.waveform)]
    for window in cutter.finish():
        yield [(window, began_at + window.end_seconds)]


@contextmanager
def stopped_by_signals(stream: LiveStream) -> Iterator[LiveStream]:
    """The same stream, ended by Ctrl-C or SIGTERM between two blocks, so that offsets are still reported.

    A second signal raises a KeyboardInterrupt.
    """
    is_stopped = is_waiting = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_repeated, is_stopped = is_stopped, True
        if is_waiting or is_repeated:
            raise KeyboardInterrupt

    def blocks() -> Iterator[Block]:
        nonlocal is_waiting
        try:
            while True:
                is_waiting = True
                block = None if is_stopped else next(stream.blocks, None)
                is_waiting = False
                if block is None:
                    return
                yield block
        except KeyboardInterrupt:
            return

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield replace(stream, blocks=blocks())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
