"""Tables of deployments: which site a recording belongs to."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from spectag.data.deployments import PlaceFinder, read_deployments
from spectag.data.sites import RecordingPlace
from spectag.errors import ConfigError, DataError


def deployments(folder, text):
    (folder / "deployments.csv").write_text(text, encoding="utf-8")
    return read_deployments(folder / "deployments.csv")


def test_recorder_that_was_moved_belongs_to_the_site_of_its_time(tmp_path):
    table = deployments(
        tmp_path,
        "site;recorder;latitude;longitude;start;end\n"
        "Bach;S4A01;47,5;8,5;2024-05-01;2024-05-03\n"
        "Moor;S4A01;47,6;8,6;2024-05-04 10:00;2024-05-10\n",
    )
    finder = PlaceFinder(deployments=table)
    bach = finder.place_of(Path("card/S4A01_20240503_235959.wav"))  # the last day is included
    assert (bach.site, bach.latitude, bach.longitude) == ("Bach", 47.5, 8.5)
    assert finder.place_of(Path("card/S4A01_20240504_100000.wav")).site == "Moor"
    assert not finder.not_deployed
    assert finder.place_of(Path("card/S4A01_20240504_095959.wav")).site == "S4A01"
    assert finder.not_deployed == {str(Path("card/S4A01_20240504_095959.wav")): "S4A01"}


def test_umlauts_of_folders_and_tables_are_equal_however_they_are_encoded(tmp_path):
    table = deployments(tmp_path, "site,lat,lon\nBa\u0308chle,1,2\nS\u00fcd,3,4\n")
    finder = PlaceFinder(deployments=table)
    assert finder.place_of(Path("card/B\u00e4chle/a.wav")).site == "B\u00e4chle"
    assert finder.place_of(Path("card/Su\u0308d/a.wav")).site == "S\u00fcd"
    assert finder.place_of(Path("card/Su\u0308d_20240501_053000.wav")).latitude == 3
    assert PlaceFinder("S\u00fc.").place_of(Path("card/Su\u0308d/a.wav")).site == "S\u00fcd"
    assert not finder.not_deployed


def test_times_with_zones_are_compared_as_moments_and_others_as_clock_times(tmp_path):
    table = deployments(tmp_path, "Site,Start,End\nA,2024-05-01T05:00:00+02:00,2024-05-01T06:00:00+02:00\n")
    assert table.of("A", datetime(2024, 5, 1, 3, 30, tzinfo=UTC)) is not None
    assert table.of("A", datetime(2024, 5, 1, 5, 30, tzinfo=UTC)) is None
    assert table.of("A", datetime(2024, 5, 1, 5, 30)) is not None


def test_days_that_excel_wrote_with_dots_are_understood(tmp_path):
    row = deployments(tmp_path, "site;start;end\nA;1.5.2024 14:30;03.05.2024\n").rows[0]
    assert (row.start, row.end) == (datetime(2024, 5, 1, 14, 30), datetime(2024, 5, 4))


def test_recording_without_a_time_has_the_only_place_of_its_site(tmp_path):
    table = deployments(tmp_path, "station,lat,lon\nA,1,2\n")
    finder = PlaceFinder(deployments=table)
    assert finder.deployed(RecordingPlace("A", None), "a.wav") == RecordingPlace("A", None, None, 1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("place_of_day,lat,lon\nA,1,2\n", "no column site; expected site"),
        ("site,latitude\nA,1\n", "latitude and longitude belong together"),
        ("site,latitude,longitude\nA,91,2\n", "line 2: the latitude is '91'; expected decimal degrees from -90 to 90"),
        ("site,latitude,longitude\nA,nan,2\n", "line 2: the latitude is 'nan'"),
        ("site,start\nA,yesterday\n", "line 2: the time is 'yesterday'; expected ISO 8601"),
        ("site,start\nA,31/05/2024\n", "line 2: the time is '31/05/2024'"),
        ("site,start\nA,5.31.2024\n", "line 2: the time is '5.31.2024'"),
        ("site,start,end\nA,2024-05-02,2024-05-01\n", "line 2: the deployment ends at 2024-05-02"),
        ("site,start\n", "the table has no deployments"),
        ("site,recorder\nA,R1\nB,R1\n", "the recorder R1 is at A and at B at the same time"),
    ],
)
def test_impossible_deployments_are_errors(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        deployments(tmp_path, text)


def test_path_without_the_site_is_an_error_before_any_work():
    with pytest.raises(ConfigError, match=r"site_from: .* is not found in b.wav"):
        PlaceFinder(r"plot\d").check(["plot1/a.wav", "b.wav"])
