"""Counts of detections beside effort, worked by hand, and the page and the tables."""

import csv
import itertools
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from scipy.stats import binomtest

from helpers.bundles import make_bundle, make_info
from spectag.config.findings import SummarySettings
from spectag.data.checked_detections import CheckedDetection, CheckInfo, write_check_info, write_decisions
from spectag.errors import ConfigError, DataError
from spectag.findings.activity import expected_accumulation
from spectag.findings.detection_summary import summary
from spectag.findings.label_precision import label_precisions
from spectag.models.bundle import WindowThresholds

STATUS = "file,status,reason,seconds,expected_seconds,labels,notes\n"
TAGS = "file,start,end,label,probability\n"
BERLIN = SummarySettings(timezone="Europe/Berlin", recorder_timezone="UTC")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def status_of(folder, **seconds):
    """tags.status.csv with the length of each recording; its name has _ for / and no suffix."""
    rows = "".join(f"{name.replace('__', '/')}.wav,done,,{length},,all,\n" for name, length in seconds.items())
    return write(folder / "tags.status.csv", STATUS + rows)


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def night(tmp_path):
    """An hour at two sites, from half past 11 on; file names are the same."""
    status_of(tmp_path, A__20240501_233000=3600.0, B__20240501_233000=3600.0)
    lines = "A/20240501_233000.wav,10,13,Owl,0.9\nA/20240501_233000.wav,2000,2003,Owl,0.6\n"
    return write(tmp_path / "tags.csv", f"{TAGS}{lines}B/20240501_233000.wav,0,3,Fox,0.7\n")


def test_recordings_that_cross_midnight_count_on_both_days_and_sites_with_equal_names_are_two(night, tmp_path):
    result = summary(night, tables=tmp_path / "tables")
    assert result.hours == 2.0
    assert not result.skipped
    rows = rows_of(tmp_path / "tables" / "counts.csv")
    assert [tuple(row.values()) for row in rows] == [
        ("A", "2024-05-01", "23", "0.500000", "1", "1", "0"),
        ("A", "2024-05-02", "0", "0.500000", "1", "1", "0"),
        ("B", "2024-05-01", "23", "0.500000", "1", "0", "1"),
        ("B", "2024-05-02", "0", "0.500000", "0", "0", "0"),
    ]
    owl, fox = result.labels
    assert (owl.label, owl.n_detections, owl.n_sites, owl.n_days) == ("Owl", 2, 1, 2)
    assert (owl.first, owl.last) == (datetime(2024, 5, 1, 23, 30, 10), datetime(2024, 5, 2, 0, 3, 20))
    assert (fox.n_detections, fox.n_days) == (1, 1)
    assert [row.label for row in summary(night, min_probability=0.65).labels] == ["Fox", "Owl"]


@pytest.mark.parametrize(
    ("name", "seconds", "hours"),
    [
        ("A__20240331_003000", 7200.0, {"1": 0.5, "3": 1.0, "4": 0.5}),  # 01:30 to 04:30, without the hour from 2 to 3
        ("A__20241027_000000", 10_800.0, {"2": 2.0, "3": 1.0}),  # the hour from 2 to 3 comes twice
    ],
)
def test_effort_counts_real_hours_when_clocks_are_changed(tmp_path, name, seconds, hours):
    status_of(tmp_path, **{name: seconds})
    table = write(tmp_path / "tags.csv", f"{TAGS}{name.replace('__', '/')}.wav,3600,3603,Owl,0.9\n")
    summary(table, None, BERLIN, tables=tmp_path / "tables")
    rows = rows_of(tmp_path / "tables" / "counts.csv")
    assert {row["hour"]: float(row["effort_hours"]) for row in rows} == hours
    assert {row["hour"]: row["Owl"] for row in rows}[max(hours, key=hours.get)] == "1"


