"""Counts of detections beside effort: by site, day and hour, and how labels accumulate. Arrays in, arrays out."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import gammaln

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.config.findings import SummaryKey
from spectag.data.detections import DetectedSound
from spectag.findings.recorded_effort import SummarisedRecording, hours_of

UNKNOWN_TIME = -1
_CELLS_AT_ONCE = 4_096


@dataclass(frozen=True)
class Activity:
    """Detections and hours of recording, each with the number of its site, its day and its hour of the day.

    Days are ordinals of the calendar, as `datetime.date.toordinal` counts them.
    """

    labels: tuple[str, ...]
    sites: tuple[str, ...]
    detected_label: IntArray
    """(n_detections,)"""
    detected_site: IntArray
    detected_day: IntArray
    """UNKNOWN_TIME: unknown."""
    detected_hour: IntArray
    is_in_effort: BoolArray
    """(n_detections,): whether the time and the length of its recording are known; rates leave out the others."""
    effort_site: IntArray
    """(n_cells,): each combination of a site, a day and an hour with effort once."""
    effort_day: IntArray
    effort_hour: IntArray
    effort_seconds: FloatArray

    @classmethod
    def of(
        cls, detections: Sequence[DetectedSound], recordings: Sequence[SummarisedRecording], labels: Sequence[str]
    ) -> "Activity":
        """Count the detections in recordings.

        Parameters
        ----------
        detections : sequence of DetectedSound
        recordings : sequence of SummarisedRecording
            All that the detections name, and others.
        labels : sequence of str
            In the order in which they are shown.
        """
        sites = tuple(sorted({recording.site for recording in recordings}))
        site_numbers = {site: number for number, site in enumerate(sites)}
        label_numbers = {label: number for number, label in enumerate(labels)}
        of_path = {recording.path: recording for recording in recordings}
        rows, is_in_effort = np.empty((len(detections), 4), np.int64), np.zeros(len(detections), bool)
        for index, detection in enumerate(detections):
            recording = of_path[detection.path]
            day, hour = _day_and_hour(recording.time_of(detection.start_seconds))
            rows[index] = label_numbers[detection.label], site_numbers[recording.site], day, hour
            is_in_effort[index] = recording.is_effort
        cells: dict[tuple[int, int, int], float] = defaultdict(float)
        for recording in recordings:
            for moment, seconds in hours_of(recording):
                cells[site_numbers[recording.site], *_day_and_hour(moment)] += seconds
        keys = np.array(sorted(cells), np.int64).reshape(-1, 3)
        effort = np.array([cells[key] for key in sorted(cells)])
        detected = rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3]
        cell_of_effort = keys[:, 0], keys[:, 1], keys[:, 2]
        return cls(tuple(labels), sites, *detected, is_in_effort, *cell_of_effort, effort)

    @property
    def hours(self) -> float:
        """Recorded hours at known times."""
        return float(self.effort_seconds.sum()) / 3600

    @cached_property
    def days(self) -> IntArray:
        """The days with effort, in order."""
        return np.unique(self.effort_day)

    @cached_property
    def site_days(self) -> IntArray:
        """(n_site_days, 2): day and site of each day on which something was recorded at a site, by day."""
        return np.unique(np.stack([self.effort_day, self.effort_site], axis=1), axis=0)

    def label_by_site(self, *, in_effort: bool = False) -> IntArray:
        """Detections of each label at each site, all or only those in recorded hours: (n_labels, n_sites)."""
        rows = self.is_in_effort if in_effort else slice(None)
        return _counts((self.detected_label[rows], len(self.labels)), (self.detected_site[rows], len(self.sites)))

    def hours_by_site(self) -> FloatArray:
        """Recorded hours at each site: (n_sites,)."""
        return np.bincount(self.effort_site, self.effort_seconds, len(self.sites)) / 3600

    def by_hour_and_bin(self, edges: IntArray) -> tuple[IntArray, FloatArray]:
        """Detections (n_labels, 24, n_bins) and recorded hours (24, n_bins) by hour of the day, and day.

        Detections in recordings whose time or length is unknown do not count.

        Parameters
        ----------
        edges : int array of shape (n_bins + 1,)
            First day of each bin, and the day after the last.
        """
        n_bins = len(edges) - 1
        is_in = self.is_in_effort & (self.detected_day >= edges[0]) & (self.detected_day < edges[-1])
        columns = np.searchsorted(edges, self.detected_day[is_in], side="right") - 1
        counts = _counts(
            (self.detected_label[is_in], len(self.labels)), (self.detected_hour[is_in], 24), (columns, n_bins)
        )
        effort = np.zeros((24, n_bins))
        np.add.at(
            effort, (self.effort_hour, np.searchsorted(edges, self.effort_day, side="right") - 1), self.effort_seconds
        )
        return counts, effort / 3600

    def accumulation(self) -> "Accumulation":
        """How labels accumulate with days of recording."""
        unit_of = {tuple(unit): number for number, unit in enumerate(self.site_days.tolist())}
        pairs = np.stack([self.detected_day, self.detected_site, self.detected_label], axis=1)
        found = np.unique(pairs[self.detected_day != UNKNOWN_TIME], axis=0).tolist()
        units = [(unit_of[day, site], label) for day, site, label in found if (day, site) in unit_of]
        n_units = np.bincount([label for _, label in units], minlength=len(self.labels)).astype(np.int64)
        first: dict[int, int] = {}
        for unit, label in sorted(units):
            first.setdefault(label, unit)
        new = np.bincount(np.array(list(first.values()), np.int64), minlength=len(unit_of))
        return Accumulation(np.cumsum(new), expected_accumulation(n_units, len(unit_of)))

    def counts(self, keys: Sequence[SummaryKey]) -> Iterator[tuple[tuple[str, ...], float, IntArray]]:
        """Detections of each label (n_labels,) and recorded hours for each combination of keys, with their values.

        Only combinations with effort or detections come; detections at unknown times have no month, week, day and hour.
        """
        effort = self._key_columns(keys, self.effort_site, self.effort_day, self.effort_hour)
        detected = self._key_columns(keys, self.detected_site, self.detected_day, self.detected_hour)
        cells, cell_of = np.unique(np.concatenate([effort, detected]), axis=0, return_inverse=True)
        cell_of = cell_of.reshape(-1)
        seconds = np.bincount(cell_of[: len(effort)], self.effort_seconds, len(cells))
        detected_cell = cell_of[len(effort) :]
        order = np.argsort(detected_cell, kind="stable")
        sorted_cells, sorted_labels = detected_cell[order], self.detected_label[order]
        for begin in range(0, len(cells), _CELLS_AT_ONCE):
            end = min(begin + _CELLS_AT_ONCE, len(cells))
            rows = slice(*np.searchsorted(sorted_cells, [begin, end]).tolist())
            counts = _counts((sorted_cells[rows] - begin, end - begin), (sorted_labels[rows], len(self.labels)))
            for cell, count in zip(range(begin, end), counts, strict=True):
                texts = tuple(self._key_text(key, int(value)) for key, value in zip(keys, cells[cell], strict=True))
                yield texts, float(seconds[cell]) / 3600, count

    def _key_columns(self, keys: Sequence[SummaryKey], site: IntArray, day: IntArray, hour: IntArray) -> IntArray:
        columns: dict[str, Any] = {"site": site, "day": day, "hour": hour}
        if "week" in keys:  # its first day; 1 January of the year 1 was a Monday
            columns["week"] = np.where(day == UNKNOWN_TIME, day, day - (day - 1) % 7)
        if "month" in keys:
            first = {number: date.fromordinal(number).replace(day=1).toordinal() for number in set(day.tolist()) - {-1}}
            columns["month"] = np.array([first.get(number, UNKNOWN_TIME) for number in day.tolist()], np.int64)
        return np.stack([columns[key] for key in keys], axis=1).reshape(-1, len(keys))

    def _key_text(self, key: SummaryKey, value: int) -> str:
        if key == "site":
            return self.sites[value]
        if value == UNKNOWN_TIME:
            return ""
        if key == "hour":
            return str(value)
        day = date.fromordinal(value)
        year, week, _ = day.isocalendar()
        return {"day": day.isoformat(), "week": f"{year}-W{week:02d}", "month": day.isoformat()[:7]}[key]


@dataclass(frozen=True)
class Accumulation:
    """Labels found after each day of recording at a site."""

    in_order: IntArray
    """(n_site_days,): in the order of time."""
    expected: FloatArray
    """(n_site_days,): mean over all orders."""


def expected_accumulation(n_units: IntArray, n_total: int) -> FloatArray:
    """The number of labels expected in 1, 2, ... `n_total` units, which are drawn at random without replacement.

    Parameters
    ----------
    n_units : int array of shape (n_labels,)
        Units in which each label occurs.
    n_total : int

    References
    ----------
    Colwell, Mao and Chang, "Interpolating, extrapolating, and comparing incidence-based species accumulation curves",
    Ecology 2004 (Mao's tau).

    Examples
    --------
    >>> expected_accumulation(np.array([1, 2]), 2)
    array([1.5, 2. ])
    """
    expected = np.zeros(n_total)
    drawn = np.arange(1, n_total + 1)
    for count, n_labels in zip(*np.unique(n_units[n_units > 0], return_counts=True), strict=True):
        others = n_total - count
        possible = drawn <= others  # otherwise some of the drawn units contain the label
        log_missed = (
            gammaln(others + 1)
            - gammaln(others - drawn[possible] + 1)
            + gammaln(n_total - drawn[possible] + 1)
            - gammaln(n_total + 1)
        )
        missed = np.zeros(n_total)
        missed[possible] = np.exp(log_missed)
        expected += n_labels * (1 - missed)
    return expected


def _day_and_hour(moment: datetime | None) -> tuple[int, int]:
    return (UNKNOWN_TIME, UNKNOWN_TIME) if moment is None else (moment.toordinal(), moment.hour)


def _counts(*axes: tuple[IntArray, int]) -> IntArray:
    """How often each combination of indices occurs; each axis has indices and a size."""
    sizes = tuple(size for _, size in axes)
    flat = np.ravel_multi_index([indices for indices, _ in axes], sizes) if all(sizes) else np.zeros(0, np.int64)
    return np.bincount(flat, minlength=int(np.prod(sizes))).reshape(sizes)
