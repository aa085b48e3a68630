"""Weights of clips and unknown labels, in every head on frozen features."""

from dataclasses import replace

import numpy as np
import pytest

from spectag.config.recipe import Recipe
from spectag.scoring.metrics import lwlrap
from spectag.training.heads.discriminant import fit_discriminant_heads
from spectag.training.heads.logistic import PrincipalAxes, fit_heads, fit_logistic_heads
from spectag.training.heads.name_prior import NamePrior
from spectag.training.heads.per_fold import FrozenFeatures, fit_linear_heads, relabel_noisy_clips
from spectag.training.inputs.mixed_clips import MixedClips
from spectag.training.members.head_training import fit_by_gradient
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.held_out import HeldOut

N_CLIPS, N_FEATURES, N_LABELS = 80, 6, 3
HEADS = {
    "lda": Recipe(classifier="lda"),
    "logistic": Recipe(classifier="logistic"),
    "sgd": Recipe(optimizer="sgd", learning_rate=0.5, epochs=5, batch_size=1000),
}
NONE = HeldOut((), (), False, "")


@pytest.fixture
def clips(rng):
    """Features of clips, and labels that depend on them."""
    features = rng.normal(size=(N_CLIPS, N_FEATURES)).astype(np.float32)
    noise = 0.5 * rng.normal(size=(N_CLIPS, N_LABELS))
    return features, features @ rng.normal(size=(N_FEATURES, N_LABELS)) + noise > 0.5


def with_unknown(y_true, rng):
    return np.where(rng.random(y_true.shape) < 0.3, np.nan, y_true)


def logits_after_training(kind, features, targets, weights=None, *, on):
    """The logits of clips by a head that was trained on all of the others."""
    data, recipe = FrozenFeatures(features, [2, 4]), HEADS[kind]
    cross_validation = CrossValidation.of(targets, NONE, weights)
    if kind == "sgd":
        return fit_by_gradient(data, cross_validation, recipe, Callbacks(), name="").heads[0].logits(on)
    return fit_linear_heads(data, cross_validation, recipe, Callbacks()).heads[0].logits(on)


# -------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("kind", ["lda", "logistic"])
def test_a_clip_of_weight_two_counts_as_two_clips(clips, rng, kind):
    features, y_true = clips
    weights = rng.integers(1, 3, N_CLIPS).astype(float)
    repeated = np.repeat(np.arange(N_CLIPS), weights.astype(int))
    by_weight = logits_after_training(kind, features, y_true, weights, on=features)
    by_copies = logits_after_training(kind, features[repeated], y_true[repeated], on=features)
    np.testing.assert_allclose(by_weight, by_copies, atol=2e-3)
    assert np.abs(by_weight - logits_after_training(kind, features, y_true, on=features)).max() > 0.05


