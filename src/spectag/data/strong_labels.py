"""Strong labels: annotated sounds in recordings, as clips with all labels that are heard in them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from spectag.audio.files import audio_info
from spectag.data.clips import Clip
from spectag.errors import SpectagError

HEARD_SECONDS = 0.25
"""An overlap of at least this length, or of half the shorter sound, contains enough of a sound to hear it."""
_ROUNDING_SECONDS = 0.01  # of the times in annotation programs


def join_annotations(annotations: Sequence[Clip]) -> list[Clip]:
    """The annotated segments, each once, with the labels of all annotations that overlap it.

    A label that overlaps a segment only a little is unknown in it: see `HEARD_SECONDS`.
    """
    segments: dict[tuple[Path, float, float | None], Clip] = {}
    for clip in annotations:
        first = segments.setdefault((clip.path, clip.start_seconds, clip.end_seconds), clip)
        labels, unknown = _united(first.labels, clip.labels), _united(first.unknown, clip.unknown)
        segments[first.path, first.start_seconds, first.end_seconds] = _with_labels(first, labels, unknown)
    overlaps: dict[Clip, list[tuple[Clip, bool]]] = {clip: [] for clip in segments.values()}
    for first, second in _overlapping(segments.values()):
        is_heard = _is_heard(first, second)
        overlaps[first].append((second, is_heard))
        overlaps[second].append((first, is_heard))
    return [
        _with_labels(
            clip,
            _united(clip.labels, *(other.labels for other, is_heard in others if is_heard)),
            _united(clip.unknown, *(other.labels + other.unknown for other, _ in others)),
        )
        for clip, others in overlaps.items()
    ]


def _united(*labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for each in labels for label in each))


def _with_labels(clip: Clip, labels: tuple[str, ...], unknown: tuple[str, ...]) -> Clip:
    return replace(clip, labels=labels, unknown=tuple(label for label in unknown if label not in labels))


def _end(clip: Clip) -> float:
    return np.inf if clip.end_seconds is None else clip.end_seconds


def _overlapping(clips: Iterable[Clip]) -> Iterator[tuple[Clip, Clip]]:
    """All pairs of clips of one file that overlap by more than rounding."""
    running: list[Clip] = []
    for clip in sorted(clips, key=lambda clip: (str(clip.path), clip.start_seconds)):
        begin = clip.start_seconds + _ROUNDING_SECONDS
        running = [other for other in running if other.path == clip.path and _end(other) >= begin]
        yield from ((other, clip) for other in running)
        running.append(clip)


def _is_heard(first: Clip, second: Clip) -> bool:
    """Whether the overlap of two clips contains enough of both to hear them."""
    overlap = min(_end(first), _end(second)) - max(first.start_seconds, second.start_seconds)
    shorter = min(_end(clip) - clip.start_seconds for clip in (first, second))
    return overlap >= min(HEARD_SECONDS, shorter / 2)


def clips_between(annotations: Sequence[Clip]) -> list[Clip]:
    """Clips without labels from the time between the annotations, as long as the median annotation.

    There are at most as many as annotations, evenly distributed over the free time of all files. Files that cannot be
    read have none.
    """
    of_file: dict[Path, list[Clip]] = {}
    for clip in annotations:
        of_file.setdefault(clip.path, []).append(clip)
    seconds = {path: _file_seconds(path) for path in of_file}
    lengths = [min(_end(clip), seconds[clip.path]) - clip.start_seconds for clip in annotations if seconds[clip.path]]
    length = median(lengths or [0.0])
    if length < _ROUNDING_SECONDS:
        return []
    gaps = [
        (clips[0], start, end) for path, clips in of_file.items() for start, end in _free_times(clips, seconds[path])
    ]
    n_windows = np.array([int((end - start + 1e-9) // length) for _, start, end in gaps], int)
    numbers = np.arange(n_windows.sum())
    if len(numbers) > len(annotations):
        numbers = np.linspace(0, len(numbers) - 1, len(annotations)).round().astype(int)
    gap_of = np.repeat(np.arange(len(gaps)), n_windows)
    first_of = np.cumsum(n_windows) - n_windows
    result = []
    for number in numbers.tolist():
        index = int(gap_of[number])
        clip, start, end = gaps[index]
        margin = (end - start - n_windows[index] * length) / 2  # the ends of annotations are not exact
        begin = start + margin + (number - first_of[index]) * length
        times = {"start_seconds": round(begin, 3), "end_seconds": round(begin + length, 3)}
        result.append(replace(clip, labels=(), unknown=(), line=None, **times))
    return result


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
