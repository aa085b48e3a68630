"""Members: the initial network of fine-tuning, its time limit, and the networks that are kept."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.special import expit
from torch import nn

from helpers.small_training import FRONT_END, SMALL_MEL, small_recipe, write_sounds
from spectag.audio.files import write_audio
from spectag.config.base import ImageConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.errors import ConfigError
from spectag.models.tagger import Tagger
from spectag.scoring.metrics import lwlrap
from spectag.scoring.model_selection import HeldOutLogits
from spectag.system.progress import no_log, silent
from spectag.training.heads.head_weights import average_heads
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY
from spectag.training.heads.per_fold import fit_linear_heads
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members.clip_logits import ValidationClips, logits_of_clips
from spectag.training.members.finetune_loop import FineTuned, FineTuning
from spectag.training.members.finetuned import (
    FinetuneContext,
    _Pace,
    fewest_folds,
    first_run,
    fit_finetuned,
    logits_without_parts,
)
from spectag.training.members.head_training import head_weights
from spectag.training.members.member import final_networks, fit_frozen, front_end_for, open_inputs
from spectag.training.networks.network import build_head
from spectag.training.networks.weight_averages import average_weights
from spectag.training.pipeline import train
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation, Fold
from spectag.training.setup.distributed import Processes
from spectag.training.setup.held_out import HeldOut
from spectag.training.setup.noisy_labels import Relabelled


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """The cache of all tests, also for fixtures of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_sounds(tmp_path_factory.mktemp("member") / "data")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def inputs_for(data, cache):
    """A function from a recipe to its inputs for the sounds."""

    def make(recipe, noisy=None):
        manifest = read_manifest(data)
        return open_inputs(manifest, noisy, recipe, FRONT_END, cache, Callbacks(), workers=1)

    return make


@pytest.fixture(scope="module")
def y_true(data):
    return read_manifest(data).multi_hot()


def single_split(y_true, n_held_out=3, noisy=None):
    valid = np.arange(len(y_true)) < n_held_out
    return CrossValidation(y_true, (Fold("valid", ~valid, valid, noisy),), None)


def two_folds(y_true):
    valid = np.arange(len(y_true)) % 2 == 0
    all_clips = Fold("all clips", np.ones(len(y_true), bool), np.zeros(len(y_true), bool))
    return CrossValidation(y_true, (Fold("fold 0", ~valid, valid), Fold("fold 1", valid, ~valid)), all_clips)


@pytest.fixture
def context(tmp_path, cache):
    def make(seconds=None):
        processes = Processes.connect(frozen_only=False)
        return FinetuneContext(processes, tmp_path / "checkpoints", False, "this one", lambda: seconds, cache)

    return make


def logits_of(tagger, member_inputs):
    with torch.inference_mode():
        return np.concatenate([tagger(torch.from_numpy(member_inputs.clips.inputs(i)[None].copy())) for i in range(12)])


# ------------------------------------------------------------------------------------------------ front end


@pytest.fixture
def images(tmp_path):
    """A manifest of grey images."""
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / label / "image.png")
    return read_manifest(tmp_path)


def test_audioset_networks_refuse_images(images):
    with pytest.raises(ConfigError, match="mn04_audioset takes log_mels and was not trained on images; use a backbone"):
        front_end_for(Recipe(), images)


def test_images_need_one_size(images):
    with pytest.raises(ConfigError, match=r"image\.height and image\.width are needed"):
        front_end_for(Recipe(backbone="scratch", image=ImageConfig(height=64)), images)


# ------------------------------------------------------------------------------------------------ initial network


@pytest.fixture
def as_if_pretrained(monkeypatch):
    """Treat the small network as a pretrained one."""
    monkeypatch.setattr("spectag.training.members.finetuned.has_pretrained_weights", lambda _: True)


def test_untrained_network_starts_with_a_random_head_on_raw_features(inputs_for, y_true, cache):
    """Its features change with the batch normalisation statistics: a fitted head started with huge losses."""
    run = first_run(
        inputs_for(small_recipe()), single_split(y_true), Processes.connect(frozen_only=False), cache, progress=silent
    )
    head = run.model.network.head
    assert not head.center.any()
    assert (head.scale == 1).all()
    assert head.linear.weight.abs().max() <= head.linear.in_features**-0.5


