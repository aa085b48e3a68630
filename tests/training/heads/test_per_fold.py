"""Heads for each part of a task: asked only about clips they did not see, and taught by doubtful and mixed ones."""

import numpy as np
import pytest
import torch

from spectag.config.recipe import Recipe
from spectag.system.progress import no_log, silent
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, WEIGHT_DECAYS, fit_heads
from spectag.training.heads.per_fold import (
    FrozenFeatures,
    as_module,
    fit_by_gradient,
    fit_by_lbfgs,
    new_head,
    relabel_parts,
)
from spectag.training.inputs.mixed_clips import Mixes
from spectag.training.setup.holdout import HeldOut
from spectag.training.setup.noisy_labels import DOUBTFUL_WEIGHT
from spectag.training.setup.task import CrossValidation

SIZES = [3, 5]
N_CLIPS, N_FEATURES, N_LABELS = 60, 8, 3
BY_ADAM = {"optimizer": "adam", "learning_rate": 0.02, "epochs": 3, "batch_size": 16}


class World:
    """Made-up features and the labels that they tell."""

    def __init__(self, rng):
        self.rng = rng
        self.told_by = rng.normal(size=(N_FEATURES, N_LABELS))

    def clips(self, n_clips):
        features = self.rng.normal(size=(n_clips, N_FEATURES)).astype(np.float32)
        y_true = features @ self.told_by + 0.5 * self.rng.normal(size=(n_clips, N_LABELS)) > 0.5
        return features, y_true


@pytest.fixture
def world(rng):
    return World(rng)


def held_out(*rows, is_share=False):
    return HeldOut(tuple(str(number) for number in range(1, len(rows) + 1)), rows, is_share, "")


FOLD = np.arange(N_CLIPS) % 3
FOLDS = held_out(*(number == FOLD for number in range(3)))
SHARE = held_out(FOLD == 0, is_share=True)
NONE = held_out()


def solved(features, y_true, choice, *, noisy=None, mixes=None, relabelled=None, said=None, **recipe):
    data = FrozenFeatures(features, SIZES, noisy, mixes)
    task = CrossValidation.of(y_true, choice)
    task = task if relabelled is None else task.with_noisy(relabelled)
    log = no_log if said is None else said.append
    return fit_by_lbfgs(data, task, Recipe(**recipe), progress=silent, log=log)


def logits_by(head, features):
    with torch.inference_mode():
        return head(torch.from_numpy(features)).numpy()


# ------------------------------------------------------------------------------------------------ solved


def test_held_out_logits_are_from_heads_that_did_not_see_the_clip(world):
    features, y_true = world.clips(N_CLIPS)
    fit = solved(features, y_true, FOLDS, weight_decay=1e-3)
    assert len(fit.heads) == 4
    for number, head in enumerate(fit.heads[:3]):
        rows = number == FOLD
        (alone,) = fit_heads(features[~rows], y_true[~rows], SIZES, (1e-3,))
        np.testing.assert_allclose(fit.logits[rows], alone.logits(features[rows]), atol=1e-3)
        np.testing.assert_allclose(logits_by(head, features[rows]), fit.logits[rows], atol=1e-3)
    (whole,) = fit_heads(features, y_true, SIZES, (1e-3,))
    np.testing.assert_allclose(logits_by(fit.heads[3], features), whole.logits(features), atol=1e-2)


def test_labels_of_held_out_clips_do_not_change_what_is_said_of_them(world):
    features, y_true = world.clips(N_CLIPS)
    spoilt = np.where((FOLD == 0)[:, np.newaxis], ~y_true, y_true)
    first, other = (solved(features, labels, FOLDS, weight_decay=1e-3).logits for labels in (y_true, spoilt))
    np.testing.assert_array_equal(first[FOLD == 0], other[FOLD == 0])
    assert (first[FOLD == 1] != other[FOLD == 1]).all()


def test_with_a_share_held_out_there_is_one_head_and_the_others_have_no_logits(world):
    features, y_true = world.clips(N_CLIPS)
    fit = solved(features, y_true, SHARE)
    assert len(fit.heads) == 1
    assert np.isnan(fit.logits[FOLD > 0]).all()
    assert np.isfinite(fit.logits[FOLD == 0]).all()


def test_weight_decay_is_the_best_on_held_out_clips_and_the_whole_has_it_too(world):
    features, y_true = world.clips(N_CLIPS)
    said = []
    fit = solved(features, y_true, FOLDS, said=said)
    task = CrossValidation.of(y_true, FOLDS)
    scores = {decay: task.score(solved(features, y_true, FOLDS, weight_decay=decay).logits) for decay in WEIGHT_DECAYS}
    assert task.score(fit.logits) == max(scores.values())
    assert len(set(scores.values())) > 1
    best = max(scores, key=scores.get)
    assert said == [f"weight decay {best:g}: the best of 0.01, 0.003, 0.001, 0.0003, 0.0001 on held-out clips"]
    expected = fit_heads(features, y_true, SIZES, (best,))[0].logits(features)
    np.testing.assert_allclose(logits_by(fit.heads[-1], features), expected, atol=1e-2)


