"""Listening: the windows of a sound are tagged as they come, and labels go on and off."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spectag.array_types import BoolArray, Float32Array
from spectag.audio.live_stream import LiveSound
from spectag.audio.windows import Window, WindowCutter
from spectag.config.base import WindowConfig
from spectag.config.listening import ListenSettings
from spectag.errors import AudioError
from spectag.models.tagger import Tagger
from spectag.models.timeline import median_filtered
from spectag.system.progress import Log, no_log

Clock = Callable[[], float]


@dataclass(frozen=True)
class LabelEvent:
    """A label goes on or off."""

    time_seconds: float
    """Where in the sound."""
    label: str
    is_on: bool
    probability: float
    latency_seconds: float
    """From when the window that tells was heard to its end, to when it was tagged."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a tagger makes of a window: probabilities of shape (n_labels,)."""

    start_seconds: float
    end_seconds: float
    probabilities: Float32Array
    heard_at: float
    """When its last sample was heard, in seconds of the clock."""


def listen(
    tagger: Tagger,
    sound: LiveSound,
    settings: ListenSettings | None = None,
    *,
    log: Log = no_log,
    clock: Clock = time.monotonic,
) -> Iterator[LabelEvent]:
    """Tag a sound while it goes on; where it ends, all labels go off.

    A label is on from where the first window that reaches its threshold stands for, to where the first one below
    `hysteresis` times the threshold does. Windows that overlap share what they have in common, as in a
    `Timeline`: so what is on from when to when is, without hysteresis, what `timeline.segments` gives of the whole
    sound.

    Parameters
    ----------
    tagger : Tagger
    sound : LiveSound
        If it does not wait, and tagging is slower than it, windows are left out: of those that have come meanwhile,
        the newest is tagged.
    settings : ListenSettings, optional
    say
        Told when windows are left out for the first time, and in the end how many were.
    clock
        Gives the time in seconds, as it does for the sound's blocks.

    Yields
    ------
    Change
        In order of time. Of those at the same time, labels that go off come first, then the most probable.

    Raises
    ------
    AudioError
        If the sound breaks off. All that is on goes off before.
    """
    settings = settings or ListenSettings()
    thresholds = tagger.thresholds
    if settings.min_confidence is not None:
        thresholds = np.full_like(thresholds, settings.min_confidence)
    switches = OnOffDetector(tagger.labels.names, thresholds, settings.hysteresis, clock)
    answers = hear(tagger, sound, settings.windows(tagger.info.window), log=log, clock=clock)
    try:
        for answer in with_medians(answers, settings.smooth_windows):
            yield from switches.take(answer)
    except AudioError:
        yield from switches.all_off()
        raise
    yield from switches.all_off()


class OnOffDetector:
    """Which labels are on.

    Parameters
    ----------
    labels : sequence of str
    thresholds : float array of shape (n_labels,)
        The probability at which each label goes on.
    hysteresis : float
        Below this share of its threshold a label goes off.
    clock
        Gives the time in seconds.
    """

    def __init__(self, labels: Sequence[str], thresholds: Float32Array, hysteresis: float, clock: Clock) -> None:
        self._labels = labels
        self._high = thresholds.astype(np.float32)
        self._low = (hysteresis * self._high.astype(np.float64)).astype(np.float32)
        self._is_on = np.zeros(len(labels), bool)
        self._last: Answer | None = None
        self._clock = clock

    def take(self, answer: Answer) -> list[LabelEvent]:
        """What changes by the answer to the next window."""
        on_at = off_at = answer.start_seconds
        if self._last is not None:
            off_at = self._last.end_seconds
            if on_at < off_at:  # as `Timeline.cells` divides what two windows share
                on_at = off_at = (on_at + off_at) / 2
        self._last = answer
        return self._switch(answer.probabilities >= np.where(self._is_on, self._low, self._high), answer, on_at, off_at)

    def all_off(self) -> list[LabelEvent]:
        """What is on goes off, where the last window ends."""
        if self._last is None:
            return []
        end = self._last.end_seconds
        return self._switch(np.zeros_like(self._is_on), self._last, end, end)

    def _switch(self, is_on: BoolArray, answer: Answer, on_at: float, off_at: float) -> list[LabelEvent]:
        changed = np.flatnonzero(is_on != self._is_on)
        self._is_on = is_on
        latency = self._clock() - answer.heard_at
        in_order = sorted(changed.tolist(), key=lambda index: (is_on[index], -answer.probabilities[index]))
        return [
            LabelEvent(
                on_at if is_on[index] else off_at,
                self._labels[index],
                bool(is_on[index]),
                float(answer.probabilities[index]),
                latency,
            )
            for index in in_order
        ]


