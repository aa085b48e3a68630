import math

import numpy as np
import pytest

from spectag.scoring.bootstrap import (
    Estimate,
    Resampling,
    as_json,
    draw_groups,
    paired_difference,
    percentile_interval,
    two_sided_p_value,
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
        low, high = percentile_interval(
            accuracy_samples(is_right, draw_groups(groups, n_resamples=400, rng=rng)), confidence=0.95
        )
        return high - low

    assert width(np.repeat(range(40), 10).tolist()) == pytest.approx(np.sqrt(10) * width(range(400)), rel=0.25)


def test_interval_of_a_mean_is_close_to_its_standard_error(rng):
    is_right = rng.random(400) < 0.8
    counts = draw_groups(range(400), n_resamples=1000, rng=rng)
    low, high = percentile_interval(accuracy_samples(is_right, counts), 0.95)
    standard_error = math.sqrt(is_right.mean() * (1 - is_right.mean()) / 400)
    assert low == pytest.approx(is_right.mean() - 1.96 * standard_error, abs=0.006)
    assert high == pytest.approx(is_right.mean() + 1.96 * standard_error, abs=0.006)
    narrow_low, narrow_high = percentile_interval(accuracy_samples(is_right, counts), 0.5)
    assert low < narrow_low < narrow_high < high


def test_nineteen_of_twenty_intervals_contain_the_true_accuracy():
    rng = np.random.default_rng(5)
    n_covered = 0
    for _ in range(200):
        samples = accuracy_samples(rng.random(150) < 0.8, draw_groups(range(150), n_resamples=200, rng=rng))
        low, high = percentile_interval(samples, 0.95)
        n_covered += low <= 0.8 <= high
    assert 180 <= n_covered <= 198


def test_interval_ignores_nan_and_keeps_infinity():
    samples = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, np.nan], [np.inf, np.nan]])
    low, high = percentile_interval(samples, 0.95)
    assert (low[0], high[0]) == (1.0, np.inf)
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_first_column_of_counts_is_the_clips_themselves():
    counts = Resampling(n_resamples=5).counts(["a", "a", "b"])
    assert counts.shape == (3, 6)
    assert counts[:, 0].tolist() == [1, 1, 1]
    assert Resampling(n_resamples=0).counts(["a", "b"]).shape == (2, 1)


def test_clips_of_a_single_recording_have_no_interval():
    resampling = Resampling()
    assert resampling.counts(["a", "a"]).shape == (2, 1)
    estimate = resampling.estimate(np.array([0.5]))
    assert (estimate.value, as_json(estimate)) == (0.5, {"value": 0.5, "low": None, "high": None})


def test_undefined_score_has_no_interval_although_some_resamples_define_it():
    undefined, defined = Resampling().estimates(np.array([[np.nan, 0.5], [0.3, 0.4], [0.4, 0.6]]))
    assert as_json(undefined) == {"value": None, "low": None, "high": None}
    assert defined == Estimate(0.5, 0.4, 0.6)


def test_json_has_none_for_infinity():
    assert as_json(Estimate(math.inf, 2.0, math.inf)) == {"value": None, "low": 2.0, "high": None}


def test_equal_infinities_and_rounding_errors_make_no_difference():
    differences = paired_difference(np.array([np.inf, np.inf, 1, np.nan, 0.3]), np.array([np.inf, 1, 3, 1, 0.1 + 0.2]))
    np.testing.assert_array_equal(differences, [0, np.inf, -2, np.nan, 0])


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        (np.zeros(99), 1.0),
        (np.ones(999), 0.002),
        (np.r_[np.ones(95), -np.ones(4)], 0.1),
        (np.r_[np.ones(50), -np.ones(49)], 1.0),
        (np.r_[np.ones(99), np.nan], 0.02),
    ],
)
def test_p_values_computed_by_hand(differences, p_value):
    assert two_sided_p_value(differences) == pytest.approx(p_value)
    assert two_sided_p_value(-differences) == pytest.approx(p_value)


def test_undefined_differences_have_no_p_value():
    assert np.isnan(two_sided_p_value(np.array([np.nan])))


def test_p_value_is_below_5_percent_for_5_percent_of_equally_good_pairs():
    rng = np.random.default_rng(3)
    n_significant = 0
    for _ in range(150):
        counts = draw_groups(range(200), n_resamples=200, rng=rng)
        first, other = (accuracy_samples(rng.random(200) < 0.7, counts) for _ in range(2))
        n_significant += two_sided_p_value(paired_difference(first, other)) < 0.05
    assert 1 <= n_significant <= 16