def test_fine_tuning_starts_with_the_head_of_the_frozen_network(as_if_pretrained, inputs_for, y_true, cache):
    member_inputs = inputs_for(small_recipe())
    cross_validation = single_split(y_true)
    frozen_recipe = Recipe(backbone="scratch", mel=SMALL_MEL, weight_decay=DEFAULT_WEIGHT_DECAY)
    data = member_inputs.frozen_features(y_true, progress=silent)
    frozen = fit_linear_heads(data, cross_validation, frozen_recipe, Callbacks())
    run = first_run(
        member_inputs, cross_validation, Processes.connect(frozen_only=False), cache, progress=silent
    ).model.network.eval()
    np.testing.assert_allclose(logits_of(run, member_inputs)[:3], frozen.logits.chosen[:3], atol=1e-3)


def test_layer_norm_head_is_fitted_first_too(as_if_pretrained, inputs_for, y_true, cache):
    """Its loss on the training clips is lower before the first step."""
    processes = Processes.connect(frozen_only=False)
    losses = {}
    for linear_probe_first in (True, False):
        member_inputs = inputs_for(small_recipe(head="layer_norm", finetune={"linear_probe_first": linear_probe_first}))
        run = first_run(member_inputs, single_split(y_true), processes, cache, progress=silent).model.network.eval()
        logits = torch.from_numpy(logits_of(run, member_inputs)[3:])
        targets = torch.from_numpy(y_true[3:].astype(np.float32))
        losses[linear_probe_first] = float(nn.functional.binary_cross_entropy_with_logits(logits, targets))
    assert losses[True] < 0.9 * losses[False]


def test_without_linear_probe_the_head_is_random_on_standardised_features(as_if_pretrained, inputs_for, y_true, cache):
    member_inputs = inputs_for(small_recipe(finetune={"linear_probe_first": False}))
    run = first_run(member_inputs, single_split(y_true), Processes.connect(frozen_only=False), cache, progress=silent)
    head = run.model.network.head
    features = member_inputs.frozen_features(y_true, progress=silent).clips[3:]
    np.testing.assert_allclose(head.center.numpy(), features.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert head.linear.weight.abs().max() <= features.shape[1] ** -0.5


def test_noisy_clips_follow_the_others_in_the_examples(inputs_for, y_true, data, cache):
    """A clip of weight 0 is left out; targets are the probabilities."""
    member_inputs = inputs_for(small_recipe(), noisy=read_manifest(data))
    targets = np.full((12, 3), 0.25)
    weights = np.array([1.0, 0.0, 0.3] + [0.0] * 9)
    no_clips = np.zeros(12, bool)
    cross_validation = single_split(y_true, noisy=Relabelled(targets, weights, no_clips, no_clips, rates=None))
    run = first_run(member_inputs, cross_validation, Processes.connect(frozen_only=False), cache, progress=silent)
    examples = run.batches._examples
    assert len(examples) == 9 + 2
    assert examples.is_noisy.tolist() == [False] * 9 + [True] * 2
    np.testing.assert_allclose(examples.weights, [1] * 9 + [1.0, 0.3])
    np.testing.assert_allclose(examples.targets[9:], 0.25)
    np.testing.assert_array_equal(examples.inputs(10), member_inputs.noisy.inputs(2))


def test_weights_and_unknown_labels_are_those_of_the_examples(inputs_for, y_true, cache):
    targets = y_true.astype(float)
    targets[4, 0] = np.nan
    weights = np.where(np.arange(len(y_true)) == 5, 2.0, 1.0)
    weights[6] = 0
    held_out = HeldOut(("valid",), (np.arange(len(y_true)) < 3,), True, "")
    run = first_run(
        inputs_for(small_recipe()),
        CrossValidation.of(targets, held_out, weights),
        Processes.connect(frozen_only=False),
        cache,
        progress=silent,
    )
    examples, kept = run.batches._examples, [row for row in range(3, len(y_true)) if row != 6]
    np.testing.assert_array_equal(examples.targets, targets[kept])
    np.testing.assert_allclose(examples.weights, weights[kept] / weights[weights > 0].mean())


def test_empty_background_folder_is_named(inputs_for, y_true, cache, tmp_path):
    member_inputs = inputs_for(small_recipe(augment={"background": tmp_path}))
    with pytest.raises(ConfigError, match=r"augment\.background: .*: no sound found"):
        first_run(member_inputs, single_split(y_true), Processes.connect(frozen_only=False), cache, progress=silent)


def test_backgrounds_change_the_result_and_damaged_ones_are_named(inputs_for, y_true, context, tmp_path, rng):
    write_audio(tmp_path / "waves.wav", rng.normal(0, 0.1, 8000).astype(np.float32), 8000)
    (tmp_path / "damaged.wav").write_bytes(b"no sound")
    lines = []
    callbacks = Callbacks(log=lines.append)
    fits = [
        fit_finetuned(
            inputs_for(small_recipe(epochs=1, augment=augment)), single_split(y_true), context(), callbacks, name=""
        )
        for augment in ({"mix": 0.0}, {"mix": 0.0, "background": tmp_path, "background_fraction": 1.0})
    ]
    assert not np.array_equal(fits[0].logits.chosen, fits[1].logits.chosen, equal_nan=True)
    assert any(line.startswith("augment.background: skipped: ") and "damaged.wav" in line for line in lines)


# ------------------------------------------------------------------------------------------------ final networks


def constant(value):
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, -value)
    return layer


