import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from spectag.scoring.bootstrap import (
    OVERALL,
    PER_LABEL,
    difference_of_samples,
    draw_groups,
    percentile_interval,
    sampled_scores,
    two_sided_p,
)
from spectag.scoring.metrics import d_prime, lwlrap, top1_accuracy
from spectag.scoring.scores import score


def made_up(rng, n_clips=60, n_labels=4, share=0.3, n_levels=None):
    """Truth and scores that know something of it; of few levels, so that many are equal."""
    y_true = rng.random((n_clips, n_labels)) < share
    y_score = np.clip(rng.random((n_clips, n_labels)) * 0.7 + 0.3 * y_true, 0, 1)
    return y_true, np.round(y_score * n_levels) / n_levels if n_levels else y_score


def as_they_are(y_true, y_score, threshold=0.5):
    scores = sampled_scores(y_true, y_score, y_score >= threshold, np.ones((len(y_true), 1), int))
    overall = {name: values[0] for name, values in scores.overall.items()}
    return overall, {name: values[0] for name, values in scores.per_label.items()}


def test_clips_counted_once_have_the_scores_of_the_metrics(rng):
    y_true, y_score = made_up(rng, n_levels=9)
    overall, per_label = as_they_are(y_true, y_score)
    expected = score(y_true, y_score)
    for name in ("lwlrap", "mean_average_precision", "roc_auc", "d_prime", "f1_micro", "f1_macro"):
        assert overall[name] == pytest.approx(getattr(expected, name), abs=1e-12)
    for name in ("lwlrap", "average_precision", "roc_auc", "f1"):
        np.testing.assert_allclose(per_label[name], getattr(expected.per_label, name), atol=1e-12)
    assert per_label["d_prime"] == pytest.approx([d_prime(auc) for auc in expected.per_label.roc_auc])
    assert tuple(per_label) == PER_LABEL
    assert tuple(overall) == OVERALL[:-1], "several labels: no top-1 accuracy"


@pytest.mark.parametrize("n_levels", [None, 5])
def test_resamples_equal_scikit_learn_with_counts_for_weights(rng, n_levels):
    y_true, y_score = made_up(rng, n_levels=n_levels)
    counts = rng.integers(0, 4, (60, 8))
    given = y_score >= 0.5
    scores = sampled_scores(y_true, y_score, given, counts)
    for resample, weights in enumerate(counts.T):
        for label in range(4):
            truth, values, said = y_true[:, label], y_score[:, label], given[:, label]
            expected = {
                "average_precision": average_precision_score(truth, values, sample_weight=weights),
                "roc_auc": roc_auc_score(truth, values, sample_weight=weights),
                "f1": f1_score(truth, said, sample_weight=weights),
                "precision": precision_score(truth, said, sample_weight=weights),
                "recall": recall_score(truth, said, sample_weight=weights),
            }
            for name, value in expected.items():
                assert scores.per_label[name][resample, label] == pytest.approx(value, abs=1e-12), name
        micro = {"average": "micro", "sample_weight": weights}
        assert scores.overall["f1_micro"][resample] == pytest.approx(f1_score(y_true, given, **micro))
        assert scores.overall["precision_micro"][resample] == pytest.approx(precision_score(y_true, given, **micro))
        assert scores.overall["recall_macro"][resample] == pytest.approx(
            recall_score(y_true, given, average="macro", sample_weight=weights)
        )


@given(
    seed=st.integers(0, 1000),
    n_clips=st.integers(1, 30),
    n_labels=st.integers(1, 4),
    n_levels=st.sampled_from([2, 5, 50]),
)
def test_counting_a_clip_is_repeating_it(seed, n_clips, n_labels, n_levels):
    rng = np.random.default_rng(seed)
    y_true, y_score = made_up(rng, n_clips, n_labels, n_levels=n_levels)
    counts = rng.integers(0, 3, n_clips)
    counts[0] = 1
    clips = np.repeat(np.arange(n_clips), counts)
    counted = sampled_scores(y_true, y_score, y_score >= 0.5, counts[:, None])
    repeated = sampled_scores(y_true[clips], y_score[clips], y_score[clips] >= 0.5, np.ones((len(clips), 1), int))
    for name in PER_LABEL:
        np.testing.assert_allclose(counted.per_label[name], repeated.per_label[name], atol=1e-12)
    for name, values in counted.overall.items():
        np.testing.assert_allclose(values, repeated.overall[name], atol=1e-12)


def test_lwlrap_and_accuracy_of_a_resample_by_hand():
    y_true, y_score = np.eye(2, dtype=bool)[[0, 1, 1]], np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    scores = sampled_scores(y_true, y_score, y_score >= 0.5, np.array([[1, 0], [1, 3], [1, 1]]))
    # the middle clip has its label second: a precision of one half
    assert scores.overall["lwlrap"] == pytest.approx([2.5 / 3, 2.5 / 4])
    assert scores.overall["top1_accuracy"] == pytest.approx([2 / 3, 1 / 4])
    assert scores.per_label["lwlrap"][:, 1] == pytest.approx([0.75, 0.625])
    assert np.isnan(scores.per_label["lwlrap"][1, 0]), "the second resample lacks the only clip of this label"
    assert scores.overall["lwlrap"][0] == pytest.approx(lwlrap(y_true, y_score))
    assert scores.overall["top1_accuracy"][0] == pytest.approx(top1_accuracy(y_true, y_score))


