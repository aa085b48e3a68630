from functools import cache

import numpy as np
import pytest
from scipy.special import expit, logit

from spectag.findings.checked_sample import allocate
from spectag.scoring.checked_precision import MIN_COUNTED, checked_precision

GOAL = 0.9
CURVES = {  # the chance that a detection with a probability is right
    "calibrated, steep": lambda p: expit(2 * logit(p) - 1),
    "hardly any errors": lambda p: expit(3 * logit(p) + 2),
    "all just below the goal": lambda p: np.full(len(p), 0.89),
    "a tenth of all are wrong at any probability": lambda p: 0.88 * expit(3 * logit(p)),
    "a step": lambda p: np.where(p > 0.6, 0.96, 0.4),
    "much too confident": lambda p: expit(0.7 * logit(p) - 0.8),
}


def make_table(curve, rng, n=2000):
    """The probabilities of a label's detections, from 0.2, and whether they are right."""
    many_sure = rng.random(n) < 0.5
    probabilities = 0.2 + 0.8 * np.where(many_sure, rng.beta(6, 0.6, n), rng.beta(0.8, 3, n))
    probabilities = np.clip(probabilities, 0.2, 1 - 1e-6)
    return probabilities, rng.random(n) < curve(probabilities)


def draw(probabilities, rng, n=96):
    """The rows and weights of a sample, as spectag check draws it across scores."""
    bands = np.minimum((10 * probabilities).astype(int), 9)
    members = [np.flatnonzero(bands == band) for band in np.unique(bands)]
    sizes = allocate([len(rows) for rows in members], n)
    chosen = [rng.choice(rows, size, replace=False) for rows, size in zip(members, sizes, strict=True)]
    weights = [np.full(size, len(rows) / size) for rows, size in zip(members, sizes, strict=True)]
    return np.concatenate(chosen), np.concatenate(weights)


def plain_threshold(probabilities, weights, is_right):
    """The lowest probability with the wished precision in the sample, which most people would take."""
    order = np.argsort(-probabilities)
    precision = np.cumsum((weights * is_right)[order]) / np.cumsum(weights[order])
    passes = np.flatnonzero(precision >= GOAL)
    return probabilities[order][passes[-1]] if passes.size else None


@cache
def simulate(name, n_samples=50):
    """For both rules, how often the rest of the table misses the goal, and how many right detections are kept."""
    rng = np.random.default_rng(0)
    outcomes = {"plain": [], "checked": []}
    for _ in range(n_samples):
        probabilities, is_right = make_table(CURVES[name], rng)
        rows, weights = draw(probabilities, rng)
        sample = probabilities[rows], weights, is_right[rows].astype(float)
        result = checked_precision(*sample)
        index = result.lowest_index(GOAL)
        thresholds = plain_threshold(*sample), None if index is None else result.thresholds[index]
        is_rest = ~np.isin(np.arange(len(probabilities)), rows)
        for rule, threshold in zip(outcomes, thresholds, strict=True):
            above = probabilities >= (np.inf if threshold is None else threshold)
            misses = (above & is_rest).any() and is_right[above & is_rest].mean() < GOAL
            outcomes[rule].append((misses, is_right[above].sum() / is_right.sum()))
    return {rule: np.mean(values, axis=0) for rule, values in outcomes.items()}


@pytest.mark.parametrize("name", CURVES)
def test_threshold_from_96_checks_reaches_its_precision_on_the_rest_in_nine_of_ten_samples(name):
    n_samples = 150 if name == "all just below the goal" else 50  # the worst case has the most samples
    missed, _ = simulate(name, n_samples)["checked"]
    assert missed <= 0.1


def test_plain_rule_misses_the_precision_in_most_samples():
    """What the confidence is for."""
    missed, _ = simulate("a tenth of all are wrong at any probability")["plain"]
    assert missed > 0.5


@pytest.mark.parametrize(("name", "recall"), [("calibrated, steep", 0.5), ("hardly any errors", 0.85)])
def test_few_right_detections_are_lost_where_the_goal_is_easy(name, recall):
    assert simulate(name)["checked"][1] > recall


