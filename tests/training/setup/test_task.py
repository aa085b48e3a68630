"""Which training learns from which clips."""

import numpy as np
import pytest

from spectag.scoring.metrics import lwlrap
from spectag.training.setup.holdout import HeldOut
from spectag.training.setup.noisy_labels import relabel
from spectag.training.setup.task import ALL_CLIPS, CrossValidation

Y_TRUE = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]


def held_out(*rows, is_share=False):
    rows = tuple(np.isin(np.arange(len(Y_TRUE)), part) for part in rows)
    return HeldOut(tuple(str(number) for number in range(1, len(rows) + 1)), rows, is_share, "")


def rows_of(clips):
    return np.flatnonzero(clips).tolist()


def noisy_of(n_clips):
    given = np.ones((n_clips, 3), bool)
    return relabel(np.zeros(given.shape), given, keeps_doubtful=True)


def test_folds_are_trained_on_all_but_their_clips_and_then_the_whole():
    task = CrossValidation.of(Y_TRUE, held_out([0, 1], [2, 3], [4, 5]))
    assert [part.name for part in task.all_folds] == ["fold 1", "fold 2", "fold 3", ALL_CLIPS]
    assert [rows_of(part.valid) for part in task.parts] == [[0, 1], [2, 3], [4, 5]]
    assert [rows_of(part.train) for part in task.parts] == [[2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3]]
    assert task.whole.train.all()
    assert not task.whole.valid.any()


def test_a_share_is_one_training_and_no_whole():
    task = CrossValidation.of(Y_TRUE, held_out([1, 4], is_share=True))
    assert task.whole is None
    assert len(task.all_folds) == 1
    assert rows_of(task.parts[0].train) == [0, 2, 3, 5]


def test_without_held_out_clips_there_is_one_training_on_all():
    task = CrossValidation.of(Y_TRUE, held_out())
    assert [part.name for part in task.all_folds] == [ALL_CLIPS]
    assert task.parts[0].train.all()
    assert task.whole is None


@pytest.mark.parametrize(
    ("choice", "n_parts"),
    [(held_out([0, 1, 2], [3, 4, 5]), 3), (held_out([0], is_share=True), 1), (held_out(), 1)],
    ids=["folds", "share", "none"],
)
def test_each_training_gets_its_own_noisy_clips(choice, n_parts):
    task = CrossValidation.of(Y_TRUE, choice)
    noisy = [noisy_of(number) for number in range(1, n_parts + 1)]
    with_noisy = task.with_noisy(noisy)
    assert [part.noisy for part in with_noisy.all_folds] == noisy
    assert [part.name for part in with_noisy.all_folds] == [part.name for part in task.all_folds]
    assert (with_noisy.whole is None) == (task.whole is None)
    assert all(part.noisy is None for part in task.all_folds)


def test_noisy_clips_for_another_number_of_trainings_are_refused():
    with pytest.raises(ValueError, match=r"longer|shorter"):
        CrossValidation.of(Y_TRUE, held_out()).with_noisy([noisy_of(1)] * 2)


def test_score_is_lwlrap_of_the_clips_that_were_held_out_and_have_a_label(rng):
    y_true = Y_TRUE.copy()
    y_true[1] = False
    logits = rng.normal(size=y_true.shape)
    logits[4:] = np.nan
    assert CrossValidation.of(y_true, held_out()).score(logits) == lwlrap(y_true[[0, 2, 3]], logits[[0, 2, 3]])


@pytest.mark.parametrize("seen", [[], [1]])
def test_there_is_no_score_without_a_held_out_clip_that_has_a_label(seen):
    y_true = Y_TRUE.copy()
    y_true[1] = False
    logits = np.full(y_true.shape, np.nan)
    logits[seen] = 0.0
    assert CrossValidation.of(y_true, held_out()).score(logits) is None
