import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import expit, logit
from scipy.stats import binomtest, norm
from sklearn.metrics import f1_score

from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds, fit_to_goal, fit_window_thresholds

TRUTH = np.array([1, 0, 1, 1, 0, 1], bool)[:, None]
PROBABILITIES = np.array([0.9, 0.8, 0.7, 0.5, 0.3, 0.1])[:, None]

clips = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=30).map(
    lambda pairs: (np.array([[truth] for truth, _ in pairs]), np.array([[tenths / 10] for _, tenths in pairs]))
)
fractions = st.integers(1, 20).map(lambda twentieths: twentieths / 20)


PRECISION, RECALL = ThresholdGoal(kind="precision", at_least=0.9), ThresholdGoal(kind="recall", at_least=0.9)


def two_scores(n_right, n_wrong, n_below_with_label):
    """Clips with the score 0.9, right or wrong, and below them clips with the score 0.1, as many without the label."""
    truth = [True] * n_right + [False] * n_wrong + [True] * n_below_with_label + [False] * (n_right + n_wrong)
    scores = [0.9] * (n_right + n_wrong) + [0.1] * (n_below_with_label + n_right + n_wrong)
    return np.array(truth)[:, None], np.array(scores)[:, None]


def lower_bound(n_right, n, confidence):
    return binomtest(n_right, n).proportion_ci(2 * confidence - 1, method="exact").low  # one-sided


@pytest.mark.parametrize(
    ("n_right", "n_wrong", "reaches"), [(21, 0, False), (22, 0, True), (36, 1, False), (37, 1, True), (49, 2, False)]
)
def test_detections_that_show_a_precision_of_90_percent_with_90_percent_confidence(n_right, n_wrong, reaches):
    """As in tables of acceptance sampling: 22 without an error, 38 with one, 52 with two."""
    fitted = fit_to_goal(*two_scores(n_right, n_wrong, 0), PRECISION)
    assert (fitted.thresholds.tolist(), fitted.reaches_goal.tolist()) == ([0.5], [reaches])


def test_number_of_recordings_needed_is_known_from_acceptance_sampling():
    assert PRECISION.n_recordings_needed == 22
    assert ThresholdGoal(kind="recall", at_least=0.95, confidence=0.95).n_recordings_needed == 59
    assert ThresholdGoal(kind="precision", at_least=1).n_recordings_needed == np.inf


@given(st.integers(3, 60), st.integers(0, 6), st.integers(50, 99).map(lambda n: n / 100), st.sampled_from([0.8, 0.9]))
def test_goals_are_reached_where_the_bound_of_clopper_and_pearson_reaches_them(n_right, n_other, confidence, at_least):
    bound = lower_bound(n_right, n_right + n_other, confidence)
    assume(abs(bound - at_least) > 1e-9)
    for kind, clips in (
        ("precision", two_scores(n_right, n_other, 0)),
        ("recall", two_scores(n_right, 0, n_other)),
    ):
        goal = ThresholdGoal(kind=kind, at_least=at_least, confidence=confidence)
        fitted = fit_to_goal(*clips, goal)
        is_reached_by_all_clips = kind == "recall" and lower_bound(n_right + n_other, n_right + n_other, confidence)
        if bound >= at_least:
            assert (fitted.thresholds.tolist(), fitted.reaches_goal.tolist()) == ([0.5], [True])
        else:
            assert fitted.reaches_goal[0] == (is_reached_by_all_clips >= at_least)


SEPARATION, FREQUENCY = 3.0, 0.3


def precision_and_recall(score):
    """Of all clips above a score that is normal, with a mean of 0 or, with the label, of `SEPARATION`."""
    with_label, without = FREQUENCY * norm.sf(score - SEPARATION), (1 - FREQUENCY) * norm.sf(score)
    return with_label / (with_label + without), norm.sf(score - SEPARATION)


