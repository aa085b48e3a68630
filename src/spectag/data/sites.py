"""Where and when a recording was made: its site, its start, and the times of its sounds."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from spectag.audio.recording_metadata import read_recording_info
from spectag.errors import ConfigError, DataError

_BEFORE_DATE = re.compile(r"(.*?)[-_ .]*(?:19|20)\d\d[-_.]?\d\d[-_.]?\d\d")


@dataclass(frozen=True)
class RecordingPlace:
    """The site of a recording, and when it starts."""

    site: str
    start: datetime | None
    """By the clock of the recorder; None: unknown."""
    day: date | None = None
    """On which it starts, also if the time is unknown; None: unknown."""
    latitude: float | None = None
    """Degrees north, as the file says; None: unknown."""
    longitude: float | None = None
    """Degrees east."""

    def time_of(self, seconds: float) -> datetime | None:
        """The time of a sound that starts some seconds after the recording; None: unknown, or after the year 9999."""
        if self.start is None:
            return None
        try:
            if self.start.tzinfo is None:
                return self.start + timedelta(seconds=seconds)
            # in UTC, because clocks may be changed in between
            return (self.start.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(self.start.tzinfo)
        except OverflowError:
            return None

    def fields(self, seconds: float) -> tuple[str, str]:
        """When a sound in the recording starts, in ISO 8601, and the site; as `place_in_table` reads them."""
        time = self.time_of(round(seconds, 3))
        if time is None:
            return "", self.site
        return time.isoformat(timespec="milliseconds" if time.microsecond else "seconds"), self.site


@lru_cache(maxsize=1 << 16)
def place_of(path: Path, site_from: str | None = None) -> RecordingPlace:
    """The site and the start of a recording.

    Parameters
    ----------
    path : Path
    site_from : str, optional
        A regular expression that is searched in the path; its first group, or else the whole match, is the site. By
        default the site is the part of the file name before its date, or the folder if nothing is before it.

    Raises
    ------
    ConfigError
        If `site_from` is not a regular expression, or is not found in the path.
    """
    info = read_recording_info(path)
    return RecordingPlace(_site(path, site_from), info.start, info.day, info.latitude, info.longitude)


def place_in_table(site: str, recorded: str, start_seconds: float, where: str) -> RecordingPlace:
    """The site and the start of a recording, from the time of a sound that starts after so many seconds.

    Raises
    ------
    DataError
        If `recorded` is neither empty nor a time in ISO 8601. The message starts with `where`.
    """
    if not recorded:
        return RecordingPlace(site, None)
    try:
        start = datetime.fromisoformat(recorded) - timedelta(seconds=round(start_seconds, 3))
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{where}: recorded is {recorded[:60]!r}; expected a time in ISO 8601, such as 2024-05-01T05:30:00"
        ) from error
    return RecordingPlace(site, start, start.date())


def check_site_pattern(site_from: str) -> re.Pattern[str]:
    """The regular expression.

    Raises
    ------
    ConfigError
        If it is none.
    """
    try:
        return re.compile(site_from)
    except re.error as error:
        raise ConfigError(f"site_from: {site_from!r} is not a regular expression: {error}") from error


def composed(name: str) -> str:
    """A name with composed letters: macOS writes the ü of a file name as u and two dots."""
    return unicodedata.normalize("NFC", name)


def _site(path: Path, site_from: str | None) -> str:
    if site_from is None:
        match = _BEFORE_DATE.match(path.stem)
        return composed((match[1] if match else "") or path.absolute().parent.name)
    found = check_site_pattern(site_from).search(composed(path.as_posix()))
    if found is None:
        raise ConfigError(f"site_from: {site_from!r} is not found in {path}; expected a part of each path")
    return found[1] if found.re.groups and found[1] is not None else found[0]
