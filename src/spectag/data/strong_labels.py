"""Strong labels: annotated sounds in recordings, as clips with all labels that are audible in them."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

from spectag.audio.files import audio_info
from spectag.data.clips import Clip
from spectag.errors import SpectagError

AUDIBLE_SECONDS = 0.25
"""An overlap of at least this length, or of half the shorter sound, is enough to recognise a sound."""
_ROUNDING_SECONDS = 0.01  # of the times in annotation programs


def join_annotations(annotations: Sequence[Clip]) -> list[Clip]:
    """The annotated segments, each once, with the labels of all annotations that overlap it.

    A label that overlaps a segment only a little is unknown in it: see `AUDIBLE_SECONDS`.
    """
    joined: list[Clip | None] = [None] * len(annotations)  # at the place of the first annotation of each segment
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # so that equal labels share memory
    for rows in _rows_by_file(annotations).values():
        first_row: dict[tuple[float, float | None], int] = {}
        for row in rows:
            clip = annotations[row]
            first = first_row.setdefault((clip.start_seconds, clip.end_seconds), row)
            joined[first] = clip if first == row else _merged(joined[first] or clip, clip)
        _add_overlapping(joined, list(first_row.values()), shared)
    return [clip for clip in joined if clip is not None]


def _rows_by_file(clips: Sequence[Clip]) -> dict[Path, list[int]]:
    rows: dict[Path, list[int]] = {}
    for row, clip in enumerate(clips):
        rows.setdefault(clip.path, []).append(row)
    return rows


def _merged(first: Clip, second: Clip) -> Clip:
    """The first clip with the labels of both."""
    if first.labels == second.labels and first.unknown == second.unknown:
        return first
    labels, unknown = _united(first.labels, second.labels), _united(first.unknown, second.unknown)
    return first.with_labels(labels, unknown)


def _add_overlapping(
    joined: list[Clip | None], rows: list[int], shared: dict[tuple[str, ...], tuple[str, ...]]
) -> None:
    """Add the labels of overlapping segments to those of the segments at these rows, which are of one file."""
    segments = [clip for row in rows if (clip := joined[row]) is not None]
    for positions in _overlapping(segments):
        clips = [segments[position] for position in positions]
        times = {label: _LabelTimes(of_label) for label, of_label in _by_label(clips, "labels").items()}
        doubts = {label: _LabelTimes(of_label) for label, of_label in _by_label(clips, "unknown").items()}
        for position, clip in zip(positions, clips, strict=True):
            overlapping = [label for label, sounds in times.items() if sounds.overlap(clip)]
            audible = [label for label in overlapping if times[label].are_audible_in(clip)]
            doubted = [label for label, sounds in doubts.items() if sounds.overlap(clip)]
            labels = _united(clip.labels, audible)
            unknown = _united(clip.unknown, overlapping, doubted)  # with_labels removes the audible ones
            joined[rows[position]] = clip.with_labels(shared.setdefault(labels, labels), unknown)


def _by_label(clips: Sequence[Clip], kind: Literal["labels", "unknown"]) -> dict[str, list[Clip]]:
    of_label: dict[str, list[Clip]] = {}
    for clip in clips:
        for label in getattr(clip, kind):
            of_label.setdefault(label, []).append(clip)
    return of_label


class _LabelTimes:
    """When a label is annotated in a file: whether any of its sounds meets a clip, in logarithmic time.

    Two sounds overlap by a length if each starts at least this length before the other ends. They are audible in each
    other if this length is enough for one of them.
    """

    def __init__(self, sounds: Sequence[Clip]) -> None:
        self._whole = _LatestEnds([(clip.start_seconds, _end(clip)) for clip in sounds])
        enough = [(clip, _enough_seconds(clip)) for clip in sounds]
        self._inner = _LatestEnds([(clip.start_seconds + least, _end(clip) - least) for clip, least in enough])

    def overlap(self, clip: Clip) -> bool:
        """Whether a sound overlaps the clip by more than rounding."""
        return self._whole.meets(clip.start_seconds + _ROUNDING_SECONDS, _end(clip) - _ROUNDING_SECONDS)

    def are_audible_in(self, clip: Clip) -> bool:
        """Whether a sound overlaps the clip enough to recognise either."""
        start, end, least = clip.start_seconds, _end(clip), _enough_seconds(clip)
        return self._whole.meets(start + least, end - least) or self._inner.meets(start, end)


class _LatestEnds:
    """Intervals by their start, each with the latest end so far."""

    def __init__(self, intervals: list[tuple[float, float]]) -> None:
        intervals.sort()
        self._starts = [start for start, _ in intervals]
        self._ends = list(accumulate((end for _, end in intervals), max))

    def meets(self, start: float, end: float) -> bool:
        """Whether an interval starts until the end and ends after the start."""
        n_started = bisect_right(self._starts, end)
        return n_started > 0 and self._ends[n_started - 1] >= start


def _enough_seconds(clip: Clip) -> float:
    """The length of an overlap that is enough to recognise a sound."""
    return min(AUDIBLE_SECONDS, (_end(clip) - clip.start_seconds) / 2)


def _united(*labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for each in labels for label in each))


def _end(clip: Clip) -> float:
    return np.inf if clip.end_seconds is None else clip.end_seconds


def _overlapping(clips: Sequence[Clip]) -> Iterator[list[int]]:
    """The positions of clips of one file, in groups: those of different groups do not overlap. Only groups of several.

    Clips are in the order of their starts.
    """
    group, end = list[int](), -np.inf
    for position in sorted(range(len(clips)), key=lambda position: clips[position].start_seconds):
        if clips[position].start_seconds + _ROUNDING_SECONDS > end:
            if len(group) > 1:
                yield group
            group = []
        group.append(position)
        end = max(end, _end(clips[position]))
    if len(group) > 1:
        yield group


def _by_file(clips: Iterable[Clip]) -> dict[Path, list[Clip]]:
    of_file: dict[Path, list[Clip]] = {}
    for clip in clips:
        of_file.setdefault(clip.path, []).append(clip)
    return of_file


def clips_between(segments: Sequence[Clip]) -> list[Clip]:
    """Clips without labels from the time between annotated segments, as long as the median segment.

    There are at most as many as segments, evenly distributed over the free time of all files. Files that cannot be
    read have none.
    """
    of_file = _by_file(segments)
    seconds = {path: _file_seconds(path) for path in of_file}
    lengths = [min(_end(clip), seconds[clip.path]) - clip.start_seconds for clip in segments]
    length = median([length for length in lengths if length > 0] or [0.0])  # without those after the end of their file
    if length < _ROUNDING_SECONDS:
        return []
    gaps = [
        (clips[0], start, end) for path, clips in of_file.items() for start, end in _free_times(clips, seconds[path])
    ]
    n_windows = np.array([int((end - start + 1e-9) // length) for _, start, end in gaps], int)
    numbers = np.arange(n_windows.sum())
    if len(numbers) > len(segments):
        numbers = np.linspace(0, len(numbers) - 1, len(segments)).round().astype(int)
    gap_of, first_of = np.repeat(np.arange(len(gaps)), n_windows), np.cumsum(n_windows) - n_windows
    return [
        _window(*gaps[int(gap)], int(n_windows[gap]), number - int(first_of[gap]), length)
        for number, gap in zip(numbers.tolist(), gap_of[numbers].tolist(), strict=True)
    ]


def _window(clip: Clip, start: float, end: float, n_windows: int, index: int, length: float) -> Clip:
    """One of the windows in a gap, which are in its middle because the ends of annotations are not exact."""
    begin = round(start + (end - start - n_windows * length) / 2 + index * length, 3)
    return replace(clip, labels=(), unknown=(), line=None, start_seconds=begin, end_seconds=round(begin + length, 3))


def _file_seconds(path: Path) -> float:
    try:
        return audio_info(path).duration_seconds
    except SpectagError:  # reported when its clips are read
        return 0.0


def _free_times(clips: Sequence[Clip], file_seconds: float) -> Iterator[tuple[float, float]]:
    """Start and end of the times of a file that no clip covers."""
    free_from = 0.0
    ends = [(clip.start_seconds, _end(clip)) for clip in clips]
    for start, end in [*sorted(ends), (file_seconds, file_seconds)]:
        if free_from < min(start, file_seconds):
            yield free_from, min(start, file_seconds)
        free_from = max(free_from, end)
