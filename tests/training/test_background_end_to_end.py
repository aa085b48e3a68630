"""Training with background recordings: they are negative examples, and thresholds are fitted on them, too."""

import numpy as np
import pytest

from spectag.audio.files import write_audio
from spectag.config.backbones import resolve_mel
from spectag.config.base import MelConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.models.out_of_fold import read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.training.pipeline import train

RATE, SECONDS = 8000, 1.0
MEL = resolve_mel("scratch", MelConfig(sample_rate=RATE, n_fft=256, hop_length=160, n_mels=16, f_max=4000))
RECIPE = Recipe(backbone="scratch", mel=MEL)


def tone(frequency, rng):
    times = np.arange(round(RATE * SECONDS)) / RATE
    return np.sin(2 * np.pi * frequency * times) * rng.uniform(0.1, 0.4) + rng.normal(0, 0.01, len(times))


def noise(rng, seconds=SECONDS):
    return rng.normal(0, rng.uniform(0.05, 0.3), round(RATE * seconds))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model that is trained without background, and one that is trained with it."""
    folder, rng = tmp_path_factory.mktemp("background"), np.random.default_rng(0)
    for label, frequency in (("low", 400), ("high", 2400)):
        for number in range(8):
            path = folder / "clips" / label / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, tone(frequency * rng.uniform(0.9, 1.1), rng).astype(np.float32), RATE)
    (folder / "quiet").mkdir()
    for number in range(6):
        write_audio(folder / "quiet" / f"{number}.wav", noise(rng, 2.0).astype(np.float32), RATE)
    options = {"without": None, "with": folder / "quiet"}
    for name, background in options.items():
        train(folder / "clips", folder / name, RECIPE, data=DataOptions(background=background, cache=folder / "cache"))
    return {name: folder / name for name in options}


def test_background_clips_are_held_out_without_labels(models):
    clips, alone = (read_out_of_fold(models[name]) for name in ("with", "without"))
    assert clips.fnames[: len(alone.fnames)] == alone.fnames
    of_background = clips.y_true[len(alone.fnames) :]
    assert of_background.shape == (12, 2)  # two clips of each recording
    assert not of_background.any()
    assert clips.has_prediction.all()
    folds = {
        name: {fold for other, fold in zip(clips.fnames, clips.folds, strict=True) if other == name}
        for name in clips.fnames
    }
    assert all(len(of_file) == 1 for of_file in folds.values())  # a recording is in one fold


def test_new_background_gets_no_label_after_training_with_background(models):
    rng = np.random.default_rng(1)
    new = [noise(rng).astype(np.float32) for _ in range(20)]
    n_false = {name: sum(len(Tagger(model).tag(sound, RATE)) > 0 for sound in new) for name, model in models.items()}
    assert n_false["with"] == 0 < n_false["without"]
    tones = [tone(frequency, rng).astype(np.float32) for frequency in (400, 2400)]
    assert [[tag.label for tag in Tagger(models["with"]).tag(sound, RATE)] for sound in tones] == [["low"], ["high"]]