def draw_fits(rng, n_clips, n_fits=200):
    """Truth and probabilities of as many labels as fits; the probabilities are the true ones."""
    truth = rng.random((n_clips, n_fits)) < FREQUENCY
    scores = rng.normal(size=truth.shape) + SEPARATION * truth
    return truth, expit(SEPARATION * scores - SEPARATION**2 / 2 + logit(FREQUENCY))


def scores_at(probabilities):
    return (logit(probabilities) - logit(FREQUENCY) + SEPARATION**2 / 2) / SEPARATION


@pytest.mark.parametrize("n_clips", [100, 400, 2000])
@pytest.mark.parametrize("kind", ["precision", "recall"])
def test_new_clips_reach_the_goal_in_90_percent_of_fits(rng, kind, n_clips):
    """The lowest threshold with a precision of 0.9 on the clips of a fit misses it on new ones in half of the fits."""
    fitted = fit_to_goal(*draw_fits(rng, n_clips), ThresholdGoal(kind=kind, at_least=0.9))
    precision, recall = precision_and_recall(scores_at(fitted.thresholds))
    reached = (precision if kind == "precision" else recall) >= 0.9
    assert reached[fitted.reaches_goal].mean() >= 0.9
    assert fitted.reaches_goal.mean() > (0.95 if n_clips > 100 else 0.3)
    assert recall.mean() > (0.6 if kind == "precision" else 0.9)


def test_precision_just_below_the_goal_is_stated_as_reached_in_at_most_10_percent_of_fits(rng):
    """The worst case for a search among many thresholds: all of them have a precision of 0.89."""
    scores = np.tile(np.linspace(0.999, 0.8, 300)[:, None], 400)
    truth = rng.random(scores.shape) < 0.89
    assert fit_to_goal(truth, scores, PRECISION).reaches_goal.mean() <= 0.1
    lowest = np.cumsum(truth, axis=0) >= 0.9 * np.arange(1, 301)[:, None]
    assert lowest[22:].any(axis=0).mean() > 0.7  # by the precision on these clips


@pytest.mark.parametrize("goal", [PRECISION, RECALL])
def test_clips_of_a_recording_count_as_one(goal):
    """Five alike of each of 21 recordings show as little as one of each."""
    for n_recordings, reaches in ((21, False), (22, True)):
        copies = [np.repeat(each, 5, axis=0) for each in two_scores(n_recordings, 0, 0)]
        recordings = [f"recording {i}" for i in np.repeat(np.arange(2 * n_recordings), 5)]
        assert fit_to_goal(*copies, goal, groups=recordings).reaches_goal.tolist() == [reaches]
        assert fit_to_goal(*copies, goal).reaches_goal.tolist() == [True]


@given(clips, fractions)
def test_threshold_for_a_precision_is_below_the_one_of_best_f1_only_if_asked(clips, at_least):
    truth, probabilities = clips
    goal = ThresholdGoal(kind="precision", at_least=at_least, confidence=0.6)
    fitted, best_f1 = (fit_thresholds(truth, probabilities, each, min_positives=1) for each in (goal, ThresholdGoal()))
    assert np.isnan(fitted) or fitted >= best_f1
    below = fit_thresholds(truth, probabilities, goal.model_copy(update={"below_f1": True}), min_positives=1)
    assert np.isnan(fitted) or below <= fitted or not fit_to_goal(truth, probabilities, goal).reaches_goal


def test_threshold_below_best_f1_detects_more():
    scores = np.linspace(0.99, 0.01, 300)[:, None]
    truth = (np.arange(300) < 100)[:, None]
    low = ThresholdGoal(kind="precision", at_least=0.5)
    below_f1 = low.model_copy(update={"below_f1": True})
    n_detected = [(scores >= fit_thresholds(truth, scores, goal)).sum() for goal in (ThresholdGoal(), low, below_f1)]
    assert n_detected[:2] == [100, 100]
    assert 170 < n_detected[2] < 200


