"""Detections in recordings, compared with annotations."""

import csv
import json

import numpy as np
import pytest
import soundfile

from helpers.made_events import made_events
from spectag.config.findings import EventSettings
from spectag.errors import DataError
from spectag.evaluation.event_evaluation import evaluate_events

LABELS = ("Dog", "Cat, big", "Owl")
RATE = 1000


def write_table(path, rows, columns=("file", "start", "end", "label", "probability")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


@pytest.fixture
def tables(tmp_path):
    """Annotations and detections of twelve recordings of a minute."""
    truth, detected, durations = made_events()
    for number, seconds in enumerate(durations):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(int(seconds * RATE)), RATE)

    def rows(events, probability):
        return [
            (f"{recording}.wav", start, end, LABELS[label], probability)
            for recording, start, end, label in zip(
                events.recordings, events.starts, events.ends, events.labels, strict=True
            )
        ]

    annotations = write_table(tmp_path / "truth.csv", rows(truth, ""))
    return annotations, write_table(tmp_path / "tags.csv", [*rows(detected(0.5), 0.8), ("0.wav", 1, 2, "Car", 0.9)])


def test_scores_are_those_of_the_sounds_in_the_tables_with_intervals(tables, tmp_path):
    annotations, tags = tables
    result = evaluate_events(tags, annotations, tmp_path / "scores")
    assert result.scores["event_f1"].value == pytest.approx(0.23003194888178913)  # as in test_event_scores
    assert result.scores["segment_f1"].value == pytest.approx(0.7045267489711935)
    for estimate in (*result.scores.values(), result.per_label["Owl"]["event_f1"]):
        assert estimate.low < estimate.value < estimate.high
    assert result.per_label["Dog"]["event_f1"].value == pytest.approx(0.22950819672131148)
    assert (result.n_recordings, result.hours) == (12, 0.2)
    assert len(repr(result)) < 1000
    assert result.ignored == {"Car": 1}
    stored = json.loads((tmp_path / "scores" / "metrics.json").read_text(encoding="utf-8"))
    assert stored["scores"]["event_f1"]["value"] == pytest.approx(0.23003194888178913)
    with (tmp_path / "scores" / "per_label.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == sorted(LABELS)


def test_curve_ends_where_the_probabilities_do_and_is_empty_without_them(tables, tmp_path):
    annotations, tags = tables
    result = evaluate_events(tags, annotations)
    thresholds = [point.threshold for point in result.curve]
    assert 0.78 < max(thresholds) <= 0.8
    assert result.no_psds is None
    without = evaluate_events(annotations, annotations)
    assert without.curve == ()
    assert not {"psds1", "psds2"} & without.scores.keys()
    assert without.scores["event_f1"].value == 1


def test_threshold_leaves_out_less_probable_detections(tables):
    annotations, tags = tables
    result = evaluate_events(tags, annotations, settings=EventSettings(min_probability=0.85))
    assert np.isnan(result.scores["event_precision"].value)
    assert result.scores["event_recall"].value == 0


def test_recordings_without_sounds_count_as_time_without_sounds(tmp_path):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(1800 * RATE), RATE)
    annotations = write_table(
        tmp_path / "truth.csv", [("a.wav", 1, 5, "Dog"), ("b.wav", "", "", "")], ("file", "start", "end", "label")
    )
    tags = write_table(tmp_path / "tags.csv", [("a.wav", 1, 5, "Dog", 0.9), ("b.wav", 3, 4, "Dog", 0.9)])
    result = evaluate_events(tags, annotations)
    assert (result.n_recordings, result.hours) == (2, 1.0)
    assert result.scores["psds1"].value == pytest.approx(0.99)  # found at one false detection per hour, of up to 100
    assert result.scores["event_precision"].value == 0.5


@pytest.fixture
def minutes(tmp_path):
    """Two recordings of a minute."""
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(60 * RATE), RATE)
    return tmp_path


def test_spellings_of_a_recording_are_one_recording(minutes):
    (minutes / "tables").mkdir()
    annotations = write_table(minutes / "tables" / "truth.csv", [("../a.wav", 1, 5, "Dog", "")])
    tags = write_table(minutes / "tags.csv", [(str(minutes / "a.wav"), 1, 5, "Dog", 0.9), ("a.wav", 9, 10, "Dog", 0.4)])
    result = evaluate_events(tags, annotations, settings=EventSettings(min_probability=0.5), n_resamples=0)
    assert (result.n_recordings, result.scores["event_f1"].value, result.not_annotated) == (1, 1, {})


def test_detections_in_recordings_without_annotations_are_counted_and_printed(minutes, run):
    annotations = write_table(minutes / "truth.csv", [("a.wav", 1, 5, "Dog", "")])
    rows = [("a.wav", 1, 5, "Dog", 0.9), ("b.wav", 1, 5, "Dog", 0.9), ("b.wav", 7, 8, "Cat", 0.9)]
    tags = write_table(minutes / "tags.csv", rows)
    result = evaluate_events(tags, annotations, n_resamples=0)
    assert result.not_annotated == {str((minutes / "b.wav").resolve()): 1}  # cats are not scored
    assert result.scores["event_precision"].value == 0.5
    done = run("evaluate", "--events", "--resamples", 0, tags, annotations)
    assert "1 of 2 recordings is not in the annotations; all detections there count as false" in done.out
    done = run("evaluate", "--events", "--resamples", 0, annotations, tags)
    assert "not in the annotations" not in done.out


