"""What is heard in a recording: labels with their times, ready to be written."""

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
from spectag.models.timeline import Timeline, pool_windows, segments
from spectag.tagging.parallel import TaggedFile

_WINDOWS_AT_ONCE = 4096  # sorting needs memory for each label of each window


class Event(NamedTuple):
    """A label that is on in a stretch of a recording."""

    start_seconds: float
    end_seconds: float | None  # None: an image
    label: str
    probability: float


@dataclass(frozen=True)
class FileEvents:
    """A recording, and what is heard in it."""

    file: str
    """A path, or an address such as s3://bucket/a.wav."""
    duration_seconds: float | None
    """None: an image, or nobody knows."""
    events: tuple[Event, ...]
    """In the order in which they are written."""
    timeline: Timeline
    """The probabilities of all labels in each window."""


@dataclass(frozen=True)
class EventSelection:
    """Which labels of a window are heard: the `top` most probable, or those at or above `threshold`.

    With both, those of the most probable that reach the threshold. With neither, those at or above the tagger's own
    thresholds.
    """

    top: int | None = None
    threshold: float | None = None

    def __call__(
        self, probabilities: Float32Array, thresholds: Float32Array
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Numbers of windows and of labels: window after window, most probable first.

        Parameters
        ----------
        probabilities : float array of shape (n_windows, n_labels)
        thresholds : float array of shape (n_labels,)
            The tagger's own.
        """
        limits = thresholds if self.top is None and self.threshold is None else np.float32(self.threshold or 0.0)
        chosen = probabilities >= limits
        if self.top is not None:
            others = np.argsort(-probabilities, axis=1, kind="stable")[:, self.top :]
            np.put_along_axis(chosen, others, False, axis=1)
        windows, labels = np.nonzero(chosen)
        order = np.lexsort((labels, -probabilities[windows, labels], windows))
        return windows[order], labels[order]


def window_events(
    timeline: Timeline, labels: Sequence[str], thresholds: Float32Array, choice: EventSelection
) -> tuple[Event, ...]:
    """The chosen labels of each window, window after window, most probable first.

    Parameters
    ----------
    timeline : Timeline
    labels : sequence of str
    thresholds : float array of shape (n_labels,)
        The tagger's own.
    choice : Choice
    """
    events = []
    for begin in range(0, len(timeline.starts), _WINDOWS_AT_ONCE):
        some = slice(begin, begin + _WINDOWS_AT_ONCE)
        probabilities = timeline.probabilities[some]
        windows, positions = choice(probabilities, thresholds.astype(np.float32))
        starts, ends = timeline.starts[some][windows].tolist(), timeline.ends[some][windows].tolist()
        values = probabilities[windows, positions].tolist()
        events += [
            Event(start, _known(end), labels[position], value)
            for start, end, position, value in zip(starts, ends, positions.tolist(), values, strict=True)
        ]
    return tuple(events)


def segment_events(
    timeline: Timeline, labels: Sequence[str], thresholds: Float32Array, config: SegmentConfig
) -> tuple[Event, ...]:
    """The segments where labels are on, as `segments` of the timeline finds them, by their start, then their label."""
    return tuple(
        Event(segment.start_seconds, segment.end_seconds, labels[segment.label_index], segment.probability)
        for segment in segments(timeline, thresholds, config)
    )


def window_times(timeline: Timeline) -> Iterator[tuple[float, float | None]]:
    """Start and end of each window in seconds; an image has no end."""
    for start, end in zip(timeline.starts.tolist(), timeline.ends.tolist(), strict=True):
        yield start, _known(end)


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds


def end_seconds_of(event: Event, file: FileEvents) -> float:
    """The end in seconds.

    Raises
    ------
    DataError
        If there is none: of an image.
    """
    if event.end_seconds is None:
        raise DataError(
            f"{file.file}: an image has no times, which this format is made of; write csv, jsonl, parquet or wide"
        )
    return event.end_seconds


def detected_events(tagged: TaggedFile, timeline: Timeline, tagger: Tagger, settings: TagSettings) -> FileEvents:
    """What is heard in a file that has a timeline: the labels that reach their thresholds, or the most probable ones.

    Parameters
    ----------
    tagged : TaggedFile
    timeline : Timeline
        Of the file.
    tagger : Tagger
        Whose labels and thresholds count.
    settings : TagSettings
    """
    if settings.pool is not None:
        timeline = pool_windows(timeline, settings.pool)
    labels, thresholds, least = tagger.labels.names, tagger.thresholds, settings.min_confidence
    if settings.joins_windows:
        limits = thresholds if least is None else np.full_like(thresholds, least)
        events = segment_events(timeline, labels, limits, settings)
    else:
        events = window_events(timeline, labels, thresholds, EventSelection(settings.top, least))
    return FileEvents(tagged.file, tagged.duration_seconds, events, timeline)