def test_weeks_and_months_have_their_iso_names(tmp_path):
    status_of(tmp_path, A__20241231_120000=3600.0, A__20250101_120000=1800.0)
    table = write(tmp_path / "tags.csv", f"{TAGS}A/20250101_120000.wav,0,3,Owl,0.9\n")
    summary(table, None, SummarySettings(by="month,week"), tables=tmp_path / "tables")
    rows = [tuple(row.values()) for row in rows_of(tmp_path / "tables" / "counts.csv")]
    assert rows == [
        ("2024-12", "2025-W01", "1.000000", "0", "0"),
        ("2025-01", "2025-W01", "0.500000", "1", "1"),
    ]
    with pytest.raises(ValueError, match="by: expected some of site, month, week, day, hour, got 'year'"):
        SummarySettings(by="site,year")


def test_detection_history_is_na_where_nothing_was_recorded(tmp_path):
    status_of(tmp_path, A__20240501_120000=3600.0, A__20240503_120000=1800.0, B__20240502_000000=86_400.0)
    table = write(tmp_path / "tags.csv", f"{TAGS}A/20240503_120000.wav,0,3,Owl,0.9\n")
    tables = tmp_path / "tables"
    summary(table, tables=tables)
    rows = rows_of(tables / "unmarked" / "Owl.csv")
    assert list(rows[0]) == [
        *("site", "y.1", "y.2", "y.3", "effort.1", "effort.2", "effort.3"),
    ]
    histories = {row["site"]: [row[f"y.{number}"] for number in (1, 2, 3)] for row in rows}
    assert histories == {"A": ["0", "NA", "1"], "B": ["NA", "0", "NA"]}
    assert [rows[0][f"effort.{number}"] for number in (1, 2, 3)] == ["1.000000", "0.000000", "0.500000"]
    operation = {row[""]: list(row.values())[1:] for row in rows_of(tables / "camtrapR" / "operation.csv")}
    assert operation == {"A": ["0.0416667", "0", "0.0208333"], "B": ["NA", "1", "NA"]}
    assert rows_of(tables / "camtrapR" / "records.csv") == [
        {
            "Station": "A",
            "Species": "Owl",
            "DateTimeOriginal": "2024-05-03 12:00:00",
            "Date": "2024-05-03",
            "Time": "12:00:00",
            "Directory": "A",
            "FileName": "20240503_120000.wav",
            "probability": "0.900000",
        }
    ]
    summary(table, None, SummarySettings(occasion_days=2), tables=tables)
    rows = rows_of(tables / "unmarked" / "Owl.csv")
    assert [(row["y.1"], row["y.2"]) for row in rows] == [("0", "1"), ("0", "NA")]


def test_records_at_midnight_belong_to_the_day_that_begins_in_camtrapr_too(tmp_path):
    status_of(tmp_path, A__20240502_000000=3600.0)
    table = write(tmp_path / "tags.csv", f"{TAGS}A/20240502_000000.wav,0,3,Owl,0.9\n")
    summary(table, tables=tmp_path / "tables")
    (record,) = rows_of(tmp_path / "tables" / "camtrapR" / "records.csv")
    # detectionHistory: occasion = ceiling(seconds since the first midnight / 86,400), so 0 would be the day before
    assert record["DateTimeOriginal"] == "2024-05-02 00:00:01"


def test_clock_that_was_never_set_is_an_error_that_says_so(tmp_path):
    status_of(tmp_path, A__19700101_000000=60.0, A__20240501_120000=60.0)
    table = write(tmp_path / "tags.csv", f"{TAGS}A/20240501_120000.wav,0,3,Owl,0.9\n")
    with pytest.raises(DataError, match=r"from 1970-01-01 to 2024-05-01 there are 19,845 occasions of 1 days"):
        summary(table, tables=tmp_path / "tables")
    assert not (tmp_path / "tables").exists()
    summary(table, tmp_path / "page.html")


