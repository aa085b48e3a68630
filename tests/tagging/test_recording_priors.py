"""Tagging with priors: what they hide, where they are stored, and that a resumed run uses those of today."""

import csv
import tomllib

import numpy as np
import pytest

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.config.tagging import TagSettings
from spectag.models.tagger import Tagger
from spectag.tagging.batch import tag_to_tables
from spectag.tagging.events import Event
from spectag.tagging.recording_priors import _n_missing


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "model", make_info(thresholds=(1e-4, 0.4, 0.01)))  # reached by a tone of each label


@pytest.fixture
def sounds(tmp_path):
    """A recording of site A in May and one in December, one of B without a date: each with all labels in turn."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    waveform = np.concatenate([tone(label, 1.0) for label in LABELS])
    for name in ("A_20240501_053012.wav", "A_20241201_053012.wav", "B.wav"):
        write_audio(folder / name, waveform, 16_000)
    return folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_priors(tmp_path, text):
    path = tmp_path / "priors.csv"
    path.write_text(text)
    return path


def labels_of(rows, name):
    return [row["label"] for row in rows if row["file"].endswith(name)]


@pytest.fixture
def tag_with(run, model, sounds, tmp_path):
    """The rows of tags.csv and status.csv, and stderr, of a run with priors and other options."""

    def tag_them(text, *options, output="out"):
        done = run("tag", model, sounds, "-o", tmp_path / output, "--prior", write_priors(tmp_path, text), *options)
        assert done.status == 0, done.err
        return rows_of(tmp_path / output / "tags.csv"), rows_of(tmp_path / output / "status.csv"), done.err

    return tag_them


def test_prior_hides_a_label_where_and_when_it_applies_and_status_counts_it(tag_with):
    rows, status, messages = tag_with("label,site,weeks,prior\nlow,A,17..20,0\nmiddle,B,,0\n", "--window", "1")
    assert labels_of(rows, "A_20240501_053012.wav") == ["middle", "high"]
    assert labels_of(rows, "A_20241201_053012.wav") == ["low", "middle", "high"]
    assert [row["hidden_by_prior"] for row in status] == ["1", "0", "0"]
    assert "hidden by --prior: 1 tag or segment, in 1 of 3 files" in messages
    # the folder is the site of a name without a date
    assert "the week of 1 of 3 recordings is unknown, such as" in messages
    assert "no recording is from these sites of" in messages


def test_segments_with_a_lower_probability_are_not_hidden(tag_with):
    rows, status, messages = tag_with("label,site,prior\nlow,A,0.5\nhigh,A,0\n", "--segments", "--window", "1")
    assert labels_of(rows, "A_20240501_053012.wav") == ["low", "middle"]
    assert [row["hidden_by_prior"] for row in status] == ["1", "1", "0"]
    probability = {(row["file"][-22:], row["label"]): float(row["probability"]) for row in rows}
    by_name = {key[1]: value for key, value in probability.items() if key[0].endswith("20240501_053012.wav")}
    of_other = next(
        float(row["probability"]) for row in rows if row["file"].endswith("B.wav") and row["label"] == "low"
    )
    assert by_name["low"] / (1 - by_name["low"]) == pytest.approx(0.5 * of_other / (1 - of_other), rel=1e-2)
    assert "2 tags or segments, in 2 of 3 files" in messages


def test_site_and_position_come_from_the_options_of_recorded_places(tag_with, tmp_path):
    (tmp_path / "deployments.csv").write_text("site,recorder,latitude,longitude\nWood,A,47.0,8.5\n")
    text = "label,site,latitude,longitude,prior\nlow,Wood,,,0\nhigh,,46..48,8..9,0\n"
    rows, status, _ = tag_with(text, "--window", "1", "--deployments", tmp_path / "deployments.csv")
    assert labels_of(rows, "A_20240501_053012.wav") == ["middle"]
    assert [row["hidden_by_prior"] for row in status] == ["2", "2", "0"]
    rows, _, _ = tag_with(
        "label,site,prior\nlow,2024,0\n", "--window", "1", "--site-from", r"(2024|\w)\d*[_.]\w+$", output="x"
    )
    assert len(labels_of(rows, "B.wav")) == 3


def test_wide_tables_have_the_changed_probabilities(model, sounds, tmp_path):
    prior = write_priors(tmp_path, "label,prior\nlow,0\nhigh,3\n")
    for name, settings in (("with", TagSettings(format="wide", prior=prior)), ("without", TagSettings(format="wide"))):
        tag_to_tables(Tagger(model), [sounds], settings, output=str(tmp_path / name) + "/")
    changed, given = (rows_of(tmp_path / name / "tags.wide.csv")[0] for name in ("with", "without"))
    assert float(changed["low"]) == 0
    assert changed["middle"] == given["middle"]
    odds = [float(row["high"]) / (1 - float(row["high"])) for row in (given, changed)]
    assert odds[1] == pytest.approx(3 * odds[0], rel=1e-3)


def test_priors_are_in_the_parameters_and_a_new_run_reads_them(tag_with, run, model, sounds, tmp_path):
    first, _, _ = tag_with("label,site,prior\nlow,A,0\n", "--window", "1")
    text = (tmp_path / "out" / "parameters.toml").read_text()
    assert tomllib.loads(text)["prior"] == str(tmp_path / "priors.csv")
    assert "# 1 priors, factors of the odds; SHA-256" in text
    assert text.endswith("# label,site,latitude,longitude,weeks,prior\n# low,A,,,,0\n")
    done = run("tag", model, sounds, "-o", tmp_path / "again", "--config", tmp_path / "out" / "parameters.toml")
    assert done.status == 0
    assert rows_of(tmp_path / "again" / "tags.csv") == first


def test_resumed_run_uses_the_priors_of_today(model, sounds, tmp_path, monkeypatch):
    """The journal has the probabilities before the priors, so a run that was stopped may be resumed with others."""
    from spectag.tagging import batch

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    settings = TagSettings(window=1.0, prior=write_priors(tmp_path, "label,prior\nlow,0\n"))
    with monkeypatch.context() as patch:
        patch.setattr(batch, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            tag_to_tables(Tagger(model), [sounds], settings, output=str(tmp_path / "out") + "/")
    write_priors(tmp_path, "label,prior\nhigh,0\n")
    report = tag_to_tables(Tagger(model), [sounds], settings, output=str(tmp_path / "out") + "/")
    assert report.n_resumed == 3
    assert {row["label"] for row in rows_of(tmp_path / "out" / "tags.csv")} == {"low", "middle"}
    assert report.n_hidden == 3


def test_missing_and_unknown_priors_are_errors_before_the_work(run, model, sounds, tmp_path):
    done = run("tag", model, sounds, "--prior", tmp_path / "prior.csv")
    assert (done.status, done.out) == (1, "")
    assert "--prior" in done.err
    done = run("tag", model, sounds, "--prior", write_priors(tmp_path, "label,prior\nlaw,0\n"))
    assert done.status == 1
    assert "did you mean 'low'" in done.err


def test_segment_counts_as_hidden_only_if_nothing_is_left_of_it():
    before = [Event(0, 4, "a", 0.9), Event(6, 8, "a", 0.9), Event(0, 4, "b", 0.9)]
    after = [Event(1, 2, "a", 0.7), Event(3, 4, "a", 0.7)]
    assert _n_missing(before, after, by_window=False) == 2
    assert _n_missing(before, before, by_window=False) == 0
    assert _n_missing(before[1:], [Event(4, 6, "a", 0.7)], by_window=False) == 2  # it ends where the other begins
