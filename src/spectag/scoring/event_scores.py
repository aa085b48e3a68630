"""Scores of sounds with start and end: by events and by segments.

event-based     a detection is right if its label is, and its start and end are within a tolerance (sed_eval)
segment-based   recordings are divided into segments of a fixed length, and labels compared in each (sed_eval)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from spectag.array_types import BoolArray, FloatArray, IntArray

_SEGMENT_BITS = 32  # of the number of a segment within its recording
_ROUNDING_SECONDS = 1e-6  # more than times in recordings lose when they are added


@dataclass(frozen=True, eq=False)
class SoundEvents:
    """Sounds in recordings. All arrays have the shape (n_events,)."""

    recordings: IntArray
    """Number of the recording, counted from 0."""
    starts: FloatArray
    ends: FloatArray
    """In seconds."""
    labels: IntArray
    """Number of the label, counted from 0."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: BoolArray | IntArray) -> "SoundEvents":
        return SoundEvents(self.recordings[rows], self.starts[rows], self.ends[rows], self.labels[rows])

    def merged(self) -> "SoundEvents":
        """The events with those of one label that overlap or touch joined to one, sorted by recording and label."""
        return self.merge()[0]

    def merge(self) -> tuple["SoundEvents", IntArray]:
        """The events of `merged`, and the row in them that each event (n_events,) became a part of."""
        order = np.lexsort((self.starts, self.labels, self.recordings))
        events = self[order]
        if not len(events):
            return events, order
        is_new_key = np.r_[True, (np.diff(events.recordings) != 0) | (np.diff(events.labels) != 0)]
        latest = np.empty_like(events.ends)
        for begin, end in _runs(is_new_key):
            latest[begin:end] = np.maximum.accumulate(events.ends[begin:end])
        is_new = is_new_key | np.r_[True, events.starts[1:] > latest[:-1]]
        firsts = np.flatnonzero(is_new)
        lasts = np.r_[firsts[1:], len(events)] - 1
        rows = np.empty(len(events), np.int64)
        rows[order] = np.cumsum(is_new) - 1
        merged = SoundEvents(events.recordings[firsts], events.starts[firsts], latest[lasts], events.labels[firsts])
        return merged, rows


def _runs(is_first: BoolArray) -> Iterator[tuple[int, int]]:
    """Begin and end of each run of rows that starts where `is_first` is true."""
    bounds = [*np.flatnonzero(is_first).tolist(), len(is_first)]
    return pairwise(bounds)


@dataclass(frozen=True, eq=False)
class DetectionCounts:
    """Numbers of correct detections, of true and of detected sounds (or segments).

    Each has the shape (n_recordings, n_labels), or (n_labels,) for all recordings together.
    """

    n_correct: FloatArray
    n_true: FloatArray
    n_detected: FloatArray

    def of_recordings(self, weights: FloatArray | None = None) -> "DetectionCounts":
        """The counts (n_labels,) of all recordings, each of them counted `weights` (n_recordings,) times."""
        weights = np.ones(len(self.n_true)) if weights is None else weights
        return DetectionCounts(*(weights @ counts for counts in (self.n_correct, self.n_true, self.n_detected)))

    @property
    def precision(self) -> FloatArray:
        """Of each label; NaN without detections."""
        return ratio_or_nan(self.n_correct, self.n_detected)

    @property
    def recall(self) -> FloatArray:
        """Of each label; NaN without true sounds."""
        return ratio_or_nan(self.n_correct, self.n_true)

    @property
    def f1(self) -> FloatArray:
        """Of each label; NaN without true and detected sounds."""
        return ratio_or_nan(2 * self.n_correct, self.n_true + self.n_detected)

    def overall(self) -> "DetectionCounts":
        """The counts of all labels together: the last axis has length 1."""
        counts = self.n_correct, self.n_true, self.n_detected
        return DetectionCounts(*(count.sum(axis=-1, keepdims=True) for count in counts))


