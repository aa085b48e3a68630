import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from spectag.scoring.bootstrap import Resampling, draw_groups
from spectag.scoring.metrics import average_precision, lwlrap, roc_auc, top1_accuracy
from spectag.scoring.scores import OVERALL_METRICS, PER_LABEL_METRICS, resampled_scores, score_predictions


def make_predictions(rng, n_clips=60, n_labels=4, n_levels=None):
    """Truth, and scores that depend on it. With few levels, many scores are equal."""
    y_true = rng.random((n_clips, n_labels)) < 0.3
    y_score = np.clip(rng.random((n_clips, n_labels)) * 0.7 + 0.3 * y_true, 0, 1)
    return y_true, np.round(y_score * n_levels) / n_levels if n_levels else y_score


def score(y_true, y_score, **options):
    """Scores with every clip a recording of its own, without intervals."""
    return score_predictions(
        y_true, y_score, range(len(y_true)), **{"resampling": Resampling(n_resamples=0), **options}
    )


def values(scores, name):
    """The score of each label."""
    return np.array([estimate.value for estimate in scores.per_label[name]])


def test_scores_equal_those_of_the_metrics(rng):
    y_true, y_score = make_predictions(rng, n_levels=9)
    scores = score(y_true, y_score)
    assert scores.n_clips == 60
    assert scores.n_clips_per_label.tolist() == y_true.sum(axis=0).tolist()
    assert scores.lwlrap == pytest.approx(lwlrap(y_true, y_score), abs=1e-12)
    np.testing.assert_allclose(values(scores, "average_precision"), average_precision(y_true, y_score), atol=1e-12)
    np.testing.assert_allclose(values(scores, "roc_auc"), roc_auc(y_true, y_score), atol=1e-12)
    overall = {name: estimate.value for name, estimate in scores.overall.items()}
    assert overall["mean_average_precision"] == pytest.approx(average_precision(y_true, y_score).mean(), abs=1e-12)
    assert overall["roc_auc"] == pytest.approx(roc_auc_score(y_true, y_score, average="macro"), abs=1e-12)
    assert overall["d_prime"] == pytest.approx(math.sqrt(2) * norm.ppf(overall["roc_auc"]), abs=1e-12)
    assert overall["f1_micro"] == pytest.approx(f1_score(y_true, y_score >= 0.5, average="micro"), abs=1e-12)
    assert overall["f1_macro"] == pytest.approx(f1_score(y_true, y_score >= 0.5, average="macro"), abs=1e-12)
    assert tuple(scores.per_label) == PER_LABEL_METRICS
    assert tuple(scores.overall) == OVERALL_METRICS[:-1], "several labels: no top-1 accuracy"
    assert scores.top1_accuracy is None


def test_lwlrap_of_a_label_is_its_mean_precision_over_its_clips(rng):
    y_true, y_score = make_predictions(rng)
    precisions = [truth[scores >= scores[2]].mean() for truth, scores in zip(y_true, y_score, strict=True) if truth[2]]
    assert values(score(y_true, y_score), "lwlrap")[2] == pytest.approx(np.mean(precisions), abs=1e-12)


def test_lwlrap_is_the_mean_over_the_labels_weighted_by_their_clips(rng):
    y_true, y_score = make_predictions(rng)
    y_true[:, 3] = False
    scores = score(y_true, y_score)
    per_label = values(scores, "lwlrap")
    assert np.isnan(per_label).tolist() == [False, False, False, True]
    assert np.nansum(per_label * y_true.sum(axis=0)) / y_true.sum() == pytest.approx(scores.lwlrap, abs=1e-12)


def test_d_prime_is_the_distance_of_two_normal_distributions(rng):
    y_score = np.concatenate([rng.normal(size=20_000), rng.normal(1.5, size=20_000)])[:, np.newaxis]
    y_true = np.arange(40_000)[:, np.newaxis] >= 20_000
    assert values(score(y_true, y_score), "d_prime")[0] == pytest.approx(1.5, abs=0.03)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 8), st.sampled_from([0.5, 0.1, 0.7]))
