"""A clip longer than a minute: training, evaluation and tagging predict the same for it."""

import numpy as np
import pytest

import spectag
from helpers.small_training import LABELS, SMALL_MEL, small_recipe
from spectag.audio.files import write_audio
from spectag.config.base import ImageConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.evaluation.predictions import predict
from spectag.models.out_of_fold import read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.scoring.calibration import probabilities_of

RATE = SMALL_MEL.sample_rate
PITCHES = (300, 1000, 2500)  # Hz
N_CLIPS = 10


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Clips of 70 to 92 s; the sound of the label is only in the seconds after the first minute."""
    folder, rng = tmp_path_factory.mktemp("long"), np.random.default_rng(0)
    rows = ["fname,labels"]
    for number in range(N_CLIPS):
        times = np.arange((70 + 2 * number) * RATE) / RATE
        waveform = 1e-4 * rng.normal(size=len(times))
        waveform[60 * RATE :] += 0.3 * np.sin(2 * np.pi * PITCHES[number % 3] * times[60 * RATE :])
        write_audio(folder / f"{number:02}.wav", waveform.astype(np.float32), RATE)
        rows.append(f"{number:02}.wav,{LABELS[number % 3]}")
    (folder / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    return read_manifest(folder / "clips.csv")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def trained_with_one_split(manifest, cache, output, recipe):
    """A tagger, and its predictions in training for the clips on which it was not trained."""
    spectag.train(manifest, output, recipe, data=DataOptions(cache=cache))
    return Tagger(output), read_out_of_fold(output)


FROZEN = {"backbone": "scratch", "mel": SMALL_MEL, "validation_fraction": 0.5, "calibration": "none"}
RECIPES = {
    "linear head": Recipe(**FROZEN),
    "head that is not linear": Recipe(**FROZEN, head="layer_norm", optimizer="adam", learning_rate=1e-3, epochs=2),
    "linear head by epochs": Recipe(**FROZEN, optimizer="adam", learning_rate=1e-3, epochs=2),
    "images": Recipe(**FROZEN, weight_decay=1e-3, image=ImageConfig(height=16, width=64)),
    "fine-tuned": small_recipe(validation_fraction=0.5, epochs=1, calibration="none"),
}


@pytest.fixture(scope="module")
def linear(manifest, cache, tmp_path_factory):
    """A tagger with a linear head, and its predictions in training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return trained_with_one_split(manifest, cache, tmp_path_factory.mktemp("out") / "model", RECIPES["linear head"])


def assert_tagged_as_held_out(manifest, tagger, stored):
    rows = np.flatnonzero(stored.has_prediction)
    expected = probabilities_of(stored.logits[rows], tagger.info.calibration)
    tagged = [tagger.tag(manifest.clips[row].path).probabilities for row in rows]
    np.testing.assert_allclose(tagged, expected, atol=1e-4)
    assert len(rows) == N_CLIPS // 2


def test_held_out_logits_of_long_clips_are_those_of_tagging(manifest, linear):
    assert_tagged_as_held_out(manifest, *linear)


@pytest.mark.parametrize(
    "name",
    ["head that is not linear", *(pytest.param(name, marks=pytest.mark.slow) for name in list(RECIPES)[2:])],
)
def test_held_out_logits_of_long_clips_are_those_of_tagging_for_every_kind_of_training(manifest, cache, tmp_path, name):
    assert_tagged_as_held_out(manifest, *trained_with_one_split(manifest, cache, tmp_path / "model", RECIPES[name]))


def test_sound_in_the_last_part_reaches_its_threshold_in_tagging_as_in_training(manifest, linear):
    tagger, stored = linear
    rows = np.flatnonzero(stored.has_prediction)
    in_training = probabilities_of(stored.logits[rows], tagger.info.calibration) >= tagger.thresholds
    tagged = [tagger.tag(manifest.clips[row].path) for row in rows]
    np.testing.assert_array_equal([tags.probabilities >= tags.thresholds for tags in tagged], in_training)
    assert in_training[stored.y_true[rows]].mean() > 0.5


def test_evaluation_and_command_predict_long_clips_like_tagging(manifest, linear, run):
    tagger, _ = linear
    clips = manifest.clips[:2]
    evaluated = predict(tagger, clips, features=True)
    for row, clip in enumerate(clips):
        np.testing.assert_array_equal(evaluated.probabilities[row], tagger.tag(clip.path).probabilities)
    done = run("tag", tagger.folder, clips[1].path, "--format", "wide")
    values = [float(value) for value in done.out.splitlines()[1].split(",")[-len(LABELS) :]]
    np.testing.assert_allclose(values, evaluated.probabilities[1], atol=1e-6)


def test_features_of_short_clips_in_the_cache_stay_valid(tmp_path):
    """Only clips of at least a minute have other keys than before."""
    (tmp_path / "sounds").mkdir()
    for name, seconds in (("short", 5), ("long", 61)):
        write_audio(tmp_path / "sounds" / f"{name}.wav", np.full(seconds * RATE, 0.1, np.float32), RATE)
    (tmp_path / "clips.csv").write_text("fname,labels\nsounds/short.wav,a\nsounds/long.wav,b\n")
    spectag.train(
        tmp_path / "clips.csv",
        tmp_path / "model",
        Recipe(backbone="scratch", mel=SMALL_MEL, folds="none"),
        data=DataOptions(cache=tmp_path / "cache"),
    )
    keys = read_out_of_fold(tmp_path / "model").keys
    files = {path.stem for path in (tmp_path / "cache" / "features").rglob("*.npy")}
    assert files == {keys[0], f"{keys[1]}-60s"}
