"""When a recording was made: as its name says, or else as its file does."""

import os
import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import NamedTuple

from spectag.system.storage import is_address

_DATE = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<dash>[-_.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:[-_T ]+(?P<hour>\d\d)(?P<colon>[-_.:h]?)(?P<minute>\d\d)(?:(?P=colon)(?P<second>\d\d))?)?(?!\d)"
)


class Recorded(NamedTuple):
    """When a recording began, by the clock of the place where it was made."""

    at: datetime
    by_name: bool
    """Whether the name says so; else it is when the file was last changed."""


def recorded(location: str) -> Recorded | None:
    """When a recording began: the date in its name, else when its file was last changed; None where neither is known.

    Names are read as AudioMoth and Song Meter write them, with anything before and after: 20240501_053000.WAV,
    S4A01234_20240501_053000.wav; and with dashes, as in 2024-05-01 05-30.flac. A date alone stands for its midnight.
    """
    by_name = date_in(PurePath(location).stem)
    if by_name is not None:
        return Recorded(by_name, by_name=True)
    if is_address(location):
        return None
    try:
        return Recorded(datetime.fromtimestamp(os.stat(location).st_mtime), by_name=False)  # noqa: PTH116
    except (OSError, ValueError, OverflowError):
        return None


def date_in(name: str) -> datetime | None:
    """The first date in a name that the calendar knows."""
    for match in _DATE.finditer(name):
        parts = [match[part] for part in ("year", "month", "day", "hour", "minute", "second")]
        try:
            return datetime(*(int(part or 0) for part in parts))  # type: ignore[arg-type]
        except ValueError:
            continue
    return None


def to_seconds(date: datetime) -> float:
    """A date as a number that orders dates, and to which seconds can be added; of no time zone."""
    return date.replace(tzinfo=UTC).timestamp()


def from_seconds(seconds: float) -> datetime:
    """The date that `to_seconds` made a number of."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
