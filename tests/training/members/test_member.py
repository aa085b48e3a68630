"""What a member hears and learns: where fine-tuning begins, how long it may take, and what is kept of folds."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.small_training import FRONT_END, SMALL_MEL, small_recipe, write_sounds
from spectag.audio.files import write_audio
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError
from spectag.models.tagger import Tagger as RuntimeTagger
from spectag.system.progress import no_log, silent
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY
from spectag.training.heads.per_fold import fit_by_lbfgs
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members.clip_logits import ValidationClips, logits_of_clips
from spectag.training.members.finetune_loop import FineTuning
from spectag.training.members.finetuned import FinetuneContext, fit_finetuned, trial
from spectag.training.members.member import fit_frozen, hear, kept_networks, mean_of_weights
from spectag.training.networks.network import build_head
from spectag.training.pipeline import train
from spectag.training.setup.distributed import Processes
from spectag.training.setup.noisy_labels import Relabelled
from spectag.training.setup.task import CrossValidation, Fold

TOLD_NOTHING = {"name": "", "progress": silent, "say": no_log, "on_epoch": lambda _: None}


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """The cache of all tests, also for what the module makes once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_sounds(tmp_path_factory.mktemp("member") / "data")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("bank")


@pytest.fixture(scope="module")
def heard_by(data, cache):
    """What a member of a recipe hears of the sounds."""

    def listen(recipe, noisy=None):
        manifest = read_manifest(data)
        return hear(manifest, noisy, recipe, FRONT_END, cache, workers=1, progress=silent, log=no_log)

    return listen


@pytest.fixture(scope="module")
def y_true(data):
    return read_manifest(data).multi_hot()


def one_part(y_true, n_held_out=3, noisy=None):
    valid = np.arange(len(y_true)) < n_held_out
    return CrossValidation(y_true, (Fold("valid", ~valid, valid, noisy),), None)


def two_folds(y_true):
    valid = np.arange(len(y_true)) % 2 == 0
    everything = Fold("all clips", np.ones(len(y_true), bool), np.zeros(len(y_true), bool))
    return CrossValidation(y_true, (Fold("fold 0", ~valid, valid), Fold("fold 1", valid, ~valid)), everything)


@pytest.fixture
def place(tmp_path, cache):
    def make(seconds=None):
        processes = Processes.started(for_frozen_alone=False)
        return FinetuneContext(processes, tmp_path / "checkpoints", False, "this one", lambda: seconds, cache)

    return make


def logits_of(tagger, heard):
    with torch.inference_mode():
        return np.concatenate([tagger(torch.from_numpy(heard.clips.inputs(i)[None].copy())) for i in range(12)])


# ------------------------------------------------------------------------------------------------ where it begins


@pytest.fixture
def as_if_pretrained(monkeypatch):
    """The small network from scratch is taken for one that has learnt."""
    monkeypatch.setattr("spectag.training.members.finetuned.has_pretrained_weights", lambda _: True)


def test_network_that_has_not_learnt_begins_with_a_random_head_whose_features_are_as_they_are(heard_by, y_true, cache):
    """Its features change as soon as batch normalisation learns: a head solved on them began with huge losses."""
    begun = trial(
        heard_by(small_recipe()), one_part(y_true), Processes.started(for_frozen_alone=False), cache, progress=silent
    )
    head = begun.network_with_noisy_head.tagger.head
    assert not head.center.any()
    assert (head.scale == 1).all()
    assert head.linear.weight.abs().max() <= head.linear.in_features**-0.5


def test_fine_tuning_begins_with_the_head_of_the_frozen_network(as_if_pretrained, heard_by, y_true, cache):
    heard = heard_by(small_recipe())
    task = one_part(y_true)
    frozen_recipe = Recipe(backbone="scratch", mel=SMALL_MEL, weight_decay=DEFAULT_WEIGHT_DECAY)
    data = heard.frozen_features(y_true, progress=silent)
    frozen = fit_by_lbfgs(data, task, frozen_recipe, progress=silent, log=no_log)
    begun = trial(
        heard, task, Processes.started(for_frozen_alone=False), cache, progress=silent
    ).network_with_noisy_head.tagger.eval()
    np.testing.assert_allclose(logits_of(begun, heard)[:3], frozen.logits[:3], atol=1e-3)


