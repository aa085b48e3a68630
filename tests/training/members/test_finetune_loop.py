"""Fine-tuning held against schedules of torch, means by hand, and what each setting promises."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from helpers.small_training import (
    FRONT_END,
    held_out,
    made_examples,
    made_inputs,
    made_tagger,
    made_training,
    small_recipe,
)
from spectag.config.training import AugmentConfig, FinetuneConfig, LossConfig, NoisyConfig
from spectag.errors import ConfigError
from spectag.system.progress import silent
from spectag.training.members.clip_logits import ValidationClips, logits_of_clips, n_frames_in
from spectag.training.members.finetune_loop import precision_on
from spectag.training.members.schedule import averaging_weight, rate_factor
from spectag.training.networks.losses import clip_losses
from spectag.training.setup.optimization import judge

PLAIN = {"weight_averaging": "none", "schedule": "constant", "warmup": 0.0, "layer_decay": 1.0, "clip_norm": None}
CPU = torch.device("cpu")
UNCHANGED = AugmentConfig(mix=0, gain_db=0)


def learnt(training, progress=silent):
    return training.run(lambda _: None, progress)


def weights(tagger):
    return {name: values.clone() for name, values in tagger.state_dict().items()}


def are_equal(first, second):
    return all(torch.equal(values, second[name]) for name, values in first.items())


def pretrained_recipe(**settings):
    """As the small recipe, but the network counts as one that was trained before."""
    return small_recipe(backbone="mn04_audioset", mel=None, **settings)


def weights_after_each_step(training):
    steps = []
    learnt(training, lambda *_: steps.append(weights(training.network_with_noisy_head.tagger)))
    return steps


# ------------------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize("n_steps", [4, 10, 137])
def test_one_cycle_is_torchs(n_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=n_steps)
    config = FinetuneConfig(schedule="one_cycle")
    for step in range(n_steps):
        assert rate_factor(step, n_steps, config) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        if step < n_steps - 1:
            theirs.step()


def test_the_cosine_rises_in_a_line_and_falls_to_nothing():
    config = FinetuneConfig(schedule="cosine", warmup_fraction=0.25)
    factors = [rate_factor(step, 8, config) for step in range(9)]
    by_hand = [1 / 3, 2 / 3, *((1 + math.cos(math.pi * done / 6)) / 2 for done in range(7))]
    assert factors == pytest.approx(by_hand)
    assert factors[2] == 1
    assert factors[8] == pytest.approx(0)


def test_a_constant_rate_stays_after_the_rise():
    config = FinetuneConfig(schedule="constant", warmup_fraction=0.2)
    assert [rate_factor(step, 10, config) for step in range(10)] == pytest.approx([1 / 3, 2 / 3] + [1.0] * 8)


@given(
    n_steps=st.integers(1, 400),
    schedule=st.sampled_from(["cosine", "one_cycle", "constant"]),
    warmup_fraction=st.floats(0, 0.99),
)
def test_every_step_has_a_rate_above_0_and_at_most_the_full_one(n_steps, schedule, warmup_fraction):
    config = FinetuneConfig(schedule=schedule, warmup_fraction=warmup_fraction)
    factors = [rate_factor(step, n_steps, config) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)


def test_the_optimizer_gets_the_schedules_rates_and_epochs_tell_them():
    recipe = small_recipe(learning_rate=0.01, finetune={"layer_decay": 0.5, "head_lr_multiplier": 3.0})
    training = made_training(recipe)
    seen = [[group["lr"] for group in training.optimizer.param_groups]]
    fit = learnt(training, lambda *_: seen.append([group["lr"] for group in training.optimizer.param_groups]))
    factors = np.array([rate_factor(step, 6, recipe.finetune) for step in range(7)])
    np.testing.assert_allclose(seen, factors[:, None] * 0.01 * np.array([0.25, 0.5, 1.0, 3.0]), atol=1e-12)
    assert [epoch.learning_rate for epoch in fit.epochs] == pytest.approx([0.01 * factors[2], 0.01 * factors[5]])


# ------------------------------------------------------------------------------------------------ what is averaged


def test_ema_is_the_moving_average_by_hand():
    training = made_training(small_recipe(learning_rate=0.01, finetune={"ema_decay": 0.3}))
    steps = weights_after_each_step(training)
    mean = steps[0]
    for n_before, newest in enumerate(steps[1:], start=1):
        decay = min(0.3, (1 + n_before) / (10 + n_before))
        mean = {name: decay * mean[name] + (1 - decay) * newest[name] for name in mean}
    mean |= {name: values for name, values in steps[-1].items() if name.endswith("num_batches_tracked")}
    torch.testing.assert_close(weights(training._taken()), mean)


def test_swa_is_the_mean_over_the_last_quarter_of_the_steps():
    training = made_training(small_recipe(learning_rate=0.01, epochs=4, finetune={"weight_averaging": "swa"}))
    steps = weights_after_each_step(training)
    assert len(steps) == 12
    tail = steps[9:]
    mean = {name: sum(step[name] for step in tail) / 3 for name in tail[0] if not name.endswith("tracked")}
    taken = weights(training._taken())
    torch.testing.assert_close({name: taken[name] for name in mean}, mean)


def test_without_an_average_the_last_weights_are_taken():
    training = made_training(small_recipe(finetune={"weight_averaging": "none"}))
    steps = weights_after_each_step(training)
    assert are_equal(steps[-1], training._taken().state_dict())


def test_the_mean_of_weights_gives_each_step_its_share():
    config = FinetuneConfig(weight_averaging="swa")
    assert [averaging_weight(n, config) for n in range(4)] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert averaging_weight(10_000, FinetuneConfig(ema_decay=0.99)) == pytest.approx(0.01)


# ------------------------------------------------------------------------------------------------- what learns


def changed(before, after):
    return {name for name, values in before.items() if not torch.equal(values, after[name])}


def statistics(names):
    return {name for name in names if "running" in name or "tracked" in name}


@pytest.mark.parametrize(
    ("recipe", "learns"),
    [
        (pretrained_recipe(), False),
        (pretrained_recipe(finetune={"batch_norm": "trained"}), True),
        (pretrained_recipe(pretrained=False), True),
        (pretrained_recipe(pretrained=False, init="earlier", folds="none"), False),
        (small_recipe(), True),
        (small_recipe(init="earlier", folds="none"), False),
    ],
    ids=["pretrained", "trained", "random", "random, after an earlier run", "scratch", "scratch, after an earlier run"],
)
def test_statistics_of_batch_normalisation_are_kept_where_there_are_any(recipe, learns):
    training = made_training(recipe)
    before = weights(training.network_with_noisy_head.tagger)
    learnt(training)
    is_changed = statistics(changed(before, training._taken().state_dict()))
    assert is_changed == (statistics(before) if learns else set())


def test_shallow_stages_that_do_not_learn_stay_bit_for_bit():
    recipe = pretrained_recipe(finetune={"unfreeze": 1}, weight_decay=0.1)
    training = made_training(recipe)
    before = weights(training.network_with_noisy_head.tagger)
    after = learnt(training).tagger.state_dict()
    assert {name.split(".")[3] for name in changed(before, after) if "network" in name} == {"2"}
    assert "head.linear.weight" in changed(before, after)


def test_the_norm_of_a_step_is_at_most_that_of_the_clipped_gradient():
    finetune = PLAIN | {"clip_norm": 0.01, "head_lr_multiplier": 1.0}
    recipe = pretrained_recipe(
        optimizer="sgd", learning_rate=0.5, momentum=0.0, weight_decay=0.0, epochs=1, finetune=finetune
    )
    training = made_training(recipe)
    steps = [weights(training.network_with_noisy_head.tagger), *weights_after_each_step(training)]
    for before, after in itertools.pairwise(steps):
        length = math.sqrt(sum(((after[name] - before[name]) ** 2).sum() for name in before))
        assert length == pytest.approx(0.5 * 0.01, rel=1e-3)


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 0.01), ("adam", 0.01), ("sgd", 0.2)])
def test_every_optimizer_learns(optimizer, rate):
    recipe = small_recipe(optimizer=optimizer, learning_rate=rate, epochs=10, augment=UNCHANGED)
    fit = learnt(made_training(recipe, valid=held_out()))
    assert fit.epochs[-1].train_loss < 0.6 * fit.epochs[0].train_loss
    assert fit.epochs[-1].valid_lwlrap > 0.9


BASE = {"learning_rate": 0.01, "finetune": {"weight_averaging": "ema", "crop_seconds": 0.6}}  # longer than a clip


@pytest.fixture(scope="module")
def base_weights():
    return learnt(made_training(pretrained_recipe(**BASE))).tagger.state_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"unfreeze": 2},
        {"layer_decay": 0.5},
        {"head_lr_multiplier": 2.0},
        {"schedule": "one_cycle"},
        {"schedule": "constant"},
        {"warmup": 0.5},
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
    assert not are_equal(base_weights, learnt(made_training(recipe)).tagger.state_dict())


def test_the_same_settings_give_the_same_weights(base_weights):
    assert are_equal(base_weights, learnt(made_training(pretrained_recipe(**BASE))).tagger.state_dict())


def test_augmentation_is_off_for_the_last_share_of_the_epochs():
    """In the last epoch the labels of no two clips are joined."""
    recipe = small_recipe(epochs=4, augment=AugmentConfig(mix=1.0, disable_last_fraction=0.25))
    training = made_training(recipe)
    joined = []

    def look(*_):
        joined.append(float(training._seen[-1][2].sum(dim=1).max()))

    learnt(training, look)
    assert max(joined[:9]) == 2.0
    assert joined[9:] == [1.0] * 3


# ------------------------------------------------------------------------------------------------ doubtful clips


def test_another_loss_for_noisy_clips_changes_their_part_alone(rng):
    recipe = small_recipe(noisy_labels=NoisyConfig(loss="lq"), loss=LossConfig(q=0.5))
    training = made_training(recipe, examples=made_examples(n_noisy=4))
    logits, targets = torch.from_numpy(rng.normal(size=(2, 6, 3)).astype(np.float32))
    targets = (targets > 0).float()
    is_noisy = torch.tensor([False, True, False, True, False, False])
    losses = training._losses(logits, targets, is_noisy)
    as_ever = clip_losses(logits, targets, recipe.loss)
    forgiving = clip_losses(logits, targets, recipe.loss.model_copy(update={"kind": "lq"}))
    torch.testing.assert_close(losses[~is_noisy], as_ever[~is_noisy])
    torch.testing.assert_close(losses[is_noisy], forgiving[is_noisy])


@pytest.mark.parametrize("noisy", [{"loss": "lq"}, {"loss": "bootstrap"}, {"separate_head": True}], ids=str)
def test_settings_for_noisy_clips_change_the_weights(noisy):
    examples = made_examples(n_noisy=6)
    first, second = (
        learnt(made_training(small_recipe(noisy_labels=settings, learning_rate=0.01), examples=examples)).tagger
        for settings in (NoisyConfig(), NoisyConfig(**noisy))
    )
    assert not are_equal(first.state_dict(), second.state_dict())
    assert first.state_dict().keys() == second.state_dict().keys()  # the second head is thrown away


def test_noisy_clips_with_a_head_of_their_own_do_not_move_the_main_head():
    training = made_training(
        small_recipe(noisy_labels=NoisyConfig(separate_head=True)), examples=made_examples(n_noisy=4)
    )
    inputs = torch.from_numpy(made_inputs(4)[0])
    training.network_with_noisy_head(inputs, torch.tensor([True] * 4)).square().sum().backward()
    own, main = (
        training.network_with_noisy_head.noisy_head.linear.weight.grad,
        training.network_with_noisy_head.tagger.head.linear.weight.grad,
    )
    assert not main.any()
    assert own.any()
    assert training.network_with_noisy_head.tagger.extractor.backbone.network[0][0].weight.grad.any()


def test_without_noisy_clips_there_is_no_second_head():
    assert (
        made_training(small_recipe(noisy_labels=NoisyConfig(separate_head=True))).network_with_noisy_head.noisy_head
        is None
    )


def test_clips_count_by_their_weight():
    """A clip of weight 0 teaches nothing: the steps are those with any other labels for it."""
    examples = made_examples()
    examples.weights[:3] = 0
    recipe = pretrained_recipe(augment=UNCHANGED)
    first = learnt(made_training(recipe, examples=examples)).tagger.state_dict()
    examples.targets[:3] = 1 - examples.targets[:3]
    second = learnt(made_training(recipe, examples=examples)).tagger.state_dict()
    assert are_equal(first, second)


# ------------------------------------------------------------------------------------------------ precision


def test_half_precision_stays_near_single():
    settings = {"optimizer": "sgd", "learning_rate": 0.01}
    single, half = (
        learnt(made_training(pretrained_recipe(**settings, finetune={"precision": precision}), valid=held_out()))
        for precision in ("float32", "bfloat16")
    )
    assert half.tagger.state_dict()["head.linear.weight"].dtype == torch.float32
    torch.testing.assert_close(half.tagger.state_dict(), single.tagger.state_dict(), atol=1e-3, rtol=1e-3)
    assert half.epochs[-1].valid_loss == pytest.approx(single.epochs[-1].valid_loss, rel=0.02)


def test_float16_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match=r"finetune\.precision = float16 needs a GPU; take bfloat16, float32 or auto"):
        precision_on(CPU, FinetuneConfig(precision="float16"))


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_on_a_gpu_the_precision_is_what_it_computes_without_emulation(monkeypatch, has_bfloat16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has_bfloat16)
    gpu = torch.device("cuda")
    assert precision_on(gpu, FinetuneConfig()) == expected
    assert precision_on(gpu, FinetuneConfig(precision="float16")) == torch.float16
    assert precision_on(CPU, FinetuneConfig()) == torch.float32


# ------------------------------------------------------------------------------------------------ what is judged


def test_the_scores_of_an_epoch_are_those_of_what_would_be_kept():
    valid = held_out()
    training = made_training(small_recipe(learning_rate=0.01), valid=valid)
    fit = learnt(training)
    with torch.inference_mode():
        logits = torch.cat([fit.tagger(torch.from_numpy(valid.inputs(i)[None])) for i in range(6)])
    loss, lwlrap = judge(logits, torch.from_numpy(valid.y_true.astype(np.float32)), training.recipe)
    assert fit.epochs[-1].valid_loss == pytest.approx(loss, abs=1e-6)
    assert fit.epochs[-1].valid_lwlrap == pytest.approx(lwlrap)


def test_clips_are_judged_whole_and_long_ones_as_the_mean_of_parts():
    """8 kHz and a hop of 160 make 3,000 frames a minute."""
    assert n_frames_in(60, FRONT_END) == 3000
    inputs, _ = made_inputs(1, n_frames=7000)
    tagger, training = made_tagger(), made_training()
    asked = ValidationClips(lambda i: inputs[0], np.array([0]), np.ones((1, 3), bool))
    logits = logits_of_clips(tagger, asked, FRONT_END, training.accelerator)
    with torch.inference_mode():
        parts = [
            expit(tagger(torch.from_numpy(inputs[..., start : start + 3000])).double().numpy()[0])
            for start in (0, 3000, 6000)
        ]
    np.testing.assert_allclose(logits[0], logit((3 * parts[0] + 3 * parts[1] + parts[2]) / 7), atol=1e-5)


def test_a_long_clip_that_is_beyond_doubt_still_has_a_finite_logit():
    tagger, training = made_tagger(), made_training()
    torch.nn.init.constant_(tagger.head.linear.bias, 1000.0)
    inputs, _ = made_inputs(1, n_frames=7000)
    asked = ValidationClips(lambda i: inputs[0], np.array([0]), np.ones((1, 3), bool))
    assert np.isfinite(logits_of_clips(tagger, asked, FRONT_END, training.accelerator)).all()


def still(**finetune):
    """So slow that the held-out scores never change: the first epoch is as good as any."""
    return pretrained_recipe(learning_rate=1e-12, epochs=6, finetune=finetune)


def test_training_stops_when_patience_ends_and_keeps_the_best():
    fit = learnt(made_training(still(patience=2), valid=held_out()))
    assert [epoch.epoch for epoch in fit.epochs] == [1, 2, 3]
    assert set(fit.others) == {"last"}
    assert not are_equal(fit.others["last"].state_dict(), fit.tagger.state_dict())


def test_without_patience_the_last_is_kept_and_the_best_beside_it():
    training = made_training(still(), valid=held_out())
    first_epoch = []
    fit = learnt(
        training, lambda _, done, n_steps: first_epoch.append(weights(training._taken())) if done == n_steps else None
    )
    assert len(fit.epochs) == 6
    assert set(fit.others) == {"best"}
    assert are_equal(first_epoch[0], fit.others["best"].state_dict())
    assert are_equal(first_epoch[-1], fit.tagger.state_dict())


def test_where_nothing_is_held_out_there_is_no_best():
    fit = learnt(made_training())
    assert (fit.others, fit.epochs[-1].valid_lwlrap) == ({}, None)


def test_a_learning_rate_that_is_too_large_is_named():
    recipe = small_recipe(optimizer="sgd", learning_rate=1e30, finetune={"clip_norm": None, "warmup": 0.0})
    with pytest.raises(ConfigError, match=r"loss nan.*: learning_rate 1e\+30 is too large"):
        learnt(made_training(recipe))


def test_epochs_tell_speed_and_time_left():
    fit = learnt(made_training(small_recipe(epochs=2), label="fold 1"))
    first, last = fit.epochs
    assert first.clips_per_second > 0
    assert first.seconds_left > 0
    assert last.seconds_left == 0
    assert {(epoch.part, epoch.n_epochs) for epoch in fit.epochs} == {("fold 1", 2)}


def test_progress_is_told_step_by_step():
    told = []
    learnt(made_training(label="all clips"), lambda *step: told.append(step))
    assert told == [(f"all clips epoch {epoch}", step, 3) for epoch in (1, 2) for step in (1, 2, 3)]


def test_the_time_of_an_epoch_is_that_of_its_steps(monkeypatch):
    """Each step of learning takes a second by this clock, and each clip that is asked about a tenth."""
    training = made_training(small_recipe(batch_size=1), valid=held_out(5))
    now = [0.0]
    monkeypatch.setattr("spectag.training.members.finetune_loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr(training, "_learn", lambda _: now.__setitem__(0, now[0] + 1.0))

    def ask(_, asked, *__):
        now[0] += 0.1 * len(asked.rows)

    monkeypatch.setattr("spectag.training.members.finetune_loop.logits_of_clips", ask)
    assert training.seconds_per_epoch() == pytest.approx(12 * 1.0 + 5 * 0.1)


def test_the_time_of_an_epoch_of_one_step_is_that_step(monkeypatch):
    training = made_training(small_recipe(batch_size=12))
    now = [0.0]
    monkeypatch.setattr("spectag.training.members.finetune_loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr(training, "_learn", lambda _: now.__setitem__(0, now[0] + 3.0))
    assert training.seconds_per_epoch() == pytest.approx(3.0)
