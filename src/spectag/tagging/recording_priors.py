"""The priors of the labels in each recording of a run: the tags with them, what they hide, and what is unknown."""

import csv
import io
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spectag.array_types import FloatArray
from spectag.data.deployments import PlaceFinder
from spectag.data.label_priors import PRIOR_COLUMNS, LabelPriors, multiplied_odds
from spectag.data.readers.delimited_text import abbreviate
from spectag.data.sites import RecordingPlace
from spectag.models.timeline import Timeline
from spectag.system.output import one_line
from spectag.tagging.events import Event, FileEvents

_MAX_LINES_STORED = 1_000  # of a table, in the file of parameters


class RecordingPriors:
    """The priors of the labels in each recording of a run, by its site, position and week.

    Parameters
    ----------
    priors : LabelPriors
    places : PlaceFinder
    """

    def __init__(self, priors: LabelPriors, places: PlaceFinder) -> None:
        self._priors, self._places = priors, places
        self._factors: dict[RecordingPlace, FloatArray] = {}
        self._sites: set[str] = set()
        self._files: set[str] = set()
        self._without_week: set[str] = set()
        self._without_position: set[str] = set()
        self.n_hidden: dict[str, int] = {}
        """How many tags or segments the priors hid in each file; only of files with any."""

    def apply(self, file: str, timeline: Timeline, detect: Callable[[Timeline], FileEvents]) -> FileEvents:
        """The events in a file, found in its probabilities with the priors. What is hidden by them is counted.

        Parameters
        ----------
        file : str
        timeline : Timeline
            Of all labels of the model.
        detect : callable
            Finds the events in a timeline.
        """
        factors = self._factors_of(file)
        before = detect(timeline)
        if (factors == 1).all():
            return before
        after = detect(replace(timeline, probabilities=multiplied_odds(timeline.probabilities, factors)))
        never = {self._priors.labels.names[column] for column in np.flatnonzero(factors == 0)}
        after = replace(after, events=tuple(event for event in after.events if event.label not in never))
        if n_hidden := _n_missing(before.events, after.events, by_window=after.by_window):
            self.n_hidden[file] = n_hidden
        return after

    def _factors_of(self, file: str) -> FloatArray:
        """The factor of the odds of each label of the model, (n_labels,)."""
        place = self._places.place_of(Path(file))
        self._files.add(file)
        self._sites.add(place.site)
        if place.day is None:
            self._without_week.add(file)
        if place.latitude is None or place.longitude is None:
            self._without_position.add(file)
        known = self._priors.what_matters(place)
        if known not in self._factors:
            self._factors[known] = self._priors.factors(known)
        return self._factors[known]

    def notes(self) -> Iterator[str]:
        """Which lines of the table could not be applied to some or all of the recordings so far."""
        priors, n_files = self._priors, len(self._files)
        for what, files, is_needed, lines in (
            ("week", self._without_week, priors.needs_week, "with weeks"),
            ("position", self._without_position, priors.needs_position, "with latitude and longitude"),
        ):
            if files and is_needed:
                yield (
                    f"the {what} of {len(files):,} of {n_files:,} recordings is unknown, such as {min(files)}; lines "
                    f"of {priors.source} {lines} do not apply to them"
                )
        if nowhere := sorted(priors.sites - self._sites):
            yield f"no recording is from these sites of {priors.source}: {abbreviate(nowhere)}"

    def as_comments(self) -> str:
        """The priors as comments for a TOML file, to know them later if the table has changed."""
        lines = sorted(self._priors.lines, key=lambda line: line.line)
        text = io.StringIO()
        write = csv.writer(text, lineterminator="\n").writerow
        write(PRIOR_COLUMNS)
        for line in lines[:_MAX_LINES_STORED]:
            write(map(one_line, line.fields))
        rows = text.getvalue().splitlines()
        if len(lines) > _MAX_LINES_STORED:
            rows.append(f"and {len(lines) - _MAX_LINES_STORED:,} more")
        head = f"# {len(lines):,} priors, factors of the odds; SHA-256 of the table: {self._priors.sha256}"
        return "".join(f"{row}\n" for row in (head, *(f"# {row}" for row in rows)))


def _n_missing(before: Sequence[Event], after: Sequence[Event], *, by_window: bool) -> int:
    """How many events are not there any more: of segments, those that no later segment of the label overlaps."""
    if by_window:
        remaining = {(event.start_seconds, event.label) for event in after}
        return sum((event.start_seconds, event.label) not in remaining for event in before)
    ends, starts = defaultdict(list), defaultdict(list)
    for event in after:  # those of one label are in order, and apart
        starts[event.label].append(event.start_seconds)
        ends[event.label].append(event.end_seconds)
    return sum(not _overlaps_any(event, starts[event.label], ends[event.label]) for event in before)


def _overlaps_any(event: Event, starts: Sequence[float], ends: Sequence[float | None]) -> bool:
    if event.end_seconds is None:
        return bool(starts)
    position = bisect_left(starts, event.end_seconds)  # of the first that starts after the event
    end = ends[position - 1] if position else None
    return end is not None and end > event.start_seconds