def test_a_head_of_layer_norm_is_first_fitted_too(as_if_pretrained, heard_by, y_true, cache):
    """It knows the clips that it learns from before the network learns at all."""
    processes = Processes.started(for_frozen_alone=False)
    losses = {}
    for linear_probe_first in (True, False):
        heard = heard_by(small_recipe(head="layer_norm", finetune={"linear_probe_first": linear_probe_first}))
        begun = trial(heard, one_part(y_true), processes, cache, progress=silent).network_with_noisy_head.tagger.eval()
        logits = torch.from_numpy(logits_of(begun, heard)[3:])
        targets = torch.from_numpy(y_true[3:].astype(np.float32))
        losses[linear_probe_first] = float(nn.functional.binary_cross_entropy_with_logits(logits, targets))
    assert losses[True] < 0.9 * losses[False]


def test_without_head_first_the_head_is_random_but_its_features_are_standardised(
    as_if_pretrained, heard_by, y_true, cache
):
    heard = heard_by(small_recipe(finetune={"linear_probe_first": False}))
    head = trial(
        heard, one_part(y_true), Processes.started(for_frozen_alone=False), cache, progress=silent
    ).network_with_noisy_head
    features = heard.frozen_features(y_true, progress=silent).clips[3:]
    np.testing.assert_allclose(head.tagger.head.center.numpy(), features.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert head.tagger.head.linear.weight.abs().max() <= features.shape[1] ** -0.5


def test_noisy_clips_that_are_kept_are_learnt_after_the_others(heard_by, y_true, data, cache):
    """A clip of weight 0 is left out; targets are the probabilities."""
    heard = heard_by(small_recipe(), noisy=read_manifest(data))
    targets = np.full((12, 3), 0.25)
    weights = np.array([1.0, 0.0, 0.3] + [0.0] * 9)
    nobody = np.zeros(12, bool)
    task = one_part(y_true, noisy=Relabelled(targets, weights, nobody, nobody, rates=None))
    run = trial(heard, task, Processes.started(for_frozen_alone=False), cache, progress=silent)
    examples = run.batches._examples
    assert len(examples) == 9 + 2
    assert examples.is_noisy.tolist() == [False] * 9 + [True] * 2
    np.testing.assert_allclose(examples.weights, [1] * 9 + [1.0, 0.3])
    np.testing.assert_allclose(examples.targets[9:], 0.25)
    np.testing.assert_array_equal(examples.inputs(10), heard.noisy.inputs(2))


def test_an_empty_folder_of_backgrounds_is_named(heard_by, y_true, cache, tmp_path):
    heard = heard_by(small_recipe(augment={"background": tmp_path}))
    with pytest.raises(ConfigError, match=r"augment\.background: .*: no sound found"):
        trial(heard, one_part(y_true), Processes.started(for_frozen_alone=False), cache, progress=silent)


def test_backgrounds_change_what_is_learnt(heard_by, y_true, place, tmp_path, rng):
    write_audio(tmp_path / "waves.wav", rng.normal(0, 0.1, 8000).astype(np.float32), 8000)
    fits = [
        fit_finetuned(heard_by(small_recipe(epochs=1, augment=augment)), one_part(y_true), place(), **TOLD_NOTHING)
        for augment in ({"mix": 0.0}, {"mix": 0.0, "background": tmp_path, "background_share": 1.0})
    ]
    assert not np.array_equal(fits[0].logits, fits[1].logits, equal_nan=True)


# ------------------------------------------------------------------------------------------------ what is kept


def constant(value):
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, -value)
    return layer


def test_the_mean_of_weights_is_the_mean_of_each():
    mean = mean_of_weights([constant(1.0), constant(4.0)])
    assert (mean.weight.unique().tolist(), mean.bias.tolist()) == ([2.5], [-2.5])


def test_counts_of_batches_stay_whole_numbers():
    """And the networks that the mean is of stay as they are."""
    networks = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    networks[1].num_batches_tracked.fill_(3)
    assert mean_of_weights(networks).num_batches_tracked == 1
    assert [int(network.num_batches_tracked) for network in networks] == [0, 3]


@pytest.mark.parametrize(("final_model", "weights"), [("refit", [7.0]), ("average", [1.5]), ("ensemble", [1.0, 2.0])])
def test_of_folds_that_is_kept_which_the_recipe_asks_for(y_true, keep, weights):
    networks = [constant(value) for value in (1.0, 2.0, 7.0)]
    kept = kept_networks(networks, two_folds(y_true), Recipe(keep=keep))
    assert [network.weight[0, 0].item() for network in kept] == weights


def test_of_a_share_held_out_its_only_network_is_kept(y_true):
    assert len(kept_networks([constant(1.0)], one_part(y_true), Recipe(final_model="average"))) == 1


