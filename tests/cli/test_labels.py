"""spectag labels: labels, thresholds and clips of a model."""

import json

import pytest

from helpers.bundles import make_bundle, make_info
from spectag.models.bundle import WindowThresholds


@pytest.fixture
def model(tmp_path):
    return tmp_path / "ein Modell"


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_table_has_clips_and_threshold_of_each_label(run, model):
    make_bundle(model)
    done = run("labels", model)
    assert (done.status, done.err) == (0, "")
    assert rows(done.out) == [
        ["label", "clips", "threshold"],
        ["low", "1", "0.500", "fitted"],
        ["middle", "1", "0.400", "fitted"],
        ["high", "1", "0.600"],
    ]


def test_table_shows_thresholds_of_windows_and_labels_that_miss_the_goal(run, model):
    windows = WindowThresholds(below_seconds=2.25, thresholds=(0.1, 0.2, 0.3))
    make_bundle(model, make_info(window_thresholds=windows, labels_missing_goal=("middle",)))
    table = rows(run("labels", model).out)
    assert table[0] == ["label", "clips", "threshold", "short", "windows"]
    assert table[2] == ["middle", "1", "0.400", "0.200", "fitted,", "but", "misses", "its", "goal"]


def test_json_has_the_same_information(run, model):
    make_bundle(model)
    labels = json.loads(run("labels", model, "--json").out)
    assert [label["label"] for label in labels] == ["low", "middle", "high"]
    assert labels[2] == {
        "label": "high",
        "n_clips": 1,
        "threshold": 0.6,
        "window_threshold": None,
        "is_fitted": False,
        "misses_goal": False,
    }


def test_labels_of_a_published_model_need_no_download(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    done = run("labels", "audioset-mn40")
    assert done.status == 0
    assert len(done.out.splitlines()) == 528
    assert rows(done.out)[1] == ["Speech", "0.100"]
    assert not (tmp_path / "cache").exists()


def test_model_that_does_not_exist_is_one_line(run):
    done = run("labels", "gone")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("spectag: gone: not a tagger: no such folder. Give a folder that `spectag train -o`")