def test_many_resamples_are_no_other_than_few(rng, monkeypatch):
    y_true, y_score = made_up(rng)
    counts = draw_groups(range(60), n_resamples=50, rng=rng)
    at_once = sampled_scores(y_true, y_score, y_score >= 0.5, counts)
    monkeypatch.setattr("spectag.scoring.bootstrap._COUNTS_AT_ONCE", 7 * 60)
    in_blocks = sampled_scores(y_true, y_score, y_score >= 0.5, counts)
    for name, values in at_once.overall.items():
        np.testing.assert_allclose(values, in_blocks.overall[name], atol=1e-12)
    assert at_once.per_label["roc_auc"].shape == (50, 4)
    np.testing.assert_array_equal(at_once.per_label["roc_auc"], in_blocks.per_label["roc_auc"])


def test_clips_without_any_label_have_no_lwlrap_but_no_error_either():
    scores = sampled_scores(np.zeros((3, 2), bool), np.ones((3, 2)), np.ones((3, 2), bool), np.ones((3, 1), int))
    assert np.isnan([scores.overall[name][0] for name in ("lwlrap", "mean_average_precision", "roc_auc")]).all()
    assert scores.overall["f1_micro"][0] == 0


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"given of shape \(3, 2\).*\(3, n_resamples\).*\(3, 1\) and \(4, 1\)"):
        sampled_scores(np.ones((3, 2), bool), np.ones((3, 2)), np.ones((3, 1), bool), np.ones((4, 1), int))


def test_clips_of_a_group_are_drawn_together_and_as_many_groups_as_there_are(rng):
    counts = draw_groups(["a", "b", "a", "c"], n_resamples=200, rng=rng)
    np.testing.assert_array_equal(counts[0], counts[2])
    np.testing.assert_array_equal(counts[[0, 1, 3]].sum(axis=0), 3)
    assert counts[0].mean() == pytest.approx(1, abs=0.2)


def test_an_interval_of_grouped_clips_is_wider_when_groups_are_drawn(rng):
    right = np.repeat(rng.random(40) < 0.7, 10)  # forty recordings of ten clips that are alike
    y_true = np.eye(2, dtype=bool)[np.zeros(400, int)]
    y_score = np.eye(2)[np.where(right, 0, 1)]

    def width(groups):
        counts = draw_groups(groups, n_resamples=400, rng=rng)
        low, high = percentile_interval(sampled_scores(y_true, y_score, y_score > 0.5, counts).overall["lwlrap"], 0.95)
        return high - low

    assert width(np.repeat(range(40), 10).tolist()) == pytest.approx(np.sqrt(10) * width(range(400)), rel=0.25)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    """A coin that is right in 80 % of the clips: its accuracy is known."""
    rng = np.random.default_rng(5)
    n_held = 0
    for _ in range(200):
        right = rng.random(150) < 0.8
        y_true, y_score = np.eye(2, dtype=bool)[np.zeros(150, int)], np.eye(2)[np.where(right, 0, 1)]
        counts = draw_groups(range(150), n_resamples=200, rng=rng)
        samples = sampled_scores(y_true, y_score, y_score > 0.5, counts).overall["top1_accuracy"]
        low, high = percentile_interval(samples, 0.95)
        n_held += low <= 0.8 <= high
    assert 180 <= n_held <= 198


def test_an_interval_leaves_out_what_is_not_defined_and_keeps_infinity():
    samples = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, np.nan], [np.inf, np.nan]])
    low, high = percentile_interval(samples, 0.95)
    assert (low[0], high[0]) == (1.0, np.inf)
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_equal_infinities_and_roundings_differ_by_nothing():
    differences = difference_of_samples(
        np.array([np.inf, np.inf, 1, np.nan, 0.3]), np.array([np.inf, 1, 3, 1, 0.1 + 0.2])
    )
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
def test_p_values_by_hand(differences, p_value):
    assert two_sided_p(differences) == pytest.approx(p_value)
    assert two_sided_p(-differences) == pytest.approx(p_value)


def test_there_is_no_p_value_of_nothing():
    assert np.isnan(two_sided_p(np.array([np.nan])))


def test_p_is_below_a_twentieth_in_a_twentieth_of_equal_pairs():
    """Two coins of one worth differ by chance alone."""
    rng = np.random.default_rng(3)
    y_true, n_found = np.eye(2, dtype=bool)[np.zeros(200, int)], 0
    for _ in range(150):
        counts = draw_groups(range(200), n_resamples=200, rng=rng)
        samples = []
        for _ in range(2):
            y_score = np.eye(2)[np.where(rng.random(200) < 0.7, 0, 1)]
            samples.append(sampled_scores(y_true, y_score, y_score > 0.5, counts).overall["top1_accuracy"])
        n_found += two_sided_p(difference_of_samples(*samples)) < 0.05
    assert 1 <= n_found <= 16
