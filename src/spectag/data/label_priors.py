"""Priors of labels: how much more or less likely a label is at a site, in a region, or at a time of the year."""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from spectag.array_types import Float32Array, FloatArray
from spectag.data.labels import LabelSet
from spectag.data.readers.columns import open_manifest_table
from spectag.data.readers.delimited_text import Table, abbreviate
from spectag.data.readers.text_files import read_text, shorten
from spectag.data.sites import RecordingPlace, composed
from spectag.errors import DataError

N_WEEKS = 48
"""Four of each month, as in BirdNET: from the 1st, 8th, 15th and 22nd day."""
MAX_FACTOR = 1e6
_MAX_COMPARED = 3_000  # lines of a label with ranges of positions, which are compared pairwise
_COLUMNS = {
    "label": ("label", "species", "class", "common_name"),
    "site": ("site",),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng", "long"),
    "weeks": ("weeks", "week"),
    "prior": ("prior", "factor"),
}
PRIOR_COLUMNS = tuple(_COLUMNS)
_RANGE = re.compile(r"\s*(.+?)\s*(?:\.\.+|…|:|\bto\b)\s*(.+?)\s*", re.IGNORECASE)
_WEEK_RANGE = re.compile(r"\s*(\d{1,4})\s*(?:(?:\.\.+|…|:|-|–|\bto\b)\s*(\d{1,4}))?\s*", re.IGNORECASE)

Range = tuple[float, float]


@dataclass(frozen=True)
class PriorLine:
    """A factor for the odds of a label, and the recordings to which it applies."""

    line: int
    label: str
    factor: float
    site: str | None = None
    """None: all sites."""
    latitude: Range | None = None
    """From south to north, in degrees, with both ends; None: everywhere."""
    longitude: Range | None = None
    """From west to east, in degrees, with both ends. The west is larger if the range crosses the date line."""
    weeks: frozenset[int] | None = None
    """From 1 to 48; None: all year."""
    fields: tuple[str, ...] = ()
    """The fields of the line, in the order of `PRIOR_COLUMNS`."""

    @property
    def specificity(self) -> tuple[bool, bool, bool]:
        """Of several lines that apply to a recording, the one with the largest specificity counts."""
        return self.site is not None, self.has_position, self.weeks is not None

    @property
    def has_position(self) -> bool:
        """Whether it applies to a region."""
        return self.latitude is not None or self.longitude is not None

    def applies_to(self, place: RecordingPlace) -> bool:
        """Whether it applies to a recording. A line that needs a week or a position that is unknown does not."""
        return (
            (self.site is None or self.site == place.site)
            and (self.latitude is None or _contains(self.latitude, place.latitude))
            and (self.longitude is None or _is_between(self.longitude, place.longitude))
            and (self.weeks is None or (place.day is not None and week_of(place.day) in self.weeks))
        )

    def overlaps(self, other: "PriorLine") -> bool:
        """Whether both may apply to one recording, if both have the same label and specificity."""
        return (
            self.site == other.site
            and (self.weeks is None or other.weeks is None or not self.weeks.isdisjoint(other.weeks))
            and _ranges_overlap(self.latitude, other.latitude)
            and (
                self.longitude is None
                or other.longitude is None
                or any(
                    _ranges_overlap(own, its) for own in _unrolled(self.longitude) for its in _unrolled(other.longitude)
                )
            )
        )