def test_f1_equals_sklearn(seed, n_clips, n_labels, threshold):
    y_true, y_score = make_predictions(np.random.default_rng(seed), n_clips, n_labels, n_levels=4)
    scores = score(y_true, y_score, thresholds=threshold)
    detected = y_score >= threshold

    def expected(average):
        # With one label, sklearn would take the table for a binary problem: a second, empty label prevents it.
        pad = np.zeros((len(y_true), 1), bool)
        table = np.hstack([y_true, pad]), np.hstack([detected, pad])
        return f1_score(*table, average=average, zero_division=np.nan)

    assert values(scores, "f1") == pytest.approx(expected(None)[:-1], abs=1e-12, nan_ok=True)
    assert scores.overall["f1_micro"].value == pytest.approx(expected("micro"), abs=1e-12, nan_ok=True)
    if (y_true | detected).any():
        assert scores.overall["f1_macro"].value == pytest.approx(expected("macro"), abs=1e-12)
    else:
        assert np.isnan(scores.overall["f1_macro"].value)


def test_each_label_and_each_score_may_have_its_own_threshold(rng):
    y_true, y_score = make_predictions(rng)
    for thresholds in (rng.random(4), rng.random(y_score.shape)):
        expected = f1_score(y_true, y_score >= thresholds, average=None)
        np.testing.assert_allclose(values(score(y_true, y_score, thresholds=thresholds), "f1"), expected, atol=1e-12)


def test_thresholds_that_do_not_fit_are_refused(rng):
    y_true, y_score = make_predictions(rng)
    with pytest.raises(ValueError, match=r"of shape \(4,\) or \(60, 4\), got \(3,\)"):
        score(y_true, y_score, thresholds=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="a threshold is NaN; give a default"):
        score(y_true, y_score, thresholds=np.nan)


def test_label_without_clips_is_left_out_of_the_means(rng):
    y_true, y_score = make_predictions(rng)
    y_score[:, 3] = 0.0
    y_true[:, 3] = False
    with_label, without = score(y_true, y_score), score(y_true[:, :3], y_score[:, :3])
    for name in ("mean_average_precision", "roc_auc", "f1_macro", "f1_micro"):
        assert with_label.overall[name].value == without.overall[name].value


def test_json_has_none_for_undefined_scores():
    perfect = score_predictions([[1, 0, 0], [0, 1, 0]], [[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]], ["a", "b"])
    assert perfect.overall["d_prime"].value == math.inf
    as_json = json.loads(json.dumps(perfect.to_dict(), allow_nan=False))
    assert as_json["d_prime"] is None
    assert as_json["top1_accuracy"] == 1.0
    assert as_json["intervals"] == {
        "lwlrap": [pytest.approx(0.3424, abs=1e-4), 1.0],
        "top1_accuracy": [pytest.approx(0.3424, abs=1e-4), 1.0],
    }
    assert as_json["per_label"] == {
        "n_clips": [1, 1, 0],
        "lwlrap": [1.0, 1.0, None],
        "average_precision": [1.0, 1.0, None],
        "roc_auc": [1.0, 1.0, None],
        "f1": [1.0, 1.0, None],
    }


def test_presence_of_one_label_has_no_lwlrap(rng):
    """With one label, every clip with it ranks it first: lwlrap is 1 whatever the scores."""
    scores = score_predictions(np.arange(16)[:, None] % 2, rng.random((16, 1)), range(16))
    assert math.isnan(scores.lwlrap)
    assert math.isnan(scores.per_label["lwlrap"][0].value)
    assert scores.to_dict()["lwlrap"] is None
    assert scores.main_metric == "mean_average_precision"
    assert scores.main_score == scores.per_label["average_precision"][0].value < 1


def test_interval_of_accuracy_is_that_of_wilson(rng):
    """Clips of different recordings are independent trials."""
    y_true = np.eye(4, dtype=bool)[rng.integers(4, size=200)]
    y_score = rng.normal(size=(200, 4)) + 3 * y_true
    accuracy = score_predictions(y_true, y_score, range(200), resampling=Resampling(5000)).overall["top1_accuracy"]
    wilson = binomtest(round(200 * accuracy.value), 200).proportion_ci(method="wilson")
    assert (accuracy.low, accuracy.high) == (pytest.approx(wilson.low, abs=3e-3), pytest.approx(wilson.high, abs=3e-3))