def test_averaged_weights_are_the_mean_of_each():
    mean = average_weights([constant(1.0), constant(4.0)])
    assert (mean.weight.unique().tolist(), mean.bias.tolist()) == ([2.5], [-2.5])


def test_averaged_batch_counts_are_integers():
    """The averaged networks themselves do not change."""
    networks = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    networks[1].num_batches_tracked.fill_(3)
    assert average_weights(networks).num_batches_tracked == 1
    assert [int(network.num_batches_tracked) for network in networks] == [0, 3]


@pytest.mark.parametrize(("final_model", "weights"), [("refit", [7.0]), ("average", [1.5]), ("ensemble", [1.0, 2.0])])
def test_final_networks_are_those_of_the_recipe(y_true, final_model, weights):
    networks = [constant(value) for value in (1.0, 2.0, 7.0)]
    kept = final_networks(networks, two_folds(y_true), Recipe(final_model=final_model), average_weights)
    assert [network.weight[0, 0].item() for network in kept] == weights


def test_single_split_keeps_its_only_network(y_true):
    assert (
        len(final_networks([constant(1.0)], single_split(y_true), Recipe(final_model="average"), average_weights)) == 1
    )


@pytest.mark.parametrize(
    ("final_model", "n_trainings", "n_kept"), [("refit", 3, 1), ("average", 2, 1), ("ensemble", 2, 2)]
)
def test_fine_tuning_holds_out_each_clip_once(inputs_for, y_true, context, final_model, n_trainings, n_kept):
    """Its logits are those of the network that was not trained on the clip."""
    member_inputs = inputs_for(small_recipe(final_model=final_model, epochs=1, folds=2))
    fit = fit_finetuned(member_inputs, two_folds(y_true), context(), Callbacks(), name="")
    assert len(fit.epochs) == n_trainings
    assert len(fit.networks) == n_kept
    assert np.isfinite(fit.logits.chosen).all()
    if final_model == "ensemble":
        np.testing.assert_allclose(
            logits_of(fit.networks[0].network, member_inputs)[::2], fit.logits.chosen[::2], atol=1e-4
        )
        np.testing.assert_allclose(
            logits_of(fit.networks[1].network, member_inputs)[1::2], fit.logits.chosen[1::2], atol=1e-4
        )


def test_frozen_member_holds_out_each_clip_once(inputs_for, y_true):
    member_inputs = inputs_for(Recipe(backbone="scratch", mel=SMALL_MEL, final_model="ensemble"))
    fit = fit_frozen(
        member_inputs, member_inputs.frozen_features(y_true, progress=silent), two_folds(y_true), Callbacks(), name=""
    )
    logits = [fit.networks[0].clip_logits(member_inputs.clips, row) for row in range(0, len(y_true), 2)]
    np.testing.assert_allclose(logits, fit.logits.chosen[::2], atol=1e-3)
    assert [network.store for network in fit.networks] == [member_inputs.store] * 2


def test_without_patience_no_epoch_is_chosen_on_held_out_clips(inputs_for, y_true, context):
    fit = fit_finetuned(inputs_for(small_recipe()), single_split(y_true), context(), Callbacks(), name="")
    assert fit.logits.without == ()


