"""Strong labels: annotated sounds in recordings, as clips with all labels that are audible in them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

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
    audible: dict[int, dict[str, None]] = {}
    all_labels: dict[int, dict[str, None]] = {}
    for first, second in _overlapping(segments):
        is_audible = _is_audible(segments[first], segments[second])
        for position, other in ((first, segments[second]), (second, segments[first])):
            if is_audible:
                audible.setdefault(position, {}).update(dict.fromkeys(other.labels))
            if not is_audible or other.unknown:
                all_labels.setdefault(position, {}).update(dict.fromkeys(other.labels + other.unknown))
    for position in {**audible, **all_labels}:
        segment = segments[position]
        labels = tuple(dict.fromkeys((*segment.labels, *audible.get(position, ()))))
        if len(labels) > len(segment.labels) or position in all_labels:
            unknown = tuple(dict.fromkeys((*segment.unknown, *all_labels.get(position, ()))))
            joined[rows[position]] = segment.with_labels(shared.setdefault(labels, labels), unknown)


def _united(*labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for each in labels for label in each))


def _end(clip: Clip) -> float:
    return np.inf if clip.end_seconds is None else clip.end_seconds


def _overlapping(clips: Sequence[Clip]) -> Iterator[tuple[int, int]]:
    """The positions of all pairs of clips of one file that overlap by more than rounding."""
    running: list[int] = []
    for position in sorted(range(len(clips)), key=lambda position: clips[position].start_seconds):
        begin = clips[position].start_seconds + _ROUNDING_SECONDS
        running = [other for other in running if _end(clips[other]) >= begin]
        yield from ((other, position) for other in running)
        running.append(position)


def _by_file(clips: Iterable[Clip]) -> dict[Path, list[Clip]]:
    of_file: dict[Path, list[Clip]] = {}
    for clip in clips:
        of_file.setdefault(clip.path, []).append(clip)
    return of_file


def _is_audible(first: Clip, second: Clip) -> bool:
    """Whether the overlap of two clips is enough to recognise both."""
    first_end, second_end = _end(first), _end(second)
    overlap = min(first_end, second_end) - max(first.start_seconds, second.start_seconds)
    shorter = min(first_end - first.start_seconds, second_end - second.start_seconds)
    return overlap >= min(AUDIBLE_SECONDS, shorter / 2)


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
