"""The posterior of labels, compared with labels that were corrupted at known rates."""

import numpy as np
import pytest
from scipy.special import expit

from spectag.curation.label_errors import fit_label_noise, label_posterior, scaled_logits

N_CLIPS = 600


def logits_of(truth, rng, *, distance=3.0, spread=1.0):
    """Logits of a good model: around `distance` for true labels, and around -`distance` for others."""
    return np.where(truth, distance, -distance) + rng.normal(0, spread, truth.shape)


def single_labels(rng, n_labels=8):
    return np.eye(n_labels, dtype=bool)[rng.integers(n_labels, size=N_CLIPS)]


def multi_labels(rng, n_labels=8):
    return rng.random((N_CLIPS, n_labels)) < 0.25


def swapped(truth, fraction, rng):
    given = truth.copy()
    rows = rng.choice(len(truth), round(fraction * len(truth)), replace=False)
    for row in rows:
        given[row] = np.roll(truth[row], rng.integers(1, truth.shape[1]))
    return given, rows


def with_errors(truth, missed, false, rng):
    return np.where(truth, rng.random(truth.shape) >= missed, rng.random(truth.shape) < false)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3])
def test_swapped_labels_rank_first_and_the_true_labels_are_suggested(fraction, rng):
    truth = single_labels(rng)
    given, rows = swapped(truth, fraction, rng)
    posterior = label_posterior(logits_of(truth, rng), given)
    first = np.argsort(-posterior.error_log_odds(given))[: len(rows)]
    assert len(np.intersect1d(first, rows)) >= 0.97 * len(rows)
    assert (posterior.most_likely[rows] == truth[rows]).all(axis=1).mean() >= 0.97
    assert posterior.noise.missed == pytest.approx(fraction, abs=0.02)


@pytest.mark.parametrize("n_unlabelled", [0, 1, 60, 600])
def test_swapped_labels_are_found_with_and_without_clips_without_labels(n_unlabelled, rng):
    truth, unlabelled = single_labels(rng), np.zeros((n_unlabelled, 8), bool)
    given, rows = swapped(truth, 0.1, rng)
    truth, given = np.vstack([truth, unlabelled]), np.vstack([given, unlabelled])
    posterior = label_posterior(logits_of(truth, rng), given)
    assert posterior.single_label
    assert (posterior.most_likely[rows] == truth[rows]).all(axis=1).mean() >= 0.97
    assert (posterior.most_likely[:N_CLIPS].sum(axis=1) == 1).all()
    assert posterior.most_likely[N_CLIPS:].any(axis=1).sum() <= 0.01 * n_unlabelled


def test_a_missing_label_of_a_clip_without_labels_is_found(rng):
    truth = np.vstack([single_labels(rng), np.zeros((200, 8), bool)])
    given, rows = truth.copy(), np.arange(20)
    given[rows] = False
    posterior = label_posterior(logits_of(truth, rng), given)
    assert (posterior.most_likely[rows] == truth[rows]).all(axis=1).mean() >= 0.9
    right = (posterior.most_likely == truth).all(axis=1)
    assert right[600:].mean() >= 0.98
    assert posterior.certainty[right].mean() > 0.95


@pytest.mark.parametrize(("missed", "false"), [(0.1, 0.01), (0.3, 0.002), (0.02, 0.05)])
def test_rates_of_missing_and_false_labels_are_estimated(missed, false, rng):
    truth = multi_labels(rng)
    noise = label_posterior(logits_of(truth, rng), with_errors(truth, missed, false, rng)).noise
    assert noise.missed == pytest.approx(missed, abs=0.03)
    assert noise.false == pytest.approx(false, abs=0.005)


@pytest.mark.parametrize("make_truth", [single_labels, multi_labels])
def test_certainty_of_suggestions_is_calibrated(make_truth, rng):
    truth = make_truth(rng)
    given = swapped(truth, 0.15, rng)[0] if make_truth is single_labels else with_errors(truth, 0.1, 0.02, rng)
    posterior = label_posterior(logits_of(truth, rng, distance=1.2), given)
    right = (posterior.most_likely == truth).all(axis=1)
    for low, high in ((0.4, 0.7), (0.7, 0.9), (0.9, 1.0)):
        rows = (posterior.certainty >= low) & (posterior.certainty < high)
        assert rows.sum() > 20
        assert right[rows].mean() == pytest.approx(posterior.certainty[rows].mean(), abs=0.12)


@pytest.mark.parametrize("make_truth", [single_labels, multi_labels])
def test_right_labels_are_not_doubted(make_truth, rng):
    truth = make_truth(rng)
    posterior = label_posterior(logits_of(truth, rng), truth)
    assert (expit(posterior.error_log_odds(truth)) > 0.5).mean() < 0.005


