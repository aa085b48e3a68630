import csv
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from helpers.paths import SHARED
from spectag.data.folds import balance, random_holdout, stratified_folds, stratified_holdout
from spectag.errors import DataError

ESC10 = SHARED / "data" / "esc10" / "esc10.csv"


@st.composite
def clips(draw, *, single_label=False):
    """Random y_true and groups; at least two groups."""
    n_clips = draw(st.integers(2, 80))
    n_labels = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = rng.integers(draw(st.integers(2, 60)), size=n_clips)
    groups[:2] = [100, 101]
    if single_label:
        return np.eye(n_labels, dtype=bool)[rng.integers(n_labels, size=n_clips)], groups
    return rng.random((n_clips, n_labels)) < rng.random(n_labels), groups


def n_folds_for(data, groups):
    return data.draw(st.integers(2, min(10, len(set(groups.tolist())))))


def user_like_clips(rng, *, n_groups=150, n_labels=12):
    """About 1,500 clips in groups of very different sizes and label frequencies."""
    sizes = np.minimum(rng.pareto(1.0, size=n_groups) * 5 + 1, 150).astype(int)
    groups = np.repeat(np.arange(n_groups), sizes)
    habits = rng.random((n_groups, n_labels)) * 0.4 / np.arange(1, n_labels + 1)
    return rng.random((len(groups), n_labels)) < habits[groups], groups


@given(clips(), st.data(), st.integers(0, 3))
def test_no_group_is_in_two_folds_and_every_clip_is_in_one(drawn, data, seed):
    y_true, groups = drawn
    n_folds = n_folds_for(data, groups)
    folds = stratified_folds(y_true, n_folds, groups=groups, seed=seed)
    assert folds.shape == (len(y_true),)
    assert set(folds.tolist()) == set(range(1, n_folds + 1))  # none is empty
    for group in set(groups.tolist()):
        assert len(set(folds[groups == group].tolist())) == 1


@given(clips(single_label=True), st.data(), st.integers(0, 3))
def test_label_with_enough_groups_of_one_clip_is_in_every_fold(drawn, data, seed):
    y_true, groups = drawn
    n_folds = n_folds_for(data, groups)
    folds = stratified_folds(y_true, n_folds, groups=groups, seed=seed)
    group_sizes = Counter(groups.tolist())
    is_alone = np.array([group_sizes[group] == 1 for group in groups.tolist()])
    for label in np.flatnonzero(y_true[is_alone].sum(axis=0) >= n_folds):
        assert set(folds[y_true[:, label]].tolist()) == set(range(1, n_folds + 1))


@given(clips(single_label=True), st.integers(2, 10))
def test_single_labels_without_groups_differ_by_at_most_one_clip_between_folds(drawn, n_folds):
    y_true = drawn[0]
    if n_folds > len(y_true):
        return
    counts = balance(y_true, stratified_folds(y_true, n_folds)).counts
    assert np.ptp(counts, axis=0).max() <= 1


@given(clips(), st.data())
def test_moving_one_group_does_not_distribute_unlabelled_clips_better(drawn, data):
    groups = drawn[1]
    n_folds = n_folds_for(data, groups)
    folds = stratified_folds(np.zeros((len(groups), 3)), n_folds, groups=groups)
    sizes = np.bincount(folds)[1:]
    in_largest = Counter(groups[folds == sizes.argmax() + 1].tolist())
    assert sizes.max() - sizes.min() <= min(in_largest.values())


def test_labelled_and_unlabelled_clips_are_both_distributed(rng):
    y_true = rng.random((500, 10)) < 0.1
    y_true[:100] = False
    folds = stratified_folds(y_true, 5)
    assert np.ptp(np.bincount(folds)[1:]) <= 2
    assert np.ptp(np.bincount(folds[~y_true.any(axis=1)])[1:]) <= 4


@pytest.mark.parametrize("n_folds", [2, 5, 10])
def test_folds_have_similar_sizes_and_labels_and_beat_random_splits(rng, n_folds):
    y_true, groups = user_like_clips(rng)
    found = balance(y_true, stratified_folds(y_true, n_folds, groups=groups), groups=groups)
    assert found.mean < found.random_mean / 2
    assert found.worst < found.random_worst
    assert np.abs(found.sizes / len(y_true) - 1 / n_folds).max() < 0.02


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_split_beats_random_splits_with_any_seed(seed):
    rng = np.random.default_rng(seed)
    y_true, groups = rng.random((60, 5)) < 0.3, rng.integers(30, size=60)
    found = balance(y_true, stratified_folds(y_true, 3, groups=groups, seed=seed % 100), groups=groups)
    assert found.mean < found.random_mean


