"""Recording dates: from the name of a recording, otherwise from the modification time of its file."""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePath
from typing import NamedTuple

from spectag.system.storage import is_url

_DATE = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<dash>[-_.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:[-_T ]+(?P<hour>\d\d)(?P<colon>[-_.:h]?)(?P<minute>\d\d)(?:(?P=colon)(?P<second>\d\d))?)?(?!\d)"
)


class RecordingDate(NamedTuple):
    """When a recording began, in the local time of the recorder."""

    time: datetime
    from_name: bool
    """Whether the name contains the date; otherwise it is the modification time of the file."""


def recording_date(location: str) -> RecordingDate | None:
    """When a recording began: the date in its name, otherwise the modification time of its file; None if unknown.

    Names can have the format of AudioMoth and Song Meter, with any text before and after: 20240501_053000.WAV,
    S4A01234_20240501_053000.wav; and also 2024-05-01 05-30.flac. A date without a time means midnight.
    """
    date = date_in(PurePath(location).stem)
    if date is not None:
        return RecordingDate(date, from_name=True)
    if is_url(location):
        return None
    try:
        return RecordingDate(datetime.fromtimestamp(os.stat(location).st_mtime), from_name=False)  # noqa: PTH116
    except (OSError, ValueError, OverflowError):
        return None


def date_in(name: str) -> datetime | None:
    """The first valid date in a name."""
    for match in _DATE.finditer(name):
        parts = match.group("year", "month", "day", "hour", "minute", "second")
        with suppress(ValueError):
            return datetime(*(int(part or 0) for part in parts))  # type: ignore[arg-type]
    return None


def to_seconds(date: datetime) -> float:
    """A date without time zone as a number of seconds."""
    return date.replace(tzinfo=UTC).timestamp()


def from_seconds(seconds: float) -> datetime:
    """The inverse of `to_seconds`."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