@pytest.mark.parametrize("choice", [NONE, SHARE], ids=["none held out", "none with a label held out"])
def test_where_nothing_can_be_chosen_on_the_usual_decay_is_taken(world, choice):
    features, y_true = world.clips(N_CLIPS)
    y_true[FOLD == 0] = False
    said = []
    fit = solved(features, y_true, choice, said=said)
    rows = CrossValidation.of(y_true, choice).parts[0].train
    expected = fit_heads(features[rows], y_true[rows], SIZES, (DEFAULT_WEIGHT_DECAY,))[0].logits(features)
    np.testing.assert_allclose(logits_by(fit.heads[0], features), expected, atol=1e-2)
    assert not said


def test_head_for_torch_gives_the_same_logits(world):
    features, y_true = world.clips(N_CLIPS)
    (head,) = fit_heads(features, y_true, SIZES, (1e-3,))
    np.testing.assert_allclose(logits_by(as_module(head), features), head.logits(features), atol=1e-5)


# ------------------------------------------------------------------------------------------------ mixed clips


def mixes_of(world, parents):
    features, _ = world.clips(len(parents))
    targets = world.rng.random((len(parents), N_LABELS)) < 0.5
    return Mixes(features, targets.astype(np.float32), np.array(parents))


def test_only_mixes_of_two_clips_that_a_part_may_see_teach_it(world):
    """Clips 0 and 3 are in the first fold, 1 and 4 in the second."""
    features, y_true = world.clips(N_CLIPS)
    mixes = mixes_of(world, [(0, 3), (0, 1), (1, 4)])
    data = FrozenFeatures(features, SIZES, mixes=mixes)
    task = CrossValidation.of(y_true, FOLDS)
    for part, within in zip(task.all_folds, ([2], [0], [0, 1, 2], [0, 1, 2]), strict=True):
        training_arrays, targets, weights = data.training_arrays(part, y_true)
        np.testing.assert_array_equal(training_arrays, np.concatenate([features[part.train], mixes.features[within]]))
        np.testing.assert_array_equal(targets, np.concatenate([y_true[part.train], mixes.targets[within]]))
        assert (weights == 1).all()


def test_mixes_are_learnt_from_like_clips(world):
    features, y_true = world.clips(N_CLIPS)
    mixes = mixes_of(world, [(0, 1)] * 20)
    fit = solved(features, y_true, NONE, mixes=mixes, weight_decay=1e-3)
    together = np.concatenate([features, mixes.features]), np.concatenate([y_true, mixes.targets > 0.5])
    expected = fit_heads(*together, SIZES, (1e-3,))[0].logits(features)
    np.testing.assert_allclose(logits_by(fit.heads[0], features), expected, atol=1e-2)


# ------------------------------------------------------------------------------------------------ noisy clips


def with_noisy(world, *, wrong=0.4, n_noisy=200, choice=FOLDS, **noisy_labels):
    """Clips, noisy clips with a share of their labels replaced by another clip's, and what is made of them."""
    features, y_true = world.clips(N_CLIPS)
    noisy, truth = world.clips(n_noisy)
    is_wrong = world.rng.random(n_noisy) < wrong
    given = np.where(is_wrong[:, np.newaxis], truth[world.rng.permutation(n_noisy)], truth)
    data = FrozenFeatures(features, SIZES, noisy)
    task = CrossValidation.of(y_true, choice)
    relabelled = relabel_parts(data, given, task, Recipe(noisy_labels=noisy_labels))
    return features, y_true, noisy, truth, given, relabelled


def test_each_part_has_its_own_opinion_and_the_targets_are_nearer_to_the_truth(world):
    *_, truth, given, relabelled = with_noisy(world)
    assert len(relabelled) == 4
    assert len({one.targets.tobytes() for one in relabelled}) == 4
    for one in relabelled:
        assert np.abs(one.targets - truth).mean() < 0.7 * np.abs(given.astype(float) - truth).mean()
        assert (one.targets[one.agrees] == given[one.agrees]).all()


