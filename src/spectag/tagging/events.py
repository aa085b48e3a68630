"""The labels detected in a recording, with their times, ready to be written."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array
from spectag.config.base import SegmentConfig
from spectag.config.tagging import TagSettings
from spectag.errors import DataError
from spectag.models.tagger import Tagger
from spectag.models.timeline import Segment, Timeline, find_segments, pool_windows
from spectag.tagging.parallel import TaggedFile

_BATCH_WINDOWS = 4096  # sorted at once: sorting needs memory for each label of each window


class Event(NamedTuple):
    """A label that was detected in a window or a segment of a recording."""

    start_seconds: float
    end_seconds: float | None  # None: an image
    label: str
    probability: float
    novelty: float | None = None
    """Of the window, or the smallest of the windows of the segment; None if the tagger does not compute it."""


@dataclass(frozen=True)
class FileEvents:
    """A recording and the events in it."""

    file: str
    """A path, or a URL such as s3://bucket/a.wav."""
    duration_seconds: float | None
    """None: an image, or an unknown length."""
    events: tuple[Event, ...]
    """In the order in which they are written."""
    timeline: Timeline
    """The probabilities of all labels in each window."""
    n_suppressed: int = 0
    """Events that are left out because of their novelty."""

    def end_seconds_of(self, event: Event) -> float:
        """The end of an event in seconds, for formats that need one.

        Raises
        ------
        DataError
            If the file is an image.
        """
        if event.end_seconds is None:
            raise DataError(f"{self.file}: an image has no times for this format; write csv, jsonl, parquet or wide")
        return event.end_seconds

    def events_by_window(self) -> Iterator[tuple[float, float | None, Sequence[Event]]]:
        """Start, end (seconds; None for an image) and events of each window of the timeline, also without events.

        Raises
        ------
        ValueError
            If an event, such as a segment, does not have the times of a window.
        """
        by_times = defaultdict(list)
        for event in self.events:
            by_times[event.start_seconds, event.end_seconds].append(event)
        for start, end in window_times(self.timeline):
            yield start, end, by_times.pop((start, end), [])
        for times in by_times:
            raise ValueError(f"{self.file}: no window has the times of the event at {times} s; is it a segment?")


