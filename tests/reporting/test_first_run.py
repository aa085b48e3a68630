"""The demo from start to end: sounds, a model, its score, its tags, a figure and a report."""

import csv
import re
import shlex

import numpy as np
import pytest

import spectag
from spectag.audio.spectrogram_image import read_png
from spectag.audio.synthesis import KINDS
from spectag.data.manifest import read_manifest
from spectag.scoring.metrics import lwlrap


def times_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_demo_prints_the_score_the_files_and_the_next_command_and_runs_again(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))  # without the features of another test
    folder = tmp_path / "erste Schritte"
    done = run("demo", "-o", folder)
    assert done.status == 0
    for step in ("making sounds: 220/220", "log-mels: 120/120", "features by efficientnet_lite0: 120/120", "tagging:"):
        assert step in done.err
    [n_drawn] = {int(number) for number in re.findall(r"explaining clips: \d+/(\d+)", done.err)}
    assert 1 <= n_drawn <= 2
    assert "\x1b" not in done.out + done.err  # no colours where there is no terminal

    first, *files, _, next_command, own_sounds, better, without_connection = done.out.splitlines()
    assert own_sounds == "With your own sounds: spectag train labels.csv -o my-model"
    assert "mn04_audioset" in better
    assert "SPECTAG_WEIGHTS" in without_connection
    assert first.startswith("lwlrap 0.9")
    assert "on 60 test clips that were not used for training" in first
    assert [line.split(maxsplit=1) for line in files] == [
        ["model", str(folder / "model")],
        ["tags", str(folder / "tags.csv")],
        ["figure", str(folder / "tags.png")],
        ["report", str(folder / "evaluation" / "report.html")],
    ]
    assert "<title>" in (folder / "evaluation" / "report.html").read_text(encoding="utf-8")

    answers = read_manifest(folder / "data" / "test_answers.csv", audio_dir=folder / "data" / "test")
    assert answers.labels.names == tuple(KINDS)
    tagger = spectag.load(folder / "model")
    y_score = np.stack([tagger.tag(clip.path).probabilities for clip in answers.clips])
    own = lwlrap(answers.multi_hot(), y_score)
    assert first.split()[1] == f"{own:.3f}"

    with (folder / "tags.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == set(KINDS)
    assert {row["file"] for row in rows} <= {str(clip.path) for clip in answers.clips}
    assert read_png(folder / "tags.png").shape[2] == 3

    command = next_command.removeprefix("Next: ")
    assert command.startswith(f"spectag tag '{folder / 'model'}' '{folder / 'data' / 'test'}/")
    tagged = run(*shlex.split(command)[1:])
    assert tagged.status == 0
    assert len(tagged.out.splitlines()) == 1 + 3

    before = times_of(folder / "data")
    again = run("demo", "-o", folder)
    assert (again.status, again.out) == (0, done.out)
    assert times_of(folder / "data") == before
    assert "nothing to do: 120 spectrograms are cached" in again.err


def test_folder_with_other_files_is_refused(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "diary.txt").write_text("")
    done = run("demo", "-o", tmp_path)
    assert done.status == 1
    assert "diary.txt, which is not part of the demo; name a new folder" in done.err
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "diary.txt"]


def test_another_seed_needs_another_folder(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo_data.json").write_text('{"version": 1, "seed": 0}\n')
    done = run("demo", "-o", tmp_path, "--seed", "1")
    assert done.status == 1
    assert "the folder contains other demo data" in done.err
