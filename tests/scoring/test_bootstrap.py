import math

import numpy as np
import pytest

from spectag.scoring.bootstrap import (
    Estimate,
    Resampling,
    as_json,
    draw_groups,
    paired_difference,
    score_interval,
)
from spectag.scoring.scores import resampled_scores


def accuracy_samples(is_right, counts):
    """Top-1 accuracy on each resample, for clips that are classified right or wrong."""
    y_true = np.eye(2, dtype=bool)[np.zeros(len(is_right), int)]
    y_score = np.eye(2)[np.where(is_right, 0, 1)]
    return resampled_scores(y_true, y_score, y_score > 0.5, counts).overall["top1_accuracy"]


def test_clips_of_a_group_are_drawn_together_and_the_number_of_groups_stays(rng):
    counts = draw_groups(["a", "b", "a", "c"], n_resamples=200, rng=rng)
    np.testing.assert_array_equal(counts[0], counts[2])
    np.testing.assert_array_equal(counts[[0, 1, 3]].sum(axis=0), 3)
    assert counts[0].mean() == pytest.approx(1, abs=0.2)


def test_interval_is_wider_if_the_clips_of_a_group_are_alike(rng):
    is_right = np.repeat(rng.random(40) < 0.7, 10)  # 40 recordings of ten clips that are alike

    def width(groups):
        samples = accuracy_samples(is_right, Resampling(400).counts(groups))
        low, high = score_interval(samples[:, None], len(set(groups)), confidence=0.95)
        return float(high[0] - low[0])

    assert width(np.repeat(range(40), 10).tolist()) == pytest.approx(np.sqrt(10) * width(range(400)), rel=0.25)


@pytest.mark.parametrize(("accuracy", "n_clips"), [(0.8, 150), (0.95, 20), (0.99, 50)])
def test_nineteen_of_twenty_intervals_contain_the_true_accuracy(accuracy, n_clips):
    rng = np.random.default_rng(5)
    n_covered = 0
    for _ in range(200):
        counts = np.column_stack([np.ones(n_clips, int), draw_groups(range(n_clips), n_resamples=100, rng=rng)])
        low, high = score_interval(accuracy_samples(rng.random(n_clips) < accuracy, counts)[:, None], n_clips, 0.95)
        n_covered += low[0] <= accuracy <= high[0]
    assert 180 <= n_covered <= 199


def test_interval_of_a_mean_of_small_errors_is_narrower_than_that_of_a_proportion(rng):
    scores = 1 - 0.1 * rng.random(400)  # errors up to 0.1
    resamples = rng.choice(scores, size=(1000, 400)).mean(axis=1)
    low, high = score_interval(np.r_[scores.mean(), resamples][:, None], 400, 0.95)
    standard_error = scores.std() / 20
    assert float(high[0] - low[0]) == pytest.approx(2 * 1.96 * standard_error, rel=0.15)


def test_interval_ignores_undefined_resamples():
    samples = np.array([[0.5, 0.5, np.nan], [0.4, np.nan, 0.5], [np.nan, np.nan, 0.5], [0.6, np.nan, 0.5]])
    low, high = score_interval(samples, 10, 0.95)
    assert 0 < low[0] < 0.5 < high[0] < 1
    assert np.isnan(low[1:]).all()
    assert np.isnan(high[1:]).all()


def test_first_column_of_counts_is_the_clips_themselves():
    counts = Resampling(n_resamples=5).counts(["a", "a", "b"])
    assert counts.shape == (3, 6)
    assert counts[:, 0].tolist() == [1, 1, 1]
    assert Resampling(n_resamples=0).counts(["a", "b"]).shape == (2, 1)


def test_clips_of_a_single_recording_have_no_interval():
    resampling = Resampling()
    assert resampling.counts(["a", "a"]).shape == (2, 1)
    [estimate] = resampling.estimates(np.array([[0.5]]), 1)
    assert (estimate.value, as_json(estimate)) == (0.5, {"value": 0.5, "low": None, "high": None})


