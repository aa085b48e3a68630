"""Comparison of two versions: on the clips of both, by the labels of the newer one, and what changed."""

import numpy as np
import pytest

from spectag.data.labels import LabelSet
from spectag.models.out_of_fold import OutOfFoldPredictions
from spectag.scoring.bootstrap import Resampling
from spectag.scoring.metrics import lwlrap
from spectag.serving.train_comparison import HeldOutPredictions, compare_versions

LABELS = ("a", "b", "c")
FAST = Resampling(n_resamples=100)


def held_out(truth, probabilities, *, names=None, labels=LABELS, known=None):
    truth, probabilities = np.asarray(truth, bool), np.asarray(probabilities, np.float64)
    names = tuple(names or (f"{row}.wav" for row in range(len(truth))))
    clips = OutOfFoldPredictions(
        labels=LabelSet(labels),
        fnames=names,
        spans=((0.0, None),) * len(names),
        folds=("1",) * len(names),
        groups=names,
        keys=tuple(f"key of {name}" for name in names),
        y_true=truth,
        logits=np.log(probabilities / (1 - probabilities)),
        known=known,
    )
    return HeldOutPredictions(clips, probabilities, probabilities >= 0.5)


@pytest.fixture
def truth(rng):
    return np.eye(3, dtype=bool)[rng.integers(3, size=60)]


def noisy(rng, truth, noise):
    return np.clip(0.5 + 0.3 * (2 * truth - 1) + noise * rng.normal(size=truth.shape), 0.01, 0.99)


def test_equal_versions_differ_in_nothing(rng, truth):
    version = held_out(truth, noisy(rng, truth, 0.2))
    comparison = compare_versions(version, version, FAST)
    gain = comparison.differences["lwlrap"]
    assert gain["value"] == 0
    assert gain["low"] < 0 < gain["high"]
    assert (comparison.n_changed, comparison.changed) == (0, ())


def test_better_version_has_an_interval_above_0_and_the_scores_are_those_of_the_metric(rng, truth):
    good, bad = noisy(rng, truth, 0.02), rng.uniform(0.01, 0.99, truth.shape)
    comparison = compare_versions(held_out(truth, good), held_out(truth, bad), FAST)
    gain = comparison.differences[comparison.metric]
    assert comparison.metric == "lwlrap"
    assert gain["low"] > 0
    assert gain["score"] == pytest.approx(lwlrap(truth, good))
    assert gain["before"] == pytest.approx(lwlrap(truth, bad))
    assert comparison.n_better > comparison.n_worse == sum(clip.n_right < 0 for clip in comparison.changed)


def test_only_clips_and_labels_of_both_count(rng, truth):
    newer = held_out(truth, noisy(rng, truth, 0.1))
    rows = np.arange(30)
    names = [f"{row}.wav" for row in rows]
    older = held_out(truth[:30, :2], newer.probabilities[:30, :2], names=names, labels=LABELS[:2])
    comparison = compare_versions(newer, older, FAST)
    assert (comparison.n_clips, comparison.n_labels, comparison.n_labels_left_out) == (30, 2, 1)
    strange = held_out(truth, newer.probabilities, names=[f"other {row}" for row in range(60)])
    assert compare_versions(newer, strange, FAST) is None
    assert compare_versions(newer, held_out(truth, newer.probabilities, labels=("x", "y", "z")), FAST) is None


def test_changed_clips_have_their_labels_before_and_after_the_worse_ones_first(truth):
    probabilities = np.where(truth, 0.9, 0.1)
    before, after, labels_before = probabilities.copy(), probabilities.copy(), truth.copy()
    before[7] = 1 - before[7]  # wrong before
    after[3] = 1 - after[3]  # wrong now
    labels_before[5] = np.roll(labels_before[5], 1)  # corrected
    comparison = compare_versions(held_out(truth, after), held_out(labels_before, before), FAST)
    assert [clip.fname for clip in comparison.changed] == ["3.wav", "7.wav", "5.wav"]
    worse, better, corrected = comparison.changed
    assert (worse.n_right, better.n_right, corrected.n_right) == (-3, 3, 0)
    assert worse.detected_before == worse.truth != worse.detected
    assert corrected.truth != corrected.truth_before
    assert (comparison.n_changed, comparison.n_better, comparison.n_worse) == (3, 1, 1)


def test_unknown_labels_are_neither_right_nor_wrong(truth):
    probabilities = np.where(truth, 0.9, 0.1)
    known = np.ones_like(truth)
    known[2] = False
    changed = probabilities.copy()
    changed[2] = 1 - changed[2]
    comparison = compare_versions(held_out(truth, changed, known=known), held_out(truth, probabilities), FAST)
    assert [clip.n_right for clip in comparison.changed] == [0]
    assert comparison.differences["lwlrap"]["value"] == pytest.approx(0)
