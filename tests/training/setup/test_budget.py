"""The time budget: what is left of it by a given clock, and what fits into it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.training.setup.budget import ENOUGH_EPOCHS, MIN_EPOCHS, Budget, affordable
from spectag.training.setup.distributed import Processes


@pytest.mark.parametrize(
    ("seconds", "elapsed", "note"),
    [
        (1800.0, 1080.0, ", 12 min left of 30"),
        (180.0, 90.0, ", 1.5 min left of 3"),
        (7200.0, 1800.0, ", 1.5 h left of 2"),
        (90.0, 100.0, ", 0.0 min left of 1.5"),
        (None, 100.0, ""),
    ],
)
def test_note_says_what_is_left_of_the_budget(seconds, elapsed, note):
    now = [5.0]
    budget = Budget(seconds, Processes(), lambda: now[0])
    now[0] += elapsed
    assert budget.note() == note
    assert budget.left == (None if seconds is None else seconds - elapsed)


@given(
    seconds=st.floats(-10, 1e5),
    per_epoch=st.lists(st.floats(0.01, 1e3), min_size=3, max_size=10),
    n_epochs=st.integers(1, 50),
    min_trainings=st.integers(1, 3),
)
def test_affordable_trainings_fit_the_time_and_are_long_enough(seconds, per_epoch, n_epochs, min_trainings):
    epochs, trainings = affordable(seconds, per_epoch, n_epochs, min_trainings)
    assert epochs * sum(per_epoch[:trainings]) <= max(seconds, 0) + 1e-6
    assert epochs <= n_epochs
    assert trainings == 0 or min_trainings <= trainings <= len(per_epoch)
    assert epochs == 0 or epochs >= min(MIN_EPOCHS, n_epochs)
    assert trainings <= min_trainings or epochs >= min(ENOUGH_EPOCHS, n_epochs)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1e6, (30, 5)), (800.0, (16, 5)), (390.0, (9, 4)), (79.0, (7, 1)), (29.0, (0, 0))]
)
def test_folds_are_left_out_rather_than_epochs(seconds, expected):
    """An epoch takes 10 s."""
    assert affordable(seconds, [10.0] * 5, 30) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(320.0, (8, 3)), (319.0, (7, 3)), (120.0, (3, 3)), (119.0, (0, 0))])
def test_epochs_are_left_out_rather_than_trainings_that_are_needed(seconds, expected):
    """An epoch takes 20, 10, 10 and 10 s; the first three trainings are needed."""
    assert affordable(seconds, [20.0, 10.0, 10.0, 10.0], 30, 3) == expected
