import csv
import doctest
import json
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from helpers.paths import SHARED
from spectag.data.folds import balance, holdout, random_holdout, stratified_folds
from spectag.errors import DataError

ESC10 = SHARED / "data" / "esc10" / "esc10.csv"


@st.composite
def clips(draw, *, single_label=False):
    """Random truth with some groups: (y_true, groups), at least two groups."""
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
    """Groups of very different size, each with its own habits; about 1,500 clips."""
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
def test_a_label_with_enough_groups_of_one_clip_is_in_every_fold(drawn, data, seed):
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
def test_clips_without_labels_are_spread_as_evenly_as_moving_one_group_can(drawn, data):
    groups = drawn[1]
    n_folds = n_folds_for(data, groups)
    folds = stratified_folds(np.zeros((len(groups), 3)), n_folds, groups=groups)
    sizes = np.bincount(folds)[1:]
    in_largest = Counter(groups[folds == sizes.argmax() + 1].tolist())
    assert sizes.max() - sizes.min() <= min(in_largest.values())


def test_labelled_and_unlabelled_clips_are_both_spread(rng):
    y_true = rng.random((500, 10)) < 0.1
    y_true[:100] = False
    folds = stratified_folds(y_true, 5)
    assert np.ptp(np.bincount(folds)[1:]) <= 2
    assert np.ptp(np.bincount(folds[~y_true.any(axis=1)])[1:]) <= 4


@pytest.mark.parametrize("n_folds", [2, 5, 10])
def test_folds_are_alike_in_size_and_labels_and_far_better_than_chance(rng, n_folds):
    y_true, groups = user_like_clips(rng)
    found = balance(y_true, stratified_folds(y_true, n_folds, groups=groups), groups=groups)
    assert found.mean < found.random_mean / 2
    assert found.worst < found.random_worst
    assert np.abs(found.sizes / len(y_true) - 1 / n_folds).max() < 0.02


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_split_is_better_than_chance_on_any_seed(seed):
    rng = np.random.default_rng(seed)
    y_true, groups = rng.random((60, 5)) < 0.3, rng.integers(30, size=60)
    found = balance(y_true, stratified_folds(y_true, 3, groups=groups, seed=seed % 100), groups=groups)
    assert found.mean < found.random_mean


@given(clips(), st.data(), st.randoms(use_true_random=False))
def test_the_order_of_the_labels_does_not_matter(drawn, data, random):
    y_true, groups = drawn
    n_folds = n_folds_for(data, groups)
    shuffled = random.sample(range(y_true.shape[1]), y_true.shape[1])
    folds = stratified_folds(y_true, n_folds, groups=groups)
    assert np.array_equal(folds, stratified_folds(y_true[:, shuffled], n_folds, groups=groups))


def test_one_seed_gives_one_split_and_another_seed_another(rng):
    y_true = rng.random((100, 5)) < 0.3
    folds = stratified_folds(y_true, 5, seed=1)
    assert np.array_equal(folds, stratified_folds(y_true, 5, seed=1))
    assert not np.array_equal(folds, stratified_folds(y_true, 5, seed=2))


def test_a_huge_group_does_not_keep_a_label_out_of_the_folds():
    # 200 clips of one person with label 0, and five single clips of label 1: each fold must get one of them.
    y_true = np.eye(2, dtype=bool)[[0] * 200 + [1] * 5]
    folds = stratified_folds(y_true, 5, groups=[*["one"] * 200, *range(5)])
    assert sorted(folds[200:]) == [1, 2, 3, 4, 5]


def test_a_clip_whose_group_is_none_is_a_group_of_its_own():
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


def test_more_folds_than_groups_or_fewer_than_two_are_refused():
    with pytest.raises(DataError, match="can't make 5 folds of 3 groups of clips"):
        stratified_folds(np.ones((9, 1)), 5, groups=[1, 2, 3] * 3)
    with pytest.raises(DataError, match="can't make 10 folds of 9 clips; ask for fewer"):
        stratified_folds(np.ones((9, 1)), 10)
    with pytest.raises(DataError, match="at least 2 of them, got 1"):
        stratified_folds(np.ones((9, 1)), 1)


def test_arrays_that_do_not_fit_are_refused_with_their_shapes():
    with pytest.raises(ValueError, match="for each of 3 clips, got 2"):
        stratified_folds(np.ones((3, 1)), 2, groups=["a", "b"])
    with pytest.raises(ValueError, match=r"\(n_clips, n_labels\), got float64 \(3,\)"):
        stratified_folds(np.ones(3), 2)
    with pytest.raises(ValueError, match="must hold true and false"):
        holdout(np.full((3, 2), 0.5), 0.5)
    with pytest.raises(ValueError, match=r"got bool \(0, 2\)"):
        holdout(np.ones((0, 2), bool), 0.5)


@given(clips(), st.floats(0.01, 0.99), st.integers(0, 3))
def test_no_group_is_on_both_sides_of_a_holdout_and_neither_side_is_empty(drawn, validation_fraction, seed):
    y_true, groups = drawn
    is_valid = holdout(y_true, validation_fraction, groups=groups, seed=seed)
    assert is_valid.dtype == bool
    assert is_valid.any()
    assert not is_valid.all()
    assert not set(groups[is_valid].tolist()) & set(groups[~is_valid].tolist())


