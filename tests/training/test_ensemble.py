"""What the members of a tagger share: the time, and clips whose labels may be wrong."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.small_training import SMALL_MEL, small_recipe, write_sounds
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.scoring.blending import EnsembleWeights
from spectag.system.progress import silent
from spectag.training.ensemble import TrainingRun, _blend
from spectag.training.members.member import MemberFit
from spectag.training.setup.distributed import Processes
from spectag.training.setup.holdout import hold_out
from spectag.training.setup.task import CrossValidation


@pytest.fixture
def run(tmp_path):
    def make(recipe, log=lambda _: None):
        processes = Processes.started(for_frozen_alone=False)
        return TrainingRun(recipe, tmp_path / "model", tmp_path / "bank", processes, False, silent, log, lambda _: None)

    return make


def with_groups(table, groups):
    """Write a group into each row of a table."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "group"])
        writer.writeheader()
        writer.writerows(row | {"group": group} for row, group in zip(rows, groups, strict=True))
    return read_manifest(table)


def test_noisy_clips_of_a_group_that_is_held_out_are_not_learnt_from_there(tmp_path, run):
    """Groups 0 to 2 are in fold 0, groups 3 to 5 in fold 1; the noisy clips, other sounds, are of groups 1, 4 and 9."""
    manifest = with_groups(write_sounds(tmp_path / "true"), [i % 3 + 3 * (i // 3 % 2) for i in range(12)])
    noisy = with_groups(write_sounds(tmp_path / "noisy", seconds=0.6), [1] * 4 + [4] * 4 + [9] * 4)
    said = []
    recipe = Recipe(backbone="scratch", mel=SMALL_MEL, folds="given")
    run = run(recipe, said.append)
    [heard] = run.hear(manifest, noisy, 1)
    task = run.with_noisy(CrossValidation.of(manifest.multi_hot(), hold_out(manifest, recipe)), heard)
    kept = np.array([part.noisy.weights > 0 for part in task.all_folds])
    expected = [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1], [1] * 12]
    np.testing.assert_array_equal(kept, np.array(expected, bool))
    assert any(line.startswith("8 noisy clips are of the manifest's own recordings or groups") for line in said)


def test_fine_tuned_members_share_the_time_however_many_trainings_each_has(run, monkeypatch):
    """A thousand seconds but for 20 for the bundle and 20 for each of two: 470 for each member, whatever is used."""
    clock, seconds = SimpleNamespace(now=0.0), []
    monkeypatch.setattr("spectag.training.ensemble.time", SimpleNamespace(monotonic=lambda: clock.now))

    def learn(heard, task, place, **_):
        for used in (100.0, 200.0):
            seconds.append(place.seconds_left())
            clock.now += used
        return MemberFit((), np.zeros((2, 1)))

    monkeypatch.setattr("spectag.training.members.finetuned.fit_finetuned", learn)
    monkeypatch.setattr("spectag.training.ensemble._fingerprint", lambda *_: "")
    recipe = small_recipe()
    members = [SimpleNamespace(recipe=recipe), SimpleNamespace(recipe=recipe)]
    task = CrossValidation(np.array([[True], [False]]), (), None)
    run(Recipe(budget=1000)).fit(members, task)
    assert seconds == [470.0, 370.0, 660.0, 560.0]


def test_member_without_which_held_out_clips_are_ranked_much_better_has_no_weight(rng, monkeypatch):
    """A member whose logits lay near 0 got a huge weight once, and the blend was worse than the other alone."""
    monkeypatch.setattr(
        "spectag.training.ensemble.fit_ensemble_weights", lambda logits, _: EnsembleWeights(tuple(1.0 for _ in logits))
    )
    y_true = np.eye(4, dtype=bool)[np.arange(40) % 4]
    good, harmful, harmless = np.where(y_true, 1.0, -1.0), 5 * rng.normal(size=(40, 4)), rng.normal(size=(40, 4)) / 10
    for fits in ([good, harmful, harmless], [harmful, good, harmless]):
        blend = _blend([MemberFit((), logits) for logits in fits], CrossValidation(y_true, (), None))
        assert [weight > 0 for weight in blend.weights] == [logits is not harmful for logits in fits]


def test_member_that_knows_other_things_has_weight(rng):
    y_true = np.eye(4, dtype=bool)[np.arange(80) % 4]
    signal = np.where(y_true, 1.0, -1.0)
    fits = [MemberFit((), signal * share + rng.normal(size=(80, 4))) for share in ([1, 1, 0, 0], [0, 0, 1, 1])]
    blend = _blend(fits, CrossValidation(y_true, (), None))
    assert min(blend.weights) > 0
