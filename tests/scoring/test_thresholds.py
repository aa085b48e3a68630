"""Thresholds that reach a goal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spectag.scoring.metrics import best_thresholds
from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds

TRUTH = np.array([1, 0, 1, 1, 0, 1], bool)[:, None]
SAID = np.array([0.9, 0.8, 0.7, 0.5, 0.3, 0.1])[:, None]

clips = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=30).map(
    lambda pairs: (np.array([[truth] for truth, _ in pairs]), np.array([[said / 10] for _, said in pairs]))
)
shares = st.integers(1, 20).map(lambda twentieths: twentieths / 20)


def shares_of(truth, said, threshold):
    given_it = said >= threshold
    hits = (truth & given_it).sum()
    return hits / given_it.sum(), hits / truth.sum()


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
def test_goals_worked_out_by_hand(kind, at_least, threshold):
    [found] = fit_thresholds(TRUTH, SAID, ThresholdGoal(kind=kind, at_least=at_least))
    assert found == pytest.approx(threshold)


def test_the_best_f1_is_that_of_the_metrics(rng):
    truth, said = rng.random((50, 4)) < 0.3, rng.random((50, 4))
    np.testing.assert_array_equal(fit_thresholds(truth, said), best_thresholds(truth, said))


@given(clips, shares)
def test_precision_is_reached_by_the_lowest_threshold_that_can_or_is_the_greatest_there_is(clips, at_least):
    truth, said = clips
    [threshold] = fit_thresholds(truth, said, ThresholdGoal(kind="precision", at_least=at_least), min_positives=1)
    if not 0 < truth.sum() < len(truth):
        assert np.isnan(threshold)
        return
    precisions = {value: shares_of(truth, said, value)[0] for value in np.unique(said)}
    good = [value for value, precision in precisions.items() if precision >= min(at_least, max(precisions.values()))]
    np.testing.assert_array_equal(said >= threshold, said >= min(good))


@given(clips, shares)
def test_recall_is_reached_by_the_highest_threshold_that_can(clips, at_least):
    truth, said = clips
    [threshold] = fit_thresholds(truth, said, ThresholdGoal(kind="recall", at_least=at_least), min_positives=1)
    if not 0 < truth.sum() < len(truth):
        assert np.isnan(threshold)
        return
    good = [value for value in np.unique(said) if shares_of(truth, said, value)[1] >= at_least]
    np.testing.assert_array_equal(said >= threshold, said >= max(good))


def test_a_label_of_too_few_clips_has_no_threshold():
    truth, said = np.repeat(TRUTH, 2, axis=1), np.repeat(SAID, 2, axis=1)
    truth[3:, 1] = False  # two are left
    found = fit_thresholds(truth, said, ThresholdGoal(kind="recall", at_least=0.5))
    assert np.isnan(found).tolist() == [False, True]


def test_a_share_without_a_goal_for_it_or_a_goal_without_its_share_is_refused():
    with pytest.raises(ValidationError, match="kind f1 needs no at_least"):
        ThresholdGoal(at_least=0.5)
    with pytest.raises(ValidationError, match="kind recall needs at_least"):
        ThresholdGoal(kind="recall")
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        ThresholdGoal(kind="recall", at_least=1.5)


def test_goals_say_what_they_are():
    assert str(ThresholdGoal()) == "the best F1"
    assert str(ThresholdGoal(kind="precision", at_least=0.9)) == "a precision of at least 0.9"


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(6, 1\) and \(3, 1\)"):
        fit_thresholds(TRUTH, SAID[:3], ThresholdGoal(kind="recall", at_least=0.5))