def test_annotated_labels_that_no_detection_has_are_printed_first_with_similar_names(minutes, run):
    rows = [("a.wav", 1, 5, "Dog_bark", ""), ("a.wav", 7, 8, "Rain", ""), ("a.wav", 9, 12, "Zither", "")]
    annotations = write_table(minutes / "truth.csv", rows)
    tags = write_table(minutes / "tags.csv", [("a.wav", 1, 5, "Dog", 0.9), ("a.wav", 7, 8, "Rain", 0.9)])
    assert evaluate_events(tags, annotations, n_resamples=0).never_detected == {"Dog_bark": ("Dog",), "Zither": ()}
    first, *_ = run("evaluate", "--events", "--resamples", 0, tags, annotations).out.splitlines()
    assert first.startswith("never detected: 2 of 3 annotated labels: Dog_bark (similar: Dog), Zither; ")
    assert "spectag relabel --map" in first
    assert "never detected" not in run("evaluate", "--events", "--resamples", 0, tags, tags).out


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("a.wav", 1, 5, "Dog", ""), ("a.wav", 7, 8, "Dog", "")], "2 of 2 detections have no probability"),
        ([("a.wav", 1, 5, "Dog", 0.9), ("a.wav", 7, 8, "Dog", "")], "1 of 2 detections have no probability"),
        ([("a.wav", 1, 5, "Dog", 0.01)], "all probabilities are below the lowest threshold, 0.0196"),
        ([("a.wav", 1, 5, "Cat", 0.9)], "there are no detections of annotated labels"),
    ],
)
def test_reason_for_no_psds_is_printed(minutes, run, rows, reason):
    annotations = write_table(minutes / "truth.csv", [("a.wav", 1, 5, "Dog", "")])
    done = run("evaluate", "--events", "--resamples", 0, write_table(minutes / "tags.csv", rows), annotations)
    assert done.status == 0
    assert f"no PSDS: {reason}\n" in done.out


def test_least_probability_without_probabilities_is_an_error_that_counts_them(minutes, run):
    annotations = write_table(minutes / "truth.csv", [("a.wav", 1, 5, "Dog", "")])
    tags = write_table(minutes / "tags.csv", [("a.wav", 1, 5, "Dog", 0.9), ("a.wav", 7, 8, "Dog", "")])
    done = run("evaluate", "--events", "--resamples", 0, tags, annotations, "--min-probability", 0.5)
    assert done.status == 1
    assert "tags.csv: 1 of 2 detections have no probability, but --min-probability needs it; leave it out" in done.err


def test_annotation_after_the_end_of_its_recording_is_an_error_that_names_it(minutes):
    annotations = write_table(minutes / "truth.csv", [("a.wav", 1, 5, "Dog", ""), ("b.wav", 70, 72, "Owl", "")])
    message = r"truth.csv: 'Owl' in b.wav starts at 70 s, but the recording has 60.000 s; correct the annotation"
    with pytest.raises(DataError, match=message):
        evaluate_events(annotations, annotations)


def test_least_probability_makes_detections_of_a_table_of_windows(minutes, run):
    annotations = write_table(minutes / "truth.csv", [("a.wav", 1, 2, "Dog", "")])
    rows = [("a.wav", 0, 1, 0.2), ("a.wav", 1, 2, 0.7), ("b.wav", 0, 1, 0.1)]
    windows = write_table(minutes / "windows.csv", rows, ("file", "start_time", "end_time", "Dog"))
    result = evaluate_events(windows, annotations, settings=EventSettings(min_probability=0.5), n_resamples=0)
    assert (result.scores["event_f1"].value, result.n_recordings) == (1, 2)
    assert run("evaluate", "--events", "--resamples", 0, windows, annotations, "--min-probability", 0.5).status == 0
    done = run("evaluate", "--events", "--resamples", 0, windows, annotations)
    assert "say which probabilities are detections with --min-probability, such as --min-probability 0.5" in done.err
    done = run("evaluate", "--events", "--resamples", 0, annotations, windows, "--min-probability", 0.5)
    assert "windows.csv: the table has a probability for each of 1 labels" in done.err
    assert "expected a start, an end and a label in each line" in done.err


def test_progress_ends_with_all_scenarios(minutes):
    annotations = write_table(minutes / "truth.csv", [("a.wav", 1, 5, "Dog", 0.9)])
    calls = []
    evaluate_events(annotations, annotations, n_resamples=0, progress=lambda *call: calls.append(call))
    assert calls == [("PSDS", 0, 2), ("PSDS", 1, 2), ("PSDS", 2, 2)]


