"""Minutes after sunrise, against almanacs."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from spectag.data.detections import DetectedSound
from spectag.findings.recorded_effort import SummarisedRecording
from spectag.findings.sun_times import minutes_after_sunrise, sunrise_activity

LONDON, BERLIN, NEW_YORK, TROMSO = (51.5, -0.13), (52.52, 13.4), (40.71, -74.0), (69.65, 18.96)


def posix(*time):
    return datetime(*time, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("place", "time", "minutes"),
    [  # sunrise: 04:43 BST, 04:43 CEST, 07:16 EST (tables of HM Nautical Almanac Office and the US Naval Observatory)
        (LONDON, (2024, 6, 20, 4, 43), 60),
        (BERLIN, (2024, 6, 21, 2, 13), -30),
        (NEW_YORK, (2024, 12, 21, 12, 16), 0),
    ],
)
def test_sunrise_is_that_of_almanacs_within_two_minutes(place, time, minutes):
    assert minutes_after_sunrise(np.array([posix(*time)]), place) == pytest.approx([minutes], abs=2)


@pytest.mark.parametrize("place", [NEW_YORK, LONDON, (-36.85, 174.76), (-13.83, -171.77), (0.0, 90.0)])
def test_every_time_belongs_to_the_closest_sunrise(place):
    times = np.arange(posix(2024, 3, 1), posix(2024, 3, 8), 1800.0)
    minutes = minutes_after_sunrise(times, place)
    assert np.abs(minutes).max() <= 12 * 60 + 2
    assert (np.diff(minutes) < 0).sum() == 7


def test_there_is_no_sunrise_while_the_sun_stays_up():
    assert np.isnan(minutes_after_sunrise(np.array([posix(2024, 6, 20, 4)]), TROMSO)).all()
    assert np.isfinite(minutes_after_sunrise(np.array([posix(2024, 3, 20, 4)]), TROMSO)).all()


def test_detections_count_only_where_recorded_hours_do():
    start = datetime(2024, 6, 21, 2, 0, tzinfo=UTC)  # 43 minutes before sunrise
    recordings = [
        SummarisedRecording(Path(name), name, "A", start, seconds, *BERLIN)
        for name, seconds in (("known.wav", 600.0), ("unknown.wav", None))
    ]
    detections = [DetectedSound(Path(recording.path), recording.file, 0.0, 3.0, "Owl") for recording in recordings]
    found = sunrise_activity(detections, recordings, ["Owl"])
    assert (found.counts.sum(), found.hours.sum(), found.n_without) == (1, pytest.approx(1 / 6), 1)
    assert found.counts[0].argmax() == found.hours.argmax() == 22  # of bins of half an hour from 12 hours before on
