"""The timeline of a recording: the probabilities of its windows or frames, and the segments where a label is on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, logsumexp

from spectag.array_types import Float32Array, FloatArray
from spectag.config.base import SegmentConfig
from spectag.config.tagging import WINDOW_HYSTERESIS
from spectag.models.frames_info import FramesInfo
from spectag.system.short_texts import short_repr

_LABELS_PER_BLOCK = 16  # float32 values of a cache line: each is read from memory only once
_DECIMALS = 6  # of seconds, so that rounding errors do not make 0.3 s longer than 0.3 s


@short_repr
@dataclass(frozen=True, eq=False)
class Timeline:
    """The probabilities of each window, or of each frame, of a recording.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the windows are not sorted by time.
    """

    starts: FloatArray
    """Seconds, of shape (n_windows,)."""
    ends: FloatArray
    """Seconds, of shape (n_windows,); NaN for an image."""
    probabilities: Float32Array
    """Of shape (n_windows, n_labels)."""
    novelty: Float32Array | None = None
    """Of shape (n_windows,); None if the tagger does not compute it."""
    frames: FramesInfo | None = None
    """How frames become segments; None: the probabilities are those of windows."""

    def __post_init__(self) -> None:
        shapes = self.starts.shape, self.ends.shape, self.probabilities.shape
        if self.probabilities.ndim != 2 or shapes[:2] != (shapes[2][:1],) * 2:
            raise ValueError(
                "need starts (n_windows,), ends (n_windows,) and probabilities (n_windows, n_labels), got "
                f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
            )
        if self.novelty is not None and self.novelty.shape != self.starts.shape:
            raise ValueError(f"need novelty {self.starts.shape}, one value for each window, got {self.novelty.shape}")
        if (np.diff(self.starts) <= 0).any() or (np.diff(self.ends) < 0).any():
            raise ValueError("windows must be sorted by time, and each must start after the one before it")

    @property
    def cells(self) -> tuple[FloatArray, FloatArray]:
        """Start and end in seconds of the cell of each window, both (n_windows,).

        The cell of a window is the span that it represents. The overlap of two windows is divided in its middle: for
        windows of one length, halfway between their centres. A window without overlap is its own cell.
        """
        starts, ends = self.starts.copy(), self.ends.copy()
        ends[:-1], starts[1:] = divide_overlap(self.ends[:-1], self.starts[1:])
        return starts, ends

    def novelty_of(self, spans: Sequence[tuple[float, float]]) -> list[float | None]:
        """The smallest novelty of the windows of each segment; starts and ends are those of cells."""
        if self.novelty is None:
            return [None] * len(spans)
        starts, ends = self.cells
        firsts = np.searchsorted(starts, [start for start, _ in spans])
        lasts = np.searchsorted(ends, [end for _, end in spans])
        return [float(self.novelty[first : last + 1].min()) for first, last in zip(firsts, lasts, strict=True)]


def divide_overlap(end: ArrayLike, next_start: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Where the cell of a window ends and the next one starts, given the window's end and the next start in seconds.

    The overlap of the two windows is divided in its middle.
    """
    middle, overlaps = np.add(next_start, end) / 2, np.less(next_start, end)
    return np.where(overlaps, middle, end), np.where(overlaps, middle, next_start)


@dataclass(frozen=True)
class Segment:
    """A span of a recording in which a label is on, and its greatest probability there."""

    label_index: int
    start_seconds: float
    end_seconds: float
    probability: float


