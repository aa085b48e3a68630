"""A model trained on clips knows when a sound in a recording starts and ends."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

import spectag
from spectag.audio.files import write_audio
from spectag.config.backbones import BACKBONES
from spectag.config.recipe import Recipe
from spectag.config.tagging import SEGMENT_WINDOW
from spectag.models.frames_info import FRAMES_FILE, FramesInfo
from spectag.training.networks.backbones.mobilenet import MobileNet
from spectag.training.pipeline import train

pytestmark = pytest.mark.slow
PITCHES = {"low": 300, "high": 5_000}
RATE = 32_000


def sound(label, seconds, rng):
    times = np.arange(round(seconds * RATE)) / RATE
    pitch = PITCHES[label] * rng.uniform(0.9, 1.1)
    return np.sin(2 * np.pi * pitch * times) * (1 + 0.5 * np.sin(2 * np.pi * 6 * times))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Twenty clips of 3 s, in which a tone is heard for a second."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    lines = ["fname,labels"]
    for number in range(20):
        label = sorted(PITCHES)[number % 2]
        waveform = rng.normal(0, 1e-3, 3 * RATE)
        start = rng.integers(2 * RATE)
        waveform[start : start + RATE] += 0.2 * sound(label, 1.0, rng)
        write_audio(folder / f"{number}.wav", waveform.astype(np.float32), RATE)
        lines.append(f"{number}.wav,{label}")
    (folder / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with random weights in place of the published ones."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(MobileNet(0.5).eval().state_dict(), folder / BACKBONES["mn05_audioset"].weights.file_name)
    return folder


@pytest.fixture(scope="module")
def trained(manifest, weights, tmp_path_factory):
    model, messages = tmp_path_factory.mktemp("models") / "model", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_WEIGHTS", str(weights))
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("spectag.training.heads.frame_scenes._SCENE_SECONDS", 240.0)
        train(manifest, model, Recipe(backbone="mn05_audioset"), log=messages.append)
    return model, messages


def test_start_and_end_of_sounds_are_found_within_0_2_s(trained, rng):
    tagger = spectag.load(trained[0])
    truth = [("low", 2.3, 3.6), ("high", 6.1, 6.9), ("low", 10.0, 12.5)]
    waveform = lfilter([1e-3], [1, -0.98], rng.normal(0, 1, 15 * RATE))  # louder at low frequencies, as in nature
    for label, start, end in truth:
        waveform[round(start * RATE) : round(end * RATE)] += 0.2 * sound(label, end - start, rng)
    found = tagger.segments(waveform.astype(np.float32), RATE).detections
    for label, start, end in truth:  # among others: the network is not trained at all
        times = [(each.start_seconds, each.end_seconds) for each in found if each.label == label]
        assert np.abs(np.array(times) - (start, end)).max(axis=1).min() < 0.2
    assert sum(each.end_seconds - each.start_seconds for each in found) < 7  # of 15, and 4.6 of them are true


def test_model_says_how_its_frames_become_segments(trained):
    model, messages = trained
    info = spectag.load(model).info
    assert info.frames == FramesInfo()
    assert FRAMES_FILE in info.sha256
    assert "learning from mixed clips when a sound starts and ends" in messages


def test_same_seed_gives_the_same_frames(trained, manifest, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(weights))
    monkeypatch.setattr("spectag.training.heads.frame_scenes._SCENE_SECONDS", 240.0)
    train(manifest, tmp_path / "again", Recipe(backbone="mn05_audioset"))
    sounds = np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32)
    first, second = (
        spectag.load(model).segments(sounds, RATE, min_confidence=0.0).timeline.probabilities
        for model in (trained[0], tmp_path / "again")
    )
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_segments_are_found_from_windows_if_there_is_no_time_for_frames(manifest, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(weights))
    messages = []
    train(manifest, tmp_path / "model", Recipe(backbone="mn05_audioset", budget=1.0), log=messages.append)
    tagger = spectag.load(tmp_path / "model")
    assert tagger.info.frames is None
    assert not (tmp_path / "model" / FRAMES_FILE).exists()
    assert tagger.segment_window == SEGMENT_WINDOW
    assert any("segments are found from windows: no time is left" in line for line in messages)


def test_long_clips_do_not_say_when_a_label_is_heard(weights, tmp_path, monkeypatch, rng):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(weights))
    lines, messages = ["fname,labels"], []
    for number in range(6):
        label = sorted(PITCHES)[number % 2]
        write_audio(tmp_path / f"{number}.wav", (0.1 * sound(label, 31.0, rng)).astype(np.float32), RATE)
        lines.append(f"{number}.wav,{label}")
    (tmp_path / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
    train(tmp_path / "clips.csv", tmp_path / "model", Recipe(backbone="mn05_audioset"), log=messages.append)
    assert spectag.load(tmp_path / "model").info.frames is None
    assert any("too few short clips" in line for line in messages)
