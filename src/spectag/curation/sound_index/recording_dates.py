"""Recording dates of an index: from the recording and its name, otherwise from the modification time of its file."""

import os
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from spectag.audio.recorder_names import info_in_name
from spectag.audio.recording_info import InfoSource
from spectag.audio.recording_metadata import read_recording_info
from spectag.system.storage import is_url

DateSource = InfoSource | Literal["file"]


class RecordingDate(NamedTuple):
    """When a recording began, by the clock of the recorder."""

    time: datetime
    source: DateSource
    """file: the modification time of the file. The others are those of `RecordingInfo`."""


def recording_date(location: str) -> RecordingDate | None:
    """When a recording began; None if unknown.

    It is the start from `read_recording_info` without its time zone, or the modification time of the file if neither
    the file nor its name contains a date. A date without a time is unknown.
    """
    info = read_recording_info(location)
    if info.start is not None and info.source is not None:
        return RecordingDate(info.start.replace(tzinfo=None), info.source)
    if info.day is not None or is_url(location):
        return None
    try:
        return RecordingDate(datetime.fromtimestamp(os.stat(location).st_mtime), "file")  # noqa: PTH116
    except (OSError, ValueError, OverflowError):
        return None


def date_in(name: str) -> datetime | None:
    """The time in a name without suffix, by the clock of the recorder; None if it is not known."""
    start = info_in_name(name).start
    return None if start is None else start.replace(tzinfo=None)


def to_seconds(date: datetime) -> float:
    """A date without time zone as a number of seconds."""
    return date.replace(tzinfo=UTC).timestamp()


def from_seconds(seconds: float) -> datetime:
    """The inverse of `to_seconds`."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
