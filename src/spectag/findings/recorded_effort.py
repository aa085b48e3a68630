"""The recordings of a table of detections, with their sites, local times and lengths."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from zoneinfo import ZoneInfo

from spectag.audio.files import audio_info, find_audio
from spectag.data.deployments import PlaceFinder, parse_moment
from spectag.data.detections import PLACE_COLUMNS, DetectionTable
from spectag.data.readers.delimited_text import Table, open_table
from spectag.data.readers.file_finder import FileFinder
from spectag.data.readers.text_files import read_text, shorten
from spectag.data.sites import RecordingPlace, place_of
from spectag.errors import DataError
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Progress, silent

_STATUS_COLUMNS = ("file", "status", "seconds")
_MAX_SECONDS = 400 * 86_400.0  # of a recording; damaged headers claim more


@dataclass(frozen=True)
class SummarisedRecording:
    """A recording, whether or not anything was detected in it."""

    path: Path
    file: str
    """Its name in a table, or else its path."""
    site: str
    start: datetime | None
    """Local; with a time zone if it is known; None: unknown."""
    seconds: float | None
    """Its length; None: unknown."""
    latitude: float | None = None
    longitude: float | None = None

    def time_of(self, seconds: float) -> datetime | None:
        """Local time of a sound that starts after so many seconds; None: unknown."""
        return RecordingPlace(self.site, self.start).time_of(seconds)

    @property
    def is_effort(self) -> bool:
        """Whether it is known when it was recorded, and for how long."""
        return self.start is not None and self.seconds is not None


@dataclass(frozen=True)
class RecordedEffort:
    """All recordings, and what is wrong with some of them."""

    recordings: tuple[SummarisedRecording, ...]
    skipped: tuple[str, ...] = ()
    """Recordings that were not tagged, or whose time or length is unknown, with the reason."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Status:
    """A row of status.csv."""

    file: str
    seconds: float | None
    is_tagged: bool
    place: RecordingPlace | None


@dataclass
class Clock:
    """Converts times of recordings to local time.

    Parameters
    ----------
    local : ZoneInfo, optional
        Time zone of days and hours.
    recorder : ZoneInfo, optional
        Of times that state no zone; by default `local`.
    """

    local: ZoneInfo | None = None
    recorder: ZoneInfo | None = None

    def local_time(self, time: datetime) -> datetime:
        """The local time, with its zone if one is known."""
        if time.tzinfo is None:
            zone = self.recorder or self.local
            time = time if zone is None else time.replace(tzinfo=zone)
        if time.tzinfo is None or self.local is None:
            return time
        try:
            return time.astimezone(self.local)
        except OverflowError:  # at the ends of the calendar
            return time