@pytest.mark.parametrize("kind", HEADS)
def test_a_clip_of_weight_0_is_not_trained_on(clips, kind):
    features, y_true = clips
    weights = np.where(np.arange(N_CLIPS) < 60, 1.0, 0.0)
    by_weight = logits_after_training(kind, features, y_true, weights, on=features)
    without = logits_after_training(kind, features[:60], y_true[:60], on=features)
    np.testing.assert_allclose(by_weight, without, atol=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_only_the_ratios_of_weights_matter(clips, rng, kind):
    features, y_true = clips
    weights = rng.uniform(0.2, 2, N_CLIPS)
    first, second = (
        logits_after_training(kind, features, y_true, factor * weights, on=features) for factor in (1.0, 8.0)
    )
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_clips_of_weight_0_are_held_out_and_scored(clips):
    features, y_true = clips
    fold = np.arange(N_CLIPS) % 2
    choice = HeldOut(("1", "2"), (fold == 0, fold == 1), False, "")
    cross_validation = CrossValidation.of(y_true, choice, np.where(np.arange(N_CLIPS) < 10, 0.0, 1.0))
    assert [training.train[:10].any() for training in cross_validation.trainings] == [False] * 3
    logits = fit_linear_heads(FrozenFeatures(features, [6]), cross_validation, Recipe(), Callbacks()).logits.chosen
    assert not np.isnan(logits).any()
    assert cross_validation.score(logits) == lwlrap(y_true, logits)  # every clip counts once


def test_the_weight_of_a_mixed_clip_is_that_of_its_two_clips(clips):
    features, y_true = clips
    parents = np.array([[0, 1], [1, 2], [2, 3]])
    mixed = MixedClips(features[:3], y_true[:3].astype(np.float32), parents)
    weights = np.where(np.arange(N_CLIPS) == 1, 3.0, 1.0)
    [fold] = CrossValidation.of(y_true, NONE, weights).folds
    _, _, used = FrozenFeatures(features, [6], mixed=mixed).training_arrays(fold, y_true)
    assert used[:N_CLIPS] == pytest.approx(weights / weights.mean())
    assert used[N_CLIPS:] == pytest.approx(np.array([3, 3, 1]) / weights.mean() ** 2)


def test_noisy_clips_have_their_own_weights(clips, rng):
    features, y_true = clips
    data = FrozenFeatures(features[:40], [6], noisy=features[40:])
    cross_validation = CrossValidation.of(y_true[:40], NONE)
    [equal] = relabel_noisy_clips(data, y_true[40:], cross_validation, Recipe())
    weights = rng.integers(0, 3, 40).astype(float)
    [weighted] = relabel_noisy_clips(data, y_true[40:], cross_validation, Recipe(), weights)
    assert (equal.weights > 0).any()
    assert (weighted.weights[weights == 0] == 0).all()
    unchanged = weighted.agrees == equal.agrees
    assert weighted.weights[unchanged] == pytest.approx((weights * equal.weights)[unchanged])


# ------------------------------------------------------------------------------------------- unknown labels


def test_an_unknown_label_is_in_neither_mean_of_lda(clips, rng):
    features, y_true = clips
    targets = with_unknown(y_true, rng)
    training = PrincipalAxes.of(features, [N_FEATURES])
    [head] = fit_discriminant_heads(training, targets, [0.5])
    x = training.standardization(features)
    covariance = x.T @ x / len(x)
    shrunk = 0.5 * covariance + 0.5 * np.trace(covariance) / N_FEATURES * np.eye(N_FEATURES)
    for label, logits in enumerate(head.logits(features).T):
        with_label, without_label = (x[targets[:, label] == value].mean(axis=0) for value in (1, 0))
        direction = np.linalg.solve(shrunk, with_label - without_label)
        assert np.corrcoef(logits, x @ direction)[0, 1] == pytest.approx(1, abs=1e-9)
        assert logits[targets[:, label] == 0].mean() == pytest.approx(-logits[targets[:, label] == 1].mean(), rel=0.2)


def test_logistic_regression_of_a_label_is_fitted_on_the_clips_where_it_is_known(clips, rng):
    features, y_true = clips
    targets = with_unknown(y_true, rng)
    training = PrincipalAxes.of(features, [N_FEATURES])
    [head] = fit_logistic_heads(training, targets, [1e-3])
    for label in range(N_LABELS):
        known = ~np.isnan(targets[:, label])
        only_known = replace(training, clip_weights=known / known.mean())
        [alone] = fit_logistic_heads(only_known, y_true[:, [label]], [1e-3])
        np.testing.assert_allclose(head.logits(features)[:, label], alone.logits(features)[:, 0], atol=5e-3)


@pytest.mark.parametrize("kind", ["lda", "logistic"])
def test_a_label_that_is_known_everywhere_is_trained_as_before(clips, rng, kind):
    features, y_true = clips
    targets = with_unknown(y_true, rng)
    targets[:, 0] = y_true[:, 0]
    partly, fully = (logits_after_training(kind, features, truth, on=features) for truth in (targets, y_true))
    # LDA has one scale for all labels
    assert np.corrcoef(partly[:, 0], fully[:, 0])[0, 1] == pytest.approx(1, abs=1e-4)
    assert np.corrcoef(partly[:, 1], fully[:, 1])[0, 1] < 0.9999


@pytest.mark.parametrize("kind", HEADS)
def test_heads_learn_from_what_is_known(clips, rng, kind):
    """Half of the true labels are missing. As unknown labels they do less harm than as false ones."""
    features, y_true = clips
    hidden = rng.random(y_true.shape) < 0.5
    as_unknown = np.where(hidden & (y_true | (rng.random(y_true.shape) < 0.2)), np.nan, y_true)
    logits = logits_after_training(kind, features, as_unknown, on=features)
    assert np.isfinite(logits).all()
    as_false = logits_after_training(kind, features, np.where(hidden, False, y_true), on=features)
    assert lwlrap(y_true, logits) > lwlrap(y_true, as_false) - 0.02
    assert ((logits > 0) == y_true).mean() > ((as_false > 0) == y_true).mean()


def test_choices_and_scores_do_not_depend_on_the_predictions_for_unknown_labels(clips, rng):
    _, y_true = clips
    targets = with_unknown(y_true, rng)
    fold = np.arange(N_CLIPS) % 2
    cross_validation = CrossValidation.of(targets, HeldOut(("1", "2"), (fold == 0, fold == 1), False, ""))
    good, bad = y_true + rng.normal(size=y_true.shape), rng.normal(size=y_true.shape)
    changed = np.where(np.isnan(targets), 100 * rng.normal(size=y_true.shape), good)
    assert cross_validation.score(changed) == cross_validation.score(good) == lwlrap(targets, good)
    first, second = (cross_validation.choose([bad, logits]) for logits in (changed, good))
    assert (first.best, first.best_without) == (second.best, second.best_without) == (1, (1, 1))
    np.testing.assert_array_equal(cross_validation.y_true, targets == 1)


def test_the_prior_of_a_name_is_judged_on_the_clips_where_the_label_is_known(clips):
    features, _ = clips
    weights = np.zeros((N_FEATURES, 1))
    weights[0] = 1
    prior = NamePrior({"Dog": ("Bark",)}, weights, np.zeros(1), np.array([True]))
    targets = (features[:, :1] > 0).astype(float)
    contrary = np.where(np.arange(N_CLIPS)[:, None] < 40, targets, 1 - targets)
    logits = features[:, :1].astype(np.float64)
    assert not prior.separates(logits, contrary).any()
    contrary[40:] = np.nan
    assert prior.separates(logits, contrary).all()


def test_targets_may_be_probabilities_and_unknown(clips, rng):
    features, y_true = clips
    targets = np.where(y_true, 0.9, 0.1)
    [soft] = fit_heads(features, targets, [N_FEATURES], [1e-3])
    targets[rng.random(targets.shape) < 0.1] = np.nan
    [partly] = fit_heads(features, targets, [N_FEATURES], [1e-3])
    assert np.corrcoef(soft.logits(features).ravel(), partly.logits(features).ravel())[0, 1] > 0.99
