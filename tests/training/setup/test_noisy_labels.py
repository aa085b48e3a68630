"""Noisy labels: recovered rates of simulated labels, Bayes' rule by hand, and which clips are kept."""

import re

import numpy as np
import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import expit, logit

from spectag.training.setup.noisy_labels import DOUBTFUL_WEIGHT, relabel_noisy, relabel_report

SURE, UNSURE = 8.0, 0.0


def simulated(rng, sensitivity, false_rate, *, n_clips=4000, n_labels=10):
    """Calibrated logits, and labels given to the clips with these rates."""
    logits = rng.normal(-2.0, 3.0, (n_clips, n_labels))
    y_true = rng.random(logits.shape) < expit(logits)
    given = np.where(y_true, rng.random(logits.shape) < sensitivity, rng.random(logits.shape) < false_rate)
    return logits, y_true, given


def bayes(prior, is_given, rates):
    """Probability that one label is true."""
    if_true, if_false = rates.sensitivity, rates.false_rate
    if not is_given:
        if_true, if_false = 1 - if_true, 1 - if_false
    return prior * if_true / (prior * if_true + (1 - prior) * if_false)


# ------------------------------------------------------------------------------------------------ how reliable


@pytest.mark.parametrize(("sensitivity", "false_rate"), [(0.9, 0.02), (0.7, 0.05), (0.5, 0.2), (0.3, 0.01)])
def test_rates_of_simulated_labels_are_recovered(rng, sensitivity, false_rate):
    logits, _, given = simulated(rng, sensitivity, false_rate)
    rates = relabel_noisy(logits, given, keep_doubtful=True).rates
    assert rates.sensitivity == pytest.approx(sensitivity, abs=0.03)
    assert rates.false_rate == pytest.approx(false_rate, abs=0.01)


def test_probabilities_of_labels_are_calibrated(rng):
    logits, y_true, given = simulated(rng, 0.6, 0.1)
    result = relabel_noisy(logits, given, keep_doubtful=True)
    doubtful = ~result.agrees
    targets, truth = result.targets[doubtful], y_true[doubtful]
    for low, high in ((0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.95)):
        rows = (targets > low) & (targets < high)
        assert truth[rows].mean() == pytest.approx(targets[rows].mean(), abs=0.05)


def test_targets_are_closer_to_the_truth_than_the_labels_and_than_the_predictions(rng):
    logits, y_true, given = simulated(rng, 0.7, 0.1)
    targets = relabel_noisy(logits, given, keep_doubtful=True).targets
    error = np.abs((targets > 0.5) ^ y_true).mean()
    assert error < 0.9 * (given ^ y_true).mean()
    assert error < 0.9 * ((logits > 0) ^ y_true).mean()


def test_rates_worked_by_hand_for_certain_predictions():
    """One of the two true labels is given; of the two false ones, first none and then one."""
    logits = np.array([[SURE, -SURE], [-SURE, SURE]]) * 3
    rates = relabel_noisy(logits, np.array([[True, False], [False, False]]), keep_doubtful=True).rates
    assert (rates.sensitivity, rates.false_rate) == pytest.approx((1 / 2, 1e-4), abs=1e-6)
    rates = relabel_noisy(logits, np.array([[True, False], [True, True]]), keep_doubtful=True).rates
    assert (rates.sensitivity, rates.false_rate) == pytest.approx((0.99, 1 / 2), abs=1e-6)


def test_targets_are_bayes_rule_worked_by_hand():
    """Certain clips set the rates to 0.8 and 0.2; the last clip's labels have the priors 0.1 and 0.5."""
    given = np.array([[True, False]] * 50)
    logits = np.where(given, 3 * SURE, -3 * SURE)
    given[:10] ^= True
    logits, given = np.vstack([logits, logit([[0.1, 0.5]])]), np.vstack([given, [[True, False]]])
    result = relabel_noisy(logits, given, keep_doubtful=True)
    assert (result.rates.sensitivity, result.rates.false_rate) == pytest.approx((0.8, 0.2), abs=0.02)
    by_hand = [0.1 * 0.8 / (0.1 * 0.8 + 0.9 * 0.2), 0.5 * 0.2 / (0.5 * 0.2 + 0.5 * 0.8)]  # 0.31, 0.2
    assert result.targets[-1] == pytest.approx(by_hand, abs=0.02)
    exact = [bayes(0.1, True, result.rates), bayes(0.5, False, result.rates)]
    assert result.targets[-1] == pytest.approx(exact, abs=1e-6)


