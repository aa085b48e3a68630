"""Training on clips that were cut and mixed from a few recordings, which the table does not name."""

import numpy as np
import pytest

from helpers.shared_recordings import RATE, write_clips
from spectag.config.backbones import resolve_mel
from spectag.config.base import MelConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.data.shared_audio import find_shared_audio
from spectag.training.pipeline import score_recipe, train
from spectag.training.setup.callbacks import Callbacks

RECIPE = Recipe(
    backbone="scratch",
    mel=resolve_mel("scratch", MelConfig(sample_rate=RATE, n_fft=512, hop_length=320, n_mels=32, f_max=8000)),
    calibration="none",
)


def score_of(table, recipe, folder):
    log = []
    score = score_recipe(
        read_manifest(table), None, recipe, Callbacks(log=log.append), DataOptions(cache=folder, workers=1), folder
    )
    return score.scores.overall["roc_auc"].value, log


@pytest.mark.parametrize(("n_recordings", "n_sounds"), [(16, (1,)), (16, (1, 1, 2))], ids=["cut", "cut and mixed"])
def test_labels_given_by_chance_score_as_chance_although_clips_share_recordings(tmp_path, rng, n_recordings, n_sounds):
    table, _ = write_clips(tmp_path, rng, n_clips=80, n_recordings=n_recordings, n_sounds=n_sounds)
    plain, _ = score_of(table, RECIPE.model_copy(update={"find_shared_audio": False}), tmp_path)
    found, log = score_of(table, RECIPE, tmp_path)
    assert plain > 0.9
    assert found < 0.7
    assert any(line.startswith("shared audio: ") and "clips share audio, each with" in line for line in log)


def test_score_on_given_folds_is_called_optimistic_with_the_score_of_the_other_clips(tmp_path, rng):
    table, contents = write_clips(tmp_path, rng, n_clips=24, n_recordings=20, n_sounds=(1,), extra_columns=("fold",))
    log = []
    train(table, tmp_path / "model", RECIPE, data=DataOptions(cache=tmp_path, workers=1), log=log.append)
    assert "held out: the 4 folds of the manifest" in log
    recordings = [int(content[0]) for content in contents]
    shares = [
        any(other == recording and k % 4 != n % 4 for k, other in enumerate(recordings))
        for n, recording in enumerate(recordings)
    ]
    assert 0 < sum(shares) < 24
    [message] = [line for line in log if line.startswith("the score is optimistic")]
    assert message.startswith(
        f"the score is optimistic: {sum(shares)} of 24 held-out clips share audio with clips that the network was "
        f"trained on; lwlrap of the other {24 - sum(shares)} is "
    )


def test_noisy_clips_that_share_audio_with_held_out_clips_are_left_out_there(tmp_path, rng):
    for name in ("curated", "noisy"):
        (tmp_path / name).mkdir()
    curated, _ = write_clips(tmp_path / "curated", np.random.default_rng(1), n_clips=12, n_recordings=12, n_sounds=(1,))
    noisy, _ = write_clips(tmp_path / "noisy", np.random.default_rng(1), n_clips=5, n_recordings=12, n_sounds=(1,))
    log = []
    options = DataOptions(cache=tmp_path, workers=1, noisy=noisy)
    train(curated, tmp_path / "model", RECIPE, data=options, log=log.append)
    assert any(line.startswith("5 noisy clips share a recording or group with clips of the manifest") for line in log)


def test_audio_is_not_compared_if_the_recipe_says_so(tmp_path, rng):
    table, _ = write_clips(tmp_path, rng, n_clips=12, n_recordings=3, n_sounds=(1,))
    steps = set()
    callbacks = Callbacks(progress=lambda name, *_: steps.add(name))
    recipe = RECIPE.model_copy(update={"find_shared_audio": False})
    options = DataOptions(cache=tmp_path, workers=1)
    score_recipe(read_manifest(table), None, recipe, callbacks, options, tmp_path)
    assert "shared audio" not in steps


def test_clips_are_compared_only_once_in_a_search_for_settings(tmp_path, rng, monkeypatch):
    table, _ = write_clips(tmp_path, rng, n_clips=12, n_recordings=6, n_sounds=(1,))
    n_compared = []
    monkeypatch.setattr(
        "spectag.data.fingerprint_cache.find_shared_audio",
        lambda fingerprints, **options: n_compared.append(len(fingerprints)) or find_shared_audio(fingerprints),
    )
    for weight_decay in (0.1, 0.01):
        recipe = Recipe(**RECIPE.model_dump(exclude_unset=True), weight_decay=weight_decay)
        _, log = score_of(table, recipe, tmp_path)
        assert any(line.startswith("shared audio: 1") and "clips share audio, each with" in line for line in log)
    assert n_compared == [12]


@pytest.mark.parametrize(
    ("columns", "settings", "is_skipped"),
    [
        (("fold",), {}, True),
        ((), {"validation_fraction": 0.25, "validation_split": "random"}, True),
        ((), {}, False),  # the folds of spectag depend on the shared audio
    ],
    ids=["folds of the table", "random split", "folds of spectag"],
)
def test_many_clips_are_not_compared_where_it_changes_nothing(
    tmp_path, rng, monkeypatch, columns, settings, is_skipped
):
    monkeypatch.setattr("spectag.training.pipeline.MAX_COMPARED", 23)
    table, _ = write_clips(tmp_path, rng, n_clips=24, n_recordings=20, n_sounds=(1,), extra_columns=columns)
    _, log = score_of(table, Recipe(**RECIPE.model_dump(exclude_unset=True), **settings), tmp_path)
    [line] = [line for line in log if line.startswith("shared audio: ")]
    assert ("the 24 clips are not compared" in line) == ("spectag inspect" in line) == is_skipped


def test_noisy_clips_are_compared_with_many_clips_whose_folds_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr("spectag.training.pipeline.MAX_COMPARED", 11)
    for name in ("curated", "noisy"):
        (tmp_path / name).mkdir()
    curated, noisy = (
        write_clips(
            tmp_path / name, np.random.default_rng(1), n_clips=n, n_recordings=12, n_sounds=(1,), extra_columns=columns
        )[0]
        for name, n, columns in (("curated", 12, ("fold",)), ("noisy", 5, ()))
    )
    log = []
    options = DataOptions(cache=tmp_path, workers=1, noisy=noisy)
    train(curated, tmp_path / "model", RECIPE, data=options, log=log.append)
    assert any("the 12 clips are not compared with each other" in line for line in log)
    assert any(line.startswith("5 noisy clips share a recording or group with clips of the manifest") for line in log)
