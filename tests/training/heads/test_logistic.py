"""The linear head minimises its loss, compared with finite differences and scikit-learn."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from spectag.training.heads.logistic import (
    DEFAULT_WEIGHT_DECAY,
    FIRST_STAGE_SCALE,
    WEIGHT_DECAYS,
    PrincipalAxes,
    Standardization,
    fit_heads,
)


def make_clips(rng, n_clips, n_features, n_labels=3):
    """Features on very different scales, and labels that depend on them with some noise."""
    hidden = rng.standard_normal((n_clips, n_features))
    signal = hidden @ rng.standard_normal((n_features, n_labels)) / np.sqrt(n_features)
    y_true = signal + 0.5 * rng.standard_normal(signal.shape) > 0.5
    features = 10 + hidden * 10.0 ** rng.uniform(-2, 2, n_features)
    return features.astype(np.float32), y_true


def loss(x, y_true, weights, bias, weight_decay):
    logits = x @ weights + bias
    return (np.logaddexp(0, logits) - y_true * logits).sum() / len(x) + weight_decay / 2 * (weights**2).sum()


# ------------------------------------------------------------------------------------------------ standardization


def test_standardised_features_have_mean_0_and_deviations_that_grow_with_the_stage(rng):
    features, _ = make_clips(rng, 200, 12)
    x = Standardization.fit(features, [4, 4, 4])(features)
    assert x.mean(axis=0) == pytest.approx(np.zeros(12), abs=1e-6)
    deviation = x.std(axis=0)
    assert deviation == pytest.approx(np.repeat(deviation[::4], 4), rel=1e-5)
    assert deviation[0] / deviation[-1] == pytest.approx(FIRST_STAGE_SCALE, rel=1e-5)
    assert deviation[4] / deviation[-1] == pytest.approx((1 + FIRST_STAGE_SCALE) / 2, rel=1e-5)


def test_single_stage_has_mean_squared_norm_1(rng):
    features, _ = make_clips(rng, 200, 12)
    x = Standardization.fit(features, [12])(features)
    assert (x**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("constant", [0.0, 1e-3, 1e6])
def test_constant_features_are_ignored_whatever_they_are_later(rng, constant):
    features, y_true = make_clips(rng, 60, 8)
    with_constant = np.hstack([features, np.full((60, 8), constant, np.float32)])
    head = fit_heads(with_constant, y_true, [16], (1e-3,))[0]
    later = with_constant.copy()
    later[:, 8:] = 1e9
    assert np.array_equal(head.logits(later), head.logits(with_constant))
    alone = fit_heads(features, y_true, [8], (2e-3,))[0]  # half the features, so the squared norm is twice as large
    assert head.logits(with_constant) == pytest.approx(alone.logits(features), abs=1e-3)


# ------------------------------------------------------------------------------------------------ the solution


@pytest.mark.parametrize(("n_clips", "n_features"), [(80, 10), (20, 50)])
@pytest.mark.parametrize("weight_decay", [1e-2, DEFAULT_WEIGHT_DECAY])
def test_no_step_from_the_solution_lowers_the_loss(rng, n_clips, n_features, weight_decay):
    features, y_true = make_clips(rng, n_clips, n_features)
    head = fit_heads(features, y_true, [n_features], (weight_decay,))[0]
    x = head.standardization(features)
    for _ in range(20):
        step, bias_step = rng.standard_normal(head.weights.shape), rng.standard_normal(head.bias.shape)
        size = 1e-3 / np.sqrt((step**2).sum() + (bias_step**2).sum())
        ahead, behind = (
            loss(x, y_true, head.weights + sign * size * step, head.bias + sign * size * bias_step, weight_decay)
            for sign in (1, -1)
        )
        assert (ahead - behind) / 2e-3 == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("n_clips", "n_features"), [(150, 20), (40, 200)])
def test_heads_equal_sklearn_for_each_label(rng, n_clips, n_features):
    features, y_true = make_clips(rng, n_clips, n_features)
    sizes = [n_features // 4, n_features - n_features // 4]
    for weight_decay, head in zip(WEIGHT_DECAYS, fit_heads(features, y_true, sizes, WEIGHT_DECAYS), strict=True):
        x = head.standardization(features)
        for label in range(y_true.shape[1]):
            theirs = LogisticRegression(C=1 / (n_clips * weight_decay), solver="newton-cholesky", tol=1e-10)
            theirs.fit(x, y_true[:, label])
            assert head.logits(features)[:, label] == pytest.approx(theirs.decision_function(x), abs=1e-3)


@pytest.mark.parametrize("n_clips", [30, 120])
def test_weighted_clips_lie_along_the_axes_where_their_features_are(rng, n_clips):
    features, _ = make_clips(rng, n_clips, 90)
    training = PrincipalAxes.of(features, [30, 60], rng.uniform(0.1, 3, n_clips))
    standardised = training.standardization(features)
    np.testing.assert_allclose(training.clips @ training.axes.T, standardised, atol=1e-9)
    np.testing.assert_allclose(training.clip_weights @ training.clips**2, training.squares)


def test_more_features_than_clips_have_the_solution_of_all_of_them(rng, monkeypatch):
    features, y_true = make_clips(rng, 30, 90)
    by_basis = fit_heads(features, y_true, [30, 60], (1e-3,))[0]
    monkeypatch.setattr(
        "spectag.training.heads.logistic._principal_axes",
        lambda x, clip_weights: (np.eye(x.shape[1]), np.ones(x.shape[1]), x),
    )
    by_all = fit_heads(features, y_true, [30, 60], (1e-3,))[0]
    new, _ = make_clips(rng, 20, 90)
    assert by_basis.logits(features) == pytest.approx(by_all.logits(features), abs=1e-3)
    assert by_basis.logits(new) == pytest.approx(by_all.logits(new), rel=1e-2, abs=1e-3)


def test_duplicate_clips_do_not_change_the_solution(rng):
    features, y_true = make_clips(rng, 15, 60)
    once = fit_heads(features, y_true, [60], (1e-3,))[0]
    twice = fit_heads(np.repeat(features, 2, axis=0), np.repeat(y_true, 2, axis=0), [60], (1e-3,))[0]
    assert twice.logits(features) == pytest.approx(once.logits(features), abs=1e-3)


def test_strongest_decay_gives_each_clip_the_base_rate(rng):
    features, y_true = make_clips(rng, 100, 5)
    head = fit_heads(features, y_true, [5], (1e6,))[0]
    base_rate = y_true.mean(axis=0)
    assert head.logits(features) == pytest.approx(np.tile(logit(base_rate), (100, 1)), abs=1e-4)
    assert expit(head.logits(features)) == pytest.approx(np.tile(base_rate, (100, 1)), abs=1e-4)


def test_weaker_decay_gives_greater_weights(rng):
    features, y_true = make_clips(rng, 60, 10)
    norms = [np.square(head.weights).sum() for head in fit_heads(features, y_true, [10], WEIGHT_DECAYS)]
    assert norms == sorted(norms)


def test_each_weight_decay_gives_the_same_head_alone_and_with_others(rng):
    features, y_true = make_clips(rng, 60, 10)
    together = fit_heads(features, y_true, [10], WEIGHT_DECAYS)[-1]
    alone = fit_heads(features, y_true, [10], WEIGHT_DECAYS[-1:])[0]
    assert alone.logits(features) == pytest.approx(together.logits(features), abs=1e-3)


def test_labels_are_fitted_independently(rng):
    features, y_true = make_clips(rng, 60, 10, n_labels=4)
    together = fit_heads(features, y_true, [10], (1e-3,))[0].logits(features)
    alone = fit_heads(features, y_true[:, 2:3], [10], (1e-3,))[0].logits(features)
    assert together[:, 2] == pytest.approx(alone[:, 0], abs=1e-3)


def test_order_and_scale_of_the_features_do_not_matter(rng):
    features, y_true = make_clips(rng, 60, 10)
    order = rng.permutation(10)
    scaled = (features[:, order] * 2.0 ** rng.integers(-3, 4, 10)).astype(np.float32)
    expected = fit_heads(features, y_true, [10], (1e-3,))[0].logits(features)
    assert fit_heads(scaled, y_true, [10], (1e-3,))[0].logits(scaled) == pytest.approx(expected, abs=1e-3)


# ------------------------------------------------------------------------------------------------ odd clips


def test_separable_clips_have_finite_weights_and_correct_predictions():
    features = np.linspace(-1, 1, 20, dtype=np.float32)[:, np.newaxis]
    y_true = features > 0
    head = fit_heads(features, y_true, [1], WEIGHT_DECAYS)[-1]
    assert np.isfinite(head.weights).all()
    assert np.array_equal(head.logits(features) > 0, y_true)


@pytest.mark.parametrize("n_clips", [1, 2, 5])
def test_label_of_all_or_no_clips_has_confident_finite_logits(rng, n_clips):
    features = rng.standard_normal((n_clips, 30)).astype(np.float32)
    y_true = np.tile([True, False], (n_clips, 1))
    for head in fit_heads(features, y_true, [30], WEIGHT_DECAYS):
        logits = head.logits(features)
        assert np.isfinite(logits).all()
        assert (logits[:, 0] > 1).all()
        assert (logits[:, 1] < -1).all()


def test_one_clip_for_each_label_is_enough():
    features = np.eye(4, 50, dtype=np.float32)
    head = fit_heads(features, np.eye(4, dtype=bool), [50], (DEFAULT_WEIGHT_DECAY,))[0]
    assert head.logits(features).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_identical_clips_have_the_base_rate():
    features = np.ones((4, 7), np.float32)
    y_true = np.array([[True], [False], [False], [False]])
    assert fit_heads(features, y_true, [7], (1e-3,))[0].logits(features) == pytest.approx(logit(0.25), abs=1e-4)


# ------------------------------------------------------------------------------------------------ weights, soft labels


def logits_of(features, targets, *, test=None, **settings):
    """Logits of test clips, or of the training clips, by a fitted head."""
    (head,) = fit_heads(features, targets, [features.shape[1]], (1e-3,), **settings)
    return head.logits(features if test is None else test)


@pytest.mark.parametrize("n_features", [8, 60])
def test_weight_2_equals_a_duplicate_clip(rng, n_features):
    features, y_true = make_clips(rng, 40, n_features)
    twice = np.concatenate([np.arange(40), [3, 5]])
    weights = np.ones(40)
    weights[[3, 5]] = 2
    expected = logits_of(features[twice], y_true[twice], test=features)
    assert logits_of(features, y_true, clip_weights=weights) == pytest.approx(expected, rel=1e-2, abs=2e-3)
    assert np.abs(logits_of(features, y_true) - expected).max() > 0.01


def test_weight_near_0_equals_a_missing_clip(rng):
    features, y_true = make_clips(rng, 40, 8)
    spoilt, weights = features.copy(), np.ones(40)
    spoilt[:5], weights[:5] = 500, 1e-12
    expected = logits_of(features[5:], y_true[5:])
    assert logits_of(spoilt, y_true, test=features[5:], clip_weights=weights) == pytest.approx(expected, abs=2e-3)


def test_only_the_proportion_of_the_weights_counts(rng):
    features, y_true = make_clips(rng, 40, 8)
    weights = rng.uniform(0.1, 1, 40)
    expected = logits_of(features, y_true, clip_weights=weights)
    assert logits_of(features, y_true, clip_weights=100 * weights) == pytest.approx(expected, abs=1e-3)
    assert np.array_equal(logits_of(features, y_true, clip_weights=np.ones(40)), logits_of(features, y_true))


@pytest.mark.parametrize("target", [0.5, 0.25])
def test_soft_target_equals_a_true_and_a_false_clip_with_these_weights(rng, target):
    features, y_true = make_clips(rng, 40, 8)
    soft = y_true.astype(np.float64)
    soft[:10] = target
    rows = np.concatenate([np.arange(40), np.arange(10)])
    hard, weights = y_true[rows], np.ones(50)
    hard[:10], hard[40:] = True, False
    weights[:10], weights[40:] = target, 1 - target
    expected = logits_of(features[rows], hard, test=features, clip_weights=weights)
    assert logits_of(features, soft) == pytest.approx(expected, abs=2e-3)


def test_target_of_one_half_equals_one_true_and_one_false_clip(rng):
    features, y_true = make_clips(rng, 30, 6)
    soft = np.full(y_true.shape, 0.5)
    soft[10:] = y_true[10:]
    twice = np.repeat(features, 2, axis=0)
    hard = np.repeat(y_true, 2, axis=0)
    hard[:20] = (np.arange(20) % 2 == 0)[:, np.newaxis]
    assert logits_of(features, soft) == pytest.approx(logits_of(twice, hard, test=features), abs=2e-3)


def test_true_and_false_are_the_targets_1_and_0(rng):
    features, y_true = make_clips(rng, 40, 8)
    assert np.array_equal(logits_of(features, y_true), logits_of(features, y_true.astype(np.float64)))
    assert np.array_equal(logits_of(features, y_true), logits_of(features, y_true.astype(np.float32)))