def select_labels(
    probabilities: Float32Array, thresholds: Float32Array, *, top: int | None = None, threshold: float | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the windows and of the labels selected: window after window, most probable first.

    The `top` most probable labels of each window are selected, or those at or above `threshold`. With both, the most
    probable labels that also reach the threshold. With neither, the labels at or above the model's own thresholds.

    Parameters
    ----------
    probabilities : float array of shape (n_windows, n_labels)
    thresholds : float array of shape (n_labels,)
        The model's own.
    top : int, optional
    threshold : float, optional
    """
    limits = thresholds if top is None and threshold is None else np.float32(threshold or 0.0)
    is_selected = probabilities >= limits
    if top is not None:
        beyond_top = np.argsort(-probabilities, axis=1, kind="stable")[:, top:]
        np.put_along_axis(is_selected, beyond_top, False, axis=1)
    windows, labels = np.nonzero(is_selected)
    order = np.lexsort((labels, -probabilities[windows, labels], windows))
    return windows[order], labels[order]


def window_events(
    timeline: Timeline,
    labels: Sequence[str],
    thresholds: Float32Array,
    *,
    top: int | None = None,
    threshold: float | None = None,
) -> tuple[Event, ...]:
    """The selected labels of each window: window after window, most probable first.

    Parameters
    ----------
    timeline : Timeline
    labels : sequence of str
    thresholds : float array of shape (n_labels,)
        The model's own.
    top, threshold
        See `select_labels`.
    """
    times = list(window_times(timeline))
    events = []
    for begin in range(0, len(times), _BATCH_WINDOWS):
        probabilities = timeline.probabilities[begin : begin + _BATCH_WINDOWS]
        windows, indices = select_labels(probabilities, thresholds, top=top, threshold=threshold)
        values = probabilities[windows, indices].tolist()
        for window, index, value in zip(windows.tolist(), indices.tolist(), values, strict=True):
            start, end = times[begin + window]
            novelty = None if timeline.novelty is None else float(timeline.novelty[begin + window])
            events.append(Event(start, end, labels[index], value, novelty))
    return tuple(events)


def segment_events(
    timeline: Timeline, labels: Sequence[str], thresholds: Float32Array, config: SegmentConfig
) -> tuple[Event, ...]:
    """The segments that `spectag.models.timeline.segments` finds, ordered by start, then by label."""
    segments = find_segments(timeline, thresholds, config)
    return tuple(
        Event(segment.start_seconds, segment.end_seconds, labels[segment.label_index], segment.probability, novelty)
        for segment, novelty in zip(segments, _novelty_of_segments(timeline, segments), strict=True)
    )


def _novelty_of_segments(timeline: Timeline, segments: Sequence[Segment]) -> list[float | None]:
    """The smallest novelty of the windows of each segment, whose ends are ends of cells."""
    if timeline.novelty is None:
        return [None] * len(segments)
    starts, ends = timeline.cells
    firsts = np.searchsorted(starts, [segment.start_seconds for segment in segments])
    lasts = np.searchsorted(ends, [segment.end_seconds for segment in segments])
    return [float(timeline.novelty[first : last + 1].min()) for first, last in zip(firsts, lasts, strict=True)]


def window_times(timeline: Timeline) -> Iterator[tuple[float, float | None]]:
    """Start and end of each window in seconds; the end is None for an image."""
    ends = [None if math.isnan(end) else end for end in timeline.ends.tolist()]
    return zip(timeline.starts.tolist(), ends, strict=True)


def detected_events(tagged: TaggedFile, timeline: Timeline, tagger: Tagger, settings: TagSettings) -> FileEvents:
    """The events in a tagged file: the labels that reach their thresholds, or the most probable ones.

    With `max_novelty`, windows above it have no events, and do not count in a pool. A segment has one window that is
    not above it, or is left out.

    Parameters
    ----------
    tagged : TaggedFile
    timeline : Timeline
        That of `tagged`, which is not None.
    tagger : Tagger
        Its labels and thresholds are used.
    settings : TagSettings
    """
    windows = timeline
    if settings.pool is not None:
        timeline = pool_windows(windows, settings.pool)
    events = all_events = _events(timeline, tagger, settings)
    if settings.max_novelty is None:
        return FileEvents(tagged.file, tagged.duration_seconds, all_events, timeline)
    if settings.pool is not None:
        familiar = _familiar(windows, settings.max_novelty)
        probabilities = pool_windows(familiar, settings.pool).probabilities
        events = _events(replace(timeline, probabilities=probabilities), tagger, settings)
    events = tuple(event for event in events if event.novelty is None or event.novelty <= settings.max_novelty)
    n_suppressed = max(0, len(all_events) - len(events))
    return FileEvents(tagged.file, tagged.duration_seconds, events, timeline, n_suppressed)


def _familiar(timeline: Timeline, max_novelty: float) -> Timeline:
    """The windows that are not above this novelty; all of them if none is."""
    if timeline.novelty is None or not (rows := timeline.novelty <= max_novelty).any():
        return timeline
    return Timeline(
        timeline.starts[rows], timeline.ends[rows], timeline.probabilities[rows], novelty=timeline.novelty[rows]
    )


def _events(timeline: Timeline, tagger: Tagger, settings: TagSettings) -> tuple[Event, ...]:
    labels, threshold = tagger.labels.names, settings.min_confidence
    thresholds = tagger.thresholds_for(settings.windows)
    if settings.joins_windows:
        limits = thresholds if threshold is None else np.full_like(thresholds, threshold)
        return segment_events(timeline, labels, limits, settings)
    return window_events(timeline, labels, thresholds, top=settings.top, threshold=threshold)