def test_given_label_never_lowers_its_own_probability():
    """Even if the predictions are the opposite of the labels."""
    given = np.array([[True, False]] * 8)
    logits = np.where(given, -1.0, 1.0)
    targets = relabel_noisy(logits, given, keep_doubtful=True).targets
    assert (targets[given] >= expit(logits[given]) - 1e-12).all()
    assert (targets[~given] <= expit(logits[~given]) + 1e-12).all()


def test_labels_that_all_agree_with_the_predictions_have_extreme_rates():
    given = np.tile(np.eye(4, dtype=bool), (50, 1))
    result = relabel_noisy(np.where(given, SURE, -SURE), given, keep_doubtful=True)
    assert (result.rates.sensitivity, result.rates.false_rate) == pytest.approx((0.99, 1e-4), abs=1e-3)
    assert result.agrees.all()


@pytest.mark.parametrize("size", [1.0, 1e3, 1e300])
@pytest.mark.parametrize("given", [np.ones((3, 1), bool), np.zeros((3, 2), bool), np.eye(2, dtype=bool)])
def test_results_are_finite_for_any_logits(given, size):
    for logits in (np.full(given.shape, size), np.full(given.shape, -size)):
        result = relabel_noisy(logits, given, keep_doubtful=True)
        assert np.isfinite(result.targets).all()
        assert 0 < result.rates.false_rate < 1


# ------------------------------------------------------------------------------------------------ what is kept


def one_doubtful(n_agreeing=6):
    """Clips of two labels; only for the last clip the model predicts the label that was not given."""
    given = np.array([[True, False]] * n_agreeing + [[True, False]])
    logits = np.where(given, SURE, -SURE)
    logits[-1] = [-SURE, SURE]
    return logits, given


def test_clips_that_agree_keep_their_labels_and_have_full_weight():
    logits, given = one_doubtful()
    result = relabel_noisy(logits, given, keep_doubtful=True, weight=0.5)
    assert result.agrees.tolist() == [True] * 6 + [False]
    np.testing.assert_array_equal(result.targets[:6], given[:6])
    assert result.weights == pytest.approx([0.5] * 6 + [0.5 * DOUBTFUL_WEIGHT])
    assert result.targets[6, 0] < 0.5 < result.targets[6, 1]


def test_select_leaves_out_doubtful_clips():
    logits, given = one_doubtful()
    assert relabel_noisy(logits, given, keep_doubtful=False).weights.tolist() == [1.0] * 6 + [0.0]


def test_clip_without_labels_never_agrees():
    logits, given = one_doubtful()
    logits, given = np.vstack([logits, [-SURE, -SURE]]), np.vstack([given, [False, False]])
    assert not relabel_noisy(logits, given, keep_doubtful=False).agrees[-1]


def test_limit_keeps_the_most_probable_clips_of_each_label():
    given = np.array([[True, False]] * 4 + [[False, True]] * 2)
    logits = np.where(given, [[3.0], [6.0], [4.0], [5.0], [3.0], [3.0]], -SURE)
    result = relabel_noisy(logits, given, keep_doubtful=True, per_label=2)
    assert result.agrees.all()
    assert result.over_limit.tolist() == [True, False, True, False, False, False]
    assert result.weights.tolist() == [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]


def test_clip_of_two_labels_counts_by_the_less_probable_one():
    given = np.array([[True, True], [True, False]])
    logits = np.array([[9.0, 3.0], [5.0, -SURE]])
    assert relabel_noisy(logits, given, keep_doubtful=True, per_label=1).over_limit.tolist() == [True, False]


@for_any(
    logits=arrays.arrays(float, (7, 3), elements=st.floats(-50, 50)),
    given=arrays.arrays(bool, (7, 3)),
    keep_doubtful=st.booleans(),
    per_label=st.none() | st.integers(1, 3),
    weight=st.floats(0.01, 1),
)
def test_each_clip_is_kept_doubtful_or_over_the_limit_and_the_report_adds_up(
    logits, given, keep_doubtful, per_label, weight
):
    result = relabel_noisy(logits, given, keep_doubtful=keep_doubtful, per_label=per_label, weight=weight)
    kept = result.agrees & ~result.over_limit
    assert ((result.targets >= 0) & (result.targets <= 1)).all()
    assert not (result.over_limit & ~result.agrees).any()
    np.testing.assert_array_equal(result.targets[kept], given[kept])
    np.testing.assert_allclose(result.weights, weight * (kept + DOUBTFUL_WEIGHT * keep_doubtful * ~result.agrees))
    if per_label is not None:
        assert (given[kept].sum(axis=0) <= per_label).all()
    first, _, head, *rows = relabel_report(result, given, ["a", "bb", "a long name"])
    assert [int(number) for number in re.findall(r"\d+", first)] == [kept.sum(), 7, (~result.agrees).sum()]
    assert len({len(line) for line in (head, *rows)}) == 1
    for row, column in zip(rows, given.T, strict=True):
        n_given, n_kept, n_doubtful, n_over, n_added = (int(count) for count in row[11:].split())
        assert n_given == column.sum() == n_kept + n_doubtful + n_over
        assert n_added == 0 or (keep_doubtful and n_added <= (~column).sum())