def test_opinion_of_a_part_is_none_of_the_clips_that_it_is_asked_about(world):
    """A fold's labels may change as they will, the opinion of its own part ranks the noisy clips as before."""
    features, y_true = world.clips(N_CLIPS)
    noisy, given = world.clips(40)
    data = FrozenFeatures(features, SIZES, noisy)
    spoilt = np.where((FOLD == 0)[:, np.newaxis], False, y_true)
    relabelled = [
        relabel_parts(data, given, CrossValidation.of(labels, SHARE), Recipe()) for labels in (y_true, spoilt)
    ]
    heads = [solved(features, labels, SHARE, weight_decay=DEFAULT_WEIGHT_DECAY).heads[0] for labels in (y_true, spoilt)]
    np.testing.assert_array_equal(*(logits_by(head, noisy) for head in heads))
    assert (relabelled[0][0].targets != relabelled[1][0].targets).any()  # calibrated on the fold, and no more


@pytest.mark.parametrize(("method", "doubtful"), [("relabel", DOUBTFUL_WEIGHT), ("select", 0.0)])
def test_settings_of_noisy_labels_are_heeded(world, method, doubtful):
    features, y_true, noisy, _, given, relabelled = with_noisy(
        world, choice=NONE, method=method, per_label=20, weight=0.5
    )
    (one,) = relabelled
    kept = one.agrees & ~one.over_limit
    np.testing.assert_allclose(one.weights, 0.5 * np.where(kept, 1.0, np.where(one.agrees, 0.0, doubtful)))
    assert one.over_limit.any()
    _, targets, weights = FrozenFeatures(features, SIZES, noisy).training_arrays(
        CrossValidation.of(y_true, NONE).with_noisy(relabelled).parts[0], y_true
    )
    assert (weights > 0).all()
    assert len(targets) == len(weights) == N_CLIPS + (one.weights > 0).sum()
    assert (given[kept].sum(axis=0) <= 20).all()


def test_noisy_clips_teach_with_their_weights_but_hold_nothing_out(world):
    features, y_true, noisy, _, _, relabelled = with_noisy(world)
    fit = solved(features, y_true, FOLDS, noisy=noisy, relabelled=relabelled, weight_decay=1e-3)
    assert fit.logits.shape == y_true.shape
    for number in range(3):
        rows, one = number == FOLD, relabelled[number]
        kept = one.weights > 0
        (expected,) = fit_heads(
            np.concatenate([features[~rows], noisy[kept]]),
            np.concatenate([y_true[~rows], one.targets[kept]]),
            SIZES,
            (1e-3,),
            clip_weights=np.concatenate([np.ones((~rows).sum()), one.weights[kept]]),
        )
        np.testing.assert_allclose(fit.logits[rows], expected.logits(features[rows]), atol=1e-3)


def test_noisy_clips_make_a_tagger_of_few_clips_better(world):
    features, y_true, noisy, _, _, relabelled = with_noisy(world, n_noisy=400)
    new, new_truth = world.clips(2000)
    without = solved(features, y_true, FOLDS, weight_decay=1e-3).heads[-1]
    with_them = solved(features, y_true, FOLDS, noisy=noisy, relabelled=relabelled, weight_decay=1e-3).heads[-1]
    errors = [((logits_by(head, new) > 0) != new_truth).mean() for head in (without, with_them)]
    assert errors[1] < errors[0]


# ------------------------------------------------------------------------------------------------ by epochs


@pytest.mark.parametrize("head", ["linear", "layer_norm"])
@pytest.mark.parametrize(
    ("choice", "parts"), [(FOLDS, ["fold 1", "fold 2", "fold 3", "all clips"]), (SHARE, ["1"]), (NONE, ["all clips"])]
)
def test_heads_are_trained_part_by_part(world, choice, parts, head):
    features, y_true = world.clips(N_CLIPS)
    told, said = [], []
    fit = fit_by_gradient(
        FrozenFeatures(features, SIZES),
        CrossValidation.of(y_true, choice),
        Recipe(head=head, **BY_ADAM),
        name="net, ",
        log=said.append,
        on_epoch=told.append,
    )
    assert said == (parts if len(parts) > 1 else [])
    assert [(epoch.part, epoch.epoch) for epoch in told] == [(f"net, {name}", n) for name in parts for n in (1, 2, 3)]
    assert fit.epochs == tuple(told)
    assert len(fit.heads) == len(parts)
    for rows, module in zip(choice.rows, fit.heads, strict=False):
        np.testing.assert_array_equal(fit.logits[rows], logits_by(module, features[rows]))
    assert np.isnan(fit.logits[~np.any([*choice.rows, np.zeros(N_CLIPS, bool)], axis=0)]).all()
    assert all((epoch.valid_loss is None) == (epoch.part == "net, all clips") for epoch in told)


def test_new_heads_are_drawn_from_the_seed(world):
    features, _ = world.clips(N_CLIPS)
    weights = [new_head(features, SIZES, N_LABELS, Recipe(seed=seed)).linear.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