def test_json_has_none_for_infinity():
    assert as_json(Estimate(math.inf, 2.0, math.inf)) == {"value": None, "low": 2.0, "high": None}


def paired(first, other, *, n_resamples=400):
    """Difference and p-value of the accuracies of two models on the same clips, each of another recording."""
    counts = Resampling(n_resamples).counts(range(len(first)))
    samples = [accuracy_samples(is_right, counts) for is_right in (first, other)]
    estimates = [Resampling().estimates(each[:, None], len(first))[0] for each in samples]
    return paired_difference(*estimates, (samples[0][1:], samples[1][1:]), len(first), 0.95)


def test_interval_of_a_difference_equals_the_published_example_of_newcombe():
    """Of 50 pairs, 36 are right in both, 12 and 2 in one of the two: 0.2, interval 0.0569 to 0.3404 (method 10)."""
    first = np.repeat([True, True, False], [36, 12, 2])
    other = np.repeat([True, False, True], [36, 12, 2])
    difference, p_value = paired(first, other, n_resamples=5000)
    assert difference.value == pytest.approx(0.2)
    assert difference.low == pytest.approx(0.0569, abs=0.01)
    assert difference.high == pytest.approx(0.3404, abs=0.01)
    assert 0.001 < p_value < 0.02


def test_difference_of_a_model_from_itself_is_0_and_may_be_another_on_other_clips(rng):
    for is_right in (rng.random(100) < 0.9, rng.random(100) < 0.5, np.ones(100, bool)):
        difference, p_value = paired(is_right, is_right)
        assert difference.low < difference.value == 0 < difference.high
        assert p_value == 1


def test_luck_that_both_models_share_does_not_widen_the_interval_of_the_difference(rng):
    first = rng.random(400) < 0.8
    other = np.where(np.arange(400) < 380, first, ~first)
    difference, _ = paired(first, other)
    unrelated, _ = paired(first, rng.permutation(other))
    assert difference.high - difference.low < 0.6 * (unrelated.high - unrelated.low)


def test_p_value_is_below_5_percent_where_the_interval_excludes_0(rng):
    for gain in (0.0, 0.03, 0.05, 0.08, 0.1):
        difference, p_value = paired(rng.random(300) < 0.7 + gain, rng.random(300) < 0.7)
        assert (p_value < 0.05) == (difference.low > 0 or difference.high < 0)


def test_difference_of_scores_whose_intervals_end_at_them_has_an_interval_and_a_p_value():
    high, low = Estimate(0.9, 0.9, 1.0), Estimate(0.5, 0.2, 0.5)
    for first, other, sign in ((high, low, 1), (low, high, -1)):
        difference, p_value = paired_difference(first, other, (np.ones(3), np.ones(3)), 3, 0.95)
        nearest, farthest = sorted([difference.low, difference.high], key=abs)
        assert nearest == difference.value == pytest.approx(sign * 0.4)
        assert farthest == pytest.approx(sign * (0.4 + math.hypot(0.1, 0.3)))
        assert p_value == 0


def test_infinite_and_undefined_scores_have_no_interval_of_the_difference():
    resamples = np.ones(3), np.ones(3)
    for first in (Estimate(math.inf, 1.0, math.inf), Estimate(math.nan), Estimate(0.5)):
        difference, p_value = paired_difference(first, Estimate(0.5, 0.4, 0.6), resamples, 3, 0.95)
        assert math.isnan(difference.low)
        assert math.isnan(difference.high)
        assert math.isnan(p_value)


def test_p_value_is_below_5_percent_for_5_percent_of_equally_good_pairs():
    rng = np.random.default_rng(3)
    p_values = [paired(*(rng.random((2, 200)) < 0.7), n_resamples=200)[1] for _ in range(150)]
    assert 1 <= (np.array(p_values) < 0.05).sum() <= 16
