"""LDA heads: directions, shrinkage, weights and scale."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from spectag.training.heads.discriminant import SHRINKAGES, fit_discriminant_heads
from spectag.training.heads.logistic import PrincipalAxes


@pytest.fixture
def clips(rng):
    """Correlated features of three classes, and their labels."""
    y_true = np.eye(3, dtype=bool)[np.arange(90) % 3]
    mixing = rng.normal(size=(6, 6))
    features = (y_true @ rng.normal(size=(3, 6)) + rng.normal(size=(90, 6))) @ mixing
    return features.astype(np.float32), y_true


def fitted(features, y_true, shrinkages, weights=None):
    return fit_discriminant_heads(PrincipalAxes.of(features, [features.shape[1]], weights), y_true, shrinkages)


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 0.9])
def test_direction_is_the_difference_of_the_means_divided_by_the_shrunk_covariance(clips, shrinkage):
    features, y_true = clips
    x = PrincipalAxes.of(features, [6]).standardization(features)
    covariance = x.T @ x / len(x)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 6 * np.eye(6)
    (head,) = fitted(features, y_true, [shrinkage])
    for label, logits in enumerate(head.logits(features).T):
        difference = x[y_true[:, label]].mean(axis=0) - x[~y_true[:, label]].mean(axis=0)
        assert np.corrcoef(logits, x @ np.linalg.solve(shrunk, difference))[0, 1] == pytest.approx(1, abs=1e-9)


def test_order_of_clips_of_two_classes_is_that_of_sklearn(clips):
    """With two classes and hardly any shrinkage, it does not matter whose covariance is taken."""
    features, y_true = clips
    labels = y_true[:, :1]
    (head,) = fitted(features, labels, [1e-9])
    expected = LinearDiscriminantAnalysis().fit(features, labels[:, 0]).decision_function(features)
    assert np.corrcoef(head.logits(features)[:, 0], expected)[0, 1] == pytest.approx(1, abs=1e-6)


def test_full_shrinkage_is_the_nearest_mean(clips):
    features, y_true = clips
    x = PrincipalAxes.of(features, [6]).standardization(features)
    (head,) = fitted(features, y_true, [1.0])
    for label, logits in enumerate(head.logits(features).T):
        direction = x[y_true[:, label]].mean(0) - x[~y_true[:, label]].mean(0)
        assert np.corrcoef(logits, x @ direction)[0, 1] == pytest.approx(1, abs=1e-9)


def test_clip_of_weight_two_counts_as_two_clips(clips, rng):
    features, y_true = clips
    weights = rng.integers(1, 3, len(features)).astype(float)
    repeated = np.repeat(np.arange(len(features)), weights.astype(int))
    (by_weight,) = fitted(features, y_true, [0.5], weights)
    (by_copies,) = fitted(features[repeated], y_true[repeated], [0.5])
    np.testing.assert_allclose(by_weight.logits(features), by_copies.logits(features), atol=1e-4)


def test_mean_logits_of_clips_with_and_without_a_label_are_opposite(clips):
    features, y_true = clips
    for head in fitted(features, y_true, SHRINKAGES):
        logits = head.logits(features)
        assert logits[y_true].mean() == pytest.approx(4, abs=1e-4)
        np.testing.assert_allclose([logits[~y_true[:, label], label].mean() for label in range(3)], -4, atol=1e-4)


@pytest.mark.parametrize("n_positives", [0, 90])
def test_label_of_every_clip_is_predicted_for_every_clip_and_one_of_no_clip_for_none(clips, n_positives):
    features, y_true = clips
    y_true = np.column_stack([y_true, np.arange(90) < n_positives])
    for head in fitted(features, y_true, SHRINKAGES):
        np.testing.assert_allclose(head.logits(features)[:, 3], 4 if n_positives else -4, atol=1e-4)


def test_fewer_clips_than_features_and_a_constant_feature(rng):
    features = np.column_stack([rng.normal(size=(8, 40)), np.ones(8)]).astype(np.float32)
    y_true = np.eye(2, dtype=bool)[np.arange(8) % 2]
    for head in fitted(features, y_true, SHRINKAGES):
        logits = head.logits(features)
        assert (logits[:, 0] > logits[:, 1]).tolist() == y_true[:, 0].tolist()