@given(clips(), st.data(), st.randoms(use_true_random=False))
def test_label_order_does_not_change_the_folds(drawn, data, random):
    y_true, groups = drawn
    n_folds = n_folds_for(data, groups)
    shuffled = random.sample(range(y_true.shape[1]), y_true.shape[1])
    folds = stratified_folds(y_true, n_folds, groups=groups)
    assert np.array_equal(folds, stratified_folds(y_true[:, shuffled], n_folds, groups=groups))


def test_seed_determines_the_folds(rng):
    y_true = rng.random((100, 5)) < 0.3
    folds = stratified_folds(y_true, 5, seed=1)
    assert np.array_equal(folds, stratified_folds(y_true, 5, seed=1))
    assert not np.array_equal(folds, stratified_folds(y_true, 5, seed=2))


def test_huge_group_does_not_keep_a_label_out_of_the_folds():
    # 200 clips of one person with label 0, and five single clips of label 1: each fold must get one of them.
    y_true = np.eye(2, dtype=bool)[[0] * 200 + [1] * 5]
    folds = stratified_folds(y_true, 5, groups=[*["one"] * 200, *range(5)])
    assert sorted(folds[200:]) == [1, 2, 3, 4, 5]


def test_clip_without_group_is_a_group_by_itself():
    folds = stratified_folds(np.ones((8, 1)), 4, groups=["Jörg Müller", "Jörg Müller", *[None] * 6])
    assert folds[0] == folds[1]
    assert np.bincount(folds)[1:].tolist() == [2, 2, 2, 2]


@pytest.mark.skipif(not ESC10.exists(), reason="needs ../shared/data/esc10")
def test_esc10_by_recording_has_eight_clips_of_each_label_in_each_of_five_folds():
    with ESC10.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["labels"] for row in rows})
    y_true = np.array([[row["labels"] == label for label in labels] for row in rows])
    sources = [row["source"] for row in rows]
    found = balance(y_true, stratified_folds(y_true, 5, groups=sources), groups=sources)
    assert (found.counts == 8).all()
    assert found.random_worst > 0.1


def test_too_many_or_too_few_folds_are_errors():
    with pytest.raises(DataError, match="can't split 3 groups of clips into 5 folds"):
        stratified_folds(np.ones((9, 1)), 5, groups=[1, 2, 3] * 3)
    with pytest.raises(DataError, match="can't split 9 clips into 10 folds; use fewer"):
        stratified_folds(np.ones((9, 1)), 10)
    with pytest.raises(DataError, match="at least 2 folds, got 1"):
        stratified_folds(np.ones((9, 1)), 1)


def test_invalid_arrays_are_errors_with_their_shapes():
    with pytest.raises(ValueError, match="for each of 3 clips, got 2"):
        stratified_folds(np.ones((3, 1)), 2, groups=["a", "b"])
    with pytest.raises(ValueError, match=r"\(n_clips, n_labels\), got float64 \(3,\)"):
        stratified_folds(np.ones(3), 2)
    with pytest.raises(ValueError, match="must contain true and false"):
        stratified_holdout(np.full((3, 2), 0.5), 0.5)
    with pytest.raises(ValueError, match=r"got bool \(0, 2\)"):
        stratified_holdout(np.ones((0, 2), bool), 0.5)


@given(clips(), st.floats(0.01, 0.99), st.integers(0, 3))
def test_holdout_keeps_groups_together_and_both_sides_have_clips(drawn, validation_fraction, seed):
    y_true, groups = drawn
    is_valid = stratified_holdout(y_true, validation_fraction, groups=groups, seed=seed)
    assert is_valid.dtype == bool
    assert is_valid.any()
    assert not is_valid.all()
    assert not set(groups[is_valid].tolist()) & set(groups[~is_valid].tolist())


@given(clips(), st.floats(0.01, 0.99))
def test_holdout_fraction_is_met_within_half_a_group(drawn, validation_fraction):
    groups = drawn[1]
    is_valid = stratified_holdout(np.zeros((len(groups), 1)), validation_fraction, groups=groups)
    distance = abs(is_valid.sum() - validation_fraction * len(groups))
    one_group_is_a_side = 1 in {len(set(groups[side].tolist())) for side in (is_valid, ~is_valid)}
    assert one_group_is_a_side or distance <= max(Counter(groups.tolist()).values()) / 2 + 1e-6


