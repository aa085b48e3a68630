"""Times relative to sunrise, from latitude and longitude."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any

import numpy as np

from spectag.array_types import FloatArray, IntArray
from spectag.data.detections import DetectedSound
from spectag.errors import MissingExtraError
from spectag.findings.recorded_effort import SummarisedRecording

BIN_MINUTES = 30
SUN_BINS = np.arange(-720, 721, BIN_MINUTES)
"""Edges in minutes after sunrise: half a day before and after it."""
_MOST_MINUTES = 740.0  # to the closest sunrise; where it is more, the sun does not rise every day
_PIECE_SECONDS = 300.0  # in which effort is counted
_DAY = 86_400.0  # seconds
_EPOCH_DAY = date(1970, 1, 1).toordinal()

Place = tuple[float, float]
"""Latitude and longitude in degrees."""


@dataclass(frozen=True)
class SunriseActivity:
    """Detections and recorded hours by the time after the closest sunrise, in `SUN_BINS`."""

    counts: IntArray
    """(n_labels, n_bins)"""
    hours: FloatArray
    """(n_bins,)"""
    n_without: int
    """Detections without a sunrise within half a day, near the poles; and those in recordings whose place, time zone or
    length is unknown."""


def load_astral() -> Any:
    """The module astral.sun.

    Raises
    ------
    MissingExtraError
        If the package astral is not installed.
    """
    try:
        from astral import sun
    except ImportError as error:
        raise MissingExtraError("astral", "summary", "the time of sunrise") from error
    return sun


def minutes_after_sunrise(times: FloatArray, place: Place) -> FloatArray:
    """Minutes from the closest sunrise to each time, negative before it; NaN where none is within half a day.

    Parameters
    ----------
    times : float array of shape (n,)
        Seconds since 1970 in UTC.
    place : tuple of float
        Latitude and longitude in degrees.

    Notes
    -----
    Sunrises are computed by the package astral with NOAA's equations: within two minutes between 72° south and north,
    for a flat horizon.
    """
    if not len(times):
        return np.zeros(0)
    sunrises = _sunrises(times, place)
    if not len(sunrises):
        return np.full(len(times), np.nan)
    after = np.clip(np.searchsorted(sunrises, times), 1, max(len(sunrises) - 1, 1))
    candidates = np.stack([times - sunrises[after - 1], times - sunrises[np.minimum(after, len(sunrises) - 1)]])
    minutes = candidates[np.abs(candidates).argmin(axis=0), np.arange(len(times))] / 60
    return np.where(np.abs(minutes) <= _MOST_MINUTES, minutes, np.nan)


def _sunrises(times: FloatArray, place: Place) -> FloatArray:
    """The sunrises at a place on the days of the times, and on the days before and after, in seconds since 1970."""
    from astral import Observer

    sun, observer = load_astral(), Observer(*place)
    days = np.unique(np.floor(times / _DAY).astype(np.int64))
    rises = []
    for day in np.unique(days[:, None] + np.arange(-1, 2)).tolist():
        try:
            rises.append(sun.sunrise(observer, date.fromordinal(_EPOCH_DAY + day), tzinfo=UTC).timestamp())
        except (ValueError, OverflowError):  # the sun is above or below the horizon all day
            continue
    return np.unique(rises)


def sunrise_activity(
    detections: Sequence[DetectedSound], recordings: Sequence[SummarisedRecording], labels: Sequence[str]
) -> SunriseActivity | None:
    """Detections and effort by minutes after sunrise; None if no recording has a place and a time zone.

    Raises
    ------
    MissingExtraError
        If the package astral is not installed.
    """
    located = {recording.path: recording for recording in recordings if _is_located(recording)}
    if not located:
        return None
    label_numbers = {label: number for number, label in enumerate(labels)}
    detected: dict[Place, list[tuple[float, int]]] = defaultdict(list)
    for detection in detections:
        if (recording := located.get(detection.path)) is not None:
            time = _posix_start(recording) + detection.start_seconds
            detected[_place(recording)].append((time, label_numbers[detection.label]))
    counts, hours = np.zeros((len(labels), len(SUN_BINS) - 1), np.int64), np.zeros(len(SUN_BINS) - 1)
    for place, found in detected.items():
        rows = np.array(found, float)
        bins = _bins(minutes_after_sunrise(rows[:, 0], place))
        np.add.at(counts, (rows[bins >= 0, 1].astype(np.int64), bins[bins >= 0]), 1)
    of_place: dict[Place, list[SummarisedRecording]] = defaultdict(list)
    for recording in located.values():
        of_place[_place(recording)].append(recording)
    for place, own in of_place.items():
        pieces = np.array([piece for recording in own for piece in _pieces(recording)], float).reshape(-1, 2)
        bins = _bins(minutes_after_sunrise(pieces[:, 0], place))
        np.add.at(hours, bins[bins >= 0], pieces[bins >= 0, 1] / 3600)
    return SunriseActivity(counts, hours, len(detections) - int(counts.sum()))


def _is_located(recording: SummarisedRecording) -> bool:
    has_zone = recording.start is not None and recording.start.tzinfo is not None
    return has_zone and recording.is_effort and recording.latitude is not None and recording.longitude is not None


def _place(recording: SummarisedRecording) -> Place:
    assert recording.latitude is not None
    assert recording.longitude is not None
    return recording.latitude, recording.longitude


def _posix_start(recording: SummarisedRecording) -> float:
    assert recording.start is not None
    return recording.start.timestamp()


def _pieces(recording: SummarisedRecording) -> Iterator[tuple[float, float]]:
    """The middle of each piece of a recording in seconds since 1970, and its length in seconds."""
    begin, left = _posix_start(recording), recording.seconds or 0.0
    while left > 0:
        length = min(left, _PIECE_SECONDS)
        yield begin + length / 2, length
        begin, left = begin + length, left - length


def _bins(minutes: FloatArray) -> IntArray:
    """The bin of each time; -1 for NaN."""
    inside = np.clip(np.nan_to_num(minutes), SUN_BINS[0], SUN_BINS[-1] - 1e-6)
    return np.where(np.isnan(minutes), -1, np.searchsorted(SUN_BINS, inside, side="right") - 1)