def test_with_patience_each_part_has_the_logits_of_the_epoch_that_is_best_without_it(inputs_for, y_true, context):
    """With one held-out clip in each part, the epoch for a clip is the best one for the other clip."""
    recipe = small_recipe(epochs=4, learning_rate=0.01, finetune={"patience": 4})
    epochs = []
    rows = np.isin(np.arange(12), [0, 1])
    cross_validation = CrossValidation.of(y_true, HeldOut(("valid",), (rows,), True, ""))
    fit = fit_finetuned(inputs_for(recipe), cross_validation, context(), Callbacks(on_epoch=epochs.append), name="")
    assert len(fit.logits.without) == cross_validation.n_parts == 2
    best_of_all = cross_validation.score(fit.logits.chosen)
    assert best_of_all == pytest.approx(max(epoch.valid_lwlrap for epoch in epochs))
    for part, logits in enumerate(fit.logits.without):
        others = rows & (cross_validation.parts != part)
        assert lwlrap(y_true[others], logits[others]) >= lwlrap(y_true[others], fit.logits.chosen[others])


def test_best_epoch_of_networks_that_only_guess_scores_like_a_guess(rng):
    """The best of 40 epochs on 60 clips scores far above the expected 0.457 of a guess among five labels."""
    scores = []
    for _ in range(30):
        labels = np.eye(5, dtype=bool)[rng.integers(5, size=60)]
        cross_validation = CrossValidation.of(labels, HeldOut(("valid",), (np.ones(60, bool),), True, ""))
        epochs = tuple(rng.normal(size=(40, 60, 5)))
        results = [(cross_validation.folds[0], FineTuned(nn.Linear(1, 1), {}, (), epochs))]
        best = max(epochs, key=cross_validation.score)
        cross_fitted = HeldOutLogits(best, logits_without_parts(results, best, cross_validation))
        scores.append(
            [cross_validation.score(logits) for logits in (best, cross_validation.cross_fitted(cross_fitted))]
        )
    of_best, honest = np.mean(scores, axis=0)
    assert of_best > 0.5
    assert honest == pytest.approx(np.mean(1 / np.arange(1, 6)), abs=3 * np.std(scores, axis=0)[1] / 30**0.5)


# ------------------------------------------------------------------------------------------------ time limit