def test_estimates_of_a_table_are_close_to_the_truth():
    rng = np.random.default_rng(1)
    probabilities, is_right = make_table(lambda p: expit(2 * logit(p)), rng, n=20_000)
    rows, weights = draw(probabilities, rng, n=1000)
    result = checked_precision(probabilities[rows], weights, is_right[rows])
    for index in (len(result.thresholds) // 2, len(result.thresholds) - 1):
        above = probabilities >= result.thresholds[index]
        assert result.n_detections[index] == pytest.approx(above.sum(), rel=0.05)
        assert result.precision[index] == pytest.approx(is_right[above].mean(), abs=0.03)
        assert result.lower[index] < is_right[above].mean() < result.upper[index]
        assert result.recall[index] == pytest.approx(is_right[above].sum() / is_right.sum(), abs=0.04)
    assert result.n_detections[-1] == pytest.approx(20_000)
    assert result.recall[-1] == pytest.approx(1)


def test_precision_and_its_bounds_rise_with_the_threshold():
    """So that the lowest threshold that passes is not the luckiest of many."""
    rng = np.random.default_rng(2)
    probabilities, is_right = make_table(CURVES["a step"], rng)
    rows, weights = draw(probabilities, rng)
    result = checked_precision(probabilities[rows], weights, is_right[rows])
    for values in (result.thresholds, result.precision, result.lower, result.upper):
        assert (np.diff(values) <= 1e-12).all()
    assert (result.lower < result.precision).all()
    assert (result.precision < result.upper).all()


def test_interval_is_as_narrow_as_wished_after_the_stated_number_of_checks():
    rng = np.random.default_rng(3)

    def check(n):
        return checked_precision(rng.uniform(0.3, 0.9, n), np.full(n, 20), rng.random(n) < 0.8)

    first = check(100)
    assert first.upper[-1] - first.lower[-1] > 0.07
    second = check(100 + first.n_more_checks(-1, 0.05))
    assert second.upper[-1] - second.lower[-1] == pytest.approx(0.05, abs=0.012)
    assert first.n_more_checks(-1, 0.5) == 0


def test_detections_without_a_decision_count_for_the_table_but_not_as_evidence():
    decided = checked_precision([0.9, 0.5, 0.4], [2, 2, 2], [1, 1, 0])
    others = checked_precision([0.9, 0.5, 0.4, 0.3], [2, 2, 2, 5], [1, 1, 0, np.nan])
    assert others.n_checked.tolist() == [1, 2, 3, 3]
    assert others.n_detections.tolist() == [2, 4, 6, 11]
    assert others.precision[:3] == pytest.approx(decided.precision)


def test_lowest_threshold_is_the_lowest_probability_of_the_table():
    assert checked_precision([0.9, 0.5], [3, 3], [1, 1], lowest=0.35).thresholds.tolist() == [0.7, 0.35]


def test_interval_has_about_the_width_of_a_binomial_interval_where_the_probability_says_nothing():
    """Clopper and Pearson's for 58 of 96: 0.534 to 0.670."""
    rng = np.random.default_rng(4)
    result = checked_precision(rng.uniform(0.3, 0.9, 96), np.full(96, 20), rng.permutation(96) < 58)
    assert (result.lower[-1], result.upper[-1]) == (pytest.approx(0.534, abs=0.02), pytest.approx(0.67, abs=0.02))


def test_most_probable_detections_that_are_worse_than_others_are_noticed():
    probabilities = np.linspace(0.1, 0.9, 60)
    assert checked_precision(probabilities, np.full(60, 2), np.arange(60) < 40).is_reversed
    assert not checked_precision(probabilities, np.full(60, 2), np.arange(60) > 20).is_reversed
    assert not checked_precision(probabilities, np.full(60, 2), np.arange(60) % 2).is_reversed


def test_detections_that_are_all_checked_are_counted_not_estimated():
    """By hand: of the first n of 8, in the order of probability, these are right."""
    is_right = [0, 1, 1, 1, 1, 0, 1, 0]
    result = checked_precision(np.linspace(0.9, 0.2, 8), np.ones(8), is_right)
    n_right = np.array([0, 1, 2, 3, 4, 4, 5, 5])
    assert result.is_exact.all()
    for values in (result.lower, result.precision, result.upper):
        assert values.tolist() == (n_right / np.arange(1, 9)).tolist()
    assert result.n_true.tolist() == n_right.tolist()
    assert result.recall == pytest.approx(n_right / 5)
    assert result.lowest_index(0.8) == 4  # 4 of 5; 5 of 7 is less
    assert result.lowest_index(0.81) is None
    assert not result.is_reversed
    assert (result.n_unchecked, result.n_more_checks(-1, 0.01)) == (0, 0)


def test_count_of_a_few_detections_sets_no_threshold():
    few, enough = (
        checked_precision(np.linspace(0.5, 0.9, n), np.ones(n), np.ones(n)) for n in (MIN_COUNTED - 1, MIN_COUNTED)
    )
    assert few.precision[-1] == enough.precision[-1] == 1.0
    assert few.lowest_index(0.9) is None
    assert enough.lowest_index(0.9) == len(enough.thresholds) - 1


def test_only_detections_above_all_unchecked_ones_are_counted():
    scores, is_right = [0.95, 0.92, 0.85, 0.82, 0.5, 0.4], [1, 0, 1, 1, 1, 0]
    weights, upper_ends = [1, 1, 1, 1, 30, 30], [1.0, 1.0, 0.9, 0.9, 0.6, 0.5]
    result = checked_precision(scores, weights, is_right, others_below=upper_ends)
    assert result.is_exact.tolist() == [True] * 4 + [False] * 2
    assert result.precision[:4].tolist() == [1, 1 / 2, 2 / 3, 3 / 4]
    assert result.lower[4] < result.precision[4] < result.upper[4]
    assert (result.n_true[4:] >= 3).all()
    assert (np.diff(result.recall) > -1e-12).all()
    assert result.recall[-1] == pytest.approx(1)
    undecided = checked_precision(scores, weights, [1, 0, np.nan, 1, 1, 0], others_below=upper_ends)
    assert undecided.is_exact.tolist() == [True, True] + [False] * 4
    unknown = checked_precision(scores, weights, is_right)  # the others may be anywhere
    assert not unknown.is_exact.any()


@pytest.mark.parametrize("name", ["all just below the goal", "a step"])
def test_counts_of_a_few_at_the_top_make_no_estimate_below_them_optimistic(name):
    """All sampled detections of the highest score bands are counted, and often right by luck."""
    rng, missed, n_exact = np.random.default_rng(5), [], []
    for _ in range(50):
        probabilities = np.clip(0.2 + 0.8 * rng.beta(1, 2.5, 150), 0.2, 1 - 1e-6)
        is_right = rng.random(150) < CURVES[name](probabilities)
        rows, weights = draw(probabilities, rng)
        upper_ends = (np.floor(10 * probabilities[rows]) + 1) / 10
        upper_ends[upper_ends > 0.95] = np.inf
        result = checked_precision(probabilities[rows], weights, is_right[rows].astype(float), others_below=upper_ends)
        n_exact.append(result.is_exact.sum())
        index = result.lowest_index(GOAL)
        above = probabilities >= (np.inf if index is None else result.thresholds[index])
        missed.append(above.any() and is_right[above].mean() < GOAL)
        counted = [is_right[probabilities >= threshold].mean() for threshold in result.thresholds[result.is_exact]]
        assert result.precision[result.is_exact].tolist() == counted
    assert np.mean(n_exact) > 5
    assert np.mean(missed) <= 0.1


def test_more_checks_are_at_most_those_that_are_left():
    result = checked_precision([0.9, 0.5, 0.3], [2, 2, 2], [1, 0, 1])
    assert result.n_unchecked == result.n_more_checks(-1, 0.01) == 3


@pytest.mark.parametrize(
    ("probabilities", "weights", "is_right", "problem"),
    [
        ([0.5], [1, 2], [1], r"\(1,\), \(2,\) and \(1,\)"),
        ([1.5], [1], [1], "from 0 to 1"),
        ([0.5], [0], [1], "weights above 0"),
        ([0.5], [1], [0.5], "1 .right., 0 .wrong. or NaN"),
        ([0.5], [1], [np.nan], "at least one"),
    ],
)
def test_impossible_arrays_are_refused(probabilities, weights, is_right, problem):
    with pytest.raises(ValueError, match=problem):
        checked_precision(probabilities, weights, is_right)