def ratio_or_nan(numerator: Any, denominator: Any) -> FloatArray:
    """The numerator by the denominator; NaN where that is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


@dataclass(frozen=True, eq=False)
class EventMatches:
    """Which sounds were found, and which detections are right."""

    is_found: BoolArray
    """Of each true sound, (n_true,)."""
    is_right: BoolArray
    """Of each detection, (n_detected,)."""


def match_events(
    truth: SoundEvents,
    detected: SoundEvents,
    *,
    collar_seconds: float = 0.2,
    offset_fraction: float = 0.5,
    offsets: bool = True,
) -> EventMatches:
    """Match detections with true sounds, as many as possible, each at most once.

    Parameters and references are those of `count_events`.
    """
    is_found, is_right = np.zeros(len(truth), bool), np.zeros(len(detected), bool)
    for true_rows, detected_rows in _rows_by_recording_and_label(truth, detected):
        reference, estimate = truth[true_rows], detected[detected_rows]
        rows, columns = _pairs_with_near_starts(reference.starts, estimate.starts, collar_seconds)
        if offsets:
            collars = np.maximum(collar_seconds, offset_fraction * (reference.ends - reference.starts))
            is_hit = np.abs(reference.ends[rows] - estimate.ends[columns]) <= collars[rows]
            rows, columns = rows[is_hit], columns[is_hit]
        hits = csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(reference), len(estimate)))
        matched = maximum_bipartite_matching(hits, perm_type="column")  # the detection of each sound, or -1
        is_found[true_rows] = matched >= 0
        is_right[detected_rows[matched[matched >= 0]]] = True
    return EventMatches(is_found, is_right)


def count_events(
    truth: SoundEvents,
    detected: SoundEvents,
    shape: tuple[int, int],
    *,
    collar_seconds: float = 0.2,
    offset_fraction: float = 0.5,
    offsets: bool = True,
) -> DetectionCounts:
    """Event-based counts: detections are matched with true sounds, as many as possible, each at most once.

    Parameters
    ----------
    truth, detected : SoundEvents
    shape : (int, int)
        Numbers of recordings and of labels.
    collar_seconds : float
        Greatest distance of the starts, and of the ends.
    offset_fraction : float
        The ends may also differ by this fraction of the length of the true sound, if that is more.
    offsets : bool
        Whether ends count.

    References
    ----------
    Mesaros, Heittola, Virtanen: "Metrics for polyphonic sound event detection", Applied Sciences 6 (2016); sed_eval's
    EventBasedMetrics with event_matching_type="optimal".
    """
    matches = match_events(
        truth, detected, collar_seconds=collar_seconds, offset_fraction=offset_fraction, offsets=offsets
    )
    return DetectionCounts(*(_table(events, shape) for events in (truth[matches.is_found], truth, detected)))


def _pairs_with_near_starts(reference: FloatArray, estimate: FloatArray, collar: float) -> tuple[IntArray, IntArray]:
    """The pairs of two sorted arrays of times that differ by at most `collar`: a row of each, (n_pairs,)."""
    reach = collar + _ROUNDING_SECONDS
    firsts = np.searchsorted(estimate, reference - reach)
    counts = np.searchsorted(estimate, reference + reach, side="right") - firsts
    rows, columns = np.repeat(np.arange(len(reference)), counts), _ranges(firsts, counts)
    is_near = np.abs(reference[rows] - estimate[columns]) <= collar
    return rows[is_near], columns[is_near]


def _ranges(firsts: IntArray, counts: IntArray) -> IntArray:
    """The numbers from each of `firsts` on, as many as its count says, one range after the other."""
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(firsts, counts) + offsets)


def _table(events: SoundEvents, shape: tuple[int, int]) -> FloatArray:
    """How many events each recording has of each label."""
    counts = np.zeros(shape)
    np.add.at(counts, (events.recordings, events.labels), 1)
    return counts


def _rows_by_recording_and_label(truth: SoundEvents, detected: SoundEvents) -> Iterator[tuple[IntArray, IntArray]]:
    """The rows of each recording and label that both have, sorted by start."""
    detected_rows = _grouped(detected)
    for key, rows in _grouped(truth).items():
        if key in detected_rows:
            yield rows, detected_rows[key]


def _grouped(events: SoundEvents) -> dict[tuple[int, int], IntArray]:
    order = np.lexsort((events.starts, events.labels, events.recordings))
    recordings, labels = events.recordings[order], events.labels[order]
    is_first = np.r_[True, (np.diff(recordings) != 0) | (np.diff(labels) != 0)][: len(order)]
    return {(int(recordings[begin]), int(labels[begin])): order[begin:end] for begin, end in _runs(is_first)}


def count_segments(
    truth: SoundEvents,
    detected: SoundEvents,
    shape: tuple[int, int],
    *,
    segment_seconds: float = 1.0,
) -> DetectionCounts:
    """Segment-based counts: a label is true or detected in every segment that one of its sounds touches.

    References
    ----------
    As `count_events`; sed_eval's SegmentBasedMetrics.
    """
    true, found = (_touched_segments(events, shape[1], segment_seconds) for events in (truth, detected))
    both = np.intersect1d(true, found, assume_unique=True)
    return DetectionCounts(*(_table_of_cells(cells, shape) for cells in (both, true, found)))


def _touched_segments(events: SoundEvents, n_labels: int, segment_seconds: float) -> IntArray:
    """A number for each recording, label and segment that a sound touches."""
    first = np.floor(events.starts / segment_seconds).astype(np.int64)
    n_segments = np.maximum(np.ceil(events.ends / segment_seconds).astype(np.int64) - first, 0)
    keys = np.repeat(events.recordings * n_labels + events.labels, n_segments)
    return np.unique(keys << _SEGMENT_BITS | _ranges(first, n_segments))


def _table_of_cells(cells: IntArray, shape: tuple[int, int]) -> FloatArray:
    return np.bincount(cells >> _SEGMENT_BITS, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
