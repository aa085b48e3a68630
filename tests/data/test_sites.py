"""Where and when a recording was made."""

from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from spectag.data.sites import RecordingPlace, place_in_table, place_of
from spectag.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("path", "site"),
    [
        ("rec/site3_20240501-053012.wav", "site3"),
        ("rec/Bach Nord 2024-05-01_05-30-12.wav", "Bach Nord"),
        ("plot 7/20240501_053012.WAV", "plot 7"),
        ("plot 7/owl.wav", "plot 7"),
    ],
)
def test_site_is_what_comes_before_the_date_or_the_folder(path, site):
    assert place_of(Path(path)).site == site


def test_site_is_the_first_group_of_a_pattern_or_all_of_it():
    path = Path("cards/plot_12/a.wav")
    assert place_of(path, r"plot_(\d+)").site == "12"
    assert place_of(path, r"plot_\d+").site == "plot_12"
    with pytest.raises(ConfigError, match=r"site_from: 'forest' is not found in cards/plot_12/a.wav"):
        place_of(path, "forest")


def test_time_of_a_sound_counts_from_the_start_of_the_recording():
    place = place_of(Path("site3_20240501-053012.wav"))
    assert place.time_of(3600) == datetime(2024, 5, 1, 6, 30, 12)
    assert place_of(Path("owl.wav")).time_of(3600) is None


def test_day_is_known_even_if_the_time_is_not():
    place = place_of(Path("site3_20240501.wav"))
    assert (place.start, place.day) == (None, date(2024, 5, 1))


def test_time_of_a_sound_counts_real_seconds_when_clocks_are_changed():
    place = RecordingPlace("A", datetime(2024, 3, 31, 1, 30, tzinfo=ZoneInfo("Europe/Berlin")))
    assert place.time_of(3600).isoformat() == "2024-03-31T03:30:00+02:00"


def test_time_and_site_in_a_table_give_the_start_of_the_recording_again():
    place = RecordingPlace("A", datetime(2024, 5, 1, 5, 30), date(2024, 5, 1))
    recorded, site = place.fields(12.3456)
    assert (recorded, site) == ("2024-05-01T05:30:12.346", "A")
    assert place_in_table(site, recorded, 12.346, "here") == place
    with pytest.raises(DataError, match="here: recorded is 'noon'; expected a time in ISO 8601"):
        place_in_table("A", "noon", 0.0, "here")