@given(clips(), st.floats(0.01, 0.99))
def test_the_share_of_a_holdout_is_hit_within_half_a_group(drawn, validation_fraction):
    groups = drawn[1]
    is_valid = holdout(np.zeros((len(groups), 1)), validation_fraction, groups=groups)
    distance = abs(is_valid.sum() - validation_fraction * len(groups))
    one_group_is_a_side = 1 in {len(set(groups[side].tolist())) for side in (is_valid, ~is_valid)}
    assert one_group_is_a_side or distance <= max(Counter(groups.tolist()).values()) / 2 + 1e-6


@pytest.mark.parametrize("validation_fraction", [0.1, 0.25, 0.5])
def test_a_holdout_has_its_share_of_every_label_and_beats_chance(rng, validation_fraction):
    y_true, groups = user_like_clips(rng)
    is_valid = holdout(y_true, validation_fraction, groups=groups)
    found = balance(y_true, is_valid, groups=groups, shares=(1 - validation_fraction, validation_fraction))
    assert is_valid.mean() == pytest.approx(validation_fraction, abs=0.01)
    assert found.mean < found.random_mean / 2


def test_a_holdout_of_single_clips_takes_the_same_share_of_each_label():
    y_true = np.eye(4, dtype=bool)[[0] * 40 + [1] * 20 + [2] * 8 + [3] * 4]
    assert y_true[holdout(y_true, 0.25)].sum(axis=0).tolist() == [10, 5, 2, 1]


def test_of_groups_much_larger_than_the_share_the_smallest_is_held_out():
    is_valid = holdout(np.ones((100, 1)), 0.05, groups=[*["a"] * 40, *["b"] * 25, *["c"] * 35])
    assert np.flatnonzero(is_valid).tolist() == list(range(40, 65))


def test_impossible_holdouts_are_refused():
    for share in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(DataError, match="above 0 and below 1, got"):
            holdout(np.ones((4, 1)), share)
    with pytest.raises(DataError, match="at least 2 groups of clips, got 1"):
        holdout(np.ones((4, 1)), 0.5, groups=["a"] * 4)


@pytest.mark.parametrize("n_clips", [2, 3, 4, 5, 7, 10, 11, 99, 100, 1000, 4970])
@pytest.mark.parametrize("validation_fraction", [0.1, 0.2, 0.25, 1 / 3, 0.5, 0.7])
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_random_holdout_gives_the_rows_of_scikit_learn_in_its_order(n_clips, validation_fraction, seed):
    try:
        expected = train_test_split(range(n_clips), test_size=validation_fraction, random_state=seed)
    except ValueError:
        with pytest.raises(DataError, match="leaves none to train on"):
            random_holdout(n_clips, validation_fraction, seed=seed)
        return
    train, valid = random_holdout(n_clips, validation_fraction, seed=seed)
    assert [train.tolist(), valid.tolist()] == expected


def test_random_holdout_refuses_shares_and_sizes_that_leave_a_side_empty():
    with pytest.raises(DataError, match="above 0 and below 1, got 25"):
        random_holdout(100, 25, seed=0)
    with pytest.raises(DataError, match=r"0.25 of 1 clips for validation leaves none to train on"):
        random_holdout(1, 0.25, seed=0)


def test_balance_worked_by_hand():
    # Label 0: 3 clips and 1 clip of 4, so 0.25 from a half; label 1: 1 and 1; label 2 is nobody's and does not count.
    y_true = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]])
    found = balance(y_true, ["a", "a", "a", "b", "b"])
    assert found.parts == ("a", "b")
    assert found.sizes.tolist() == [3, 2]
    assert found.counts.tolist() == [[3, 1, 0], [1, 1, 0]]
    assert found.worst == pytest.approx(0.25)
    assert found.mean == pytest.approx(0.125)


def test_chance_knows_of_groups():
    # Two groups of one label each: every random split by group in two parts tears the labels apart.
    y_true = np.eye(2, dtype=bool)[[0] * 10 + [1] * 10]
    by_group = balance(y_true, [1, 2] * 10, groups=[0] * 10 + [1] * 10)
    assert by_group.worst == 0
    assert by_group.random_worst == pytest.approx(0.5)
    assert balance(y_true, [1, 2] * 10).random_worst < 0.4


def test_balance_of_a_holdout_is_measured_against_its_shares():
    y_true = np.ones((8, 1))
    found = balance(y_true, np.arange(8) < 2, shares=(0.75, 0.25))
    assert found.parts == (False, True)
    assert found.worst == found.random_worst == 0


def test_balance_without_any_label_is_perfect_and_goes_to_json():
    found = balance(np.zeros((4, 2)), [1, 1, 2, 2])
    assert json.loads(json.dumps(found.to_dict())) == {
        "parts": [1, 2],
        "sizes": [2, 2],
        "counts": [[0, 0], [0, 0]],
        "worst": 0.0,
        "mean": 0.0,
        "random_worst": 0.0,
        "random_mean": 0.0,
    }


def test_balance_refuses_folds_and_shares_that_do_not_fit():
    with pytest.raises(ValueError, match="a fold for each of 4 clips, got 3"):
        balance(np.ones((4, 1)), [1, 2, 1])
    with pytest.raises(ValueError, match=r"each of 2 parts, 1 in sum, got \[0.5, 0.6\]"):
        balance(np.ones((4, 1)), [1, 2, 1, 2], shares=(0.5, 0.6))


def test_the_examples_in_the_docstrings_are_right():
    result = doctest.testmod(sys.modules["spectag.data.folds"])
    assert result.attempted > 0
    assert result.failed == 0