@pytest.mark.parametrize(
    ("final_model", "n_trainings", "n_kept"), [("refit", 3, 1), ("average", 2, 1), ("ensemble", 2, 2)]
)
def test_fine_tuning_holds_out_each_clip_once(heard_by, y_true, place, keep, n_trainings, n_kept):
    """Its logits are those of the tagger that did not see the clip."""
    heard = heard_by(small_recipe(keep=keep, epochs=1, folds=2))
    fit = fit_finetuned(heard, two_folds(y_true), place(), **TOLD_NOTHING)
    assert len(fit.epochs) == n_trainings
    assert len(fit.taggers) == n_kept
    assert np.isfinite(fit.logits).all()
    if keep == "folds":
        np.testing.assert_allclose(logits_of(fit.taggers[0], heard)[::2], fit.logits[::2], atol=1e-4)
        np.testing.assert_allclose(logits_of(fit.taggers[1], heard)[1::2], fit.logits[1::2], atol=1e-4)


def test_a_member_that_is_frozen_holds_out_each_clip_once(heard_by, y_true):
    heard = heard_by(Recipe(backbone="scratch", mel=SMALL_MEL, final_model="ensemble"))
    fit = fit_frozen(heard, heard.frozen_features(y_true, progress=silent), two_folds(y_true), **TOLD_NOTHING)
    np.testing.assert_allclose(logits_of(fit.taggers[0], heard)[::2], fit.logits[::2], atol=1e-3)
    assert [tagger.extractor for tagger in fit.taggers] == [heard.store.extractor] * 2


# ------------------------------------------------------------------------------------------------ within the time


@pytest.mark.parametrize(("seconds", "n_epochs"), [(35.0, 3), (47.0, 4), (1e6, 6), (None, 6)])
def test_as_many_epochs_are_learnt_as_fit(heard_by, y_true, place, monkeypatch, seconds, n_epochs):
    """Where an epoch takes 10 seconds."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    fit = fit_finetuned(heard_by(small_recipe(epochs=6)), one_part(y_true), place(seconds), **TOLD_NOTHING)
    assert [epoch.n_epochs for epoch in fit.epochs] == [n_epochs] * n_epochs


def test_what_finding_the_speed_takes_is_no_time_for_epochs(heard_by, y_true, place, monkeypatch):
    left = [60.0]

    def measure(_):
        left[0] -= 20.0
        return 10.0

    monkeypatch.setattr(FineTuning, "seconds_per_epoch", measure)
    timed = dataclasses.replace(place(), seconds_left=lambda: left[0])
    fit = fit_finetuned(heard_by(small_recipe(epochs=6)), one_part(y_true), timed, **TOLD_NOTHING)
    assert len(fit.epochs) == 4


@pytest.mark.parametrize("seconds", [29.0, 0.0, -5.0])
def test_without_time_for_three_epochs_none_is_begun(heard_by, y_true, place, monkeypatch, seconds):
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    said = []
    told = TOLD_NOTHING | {"say": said.append}
    assert fit_finetuned(heard_by(small_recipe(epochs=6)), one_part(y_true), place(seconds), **told) is None
    assert said == [f"no time to fine-tune: an epoch takes 10 s and there are {max(seconds, 0):.0f} s"]


@pytest.mark.parametrize(
    ("seconds", "parts"),
    [
        (130.0, ["fold 0"] * 6 + ["fold 1"] * 6),
        (119.0, ["fold 0"] * 6),  # one fold for long enough rather than two for too short
        (40.0, ["fold 0"] * 4),
    ],
)
def test_folds_for_which_there_is_no_time_are_left_out(heard_by, y_true, place, monkeypatch, seconds, parts):
    """An epoch takes 10 s, and six are enough."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    recipe = small_recipe(epochs=6, final_model="average", folds=2)
    fit = fit_finetuned(heard_by(recipe), two_folds(y_true), place(seconds), **TOLD_NOTHING)
    assert [epoch.part for epoch in fit.epochs] == parts
    assert len(fit.taggers) == 1
    np.testing.assert_array_equal(np.isnan(fit.logits).all(axis=1), (np.arange(12) % 2 == 1) & (len(set(parts)) == 1))


