"""Fine-tuning: schedules compared with torch, averages by hand, and the effect of each setting."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.small_training import (
    held_out,
    make_examples,
    make_inputs,
    make_network,
    make_training,
    small_recipe,
)
from spectag.config.training import AugmentConfig, FinetuneConfig, LossConfig, NoisyConfig
from spectag.data.spectrograms.clip_inputs import ClipPart
from spectag.errors import ConfigError
from spectag.system.progress import silent
from spectag.training.members.clip_logits import ValidationClips, logits_of_clips
from spectag.training.members.finetune_loop import precision_on
from spectag.training.members.schedule import averaging_weight, lr_factor
from spectag.training.networks.losses import clip_losses
from spectag.training.setup.optimization import mean_loss_and_lwlrap

PLAIN = {
    "weight_averaging": "none",
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "layer_decay": 1.0,
    "clip_norm": None,
}
CPU = torch.device("cpu")
UNCHANGED = AugmentConfig(mix=0, gain_db=0)


def run_to_end(training, progress=silent):
    return training.run(lambda _: None, progress)


def weights(network):
    return {name: values.clone() for name, values in network.state_dict().items()}


def are_equal(first, second):
    return all(torch.equal(values, second[name]) for name, values in first.items())


def pretrained_recipe(**settings):
    """The small recipe with a network that counts as pretrained."""
    return small_recipe(backbone="mn04_audioset", mel=None, **settings)


def weights_after_each_step(training):
    steps = []
    run_to_end(training, lambda *_: steps.append(weights(training.model.network)))
    return steps


# ------------------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize("n_steps", [4, 10, 137])
def test_one_cycle_equals_torch(n_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torch_schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=n_steps)
    config = FinetuneConfig(schedule="one_cycle")
    for step in range(n_steps):
        assert lr_factor(step, n_steps, config) == pytest.approx(torch_schedule.get_last_lr()[0])
        optimizer.step()
        if step < n_steps - 1:
            torch_schedule.step()


def test_cosine_schedule_rises_linearly_and_falls_to_zero():
    config = FinetuneConfig(schedule="cosine", warmup_fraction=0.25)
    factors = [lr_factor(step, 8, config) for step in range(9)]
    by_hand = [1 / 3, 2 / 3, *((1 + math.cos(math.pi * done / 6)) / 2 for done in range(7))]
    assert factors == pytest.approx(by_hand)
    assert factors[2] == 1
    assert factors[8] == pytest.approx(0)


def test_constant_schedule_is_constant_after_warmup():
    config = FinetuneConfig(schedule="constant", warmup_fraction=0.2)
    assert [lr_factor(step, 10, config) for step in range(10)] == pytest.approx([1 / 3, 2 / 3] + [1.0] * 8)


@given(
    n_steps=st.integers(1, 400),
    schedule=st.sampled_from(["cosine", "one_cycle", "constant"]),
    warmup_fraction=st.floats(0, 0.99),
)
def test_every_step_has_a_rate_above_0_and_at_most_the_full_one(n_steps, schedule, warmup_fraction):
    config = FinetuneConfig(schedule=schedule, warmup_fraction=warmup_fraction)
    factors = [lr_factor(step, n_steps, config) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)


def test_optimizer_uses_the_schedule_and_epochs_record_the_rate():
    recipe = small_recipe(learning_rate=0.01, finetune={"layer_decay": 0.5, "head_lr_multiplier": 3.0})
    training = make_training(recipe)
    seen = [[group["lr"] for group in training.optimizer.param_groups]]
    fit = run_to_end(training, lambda *_: seen.append([group["lr"] for group in training.optimizer.param_groups]))
    factors = np.array([lr_factor(step, 6, recipe.finetune) for step in range(7)])
    np.testing.assert_allclose(seen, factors[:, None] * 0.01 * np.array([0.25, 0.5, 1.0, 3.0]), atol=1e-12)
    assert [epoch.learning_rate for epoch in fit.epochs] == pytest.approx([0.01 * factors[2], 0.01 * factors[5]])


# ------------------------------------------------------------------------------------------------ weight averaging


def test_ema_is_the_moving_average_by_hand():
    training = make_training(small_recipe(learning_rate=0.01, finetune={"ema_decay": 0.3}))
    steps = weights_after_each_step(training)
    mean = steps[0]
    for n_before, newest in enumerate(steps[1:], start=1):
        decay = min(0.3, (1 + n_before) / (10 + n_before))
        mean = {name: decay * mean[name] + (1 - decay) * newest[name] for name in mean}
    mean |= {name: values for name, values in steps[-1].items() if name.endswith("num_batches_tracked")}
    torch.testing.assert_close(weights(training.current_network()), mean)


def test_swa_is_the_mean_over_the_last_quarter_of_the_steps():
    training = make_training(small_recipe(learning_rate=0.01, epochs=4, finetune={"weight_averaging": "swa"}))
    steps = weights_after_each_step(training)
    assert len(steps) == 12
    tail = steps[9:]
    mean = {name: sum(step[name] for step in tail) / 3 for name in tail[0] if not name.endswith("tracked")}
    taken = weights(training.current_network())
    torch.testing.assert_close({name: taken[name] for name in mean}, mean)


def test_without_an_average_the_last_weights_are_taken():
    training = make_training(small_recipe(finetune={"weight_averaging": "none"}))
    steps = weights_after_each_step(training)
    assert are_equal(steps[-1], training.current_network().state_dict())


def test_averaging_weights_of_swa_and_ema():
    config = FinetuneConfig(weight_averaging="swa")
    assert [averaging_weight(n, config) for n in range(4)] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert averaging_weight(10_000, FinetuneConfig(ema_decay=0.99)) == pytest.approx(0.01)


# ------------------------------------------------------------------------------------------------- what is trained


def changed(before, after):
    return {name for name, values in before.items() if not torch.equal(values, after[name])}


def statistics(names):
    return {name for name in names if "running" in name or "tracked" in name}


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        (pretrained_recipe(), False),
        (pretrained_recipe(finetune={"batch_norm": "trained"}), True),
        (pretrained_recipe(pretrained=False), True),
        (pretrained_recipe(pretrained=False, init="earlier", folds="none"), False),
        (small_recipe(), True),
        (small_recipe(init="earlier", folds="none"), False),
    ],
    ids=["pretrained", "trained", "random", "random with init", "scratch", "scratch with init"],
)
def test_trained_batch_normalisation_statistics_are_kept(recipe, changes):
    training = make_training(recipe)
    before = weights(training.model.network)
    run_to_end(training)
    is_changed = statistics(changed(before, training.current_network().state_dict()))
    assert is_changed == (statistics(before) if changes else set())


def test_frozen_stages_stay_unchanged():
    recipe = pretrained_recipe(finetune={"unfreeze": 1}, weight_decay=0.1)
    training = make_training(recipe)
    before = weights(training.model.network)
    after = run_to_end(training).network.state_dict()
    assert {name.split(".")[3] for name in changed(before, after) if "network" in name} == {"2"}
    assert "head.linear.weight" in changed(before, after)


@pytest.mark.parametrize("recipe", [pretrained_recipe, small_recipe], ids=["pretrained", "random"])
def test_head_alone_is_trained_on_the_features_of_evaluation_mode(recipe):
    """Not even dropout or batch statistics change the features."""
    training = make_training(recipe(finetune={"unfreeze": 0}, weight_decay=0.1))
    before, seen = weights(training.model.network), []
    training.model.network.extractor.register_forward_hook(lambda _, inputs, features: seen.append((*inputs, features)))
    after = run_to_end(training).network
    assert changed(before, after.state_dict()) == {"head.linear.weight", "head.linear.bias"}
    assert len(seen) == 2 * training.batches.n_steps
    for inputs, features in seen:
        torch.testing.assert_close(features, after.extractor(inputs), rtol=1e-5, atol=1e-5)


def test_norm_of_a_step_is_at_most_that_of_the_clipped_gradient():
    finetune = PLAIN | {"clip_norm": 0.01, "head_lr_multiplier": 1.0}
    recipe = pretrained_recipe(
        optimizer="sgd", learning_rate=0.5, momentum=0.0, weight_decay=0.0, epochs=1, finetune=finetune
    )
    training = make_training(recipe)
    steps = [weights(training.model.network), *weights_after_each_step(training)]
    for before, after in itertools.pairwise(steps):
        length = math.sqrt(sum(((after[name] - before[name]) ** 2).sum() for name in before))
        assert length == pytest.approx(0.5 * 0.01, rel=1e-3)


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 0.01), ("adam", 0.01), ("sgd", 0.2)])
def test_loss_falls_with_every_optimizer(optimizer, rate):
    recipe = small_recipe(optimizer=optimizer, learning_rate=rate, epochs=10, augment=UNCHANGED)
    fit = run_to_end(make_training(recipe, valid=held_out()))
    assert fit.epochs[-1].train_loss < 0.6 * fit.epochs[0].train_loss
    assert fit.epochs[-1].valid_lwlrap > 0.9


BASE = {"learning_rate": 0.01, "finetune": {"weight_averaging": "ema", "crop_seconds": 0.6}}  # longer than a clip


@pytest.fixture(scope="module")
def base_weights():
    return run_to_end(make_training(pretrained_recipe(**BASE))).network.state_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"unfreeze": 2},
        {"layer_decay": 0.5},
        {"head_lr_multiplier": 2.0},
        {"schedule": "one_cycle"},
        {"schedule": "constant"},
        {"warmup_fraction": 0.5},
        {"weight_averaging": "swa"},
        {"weight_averaging": "none"},
        {"ema_decay": 0.01},
        {"clip_norm": 0.01},
        {"batch_norm": "trained"},
        {"crop_seconds": 0.3},
        {"crop_seconds": None},
        {"short_clips": "wrap"},
        {"short_clips": "pad"},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_every_setting_changes_the_weights(base_weights, change):
    recipe = pretrained_recipe(**BASE | {"finetune": BASE["finetune"] | change})
    assert not are_equal(base_weights, run_to_end(make_training(recipe)).network.state_dict())


def test_same_settings_give_the_same_weights(base_weights):
    assert are_equal(base_weights, run_to_end(make_training(pretrained_recipe(**BASE))).network.state_dict())


def test_augmentation_is_off_in_the_last_fraction_of_the_epochs():
    """In the last epoch no clips are mixed, so no targets are joined."""
    recipe = small_recipe(epochs=4, augment=AugmentConfig(mix=1.0, disable_last_fraction=0.25))
    training = make_training(recipe)
    joined = []

    def record(*_):
        joined.append(float(training._outputs[-1][2].sum(dim=1).max()))

    run_to_end(training, record)
    assert max(joined[:9]) == 2.0
    assert joined[9:] == [1.0] * 3


# ------------------------------------------------------------------------------------------------ noisy clips


def test_noisy_loss_changes_only_the_losses_of_noisy_clips(rng):
    recipe = small_recipe(noisy_labels=NoisyConfig(loss="lq"), loss=LossConfig(q=0.5))
    training = make_training(recipe, examples=make_examples(n_noisy=4))
    logits, targets = torch.from_numpy(rng.normal(size=(2, 6, 3)).astype(np.float32))
    targets = (targets > 0).float()
    is_noisy = torch.tensor([False, True, False, True, False, False])
    losses = training._losses(logits, targets, is_noisy)
    plain = clip_losses(logits, targets, recipe.loss)
    noisy = clip_losses(logits, targets, recipe.loss.model_copy(update={"kind": "lq"}))
    torch.testing.assert_close(losses[~is_noisy], plain[~is_noisy])
    torch.testing.assert_close(losses[is_noisy], noisy[is_noisy])


@pytest.mark.parametrize("noisy", [{"loss": "lq"}, {"loss": "bootstrap"}, {"separate_head": True}], ids=str)
def test_settings_for_noisy_clips_change_the_weights(noisy):
    examples = make_examples(n_noisy=6)
    first, second = (
        run_to_end(make_training(small_recipe(noisy_labels=settings, learning_rate=0.01), examples=examples)).network
        for settings in (NoisyConfig(), NoisyConfig(**noisy))
    )
    assert not are_equal(first.state_dict(), second.state_dict())
    assert first.state_dict().keys() == second.state_dict().keys()  # the second head is not kept


def test_noisy_clips_with_a_separate_head_do_not_train_the_main_head():
    training = make_training(
        small_recipe(noisy_labels=NoisyConfig(separate_head=True)), examples=make_examples(n_noisy=4)
    )
    inputs = torch.from_numpy(make_inputs(4)[0])
    training.model(inputs, torch.tensor([True] * 4)).square().sum().backward()
    own, main = (
        training.model.noisy_head.linear.weight.grad,
        training.model.network.head.linear.weight.grad,
    )
    assert not main.any()
    assert own.any()
    assert training.model.network.extractor.backbone.network[0][0].weight.grad.any()


def test_without_noisy_clips_there_is_no_second_head():
    assert make_training(small_recipe(noisy_labels=NoisyConfig(separate_head=True))).model.noisy_head is None


def test_clips_count_by_their_weight():
    """The labels of a clip of weight 0 do not change the steps."""
    examples = make_examples()
    examples.weights[:3] = 0
    recipe = pretrained_recipe(augment=UNCHANGED)
    first = run_to_end(make_training(recipe, examples=examples)).network.state_dict()
    examples.targets[:3] = 1 - examples.targets[:3]
    second = run_to_end(make_training(recipe, examples=examples)).network.state_dict()
    assert are_equal(first, second)


# ------------------------------------------------------------------------------------------------ precision


def test_half_precision_is_close_to_single():
    settings = {"optimizer": "sgd", "learning_rate": 0.01}
    single, half = (
        run_to_end(make_training(pretrained_recipe(**settings, finetune={"precision": precision}), valid=held_out()))
        for precision in ("float32", "bfloat16")
    )
    assert half.network.state_dict()["head.linear.weight"].dtype == torch.float32
    torch.testing.assert_close(half.network.state_dict(), single.network.state_dict(), atol=1e-3, rtol=1e-3)
    assert half.epochs[-1].valid_loss == pytest.approx(single.epochs[-1].valid_loss, rel=0.02)


def test_float16_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match=r"finetune\.precision = float16 needs a GPU; use bfloat16, float32 or auto"):
        precision_on(CPU, FinetuneConfig(precision="float16"))


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_is_bfloat16_if_the_gpu_supports_it(monkeypatch, has_bfloat16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has_bfloat16)
    gpu = torch.device("cuda")
    assert precision_on(gpu, FinetuneConfig()) == expected
    assert precision_on(gpu, FinetuneConfig(precision="float16")) == torch.float16
    assert precision_on(CPU, FinetuneConfig()) == torch.float32


# ------------------------------------------------------------------------------------------------ scores


def test_scores_of_an_epoch_are_those_of_the_current_network():
    valid = held_out()
    training = make_training(small_recipe(learning_rate=0.01), valid=valid)
    fit = run_to_end(training)
    with torch.inference_mode():
        logits = torch.cat([fit.network(torch.from_numpy(valid.parts(i)[0].inputs[None])) for i in range(6)])
    loss, lwlrap = mean_loss_and_lwlrap(logits, torch.from_numpy(valid.y_true.astype(np.float32)), training.recipe)
    assert fit.epochs[-1].valid_loss == pytest.approx(loss, abs=1e-6)
    assert fit.epochs[-1].valid_lwlrap == pytest.approx(lwlrap)


def test_odds_of_a_long_clip_are_the_mean_odds_of_its_parts():
    network, training = make_network(), make_training()
    inputs, _ = make_inputs(3, n_frames=30)
    parts = [ClipPart(start, start + 60.0, values) for start, values in zip((0.0, 60.0, 90.0), inputs, strict=True)]
    clips = ValidationClips(lambda i: parts, np.array([0]), np.ones((1, 3), bool))
    logits = logits_of_clips(network, clips, training.accelerator)
    with torch.inference_mode():
        odds = np.exp(network(torch.from_numpy(inputs)).double().numpy())
    np.testing.assert_allclose(logits[0], np.log(np.average(odds, axis=0, weights=[60, 45, 45])), atol=1e-5)


def almost_constant(**finetune):
    """A learning rate so low that the held-out scores never change, so that the first epoch is the best."""
    return pretrained_recipe(learning_rate=1e-12, epochs=6, finetune=finetune)


def test_training_stops_when_patience_ends_and_keeps_the_best():
    fit = run_to_end(make_training(almost_constant(patience=2), valid=held_out()))
    assert [epoch.epoch for epoch in fit.epochs] == [1, 2, 3]
    assert set(fit.other_weights) == {"last"}
    assert not are_equal(fit.other_weights["last"].state_dict(), fit.network.state_dict())


def test_without_patience_the_last_is_kept_and_the_best_beside_it():
    training = make_training(almost_constant(), valid=held_out())
    first_epoch = []
    fit = run_to_end(
        training,
        lambda _, done, n_steps: first_epoch.append(weights(training.current_network())) if done == n_steps else None,
    )
    assert len(fit.epochs) == 6
    assert set(fit.other_weights) == {"best"}
    assert are_equal(first_epoch[0], fit.other_weights["best"].state_dict())
    assert are_equal(first_epoch[-1], fit.network.state_dict())


def test_without_held_out_clips_there_is_no_best_epoch():
    fit = run_to_end(make_training())
    assert (fit.other_weights, fit.epochs[-1].valid_lwlrap) == ({}, None)


def test_learning_rate_that_is_too_large_is_named():
    recipe = small_recipe(optimizer="sgd", learning_rate=1e30, finetune={"clip_norm": None, "warmup_fraction": 0.0})
    with pytest.raises(ConfigError, match=r"loss nan.*: learning_rate 1e\+30 is too large"):
        run_to_end(make_training(recipe))


def test_epochs_record_speed_and_time_left():
    fit = run_to_end(make_training(small_recipe(epochs=2), name="fold 1"))
    first, last = fit.epochs
    assert first.clips_per_second > 0
    assert first.seconds_left > 0
    assert last.seconds_left == 0
    assert {(epoch.part, epoch.n_epochs) for epoch in fit.epochs} == {("fold 1", 2)}


def test_progress_is_reported_step_by_step():
    steps = []
    run_to_end(make_training(name="all clips"), lambda *step: steps.append(step))
    assert steps == [(f"all clips epoch {epoch}", step, 3) for epoch in (1, 2) for step in (1, 2, 3)]


def test_duration_of_an_epoch_is_estimated_from_its_steps(monkeypatch):
    """By this clock, each training step takes a second, and the prediction of each clip a tenth."""
    training = make_training(small_recipe(batch_size=1), valid=held_out(5))
    now = [0.0]
    monkeypatch.setattr("spectag.training.members.finetune_loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr(training, "_train_step", lambda _: now.__setitem__(0, now[0] + 1.0))

    def predict(_, clips, *__):
        now[0] += 0.1 * len(clips.rows)

    monkeypatch.setattr("spectag.training.members.finetune_loop.logits_of_clips", predict)
    assert training.seconds_per_epoch() == pytest.approx(12 * 1.0 + 5 * 0.1)


def test_duration_of_an_epoch_of_one_step_is_that_step(monkeypatch):
    training = make_training(small_recipe(batch_size=12))
    now = [0.0]
    monkeypatch.setattr("spectag.training.members.finetune_loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr(training, "_train_step", lambda _: now.__setitem__(0, now[0] + 3.0))
    assert training.seconds_per_epoch() == pytest.approx(3.0)
