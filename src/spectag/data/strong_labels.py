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
    segments: dict[tuple[Path, float, float | None], Clip] = {}
    for clip in annotations:
        first = segments.setdefault((clip.path, clip.start_seconds, clip.end_seconds), clip)
        labels, unknown = _united(first.labels, clip.labels), _united(first.unknown, clip.unknown)
        segments[first.path, first.start_seconds, first.end_seconds] = first.with_labels(labels, unknown)
    overlaps: dict[Clip, list[tuple[Clip, bool]]] = {clip: [] for clip in segments.values()}
    for first, second in _overlapping(segments.values()):
        is_audible = _is_audible(first, second)
        overlaps[first].append((second, is_audible))
        overlaps[second].append((first, is_audible))
    return [
        clip.with_labels(
            _united(clip.labels, *(other.labels for other, is_audible in others if is_audible)),
            _united(clip.unknown, *(other.labels + other.unknown for other, _ in others)),
        )
        for clip, others in overlaps.items()
    ]


def _united(*labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for each in labels for label in each))


def _end(clip: Clip) -> float:
    return np.inf if clip.end_seconds is None else clip.end_seconds


def _overlapping(clips: Iterable[Clip]) -> Iterator[tuple[Clip, Clip]]:
    """All pairs of clips of one file that overlap by more than rounding."""
    for clips_of_file in _by_file(clips).values():
        running: list[Clip] = []
        for clip in sorted(clips_of_file, key=lambda clip: clip.start_seconds):
            begin = clip.start_seconds + _ROUNDING_SECONDS
            running = [other for other in running if _end(other) >= begin]
            yield from ((other, clip) for other in running)
            running.append(clip)


def _by_file(clips: Iterable[Clip]) -> dict[Path, list[Clip]]:
    of_file: dict[Path, list[Clip]] = {}
    for clip in clips:
        of_file.setdefault(clip.path, []).append(clip)
    return of_file


def _is_audible(first: Clip, second: Clip) -> bool:
    """Whether the overlap of two clips is enough to recognise both."""
    overlap = min(_end(first), _end(second)) - max(first.start_seconds, second.start_seconds)
    shorter = min(_end(clip) - clip.start_seconds for clip in (first, second))
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