def pool_windows(timeline: Timeline, how: Literal["max", "mean"]) -> Timeline:
    """One window for the whole recording, from the start of the first window to the end of the last.

    `max` takes the greatest probability of each label. `mean` takes the mean of the odds, as for the parts of a clip
    (`pool_logits`): the weight of a window is the length of its cell (`Timeline.cells`), so overlaps do not count
    twice, and a short last window counts little. Novelty is the smallest of the windows, because a tag may come from
    any of them.

    Raises
    ------
    ValueError
        If there is no window, or `how` is something else.

    Examples
    --------
    >>> windows = Timeline(np.array([0.0, 4.0]), np.array([4.0, 6.0]), np.array([[0.9], [0.3]], np.float32))
    >>> pool_windows(windows, "max").probabilities, pool_windows(windows, "mean").probabilities.round(2)
    (array([[0.9]], dtype=float32), array([[0.86]], dtype=float32))
    """
    if how not in ("max", "mean"):
        raise ValueError(f"how must be 'max' or 'mean', got {how!r}")
    if len(timeline.starts) == 0:
        raise ValueError("cannot pool a timeline without windows")
    if len(timeline.starts) == 1:
        return timeline
    if how == "max":
        whole = timeline.probabilities.max(axis=0)
    else:
        seconds = cell_seconds(timeline.starts, timeline.ends)
        blocks = range(0, timeline.probabilities.shape[1], _LABELS_PER_BLOCK)  # all labels of a day need much memory
        columns = (timeline.probabilities[:, begin : begin + _LABELS_PER_BLOCK] for begin in blocks)
        whole = np.concatenate([expit(pool_logits(logit(block.astype(np.float64)), seconds)) for block in columns])
    novelty = None if timeline.novelty is None else timeline.novelty.min(keepdims=True)
    return Timeline(timeline.starts[:1], timeline.ends[-1:], whole[None].astype(np.float32), novelty)


def cell_seconds(starts: ArrayLike, ends: ArrayLike) -> FloatArray:
    """The length in seconds of the cell of each window (`Timeline.cells`), given starts and ends, all (n_windows,)."""
    cell_starts, cell_ends = np.array(starts, np.float64), np.array(ends, np.float64)
    cell_ends[:-1], cell_starts[1:] = divide_overlap(cell_ends[:-1], cell_starts[1:])
    return np.asarray(cell_ends - cell_starts)


def pool_logits(logits: ArrayLike, seconds: ArrayLike) -> FloatArray:
    """Logits (..., n_labels) of a whole clip from those of its parts: log-mean-exp, the logits of the mean odds.

    A clip longer than `WindowConfig.max_clip_seconds` has parts of this length, the last of which ends with the clip.
    Training, evaluation, calibration and tagging all pool them in this way, network by network and before calibration.
    In the mean of the logits or of the probabilities, a sound in only one of many parts would count too little
    (docs/benchmarks.md).

    Parameters
    ----------
    logits : float array of shape (n_parts, ..., n_labels)
    seconds : float array of shape (n_parts,)
        The weights of the parts in the mean (`cell_seconds`). A single part is the clip, whatever its length.

    Examples
    --------
    >>> pool_logits([[4.0, -4.0], [-4.0, -4.0]], [60.0, 60.0])
    array([ 3.3..., -4.        ])
    """
    parts = np.asarray(logits, np.float64)
    if len(parts) == 1:
        return np.asarray(parts[0])
    weights = (np.asarray(seconds, np.float64) / np.sum(seconds)).reshape(-1, *(1,) * (parts.ndim - 1))
    return np.asarray(logsumexp(parts, axis=0, b=weights))


def median_filtered(probabilities: Float32Array, n_windows: int) -> Float32Array:
    """The median of each window and its neighbours, label by label. The first and last windows are repeated.

    Parameters
    ----------
    probabilities : float array of shape (n,) or (n, n_labels)
        Of windows at equal steps.
    n_windows : int
        Number of windows in each median, with the window itself in the middle: an odd number. 1 changes nothing.

    Returns
    -------
    float array of the same shape

    Raises
    ------
    ValueError
        If `n_windows` is even, or below 1.

    Examples
    --------
    >>> median_filtered(np.array([0.1, 0.9, 0.2, 0.8, 0.7], np.float32), 3)
    array([0.1, 0.2, 0.8, 0.7, 0.7], dtype=float32)
    """
    if n_windows < 1 or n_windows % 2 == 0:
        raise ValueError(f"n_windows must be an odd number, 1 or more, got {n_windows}")
    if n_windows == 1 or probabilities.size == 0:
        return probabilities
    size = (n_windows,) + (1,) * (probabilities.ndim - 1)
    from scipy.ndimage import median_filter  # slow to import, and not needed to tag whole recordings

    return np.asarray(median_filter(probabilities, size, mode="nearest"))