def test_interval_of_perfect_scores_is_as_wide_as_the_rule_of_wilson_for_the_number_of_recordings():
    """Twenty recordings of three clips, without an error, do not show that there are none."""
    y_true = np.repeat(np.eye(2, dtype=bool)[np.arange(20) % 2], 3, axis=0)
    scores = score_predictions(y_true, np.where(y_true, 0.9, 0.1), np.repeat(range(20), 3).tolist())
    for metric in ("lwlrap", "top1_accuracy", "f1_micro", "roc_auc", "mean_average_precision"):
        estimate = scores.overall[metric]
        assert (estimate.value, estimate.high) == (1, 1)
        assert estimate.low == pytest.approx(binomtest(20, 20).proportion_ci(method="wilson").low, abs=1e-6)
    assert scores.per_label["recall"][0].low == pytest.approx(binomtest(10, 10).proportion_ci(method="wilson").low)
    assert scores.overall["d_prime"].high == math.inf
    assert scores.overall["d_prime"].low == pytest.approx(math.sqrt(2) * norm.ppf(scores.overall["roc_auc"].low))


@pytest.mark.parametrize(("n_clips_per_label", "has_interval"), [(9, False), (10, True)])
def test_mean_over_labels_needs_ten_recordings_per_label_for_an_interval(rng, n_clips_per_label, has_interval):
    y_true = np.repeat(np.eye(3, dtype=bool), n_clips_per_label, axis=0)
    overall = score_predictions(y_true, rng.random(y_true.shape) + y_true, range(len(y_true)), thresholds=0).overall
    for metric in ("mean_average_precision", "recall_macro"):
        assert math.isnan(overall[metric].low) != has_interval
    assert not math.isnan(overall["roc_auc"].low)


