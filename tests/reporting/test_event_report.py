"""The report of detections in recordings."""

import json
import re

import numpy as np
import pytest
import soundfile

from helpers.pages import Page
from spectag.errors import ConfigError
from spectag.evaluation.event_evaluation import evaluate_events
from spectag.reporting.event_report import write_event_report

RATE = 8000
HOSTILE = '<script>alert(1)</script> & "quotes"'
TRUTH = [(5, 6, "Dog"), (10, 14, "Dog"), (20, 32, HOSTILE), (40, 41, HOSTILE)]
FOUND = [
    *((5.6, 6.6, "Dog", 0.9), (10, 14, "Dog", 0.8)),
    *((50 + 2 * number, 51 + 2 * number, "Dog", 0.3 + 0.1 * number) for number in range(4)),
    (20, 25, "Dog", 0.2),
]


@pytest.fixture
def evaluation(tmp_path):
    """Of a recording of a minute, with errors of each kind."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 60 * RATE), RATE)
    for name, rows in (("truth", TRUTH), ("tags", FOUND)):
        lines = (json.dumps({"file": "a.wav", "start": start, "end": end, "tags": [tag(*sound)]})
                 for start, end, *sound in rows)  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return evaluate_events(tmp_path / "tags.jsonl", tmp_path / "truth.jsonl", n_resamples=0)


def tag(label, probability=None):
    return {"label": label, "probability": probability}


def sections(page):
    """The text of each section."""
    headings = ["False alarms", "Missed sounds", "Wrong times"]
    parts = re.split(rf'<section id="([a-z-]+)">\s*<h2>(?:{"|".join(headings)})</h2>', page.html)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_most_probable_false_alarms_and_longest_misses_are_shown_a_few_of_each_label(evaluation, tmp_path):
    page = Page(write_event_report(evaluation, tmp_path / "report.html", n_per_label=2).read_text(encoding="utf-8"))
    text = sections(page)
    shown = re.findall(r"“(.*?)” was detected with probability ([\d.]+), but not annotated", text["false-alarms"])
    assert shown == [("Dog", "0.60"), ("Dog", "0.50")]
    assert "2 of 5 are shown; errors.csv lists all of them." in text["false-alarms"]
    assert re.findall(r"lasts ([\d.]+) s", text["missed"]) == ["12.00", "1.00"]
    assert "Detected there: “Dog”." in text["missed"]
    assert "its start is 0.60 s too late and its end 0.60 s too late" in text["wrong-times"]
    assert len(page.all("audio")) == len(page.all("rect", **{"class": "frame"})) == 5


def test_what_is_annotated_and_detected_is_marked_in_the_spectrogram(evaluation, tmp_path):
    page = Page(write_event_report(evaluation, tmp_path / "report.html").read_text(encoding="utf-8"))
    marks = re.findall(r'<rect class="(span[ a-z]*)" x="([\d.]+)".*?width="([\d.]+)".*?<title>(.*?)</title>', page.html)
    own, other = [mark for mark in marks if "from 5.00 s" in mark[3] or "from 5.60 s" in mark[3]]
    assert own[0] == "span"
    assert other[0] == "span secondary"
    seconds = 392 / (6 + 1.5 - 3.5)  # pixels: the spectrogram is 392 wide, from 1.5 s before to 1.5 s after the sound
    assert float(own[1]) == pytest.approx(40 + 1.5 * seconds, abs=0.1)
    assert float(other[2]) == pytest.approx(1.0 * seconds, abs=0.1)


def test_labels_are_escaped_and_nothing_is_loaded(evaluation, tmp_path):
    page = Page(write_event_report(evaluation, tmp_path / "report.html", command=HOSTILE).read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert HOSTILE in page.text
    assert not re.search(r'(src|href)="(?!data:|#)', page.html)


def test_recording_that_is_gone_is_named_on_the_page(evaluation, tmp_path):
    (tmp_path / "a.wav").unlink()
    page = Page(write_event_report(evaluation, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "This clip can no longer be read: a.wav" in page.text
    assert str(tmp_path) not in page.text


def test_page_without_probabilities_has_no_curves(evaluation, tmp_path):
    result = evaluate_events(tmp_path / "truth.jsonl", tmp_path / "truth.jsonl", n_resamples=0)
    page = Page(write_event_report(result, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {"There are no false alarms.", "No sound was missed."} <= {text.strip() for text in page.texts}
    assert not page.all("section", id="thresholds")
    assert "No PSDS" in page.text
    with pytest.raises(ConfigError, match=r"n_per_label: expected 0 or more sounds to show, got -1"):
        write_event_report(result, tmp_path / "report.html", n_per_label=-1)


def test_command_writes_the_report_and_no_report_removes_it(evaluation, tmp_path, run):
    arguments = ("evaluate", "--events", "--resamples", 0, tmp_path / "tags.jsonl", tmp_path / "truth.jsonl")
    assert run(*arguments, "-o", tmp_path / "scores").status == 0
    assert "spectag" in (tmp_path / "scores" / "report.html").read_text(encoding="utf-8")
    assert run(*arguments, "-o", tmp_path / "scores", "--no-report").status == 0
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == [
        *("curve.csv", "errors.csv", "metrics.json", "per_label.csv", "psd_roc.csv")
    ]