@pytest.mark.parametrize(("seconds", "n_epochs"), [(35.0, 3), (47.0, 4), (1e6, 6), (None, 6)])
def test_number_of_epochs_fits_the_time(inputs_for, y_true, context, monkeypatch, seconds, n_epochs):
    """An epoch takes 10 seconds."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    now = slow_epochs(monkeypatch, 10.0)
    timed = dataclasses.replace(context(), seconds_left=lambda: None if seconds is None else seconds - now[0])
    fit = fit_finetuned(inputs_for(small_recipe(epochs=6)), single_split(y_true), timed, Callbacks(), name="")
    assert [epoch.n_epochs for epoch in fit.epochs] == [n_epochs] * n_epochs


def test_time_of_the_speed_measurement_is_subtracted(inputs_for, y_true, context, monkeypatch):
    now = slow_epochs(monkeypatch, 10.0)

    def measure(_):
        now[0] += 20.0
        return 10.0

    monkeypatch.setattr(FineTuning, "seconds_per_epoch", measure)
    timed = dataclasses.replace(context(), seconds_left=lambda: 60.0 - now[0])
    fit = fit_finetuned(inputs_for(small_recipe(epochs=6)), single_split(y_true), timed, Callbacks(), name="")
    assert len(fit.epochs) == 4


@pytest.mark.parametrize(
    ("seconds", "reason"), [(29.0, ": an epoch takes 10 s and 29 s are left"), (0.0, ""), (-5.0, "")]
)
def test_no_run_starts_without_time_for_three_epochs(inputs_for, y_true, context, monkeypatch, seconds, reason):
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    lines = []
    recipe = small_recipe(epochs=6)
    callbacks = Callbacks(log=lines.append)
    assert fit_finetuned(inputs_for(recipe), single_split(y_true), context(seconds), callbacks, name="") is None
    assert lines == [f"no time to fine-tune{reason}"]


def test_epochs_that_take_longer_than_expected_become_fewer(inputs_for, y_true, context, monkeypatch):
    """Expected are 4 s; by this clock, an epoch takes 10 s. Two folds share 100 s: each has 5 epochs, not 12."""
    now = slow_epochs(monkeypatch, 10.0)
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 4.0)
    timed = dataclasses.replace(context(), seconds_left=lambda: 100.0 - now[0])
    recipe = small_recipe(epochs=30, final_model="ensemble", folds=2)
    fit = fit_finetuned(inputs_for(recipe), two_folds(y_true), timed, Callbacks(), name="")
    assert [epoch.part for epoch in fit.epochs] == ["fold 0"] * 5 + ["fold 1"] * 5
    assert now == [100.0]
    assert fit.epochs[4].learning_rate < fit.epochs[2].learning_rate / 5  # it falls to the end of the shorter run


def test_epochs_that_are_faster_than_expected_become_more(inputs_for, y_true, context, monkeypatch):
    """Expected are 5 s: 10 epochs of each fold. An epoch takes 1 s, so there is time for all that are wanted."""
    now = slow_epochs(monkeypatch, 1.0)
    timed = dataclasses.replace(context(), seconds_left=lambda: 100.0 - now[0], seconds_per_epoch=5.0)
    recipe = small_recipe(epochs=30, final_model="ensemble", folds=2)
    fit = fit_finetuned(inputs_for(recipe), two_folds(y_true), timed, Callbacks(), name="")
    assert [epoch.part for epoch in fit.epochs] == ["fold 0"] * 30 + ["fold 1"] * 30
    assert now[0] == 60.0


def test_one_slow_epoch_does_not_change_the_number_of_epochs(inputs_for, y_true, context, monkeypatch):
    """An epoch takes 4 s, but the second one 12 s: of nine planned epochs, the two whose time is lost are left out."""
    now = slow_epochs(monkeypatch, lambda run: 12.0 if run.state.epoch == 2 else 4.0)
    timed = dataclasses.replace(context(), seconds_left=lambda: 36.0 - now[0], seconds_per_epoch=4.0)
    fit = fit_finetuned(inputs_for(small_recipe(epochs=30)), single_split(y_true), timed, Callbacks(), name="")
    assert [epoch.n_epochs for epoch in fit.epochs] == [9, 9, 7, 7, 7, 7, 7]
    assert now[0] == 36.0


def test_machine_that_gets_slower_halfway_keeps_the_time(inputs_for, y_true, context, monkeypatch):
    """From the fifth epoch on, an epoch takes three times as long. The time is exceeded by less than an epoch."""
    now = slow_epochs(monkeypatch, lambda run: 12.0 if run.state.epoch >= 5 else 4.0)
    timed = dataclasses.replace(context(), seconds_left=lambda: 60.0 - now[0], seconds_per_epoch=4.0)
    fit = fit_finetuned(inputs_for(small_recipe(epochs=30)), single_split(y_true), timed, Callbacks(), name="")
    assert now[0] <= 60.0
    assert len(fit.epochs) == 7


def test_epoch_that_takes_much_too_long_ends_early(inputs_for, y_true, context, monkeypatch):
    """Three steps of an epoch take 1 s each; in the third epoch, one takes 100 s. Of 12 s, 6 s are left before it."""
    now, train_step = [0.0], FineTuning._train_step

    def train(run, batch):
        now[0] += 100.0 if run.state.epoch == 3 else 1.0
        train_step(run, batch)

    monkeypatch.setattr(FineTuning, "_train_step", train)
    timed = dataclasses.replace(context(), seconds_left=lambda: 12.0 - now[0], seconds_per_epoch=3.0)
    fit = fit_finetuned(inputs_for(small_recipe(epochs=30)), single_split(y_true), timed, Callbacks(), name="")
    assert len(fit.epochs) == 3
    assert now[0] == 106.0
    assert np.isfinite(fit.logits.chosen[fit.logits.chosen[:, 0] == fit.logits.chosen[:, 0]]).all()


def test_log_of_a_single_training_says_what_is_left_of_the_budget(inputs_for, y_true, context):
    lines = []
    noted = dataclasses.replace(context(), budget_note=lambda: ", 12 min left of 30")
    callbacks = Callbacks(log=lines.append)
    fit_finetuned(inputs_for(small_recipe(epochs=1)), single_split(y_true), noted, callbacks, name="")
    [line] = lines
    assert line.endswith(", 12 min left of 30")


def test_log_names_the_fold_and_what_is_left_of_the_budget(inputs_for, y_true, context):
    lines = []
    noted = dataclasses.replace(context(), budget_note=lambda: ", 12 min left of 30")
    recipe = small_recipe(epochs=1, final_model="refit", folds=2)
    fit_finetuned(inputs_for(recipe), two_folds(y_true), noted, Callbacks(log=lines.append), name="mine, ")
    left = ", 12 min left of 30"
    assert lines == [
        f"mine, fold 1 of 2 (fold 0){left}",
        f"mine, fold 2 of 2 (fold 1){left}",
        f"mine, all clips{left}",
    ]


def slow_epochs(monkeypatch, seconds):
    """A clock of a single item by which each epoch takes some seconds: a number, or a function of the run."""
    now, train_epoch = [0.0], FineTuning._train_epoch

    def train(run, *arguments):
        now[0] += seconds(run) if callable(seconds) else seconds
        return train_epoch(run, *arguments)

    monkeypatch.setattr(FineTuning, "_train_epoch", train)
    return now


@pytest.mark.parametrize(
    ("seconds", "names"),
    [
        (130.0, ["fold 0"] * 6 + ["fold 1"] * 6),
        (119.0, ["fold 0"] * 6),  # one fold with enough epochs rather than two with too few
        (40.0, ["fold 0"] * 4),
    ],
)
def test_folds_that_do_not_fit_the_time_are_left_out(inputs_for, y_true, context, monkeypatch, seconds, names):
    """An epoch takes 10 s, and six are enough."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    now = slow_epochs(monkeypatch, 10.0)
    timed = dataclasses.replace(context(), seconds_left=lambda: seconds - now[0])
    recipe = small_recipe(epochs=6, final_model="average", folds=2)
    fit = fit_finetuned(inputs_for(recipe), two_folds(y_true), timed, Callbacks(), name="")
    assert [epoch.part for epoch in fit.epochs] == names
    assert len(fit.networks) == 1
    np.testing.assert_array_equal(
        np.isnan(fit.logits.chosen).all(axis=1), (np.arange(12) % 2 == 1) & (len(set(names)) == 1)
    )


