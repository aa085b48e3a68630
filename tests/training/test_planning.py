"""The plan of a training: expected times by a clock that counts the clips whose features are computed."""

import pytest

from helpers.small_training import SMALL_MEL, write_sounds
from spectag.audio.front_end import FrontEnd
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members.member import open_inputs
from spectag.training.planning import MemberPlan, cost_of_frozen, rounded
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


@pytest.mark.parametrize("n_mixed", [0, 100])
def test_cost_is_measured_on_a_few_clips(tmp_path, monkeypatch, n_mixed):
    """Each clip takes 2 s by this clock, however long the export takes; and each of four heads a second."""
    now, make_missing = [0.0], FeatureStore._make_missing

    def make(store, keys, *arguments):
        now[0] += 2.0 * sum(not store._path(key).exists() for key in set(keys))
        make_missing(store, keys, *arguments)

    monkeypatch.setattr(FeatureStore, "_make_missing", make)
    monkeypatch.setattr("spectag.training.planning.time.monotonic", lambda: now[0])
    manifest = read_manifest(write_sounds(tmp_path / "sounds"))
    recipe = Recipe(backbone="scratch", mel=SMALL_MEL, n_mixed_clips=n_mixed)
    inputs = open_inputs(manifest, None, recipe, FrontEnd(mel=SMALL_MEL), tmp_path / "cache", Callbacks(), workers=1)
    cost = cost_of_frozen(inputs, manifest.multi_hot(), 4)
    assert cost.seconds == pytest.approx(12 * 2.0 + 4)
    assert cost.seconds_per_mixed_clip == (2.0 if n_mixed else 0.0)
