"""Times and places in the names that recorders give to their files. docs/reference/recording-times.md lists them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

from spectag.audio.recording_info import UNKNOWN, RecordingInfo, valid_place

_CLOCK = r"(?P<hour>\d\d)(?P<colon>[-_.:h])(?P<minute>\d\d)(?:(?P=colon)(?P<second>\d\d))?"
_DIGITS = r"(?P<packed_hour>\d\d)(?P<packed_minute>\d\d)(?P<packed_second>\d\d)(?:[.,]?(?P<fraction>\d{6}|\d{3}))?"
"""Six digits: four may be the number of a file."""
_ZONE = (
    r"(?:(?P<zone>Z(?![A-Za-z])|[+-]\d\d:?\d\d(?!\d)|\+\d\d(?!\d))|_?\((?P<bracketed_zone>[+-]\d\d(?::?\d\d)?)\)"
    r"|[_ ]?(?P<utc>UTC))?"
)
_BETWEEN = r"(?:[-_T $]+|-birdnet-(?:[A-Za-z]+_?\d*-)?)"
_TIME_AFTER_DATE = rf"(?:(?:{_BETWEEN}{_CLOCK}|{_BETWEEN}?{_DIGITS})(?!\d){_ZONE})?(?!\d)"
_YEAR_FIRST = re.compile(
    rf"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<dash>[-_.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d){_TIME_AFTER_DATE}"
)
_YEAR_LAST = re.compile(
    rf"(?<!\d)(?P<first>\d\d)(?P<dash>[-_.]?)(?P<second_part>\d\d)(?P=dash)(?P<year>(?:19|20)\d\d){_TIME_AFTER_DATE}"
)
_TWO_DIGITS = r"(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)"
_SOUNDTRAP = re.compile(rf"(?<!\d)\d{{3,10}}\.{_TWO_DIGITS}{_DIGITS}(?!\d)")
_HANDHELD = re.compile(rf"{_TWO_DIGITS}[-_](?:{_DIGITS}(?:_(?:Tr\d+|LR|[A-Z]+))?|\d{{4}})")
_HEXADECIMAL = re.compile("(?=.*[A-F])[5-7][0-9A-F]{7}")
"""Seconds since 1970, from 2012 to 2038. Without a letter, eight digits may as well be a number."""
_PLACE = re.compile(
    r"\[(?P<latitude>[+-]?\d{1,2}\.\d+)[ ,_]?(?P<longitude>[+-]?\d{1,3}\.\d+)\]"
    r"|(?<![\d.])(?P<signed_latitude>[+-]\d{1,2}\.\d{2,})(?P<signed_longitude>[+-]\d{1,3}\.\d{2,})"
)
_MAX_ZONE = timedelta(hours=14)
_NO_WHOLE_HOURS = {-570, -270, -210, -150, 210, 270, 330, 345, 390, 510, 525, 570, 585, 630, 690, 765, 825}
_ZONES = {timedelta(minutes=minutes) for minutes in {*range(-12 * 60, 14 * 60 + 1, 60), *_NO_WHOLE_HOURS}}
"""The time zones that clocks had since 2000. Other digits after a time are no zone."""


def info_in_name(name: str) -> RecordingInfo:
    """What a file name without its suffix says of the recording; see the table in docs/reference/recording-times.md.

    A time that is not understood, or a date whose day and month could be exchanged, is unknown.

    Examples
    --------
    >>> info_in_name("S4A01234_20240501_053000").start
    datetime.datetime(2024, 5, 1, 5, 30)
    >>> info_in_name("owl 2024-05-01")
    RecordingInfo(start=None, day=datetime.date(2024, 5, 1), ...)
    """
    infos = list(_infos(name))
    info = next((info for info in infos if info.start is not None), next(iter(infos), UNKNOWN))
    place = _PLACE.search(name)
    if place is None:
        return info
    parts = place.groupdict()
    latitude, longitude = valid_place(
        parts["latitude"] or parts["signed_latitude"], parts["longitude"] or parts["signed_longitude"]
    )
    return replace(info, latitude=latitude, longitude=longitude)


def _infos(name: str) -> Iterator[RecordingInfo]:
    """All dates in a name that are understood, those of known recorders first."""
    if _HEXADECIMAL.fullmatch(name):
        yield RecordingInfo.at(datetime.fromtimestamp(int(name, 16), UTC), "name", "AudioMoth")
    for match in _SOUNDTRAP.finditer(name):
        yield from _info(match.groupdict(), "SoundTrap")
    if handheld := _HANDHELD.fullmatch(name):
        yield from _info(handheld.groupdict())
    for match in _YEAR_FIRST.finditer(name):
        yield from _info(match.groupdict(), "BirdNET-Pi" if "-birdnet-" in match[0] else None)
    for match in _YEAR_LAST.finditer(name):
        parts = match.groupdict()
        first, second = parts["first"], parts["second_part"]
        orders = {(first, second), (second, first)}
        infos = [info for day, month in orders for info in _info({**parts, "day": day, "month": month})]
        if len(infos) == 1:
            yield infos[0]


def _info(parts: Mapping[str, str | None], recorder: str | None = None) -> Iterator[RecordingInfo]:
    """The date of a match with its time, or without it if it has none or a wrong one; nothing for a wrong date."""
    year = int(parts["year"] or 0)
    with suppress(ValueError):
        day = date(year + 2000 * (year < 100), int(parts["month"] or 0), int(parts["day"] or 0))
        start = _with_time(day, parts)
        if start is None:
            yield RecordingInfo(day=day, source="name", recorder=recorder)
        else:
            yield RecordingInfo.at(start, "name", recorder)


def _with_time(day: date, parts: Mapping[str, str | None]) -> datetime | None:
    """The start on a day; None if there is no time, or not a valid one."""
    hour, minute = (parts.get(name) or parts.get(f"packed_{name}") for name in ("hour", "minute"))
    second = parts.get("second") or parts.get("packed_second")
    if hour is None or minute is None:
        return None
    fraction = parts.get("fraction") or ""
    zone = parse_zone("Z" if parts.get("utc") else parts.get("zone") or parts.get("bracketed_zone") or "")
    if zone is not None and zone.utcoffset(None) not in _ZONES:
        zone = None
    try:
        time = int(hour), int(minute), int(second or 0), int(fraction.ljust(6, "0"))
        return datetime(day.year, day.month, day.day, *time, tzinfo=zone)
    except ValueError:
        return None


def parse_zone(text: str) -> timezone | None:
    """A time zone from Z, +10, +1000 or +10:00; None for other texts and impossible zones.

    Examples
    --------
    >>> parse_zone("-0330")
    datetime.timezone(datetime.timedelta(days=-1, seconds=73800))
    """
    if text == "Z":
        return UTC
    match = re.fullmatch(r"([+-])(\d\d?)(?::?(\d\d))?", text)
    if match is None:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    if offset > _MAX_ZONE or offset.seconds % 900:  # all zones are whole quarters of an hour
        return None
    return timezone(-offset if match[1] == "-" else offset)