@dataclass(frozen=True, eq=False)
class LabelPriors:
    """The priors of the labels of a model, as factors of their odds."""

    source: Path
    lines: tuple[PriorLine, ...]
    """Less specific lines come first."""
    labels: LabelSet
    """Of the model."""
    sha256: str
    """Of the table."""

    def factors(self, place: RecordingPlace) -> FloatArray:
        """The factor of the odds of each label for a recording, (n_labels,); 1 without a line that applies."""
        factors = np.ones(len(self.labels))
        for line, column in zip(self.lines, self._columns, strict=True):
            if line.applies_to(place):
                factors[column] = line.factor
        return factors

    @cached_property
    def _columns(self) -> list[int]:
        columns = {label: column for column, label in enumerate(self.labels.names)}
        return [columns[line.label] for line in self.lines]

    def what_matters(self, place: RecordingPlace) -> RecordingPlace:
        """A place with the same factors as this one, and as many others have: few different ones in a run."""
        has_position = self.needs_position and place.latitude is not None and place.longitude is not None
        return RecordingPlace(
            place.site if place.site in self.sites else "",
            None,
            first_day_of(week_of(place.day)) if self.needs_week and place.day is not None else None,
            place.latitude if has_position else None,
            place.longitude if has_position else None,
        )

    @cached_property
    def needs_week(self) -> bool:
        """Whether a line is for some weeks only."""
        return any(line.weeks is not None for line in self.lines)

    @cached_property
    def needs_position(self) -> bool:
        """Whether a line is for a region only."""
        return any(line.has_position for line in self.lines)

    @cached_property
    def sites(self) -> frozenset[str]:
        """The sites that lines name."""
        return frozenset(line.site for line in self.lines if line.site is not None)