def with_medians(answers: Iterable[Answer], n_windows: int) -> Iterator[Answer]:
    """The answers with the probabilities that `timeline.median_filtered` gives, each when those that it needs have come."""
    half = n_windows // 2
    near: deque[Answer] = deque(maxlen=n_windows)
    for answer in _with_ends_repeated(answers, half):
        near.append(answer)
        if len(near) == n_windows:
            medians = median_filtered(np.stack([one.probabilities for one in near]), n_windows)
            yield replace(near[half], probabilities=medians[half])


def _with_ends_repeated(answers: Iterable[Answer], n_times: int) -> Iterator[Answer]:
    last = None
    for answer in answers:
        if last is None:
            yield from [answer] * n_times
        yield answer
        last = answer
    if last is not None:
        yield from [last] * n_times


def hear(
    tagger: Tagger,
    sound: LiveSound,
    window: WindowConfig,
    *,
    log: Log = no_log,
    clock: Clock = time.monotonic,
) -> Iterator[Answer]:
    """Tag the windows of a sound as they come: all of a sound that waits, of another those that there is time for.

    The probabilities are those of `Tagger.tag_windows`.

    Parameters
    ----------
    tagger, sound, say, clock
        As for `listen`.
    window : WindowConfig

    Raises
    ------
    AudioError
        If the sound breaks off.
    ValueError
        If `window` has no length.
    """
    if window.window_seconds is None:
        raise ValueError("need the length of a window, got window_seconds=None")
    _make_ready(tagger, window.window_seconds)
    cutter = WindowCutter(
        sound.sample_rate,
        tagger.sample_rates,
        window_seconds=window.window_seconds,
        overlap_seconds=window.overlap_seconds,
    )
    step = window.window_seconds - window.overlap_seconds
    n_windows = n_left_out = 0
    for whole in _whole_windows(sound, cutter):
        n_windows += len(whole)
        for found, heard_at in whole if sound.waits else whole[-1:]:
            begin = clock()
            probabilities = tagger.probabilities_of_window(found)
            seconds = clock() - begin
            yield Answer(found.start_seconds, found.end_seconds, probabilities, heard_at)
        if len(whole) > 1 and not sound.waits:
            if n_left_out == 0:
                log(
                    f"windows are left out: several came while one was at work; one comes every {step:.2f} s, and "
                    f"the last took {seconds:.2f} s to tag (a smaller --overlap makes fewer)"
                )
            n_left_out += len(whole) - 1
    if n_left_out:
        log(f"left out {n_left_out:,} of {n_windows:,} windows")


def _make_ready(tagger: Tagger, window_seconds: float) -> None:
    """Tag silence: the network is opened, and what it can't take is known, before the first window is there."""
    rate = tagger.sample_rates[0]
    tagger.probabilities(np.zeros(max(1, round(window_seconds * rate)), np.float32), rate)


def _whole_windows(sound: LiveSound, cutter: WindowCutter) -> Iterator[list[tuple[Window, float]]]:
    """The windows that each block makes whole, and when the last sample of each was heard."""
    n_samples = 0
    began_at = 0.0  # the sound, as its last block tells
    for block in sound.blocks:
        n_samples += len(block.waveform)
        began_at = block.heard_at - n_samples / sound.sample_rate
        yield [(window, began_at + window.end_seconds) for window in cutter.push(block.waveform)]
    for window in cutter.finish():
        yield [(window, began_at + window.end_seconds)]
