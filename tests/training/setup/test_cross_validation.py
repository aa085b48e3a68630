"""Which network is trained on which clips."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from spectag.scoring.metrics import lwlrap
from spectag.training.setup.cross_validation import ALL_CLIPS, CrossValidation
from spectag.training.setup.held_out import HeldOut
from spectag.training.setup.noisy_labels import relabel_noisy

Y_TRUE = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]


def held_out(*rows, is_single_split=False):
    rows = tuple(np.isin(np.arange(len(Y_TRUE)), fold) for fold in rows)
    return HeldOut(tuple(str(number) for number in range(1, len(rows) + 1)), rows, is_single_split, "")


def rows_of(clips):
    return np.flatnonzero(clips).tolist()


def noisy_of(n_clips):
    given = np.ones((n_clips, 3), bool)
    return relabel_noisy(np.zeros(given.shape), given, keep_doubtful=True)


def test_each_fold_is_trained_on_the_other_clips_and_the_last_training_on_all():
    cross_validation = CrossValidation.of(Y_TRUE, held_out([0, 1], [2, 3], [4, 5]))
    assert [fold.name for fold in cross_validation.trainings] == ["fold 1", "fold 2", "fold 3", ALL_CLIPS]
    assert [rows_of(fold.valid) for fold in cross_validation.folds] == [[0, 1], [2, 3], [4, 5]]
    assert [rows_of(fold.train) for fold in cross_validation.folds] == [[2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3]]
    assert cross_validation.all_clips.train.all()
    assert not cross_validation.all_clips.valid.any()


def test_single_split_is_one_training_and_none_on_all_clips():
    cross_validation = CrossValidation.of(Y_TRUE, held_out([1, 4], is_single_split=True))
    assert cross_validation.all_clips is None
    assert len(cross_validation.trainings) == 1
    assert rows_of(cross_validation.folds[0].train) == [0, 2, 3, 5]


def test_clips_of_weight_0_are_held_out_but_not_trained_on():
    weights = np.array([0, 1, 3, 0, 2, 2.0])
    cross_validation = CrossValidation.of(Y_TRUE, held_out([0, 1], [2, 3]), weights)
    assert [rows_of(fold.valid) for fold in cross_validation.folds] == [[0, 1], [2, 3]]
    assert [rows_of(fold.train) for fold in cross_validation.trainings] == [[2, 4, 5], [1, 4, 5], [1, 2, 4, 5]]
    for fold in cross_validation.trainings:
        assert fold.weights_of(np.arange(6)).tolist() == [0, 0.5, 1.5, 0, 1, 1]


def test_without_held_out_clips_there_is_one_training_on_all_clips():
    cross_validation = CrossValidation.of(Y_TRUE, held_out())
    assert [fold.name for fold in cross_validation.trainings] == [ALL_CLIPS]
    assert cross_validation.folds[0].train.all()
    assert cross_validation.all_clips is None


@pytest.mark.parametrize(
    ("choice", "n_trainings"),
    [(held_out([0, 1, 2], [3, 4, 5]), 3), (held_out([0], is_single_split=True), 1), (held_out(), 1)],
    ids=["folds", "single split", "none"],
)
def test_each_training_gets_its_own_noisy_clips(choice, n_trainings):
    cross_validation = CrossValidation.of(Y_TRUE, choice)
    noisy = [noisy_of(number) for number in range(1, n_trainings + 1)]
    with_noisy = cross_validation.with_noisy(noisy)
    assert [fold.noisy for fold in with_noisy.trainings] == noisy
    assert [fold.name for fold in with_noisy.trainings] == [fold.name for fold in cross_validation.trainings]
    assert (with_noisy.all_clips is None) == (cross_validation.all_clips is None)
    assert all(fold.noisy is None for fold in cross_validation.trainings)


def test_noisy_clips_for_another_number_of_trainings_are_refused():
    with pytest.raises(ValueError, match=r"longer|shorter"):
        CrossValidation.of(Y_TRUE, held_out()).with_noisy([noisy_of(1)] * 2)


def test_score_is_lwlrap_of_held_out_clips_with_a_label(rng):
    y_true = Y_TRUE.copy()
    y_true[1] = False
    logits = rng.normal(size=y_true.shape)
    logits[4:] = np.nan
    assert CrossValidation.of(y_true, held_out()).score(logits) == lwlrap(y_true[[0, 2, 3]], logits[[0, 2, 3]])


@pytest.mark.parametrize("rows", [[], [1]])
def test_there_is_no_score_without_a_held_out_clip_that_has_a_label(rows):
    y_true = Y_TRUE.copy()
    y_true[1] = False
    logits = np.full(y_true.shape, np.nan)
    logits[rows] = 0.0
    assert CrossValidation.of(y_true, held_out()).score(logits) is None


def test_with_one_label_the_order_of_clips_is_scored_and_chosen_by(rng):
    """lwlrap looks at the order of labels within a clip, so with one label it is 1 for any logits."""
    y_true = (np.arange(60) % 3 == 0)[:, None]
    folds = HeldOut(("1", "2"), (np.arange(60) < 30, np.arange(60) >= 30), False, "")
    cross_validation = CrossValidation.of(y_true, folds)
    noise = rng.normal(size=y_true.shape)
    choice = cross_validation.choose([noise, noise + 3 * y_true, noise - 3 * y_true])
    assert (choice.best, choice.best_without) == (1, (1, 1))
    logits = noise + 3 * y_true
    assert cross_validation.score(logits) == pytest.approx(average_precision_score(y_true[:, 0], logits[:, 0]))


# ------------------------------------------------------------------------------------------------ parts for choices


def test_parts_are_the_folds_and_several_folds_together_if_there_are_many():
    cross_validation = CrossValidation.of(Y_TRUE, held_out([0, 1], [2, 3], [4]))
    assert cross_validation.parts.tolist() == [0, 0, 1, 1, 2, -1]
    one_clip_each = CrossValidation.of(Y_TRUE, held_out([0], [1], [2], [3], [4], [5]))
    assert one_clip_each.parts.tolist() == [0, 1, 2, 3, 4, 0]


def test_held_out_clips_of_a_single_split_are_dealt_to_parts_by_recording():
    n_clips = 40
    groups = tuple(f"recording {number // 2}" for number in range(n_clips))
    rows = np.arange(n_clips) >= 8
    split = CrossValidation.of(np.ones((n_clips, 1), bool), HeldOut(("valid",), (rows,), True, "", groups=groups))
    assert (split.parts[:8] == -1).all()
    assert set(split.parts[8:]) == set(range(split.n_parts))
    assert split.n_parts > 2
    np.testing.assert_array_equal(split.parts[::2], split.parts[1::2])


def test_fold_is_not_trained_on_clips_that_are_left_out_of_it():
    left_out = np.isin(np.arange(6), [2, 5])
    choice = dataclasses.replace(held_out([0, 1], [2, 3]), left_out=(left_out, np.zeros(6, bool)))
    first, second = CrossValidation.of(Y_TRUE, choice).folds
    assert (rows_of(first.train), rows_of(first.valid)) == ([3, 4], [0, 1])
    assert rows_of(second.train) == [0, 1, 4, 5]


@pytest.mark.parametrize("groups", [None, ("one",) * 6])
def test_there_are_no_two_parts_of_one_recording_or_of_no_held_out_clip(groups):
    assert CrossValidation.of(Y_TRUE, held_out()).n_parts == 0
    choice = dataclasses.replace(held_out([1, 4], is_single_split=True), groups=groups)
    split = CrossValidation.of(Y_TRUE, choice)
    assert split.n_parts == (2 if groups is None else 1)
