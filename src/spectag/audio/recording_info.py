"""When and where a recording was made."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

InfoSource = Literal["guano", "comment", "bext", "name"]
"""Where a time comes from: the GUANO chunk, AudioMoth's comment or the bext chunk of a wav, or the name of the file."""


@dataclass(frozen=True)
class RecordingInfo:
    """When and where a recording was made, and by what. None: unknown."""

    start: datetime | None = None
    """When it begins, by the clock of the recorder; with a time zone only if the file or its name states one."""
    day: date | None = None
    """The day on which it begins, also if only the day is known."""
    latitude: float | None = None
    """Degrees north."""
    longitude: float | None = None
    """Degrees east."""
    recorder: str | None = None
    """Make and model, or the program that wrote the file."""
    source: InfoSource | None = None
    """Where start and day come from."""

    @classmethod
    def at(cls, start: datetime, source: InfoSource, recorder: str | None = None) -> "RecordingInfo":
        """A recording with a known start."""
        return cls(start=start, day=start.date(), source=source, recorder=recorder)


UNKNOWN = RecordingInfo()


def combined(infos: Sequence[RecordingInfo]) -> RecordingInfo:
    """What several sources say of one recording, the most reliable first.

    The start is that of the first source that states one, the place that of the first source with a place. If no source
    states a start, the day is that of the first source with a day.
    """
    with_start = [info for info in infos if info.start is not None]
    with_day = [info for info in infos if info.day is not None]
    when = next(iter([*with_start, *with_day]), UNKNOWN)
    where = next((info for info in infos if info.latitude is not None), UNKNOWN)
    recorder = next((info.recorder for info in infos if info.recorder is not None), None)
    return RecordingInfo(when.start, when.day, where.latitude, where.longitude, recorder, when.source)


def valid_place(latitude: str | float, longitude: str | float) -> tuple[float, float] | tuple[None, None]:
    """A place in degrees, or None for values that are no place; 0, 0 is written by recorders without a position."""
    try:
        place = float(latitude), float(longitude)
    except ValueError:
        return None, None
    is_valid = abs(place[0]) <= 90 and abs(place[1]) <= 180 and place != (0, 0)  # False for NaN
    return place if is_valid else (None, None)