def find_segments(timeline: Timeline, thresholds: Float32Array, config: SegmentConfig) -> list[Segment]:
    """The segments in which labels are on, sorted by start, then by label.

    For each label:

    1. Short gaps in the probabilities of frames are filled (`closed_frames` of `Timeline.frames`). Then probabilities
       are smoothed (`median_filtered`) over `smooth_windows`. If that is None: frames over `smooth_frames`, windows
       over 3 if three successive ones overlap, otherwise not at all.
    2. The label is on in windows that reach its threshold, and in their neighbours on both sides as long as the
       probability is at least `hysteresis` times the threshold. If that is None, it is that of `Timeline.frames`, or
       0.7 for windows. Each window stands for its cell (`Timeline.cells`). The label must be on in at least
       `min_windows` windows, or frames, in a row.
    3. Gaps of at most `max_gap_seconds` are closed.
    4. Segments shorter than `min_duration_seconds` are dropped.

    Times are compared to the microsecond. Each start is the start of a cell and each end the end of a cell, without
    arithmetic, so they are identical on every machine.

    Parameters
    ----------
    timeline : Timeline
        Of a sound, not of an image.
    thresholds : float array of shape (n_labels,)
        The probability from which each label is on. Compared in float32.
    config : SegmentConfig

    Raises
    ------
    ValueError
        If the number of thresholds is not that of the labels, or the timeline is that of an image.

    Examples
    --------
    >>> starts = np.arange(5.0)
    >>> probabilities = np.array([[0.1], [0.5], [0.9], [0.4], [0.2]], np.float32)
    >>> windows = Timeline(starts, starts + 1, probabilities)
    >>> find_segments(windows, np.array([0.6], np.float32), SegmentConfig(hysteresis=0.5))
    [Segment(label_index=0, start_seconds=1.0, end_seconds=4.0, probability=0.8999999761581421)]
    """
    if thresholds.shape != timeline.probabilities.shape[1:]:
        raise ValueError(f"need thresholds of shape {timeline.probabilities.shape[1:]}, got {thresholds.shape}")
    if np.isnan(timeline.ends).any():
        raise ValueError("an image has no segments, because it has no times")
    limits = thresholds.astype(np.float32)
    cells = timeline.cells
    segments = []
    for label, probabilities in _columns(timeline.probabilities, limits):
        values = _smoothed(timeline, probabilities, config)
        segments += _segments_of_label(label, values, cells, limits[label], timeline, config)
    return sorted(segments, key=lambda segment: (segment.start_seconds, segment.label_index))


def count_label_segments(
    timeline: Timeline, label_index: int, thresholds: Float32Array, config: SegmentConfig
) -> NDArray[np.int64]:
    """How many segments `find_segments` finds of one label with each of many thresholds, (n_thresholds,)."""
    values = _smoothed(timeline, timeline.probabilities[:, label_index], config)
    cells = timeline.cells
    found = (_segments_of_label(label_index, values, cells, limit, timeline, config) for limit in thresholds)
    return np.array([len(segments) for segments in found], np.int64)


def _smoothed(timeline: Timeline, probabilities: Float32Array, config: SegmentConfig) -> Float32Array:
    """The probabilities (n_windows,) of a label that `find_segments` compares with its threshold."""
    frames = timeline.frames
    if frames is None:
        return median_filtered(probabilities, config.smooth_windows or (3 if _three_overlap(timeline) else 1))
    return median_filtered(
        gaps_closed(probabilities, frames.closed_frames), config.smooth_windows or frames.smooth_frames
    )