@given(
    seed=st.integers(0, 1000),
    n_groups=st.integers(2, 30),
    n_labels=st.integers(1, 4),
    spread=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_every_interval_has_a_width_and_contains_its_score(seed, n_groups, n_labels, spread):
    rng = np.random.default_rng(seed)
    y_true = rng.random((40, n_labels)) < 0.4
    y_score = np.clip(0.5 + (y_true - 0.5) / 2 + spread * rng.normal(size=y_true.shape), 0, 1)
    groups = rng.integers(n_groups, size=40).tolist()
    scores = score_predictions(y_true, y_score, groups, resampling=Resampling(20))
    for estimate in (*scores.overall.values(), *(each for column in scores.per_label.values() for each in column)):
        if not math.isnan(estimate.low):
            assert estimate.low <= estimate.value <= estimate.high
            assert estimate.low < estimate.high


def test_json_has_no_interval_for_a_single_recording():
    assert score_predictions([[1, 0], [0, 1]], np.eye(2), ["a", "a"]).to_dict()["intervals"] == {}


def test_copies_of_clips_do_not_change_the_interval(rng):
    y_true, y_score = make_predictions(rng)
    groups = [f"recording {index}" for index in range(60)]
    once = score_predictions(y_true, y_score, groups)
    copied = score_predictions(np.tile(y_true, (10, 1)), np.tile(y_score, (10, 1)), groups * 10)
    assert once.overall["lwlrap"].low < once.lwlrap < once.overall["lwlrap"].high
    for end in ("value", "low", "high"):
        assert getattr(copied.overall["lwlrap"], end) == pytest.approx(getattr(once.overall["lwlrap"], end), abs=1e-12)


@pytest.mark.parametrize("n_levels", [None, 5])
def test_resamples_equal_sklearn_with_counts_as_weights(rng, n_levels):
    y_true, y_score = make_predictions(rng, n_levels=n_levels)
    counts = rng.integers(0, 4, (60, 8))
    detected = y_score >= 0.5
    scores = resampled_scores(y_true, y_score, detected, counts)
    for resample, weights in enumerate(counts.T):
        for label in range(4):
            truth, label_scores, label_detected = y_true[:, label], y_score[:, label], detected[:, label]
            expected = {
                "average_precision": average_precision_score(truth, label_scores, sample_weight=weights),
                "roc_auc": roc_auc_score(truth, label_scores, sample_weight=weights),
                "f1": f1_score(truth, label_detected, sample_weight=weights),
                "precision": precision_score(truth, label_detected, sample_weight=weights),
                "recall": recall_score(truth, label_detected, sample_weight=weights),
            }
            for name, value in expected.items():
                assert scores.per_label[name][resample, label] == pytest.approx(value, abs=1e-12), name
        micro = {"average": "micro", "sample_weight": weights}
        assert scores.overall["f1_micro"][resample] == pytest.approx(f1_score(y_true, detected, **micro))
        assert scores.overall["precision_micro"][resample] == pytest.approx(precision_score(y_true, detected, **micro))
        assert scores.overall["recall_macro"][resample] == pytest.approx(
            recall_score(y_true, detected, average="macro", sample_weight=weights)
        )


@given(
    seed=st.integers(0, 1000),
    n_clips=st.integers(1, 30),
    n_labels=st.integers(1, 4),
    n_levels=st.sampled_from([2, 5, 50]),
)
def test_counting_a_clip_twice_equals_repeating_it(seed, n_clips, n_labels, n_levels):
    rng = np.random.default_rng(seed)
    y_true, y_score = make_predictions(rng, n_clips, n_labels, n_levels=n_levels)
    counts = rng.integers(0, 3, n_clips)
    counts[0] = 1
    clips = np.repeat(np.arange(n_clips), counts)
    counted = resampled_scores(y_true, y_score, y_score >= 0.5, counts[:, None])
    repeated = resampled_scores(y_true[clips], y_score[clips], y_score[clips] >= 0.5, np.ones((len(clips), 1), int))
    for name in PER_LABEL_METRICS:
        np.testing.assert_allclose(counted.per_label[name], repeated.per_label[name], atol=1e-12)
    for name, samples in counted.overall.items():
        np.testing.assert_allclose(samples, repeated.overall[name], atol=1e-12)


def test_lwlrap_and_accuracy_of_a_resample_computed_by_hand():
    y_true, y_score = np.eye(2, dtype=bool)[[0, 1, 1]], np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    scores = resampled_scores(y_true, y_score, y_score >= 0.5, np.array([[1, 0], [1, 3], [1, 1]]))
    # the second clip has its label on the second rank: a precision of one half
    assert scores.overall["lwlrap"] == pytest.approx([2.5 / 3, 2.5 / 4])
    assert scores.overall["top1_accuracy"] == pytest.approx([2 / 3, 1 / 4])
    assert scores.per_label["lwlrap"][:, 1] == pytest.approx([0.75, 0.625])
    assert np.isnan(scores.per_label["lwlrap"][1, 0]), "the second resample lacks the only clip of this label"
    assert scores.overall["lwlrap"][0] == pytest.approx(lwlrap(y_true, y_score))
    assert scores.overall["top1_accuracy"][0] == pytest.approx(top1_accuracy(y_true, y_score))


def test_blocks_of_resamples_give_the_same_scores(rng, monkeypatch):
    y_true, y_score = make_predictions(rng)
    counts = draw_groups(range(60), n_resamples=50, rng=rng)
    in_one_block = resampled_scores(y_true, y_score, y_score >= 0.5, counts)
    monkeypatch.setattr("spectag.scoring.scores._COUNTS_PER_BLOCK", 7 * 60)
    in_blocks = resampled_scores(y_true, y_score, y_score >= 0.5, counts)
    for name, samples in in_one_block.overall.items():
        np.testing.assert_allclose(samples, in_blocks.overall[name], atol=1e-12)
    assert in_one_block.per_label["roc_auc"].shape == (50, 4)
    np.testing.assert_array_equal(in_one_block.per_label["roc_auc"], in_blocks.per_label["roc_auc"])


def test_scores_of_clips_without_labels_are_nan():
    scores = resampled_scores(np.zeros((3, 2), bool), np.ones((3, 2)), np.ones((3, 2), bool), np.ones((3, 1), int))
    assert np.isnan([scores.overall[name][0] for name in ("lwlrap", "mean_average_precision", "roc_auc")]).all()
    assert scores.overall["f1_micro"][0] == 0


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"detected of shape \(3, 2\).*\(3, n_resamples\).*\(3, 1\) and \(4, 1\)"):
        resampled_scores(np.ones((3, 2), bool), np.ones((3, 2)), np.ones((3, 1), bool), np.ones((4, 1), int))
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 4\)"):
        score(np.ones((3, 2), bool), np.ones((3, 4)))
