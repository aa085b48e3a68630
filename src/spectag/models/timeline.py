"""The probabilities of a recording over time: its windows, and the segments where a label is on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array, FloatArray, IntArray
from spectag.config.base import SegmentConfig

_LABELS_AT_ONCE = 16  # of float32: what memory hands over at a time, so that it is read once and not 16 times
_DECIMALS = 6  # of seconds: 0.3 s is no longer than 0.3 s, however its ends are rounded


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a tagger makes of each window of a recording.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the windows are not in order of time.
    """

    starts: FloatArray
    """Seconds, of shape (n_windows,)."""
    ends: FloatArray
    """Seconds, of shape (n_windows,); NaN for an image, which has no end."""
    probabilities: Float32Array
    """Of shape (n_windows, n_labels)."""

    def __post_init__(self) -> None:
        shapes = self.starts.shape, self.ends.shape, self.probabilities.shape
        if self.probabilities.ndim != 2 or shapes[:2] != (shapes[2][:1],) * 2:
            raise ValueError(
                "need starts (n_windows,), ends (n_windows,) and probabilities (n_windows, n_labels), got "
                f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
            )
        if (np.diff(self.starts) <= 0).any() or (np.diff(self.ends) < 0).any():
            raise ValueError("need windows in order of time, each beginning after the one before it")

    @property
    def cells(self) -> tuple[FloatArray, FloatArray]:
        """Where the stretch that each window stands for begins and ends, in seconds, each of shape (n_windows,).

        What two windows share is divided in the middle, which for windows of one length is halfway between their
        centres. A window that shares nothing stands for itself.
        """
        middles = (self.starts[1:] + self.ends[:-1]) / 2
        shared = self.starts[1:] < self.ends[:-1]
        first, last = self.starts.copy(), self.ends.copy()
        first[1:][shared] = last[:-1][shared] = middles[shared]
        return first, last


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording where a label is on, and the greatest probability within."""

    label_index: int
    start_seconds: float
    end_seconds: float
    probability: float


def window_starts(n_samples: int, *, window: int, hop: int) -> IntArray:
    """First sample of each window: 0, hop, 2 hop, ... until a window reaches the last sample.

    The last window may run past the end: the caller pads it. A clip shorter than a window gets one window. Only where
    windows leave gaps (hop > window) can the last one fall wholly behind the end; it is then moved back to end there.

    Parameters
    ----------
    n_samples : int
        Length of the recording, at least 1.
    window, hop : int
        Length of a window and step between windows, in samples, at least 1.

    Returns
    -------
    int array of shape (n_windows,)

    Raises
    ------
    ValueError
        If an argument is below 1.

    Examples
    --------
    >>> window_starts(10, window=4, hop=4)
    array([0, 4, 8])
    >>> window_starts(3, window=4, hop=4)
    array([0])
    """
    if min(n_samples, window, hop) < 1:
        raise ValueError(f"need n_samples, window and hop of at least 1 sample, got {n_samples}, {window} and {hop}")
    starts = np.arange(0, max(n_samples - window, 0) + hop, hop, dtype=np.int64)
    if starts[-1] >= n_samples:
        starts[-1] = n_samples - window
    return starts


def pooled(timeline: Timeline, how: Literal["max", "mean"]) -> Timeline:
    """One window over the whole recording, from where the first window begins to where the last one ends.

    Label by label: `max` takes the greatest probability of all windows; `mean` their mean, where each window weighs as
    much as its cell is long (`Timeline.cells`). So a window that overlaps others does not count twice, and a short
    last one counts little.

    Raises
    ------
    ValueError
        If there is no window, or `how` is neither.

    Examples
    --------
    >>> windows = Timeline(np.array([0.0, 4.0]), np.array([4.0, 6.0]), np.array([[0.9], [0.3]], np.float32))
    >>> pooled(windows, "max").probabilities, pooled(windows, "mean").probabilities
    (array([[0.9]], dtype=float32), array([[0.7]], dtype=float32))
    """
    if how not in ("max", "mean"):
        raise ValueError(f"how to pool is 'max' or 'mean', got {how!r}")
    if len(timeline.starts) == 0:
        raise ValueError("a timeline without windows can't be pooled")
    if len(timeline.starts) == 1:
        return timeline
    if how == "max":
        whole = timeline.probabilities.max(axis=0)
    else:
        first, last = timeline.cells
        weights = (last - first) / np.sum(last - first)
        # not by @, which would make a float64 copy of all, and sum in another order on another machine
        whole = np.einsum("w,wl->l", weights, timeline.probabilities).astype(np.float32)
    return Timeline(timeline.starts[:1], timeline.ends[-1:], whole[None])


def smoothed(probabilities: Float32Array, n_windows: int) -> Float32Array:
    """Each window's median with its neighbours, label by label; beyond both ends, the first and the last are repeated.

    Parameters
    ----------
    probabilities : float array of shape (n,) or (n, n_labels)
        Of windows that follow each other at equal steps.
    n_windows : int
        How many windows a median is of, the window itself in the middle: an odd number. 1 changes nothing.

    Returns
    -------
    float array of the same shape

    Raises
    ------
    ValueError
        If `n_windows` is even, or below 1.

    Examples
    --------
    >>> smoothed(np.array([0.1, 0.9, 0.2, 0.8, 0.7], np.float32), 3)
    array([0.1, 0.2, 0.8, 0.7, 0.7], dtype=float32)
    """
    if n_windows < 1 or n_windows % 2 == 0:
        raise ValueError(f"need the median of an odd number of windows, got {n_windows}")
    if n_windows == 1 or probabilities.size == 0:
        return probabilities
    size = (n_windows,) + (1,) * (probabilities.ndim - 1)
    from scipy.ndimage import median_filter  # loaded where it is needed: whole recordings are not smoothed

    result: Float32Array = median_filter(probabilities, size, mode="nearest")
    return result


def segments(timeline: Timeline, thresholds: Float32Array, config: SegmentConfig) -> list[Segment]:
    """The stretches where labels are on, in order of their start, then of their label.

    One thing after another is done for each label:

    1. Its probabilities are smoothed (`smoothed`, over `smooth_windows`; where that is None, over 3 if three windows
       in a row share a moment, else over 1).
    2. It is on in the windows that reach its threshold, and from there on in both directions while the probability
       stays at or above `hysteresis` times the threshold. A window stands for its cell (`Timeline.cells`).
    3. What is no further apart than `max_gap_seconds` becomes one segment.
    4. Segments shorter than `min_duration_seconds` are dropped.

    Times are compared to the microsecond. Each start is the start of a cell and each end the end of one, as they are:
    nothing is added up, so they are the same bits on every machine.

    Parameters
    ----------
    timeline : Timeline
        Of a sound.
    thresholds : float array of shape (n_labels,)
        The probability at which each label goes on. Compared in float32.
    config : SegmentConfig

    Raises
    ------
    ValueError
        If there is not a threshold for each label, or the timeline is an image's, which has no times.

    Examples
    --------
    >>> starts = np.arange(5.0)
    >>> probabilities = np.array([[0.1], [0.5], [0.9], [0.4], [0.2]], np.float32)
    >>> windows = Timeline(starts, starts + 1, probabilities)
    >>> segments(windows, np.array([0.6], np.float32), SegmentConfig(hysteresis=0.5))
    [Segment(label_index=0, start_seconds=1.0, end_seconds=4.0, probability=0.8999999761581421)]
    """
    if thresholds.shape != timeline.probabilities.shape[1:]:
        raise ValueError(
            f"need a threshold for each of the labels, {timeline.probabilities.shape[1:]}, got {thresholds.shape}"
        )
    if np.isnan(timeline.ends).any():
        raise ValueError("an image has no times, so it has no segments")
    limits = thresholds.astype(np.float32)
    n_smoothed = config.smooth_windows or (3 if _three_share_a_moment(timeline) else 1)
    first, last = timeline.cells
    found = []
    for label, probabilities in _columns(timeline.probabilities, limits):
        values = smoothed(probabilities, n_smoothed)
        windows = _windows_on(values, limits[label], np.float32(config.hysteresis * float(limits[label])))
        if windows.size == 0:
            continue
        gaps = np.round(first[windows[1:]] - last[windows[:-1]], _DECIMALS)
        begins = np.concatenate([[0], np.flatnonzero(gaps > config.max_gap_seconds) + 1])
        starts, ends = first[windows[begins]], last[windows[np.append(begins[1:], windows.size) - 1]]
        peaks = np.maximum.reduceat(values[windows], begins)
        long = np.round(ends - starts, _DECIMALS) >= config.min_duration_seconds
        times = zip(starts[long].tolist(), ends[long].tolist(), peaks[long].tolist(), strict=True)
        found += [Segment(label, start, end, peak) for start, end, peak in times]
    return sorted(found, key=lambda segment: (segment.start_seconds, segment.label_index))


def _three_share_a_moment(timeline: Timeline) -> bool:
    return len(timeline.starts) > 2 and bool(np.round(timeline.ends[0] - timeline.starts[2], _DECIMALS) > 0)


def _columns(probabilities: Float32Array, limits: Float32Array) -> Iterator[tuple[int, Float32Array]]:
    """The labels that ever reach their limit, each with its probabilities (n_windows,)."""
    if len(probabilities) == 0:
        return
    labels = np.flatnonzero(probabilities.max(axis=0) >= limits)  # a median is never above all: smoothing adds none
    for begin in range(0, labels.size, _LABELS_AT_ONCE):
        some = labels[begin : begin + _LABELS_AT_ONCE]
        yield from zip(some.tolist(), np.ascontiguousarray(probabilities[:, some].T), strict=True)


def _windows_on(values: Float32Array, high: np.float32, low: np.float32) -> NDArray[np.intp]:
    """Which windows lie at or above `low`, in one run with one that reaches `high`."""
    above = np.concatenate([[False], values >= low, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1])  # a run begins, ends, the next begins, ...
    if edges.size == 0:
        return edges
    peaks = np.maximum.reduceat(np.append(values, np.float32(-np.inf)), edges)[::2]
    begins, ends = edges[::2][peaks >= high], edges[1::2][peaks >= high]
    changes = np.zeros(values.size + 1, np.int8)
    changes[begins], changes[ends] = 1, -1
    return np.flatnonzero(np.cumsum(changes[:-1]))