def test_report_counts_the_clips_of_each_label():
    logits, given = one_doubtful()
    relabelled = relabel_noisy(logits, given, keep_doubtful=True, per_label=4)
    assert relabel_report(relabelled, given, ["bark", "mew"]) == [
        "noisy labels: 4 of 7 clips are kept; the model disagrees with 1, which count less, with label probabilities "
        "as targets",
        f"estimated label quality: {relabelled.rates.sensitivity:.0%} of the true labels are given, and "
        f"{relabelled.rates.false_rate:.1%} of the false ones",
        "label  given  kept  doubtful  over the limit  added",
        "bark       7     4         1               2      0",
        "mew        0     0         0               0      1",
    ]


def test_report_of_a_selection_adds_no_label():
    logits, given = one_doubtful()
    report = relabel_report(relabel_noisy(logits, given, keep_doubtful=False), given, ["bark", "mew"])
    assert report[0] == "noisy labels: 6 of 7 clips are kept; the model disagrees with 1, which are left out"
    assert [row.split()[-1] for row in report[3:]] == ["0", "0"]


@pytest.mark.parametrize("shape", [(3, 1), (3, 3), (0, 2)])
def test_shapes_that_differ_are_refused(shape):
    other = (0, 2) if 0 in shape else (3, 2)
    message = re.escape(f"need logits and labels of one shape, got {shape} and {other}")
    with pytest.raises(ValueError, match=message):
        relabel_noisy(np.zeros(shape), np.zeros(other, bool), keep_doubtful=True)


# ------------------------------------------------------------------------------------- weights and unknown labels


def test_a_clip_of_weight_two_counts_as_two_clips_for_the_rates(rng):
    logits, _, given = simulated(rng, 0.7, 0.1, n_clips=300)
    weights = rng.integers(0, 3, 300).astype(float)
    copies = np.repeat(np.arange(300), weights.astype(int))
    weighted = relabel_noisy(logits, given, keep_doubtful=True, clip_weights=weights)
    copied = relabel_noisy(logits[copies], given[copies], keep_doubtful=True)
    assert weighted.rates.sensitivity == pytest.approx(copied.rates.sensitivity)
    assert weighted.rates.false_rate == pytest.approx(copied.rates.false_rate)
    np.testing.assert_allclose(weighted.targets[copies], copied.targets)
    np.testing.assert_allclose(weighted.weights, weights * np.where(weighted.agrees, 1, DOUBTFUL_WEIGHT))


def test_clips_of_weight_0_do_not_use_up_the_limit_of_a_label():
    given, logits = np.ones((3, 1), bool), np.array([[9.0], [8.0], [7.0]])
    result = relabel_noisy(logits, given, keep_doubtful=False, per_label=1, clip_weights=np.array([0.0, 1.0, 1.0]))
    assert result.weights.tolist() == [0, 1, 0]


def test_unknown_labels_stay_unknown_and_are_not_judged(rng):
    logits, _, given = simulated(rng, 0.7, 0.1, n_clips=2000)
    unknown = rng.random(given.shape) < 0.3
    labels = np.where(unknown, np.nan, given)
    result = relabel_noisy(logits, labels, keep_doubtful=True)
    np.testing.assert_array_equal(np.isnan(result.targets), unknown)
    assert result.rates.sensitivity == pytest.approx(0.7, abs=0.04)
    assert result.rates.false_rate == pytest.approx(0.1, abs=0.02)
    others = relabel_noisy(np.where(unknown, -logits, logits), labels, keep_doubtful=True)
    np.testing.assert_array_equal(others.agrees, result.agrees)
    np.testing.assert_array_equal(others.targets, result.targets)
