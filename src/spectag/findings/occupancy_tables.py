"""Detection histories with effort for occupancy models, as R's packages unmarked and camtrapR read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePath

import numpy as np

from spectag.array_types import FloatArray, IntArray
from spectag.errors import DataError
from spectag.findings.activity import UNKNOWN_TIME, Activity
from spectag.findings.file_names import file_name_of, unused_name
from spectag.findings.summary_results import Summary, clock_time
from spectag.system.output import csv_writer, open_output

MAX_OCCASIONS = 3_660
_HOURS_PER_DAY = 24.0
_AFTER_MIDNIGHT = "00:00:01"  # camtrapR counts a record at midnight in the occasion that ends then


@dataclass(frozen=True)
class OccupancyData:
    """Whether each label was detected at each site on each occasion, and how long was recorded."""

    first_day: int
    """Ordinal of the first day of the first occasion."""
    occasion_days: int
    hours: FloatArray
    """(n_sites, n_occasions)"""
    detected: tuple[frozenset[tuple[int, int]], ...]
    """Of each label: the sites and occasions with a detection and effort."""

    @classmethod
    def of(cls, summary: Summary) -> "OccupancyData | None":
        """The detection histories of a summary; None if nothing was recorded at a known time.

        Raises
        ------
        DataError
            If there are too many occasions, as a recorder with a wrong clock causes.
        """
        activity, days = summary.activity, summary.settings.occasion_days
        if not len(activity.days):
            return None
        first, last = int(activity.days[0]), int(activity.days[-1])
        n_occasions = (last - first) // days + 1
        if n_occasions > MAX_OCCASIONS:
            ends = " to ".join(date.fromordinal(day).isoformat() for day in (first, last))
            raise DataError(
                f"{summary.source}: from {ends} there are {n_occasions:,} occasions of {days} days; expected at most "
                f"{MAX_OCCASIONS:,}. Leave out recordings of recorders whose clock was wrong, or set --occasion-days"
            )
        hours = np.zeros((len(activity.sites), n_occasions))
        np.add.at(hours, (activity.effort_site, (activity.effort_day - first) // days), activity.effort_seconds / 3600)
        return cls(first, days, hours, _detected(activity, first, days, hours))

    def history(self, label: int, site: int) -> list[str]:
        """1, 0, or NA where nothing was recorded, for each occasion."""
        return [
            "NA" if hours == 0 else "1" if (site, occasion) in self.detected[label] else "0"
            for occasion, hours in enumerate(self.hours[site].tolist())
        ]


def _detected(activity: Activity, first: int, days: int, hours: FloatArray) -> tuple[frozenset[tuple[int, int]], ...]:
    found: list[set[tuple[int, int]]] = [set() for _ in activity.labels]
    is_known = activity.detected_day != UNKNOWN_TIME
    rows: IntArray = np.stack([activity.detected_label, activity.detected_site, activity.detected_day], axis=1)[
        is_known
    ]
    for label, site, day in np.unique(rows, axis=0).tolist():
        occasion = (day - first) // days
        if 0 <= occasion < hours.shape[1] and hours[site, occasion] > 0:
            found[label].add((site, occasion))
    return tuple(map(frozenset, found))


def write_unmarked(summary: Summary, occupancy: OccupancyData, folder: Path) -> None:
    """Write a table for each label as `csvToUMF(file, long = FALSE, type = "unmarkedFrameOccu")` reads it.

    A row is a site: y.1, y.2, ... are the detections of the occasions, effort.1, ... their recorded hours, an
    observation covariate. Latitude and longitude are site covariates, if they are known.
    """
    numbers = range(1, occupancy.hours.shape[1] + 1)
    has_places = any(site.latitude is not None for site in summary.sites)
    columns = ["site", *(f"y.{number}" for number in numbers), *(["latitude", "longitude"] * has_places)]
    columns += [f"effort.{number}" for number in numbers]
    used: set[str] = set()
    for label, name in enumerate(summary.activity.labels):
        stem = unused_name(file_name_of(name), used)
        used.add(stem.casefold())
        with open_output(folder / f"{stem}.csv") as out:
            write_row = csv_writer(out)
            write_row(columns)
            for number, site in enumerate(summary.sites):
                degrees = (site.latitude, site.longitude) if has_places else ()
                place = ("NA" if value is None else repr(value) for value in degrees)
                effort = (f"{hours:.6f}" for hours in occupancy.hours[number].tolist())
                write_row([site.site, *occupancy.history(label, number), *place, *effort])


def write_camtrapr(summary: Summary, occupancy: OccupancyData, folder: Path) -> None:
    """Write the three tables from which camtrapR's `detectionHistory` makes a detection history.

    records.csv is its `recordTable`, stations.csv its table of stations, and operation.csv its `camOp` matrix with the
    fraction of each day that was recorded: NA before the first and after the last recording of a station.
    """
    _write_records(summary, folder / "records.csv")
    daily = _daily_hours(summary.activity)
    days = range(int(summary.activity.days[0]), int(summary.activity.days[-1]) + 1)
    with open_output(folder / "stations.csv") as stations, open_output(folder / "operation.csv") as operation:
        write_station, write_operation = csv_writer(stations), csv_writer(operation)
        write_station(["Station", "latitude", "longitude", "Setup_date", "Retrieval_date"])
        write_operation(["", *map(_day_text, days)])
        for number, site in enumerate(summary.sites):
            own = sorted(day for of_site, day in daily if of_site == number)
            if not own:
                continue
            place = ("" if degrees is None else repr(degrees) for degrees in (site.latitude, site.longitude))
            write_station([site.site, *place, _day_text(own[0]), _day_text(own[-1])])
            fractions = ((day, daily.get((number, day), 0.0) / _HOURS_PER_DAY) for day in days)
            cells = (f"{fraction:.6g}" if own[0] <= day <= own[-1] else "NA" for day, fraction in fractions)
            write_operation([site.site, *cells])


def _write_records(summary: Summary, path: Path) -> None:
    of_path = {
        recording.path: (recording, str(PurePath(recording.file).parent), PurePath(recording.file).name)
        for recording in summary.effort.recordings
        if recording.is_effort
    }
    with open_output(path) as out:
        write_row = csv_writer(out)
        write_row(["Station", "Species", "DateTimeOriginal", "Date", "Time", "Directory", "FileName", "probability"])
        for detection in summary.detections:
            if detection.path not in of_path:
                continue
            recording, folder, name = of_path[detection.path]
            moment = recording.time_of(detection.start_seconds)
            if moment is None:
                continue
            day, time = clock_time(moment).isoformat(" ", "seconds").split(" ")
            time = _AFTER_MIDNIGHT if time == "00:00:00" else time
            probability = "" if detection.probability is None else f"{detection.probability:.6f}"
            write_row([recording.site, detection.label, f"{day} {time}", day, time, folder, name, probability])


def _daily_hours(activity: Activity) -> dict[tuple[int, int], float]:
    """Recorded hours by number of the site, and day."""
    daily: dict[tuple[int, int], float] = {}
    columns: Sequence[list[float]] = [column.tolist() for column in (activity.effort_site, activity.effort_day)]
    for site, day, seconds in zip(*columns, activity.effort_seconds.tolist(), strict=True):
        daily[int(site), int(day)] = daily.get((int(site), int(day)), 0.0) + seconds / 3600
    return daily


def _day_text(day: int) -> str:
    return date.fromordinal(day).isoformat()
