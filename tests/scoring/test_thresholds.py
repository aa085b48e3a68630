import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import f1_score

from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds

TRUTH = np.array([1, 0, 1, 1, 0, 1], bool)[:, None]
PROBABILITIES = np.array([0.9, 0.8, 0.7, 0.5, 0.3, 0.1])[:, None]

clips = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=30).map(
    lambda pairs: (np.array([[truth] for truth, _ in pairs]), np.array([[tenths / 10] for _, tenths in pairs]))
)
fractions = st.integers(1, 20).map(lambda twentieths: twentieths / 20)


def precision_and_recall(truth, probabilities, threshold):
    detected = probabilities >= threshold
    hits = (truth & detected).sum()
    return hits / detected.sum(), hits / truth.sum()


@pytest.mark.parametrize(
    ("kind", "at_least", "threshold"),
    [
        ("precision", 0.75, 0.4),  # of the upper four, three are true; of all six, four
        ("precision", 0.7, 0.4),
        ("precision", 0.6, 0.1),
        ("precision", 1.0, 0.85),
        ("recall", 0.25, 0.85),
        ("recall", 0.5, 0.6),
        ("recall", 0.75, 0.4),
        ("recall", 0.76, 0.1),
    ],
)
def test_goals_computed_by_hand(kind, at_least, threshold):
    [fitted] = fit_thresholds(TRUTH, PROBABILITIES, ThresholdGoal(kind=kind, at_least=at_least))
    assert fitted == pytest.approx(threshold)


@given(clips, st.integers(0, 2**32 - 1))
def test_no_threshold_has_a_better_f1_than_the_fitted_one(clips, seed):
    truth, probabilities = clips
    [fitted] = fit_thresholds(truth, probabilities, min_positives=1)
    if not truth.any() or truth.all():
        assert np.isnan(fitted)
        return
    best = f1_score(truth, probabilities >= fitted)
    others = [*np.unique(probabilities), *np.random.default_rng(seed).random(5)]
    assert all(f1_score(truth, probabilities >= other) <= best for other in others)


def test_threshold_lies_midway_between_neighbouring_scores():
    truth, probabilities = [[1], [1], [1], [0], [0]], [[0.9], [0.8], [0.7], [0.3], [0.1]]
    assert fit_thresholds(truth, probabilities) == pytest.approx([0.5])


def test_threshold_separates_two_neighbouring_floats():
    low, high = 0.3, np.nextafter(0.3, 1)
    assert fit_thresholds([[1], [0]], [[high], [low]], min_positives=1) == [high]


def test_threshold_below_every_clip_is_the_lowest_score():
    assert fit_thresholds([[1], [0], [1], [1]], [[0.9], [0.8], [0.7], [0.6]]) == [0.6]


def test_labels_with_too_few_positives_or_no_negative_get_no_threshold():
    y_true = np.array([[1, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]])
    y_score = np.linspace(0.9, 0.1, 16).reshape(4, 4)
    assert np.isnan(fit_thresholds(y_true, y_score)).tolist() == [True, False, True, True]
    assert np.isnan(fit_thresholds(y_true, y_score, min_positives=0)).tolist() == [False, False, True, True]


@given(clips, fractions)
def test_precision_goal_gives_the_lowest_threshold_that_reaches_it_or_the_greatest_precision(clips, at_least):
    truth, probabilities = clips
    goal = ThresholdGoal(kind="precision", at_least=at_least)
    [threshold] = fit_thresholds(truth, probabilities, goal, min_positives=1)
    if not 0 < truth.sum() < len(truth):
        assert np.isnan(threshold)
        return
    precisions = {value: precision_and_recall(truth, probabilities, value)[0] for value in np.unique(probabilities)}
    good = [value for value, precision in precisions.items() if precision >= min(at_least, max(precisions.values()))]
    np.testing.assert_array_equal(probabilities >= threshold, probabilities >= min(good))


@given(clips, fractions)
def test_recall_goal_gives_the_highest_threshold_that_reaches_it(clips, at_least):
    truth, probabilities = clips
    goal = ThresholdGoal(kind="recall", at_least=at_least)
    [threshold] = fit_thresholds(truth, probabilities, goal, min_positives=1)
    if not 0 < truth.sum() < len(truth):
        assert np.isnan(threshold)
        return
    good = [
        value for value in np.unique(probabilities) if precision_and_recall(truth, probabilities, value)[1] >= at_least
    ]
    np.testing.assert_array_equal(probabilities >= threshold, probabilities >= max(good))


def test_label_with_too_few_clips_has_no_threshold():
    truth, probabilities = np.repeat(TRUTH, 2, axis=1), np.repeat(PROBABILITIES, 2, axis=1)
    truth[3:, 1] = False  # two are left
    fitted = fit_thresholds(truth, probabilities, ThresholdGoal(kind="recall", at_least=0.5))
    assert np.isnan(fitted).tolist() == [False, True]


def test_goal_needs_the_precision_or_recall_to_reach():
    with pytest.raises(ValidationError, match="kind f1 needs no at_least"):
        ThresholdGoal(at_least=0.5)
    with pytest.raises(ValidationError, match="kind recall needs at_least"):
        ThresholdGoal(kind="recall")
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        ThresholdGoal(kind="recall", at_least=1.5)


def test_goals_have_a_description():
    assert str(ThresholdGoal()) == "the best F1"
    assert str(ThresholdGoal(kind="precision", at_least=0.9)) == "a precision of at least 0.9"


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(6, 1\) and \(3, 1\)"):
        fit_thresholds(TRUTH, PROBABILITIES[:3], ThresholdGoal(kind="recall", at_least=0.5))