def test_psds_falls_if_one_label_is_found_and_another_is_not(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(60 * RATE), RATE)
    annotations = write_table(tmp_path / "truth.csv", [("a.wav", 1, 5, "Dog", ""), ("a.wav", 11, 15, "Owl", "")])
    tags = write_table(tmp_path / "tags.csv", [("a.wav", 1, 5, "Dog", 0.9)])
    assert evaluate_events(tags, annotations).scores["psds1"].value == 0  # the mean 0.5 less the deviation 0.5


ERRORS_OF_A_MINUTE = [
    ("missed", 30, 34, "Owl", None, None, ("Cat",)),
    ("missed", 1, 2, "Cat", None, None, ()),
    ("false alarm", 30.5, 33, "Cat", 0.9, None, ("Owl",)),
    ("false alarm", 50, 51, "Dog", 0.8, None, ()),
    ("false alarm", 55, 56, "Dog", 0.7, None, ()),
    ("wrong times", 10, 14, "Dog", None, (11.0, 14.0), ()),
    ("repeated", 20.6, 21, "Dog", 0.6, (20.0, 21.0), ()),
]


def test_errors_are_what_is_left_after_matching_the_longest_and_the_most_probable_first(minutes, run):
    truth = [(10, 14, "Dog"), (20, 21, "Dog"), (30, 34, "Owl"), (1, 2, "Cat")]
    annotations = write_table(minutes / "truth.csv", [("a.wav", *sound, "") for sound in truth])
    found = [(11, 14, "Dog", 0.9), (20.1, 20.55, "Dog", 0.9), (20.6, 20.8, "Dog", 0.5), (20.8, 21, "Dog", 0.6)]
    found += [(55, 56, "Dog", 0.7), (50, 51, "Dog", 0.8), (30.5, 33, "Cat", 0.9)]
    tags = write_table(minutes / "tags.csv", [("a.wav", *sound) for sound in found])
    result = evaluate_events(tags, annotations, minutes / "scores", n_resamples=0)
    errors = [
        (e.kind, e.start_seconds, e.end_seconds, e.label, e.probability, e.other_span, e.other_labels)
        for e in result.errors
    ]
    assert errors == ERRORS_OF_A_MINUTE
    counts = {kind: sum(error[0] == kind for error in errors) for kind in ("missed", "wrong times", "false alarm")}
    assert result.scores["event_recall"].value == 1 - (counts["missed"] + counts["wrong times"]) / len(truth)
    assert result.scores["event_precision"].value == pytest.approx(1 / 6)
    done = run("clips", minutes / "scores" / "errors.csv", "-o", minutes / "clips", "--audio-dir", minutes)
    assert (done.status, len(list((minutes / "clips").glob("*/*.wav")))) == (0, len(errors))


def test_curves_of_labels_and_of_psds_belong_to_the_scores(tables, tmp_path):
    annotations, tags = tables
    result = evaluate_events(tags, annotations, tmp_path / "scores", n_resamples=0)
    first = result.curve[0]
    assert first.event_precision == result.scores["event_precision"].value
    assert result.label_curves["Owl"][0].segment_recall == result.per_label["Owl"]["segment_recall"].value
    for name, curve in result.psd_roc.items():
        per_hour, ratios = np.array(curve.false_positives_per_hour), np.array(curve.true_positive_ratio)
        area = np.diff(np.append(per_hour[per_hour < 100], 100)) @ ratios[: (per_hour < 100).sum()]
        assert area / 100 == pytest.approx(result.scores[name].value)
    with (tmp_path / "scores" / "curve.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"", *LABELS}
    assert float(rows[0]["event_f1"]) == pytest.approx(first.event_f1, abs=1e-4)


def test_annotations_without_sounds_are_an_error(tables, tmp_path):
    _, tags = tables
    empty = write_table(tmp_path / "none.csv", [("0.wav", "", "", "")], ("file", "start", "end", "label"))
    with pytest.raises(DataError, match=r"none.csv: there are no annotated sounds"):
        evaluate_events(tags, empty)


def test_command_prints_scores_and_writes_tables(tables, tmp_path, run):
    annotations, tags = tables
    done = run("evaluate", "--events", tags, annotations, "-o", tmp_path / "scores", "--resamples", 20)
    assert done.status == 0
    assert "F1 of events" in done.out
    assert "0.2300" in done.out
    assert "not scored: 1 detections of 1 labels that are not annotated" in done.out
    assert (tmp_path / "scores" / "curve.csv").is_file()


def test_detections_without_the_option_are_an_error_that_names_it(tables, run):
    annotations, tags = tables
    done = run("evaluate", tags, annotations)
    assert done.status == 1
    assert "tags.csv: each line has a start, an end and a label" in done.err
    assert "add --events" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--events", "--compare", "other"), "--compare has no effect with --events"),
        (("--events", "--workers", 2), "--workers has no effect with --events; leave it out"),
        (("--collar", 0.5), "--collar, --offset-fraction and --segment have no effect without --events"),
    ],
)
def test_options_without_effect_are_errors(tables, run, options, message):
    annotations, tags = tables
    done = run("evaluate", tags, annotations, *options)
    assert done.status == 1
    assert message in done.err
