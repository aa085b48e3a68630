"""The labels detected in a recording, with their times, ready to be written."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array
from spectag.config.base import SegmentConfig
from spectag.config.tagging import TagSettings
from spectag.errors import DataError
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, find_segments, pool_windows
from spectag.tagging.parallel import TaggedFile

_BATCH_WINDOWS = 4096  # sorted at once: sorting needs memory for each label of each window


class Event(NamedTuple):
    """A label that was detected in a window or a segment of a recording."""

    start_seconds: float
    end_seconds: float | None  # None: an image
    label: str
    probability: float


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

    def end_seconds_of(self, event: Event) -> float:
        """The end of an event in seconds, for formats that need one.

        Raises
        ------
        DataError
            If the file is an image.
        """
        if event.end_seconds is None:
            raise DataError(
                f"{self.file}: this format needs times, and an image has none; write csv, jsonl, parquet or wide"
            )
        return event.end_seconds


@dataclass(frozen=True)
class EventSelection:
    """Which labels of a window become events: the `top` most probable, or those at or above `threshold`.

    With both, the most probable labels that also reach the threshold. With neither, the labels at or above the model's
    own thresholds.
    """

    top: int | None = None
    threshold: float | None = None

    def __call__(
        self, probabilities: Float32Array, thresholds: Float32Array
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Indices of the windows and of the labels selected: window after window, most probable first.

        Parameters
        ----------
        probabilities : float array of shape (n_windows, n_labels)
        thresholds : float array of shape (n_labels,)
            The model's own.
        """
        limits = thresholds if self.top is None and self.threshold is None else np.float32(self.threshold or 0.0)
        is_selected = probabilities >= limits
        if self.top is not None:
            beyond_top = np.argsort(-probabilities, axis=1, kind="stable")[:, self.top :]
            np.put_along_axis(is_selected, beyond_top, False, axis=1)
        windows, labels = np.nonzero(is_selected)
        order = np.lexsort((labels, -probabilities[windows, labels], windows))
        return windows[order], labels[order]


def window_events(
    timeline: Timeline, labels: Sequence[str], thresholds: Float32Array, selection: EventSelection
) -> tuple[Event, ...]:
    """The selected labels of each window: window after window, most probable first.

    Parameters
    ----------
    timeline : Timeline
    labels : sequence of str
    thresholds : float array of shape (n_labels,)
        The model's own.
    selection : EventSelection
    """
    events = []
    for begin in range(0, len(timeline.starts), _BATCH_WINDOWS):
        rows = slice(begin, begin + _BATCH_WINDOWS)
        probabilities = timeline.probabilities[rows]
        windows, indices = selection(probabilities, thresholds.astype(np.float32))
        starts, ends = timeline.starts[rows][windows].tolist(), timeline.ends[rows][windows].tolist()
        values = probabilities[windows, indices].tolist()
        events += [
            Event(start, _none_if_nan(end), labels[index], value)
            for start, end, index, value in zip(starts, ends, indices.tolist(), values, strict=True)
        ]
    return tuple(events)


def segment_events(
    timeline: Timeline, labels: Sequence[str], thresholds: Float32Array, config: SegmentConfig
) -> tuple[Event, ...]:
    """The segments that `spectag.models.timeline.segments` finds, ordered by start, then by label."""
    return tuple(
        Event(segment.start_seconds, segment.end_seconds, labels[segment.label_index], segment.probability)
        for segment in find_segments(timeline, thresholds, config)
    )


def window_times(timeline: Timeline) -> Iterator[tuple[float, float | None]]:
    """Start and end of each window in seconds; the end is None for an image."""
    for start, end in zip(timeline.starts.tolist(), timeline.ends.tolist(), strict=True):
        yield start, _none_if_nan(end)


def _none_if_nan(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds


def detected_events(tagged: TaggedFile, timeline: Timeline, tagger: Tagger, settings: TagSettings) -> FileEvents:
    """The events in a tagged file: the labels that reach their thresholds, or the most probable ones.

    Parameters
    ----------
    tagged : TaggedFile
    timeline : Timeline
        That of `tagged`, which is not None.
    tagger : Tagger
        Its labels and thresholds are used.
    settings : TagSettings
    """
    if settings.pool is not None:
        timeline = pool_windows(timeline, settings.pool)
    labels, thresholds, threshold = tagger.labels.names, tagger.thresholds, settings.min_confidence
    if settings.joins_windows:
        limits = thresholds if threshold is None else np.full_like(thresholds, threshold)
        events = segment_events(timeline, labels, limits, settings)
    else:
        events = window_events(timeline, labels, thresholds, EventSelection(settings.top, threshold))
    return FileEvents(tagged.file, tagged.duration_seconds, events, timeline)