def test_missed_precision_gets_the_threshold_that_is_closest_to_passing():
    """Ten right detections come closer to showing 0.9 than fifteen, of which three are wrong."""
    truth = np.array([1] * 10 + [0, 1, 0, 1, 0] + [0] * 20, bool)[:, None]
    scores = np.linspace(0.99, 0.01, 35)[:, None]
    fitted = fit_to_goal(truth, scores, PRECISION)
    assert (scores >= fitted.thresholds).sum() == 10
    assert not fitted.reaches_goal.any()


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


def test_label_with_too_few_clips_has_no_threshold():
    truth, probabilities = np.repeat(TRUTH, 2, axis=1), np.repeat(PROBABILITIES, 2, axis=1)
    truth[3:, 1] = False  # two are left
    fitted = fit_thresholds(truth, probabilities, ThresholdGoal(kind="recall", at_least=0.5))
    assert np.isnan(fitted).tolist() == [False, True]


@pytest.mark.parametrize(("kind", "threshold"), [("recall", 0.35), ("precision", 0.65)])
def test_recall_or_precision_of_1_takes_the_best_threshold_although_no_number_of_clips_shows_it(kind, threshold):
    """All clips with the label have a score above 0.35, and only such clips one above 0.65."""
    truth, probabilities = [[1], [1], [1], [0], [1], [0]], [[0.9], [0.8], [0.7], [0.6], [0.4], [0.3]]
    fitted = fit_to_goal(truth, probabilities, ThresholdGoal(kind=kind, at_least=1))
    assert fitted.thresholds == pytest.approx([threshold])
    assert not fitted.reaches_goal


def test_goal_needs_the_precision_or_recall_to_reach():
    with pytest.raises(ValidationError, match="kind f1 needs no at_least"):
        ThresholdGoal(at_least=0.5)
    with pytest.raises(ValidationError, match="kind recall needs at_least"):
        ThresholdGoal(kind="recall")
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        ThresholdGoal(kind="recall", at_least=1.5)


def test_goals_have_a_description():
    assert str(ThresholdGoal()) == "the best F1"
    assert str(ThresholdGoal(kind="precision", at_least=0.9)) == "a precision of at least 0.9 with 90 % confidence"


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(6, 1\) and \(3, 1\)"):
        fit_thresholds(TRUTH, PROBABILITIES[:3], ThresholdGoal(kind="recall", at_least=0.5))
    with pytest.raises(ValueError, match="need a group for each of the 6 clips, got 2"):
        fit_thresholds(TRUTH, PROBABILITIES, groups=["a", "b"])


def test_window_thresholds_ignore_windows_of_a_clip_that_are_far_below_its_best_one():
    """Half of the largest probability and more are positives: 0.9 and 0.5, not 0.4."""
    y_true, clips = [[1], [1], [1], [0]], np.array([0, 0, 0, 1, 2, 3, 3])
    probabilities = [[0.9], [0.5], [0.4], [0.8], [0.7], [0.45], [0.1]]
    [threshold] = fit_window_thresholds(y_true, probabilities, clips)
    assert threshold == pytest.approx((0.5 + 0.45) / 2)


def test_window_thresholds_of_clips_without_windows_are_those_of_clips(rng):
    y_true = rng.random((60, 4)) < 0.3
    probabilities = np.clip(0.3 * y_true + 0.7 * rng.random(y_true.shape), 0, 1)
    np.testing.assert_array_equal(
        fit_window_thresholds(y_true, probabilities, np.arange(60)), fit_thresholds(y_true, probabilities)
    )


def test_window_thresholds_need_clips_rather_than_windows_and_leave_unknown_labels_out():
    clips = np.array([0, 0, 0, 1, 1, 2])
    two_clips, unknown = [[1.0], [1.0], [0.0]], [[1.0], [np.nan], [0.0]]
    probabilities = np.array([[0.9], [0.9], [0.8], [0.9], [0.9], [0.1]])
    assert np.isnan(fit_window_thresholds(two_clips, probabilities, clips)).all()
    assert fit_window_thresholds(two_clips, probabilities, clips, min_positives=2) == pytest.approx(0.45)
    assert np.isnan(fit_window_thresholds(unknown, probabilities, clips, min_positives=2)).all()
