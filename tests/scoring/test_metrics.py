import doctest
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from spectag.scoring import metrics
from spectag.scoring.metrics import (
    average_precision,
    best_thresholds,
    bootstrap_interval,
    d_prime,
    f1_scores,
    lwlrap,
    lwlrap_per_label,
    roc_auc,
    top1_accuracy,
)
from spectag.scoring.scores import score

ALL_METRICS = [lwlrap, lwlrap_per_label, average_precision, roc_auc, f1_scores, best_thresholds, top1_accuracy, score]


@st.composite
def predictions(draw):
    """Truth and scores of a few clips; scores of few different values, so that many are tied."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 8)))
    y_true = draw(arrays(bool, shape))
    y_score = draw(arrays(float, shape, elements=st.sampled_from([-1e3, 0.0, 0.1, 0.5, 0.5000001, 1.0, 7.0])))
    return y_true, y_score


def sklearn_lwlrap(y_true, y_score):
    return label_ranking_average_precision_score(y_true, y_score, sample_weight=y_true.sum(axis=1))


def sample(rng, *, n_clips=200, n_labels=12, share=0.2):
    return rng.random((n_clips, n_labels)) < share, rng.random((n_clips, n_labels))


def test_lwlrap_equals_sklearn_lrap_weighted_by_label_count(rng):
    y_true, y_score = sample(rng)
    assert not y_true.any(axis=1).all()  # some clips have no label
    assert lwlrap(y_true, y_score) == pytest.approx(sklearn_lwlrap(y_true, y_score), abs=1e-12)


@given(predictions())
def test_lwlrap_equals_sklearn_with_ties(drawn):
    y_true, y_score = drawn
    y_true[0, 0] = True
    assert lwlrap(y_true, y_score) == pytest.approx(sklearn_lwlrap(y_true, y_score), abs=1e-12)


def test_lwlrap_is_the_same_when_the_clips_are_ranked_in_several_batches(rng, monkeypatch):
    y_true, y_score = sample(rng)
    at_once = lwlrap(y_true, y_score)
    monkeypatch.setattr(metrics, "_SCORES_AT_ONCE", 50)
    assert lwlrap(y_true, y_score) == at_once
    assert average_precision(y_true, y_score) == pytest.approx(
        [average_precision_score(truth, scores) for truth, scores in zip(y_true.T, y_score.T, strict=True)], abs=1e-12
    )


def test_lwlrap_worked_by_hand():
    # Clip 1: Bark first (1/1), Knock third after one other (2/3). Clip 2: Rain second (1/2). Mean of the three.
    y_true = np.array([[1, 1, 0], [0, 0, 1]])
    y_score = np.array([[0.9, 0.2, 0.5], [0.1, 0.3, 0.2]])
    assert lwlrap(y_true, y_score) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize("n_labels", [1, 2, 10])
def test_equal_scores_give_every_label_the_worst_rank(n_labels):
    assert lwlrap(np.eye(n_labels), np.zeros((n_labels, n_labels))) == pytest.approx(1 / n_labels)


def test_clips_without_labels_do_not_count(rng):
    y_true, y_score = sample(rng)
    labelled = y_true.any(axis=1)
    assert lwlrap(y_true, y_score) == lwlrap(y_true[labelled], y_score[labelled])


def test_scores_scaled_or_shifted_rank_the_same(rng):
    y_true, y_score = sample(rng)
    logits = np.log(y_score) - np.log1p(-y_score)
    for metric in (lwlrap, average_precision, roc_auc):
        assert np.array_equal(metric(y_true, y_score), metric(y_true, logits))
        assert np.array_equal(metric(y_true, y_score), metric(y_true, 7 * y_score - 100))


def test_per_label_values_and_their_weights_give_the_overall_lwlrap(rng):
    y_true, y_score = sample(rng)
    y_true[:, 3] = False
    values, weights = lwlrap_per_label(y_true, y_score)
    assert np.isnan(values).tolist() == [label == 3 for label in range(12)]
    assert weights.sum() == pytest.approx(1)
    assert np.nansum(values * weights) == pytest.approx(lwlrap(y_true, y_score), abs=1e-12)


def test_lwlrap_of_one_label_is_its_mean_precision_over_its_clips(rng):
    y_true, y_score = sample(rng, n_clips=30)
    by_hand = []
    for truth, scores in zip(y_true, y_score, strict=True):
        if truth[4]:
            above = scores >= scores[4]
            by_hand.append(truth[above].mean())
    assert lwlrap_per_label(y_true, y_score)[0][4] == pytest.approx(np.mean(by_hand), abs=1e-12)


@given(predictions())
def test_average_precision_equals_sklearn_and_is_nan_without_a_positive(drawn):
    y_true, y_score = drawn
    for truth, scores, found in zip(y_true.T, y_score.T, average_precision(y_true, y_score), strict=True):
        if truth.any():
            assert found == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        else:
            assert np.isnan(found)


@given(predictions())
def test_roc_auc_equals_sklearn_and_is_nan_with_one_class_only(drawn):
    y_true, y_score = drawn
    for truth, scores, found in zip(y_true.T, y_score.T, roc_auc(y_true, y_score), strict=True):
        if truth.any() and not truth.all():
            assert found == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        else:
            assert np.isnan(found)


def test_d_prime_is_the_distance_of_two_normal_distributions(rng):
    distance = 1.5
    scores = np.concatenate([rng.normal(size=20_000), rng.normal(distance, size=20_000)])[:, np.newaxis]
    truth = np.arange(40_000)[:, np.newaxis] >= 20_000
    assert d_prime(roc_auc(truth, scores)[0]) == pytest.approx(distance, abs=0.03)


def test_d_prime_equals_its_formula_and_reaches_infinity_at_one():
    for auc in (0.1, 0.5, 0.959):
        assert d_prime(auc) == pytest.approx(math.sqrt(2) * norm.ppf(auc), abs=1e-12)
    assert d_prime(1.0) == math.inf
    assert d_prime(0.0) == -math.inf
    assert math.isnan(d_prime(math.nan))
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1.2"):
        d_prime(1.2)


@given(predictions(), st.sampled_from([0.5, 0.1, 0.7]))
def test_f1_equals_sklearn(drawn, threshold):
    y_true, y_score = drawn
    given_tags, found = y_score >= threshold, f1_scores(y_true, y_score, thresholds=threshold)

    def expected(average):
        # With one label, sklearn would take the table for a binary problem: a second, empty label prevents it.
        pad = np.zeros((len(y_true), 1), bool)
        table = np.hstack([y_true, pad]), np.hstack([given_tags, pad])
        return f1_score(*table, average=average, zero_division=np.nan)

    assert found.per_label == pytest.approx(expected(None)[:-1], abs=1e-12, nan_ok=True)
    assert found.micro == pytest.approx(expected("micro"), abs=1e-12, nan_ok=True)
    if (y_true | given_tags).any():
        assert found.macro == pytest.approx(expected("macro"), abs=1e-12)
    else:
        assert np.isnan(found.macro)


def test_each_label_has_its_own_threshold(rng):
    y_true, y_score = sample(rng)
    thresholds = rng.random(12)
    found = f1_scores(y_true, y_score, thresholds=thresholds)
    assert found.per_label[5] == f1_scores(y_true, y_score, thresholds=thresholds[5]).per_label[5]
    assert found.macro == pytest.approx(f1_score(y_true, y_score >= thresholds, average="macro"), abs=1e-12)


def test_each_score_may_have_its_own_threshold(rng):
    y_true, y_score = sample(rng)
    thresholds = rng.random(y_score.shape)
    found = f1_scores(y_true, y_score, thresholds=thresholds)
    expected = f1_score(y_true, y_score >= thresholds, average=None)
    np.testing.assert_allclose(found.per_label, expected, atol=1e-12)


def test_thresholds_that_do_not_fit_are_refused(rng):
    y_true, y_score = sample(rng)
    with pytest.raises(ValueError, match=r"of shape \(12,\) or \(\d+, 12\), got \(3,\)"):
        f1_scores(y_true, y_score, thresholds=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="a threshold is NaN: give a default"):
        f1_scores(y_true, y_score, thresholds=np.nan)


@given(predictions(), st.integers(0, 2**32 - 1))
def test_no_threshold_is_better_than_the_best(drawn, seed):
    y_true, y_score = drawn
    tried = [*np.unique(y_score), *np.random.default_rng(seed).normal(size=5)]
    for label, threshold in enumerate(best_thresholds(y_true, y_score, min_positives=1)):
        truth, scores = y_true[:, [label]], y_score[:, [label]]
        if not truth.any() or truth.all():
            assert np.isnan(threshold)
            continue
        best = f1_scores(truth, scores, thresholds=threshold).micro
        assert all(f1_scores(truth, scores, thresholds=other).micro <= best for other in tried)


def test_a_threshold_lies_midway_between_neighbouring_scores():
    truth, scores = [[1], [1], [1], [0], [0]], [[0.9], [0.8], [0.7], [0.3], [0.1]]
    assert best_thresholds(truth, scores) == pytest.approx([0.5])


def test_a_threshold_parts_two_neighbouring_floats():
    low, high = 0.3, np.nextafter(0.3, 1)
    assert best_thresholds([[1], [0]], [[high], [low]], min_positives=1) == [high]


def test_a_threshold_that_takes_every_clip_is_the_lowest_score():
    assert best_thresholds([[1], [0], [1], [1]], [[0.9], [0.8], [0.7], [0.6]]) == [0.6]


def test_labels_with_too_few_positives_or_no_negative_get_no_threshold():
    y_true = np.array([[1, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]])
    y_score = np.linspace(0.9, 0.1, 16).reshape(4, 4)
    assert np.isnan(best_thresholds(y_true, y_score)).tolist() == [True, False, True, True]
    assert np.isnan(best_thresholds(y_true, y_score, min_positives=0)).tolist() == [False, False, True, True]


def test_top1_accuracy_is_the_share_of_clips_with_the_highest_score_at_their_label(rng):
    labels = rng.integers(5, size=100)
    y_score = rng.random((100, 5))
    assert top1_accuracy(np.eye(5)[labels], y_score) == np.mean(y_score.argmax(axis=1) == labels)


@pytest.mark.parametrize(("truth", "n_labels"), [([1, 1], 2), ([0, 0], 0)])
def test_top1_accuracy_needs_one_label_for_every_clip(truth, n_labels):
    with pytest.raises(ValueError, match=f"clip 1 has {n_labels}"):
        top1_accuracy([[0, 1], truth], np.zeros((2, 2)))


@pytest.mark.parametrize("metric", ALL_METRICS)
def test_arrays_that_can_not_be_scored_are_refused(metric):
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 4\)"):
        metric(np.ones((3, 2), bool), np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"\(3,\).*\(3,\)"):
        metric(np.ones(3, bool), np.ones(3))
    with pytest.raises(ValueError, match=r"at least one clip and one label, got \(0, 4\)"):
        metric(np.ones((0, 4), bool), np.ones((0, 4)))
    with pytest.raises(ValueError, match="must be finite, got nan for clip 1, label 0"):
        metric(np.eye(2), [[0.0, 1.0], [np.nan, np.inf]])
    with pytest.raises(ValueError, match="must be finite, got -inf for clip 0, label 1"):
        metric(np.eye(2), [[0.0, -np.inf], [1.0, 1.0]])
    with pytest.raises(ValueError, match="only 0 and 1"):
        metric(np.full((2, 2), 0.5), np.ones((2, 2)))


@pytest.mark.parametrize("metric", [lwlrap, lwlrap_per_label, score])
def test_clips_none_of_which_has_a_label_have_no_lwlrap(metric):
    with pytest.raises(ValueError, match="none of the 3 clips has a true label"):
        metric(np.zeros((3, 2)), np.ones((3, 2)))


def test_the_quick_bootstrap_equals_the_metric_on_every_resample(rng):
    y_true, y_score = np.eye(6)[rng.integers(6, size=80)], rng.random((80, 6))
    for metric in (lwlrap, top1_accuracy):
        quick, plain = (
            bootstrap_interval(each, y_true, y_score, rng=np.random.default_rng(1), n_resamples=50)
            for each in (metric, lambda truth, scores, metric=metric: metric(truth, scores))
        )
        assert quick == pytest.approx(plain, abs=1e-12)


def test_the_bootstrap_interval_of_a_mean_is_near_its_standard_error(rng):
    y_true = np.eye(2)[rng.integers(2, size=400)]
    right = rng.random(400) < 0.8
    y_score = np.where(right[:, np.newaxis], y_true, 1 - y_true)
    low, high = bootstrap_interval(top1_accuracy, y_true, y_score, rng=rng)
    standard_error = math.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert low == pytest.approx(right.mean() - 1.96 * standard_error, abs=0.006)
    assert high == pytest.approx(right.mean() + 1.96 * standard_error, abs=0.006)
    narrow = bootstrap_interval(top1_accuracy, y_true, y_score, rng=rng, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_resamples_without_a_defined_value_are_left_out(rng):
    # One clip of three has a label: most resamples have it, and its rank is always the first.
    y_true, y_score = [[1, 0], [0, 0], [0, 0]], [[0.9, 0.1], [0.5, 0.6], [0.2, 0.4]]
    assert bootstrap_interval(lwlrap, y_true, y_score, rng=rng, n_resamples=100) == (1.0, 1.0)


def test_a_bootstrap_that_can_not_be_is_refused(rng):
    y_true, y_score = sample(rng)
    with pytest.raises(ValueError, match=r"got n_resamples=0 and confidence=0\.95"):
        bootstrap_interval(lwlrap, y_true, y_score, rng=rng, n_resamples=0)
    with pytest.raises(ValueError, match="confidence=95"):
        bootstrap_interval(lwlrap, y_true, y_score, rng=rng, confidence=95)
    with pytest.raises(ValueError, match="NaN on each of 3 resamples of the 200 clips"):
        bootstrap_interval(lambda *_: math.nan, y_true, y_score, rng=rng, n_resamples=3)


def test_a_score_holds_what_each_metric_gives(rng):
    y_true, y_score = sample(rng)
    thresholds = best_thresholds(y_true, y_score)
    scores = score(y_true, y_score, thresholds=thresholds, rng=rng)
    f1 = f1_scores(y_true, y_score, thresholds=thresholds)
    assert scores.n_clips == 200
    assert scores.lwlrap == lwlrap(y_true, y_score)
    assert scores.mean_average_precision == pytest.approx(average_precision(y_true, y_score).mean())
    assert scores.roc_auc == pytest.approx(roc_auc_score(y_true, y_score, average="macro"))
    assert scores.d_prime == d_prime(scores.roc_auc)
    assert (scores.f1_micro, scores.f1_macro) == (f1.micro, f1.macro)
    assert scores.top1_accuracy is None
    assert list(scores.intervals) == ["lwlrap"]
    assert scores.intervals["lwlrap"][0] < scores.lwlrap < scores.intervals["lwlrap"][1]
    assert scores.per_label.n_clips.tolist() == y_true.sum(axis=0).tolist()
    assert np.array_equal(scores.per_label.lwlrap, lwlrap_per_label(y_true, y_score)[0])


def test_a_label_that_no_clip_has_is_left_out_of_the_means(rng):
    y_true, y_score = sample(rng)
    y_score[:, 3] = 0.0
    y_true[:, 3] = False
    others = np.arange(12) != 3
    with_it, without = score(y_true, y_score), score(y_true[:, others], y_score[:, others])
    for name in ("mean_average_precision", "roc_auc", "f1_macro", "f1_micro"):
        assert getattr(with_it, name) == getattr(without, name)


def test_scores_go_to_json_with_none_for_what_is_not_defined():
    perfect = score([[1, 0, 0], [0, 1, 0]], [[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]], rng=np.random.default_rng(0))
    assert perfect.d_prime == math.inf
    as_json = json.loads(json.dumps(perfect.to_dict(), allow_nan=False))
    assert as_json["d_prime"] is None
    assert as_json["top1_accuracy"] == 1.0
    assert as_json["intervals"] == {"lwlrap": [1.0, 1.0], "top1_accuracy": [1.0, 1.0]}
    assert as_json["per_label"] == {
        "n_clips": [1, 1, 0],
        "lwlrap": [1.0, 1.0, None],
        "average_precision": [1.0, 1.0, None],
        "roc_auc": [1.0, 1.0, None],
        "f1": [1.0, 1.0, None],
    }


def test_the_examples_in_the_docstrings_are_right():
    result = doctest.testmod(metrics, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_clips_of_a_recording_are_drawn_together(rng):
    """Copies of a clip tell nothing new: ten of each give the interval of one of each."""
    y_true, y_score = sample(rng)
    groups = [f"recording {i}" for i in range(len(y_true))]
    once = bootstrap_interval(lwlrap, y_true, y_score, rng=np.random.default_rng(1), groups=groups)
    assert once == bootstrap_interval(lwlrap, y_true, y_score, rng=np.random.default_rng(1))
    for metric in (lwlrap, lambda truth, scores: lwlrap(truth, scores)):
        copied = bootstrap_interval(
            metric,
            np.tile(y_true, (10, 1)),
            np.tile(y_score, (10, 1)),
            rng=np.random.default_rng(1),
            groups=groups * 10,
            n_resamples=1000,
        )
        np.testing.assert_allclose(copied, once, atol=1e-12)
