"""The plan of a training: expected times by a clock that counts the clips whose features are computed."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.small_training import SMALL_MEL, write_sounds
from spectag.audio.front_end import FrontEnd
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.system.progress import silent
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members.member import open_inputs
from spectag.training.planning import FinetuneCost, FrozenCost, MemberPlan, allot, cost_of_frozen, rounded
from spectag.training.setup.callbacks import Callbacks


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (75.0, "75 s"), (1260.0, "21 min"), (9000.0, "2.5 h")], ids=str
)
def test_expected_time_has_the_precision_of_an_estimate(seconds, text):
    assert rounded(seconds) == text


def test_plan_names_trainings_epochs_and_mixed_clips():
    assert str(MemberPlan("mn04", 5, 600.0, n_epochs=30)) == "mn04: 5 trainings of 30 epochs, about 10 min"
    assert str(MemberPlan("mn04", 1, 60.0, 500)) == "mn04: 1 training with 500 mixed clips, about 60 s"
    assert str(MemberPlan("mn04", 0, 0.0)) == "mn04: left out, because it takes too long"
    too_long = MemberPlan("mn04", 0, 0.0, cost=FrozenCost(30.0, 10.0, writing=5.0))
    assert str(too_long) == "mn04: left out, because it takes too long: it needs about 45 s"


@pytest.fixture
def slow_store(monkeypatch):
    """Each clip takes 2 s by this clock, and opening the network 5 s. An export or a head takes no time."""
    now, make = [0.0], FeatureStore._make

    def make_slowly(store, missing, *arguments):
        now[0] += 5.0 + 2.0 * len(missing)
        make(store, missing, *arguments)

    monkeypatch.setattr(FeatureStore, "_make", make_slowly)
    monkeypatch.setattr("spectag.training.planning.time.monotonic", lambda: now[0])
    monkeypatch.setattr("spectag.training.planning.seconds_per_export", lambda *_, **__: 4.0)


@pytest.fixture
def inputs(tmp_path):
    def make(n_mixed=0):
        folder = tmp_path / "sounds"
        table = folder / "clips.csv" if folder.exists() else write_sounds(folder, n_clips=30)
        recipe = Recipe(backbone="scratch", mel=SMALL_MEL, n_mixed_clips=n_mixed)
        front_end = FrontEnd(mel=SMALL_MEL)
        return open_inputs(read_manifest(table), None, recipe, front_end, tmp_path / "cache", Callbacks(), workers=1)

    return make


@pytest.mark.parametrize("n_mixed", [0, 100])
@pytest.mark.usefixtures("slow_store")
def test_cost_is_measured_on_a_few_clips(inputs, n_mixed):
    """Of 30 clips, ten are measured and kept, so 20 are left. What is done once for all clips does not count."""
    member = inputs(n_mixed)
    cost = cost_of_frozen(member, member.clips.manifest.multi_hot(), [20] * 4)
    assert cost == FrozenCost(20 * 2.0, 0.0, 2.0 if n_mixed else 0.0, n_mixed, 4, 6.0)


@pytest.mark.usefixtures("slow_store")
def test_heads_cost_what_those_of_their_folds_do(inputs, monkeypatch):
    """Half of the clips are trained on, and of 40 mixed clips the quarter that has both parents among these."""
    sizes = []

    def fit(training, targets, shrinkages):
        sizes.append(training.clips.shape[0])
        monkeypatch.setattr("spectag.training.planning.time.monotonic", lambda: 100.0)

    monkeypatch.setattr("spectag.training.planning.fit_discriminant_heads", fit)
    monkeypatch.setattr("spectag.training.planning.n_usable_cores", lambda: 2)
    member = inputs(n_mixed=40)
    member.store.of_clips(member.clips, progress=silent)
    monkeypatch.setattr("spectag.training.planning.time.monotonic", lambda: 0.0)
    cost = cost_of_frozen(member, member.clips.manifest.multi_hot(), [10, 20, 15, 15])
    assert sizes == [15 + 10]
    assert cost.heads == 2.0 * 4 / 2 * 100.0


@pytest.mark.usefixtures("slow_store")
def test_clips_in_the_cache_cost_nothing_and_do_not_make_others_seem_fast(inputs):
    """The first ten clips are in the cache: of the other 20, ten are measured."""
    member = inputs()
    member.store.compute(member.clips.part_keys[:10], member.clips.inputs, progress=silent)
    y_true = member.clips.manifest.multi_hot()
    assert cost_of_frozen(member, y_true, [20] * 4).features == 10 * 2.0
    member.store.of_clips(member.clips, progress=silent)
    assert cost_of_frozen(member, y_true, [20] * 4).features == 0.0


MN04 = FrozenCost(features=20.0, heads=5.0, per_mixed_clip=0.01, n_mixed_clips=3000, n_trainings=6, writing=2.0)
LITE0 = FrozenCost(features=30.0, heads=5.0, n_trainings=6, writing=2.0)
TUNED = FinetuneCost((4.0, 3.0, 3.0, 3.0), 30, min_trainings=3, writing=3.0, is_beside_others=True)
MEMBERS = {"mn04": MN04, "lite0": LITE0, "tuned": TUNED}


@pytest.mark.parametrize(
    ("seconds", "n_mixed", "has_lite0", "n_epochs"),
    [
        (None, 3000, True, 30),
        (1000.0, 3000, True, 30),
        (125.0, 1250, False, 8),  # 27 s, 10 s for 1000 mixed clips, 83 s for 8 epochs of 10 s, and 5 s are left
        (100.0, 3000, False, 0),  # no time for 8 epochs
        (98.0, 3000, True, 0),
        (35.0, 750, False, 0),
        (10.0, 0, False, 0),
    ],
)
def test_mixed_clips_come_first_then_fine_tuning_then_other_networks(seconds, n_mixed, has_lite0, n_epochs):
    plans = allot(MEMBERS, seconds)
    assert plans["mn04"].n_mixed_clips == n_mixed
    assert plans["mn04"].n_trainings == 6
    if seconds != 100.0:
        assert bool(plans["lite0"].n_trainings) == has_lite0
    assert (plans["tuned"].n_epochs if plans["tuned"].n_trainings else 0) == n_epochs


@given(seconds=st.floats(0, 2000), features=st.floats(0, 100), of_mixed=st.floats(1e-4, 1), of_epoch=st.floats(0.1, 50))
def test_plans_fit_the_time_except_the_first_frozen_member(seconds, features, of_mixed, of_epoch):
    mn04 = dataclasses.replace(MN04, features=features, per_mixed_clip=of_mixed)
    tuned = dataclasses.replace(TUNED, per_epoch=(of_epoch,) * 4)
    plans = allot({"mn04": mn04, "lite0": LITE0, "tuned": tuned}, seconds)
    total = sum(plan.seconds_with_writing for plan in plans.values())
    assert total <= max(seconds, mn04.seconds + mn04.writing) + 1e-6
    if not allot({"mn04": mn04}, seconds, must_fit=False)["mn04"].n_trainings:
        assert sum(plan.n_trainings > 0 for plan in plans.values()) == 1