def test_recordings_without_detections_count_as_effort_and_unknown_ones_are_named(run, tmp_path):
    for name in ("A/20240501_120000.wav", "A/20240501_130000.wav", "A/untimed.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(8000), 100)
    (tmp_path / "A" / "20240501_140000.wav").write_bytes(b"not a sound")
    lines = "A/20240501_120000.wav,0,3,Owl,0.9\nA/untimed.wav,0,3,Owl,0.9\nA/gone_20240502_120000.wav,0,3,Owl,0.9\n"
    write(tmp_path / "tags.csv", TAGS + lines)
    tables = tmp_path / "tables"
    done = run("summary", tmp_path / "tags.csv", "--tables", tables, "--recordings", tmp_path / "A", "--by", "site")
    assert done.status == 3
    assert "3 detections in 0.07 recorded hours (0.04 at known times): 5 recordings at 2 sites" in done.out
    assert "incomplete: A/untimed.wav: its time is unknown" in done.err
    assert "the time of 1 of 5 recordings is unknown" in done.err
    assert "SITE_20240501_043000.wav" in done.err
    assert "skipped" not in done.err
    assert "gone_20240502_120000.wav: its length is unknown, so it is no effort" in done.err
    assert "20240501_140000.wav: its length is unknown" in done.err
    rows = rows_of(tables / "counts.csv")
    assert [(row["site"], row["Owl"]) for row in rows] == [("A", "2"), ("gone", "1")]
    assert float(rows[0]["effort_hours"]) == pytest.approx(2 * 80 / 3600, abs=1e-6)


def test_rates_leave_out_detections_in_recordings_whose_time_or_length_is_unknown(tmp_path):
    status_of(tmp_path, A__20240501_120000=3600.0, A__untimed=3600.0, A__20240501_121000="")
    files = ("A/20240501_120000.wav", "A/untimed.wav", "A/20240501_121000.wav")
    table = write(tmp_path / "tags.csv", TAGS + "".join(f"{file},0,3,Owl,0.9\n" for file in files))
    result = summary(table, tmp_path / "page.html", tables=tmp_path / "tables")
    assert (result.labels[0].n_detections, result.hours, result.labels[0].per_hour) == (3, 1.0, 1.0)
    assert rows_of(tmp_path / "tables" / "labels.csv")[0]["per_hour"] == "1"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>Owl</b>, up to 1 per hour" in page
    assert 'title="Owl at A: 3 detections in 1.00 recorded hours"' in page


@pytest.mark.parametrize("prefix", ["card/B/", "C:\\\\card\\\\B\\\\", ""])
def test_recordings_that_were_moved_to_the_folder_of_recordings_count_once(tmp_path, prefix):
    (tmp_path / "archive" / "B").mkdir(parents=True)
    for name in ("20240501_120000.wav", "20240501_130000.wav"):
        soundfile.write(tmp_path / "archive" / "B" / name, np.zeros(6000), 100)
    table = write(tmp_path / "results" / "tags.csv", f"{TAGS}{prefix}20240501_120000.wav,0,3,Owl,0.9\n")
    result = summary(table, recordings=[tmp_path / "archive"])
    assert (result.n_recordings, result.hours, result.skipped) == (2, pytest.approx(2 / 60), ())
    assert len(result.detections) == 1


def test_columns_of_the_table_and_status_stand_for_recordings_that_are_elsewhere(tmp_path):
    header = STATUS.replace("\n", ",recorded,site\n")
    write(
        tmp_path / "tags.status.csv",
        f"{header}/far/x.wav,done,,60,,all,,2024-05-01T05:00:00,Moor\n/far/y.wav,skipped,bad,,,,,,\n",
    )
    tags = f"{TAGS[:-1]},recorded,site\n/far/x.wav,30,33,Owl,0.9,2024-05-01T05:00:30,Moor\n"
    result = summary(write(tmp_path / "tags.csv", tags))
    assert [(site.site, site.hours) for site in result.sites] == [("Moor", pytest.approx(1 / 60))]
    assert result.labels[0].first == datetime(2024, 5, 1, 5, 0, 30)
    assert result.skipped == ("/far/y.wav: spectag tag skipped it, so it is no effort",)


def test_table_without_detections_still_has_effort(tmp_path):
    status_of(tmp_path, A__20240501_120000=3600.0)
    result = summary(write(tmp_path / "tags.csv", TAGS), tmp_path / "page.html", tables=tmp_path / "tables")
    assert (result.hours, result.labels) == (1.0, ())
    assert rows_of(tmp_path / "tables" / "counts.csv")[0]["effort_hours"] == "1.000000"
    (tmp_path / "tags.status.csv").unlink()
    with pytest.raises(DataError, match="the table names no recordings; name their folder with --recordings"):
        summary(tmp_path / "tags.csv")


HOSTILE = '<img src=x onerror=alert(1)>"&'


def test_hostile_names_are_escaped_on_the_page_and_in_tables(tmp_path):
    files = [f'"{site}/20240501_120000.wav"' for site in ("=cmd|x", "<script>alert(1)</script>")]
    write(tmp_path / "tags.status.csv", STATUS + "".join(f"{file},done,,3600,,all,\n" for file in files))
    quoted = HOSTILE.replace('"', '""')
    lines = f'{files[0]},0,3,"{quoted}",0.9\n{files[1]},0,3,"=1+1",0.9\n'
    options = {"site_from": r"^'?(.*)/[^/]*\.wav"}
    summary(write(tmp_path / "tags.csv", TAGS + lines), tmp_path / "page.html", tables=tmp_path / "tables", **options)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    body = page[page.index("<main>") : page.index("</main>") + len("</main>")]
    ElementTree.fromstring(body.replace("<br>", "<br/>").replace(' tabindex="0"', "")) if "<img " not in body else None
    for path in (tmp_path / "tables").rglob("*.csv"):
        for row in csv.reader(path.read_text(encoding="utf-8").splitlines()):
            assert not any(field.startswith(("=", "@", "+")) for field in row), path
    names = sorted(path.name for path in (tmp_path / "tables" / "unmarked").iterdir())
    assert len(names) == 2
    assert not any(set('<>"/|') & set(name) for name in names)


def test_tables_of_others_are_not_removed(night, tmp_path):
    mine = write(tmp_path / "tables" / "unmarked" / "mine.csv", "precious")
    with pytest.raises(DataError, match="contains folders that no summary has written"):
        summary(night, tables=tmp_path / "tables")
    assert mine.read_text(encoding="utf-8") == "precious"
    with pytest.raises(ConfigError, match="the page is an HTML file"):
        summary(night, tmp_path / "page.txt")


def checked(start, decision, *, weight=1.0, label="Owl"):
    return CheckedDetection(
        "A/20240501_233000.wav", start, start + 3.0, label, 0.9, "A", None, f"{weight:g}", 3, weight, decision
    )


def test_decisions_give_the_precision_and_leave_wrong_detections_out_of_exports(night, tmp_path):
    # the weights of the two strata: 3 detections of which 1 was sampled, 3 of which all were
    rows = [checked(10.0, "yes", weight=3.0), checked(2000.0, "no"), checked(50.0, "yes"), checked(60.0, "unsure")]
    write_decisions(tmp_path / "decisions.csv", rows)
    result = summary(night, tmp_path / "page.html", tables=tmp_path / "tables", checked=tmp_path / "decisions.csv")
    precision = result.labels[0].precision
    assert precision.value == pytest.approx((3 + 1) / (3 + 1 + 1 + 1)), "unsure counts as wrong, as in calibrate"
    assert precision.n_checked == 4
    occurrences = rows_of(tmp_path / "tables" / "darwin_core" / "occurrence.csv")
    assert [(row["verbatimIdentification"], row["identificationVerificationStatus"]) for row in occurrences] == [
        ("Owl", "verified"),
        ("Fox", "unverified"),
    ]
    assert {row["basisOfRecord"] for row in occurrences} == {"MachineObservation"}
    assert occurrences[0]["eventDate"] == "2024-05-01T23:30:10/2024-05-01T23:30:13"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "4 detections were checked by ear (decisions.csv): 2 true, 1 false, 1 unsure, which count as wrong." in page
    assert "Detections are not verified" in (summary(night, tmp_path / "b.html") and (tmp_path / "b.html").read_text())


@pytest.mark.parametrize(
    ("limits", "minimum", "is_known"),
    [
        ({"min_probability": 0.6}, 0.0, True),  # the two detections have 0.6 and 0.9
        ({"min_probability": 0.7}, 0.0, False),
        ({"min_probability": 0.7}, 0.7, True),
        ({"max_probability": 0.9}, 0.0, False),
        ({"presence": True}, 0.0, False),
    ],
)
def test_precision_is_stated_only_if_the_sample_represents_all_detections(night, tmp_path, limits, minimum, is_known):
    options = {"table": "tags.csv", "model": "m", "seed": 0, "n_per_label": 96, "across": (), "created": datetime.now()}
    write_check_info(tmp_path / "check.json", CheckInfo(**options, spectag="0.1.0", labels={}, **limits))
    write_decisions(tmp_path / "decisions.csv", [checked(10.0, "yes", weight=1.5), checked(2000.0, "no", weight=1.5)])
    result = summary(night, min_probability=minimum, checked=tmp_path / "decisions.csv")
    assert {row.label: row.precision is not None for row in result.labels} == {"Owl": is_known, "Fox": False}


def test_precision_leaves_out_checks_below_the_lowest_probability_of_the_detections(night, tmp_path):
    rows = [checked(10.0, "yes", weight=1.5), replace(checked(50.0, "no", weight=1.5), probability=0.55)]
    write_decisions(tmp_path / "decisions.csv", rows)
    assert summary(night, checked=tmp_path / "decisions.csv").labels[0].precision.value == 1.0


def test_thresholds_are_those_of_the_model(night, tmp_path):
    model = make_bundle(tmp_path / "model", make_info(labels=("Fox", "Owl", "Rain"), thresholds=(0.25, 0.5, 0.75)))
    summary(night, tmp_path / "page.html", tables=tmp_path / "tables", model=str(model))
    rows = rows_of(tmp_path / "tables" / "labels.csv")
    assert {row["label"]: row["threshold"] for row in rows} == {"Owl": "0.500000", "Fox": "0.250000"}
    page = (tmp_path / "page.html").read_text()
    assert f"all detections of the table; the thresholds of {model} are stated in the table of labels (2 of 2" in page
    assert "Threshold (not applied)" in page


@pytest.mark.parametrize(("kind", "counts"), [("windows", {"Owl": 1}), ("clips", {"Owl": 2, "Fox": 1}), (None, None)])
def test_thresholds_that_are_applied_leave_out_detections_below_them(night, tmp_path, run, kind, counts):
    windows = WindowThresholds(below_seconds=2, thresholds=(0.8, 0.9, 0.75))  # Owl has 0.6 and 0.9, Fox 0.7
    info = make_info(labels=("Fox", "Owl", "Rain"), thresholds=(0.7, 0.5, 0.75), window_thresholds=windows)
    model = make_bundle(tmp_path / "model", info)
    options = () if kind is None else ("--apply-thresholds", kind)
    done = run("summary", night, "--model", model, "-o", tmp_path / "page.html", *options)
    assert done.status == 0
    assert ("are stated, but not applied" in done.err) == (kind is None)
    if kind is not None:
        result = summary(night, model=str(model), apply_thresholds=kind)
        assert {row.label: row.n_detections for row in result.labels} == counts
        assert result.hours == 2  # effort stays
        page = (tmp_path / "page.html").read_text()
        assert f"only those that reach the thresholds of {model} for {kind}" in page
        assert "not applied" not in page


def test_thresholds_are_not_applied_to_detections_that_have_none(night, tmp_path):
    with pytest.raises(ConfigError, match="needs the model"):
        summary(night, apply_thresholds="clips")
    model = make_bundle(tmp_path / "model", make_info(labels=("Fox", "Bat", "Rain")))
    with pytest.raises(DataError, match="the model has no label 'Owl'"):
        summary(night, model=str(model), apply_thresholds="clips")
    table = write(tmp_path / "other.csv", f"{TAGS}A/20240501_233000.wav,0,3,Fox,\n")
    with pytest.raises(DataError, match="has no probability, so no threshold"):
        summary(table, model=str(model), apply_thresholds="clips")


def test_interval_of_a_few_of_many_detections_is_wilsons():
    rows = [checked(float(number), "yes" if number < 8 else "no", weight=1e9) for number in range(10)]
    expected = binomtest(8, 10).proportion_ci(0.95, method="wilson")
    precision = label_precisions(rows)["Owl"]
    assert (precision.low, precision.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_precision_is_certain_only_if_all_detections_are_checked():
    rows = [checked(float(number), "yes" if number < 8 else "no") for number in range(10)]
    precision = label_precisions(rows)["Owl"]
    assert (precision.low, precision.high) == (0.8, 0.8)
    precision = label_precisions([*rows, checked(10.0, "")])["Owl"]
    assert precision.low < 0.8 < precision.high


@pytest.mark.parametrize("n_true", [20, 45])
def test_interval_contains_the_precision_of_a_large_part_of_the_detections_in_95_percent(n_true):
    rng = np.random.default_rng(0)
    truth = np.arange(60) < n_true
    hits = []
    for _ in range(400):
        drawn = rng.permutation(truth)[:30]  # half of all
        rows = [checked(float(number), "yes" if is_true else "no", weight=2.0) for number, is_true in enumerate(drawn)]
        precision = label_precisions(rows)["Owl"]
        hits.append(precision.low <= n_true / 60 <= precision.high)
    assert 0.93 <= np.mean(hits) <= 0.99


def test_expected_accumulation_is_the_mean_over_all_orders():
    units = [{0}, {0, 1}, {2}, set(), {1}]
    curves = [[len(set().union(*order[: n + 1])) for n in range(len(units))] for order in itertools.permutations(units)]
    n_units = np.array([2, 2, 1])
    assert expected_accumulation(n_units, len(units)) == pytest.approx(np.mean(curves, axis=0))


def test_camtrap_dp_needs_places_and_time_zones(night, tmp_path):
    deployments = write(tmp_path / "deployments.csv", "site,latitude,longitude\nA,47.5,8.5\n")
    status_of(tmp_path, A__20240501_233000=3600.0, A__20240502_233000=60.0, B__20240501_233000=3600.0)
    summary(night, tables=tmp_path / "tables", deployments=deployments)
    assert not (tmp_path / "tables" / "camtrap_dp").exists()
    summary(night, None, BERLIN, tables=tmp_path / "tables", deployments=deployments)
    folder = tmp_path / "tables" / "camtrap_dp"
    assert [{name: text for name, text in row.items() if text} for row in rows_of(folder / "deployments.csv")] == [
        {
            "deploymentID": "A",
            "locationID": "A",
            "locationName": "A",
            "latitude": "47.5",
            "longitude": "8.5",
            "deploymentStart": "2024-05-02T01:30:00+02:00",
            "deploymentEnd": "2024-05-03T01:31:00+02:00",
        }
    ]
    media, observations = rows_of(folder / "media.csv"), rows_of(folder / "observations.csv")
    assert {row["mediaID"] for row in observations} == {row["mediaID"] for row in media}
    assert [(row["eventStart"], row["observationType"], row["observationTags"]) for row in observations] == [
        ("2024-05-02T01:30:10+02:00", "unclassified", "label:Owl"),
        ("2024-05-02T02:03:20+02:00", "unclassified", "label:Owl"),
        ("2024-05-03T01:30:00+02:00", "blank", ""),
    ]


def test_page_states_sunrise_only_with_place_and_time_zone(night, tmp_path):
    result = summary(night, tmp_path / "page.html")
    assert "no latitude and longitude is known" in result.no_sunrise
    deployments = write(tmp_path / "deployments.csv", "site,latitude,longitude\nA,47.5,8.5\nB,47.5,8.5\n")
    assert "add" not in summary(night, deployments=deployments).no_sunrise
    assert "give it with --timezone" in summary(night, deployments=deployments).no_sunrise
    result = summary(night, tmp_path / "page.html", BERLIN, deployments=deployments)
    assert result.sunrise.counts.sum() == 3
    assert math.isclose(result.sunrise.hours.sum(), 2.0)
