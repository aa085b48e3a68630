"""How long a training still takes: from its plan, its budget, its epochs, or its first steps."""

import pytest

from helpers.small_training import small_recipe
from spectag.config.recipe import Recipe
from spectag.serving.project.time_left import TimeLeft
from spectag.system.epoch_log import Epoch
from spectag.system.progress import no_log, silent, training_step
from spectag.training.planning import rounded


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def listener(recipe):
    told, clock = [], Clock()
    return TimeLeft(recipe, told.append, clock), told, clock


def test_budget_runs_down():
    left, told, clock = listener(Recipe(budget=600))
    progress = left.progress(silent)
    for clock.now in (100.0, 700.0):
        progress("features by mn04_audioset", 1, 100)
    assert told == [500.0, 0.0]


@pytest.mark.parametrize(("seconds", "expected"), [(45.0, 45.0), (600.0, 600.0), (7200.0, 7200.0)])
def test_plan_that_is_logged_is_understood(seconds, expected):
    left, told, _ = listener(Recipe(members=({}, {"backbone": "efficientnet_lite0"})))
    lines = []
    left.log(lines.append)(f"plan: about {rounded(seconds)} in all, with reading the sounds and writing the model")
    assert told == [expected]
    assert len(lines) == 1


def test_line_of_a_member_is_not_the_plan_of_all():
    left, told, _ = listener(Recipe())
    left.log(no_log)("plan: mn04_audioset frozen: 6 trainings, about 40 s")
    assert told == []


def test_epochs_of_several_trainings_are_all_counted():
    left, told, clock = listener(small_recipe())
    progress, on_epoch = left.progress(silent), left.on_epoch(lambda _: None)
    progress(*training_step("", 0, 4))
    clock.now = 10.0
    on_epoch(Epoch(1, 0.5, None, None, None, n_epochs=2))
    assert told == [pytest.approx(70.0)], "an eighth took 10 s"
    progress(*training_step("", 1, 4))
    clock.now = 30.0
    on_epoch(Epoch(2, 0.5, None, None, None, n_epochs=2))
    assert told[-1] == pytest.approx(30.0)


def test_epochs_that_a_resumed_training_repeats_take_no_time():
    left, told, clock = listener(small_recipe())
    on_epoch = left.on_epoch(lambda _: None)
    left.progress(silent)(*training_step("", 0, 1))
    for number in (1, 2, 3):
        on_epoch(Epoch(number, 0.5, None, None, None, n_epochs=10))
    assert told == []
    clock.now = 10.0
    on_epoch(Epoch(4, 0.5, None, None, None, n_epochs=10))
    assert told == [pytest.approx(60.0)]


def test_steps_that_follow_are_expected_at_the_speed_of_this_one():
    left, told, clock = listener(Recipe())
    progress = left.progress(silent)
    progress("log-mels", 0, 100)
    clock.now = 20.0  # the processes start
    progress("log-mels", 1, 100)
    assert told == []
    clock.now = 22.0
    progress("log-mels", 51, 100)
    first = told[-1]
    assert first > 49 * 2.0 / 50, "more than this step alone"
    clock.now = 30.0
    progress("features by mn04_audioset", 1, 100)
    assert told[-1] < first, "fingerprints were in the cache"
    progress("heads", 5, 5)
    assert told[-1] < 10


def test_nothing_is_told_about_fine_tuning_before_its_first_epoch():
    left, told, clock = listener(small_recipe())
    clock.now = 60.0
    left.progress(silent)("log-mels", 50, 100)
    assert told == []
