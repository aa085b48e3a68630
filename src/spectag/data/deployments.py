"""Tables of deployments: which recorder was where, and from when to when."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from pathlib import Path

from spectag.data.readers.columns import open_manifest_table
from spectag.data.readers.delimited_text import Table, abbreviate
from spectag.data.readers.text_files import read_text, shorten
from spectag.data.sites import RecordingPlace, composed, place_of
from spectag.errors import DataError
from spectag.system.output import text_problem

_COLUMNS = {
    "site": ("site", "station", "site_id", "site_name", "locationID", "locationName", "location", "plot"),
    "recorder": ("recorder", "recorder_id", "device", "device_id", "serial", "serial_number", "deviceID", "cameraID"),
    "latitude": ("latitude", "lat", "decimalLatitude"),
    "longitude": ("longitude", "lon", "lng", "long", "decimalLongitude"),
    "start": ("start", "deploymentStart", "start_time", "setup", "setup_date", "begin", "start_date"),
    "end": ("end", "deploymentEnd", "end_time", "retrieval", "retrieval_date", "end_date"),
}
_DAY_FIRST = re.compile(r"^(\d{1,2})\.(\d{1,2})\.(\d{4})\b")


@dataclass(frozen=True)
class Deployment:
    """A recorder at a site, from start to end."""

    site: str
    latitude: float | None = None
    longitude: float | None = None
    start: datetime | None = None
    """Local time of the recorder, or with a time zone; None: since ever."""
    end: datetime | None = None
    """Not included; None: for ever."""
    recorder: str | None = None
    """What file names contain instead of the site."""

    def contains(self, moment: datetime) -> bool:
        """Whether a time is within the deployment. If only one of two times has a zone, clock times are compared."""
        return (self.start is None or not _is_before(moment, self.start)) and (
            self.end is None or _is_before(moment, self.end)
        )


@dataclass(frozen=True)
class Deployments:
    """All deployments of a table."""

    source: Path
    rows: tuple[Deployment, ...]

    def of(self, name: str, start: datetime | None) -> Deployment | None:
        """The deployment of a recording, by the site or recorder in its path, and its start.

        None if there is no such deployment, or if an unknown start leaves several sites.
        """
        named = [row for row in self.rows if name in (row.site, row.recorder)]
        if start is not None:
            return next((row for row in named if row.contains(start)), None)
        return named[0] if len({(row.site, row.latitude, row.longitude) for row in named}) == 1 else None


class PlaceFinder:
    """Finds the places of recordings from their names, their metadata and a table of deployments.

    Parameters
    ----------
    site_from : str, optional
        As for `place_of`.
    deployments : Deployments, optional
        Their sites, latitudes and longitudes take precedence.
    """

    def __init__(self, site_from: str | None = None, deployments: Deployments | None = None) -> None:
        self.site_from, self.deployments = site_from, deployments
        self.not_deployed: dict[str, str] = {}
        """Recordings that belong to no deployment, with the site or recorder in their paths."""

    def check(self, files: Sequence[str]) -> None:
        """Raise a ConfigError if the site is not found in one of the paths, before any work is done."""
        for file in files if self.site_from is not None else ():
            place_of(Path(file), self.site_from)

    def place_of(self, path: Path) -> RecordingPlace:
        """The place of a recording."""
        return self.deployed(place_of(path, self.site_from), str(path))

    def deployed(self, place: RecordingPlace, file: str) -> RecordingPlace:
        """A place with the site and the position of its deployment, if there is one."""
        if self.deployments is None:
            return place
        deployment = self.deployments.of(place.site, place.start)
        if deployment is None:
            self.not_deployed[file] = place.site
            return place
        if deployment.latitude is None:
            return replace(place, site=deployment.site)
        return replace(place, site=deployment.site, latitude=deployment.latitude, longitude=deployment.longitude)


def read_deployments(table: str | Path) -> Deployments:
    """Read a table of deployments: site, and optionally latitude, longitude, start, end and recorder.

    Parameters
    ----------
    table : path
        A table with commas, semicolons, tabs or |. Names of Camtrap DP and camtrapR (locationID, deploymentStart,
        Station, Setup_date, ...) are understood, too. Times are ISO 8601, with a time zone or without. A day as `end`
        is included. If a file name contains the recorder instead of the site, `recorder` says how.

    Raises
    ------
    DataError
        If there is no column of sites, a value is impossible, or two deployments of a recorder overlap at two sites.
    """
    source = Path(table)
    opened = open_manifest_table(source, read_text(source))
    positions = {name: position for name in _COLUMNS if (position := opened.position(*_COLUMNS[name])) is not None}
    if "site" not in positions:
        raise DataError(
            f"{source}: no column site; expected site, and optionally latitude, longitude, start, end and recorder. "
            f"The columns are {abbreviate(opened.columns)}"
        )
    if ("latitude" in positions) != ("longitude" in positions):
        raise DataError(f"{source}: latitude and longitude belong together; add the other column")
    rows = tuple(_deployments(opened, positions))
    if not rows:
        raise DataError(f"{source}: the table has no deployments; expected a line for each")
    _check_overlaps(source, rows)
    return Deployments(source, rows)


def parse_moment(text: str, where: str, *, is_end: bool = False) -> datetime:
    """A time in ISO 8601, or with the day as 31.5.2024, as Excel may save it.

    A day alone is its first moment, or with `is_end` that of the next day.

    Raises
    ------
    DataError
        If it is none.
    """
    iso = _DAY_FIRST.sub(lambda match: f"{match[3]}-{match[2]:0>2}-{match[1]:0>2}", text)
    try:
        if len(iso) == len("2024-05-01"):
            return datetime.combine(date.fromisoformat(iso), time()) + timedelta(days=is_end)
        return datetime.fromisoformat(iso)
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{where}: the time is '{shorten(text)}'; expected ISO 8601, such as 2024-05-01 05:30 or "
            "2024-05-01T05:30:00+02:00"
        ) from error


def _deployments(table: Table, positions: dict[str, int]) -> list[Deployment]:
    rows = []
    for line, fields in table.records:
        where = f"{table.path}, line {line}"
        texts = {name: composed(fields[position].strip()) for name, position in positions.items()}
        site = texts["site"]
        if not site or text_problem(site) is not None:
            raise DataError(f"{where}: the site is '{shorten(site)}'; expected the name of a place")
        latitude = _degrees(texts.get("latitude", ""), 90, "latitude", where)
        longitude = _degrees(texts.get("longitude", ""), 180, "longitude", where)
        if (latitude is None) != (longitude is None):
            raise DataError(f"{where}: latitude and longitude belong together; fill in the other one")
        start = parse_moment(texts["start"], where) if texts.get("start") else None
        end = parse_moment(texts["end"], where, is_end=True) if texts.get("end") else None
        if start is not None and end is not None and not _is_before(start, end):
            raise DataError(f"{where}: the deployment ends at {end} but starts at {start}; expected an end after it")
        rows.append(Deployment(site, latitude, longitude, start, end, texts.get("recorder") or None))
    return rows


def _degrees(text: str, most: float, name: str, where: str) -> float | None:
    if not text:
        return None
    try:
        degrees = float(text.replace(",", "."))
    except ValueError:
        degrees = math.nan
    if not abs(degrees) <= most:
        raise DataError(
            f"{where}: the {name} is '{shorten(text)}'; expected decimal degrees from -{most:g} to {most:g}, such as "
            "47.51"
        )
    return degrees


def _is_before(first: datetime, second: datetime) -> bool:
    if (first.tzinfo is None) != (second.tzinfo is None):
        first, second = first.replace(tzinfo=None), second.replace(tzinfo=None)
    return first < second


def _check_overlaps(source: Path, rows: Sequence[Deployment]) -> None:
    """Raise a DataError if a recorder was at two sites at once."""
    of_recorder: dict[str, list[Deployment]] = defaultdict(list)
    for row in rows:
        if row.recorder is not None:
            of_recorder[row.recorder].append(row)
    for recorder, own in of_recorder.items():
        for index, row in enumerate(own):
            for other in own[index + 1 :]:
                starts_before_end = (
                    first.start is None or second.end is None or _is_before(first.start, second.end)
                    for first, second in ((row, other), (other, row))
                )
                if row.site != other.site and all(starts_before_end):
                    raise DataError(
                        f"{source}: the recorder {shorten(recorder)} is at {shorten(row.site)} and at "
                        f"{shorten(other.site)} at the same time; correct start and end"
                    )