def test_probabilities_sum_to_one_if_each_clip_has_one_label(rng):
    truth = single_labels(rng)
    posterior = label_posterior(logits_of(truth, rng), swapped(truth, 0.1, rng)[0])
    assert posterior.single_label
    uncertain = label_posterior(logits_of(truth, rng, distance=0.3), swapped(truth, 0.3, rng)[0])
    assert (uncertain.most_likely.sum(axis=1) == 1).all()
    assert (uncertain.certainty < 0.5).any()
    np.testing.assert_allclose(posterior.probabilities.sum(axis=1), 1, atol=1e-9)
    assert not label_posterior(logits_of(truth, rng), truth | np.roll(truth, 1, axis=1)).single_label


def test_labels_with_less_certain_predictions_are_not_doubted_more(rng):
    truth = multi_labels(rng)
    given = with_errors(truth, 0.1, 0.01, rng)
    logits = logits_of(truth, rng)
    scale, shift = rng.uniform(0.2, 3, 8), rng.uniform(-4, 4, 8)
    inputs = logits, scale * logits + shift
    plain, changed = (label_posterior(values, given).error_log_odds(given) for values in inputs)
    wrong = (truth != given).any(axis=1)
    for log_odds in (plain, changed):
        first = np.argsort(-log_odds)[: wrong.sum()]
        assert wrong[first].mean() > 0.93


def test_scaled_logit_is_the_position_between_typical_clips(rng):
    truth = multi_labels(rng)
    logits = np.where(truth, 5.0, -1.0)
    logits[0, 0] = 2.0  # half way
    levels = scaled_logits(logits, truth)
    np.testing.assert_allclose(levels[1:], np.where(truth[1:], 1, -1), atol=0.05)
    assert levels[0, 0] == pytest.approx(0, abs=0.05)


def test_probabilities_follow_bayes_rule(rng):
    truth = multi_labels(rng)
    given = with_errors(truth, 0.1, 0.02, rng)
    logits = logits_of(truth, rng)
    posterior = label_posterior(logits, given)
    noise = fit_label_noise(scaled_logits(logits, given), given)
    assert noise == posterior.noise
    prior = expit(noise.scale * scaled_logits(logits, given) + noise.offset)
    given_if_true = np.where(given, 1 - noise.missed, noise.missed)
    given_if_false = np.where(given, noise.false, 1 - noise.false)
    expected = prior * given_if_true / (prior * given_if_true + (1 - prior) * given_if_false)
    np.testing.assert_allclose(posterior.probabilities, expected, atol=1e-9)


def test_unreliable_labels_keep_their_given_values(rng):
    truth = multi_labels(rng)
    given, rows = swapped(truth, 0.1, rng)
    reliable = np.arange(8) != 3
    posterior = label_posterior(logits_of(truth, rng), given, reliable)
    assert (posterior.most_likely[:, 3] == given[:, 3]).all()
    assert (posterior.most_likely[rows] != given[rows]).any()


def test_label_with_inverted_logits_keeps_its_given_values(rng):
    truth = multi_labels(rng)
    logits = logits_of(truth, rng)
    logits[:, 2] *= -1
    assert (label_posterior(logits, truth).most_likely[:, 2] == truth[:, 2]).all()


@pytest.mark.parametrize("given", [np.zeros((1, 3), bool), np.ones((1, 3), bool), np.eye(3, dtype=bool)])
def test_few_or_unlabelled_clips_give_finite_results(given, rng):
    posterior = label_posterior(rng.normal(0, 3, given.shape), given)
    assert np.isfinite(posterior.log_odds).all()
    assert ((posterior.certainty > 0) & (posterior.certainty <= 1)).all()


def test_single_clip_is_doubted_if_the_model_is_certain_of_another_label():
    given = np.array([[True, False, False, False]])
    posterior = label_posterior(np.array([[-6.0, 6.0, -6.0, -6.0]]), given)
    assert posterior.most_likely.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("logits", "given", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2), bool), r"one shape \(n_clips, n_labels\), got \(2, 3\), \(3, 2\)"),
        (np.zeros((0, 3)), np.zeros((0, 3), bool), r"got \(0, 3\)"),
        (np.full((2, 2), np.inf), np.zeros((2, 2), bool), "must be finite"),
    ],
)
def test_invalid_arrays_are_errors(logits, given, message):
    with pytest.raises(ValueError, match=message):
        label_posterior(logits, given)


def test_an_unknown_label_is_no_error_and_changes_nothing_else(rng):
    truth = multi_labels(rng)
    logits, given = logits_of(truth, rng), with_errors(truth, 0.1, 0.01, rng).astype(float)
    unknown = rng.random(truth.shape) < 0.2
    given[unknown] = np.nan
    posterior = label_posterior(logits, given)
    assert not posterior.most_likely[unknown].any()
    assert posterior.noise.missed == pytest.approx(0.1, abs=0.03)
    changed = label_posterior(np.where(unknown, -logits, logits), given)
    np.testing.assert_array_equal(changed.log_odds, posterior.log_odds)
    errors = (truth != (given == 1)) & ~unknown
    found = (posterior.most_likely != (given == 1)) & ~unknown
    assert (found & errors).sum() > 0.9 * errors.sum()