def gaps_closed(probabilities: Float32Array, n_frames: int) -> Float32Array:
    """Probabilities (n,) whose gaps shorter than `n_frames` are filled: the minimum of the maxima around each frame.

    Parameters
    ----------
    probabilities : float array of shape (n,)
        Of frames at equal steps. The first and the last one are repeated.
    n_frames : int
        An odd number. 1 changes nothing.

    References
    ----------
    Grey closing, as `scipy.ndimage.grey_closing`.

    Examples
    --------
    >>> gaps_closed(np.array([0.9, 0.1, 0.9, 0.2, 0.2, 0.2, 0.9], np.float32), 3)
    array([0.9, 0.9, 0.9, 0.2, 0.2, 0.2, 0.9], dtype=float32)
    """
    if n_frames == 1 or probabilities.size == 0:
        return probabilities
    from scipy.ndimage import grey_closing  # slow to import, see median_filtered

    return np.asarray(grey_closing(probabilities, (n_frames,), mode="nearest"))


def _segments_of_label(
    label: int,
    values: Float32Array,
    cells: tuple[FloatArray, FloatArray],
    limit: np.float32,
    timeline: Timeline,
    config: SegmentConfig,
) -> list[Segment]:
    """The segments of a label in its smoothed probabilities (n_windows,)."""
    starts, ends = cells
    windows = _windows_on(values, limit, np.float32(_hysteresis(timeline, config) * float(limit)), config.min_windows)
    if windows.size == 0:
        return []
    gaps = np.round(starts[windows[1:]] - ends[windows[:-1]], _DECIMALS)
    first = np.concatenate([[0], np.flatnonzero(gaps > config.max_gap_seconds) + 1])  # of each segment
    segment_starts, segment_ends = starts[windows[first]], ends[windows[np.append(first[1:], windows.size) - 1]]
    peaks = np.maximum.reduceat(values[windows], first)
    is_long = np.round(segment_ends - segment_starts, _DECIMALS) >= config.min_duration_seconds
    columns = (column[is_long].tolist() for column in (segment_starts, segment_ends, peaks))
    return [Segment(label, start, end, peak) for start, end, peak in zip(*columns, strict=True)]


def _hysteresis(timeline: Timeline, config: SegmentConfig) -> float:
    if config.hysteresis is not None:
        return config.hysteresis
    return WINDOW_HYSTERESIS if timeline.frames is None else timeline.frames.hysteresis


def _three_overlap(timeline: Timeline) -> bool:
    return len(timeline.starts) > 2 and bool(np.round(timeline.ends[0] - timeline.starts[2], _DECIMALS) > 0)


def _columns(probabilities: Float32Array, limits: Float32Array) -> Iterator[tuple[int, Float32Array]]:
    """The labels that reach their limit anywhere, each with its probabilities (n_windows,)."""
    # smoothing cannot add labels: no median and no closed gap is above the maximum
    labels = np.flatnonzero(probabilities.max(axis=0, initial=-np.inf) >= limits)
    for start in range(0, labels.size, _LABELS_PER_BLOCK):
        block = labels[start : start + _LABELS_PER_BLOCK]
        yield from zip(block.tolist(), np.ascontiguousarray(probabilities[:, block].T), strict=True)


def _windows_on(values: Float32Array, high: np.float32, low: np.float32, n_least: int) -> NDArray[np.intp]:
    """Which windows are at or above `low`, in a run of at least `n_least` windows that reaches `high`."""
    above = np.concatenate([[False], values >= low, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1])  # start and end of the first run, of the second, ...
    if edges.size == 0:
        return edges
    peaks = np.maximum.reduceat(np.append(values, np.float32(-np.inf)), edges)[::2]
    is_kept = (peaks >= high) & (edges[1::2] - edges[::2] >= n_least)
    starts, ends = edges[::2][is_kept], edges[1::2][is_kept]
    changes = np.zeros(values.size + 1, np.int8)
    changes[starts], changes[ends] = 1, -1
    return np.flatnonzero(np.cumsum(changes[:-1]))
