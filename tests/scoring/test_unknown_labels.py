"""NaN in y_true is an unknown label: no score, threshold or calibration depends on what is predicted for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.scoring.blending import fit_ensemble_weights
from spectag.scoring.bootstrap import Resampling
from spectag.scoring.calibration import cross_fit, fit_calibration
from spectag.scoring.calibration_curves import fit_lines
from spectag.scoring.metrics import average_precision, lwlrap, roc_auc, selection_score, top1_accuracy
from spectag.scoring.reliability_diagram import calibration_errors, log_loss, reliability
from spectag.scoring.scores import score_predictions
from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds

N_CLIPS, N_LABELS = 60, 4
NAN = np.nan


def example(seed: int):
    """Truth with unknown labels, and scores, (n_clips, n_labels)."""
    rng = np.random.default_rng(seed)
    y_true = (rng.random((N_CLIPS, N_LABELS)) < 0.4).astype(float)
    y_score = np.clip(rng.normal(0.3 + 0.3 * y_true, 0.2), 0.01, 0.99)
    y_true[rng.random(y_true.shape) < 0.3] = NAN
    return y_true, y_score


def with_other_scores(y_true, y_score, seed: int):
    """The scores, with other ones where the truth is unknown."""
    return np.where(np.isnan(y_true), np.random.default_rng(seed).random(y_score.shape), y_score)


def test_an_unknown_label_is_left_out_of_the_ranking_of_its_clip():
    scores = [[0.9, 0.8, 0.7]]
    assert lwlrap([[0, 0, 1]], scores) == pytest.approx(1 / 3)
    assert lwlrap([[NAN, 0, 1]], scores) == pytest.approx(1 / 2)
    assert np.isnan(lwlrap([[NAN, NAN, 1]], scores))  # nothing is known to be absent
    assert selection_score([[NAN, 0, 1]], scores) == pytest.approx(1 / 2)
    assert top1_accuracy([[NAN, 1, 0]], scores) == 1


@pytest.mark.parametrize("y_true", [[[2, 1]], [[True, None]], [["a", "b"]], [[np.inf, 1]]])
def test_truth_must_be_0_1_or_nan(y_true):
    with pytest.raises(ValueError, match=r"only 0 and 1.* NaN for unknown labels"):
        lwlrap(y_true, [[0.5, 0.6]])


@pytest.mark.parametrize("seed", range(5))
def test_the_scores_of_a_label_are_those_of_the_clips_where_it_is_known(seed):
    y_true, y_score = example(seed)
    scores = score_predictions(y_true, y_score, range(N_CLIPS), resampling=Resampling(n_resamples=0))
    metrics = {"average_precision": average_precision, "roc_auc": roc_auc}
    for label in range(N_LABELS):
        known = ~np.isnan(y_true[:, label])
        truth, predicted = y_true[known][:, [label]], y_score[known][:, [label]]
        alone = score_predictions(truth, predicted, range(known.sum()), resampling=Resampling(n_resamples=0))
        for name in ("average_precision", "roc_auc", "f1", "precision", "recall"):
            assert scores.per_label[name][label].value == pytest.approx(alone.per_label[name][0].value, abs=1e-12)
        for name, metric in metrics.items():
            assert metric(y_true, y_score)[label] == pytest.approx(metric(truth, predicted)[0], abs=1e-12)
            assert scores.per_label[name][label].value == pytest.approx(metric(truth, predicted)[0], abs=1e-12)
        assert scores.n_clips_per_label[label] == truth.sum()


@given(st.integers(0, 10_000))
def test_no_score_depends_on_what_is_predicted_for_an_unknown_label(seed):
    y_true, y_score = example(seed)
    others = with_other_scores(y_true, y_score, seed)
    first, second = (
        score_predictions(y_true, scores, range(N_CLIPS), resampling=Resampling(n_resamples=20))
        for scores in (y_score, others)
    )
    assert str(first.overall) == str(second.overall)  # NaN is not equal to NaN
    assert str(first.per_label) == str(second.per_label)
    assert lwlrap(y_true, y_score) == lwlrap(y_true, others) == pytest.approx(first.lwlrap, abs=1e-12)


def test_intervals_count_the_recordings_in_which_a_label_is_known():
    y_true, y_score = np.ones((20, 2)), np.full((20, 2), 0.9)
    y_true[:10], y_score[:10] = 0, 0.1
    all_known = score_predictions(y_true, y_score, range(20)).per_label["roc_auc"]
    y_true[2:10, 0] = NAN
    two_absent = score_predictions(y_true, y_score, range(20)).per_label["roc_auc"]
    assert two_absent[0].low < all_known[0].low  # rests on two recordings instead of ten
    assert two_absent[1] == all_known[1]


@pytest.mark.parametrize("goal", [ThresholdGoal(), ThresholdGoal(kind="recall", at_least=0.6)])
def test_a_threshold_is_fitted_on_the_clips_where_the_label_is_known(goal):
    y_true, y_score = example(1)
    thresholds = fit_thresholds(y_true, y_score, goal)
    for label in range(N_LABELS):
        known = ~np.isnan(y_true[:, label])
        alone = fit_thresholds(y_true[known][:, [label]], y_score[known][:, [label]], goal)
        assert thresholds[label] == alone[0]


def test_a_line_is_fitted_on_the_clips_where_the_label_is_known(rng):
    truth = (rng.random((200, 2)) < 0.4).astype(float)
    logits = 3 * truth - 2 + rng.normal(size=truth.shape)
    truth[50:, 1] = NAN
    penalties = {"scale_l2_penalty": 1.0, "offset_l2_penalty": 1.0}
    scales, offsets = fit_lines(logits, truth, with_offset=True, **penalties)
    [scale], [offset] = fit_lines(logits[:50, [1]], truth[:50, [1]], with_offset=True, **penalties)
    assert (scales[1], offsets[1]) == (pytest.approx(scale), pytest.approx(offset))


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic", "auto"])
def test_calibration_does_not_depend_on_the_logits_of_unknown_labels(method, rng):
    truth = (rng.random((500, 2)) < 0.5).astype(float)
    logits = 3 * (truth - 0.5) + rng.normal(size=truth.shape)
    truth[rng.random(truth.shape) < 0.3] = NAN
    others = np.where(np.isnan(truth), 10.0, logits)
    folds = np.arange(500) % 5
    first, second = (fit_calibration(z, truth, method=method, folds=folds) for z in (logits, others))
    assert first == second
    first, second = (cross_fit(z, truth, folds, method=method) for z in (logits, others))
    known = ~np.isnan(truth)
    np.testing.assert_array_equal(first.probabilities[known], second.probabilities[known])
    np.testing.assert_array_equal(first.thresholds, second.thresholds)


def test_an_unknown_label_adds_nothing_to_calibration_errors():
    y_true, probabilities = [[1, NAN], [0, 1]], [[0.75, 0.9], [0.25, 0.5]]
    assert calibration_errors(y_true, probabilities).tolist() == [0.25, 0.5]
    assert log_loss(y_true, probabilities) == pytest.approx((-2 * np.log(0.75) - np.log(0.5)) / 3)
    assert reliability(y_true, probabilities).n.sum() == 3


def test_the_weights_of_an_ensemble_do_not_depend_on_how_unknown_labels_end(rng):
    y_true = (rng.random((80, 3)) < 0.4).astype(float)
    members = [4 * y_true + rng.normal(size=y_true.shape), y_true + rng.normal(size=y_true.shape)]
    partly = np.where(rng.random(y_true.shape) < 0.4, NAN, y_true)
    ends = [fit_ensemble_weights(members, np.where(np.isnan(partly), value, partly)) for value in (0, 1)]
    weights = fit_ensemble_weights(members, partly)
    assert weights.weights[0] > weights.weights[1]
    assert all(weights != other for other in ends)
    assert weights.weights == pytest.approx(fit_ensemble_weights(members, y_true).weights, rel=0.3)


def test_a_clip_whose_other_labels_are_all_unknown_does_not_raise_lwlrap():
    """Any scores of such a clip would be right."""
    y_true, y_score = [[1, 0, 0], [0, 1, 0], [1, NAN, NAN]], [[0.9, 0.1, 0.5], [0.8, 0.3, 0.1], [0.1, 0.9, 0.2]]
    assert lwlrap(y_true, y_score) == lwlrap(y_true[:2], y_score[:2]) == 0.75
    none = Resampling(n_resamples=0)
    both = (score_predictions(np.array(y_true[:n]), np.array(y_score[:n]), range(n), resampling=none) for n in (3, 2))
    [with_clip, without] = (scores.overall["lwlrap"].value for scores in both)
    assert with_clip == without == 0.75