def test_with_a_time_limit_the_network_of_all_clips_is_trained_first(inputs_for, y_true, context, monkeypatch):
    """It is the network that final_model = refit keeps. A fold has half the clips: an epoch is expected to take 5 s."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    recipe = small_recipe(epochs=6, final_model="refit", folds=2)
    now = slow_epochs(monkeypatch, lambda run: 10.0 if run.name == "all clips" else 5.0)
    timed = dataclasses.replace(context(), seconds_left=lambda: 89.0 - now[0])
    fit = fit_finetuned(inputs_for(recipe), two_folds(y_true), timed, Callbacks(), name="")
    assert {epoch.part for epoch in fit.epochs} == {"all clips"}
    fit = fit_finetuned(inputs_for(recipe), two_folds(y_true), context(1e6), Callbacks(), name="")
    assert [epoch.part for epoch in fit.epochs] == ["all clips"] * 6 + ["fold 0"] * 6 + ["fold 1"] * 6
    free = fit_finetuned(inputs_for(recipe), two_folds(y_true), context(), Callbacks(), name="")
    torch.testing.assert_close(fit.networks[0].network.state_dict(), free.networks[0].network.state_dict())


def part_names(fit):
    """The names of the trainings, in their order."""
    return list(dict.fromkeys(epoch.part for epoch in fit.epochs))


def many_folds(y_true, n_folds=12):
    rows = tuple(np.arange(len(y_true)) % n_folds == number for number in range(n_folds))
    return CrossValidation.of(y_true, HeldOut(tuple(map(str, range(n_folds))), rows, False, ""))


@pytest.mark.parametrize(("n_folds", "n_needed"), [(2, 2), (3, 2), (6, 2), (12, 4)])
def test_needed_folds_are_two_and_hold_out_a_third_of_the_clips(y_true, n_folds, n_needed):
    assert fewest_folds(many_folds(y_true, n_folds)) == n_needed


def test_single_split_is_needed_and_no_fold_where_no_clips_are_held_out(y_true):
    assert fewest_folds(single_split(y_true)) == 1
    assert fewest_folds(CrossValidation.of(y_true, HeldOut((), (), False, ""))) == 0


@pytest.mark.parametrize(("final_model", "n_folds"), [("refit", 5), ("average", 12)])
def test_network_of_all_clips_beside_other_members_is_validated_on_a_few_folds(
    inputs_for, y_true, context, final_model, n_folds
):
    recipe = small_recipe(epochs=1, final_model=final_model)
    beside = dataclasses.replace(context(), min_folds=4)
    fit = fit_finetuned(inputs_for(recipe), many_folds(y_true), beside, Callbacks(), name="")
    of_all = ["all clips"] if final_model == "refit" else []
    assert part_names(fit) == [f"fold {number}" for number in range(n_folds)] + of_all
    assert (~np.isnan(fit.logits.chosen).any(axis=1)).sum() == n_folds
    assert len(fit.networks) == 1


@pytest.mark.parametrize(
    ("seconds", "names"), [(139.0, None), (141.0, ["all clips", "fold 0", "fold 1", "fold 2", "fold 3"])]
)
def test_nothing_starts_without_time_for_the_needed_folds(inputs_for, y_true, context, monkeypatch, seconds, names):
    """Of 12 clips, a fold is trained on 11. Three epochs take 30 s for all clips and 27.5 s for each of four folds."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    now = slow_epochs(monkeypatch, lambda run: 10.0 if run.name == "all clips" else 110 / 12)
    recipe = small_recipe(epochs=30, final_model="refit")
    timed = dataclasses.replace(context(), seconds_left=lambda: seconds - now[0], min_folds=4)
    fit = fit_finetuned(inputs_for(recipe), many_folds(y_true), timed, Callbacks(), name="")
    assert (fit and part_names(fit)) == names
    assert now[0] == pytest.approx(140.0 if names else 0.0)