@dataclass
class EffortReader:
    """Collects recordings from a table of detections, status tables and folders, each once."""

    places: PlaceFinder
    clock: Clock
    audio_dir: Path | None = None
    progress: Progress = silent
    _files: dict[Path, str] = field(default_factory=dict)
    _statuses: dict[Path, _Status] = field(default_factory=dict)
    _moved: dict[Path, Path] = field(default_factory=dict)
    """Where recordings are that are not where the tables say."""

    def read(
        self, table: DetectionTable, status_tables: Iterable[Path], folders: Sequence[str | Path]
    ) -> RecordedEffort:
        """The recordings of all of them."""
        for detection in table.detections:
            self._files.setdefault(detection.path, detection.file)
        for path in table.recordings:
            self._files.setdefault(path, str(path))
        finder = FileFinder(self.audio_dir)
        for status_table in status_tables:
            for status in _read_status(status_table):
                path = (finder.find(status.file, status_table) or Path(status.file)).resolve()
                self._statuses[path] = status
                self._files.setdefault(path, status.file)
        if folders:
            self._add_found({path.resolve(): str(path) for path in find_audio(folders)})
        return self._collected(table)

    def _add_found(self, found: Mapping[Path, str]) -> None:
        """Add the recordings of folders; those of the tables that were moved there keep their names, and count once."""
        new: dict[str, list[Path]] = defaultdict(list)
        for path in found:
            if path not in self._files:
                new[path.name].append(path)
        for path, file in self._files.items():
            parts = PurePosixPath(file.replace("\\", "/")).parts
            if (candidates := new.get(parts[-1])) and not path.is_file():
                most = max(_n_common(candidate, parts) for candidate in candidates)
                best = [candidate for candidate in candidates if _n_common(candidate, parts) == most]
                if most >= min(2, len(parts)) and len(best) == 1:
                    self._moved[path] = best[0]
                    candidates.remove(best[0])
        for path in itertools.chain.from_iterable(new.values()):
            self._files[path] = found[path]

    def _collected(self, table: DetectionTable) -> RecordedEffort:
        recordings, skipped = [], []
        for number, (path, file) in enumerate(self._files.items()):
            self.progress("recordings", number, len(self._files))
            status = self._statuses.get(path)
            if status is not None and not status.is_tagged:
                skipped.append(f"{file}: spectag tag skipped it, so it is no effort")
                continue
            recording, reasons = self._recording(path, file, status, table.places.get(path))
            recordings.append(recording)
            skipped += [f"{file}: {'; '.join(reasons)}"] if reasons else []
        self.progress("recordings", len(self._files), len(self._files))
        return RecordedEffort(tuple(recordings), tuple(skipped), tuple(self._notes(recordings)))

    def _notes(self, recordings: Sequence[SummarisedRecording]) -> Iterator[str]:
        if n_untimed := sum(recording.start is None for recording in recordings):
            yield (
                f"the time of {n_untimed:,} of {len(recordings):,} recordings is unknown, so they count in no day or "
                "hour and in no rate; spectag reads it from names such as SITE_20240501_043000.wav"
            )
        if outside := self.places.not_deployed:
            file, site = next(iter(outside.items()))
            yield (
                f"{len(outside):,} recordings belong to no deployment, such as {file} (site {site}); they keep the "
                "site in their path"
            )

    def _recording(
        self, path: Path, file: str, status: _Status | None, known: RecordingPlace | None
    ) -> tuple[SummarisedRecording, list[str]]:
        """A recording, and what is unknown about it."""
        found_at = self._moved.get(path, path)
        place = self.places.deployed(self._merged(found_at, known or (None if status is None else status.place)), file)
        reasons = []
        start = None if place.start is None else self.clock.local_time(place.start)
        if start is None:
            reasons.append("its time is unknown, so it counts only in totals")
        seconds = status.seconds if status is not None else None
        if seconds is None:
            try:
                seconds = audio_info(found_at).duration_seconds
            except Exception as error:
                reasons.append(f"its length is unknown, so it is no effort: {_reason(found_at, error)}")
        if seconds is not None and not 0 <= seconds <= _MAX_SECONDS:
            reasons.append(f"its length is {seconds:g} s, so it is no effort")
            seconds = None
        return SummarisedRecording(path, file, place.site, start, seconds, place.latitude, place.longitude), reasons

    def _merged(self, path: Path, known: RecordingPlace | None) -> RecordingPlace:
        """What a table says of a recording, and what the recording and its name say."""
        if known is not None and self.places.site_from is None and not path.is_file():
            return known
        own = place_of(path, self.places.site_from)
        if known is None:
            return own
        site = own.site if self.places.site_from is not None else known.site
        return replace(own, site=site, start=known.start or own.start)


def _n_common(path: Path, parts: Sequence[str]) -> int:
    """How many last parts a path has in common with a name in a table."""
    is_same = (own == part for own, part in zip(reversed(path.parts), reversed(parts), strict=False))
    return sum(1 for _ in itertools.takewhile(bool, is_same))


def _reason(path: Path, error: Exception) -> str:
    return skip_reason(path, error).removeprefix(f"{path}: ")


def status_tables_beside(table: Path) -> list[Path]:
    """The status tables that `spectag tag` wrote beside a table."""
    candidates = [table.parent / f"{table.stem}.status.csv", *([table.parent / "status.csv"] * (table.stem == "tags"))]
    return [path for path in candidates if path.is_file()][:1]


def _read_status(path: Path) -> Iterator[_Status]:
    table = open_table(path, read_text(path), ",")
    missing = [name for name in _STATUS_COLUMNS if table.position(name) is None]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; expected a status.csv of spectag tag")
    for line, fields in table.records:
        values = {name: _field(table, fields, name) for name in (*_STATUS_COLUMNS, *PLACE_COLUMNS)}
        place = None
        if values["site"]:
            start = parse_moment(values["recorded"], f"{path}, line {line}") if values["recorded"] else None
            place = RecordingPlace(values["site"], start)
        yield _Status(values["file"], _seconds(values["seconds"], path, line), values["status"] != "skipped", place)


def _field(table: Table, fields: Sequence[str], name: str) -> str:
    position = table.position(name)
    return "" if position is None else fields[position]


def _seconds(text: str, path: Path, line: int) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0 or math.isinf(seconds):
        raise DataError(f"{path}, line {line}: seconds is '{shorten(text)}'; expected a number, 0 or more")
    return seconds


def hours_of(recording: SummarisedRecording) -> Iterator[tuple[datetime, float]]:
    """The parts of a recording in each hour of the clock: when the part starts, and its length in seconds.

    Where clocks are changed, an hour is missing, or its name comes twice.
    """
    if recording.start is None or recording.seconds is None:
        return
    left, moment = recording.seconds, recording.start
    while left > 0:
        to_next = 3600.0 - (moment.minute * 60 + moment.second + moment.microsecond / 1e6)
        part = min(left, to_next)
        yield moment, part
        left -= part
        if left <= 0:
            break
        try:
            moment = _later(moment, part)
        except OverflowError:  # after the year 9999
            break


def _later(moment: datetime, seconds: float) -> datetime:
    if moment.tzinfo is None:
        return moment + timedelta(seconds=seconds)
    return (moment.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(moment.tzinfo)
