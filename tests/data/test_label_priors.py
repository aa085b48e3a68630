"""Priors of labels: which line of the table applies to a recording, and what it does to a probability."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from spectag.data.label_priors import first_day_of, multiplied_odds, read_label_priors, week_of
from spectag.data.labels import LabelSet
from spectag.data.sites import RecordingPlace
from spectag.errors import DataError

LABELS = LabelSet(("Robin", "Wren", "Owl, tawny"))


def place(site="A", day=None, latitude=None, longitude=None):
    return RecordingPlace(site, None, day, latitude, longitude)


def read(tmp_path, text):
    path = tmp_path / "priors.csv"
    path.write_text(text, encoding="utf-8")
    return read_label_priors(path, LABELS)


def of_robin(priors, **where):
    return priors.factors(place(**where))[0]


@pytest.mark.parametrize(
    ("day", "week"),
    [
        (date(2024, 1, 1), 1),
        (date(2024, 1, 7), 1),
        (date(2024, 1, 8), 2),
        (date(2024, 1, 29), 4),  # the last days of a month are in its fourth week
        (date(2024, 2, 1), 5),
        (date(2023, 6, 21), 23),
        (date(2024, 12, 31), 48),
    ],
)
def test_every_month_has_four_weeks(day, week):
    assert week_of(day) == week


def test_weeks_begin_on_their_first_day():
    assert [week_of(first_day_of(week)) for week in range(1, 49)] == list(range(1, 49))


@given(probability=st.floats(0.001, 0.999), factor=st.floats(0.001, 1000), other=st.floats(0.001, 1000))
def test_factor_is_added_to_the_logit_as_its_logarithm(probability, factor, other):
    given = np.array([[probability]], np.float32)
    changed = multiplied_odds(given, np.array([factor]))
    assert changed[0, 0] == pytest.approx(expit(logit(np.float64(given[0, 0])) + np.log(factor)), rel=1e-5)
    both = multiplied_odds(changed, np.array([other]))
    assert both[0, 0] == pytest.approx(multiplied_odds(given, np.array([factor * other]))[0, 0], rel=1e-3, abs=1e-6)


def test_factors_0_and_1_hide_a_label_and_change_nothing():
    probabilities = np.array([[1.0, 0.3], [0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(multiplied_odds(probabilities, np.array([0.0, 1.0])), [[0, np.float32(0.3)], [0, 1]])


def test_line_without_a_place_holds_everywhere_and_labels_without_a_line_do_not_change(tmp_path):
    priors = read(tmp_path, 'label,prior\nRobin,0.25\n"Owl, tawny",4\n')
    np.testing.assert_array_equal(priors.factors(place()), [0.25, 1, 4])


def test_lines_apply_to_their_site_region_and_weeks(tmp_path):
    text = "label,site,latitude,longitude,weeks,prior\nRobin,A,46..48,7..9,13..30,0.5\n"
    priors = read(tmp_path, text)
    inside = {"site": "A", "day": date(2024, 5, 1), "latitude": 47.0, "longitude": 9.0}
    assert of_robin(priors, **inside) == 0.5
    for change in (
        {"site": "B"},
        {"day": date(2024, 12, 1)},
        {"latitude": 48.1},
        {"longitude": 6.9},
        {"day": None},  # what is unknown cannot apply
        {"latitude": None, "longitude": None},
    ):
        assert of_robin(priors, **inside | change) == 1


def test_weeks_may_continue_over_the_new_year_and_longitudes_over_the_date_line(tmp_path):
    priors = read(tmp_path, "label;weeks;longitude;prior\nRobin;45-4;;0,5\nWren;;170..-170;0.1\n")
    factors = [of_robin(priors, day=date(2024, month, 1)) for month in (11, 12, 1, 2)]
    assert factors == [1, 0.5, 0.5, 1]  # weeks 41, 45, 1 and 5
    assert [priors.factors(place(longitude=degrees, latitude=0.0))[1] for degrees in (175, -175, 169)] == [0.1, 0.1, 1]


def test_the_most_specific_line_counts_in_any_order(tmp_path):
    lines = ["Robin,,,,0.5", "Robin,,,13..24,0.6", "Robin,,46..48,,0.7", "Robin,A,,,0.8", "Robin,A,,13..16,0.9"]
    for order in (lines, lines[::-1]):
        priors = read(tmp_path, "\n".join(["label,site,latitude,weeks,prior", *order]))
        june, april = date(2024, 6, 1), date(2024, 4, 1)
        assert of_robin(priors, site="B") == 0.5
        assert of_robin(priors, site="B", day=june) == 0.6
        assert of_robin(priors, site="B", day=june, latitude=47.0) == 0.7
        assert of_robin(priors, site="A", day=june, latitude=47.0) == 0.8
        assert of_robin(priors, site="A", day=april, latitude=47.0) == 0.9


@pytest.mark.parametrize(
    "lines",
    [
        ("Robin,A,,,,0.5", "Robin,A,,,,0.6"),
        ("Robin,,,,1..10,0.5", "Robin,,,,10..12,0.6"),
        ("Robin,,,,45..4,0.5", "Robin,,,,4..12,0.6"),
        ("Robin,,46..48,,,0.5", "Robin,,47..49,,,0.6"),
        ("Robin,,,170..-170,,0.5", "Robin,,,-175..-160,,0.6"),
    ],
)
def test_two_lines_for_the_same_recordings_are_an_error(tmp_path, lines):
    header = "label,site,latitude,longitude,weeks,prior"
    with pytest.raises(DataError, match="line 3: Robin has another prior in line 2 for some of the same recordings"):
        read(tmp_path, "\n".join([header, *lines]))
    same = [line.rpartition(",")[0] + ",0.5" for line in lines]
    assert len(read(tmp_path, "\n".join([header, *same])).lines) == 2  # they agree


def test_places_are_the_same_for_a_table_that_does_not_tell_them_apart(tmp_path):
    priors = read(tmp_path, "label,site,weeks,prior\nRobin,A,,0.5\nWren,,13..30,0.1\n")
    places = [
        place(site=site, day=date(year, 5, day), latitude=47.0, longitude=float(day))
        for site in "ABC"
        for year in (2023, 2024)
        for day in range(1, 32)
    ]
    different = {priors.what_matters(each) for each in places}
    assert len(different) == 8  # A or not, and the four weeks of May
    for each in places:
        np.testing.assert_array_equal(priors.factors(priors.what_matters(each)), priors.factors(each))


def test_ranges_that_only_touch_do_not_overlap(tmp_path):
    priors = read(
        tmp_path, "label,latitude,weeks,prior\nRobin,46..47,,0.5\nRobin,47..48,,0.6\nWren,,1..9,0.1\nWren,,10..48,0.2\n"
    )
    assert of_robin(priors, latitude=46.5, longitude=8.0) == 0.5
    assert of_robin(priors, latitude=47.5, longitude=8.0) == 0.6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("species,probability\nRobin,0.5\n", "no column prior; expected label, prior"),
        ("label,prior\n", "the table has no priors"),
        ("label,prior\nRobbin,0.5\n", r"line 2: .*'Robbin'.*did you mean 'Robin'"),
        ("label,prior\nRobin,-1\n", "the prior is '-1'; expected a factor of the odds from 0"),
        ("label,prior\nRobin,nan\n", "the prior is 'nan'"),
        ("label,prior\nRobin,1e9\n", "the prior is '1e9'"),
        ("label,prior,weeks\nRobin,1,50\n", "the weeks are '50'; expected a range such as 13..30, from 1 to 48: four"),
        ("label,prior,weeks\nRobin,1,spring\n", "the weeks are 'spring'"),
        ("label,prior,latitude\nRobin,1,48..46\n", "the latitude is '48..46'; .* from south to north"),
        ("label,prior,latitude\nRobin,1,47\n", "the latitude is '47'; expected a range of degrees such as 46..48"),
        ("label,prior,longitude\nRobin,1,7..190\n", "the longitude is '7..190'"),
        ("label,prior,longitude\nRobin,1,=cmd..2\n", "the longitude is '=cmd..2'"),
    ],
)
def test_errors_name_line_value_and_what_is_expected(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_sites_with_decomposed_letters_are_those_of_recordings(tmp_path):
    priors = read(tmp_path, "label,site,prior\nRobin,Gru\u0308ne Au,0.5\n")  # as macOS writes the umlaut
    assert of_robin(priors, site="Grüne Au") == 0.5