@pytest.mark.parametrize(("min_folds", "n_fast", "is_kept"), [(4, 2, False), (4, 3, True), (0, 2, True)])
def test_member_beside_others_is_left_out_if_only_one_fold_was_finished(
    inputs_for, y_true, context, monkeypatch, min_folds, n_fast, is_kept
):
    """After `n_fast` trainings, the first one on all clips, the time is used up. A member that is alone is kept."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 0.1)
    finished = []
    monkeypatch.setattr("spectag.training.members.finetuned._Pace.finish", count_finished(finished))
    recipe = small_recipe(epochs=3, final_model="refit")
    timed = dataclasses.replace(
        context(), seconds_left=lambda: 1e6 if len(finished) < n_fast else 0.0, min_folds=min_folds
    )
    fit = fit_finetuned(inputs_for(recipe), many_folds(y_true), timed, Callbacks(), name="")
    assert (fit is not None) == is_kept
    assert len(finished) == n_fast


def count_finished(finished):
    """A method that notes the runs that are finished, and does what the original does."""
    original = _Pace.finish

    def finish(pace, run):
        finished.append(run)
        original(pace, run)

    return finish


def test_folds_have_at_most_the_epochs_of_the_network_that_is_kept(inputs_for, y_true, context, monkeypatch):
    """Otherwise, they would overrate it. An epoch of all clips takes 10 s, one of a fold only 1 s."""
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 10.0)
    now = slow_epochs(monkeypatch, lambda run: 10.0 if run.name == "all clips" else 1.0)
    recipe = small_recipe(epochs=30, final_model="refit", folds=2)
    timed = dataclasses.replace(context(), seconds_left=lambda: 200.0 - now[0])
    fit = fit_finetuned(inputs_for(recipe), two_folds(y_true), timed, Callbacks(), name="")
    assert [epoch.part for epoch in fit.epochs] == ["all clips"] * 10 + ["fold 0"] * 10 + ["fold 1"] * 10


def test_averaged_linear_heads_give_the_mean_of_their_logits(rng):
    """Even if the heads standardise features differently."""
    heads = [build_head("linear", 6, 3) for _ in range(3)]
    for head in heads:
        head.center.copy_(torch.from_numpy(rng.normal(size=6)))
        head.scale.copy_(torch.from_numpy(rng.uniform(0.5, 2, size=6)))
    heads[1].scale[2] = 0.0  # does not vary among its clips
    features = torch.from_numpy(rng.normal(size=(5, 6)).astype(np.float32))
    with torch.inference_mode():
        expected = torch.stack([head(features) for head in heads]).mean(dim=0)
        torch.testing.assert_close(average_weights(heads)(features), expected, atol=1e-5, rtol=1e-5)
    in_numpy = average_heads([head_weights(head) for head in heads]).logits(features.numpy())
    np.testing.assert_allclose(in_numpy, expected, atol=1e-5)


def test_speed_measurement_does_not_change_the_weights(inputs_for, y_true, context):
    """The result is that of a run with the same number of epochs without a limit."""
    limited, free = (
        fit_finetuned(inputs_for(small_recipe(epochs=3)), single_split(y_true), context(seconds), Callbacks(), name="")
        for seconds in (1e6, None)
    )
    np.testing.assert_array_equal(limited.logits.chosen, free.logits.chosen)


def test_compile_without_gpu_is_reported(inputs_for, y_true, context):
    lines = []
    recipe = small_recipe(epochs=1, finetune={"compile": True})
    fit_finetuned(inputs_for(recipe), single_split(y_true), context(), Callbacks(log=lines.append), name="")
    assert lines == ["finetune.compile has no effect: there is no GPU"]


# ------------------------------------------------------------------------------------------------ in a bundle


@pytest.fixture(scope="module")
def in_bundle(data, cache, tmp_path_factory):
    recipe = small_recipe(validation_fraction=0.25, learning_rate=0.01, calibration="none")
    with pytest.MonkeyPatch.context() as patch:  # for a better head
        patch.setattr("spectag.training.members.finetuned.has_pretrained_weights", lambda _: True)
        return train(data, tmp_path_factory.mktemp("bundle") / "model", recipe, data=DataOptions(cache=cache))


def test_held_out_predictions_are_those_of_the_model_in_the_bundle(in_bundle, data):
    tagger = Tagger(in_bundle.bundle)
    manifest = read_manifest(data)
    rows = np.flatnonzero(~np.isnan(in_bundle.predictions).any(axis=1))
    assert len(rows) == 3
    for row in rows:
        tagged = tagger.tag(manifest.clips[row].path).probabilities
        np.testing.assert_allclose(in_bundle.predictions[row], tagged, atol=1e-4)
    assert in_bundle.epochs[-1].valid_lwlrap == pytest.approx(in_bundle.members[0].score)


def test_logits_of_a_long_clip_match_the_model_in_the_bundle(in_bundle, inputs_for, tmp_path, rng):
    """Two and a half minutes with a rising level: three parts."""
    member_inputs = inputs_for(small_recipe())
    cross_validation, processes = (
        single_split(member_inputs.clips.manifest.multi_hot()),
        Processes.connect(frozen_only=False),
    )
    waveform = (rng.normal(size=150 * 8000) * np.linspace(0.001, 0.3, 150 * 8000)).astype(np.float32)
    write_audio(tmp_path / "long.wav", waveform, 8000)
    network = first_run(member_inputs, cross_validation, processes, tmp_path, progress=silent).model.network
    network.load_state_dict(load_file(in_bundle.bundle / "weights.safetensors"))
    long = Manifest(tmp_path, (Clip(tmp_path / "long.wav", "long.wav", ()),), member_inputs.clips.manifest.labels)
    clips = open_clips(long, FRONT_END, tmp_path, workers=1, progress=silent, log=no_log)
    assert [part.start_seconds for part in clips.parts(0)] == [0.0, 60.0, 90.0]
    valid = ValidationClips(clips.parts, np.array([0]), np.ones((1, 3), bool))
    logits = logits_of_clips(network, valid, processes.accelerator)
    tagged = Tagger(in_bundle.bundle).tag(tmp_path / "long.wav").probabilities
    np.testing.assert_allclose(expit(logits[0]), tagged, atol=1e-4)


def test_fine_tuning_does_not_change_the_feature_store(inputs_for, y_true, context, cache):
    recipe = small_recipe(epochs=1, learning_rate=0.1)
    member_inputs = inputs_for(recipe)
    before = {name: values.clone() for name, values in member_inputs.store.extractor.state_dict().items()}
    fit_finetuned(member_inputs, single_split(y_true), context(), Callbacks(), name="")
    torch.testing.assert_close(member_inputs.store.extractor.state_dict(), before, rtol=0, atol=0)
    assert FeatureStore(cache, recipe, FRONT_END).weights_sha256 == member_inputs.store.weights_sha256


def test_label_map_for_a_network_without_names_is_refused(inputs_for, y_true):
    recipe = Recipe(backbone="scratch", mel=SMALL_MEL, label_map={"x": ("Rain",)})
    with pytest.raises(ConfigError, match=r"label_map has no effect on scratch.*AudioSet"):
        inputs_for(recipe).frozen_features(y_true, progress=silent)