def week_of(day: date) -> int:
    """The week of a day, from 1 to 48: four of each month, from the 1st, 8th, 15th and 22nd day.

    Examples
    --------
    >>> week_of(date(2024, 1, 1)), week_of(date(2024, 5, 31)), week_of(date(2024, 12, 22))
    (1, 20, 48)
    """
    return 4 * (day.month - 1) + min((day.day - 1) // 7, 3) + 1


def first_day_of(week: int) -> date:
    """The first day of a week from 1 to 48, of any year."""
    return date(2000, (week - 1) // 4 + 1, (week - 1) % 4 * 7 + 1)


def multiplied_odds(probabilities: Float32Array, factors: FloatArray) -> Float32Array:
    """Probabilities (n, n_labels) after their odds are multiplied by factors (n_labels,). A factor of 0 gives 0.

    Examples
    --------
    >>> multiplied_odds(np.array([[0.5, 0.8, 0.3]], np.float32), np.array([0.25, 1.0, 0.0]))
    array([[0.2, 0.8, 0. ]], dtype=float32)
    """
    result = probabilities.copy()
    for column in np.flatnonzero(factors != 1):  # column by column: a day of all labels needs much memory
        values = probabilities[:, column].astype(np.float64)
        result[:, column] = factors[column] * values / (1 - values + factors[column] * values) if factors[column] else 0
    return result


def read_label_priors(table: str | Path, labels: LabelSet) -> LabelPriors:
    """Read a table of priors: label, prior, and optionally site, latitude, longitude and weeks.

    Parameters
    ----------
    table : path
        A table with commas, semicolons, tabs or |. `prior` is a factor of the odds: 1 changes nothing, 0.1 makes the
        label less likely, 0 hides it. `latitude` and `longitude` are ranges of degrees such as 46..48, and `weeks` a
        range of BirdNET's 48 weeks, such as 13..30, or 45..4 over the new year. An empty field means everywhere or
        always.
    labels : LabelSet
        Of the model.

    Raises
    ------
    DataError
        If a column is missing, a value is impossible, a label is unknown, or two lines that are equally specific may
        apply to one recording.
    """
    source = Path(table)
    text = read_text(source)
    opened = open_manifest_table(source, text)
    positions = {name: position for name in _COLUMNS if (position := opened.position(*_COLUMNS[name])) is not None}
    if missing := [name for name in ("label", "prior") if name not in positions]:
        raise DataError(
            f"{source}: no column {missing[0]}; expected label, prior, and optionally site, latitude, longitude and "
            f"weeks. The columns are {abbreviate(opened.columns)}"
        )
    lines = sorted(_lines(opened, positions, labels), key=lambda line: line.specificity)
    if not lines:
        raise DataError(f"{source}: the table has no priors; expected a line for each")
    _check_unambiguous(source, lines)
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return LabelPriors(source, tuple(lines), labels, sha256)


def _lines(table: Table, positions: Mapping[str, int], labels: LabelSet) -> Iterator[PriorLine]:
    for number, fields in table.records:
        where = f"{table.path}, line {number}"
        texts = {name: fields[position].strip() for name, position in positions.items()}
        labels.index(texts["label"], where=where)
        latitude, longitude, weeks = (texts.get(name, "") for name in ("latitude", "longitude", "weeks"))
        yield PriorLine(
            number,
            texts["label"],
            _factor(texts["prior"], where),
            composed(texts.get("site", "")) or None,
            _degrees(latitude, 90, "latitude", where) if latitude else None,
            _degrees(longitude, 180, "longitude", where) if longitude else None,
            _weeks(weeks, where) if weeks else None,
            tuple(texts.get(name, "") for name in PRIOR_COLUMNS),
        )


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def _factor(text: str, where: str) -> float:
    factor = _number(text)
    if not 0 <= factor <= MAX_FACTOR:
        raise DataError(
            f"{where}: the prior is '{shorten(text)}'; expected a factor of the odds from 0, which hides the label, to "
            f"{MAX_FACTOR:,.0f}; 1 changes nothing"
        )
    return factor


def _degrees(text: str, most: float, name: str, where: str) -> Range:
    match = _RANGE.fullmatch(text)
    low, high = (_number(end) for end in (match.groups() if match else ("", "")))
    is_reversed = low > high and name == "latitude"
    if not (abs(low) <= most and abs(high) <= most) or is_reversed:
        raise DataError(
            f"{where}: the {name} is '{shorten(text)}'; expected a range of degrees such as 46..48, from "
            f"{'south to north' if name == 'latitude' else 'west to east'}, within -{most:g} and {most:g}"
        )
    return low, high


def _weeks(text: str, where: str) -> frozenset[int]:
    match = _WEEK_RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= first <= N_WEEKS and 1 <= last <= N_WEEKS):
        raise DataError(
            f"{where}: the weeks are '{shorten(text)}'; expected a range such as 13..30, from 1 to {N_WEEKS}: four "
            "weeks of each month as in BirdNET, not those of a calendar"
        )
    if first <= last:
        return frozenset(range(first, last + 1))
    return frozenset([*range(first, N_WEEKS + 1), *range(1, last + 1)])


def _contains(limits: Range, value: float | None) -> bool:
    return value is not None and limits[0] <= value <= limits[1]


def _unrolled(longitude: Range) -> tuple[Range, ...]:
    """The range, or its parts on both sides of the date line."""
    west, east = longitude
    return (longitude,) if west <= east else ((west, 180.0), (-180.0, east))


def _is_between(longitude: Range, value: float | None) -> bool:
    return any(_contains(part, value) for part in _unrolled(longitude))


def _ranges_overlap(first: Range | None, second: Range | None) -> bool:
    """Whether two ranges have more than an end in common, or are one place."""
    if first is None or second is None:
        return True
    return max(first[0], second[0]) < min(first[1], second[1]) or first == second


def _check_unambiguous(source: Path, lines: Sequence[PriorLine]) -> None:
    """Raise a DataError if two equally specific lines of a label may apply to one recording, with different factors."""
    groups: dict[tuple[object, ...], list[PriorLine]] = defaultdict(list)
    for line in lines:
        groups[line.label, line.specificity, line.site].append(line)
    for same in groups.values():
        if same[0].has_position and len(same) > _MAX_COMPARED:
            raise DataError(f"{source}: {len(same):,} regions of {same[0].label}; expected at most {_MAX_COMPARED:,}")
        pairs = combinations(same, 2) if same[0].has_position else _of_one_week(same)
        for first, second in pairs:
            if first.factor != second.factor and first.overlaps(second):
                raise DataError(
                    f"{source}, line {second.line}: {shorten(second.label)} has another prior in line {first.line} for "
                    "some of the same recordings; keep one of the lines, or let their weeks or regions not overlap"
                )


def _of_one_week(lines: Sequence[PriorLine]) -> Iterator[tuple[PriorLine, PriorLine]]:
    """Pairs of lines without regions that have a week in common: at least one of each conflict."""
    of_week: dict[int, PriorLine] = {}
    for line in lines:
        for week in line.weeks or (0,):
            if week in of_week:
                yield of_week[week], line
            of_week[week] = line
