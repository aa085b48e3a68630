import csv
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

import spectag
from helpers.bundles import make_bundle, make_info
from spectag.data.checked_detections import (
    CheckedDetection,
    CheckInfo,
    SampledLabel,
    read_decisions,
    write_check_info,
    write_decisions,
)
from spectag.errors import ConfigError, DataError
from spectag.findings.label_precision import label_precisions
from spectag.models.bundle import CARD_FILE, WindowThresholds, read_info
from spectag.scoring.thresholds import ThresholdGoal

GOAL = ThresholdGoal(kind="precision", at_least=0.9)


def rows_of(label, probabilities, decisions, weight=10.0):
    n = len(probabilities)
    for number, (probability, decision) in enumerate(zip(probabilities, decisions, strict=True)):
        times = float(number), number + 1.0
        yield CheckedDetection("a.wav", *times, label, probability, "", None, "all", int(n * weight), weight, decision)


def write_check(folder, rows, *, presence=False, max_probability=None):
    """A folder with decisions.csv and check.json."""
    folder.mkdir()
    rows = list(rows)
    write_decisions(folder / "decisions.csv", rows)
    labels = {
        label: SampledLabel(n_detections=960, n_sampled=96, lowest_probability=0.3)
        for label in dict.fromkeys(row.label for row in rows)
    }
    info = CheckInfo(
        table="tags.csv",
        model="model",
        seed=0,
        n_per_label=96,
        across=("scores",),
        presence=presence,
        max_probability=max_probability,
        created=datetime(2026, 5, 1, tzinfo=UTC),
        spectag="0",
        labels=labels,
    )
    write_check_info(folder / "check.json", info)
    return folder / "decisions.csv"


def decide(probabilities, right_from):
    return ["yes" if probability >= right_from else "no" for probability in probabilities]


@pytest.fixture
def check(tmp_path):
    """low: right from 0.6; middle: a third is wrong; high: all right, but only five are checked."""
    probabilities = np.linspace(0.31, 0.99, 96).round(4).tolist()
    thirds = ["no" if number % 3 == 0 else "yes" for number in range(96)]
    return write_check(
        tmp_path / "check",
        [
            *rows_of("low", probabilities, decide(probabilities, 0.6)),
            *rows_of("middle", probabilities, thirds),
            *rows_of("high", probabilities[::20], ["yes"] * 5),
        ],
    )


@pytest.fixture
def model(tmp_path):
    windows = WindowThresholds(below_seconds=2, thresholds=(0.45, 0.5, 0.7))
    return make_bundle(tmp_path / "model", make_info(window_thresholds=windows))


def test_threshold_is_raised_to_where_the_detections_are_right_and_stored_in_the_new_model(model, check, tmp_path):
    result = spectag.calibrate(model, checked=check, goal=GOAL, output=tmp_path / "new")
    low, middle, high = result.checked.labels
    assert 0.5 < low.threshold < 0.7
    assert low.lower >= 0.9
    n_above = sum(probability >= low.threshold for probability in np.linspace(0.31, 0.99, 96))
    assert low.n_detections == pytest.approx(10 * n_above)  # each one that is checked stands for ten
    assert low.n_true == pytest.approx(10 * n_above, rel=0.1)
    info = read_info(tmp_path / "new")
    assert info.thresholds == (low.threshold, 0.4, 0.6)
    assert info.window_thresholds.thresholds == (low.threshold, 0.5, 0.7)
    assert info.thresholds_fitted == (False, True, False)  # evaluate must not fit it again on other clips
    assert (middle.problem, high.problem) == ("too many errors", "too few checks")
    assert middle.best_precision == pytest.approx(2 / 3, abs=0.1)
    assert f"{low.threshold:.2f}" in (tmp_path / "new" / CARD_FILE).read_text("utf-8")