def test_with_little_time_the_network_of_all_clips_comes_before_the_folds(heard_by, y_true, place, monkeypatch):
    """It is what final_model = refit keeps."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    recipe = small_recipe(epochs=6, final_model="refit", folds=2)
    fit = fit_finetuned(heard_by(recipe), two_folds(y_true), place(119.0), **TOLD_NOTHING)
    assert {epoch.part for epoch in fit.epochs} == {"all clips"}
    fit = fit_finetuned(heard_by(recipe), two_folds(y_true), place(1e6), **TOLD_NOTHING)
    assert [epoch.part for epoch in fit.epochs] == ["all clips"] * 6 + ["fold 0"] * 6 + ["fold 1"] * 6
    free = fit_finetuned(heard_by(recipe), two_folds(y_true), place(), **TOLD_NOTHING)
    torch.testing.assert_close(fit.taggers[0].state_dict(), free.taggers[0].state_dict())


def test_mean_of_weights_of_linear_heads_is_the_mean_of_their_logits(rng):
    """Also where each head centres and scales features in its own way."""
    heads = [build_head("linear", 6, 3) for _ in range(3)]
    for head in heads:
        head.center.copy_(torch.from_numpy(rng.normal(size=6)))
        head.scale.copy_(torch.from_numpy(rng.uniform(0.5, 2, size=6)))
    heads[1].scale[2] = 0.0  # does not vary among its clips
    features = torch.from_numpy(rng.normal(size=(5, 6)).astype(np.float32))
    with torch.inference_mode():
        expected = torch.stack([head(features) for head in heads]).mean(dim=0)
        torch.testing.assert_close(mean_of_weights(heads)(features), expected, atol=1e-5, rtol=1e-5)


def test_trying_the_speed_leaves_no_trace(heard_by, y_true, place):
    """The weights are those of a run of as many epochs without a limit."""
    limited, free = (
        fit_finetuned(heard_by(small_recipe(epochs=3)), one_part(y_true), place(seconds), **TOLD_NOTHING)
        for seconds in (1e6, None)
    )
    np.testing.assert_array_equal(limited.logits, free.logits)


def test_to_compile_without_a_gpu_is_said_to_do_nothing(heard_by, y_true, place):
    said = []
    recipe = small_recipe(epochs=1, finetune={"compile": True})
    fit_finetuned(heard_by(recipe), one_part(y_true), place(), **TOLD_NOTHING | {"say": said.append})
    assert said == ["finetune.compile does nothing here: there is no GPU"]


# ------------------------------------------------------------------------------------------------ in a bundle


@pytest.fixture(scope="module")
def packed(data, cache, tmp_path_factory):
    recipe = small_recipe(validation_fraction=0.25, learning_rate=0.01, calibration="none")
    with pytest.MonkeyPatch.context() as patch:  # or its head would be nearly blind
        patch.setattr("spectag.training.members.finetuned.has_pretrained_weights", lambda _: True)
        return train(data, tmp_path_factory.mktemp("packed") / "model", recipe, cache=cache)


def test_held_out_scores_are_those_of_the_tagger_that_is_packed(packed, data):
    tagger = RuntimeTagger(packed.bundle)
    manifest = read_manifest(data)
    rows = np.flatnonzero(~np.isnan(packed.predictions).any(axis=1))
    assert len(rows) == 3
    for row in rows:
        tagged = tagger.tag(manifest.clips[row].path).probabilities
        np.testing.assert_allclose(packed.predictions[row], tagged, atol=1e-4)
    assert packed.epochs[-1].valid_lwlrap == pytest.approx(packed.members[0].lwlrap)


def test_a_long_clip_is_judged_as_the_packed_tagger_tags_it(packed, heard_by, tmp_path, rng):
    """Two minutes and a half, changing all the time: three parts."""
    heard = heard_by(small_recipe())
    task, processes = one_part(heard.clips.manifest.multi_hot()), Processes.started(for_frozen_alone=False)
    waveform = (rng.normal(size=150 * 8000) * np.linspace(0.001, 0.3, 150 * 8000)).astype(np.float32)
    write_audio(tmp_path / "long.wav", waveform, 8000)
    tagger = trial(heard, task, processes, tmp_path, progress=silent).network_with_noisy_head.tagger
    tagger.load_state_dict(load_file(packed.bundle / "weights.safetensors"))
    inputs = FRONT_END.input_of_waveform(waveform)
    asked = ValidationClips(lambda _: inputs, np.array([0]), np.ones((1, 3), bool))
    logits = logits_of_clips(tagger, asked, FRONT_END, processes.accelerator)
    tagged = RuntimeTagger(packed.bundle).tag(tmp_path / "long.wav").probabilities
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[0])), tagged, atol=1e-4)


def test_a_store_is_not_changed_by_fine_tuning(heard_by, y_true, place, cache):
    recipe = small_recipe(epochs=1, learning_rate=0.1)
    heard = heard_by(recipe)
    before = {name: values.clone() for name, values in heard.store.extractor.state_dict().items()}
    fit_finetuned(heard, one_part(y_true), place(), **TOLD_NOTHING)
    torch.testing.assert_close(heard.store.extractor.state_dict(), before, rtol=0, atol=0)
    assert FeatureStore(cache, recipe, FRONT_END).weights_sha256 == heard.store.weights_sha256
