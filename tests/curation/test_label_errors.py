"""What is believed of labels, held against labels that were made wrong at known rates."""

import numpy as np
import pytest
from scipy.special import expit

from spectag.curation.label_errors import fit_label_noise, label_levels, label_posterior

N_CLIPS = 600


def logits_of(truth, rng, *, apart=3.0, spread=1.0):
    """What a good tagger says: around `apart` of labels that are true, and as far below 0 of others."""
    return np.where(truth, apart, -apart) + rng.normal(0, spread, truth.shape)


def one_label_each(rng, n_labels=8):
    return np.eye(n_labels, dtype=bool)[rng.integers(n_labels, size=N_CLIPS)]


def several_labels(rng, n_labels=8):
    return rng.random((N_CLIPS, n_labels)) < 0.25


def swapped(truth, share, rng):
    given = truth.copy()
    rows = rng.choice(len(truth), round(share * len(truth)), replace=False)
    for row in rows:
        given[row] = np.roll(truth[row], rng.integers(1, truth.shape[1]))
    return given, rows


def with_errors(truth, missed, false, rng):
    return np.where(truth, rng.random(truth.shape) >= missed, rng.random(truth.shape) < false)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_swapped_labels_come_first_and_what_they_were_is_suggested(share, rng):
    truth = one_label_each(rng)
    given, rows = swapped(truth, share, rng)
    believed = label_posterior(logits_of(truth, rng), given)
    first = np.argsort(-believed.doubts(given))[: len(rows)]
    assert len(np.intersect1d(first, rows)) >= 0.97 * len(rows)
    assert (believed.likeliest[rows] == truth[rows]).all(axis=1).mean() >= 0.97
    assert believed.noise.missed == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("missed", "false"), [(0.1, 0.01), (0.3, 0.002), (0.02, 0.05)])
def test_how_often_labels_are_missing_and_wrong_is_found_out(missed, false, rng):
    truth = several_labels(rng)
    noise = label_posterior(logits_of(truth, rng), with_errors(truth, missed, false, rng)).noise
    assert noise.missed == pytest.approx(missed, abs=0.03)
    assert noise.false == pytest.approx(false, abs=0.005)


@pytest.mark.parametrize("make", [one_label_each, several_labels])
def test_suggestions_come_true_about_as_often_as_they_say(make, rng):
    truth = make(rng)
    given = swapped(truth, 0.15, rng)[0] if make is one_label_each else with_errors(truth, 0.1, 0.02, rng)
    believed = label_posterior(logits_of(truth, rng, apart=1.2), given)
    right = (believed.likeliest == truth).all(axis=1)
    for low, high in ((0.4, 0.7), (0.7, 0.9), (0.9, 1.0)):
        rows = (believed.certainty >= low) & (believed.certainty < high)
        assert rows.sum() > 20
        assert right[rows].mean() == pytest.approx(believed.certainty[rows].mean(), abs=0.12)


@pytest.mark.parametrize("make", [one_label_each, several_labels])
def test_labels_that_are_right_are_not_doubted(make, rng):
    truth = make(rng)
    believed = label_posterior(logits_of(truth, rng), truth)
    assert (expit(believed.doubts(truth)) > 0.5).mean() < 0.005


def test_where_each_clip_has_one_label_their_probabilities_sum_to_one(rng):
    truth = one_label_each(rng)
    believed = label_posterior(logits_of(truth, rng), swapped(truth, 0.1, rng)[0])
    assert believed.one_each
    unsure = label_posterior(logits_of(truth, rng, apart=0.3), swapped(truth, 0.3, rng)[0])
    assert (unsure.likeliest.sum(axis=1) == 1).all()
    assert (unsure.certainty < 0.5).any()
    np.testing.assert_allclose(believed.probabilities.sum(axis=1), 1, atol=1e-9)
    assert not label_posterior(logits_of(truth, rng), truth | np.roll(truth, 1, axis=1)).one_each


def test_labels_of_which_networks_are_less_sure_are_not_doubted_for_it(rng):
    truth = several_labels(rng)
    given = with_errors(truth, 0.1, 0.01, rng)
    logits = logits_of(truth, rng)
    scale, shift = rng.uniform(0.2, 3, 8), rng.uniform(-4, 4, 8)
    plain, changed = (label_posterior(values, given).doubts(given) for values in (logits, scale * logits + shift))
    wrong = (truth != given).any(axis=1)
    for doubts in (plain, changed):
        first = np.argsort(-doubts)[: wrong.sum()]
        assert wrong[first].mean() > 0.93


def test_a_level_tells_where_between_the_typical_clips_a_logit_lies(rng):
    truth = several_labels(rng)
    logits = np.where(truth, 5.0, -1.0)
    logits[0, 0] = 2.0  # half way
    levels = label_levels(logits, truth)
    np.testing.assert_allclose(levels[1:], np.where(truth[1:], 1, -1), atol=0.05)
    assert levels[0, 0] == pytest.approx(0, abs=0.05)


def test_beliefs_are_those_of_bayes(rng):
    truth = several_labels(rng)
    given = with_errors(truth, 0.1, 0.02, rng)
    logits = logits_of(truth, rng)
    believed = label_posterior(logits, given)
    noise = fit_label_noise(label_levels(logits, given), given)
    assert noise == believed.noise
    prior = expit(noise.scale * label_levels(logits, given) + noise.offset)
    of_true = np.where(given, 1 - noise.missed, noise.missed)
    of_false = np.where(given, noise.false, 1 - noise.false)
    expected = prior * of_true / (prior * of_true + (1 - prior) * of_false)
    np.testing.assert_allclose(believed.probabilities, expected, atol=1e-9)


def test_of_labels_that_are_not_judged_the_given_ones_are_believed(rng):
    truth = several_labels(rng)
    given, rows = swapped(truth, 0.1, rng)
    judged = np.arange(8) != 3
    believed = label_posterior(logits_of(truth, rng), given, judged)
    assert (believed.likeliest[:, 3] == given[:, 3]).all()
    assert (believed.likeliest[rows] != given[rows]).any()


def test_a_label_whose_logits_say_the_opposite_is_not_judged(rng):
    truth = several_labels(rng)
    logits = logits_of(truth, rng)
    logits[:, 2] *= -1
    assert (label_posterior(logits, truth).likeliest[:, 2] == truth[:, 2]).all()


@pytest.mark.parametrize("given", [np.zeros((1, 3), bool), np.ones((1, 3), bool), np.eye(3, dtype=bool)])
def test_few_clips_or_none_that_are_labelled_give_numbers(given, rng):
    believed = label_posterior(rng.normal(0, 3, given.shape), given)
    assert np.isfinite(believed.log_odds).all()
    assert ((believed.certainty > 0) & (believed.certainty <= 1)).all()


def test_a_single_clip_is_doubted_where_the_tagger_is_sure_of_another_label():
    given = np.array([[True, False, False, False]])
    believed = label_posterior(np.array([[-6.0, 6.0, -6.0, -6.0]]), given)
    assert believed.likeliest.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("logits", "given", "words"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2), bool), r"one shape \(n_clips, n_labels\), got \(2, 3\), \(3, 2\)"),
        (np.zeros((0, 3)), np.zeros((0, 3), bool), r"got \(0, 3\)"),
        (np.full((2, 2), np.inf), np.zeros((2, 2), bool), "must be finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(logits, given, words):
    with pytest.raises(ValueError, match=words):
        label_posterior(logits, given)
