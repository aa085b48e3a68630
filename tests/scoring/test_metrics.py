import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score

from spectag.scoring import metrics
from spectag.scoring.metrics import average_precision, lwlrap, roc_auc, selection_score, top1_accuracy
from spectag.scoring.thresholds import fit_thresholds


@st.composite
def predictions(draw):
    """Truth and scores of a few clips, with few different scores, so that there are many ties."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 8)))
    y_true = draw(arrays(bool, shape))
    y_score = draw(arrays(float, shape, elements=st.sampled_from([-1e3, 0.0, 0.1, 0.5, 0.5000001, 1.0, 7.0])))
    return y_true, y_score


def sklearn_lwlrap(y_true, y_score):
    return label_ranking_average_precision_score(y_true, y_score, sample_weight=y_true.sum(axis=1))


def make_predictions(rng, *, n_clips=200, n_labels=12):
    return rng.random((n_clips, n_labels)) < 0.2, rng.random((n_clips, n_labels))


def test_lwlrap_equals_sklearn_lrap_weighted_by_label_count(rng):
    y_true, y_score = make_predictions(rng)
    assert not y_true.any(axis=1).all()  # some clips have no label
    assert lwlrap(y_true, y_score) == pytest.approx(sklearn_lwlrap(y_true, y_score), abs=1e-12)


@given(predictions())
def test_lwlrap_equals_sklearn_with_ties(drawn):
    y_true, y_score = drawn
    y_true[0, 0] = True
    if (y_true.any(axis=1) & ~y_true.all(axis=1)).any():
        assert lwlrap(y_true, y_score) == pytest.approx(sklearn_lwlrap(y_true, y_score), abs=1e-12)


@pytest.mark.parametrize("y_true", [[[1], [0], [1]], [[1, 1], [0, 0], [1, 1]]])
def test_lwlrap_that_cannot_be_below_1_is_not_a_score(y_true, rng):
    assert np.isnan(lwlrap(y_true, rng.random(np.shape(y_true))))


def test_training_chooses_by_lwlrap_or_else_by_average_precision(rng):
    y_true, y_score = make_predictions(rng)
    assert selection_score(y_true, y_score) == lwlrap(y_true, y_score)
    presence, scores = y_true[:, :1], y_score[:, :1]
    assert selection_score(presence, scores) == average_precision_score(presence[:, 0], scores[:, 0])
    assert selection_score(np.ones((3, 2)), y_score[:3, :2]) is None


def test_ranking_in_blocks_gives_the_same_scores(rng, monkeypatch):
    y_true, y_score = make_predictions(rng)
    in_one_block = lwlrap(y_true, y_score)
    monkeypatch.setattr(metrics, "_SCORES_PER_BLOCK", 50)
    assert lwlrap(y_true, y_score) == in_one_block
    assert average_precision(y_true, y_score) == pytest.approx(
        [average_precision_score(truth, scores) for truth, scores in zip(y_true.T, y_score.T, strict=True)], abs=1e-12
    )


def test_lwlrap_computed_by_hand():
    # Clip 1: Bark first (1/1), Knock third after one other (2/3). Clip 2: Rain second (1/2). Mean of the three.
    y_true = np.array([[1, 1, 0], [0, 0, 1]])
    y_score = np.array([[0.9, 0.2, 0.5], [0.1, 0.3, 0.2]])
    assert lwlrap(y_true, y_score) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize("n_labels", [2, 10])
def test_equal_scores_give_every_label_the_worst_rank(n_labels):
    assert lwlrap(np.eye(n_labels), np.zeros((n_labels, n_labels))) == pytest.approx(1 / n_labels)


def test_lwlrap_ignores_clips_without_labels(rng):
    y_true, y_score = make_predictions(rng)
    has_label = y_true.any(axis=1)
    assert lwlrap(y_true, y_score) == pytest.approx(lwlrap(y_true[has_label], y_score[has_label]), abs=1e-15)


def test_scaled_or_shifted_scores_rank_the_same(rng):
    y_true, y_score = make_predictions(rng)
    logits = np.log(y_score) - np.log1p(-y_score)
    for metric in (lwlrap, average_precision, roc_auc):
        assert np.array_equal(metric(y_true, y_score), metric(y_true, logits))
        assert np.array_equal(metric(y_true, y_score), metric(y_true, 7 * y_score - 100))


@given(predictions())
def test_average_precision_equals_sklearn_and_is_nan_without_a_positive(drawn):
    y_true, y_score = drawn
    for truth, scores, result in zip(y_true.T, y_score.T, average_precision(y_true, y_score), strict=True):
        if truth.any():
            assert result == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        else:
            assert np.isnan(result)


@given(predictions())
def test_roc_auc_equals_sklearn_and_is_nan_with_one_class_only(drawn):
    y_true, y_score = drawn
    for truth, scores, result in zip(y_true.T, y_score.T, roc_auc(y_true, y_score), strict=True):
        if truth.any() and not truth.all():
            assert result == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        else:
            assert np.isnan(result)


def test_top1_accuracy_is_the_fraction_of_clips_with_the_highest_score_at_their_label(rng):
    labels = rng.integers(5, size=100)
    y_score = rng.random((100, 5))
    assert top1_accuracy(np.eye(5)[labels], y_score) == np.mean(y_score.argmax(axis=1) == labels)


@pytest.mark.parametrize(("truth", "n_labels"), [([1, 1], 2), ([0, 0], 0)])
def test_top1_accuracy_needs_one_label_for_every_clip(truth, n_labels):
    with pytest.raises(ValueError, match=f"clip 1 has {n_labels}"):
        top1_accuracy([[0, 1], truth], np.zeros((2, 2)))


def test_lwlrap_needs_a_label():
    with pytest.raises(ValueError, match="none of the 3 clips has one"):
        lwlrap(np.zeros((3, 2)), np.ones((3, 2)))


@pytest.mark.parametrize("metric", [lwlrap, average_precision, roc_auc, top1_accuracy, fit_thresholds])
def test_invalid_arrays_are_refused(metric):
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