def test_table_of_precision_against_threshold_is_written_into_the_model(model, check, tmp_path):
    result = spectag.calibrate(model, checked=check, goal=GOAL, output=tmp_path / "new")
    with (tmp_path / "new" / "checked.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "low"]
    (chosen,) = (row for row in rows if float(row["threshold"]) == round(result.checked.labels[0].threshold, 6))
    assert float(chosen["lower"]) >= 0.9
    assert float(rows[-1]["threshold"]) == 0.3
    assert float(rows[-1]["n_detections"]) == 960
    again = spectag.calibrate(tmp_path / "new", thresholds={"low": 0.2}, output=tmp_path / "by hand")
    assert not (again.written_to / "checked.csv").exists()  # it is not about these thresholds


def test_nothing_is_written_without_a_destination(model, check):
    before = (model / "spectag.json").read_bytes()
    result = spectag.calibrate(model, checked=check, goal=GOAL)
    assert result.written_to is None
    assert (model / "spectag.json").read_bytes() == before
    json.dumps(result.to_dict(), allow_nan=False)


def test_unsure_decisions_count_as_wrong(model, tmp_path):
    probabilities = np.linspace(0.31, 0.99, 96).tolist()
    unsure = ["unsure" if number % 3 == 0 else "yes" for number in range(96)]
    path = write_check(tmp_path / "check", rows_of("low", probabilities, unsure))
    (row,) = spectag.calibrate(model, checked=path, goal=GOAL).checked.labels
    assert (row.problem, row.n_unsure) == ("too many errors", 32)


def test_command_prints_each_label_and_why_labels_are_missed(run, model, check, tmp_path):
    done = run("calibrate", model, "--checked", check, "--precision", "0.9", "--width", "0.05", "-o", tmp_path / "new")
    assert (done.status, done.err) == (0, f"next: spectag tag {tmp_path / 'new'} FOLDER -o new-tags.csv\n")
    assert "1 of 3 labels reach it" in done.out
    assert (
        "missed: middle keeps its threshold: even its most probable detections have a precision of only about"
        in done.out
    )
    assert "missed: high keeps its threshold: 5 checks are too few" in done.out
    assert "as narrow as 0.05" in done.out
    assert f"written to {tmp_path / 'new'}" in done.out


def test_label_whose_most_probable_detections_are_worse_keeps_its_threshold_and_is_named(run, model, tmp_path):
    probabilities = np.linspace(0.31, 0.99, 96).tolist()
    decisions = ["no" if probability > 0.9 else "yes" for probability in probabilities]
    path = write_check(tmp_path / "check", rows_of("low", probabilities, decisions))
    done = run("calibrate", model, "--checked", path, "--precision", "0.8")
    assert "missed: low keeps its threshold: its most probable detections are less often right" in done.out


def test_table_that_is_right_throughout_cannot_give_a_threshold_below_its_lowest_probability(run, model, tmp_path):
    probabilities = np.linspace(0.31, 0.99, 96).tolist()
    path = write_check(tmp_path / "check", rows_of("low", probabilities, ["yes"] * 96))
    done = run("calibrate", model, "--checked", path, "--precision", "0.9")
    assert "low: all detections in the table reach the goal. The table has none below 0.300" in done.out


def test_detections_that_are_all_checked_give_counts_and_the_advice_to_detect_more(run, model, tmp_path):
    probabilities = np.linspace(0.31, 0.99, 37).tolist()
    right, half = ["yes"] * 37, ["no", "yes"] * 18 + ["no"]
    rows = [*rows_of("low", probabilities, right, 1), *rows_of("middle", probabilities, half, 1)]
    path = write_check(tmp_path / "check", rows)
    (low, middle) = spectag.calibrate(model, checked=path, goal=GOAL).checked.labels
    assert (low.precision, low.lower, low.upper, low.n_true) == (1, 1, 1, 37)
    assert low.recall == pytest.approx(1)
    assert (middle.problem, middle.best_precision, middle.n_more_checks) == ("too many errors", 0.5, 0)
    known = label_precisions(read_decisions(path))
    assert {label: found.value for label, found in known.items()} == {"low": 1, "middle": 18 / 37}  # as summary says
    done = run("calibrate", model, "--checked", path, "--precision", "0.9")
    assert "37 of 37" in done.out
    assert "middle keeps its threshold: all its detections in the table are checked, and no threshold has" in done.out
    assert "counted, not estimated, because all detections in the table are checked: low, middle" in done.out
    assert "lower --min-confidence" in done.out
    assert "too few" not in done.out


@pytest.mark.parametrize(
    ("stratum", "end"),
    [
        ("score 0.8 to 0.9; site A", 0.9),
        ("site A; score 0.3 to 0.4", 0.4),
        ("score 0.9 to 1.0", np.inf),  # a probability of 1 is in this band
        ("site A", np.inf),
        ("score unknown", np.inf),
        ("site A; score 0.1 to 0.2; score 0.3 to 0.4", np.inf),  # a strange name of a site
    ],
)
def test_other_detections_of_a_score_band_are_below_its_upper_end(stratum, end):
    (row,) = rows_of("low", [0.1], [""])
    assert replace(row, stratum=stratum).others_below == end


def test_command_says_in_one_line_that_nothing_changed(run, model, tmp_path):
    path = write_check(tmp_path / "check", rows_of("low", [0.9, 0.8], ["yes", "no"]))
    done = run("calibrate", model, "--checked", path, "--precision", "0.9")
    assert done.status == 0
    assert "nothing changed: the thresholds and probabilities are those of the old model" in done.out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "--checked needs the precision to reach"),
        ({"goal": ThresholdGoal(kind="recall", at_least=0.9)}, "--checked needs the precision"),
        ({"goal": GOAL, "thresholds": {"low": 0.4}}, "--checked sets the thresholds alone"),
        ({"goal": GOAL, "width": 2.0}, "fraction between 0 and 1"),
        ({"goal": GOAL, "false_alarms": "1/h"}, "go together"),
    ],
)
def test_options_that_do_not_fit_are_refused(model, check, options, problem):
    with pytest.raises(ConfigError, match=problem):
        spectag.calibrate(model, checked=check, **options)