@pytest.mark.parametrize("validation_fraction", [0.1, 0.25, 0.5])
def test_holdout_is_stratified_and_beats_random_splits(rng, validation_fraction):
    y_true, groups = user_like_clips(rng)
    is_valid = stratified_holdout(y_true, validation_fraction, groups=groups)
    found = balance(y_true, is_valid, groups=groups, fractions=(1 - validation_fraction, validation_fraction))
    assert is_valid.mean() == pytest.approx(validation_fraction, abs=0.01)
    assert found.mean < found.random_mean / 2


def test_holdout_of_single_clips_has_equal_fractions_of_all_labels():
    y_true = np.eye(4, dtype=bool)[[0] * 40 + [1] * 20 + [2] * 8 + [3] * 4]
    assert y_true[stratified_holdout(y_true, 0.25)].sum(axis=0).tolist() == [10, 5, 2, 1]


def test_smallest_group_is_held_out_if_all_are_too_large():
    is_valid = stratified_holdout(np.ones((100, 1)), 0.05, groups=[*["a"] * 40, *["b"] * 25, *["c"] * 35])
    assert np.flatnonzero(is_valid).tolist() == list(range(40, 65))


def test_impossible_holdouts_are_errors():
    for share in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(DataError, match="above 0 and below 1, got"):
            stratified_holdout(np.ones((4, 1)), share)
    with pytest.raises(DataError, match="at least 2 groups of clips, got 1"):
        stratified_holdout(np.ones((4, 1)), 0.5, groups=["a"] * 4)


@pytest.mark.parametrize("n_clips", [2, 3, 4, 5, 7, 10, 11, 99, 100, 1000, 4970])
@pytest.mark.parametrize("validation_fraction", [0.1, 0.2, 0.25, 1 / 3, 0.5, 0.7])
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_random_holdout_equals_train_test_split_of_scikit_learn(n_clips, validation_fraction, seed):
    try:
        expected = train_test_split(range(n_clips), test_size=validation_fraction, random_state=seed)
    except ValueError:
        with pytest.raises(DataError, match="leaves no clip to train on"):
            random_holdout(n_clips, validation_fraction, seed=seed)
        return
    train, valid = random_holdout(n_clips, validation_fraction, seed=seed)
    assert [train.tolist(), valid.tolist()] == expected


def test_random_holdout_without_training_clips_is_an_error():
    with pytest.raises(DataError, match="above 0 and below 1, got 25"):
        random_holdout(100, 25, seed=0)
    with pytest.raises(DataError, match=r"holding out 0.25 of 1 clips leaves no clip to train on"):
        random_holdout(1, 0.25, seed=0)


def test_balance_worked_by_hand():
    # Label 0: 3 clips and 1 clip of 4, a deviation of 0.25; label 1: 1 and 1; label 2 has no clips.
    y_true = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]])
    found = balance(y_true, ["a", "a", "a", "b", "b"])
    assert found.folds == ("a", "b")
    assert found.sizes.tolist() == [3, 2]
    assert found.counts.tolist() == [[3, 1, 0], [1, 1, 0]]
    assert found.worst == pytest.approx(0.25)
    assert found.mean == pytest.approx(0.125)


def test_random_splits_keep_groups_together():
    # Two groups with one label each: every random split by group puts the labels into different folds.
    y_true = np.eye(2, dtype=bool)[[0] * 10 + [1] * 10]
    by_group = balance(y_true, [1, 2] * 10, groups=[0] * 10 + [1] * 10)
    assert by_group.worst == 0
    assert by_group.random_worst == pytest.approx(0.5)
    assert balance(y_true, [1, 2] * 10).random_worst < 0.4


def test_balance_of_a_holdout_uses_its_target_fractions():
    y_true = np.ones((8, 1))
    found = balance(y_true, np.arange(8) < 2, fractions=(0.75, 0.25))
    assert found.folds == (False, True)
    assert found.worst == found.random_worst == 0


def test_balance_without_labels_is_perfect_and_can_be_json():
    found = balance(np.zeros((4, 2)), [1, 1, 2, 2])
    assert json.loads(json.dumps(found.to_dict())) == {
        "folds": [1, 2],
        "sizes": [2, 2],
        "counts": [[0, 0], [0, 0]],
        "worst": 0.0,
        "mean": 0.0,
        "random_worst": 0.0,
        "random_mean": 0.0,
    }


def test_balance_with_invalid_folds_or_fractions_is_an_error():
    with pytest.raises(ValueError, match="a fold for each of 4 clips, got 3"):
        balance(np.ones((4, 1)), [1, 2, 1])
    with pytest.raises(ValueError, match=r"each of 2 folds, with sum 1, got \[0.5, 0.6\]"):
        balance(np.ones((4, 1)), [1, 2, 1, 2], fractions=(0.5, 0.6))
