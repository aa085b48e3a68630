"""Which sounds were missed, and which detections are wrong: the errors behind the scores of events.

missed             a true sound that no detection of its label overlaps
false alarm        a detection that no true sound of its label overlaps
wrong times        a true sound that a detection of its label overlaps, but start or end differ too much
repeated           another detection of a sound that was found, or a part of one
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.corrections import join_labels
from spectag.data.detections import TAG_COLUMNS
from spectag.scoring.event_scores import EventMatches, SoundEvents
from spectag.scoring.intersection_scores import intersections
from spectag.system.output import csv_writer, open_output

EventErrorKind = Literal["missed", "false alarm", "wrong times", "repeated"]
EVENT_ERROR_KINDS: tuple[EventErrorKind, ...] = ("missed", "false alarm", "wrong times", "repeated")
_COLUMNS = (*TAG_COLUMNS, "error", "other_start", "other_end", "other_labels")


@dataclass(frozen=True)
class EventError:
    """A sound that was missed, or a wrong detection."""

    kind: EventErrorKind
    path: Path
    file: str
    """The recording, as a table names it."""
    start_seconds: float
    end_seconds: float
    label: str
    probability: float | None
    """The highest one of the detection; None for a true sound, or if the table has none."""
    other_span: tuple[float, float] | None
    """Start and end of the detection, or of the true sound, of the label that overlaps it most."""
    other_labels: tuple[str, ...]
    """Detected (of a true sound) or annotated (of a detection) labels that overlap it, without its own."""


@dataclass(frozen=True, eq=False)
class ComparedSounds:
    """True and detected sounds, and what names them."""

    truth: SoundEvents
    detected: SoundEvents
    probabilities: FloatArray
    """Of each detection; NaN if there is none."""
    recordings: Sequence[Path]
    names: Mapping[Path, str]
    """Names of recordings in the tables."""
    labels: Sequence[str]


def find_event_errors(sounds: ComparedSounds, matches: EventMatches) -> tuple[EventError, ...]:
    """All errors: missed sounds, then false alarms, wrong times and repeated detections.

    Of detections the most probable come first, of sounds the longest.
    """
    rows, true_rows, seconds = intersections(sounds.truth, sounds.detected)
    is_own = sounds.detected.labels[rows] == sounds.truth.labels[true_rows]
    of_truth = _Overlaps(sounds.detected, true_rows, rows, seconds, is_own, len(sounds.truth))
    of_detections = _Overlaps(sounds.truth, rows, true_rows, seconds, is_own, len(sounds.detected))
    overlaps_unfound = np.zeros(len(sounds.detected), bool)
    overlaps_unfound[rows[is_own & ~matches.is_found[true_rows]]] = True
    is_open = ~matches.is_right
    chosen: dict[EventErrorKind, BoolArray] = {
        "missed": ~matches.is_found & ~of_truth.has_own,
        "false alarm": is_open & ~of_detections.has_own,
        "wrong times": ~matches.is_found & of_truth.has_own,
        "repeated": is_open & of_detections.has_own & ~overlaps_unfound,
    }
    errors: list[EventError] = []
    for kind in EVENT_ERROR_KINDS:
        is_detection = kind in ("false alarm", "repeated")
        overlaps = of_detections if is_detection else of_truth
        errors += _errors(kind, sounds, np.flatnonzero(chosen[kind]), overlaps, is_detection=is_detection)
    return tuple(errors)


class _Overlaps:
    """The events on the other side that overlap each event of one side."""

    def __init__(
        self, others: SoundEvents, rows: IntArray, other_rows: IntArray, seconds: FloatArray, is_own: BoolArray, n: int
    ) -> None:
        order = np.lexsort((-seconds, rows))
        self._others, self._other_rows, self._is_own = others, other_rows[order], is_own[order]
        self._bounds = np.searchsorted(rows[order], np.arange(n + 1))
        self.has_own = np.zeros(n, bool)
        self.has_own[rows[is_own]] = True

    def own_span(self, row: int) -> tuple[float, float] | None:
        """Start and end of the event of the same label that overlaps a row most."""
        part = slice(self._bounds[row], self._bounds[row + 1])
        own = self._other_rows[part][self._is_own[part]]
        return (float(self._others.starts[own[0]]), float(self._others.ends[own[0]])) if len(own) else None

    def other_labels(self, row: int) -> list[int]:
        """The other labels that overlap a row, most first."""
        part = slice(self._bounds[row], self._bounds[row + 1])
        others = self._other_rows[part][~self._is_own[part]]
        return list(dict.fromkeys(self._others.labels[others].tolist()))


def _errors(
    kind: EventErrorKind, sounds: ComparedSounds, rows: IntArray, overlaps: _Overlaps, *, is_detection: bool
) -> Iterator[EventError]:
    events = sounds.detected if is_detection else sounds.truth
    probabilities = sounds.probabilities if is_detection else np.full(len(events), math.nan)
    lengths = events.ends - events.starts
    firsts = events.starts[rows], events.recordings[rows], -lengths[rows]
    order = rows[np.lexsort((*firsts, -np.nan_to_num(probabilities[rows], nan=-1.0)))]
    for row in order.tolist():
        path, probability = sounds.recordings[events.recordings[row]], float(probabilities[row])
        yield EventError(
            kind,
            path,
            sounds.names[path],
            float(events.starts[row]),
            float(events.ends[row]),
            sounds.labels[events.labels[row]],
            None if math.isnan(probability) else probability,
            overlaps.own_span(row),
            tuple(sounds.labels[label] for label in overlaps.other_labels(row)),
        )


def write_event_errors(path: Path, errors: Sequence[EventError]) -> None:
    """Write errors.csv. It starts with the columns of `spectag tag`, so that the errors can be cut out."""
    with open_output(path) as file:
        write_row = csv_writer(file)
        write_row(_COLUMNS)
        for error in errors:
            span = ("", "") if error.other_span is None else tuple(f"{seconds:.3f}" for seconds in error.other_span)
            write_row([
                error.file,
                f"{error.start_seconds:.3f}",
                f"{error.end_seconds:.3f}",
                error.label,
                "" if error.probability is None else f"{error.probability:.6f}",
                error.kind,
                *span,
                join_labels(error.other_labels),
            ])  # fmt: skip
