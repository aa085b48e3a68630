import csv
import io
import json

import numpy as np
import pytest

from helpers.claps import RATE, low_or_high, write_band_clap
from spectag.audio.files import write_audio

WORDS = "clap:low, high"


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for kind in ("low", "high"):
        write_audio(tmp_path / "rec" / f"{kind}.wav", low_or_high(kind), RATE)
    return tmp_path / "rec"


@pytest.fixture
def clap(recordings, tmp_path, run):
    done = run("models", "clap", write_band_clap(tmp_path / "clap"))
    assert done.status == 0
    assert done.out.startswith("bands: licence CC0-1.0, stored in ")
    assert "spectag tag 'clap:dog barking, rain on a window' FOLDER" in done.err


def test_tag_lists_all_words_with_their_similarity_and_says_what_it_is(clap, recordings, run):
    done = run("tag", WORDS, recordings)
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [(row["file"][-7:-4], row["label"]) for row in rows] == [
        ("igh", "high"),
        ("igh", "low"),
        ("low", "low"),
        ("low", "high"),
    ]
    assert done.err.count("not probabilities") == 1
    assert "no threshold is known" in done.err


def test_list_of_models_says_whether_clap_is_there(recordings, tmp_path, run):
    assert "CLAP, for words as labels: not added; see spectag models clap --help" in run("models").out
    run("models", "clap", write_band_clap(tmp_path / "clap"))
    assert 'CLAP, for words as labels: bands (licence CC0-1.0), such as clap:"dog barking, rain"' in run("models").out


def test_tag_without_clap_says_what_to_do(recordings, run):
    done = run("tag", WORDS, recordings)
    assert done.status == 1
    assert "spectag models clap" in done.err
    assert "--words" in done.err


def test_very_long_words_are_no_path(clap, recordings, run):
    assert run("tag", f"clap:low, high, {'very ' * 60}both", recordings).status == 0


def test_background_sets_thresholds_without_false_alarms(clap, recordings, tmp_path, run):
    for number in range(4):
        write_audio(tmp_path / "background" / f"{number}.wav", np.tile(low_or_high("high"), 30), RATE)
    goal = ("--false-alarms", "100/h", "--confidence", "0.5")
    done = run("calibrate", WORDS, "--background", tmp_path / "background", *goal, "-o", "model")
    assert done.status == 0, done.err
    rows = list(csv.DictReader(io.StringIO(run("tag", "model", recordings).out)))
    assert [(row["file"][-7:-4], row["label"]) for row in rows] == [("low", "low")]


def test_labelled_clips_turn_similarities_into_probabilities(clap, recordings, tmp_path, run, rng):
    rows = []
    for number in range(24):
        kind = ("low", "high")[number % 2]
        noise = 0.02 * rng.standard_normal(RATE)
        write_audio(tmp_path / "clips" / f"{number}.wav", (low_or_high(kind) + noise).astype(np.float32), RATE)
        rows.append(f"clips/{number}.wav,{kind}")
    (tmp_path / "clips.csv").write_text("\n".join(["file,labels", *rows]), encoding="utf-8")
    done = run("calibrate", WORDS, "clips.csv", "--calibration", "platt", "-o", "model")
    assert done.status == 0, done.err
    tags = list(csv.DictReader(io.StringIO(run("tag", "model", recordings).out)))
    assert [(tag["file"][-7:-4], tag["label"]) for tag in tags] == [("igh", "high"), ("low", "low")]
    assert all(float(tag["probability"]) > 0.9 for tag in tags)
    assert "not probabilities" not in run("tag", "model", recordings).err


def test_calibrate_in_place_is_refused(clap, run):
    done = run("calibrate", WORDS, "--set", "low=0.3", "--in-place")
    assert "is a published model and is not changed" in done.err


def test_search_finds_the_sound_that_words_describe(clap, recordings, run):
    done = run("index", recordings, "-o", "with", "--model", "clap", "--window", "1")
    assert "next: spectag search with 'glass breaking on tiles'" in done.err
    done = run("search", "with", "a low sound", "--json")
    assert json.loads(done.out)[0]["file"].endswith("low.wav")