def test_sample_of_the_most_probable_detections_is_refused(model, tmp_path):
    path = write_check(tmp_path / "check", rows_of("low", [0.9, 0.8], ["yes", "no"]), presence=True)
    with pytest.raises(DataError, match="--presence"):
        spectag.calibrate(model, checked=path, goal=GOAL)


def test_sample_without_the_most_probable_detections_is_refused(model, tmp_path):
    path = write_check(tmp_path / "check", rows_of("low", [0.7, 0.8], ["yes", "no"]), max_probability=0.9)
    with pytest.raises(DataError, match=r"at or above 0\.9"):
        spectag.calibrate(model, checked=path, goal=GOAL)


@pytest.mark.parametrize(
    ("label", "probability", "decision", "problem"),
    [
        ("low", 0.9, "", "none of its 1 detections has a decision"),
        ("Low", 0.9, "yes", "none of its labels"),
        ("low", None, "yes", "no probability"),
    ],
)
def test_decisions_that_say_nothing_are_refused(model, tmp_path, label, probability, decision, problem):
    path = write_check(tmp_path / "check", rows_of(label, [probability], [decision]))
    with pytest.raises(DataError, match=problem):
        spectag.calibrate(model, checked=path, goal=GOAL)


def test_percentage_gets_a_hint(run, model):
    done = run("calibrate", model, "--precision", "90")
    assert done.status == 2
    assert "for 90 % write 0.9" in done.err


def test_figure_of_the_command_has_a_panel_for_each_label(check, tmp_path, run):
    model = make_bundle(tmp_path / "model", make_info())
    options = ("--checked", check, "--precision", "0.9", "-o", tmp_path / "new")
    done = run("calibrate", model, *options, "--figure", tmp_path / "checked.svg")
    assert done.status == 0, done.err
    drawing = (tmp_path / "checked.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {text} -->" in drawing for text in ("low", "middle", "high", "threshold"))
    assert run("calibrate", model, "--precision", "0.9", "--figure", "a.png", "-o", tmp_path / "b").status == 2
