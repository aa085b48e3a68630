"""The labels detected in a recording, with their times, ready to be written."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array
from spectag.config.base import LongRecordingWindows, SegmentConfig, SegmentFrames, WindowConfig
from spectag.config.tagging import TagSettings
from spectag.data.label_map import LabelMap
from spectag.data.sites import RecordingPlace
from spectag.errors import DataError
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline, find_segments, pool_windows
from spectag.tagging.chosen_labels import ChosenLabels
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
    """The probabilities of all labels in each window or frame."""
    by_window: bool = True
    """Whether the events are those of windows, or of the recording as a whole, and not segments."""
    n_suppressed: int = 0
    """Events that are left out because of their novelty."""
    place: RecordingPlace | None = None
    """Where and when it was recorded, if tables say so."""

    @property
    def is_image(self) -> bool:
        """Whether the file is an image, which has no times."""
        return bool(np.isnan(self.timeline.ends).any())

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


def renamed(file: FileEvents, new_names: LabelMap) -> FileEvents:
    """The file with other names of its events.

    Of several events of a window that get one name, the most probable one stays. Segments that get one name and overlap
    or touch are joined: they have the greatest probability and the smallest novelty.
    """
    found = [event._replace(label=label) for event in file.events for label in new_names((event.label,))]
    if file.by_window:  # in order of the windows, the most probable event first
        of_window: dict[tuple[float, str], Event] = {}
        for event in found:
            of_window.setdefault((event.start_seconds, event.label), event)
        return replace(file, events=tuple(of_window.values()))
    joined: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(found, key=lambda event: event.start_seconds):
        of_label = joined[event.label]
        if of_label and event.start_seconds <= file.end_seconds_of(of_label[-1]):
            of_label[-1] = _joined(of_label[-1], event)
        else:
            of_label.append(event)
    events = sorted(chain.from_iterable(joined.values()), key=lambda event: (event.start_seconds, event.label))
    return replace(file, events=tuple(events))


def _joined(first: Event, second: Event) -> Event:
    """Two segments as one."""
    assert first.end_seconds is not None
    assert second.end_seconds is not None
    return first._replace(
        end_seconds=max(first.end_seconds, second.end_seconds),
        probability=max(first.probability, second.probability),
        novelty=None if first.novelty is None or second.novelty is None else min(first.novelty, second.novelty),
    )


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
    """The segments that `spectag.models.timeline.find_segments` finds, ordered by start, then by label."""
    segments = find_segments(timeline, thresholds, config)
    novelties = timeline.novelty_of([(segment.start_seconds, segment.end_seconds) for segment in segments])
    return tuple(
        Event(segment.start_seconds, segment.end_seconds, labels[segment.label_index], segment.probability, novelty)
        for segment, novelty in zip(segments, novelties, strict=True)
    )


def window_times(timeline: Timeline) -> Iterator[tuple[float, float | None]]:
    """Start and end of each window in seconds; the end is None for an image."""
    ends = [None if math.isnan(end) else end for end in timeline.ends.tolist()]
    return zip(timeline.starts.tolist(), ends, strict=True)


def windows_to_tag(tagger: Tagger, settings: TagSettings) -> WindowConfig | None:
    """The windows or frames that the settings mean with a tagger; None: recordings as a whole."""
    return settings.windows(
        tagger.info.clip_seconds,
        tagger.info.window.max_clip_seconds,
        tagger.shortest_seconds,
        has_frames=tagger.info.frames is not None,
    )


def is_tagged_as_clip(timeline: Timeline, window: WindowConfig | None) -> bool:
    """Whether a recording was tagged as a whole because it is not longer than a clip."""
    if isinstance(window, SegmentFrames):
        return timeline.frames is None
    return isinstance(window, LongRecordingWindows) and len(timeline.starts) == 1


def detected_events(
    tagged: TaggedFile,
    timeline: Timeline,
    tagger: Tagger,
    settings: TagSettings,
    chosen: ChosenLabels | None = None,
) -> FileEvents:
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
    chosen : ChosenLabels, optional
        The labels to report; all by default.
    """
    window = windows_to_tag(tagger, settings)
    if chosen is not None:
        timeline = replace(timeline, probabilities=timeline.probabilities[:, chosen.columns])
    windows = timeline
    if settings.clip_level is not None:
        timeline = pool_windows(windows, settings.clip_level)
        if tagged.duration_seconds is not None:  # the last window may end before it
            timeline = replace(timeline, ends=np.array([tagged.duration_seconds]))
    is_clip = is_tagged_as_clip(timeline, window)
    by_window = is_clip or not (settings.joins_windows or settings.depends_on_duration)
    labels, thresholds = tagger.labels, tagger.thresholds_for(None if is_clip else window)
    if chosen is not None:
        labels, thresholds = chosen.labels, thresholds[chosen.columns]
    find_events = partial(_events, labels=labels.names, thresholds=thresholds, settings=settings)
    events = all_events = find_events(timeline, by_window=by_window)
    if settings.max_novelty is not None:
        if settings.clip_level is not None:
            familiar = _familiar(windows, settings.max_novelty)
            probabilities = pool_windows(familiar, settings.clip_level).probabilities
            events = find_events(replace(timeline, probabilities=probabilities), by_window=by_window)
        events = tuple(event for event in events if event.novelty is None or event.novelty <= settings.max_novelty)
    n_suppressed = max(0, len(all_events) - len(events))
    return FileEvents(tagged.file, tagged.duration_seconds, events, timeline, by_window, n_suppressed)


def _familiar(timeline: Timeline, max_novelty: float) -> Timeline:
    """The windows that are not above this novelty; all of them if none is."""
    if timeline.novelty is None or not (rows := timeline.novelty <= max_novelty).any():
        return timeline
    return Timeline(
        timeline.starts[rows], timeline.ends[rows], timeline.probabilities[rows], novelty=timeline.novelty[rows]
    )


def _events(
    timeline: Timeline, *, labels: Sequence[str], thresholds: Float32Array, settings: TagSettings, by_window: bool
) -> tuple[Event, ...]:
    threshold = settings.min_confidence
    if not by_window:
        limits = thresholds if threshold is None else np.full_like(thresholds, threshold)
        return segment_events(timeline, labels, limits, settings)
    return window_events(timeline, labels, thresholds, top=settings.top, threshold=threshold)
