"""Members of an ensemble: their time, their noisy clips and their weights."""

import csv
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.small_training import SMALL_MEL, small_recipe, write_sounds
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError
from spectag.scoring.blending import EnsembleWeights
from spectag.scoring.model_selection import HeldOutLogits
from spectag.training.ensemble import TrainingRun
from spectag.training.members.member import MemberFit
from spectag.training.planning import FrozenCost
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.distributed import Processes
from spectag.training.setup.held_out import HeldOut, hold_out
from spectag.training.setup.member_weights import blend


@pytest.fixture
def run(tmp_path):
    def make(recipe, log=lambda _: None, **settings):
        processes = Processes.connect(frozen_only=False)
        return TrainingRun(recipe, tmp_path / "cache", tmp_path, processes, False, Callbacks(log=log), **settings)

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


def test_noisy_clips_of_a_held_out_group_are_left_out(tmp_path, run):
    """Groups 0 to 2 are in fold 0, groups 3 to 5 in fold 1; the noisy clips (other sounds) are in groups 1, 4, 9."""
    manifest = with_groups(write_sounds(tmp_path / "true"), [i % 3 + 3 * (i // 3 % 2) for i in range(12)])
    noisy = with_groups(write_sounds(tmp_path / "noisy", seconds=0.6), [1] * 4 + [4] * 4 + [9] * 4)
    lines = []
    recipe = Recipe(backbone="scratch", mel=SMALL_MEL, folds="given")
    run = run(recipe, lines.append)
    [member_inputs] = run.open_inputs(manifest, noisy, 1)
    cross_validation = run.with_noisy(
        CrossValidation.of(manifest.multi_hot(), hold_out(manifest, recipe)), member_inputs
    )
    kept = np.array([fold.noisy.weights > 0 for fold in cross_validation.trainings])
    expected = [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1], [1] * 12]
    np.testing.assert_array_equal(kept, np.array(expected, bool))
    assert any(line.startswith("8 noisy clips share a recording or group with clips of the manifest") for line in lines)


def test_checkpoints_of_another_version_of_fine_tuning_or_other_settings_are_not_continued(tmp_path, run, monkeypatch):
    manifest = read_manifest(write_sounds(tmp_path / "sounds"))
    monkeypatch.setattr("spectag.training.members.finetuned.fit_finetuned", lambda *args, **_: seen.append(args[2]))
    seen = []

    def fingerprint(recipe):
        training = run(recipe)
        members = training.open_inputs(manifest, None, 1)
        with pytest.raises(ConfigError, match="budget"):  # nothing was trained
            training.fit(members, CrossValidation.of(manifest.multi_hot(), hold_out(manifest, recipe)))
        return seen[-1].fingerprint

    recipe = small_recipe(validation_fraction=0.25, budget=1000)
    first = fingerprint(recipe)
    assert fingerprint(recipe.model_copy(update={"budget": 2000})) == first
    assert fingerprint(recipe.model_copy(update={"learning_rate": 0.5})) != first
    monkeypatch.setattr("spectag.training.ensemble.FINETUNING_VERSION", -1)
    assert fingerprint(recipe) != first


class SlowMembers:
    """Replaces training: a clip, a mixed clip and an epoch take a second by `now`, or as many as `slowness`.

    Writing a network takes 2 s, and what is beside it 7 s.
    """

    def __init__(self, monkeypatch, slowness=lambda now: 1.0):
        self.now, self.slowness, self.fitted = 0.0, slowness, []
        self._done = set()
        module = "spectag.training.ensemble."
        monkeypatch.setattr(module + "fit_frozen", self._fit_frozen)
        monkeypatch.setattr(module + "_fingerprint", lambda *_: "")
        monkeypatch.setattr(module + "cost_of_frozen", self._cost_of_frozen)
        monkeypatch.setattr(module + "seconds_of_features", lambda *_, **__: 0.0)
        monkeypatch.setattr(module + "seconds_of_writing", lambda *_, **__: 2.0)
        monkeypatch.setattr("spectag.training.members.finetuned.seconds_per_epoch", lambda *_: 1.0)
        monkeypatch.setattr("spectag.training.members.finetuned.fit_finetuned", self._fit_finetuned)

    def clock(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds * self.slowness(self.now)

    def _cost_of_frozen(self, inputs, y_true, n_trained):
        return FrozenCost(float(inputs.n_clips), 0.0, 1.0, inputs.recipe.n_mixed_clips, len(n_trained), 2.0)

    def _fit_frozen(self, inputs, data, cross_validation, callbacks, *, name):
        self.fitted.append((name, data.mixed.n if data.mixed else 0))
        return MemberFit((), HeldOutLogits(np.zeros(cross_validation.targets.shape)))

    def _fit_finetuned(self, inputs, cross_validation, context, callbacks, *, name):
        self.fitted.append((name, context.seconds_left()))
        return MemberFit((), HeldOutLogits(np.zeros(cross_validation.targets.shape)))

    def compute(self, names):
        self.spend(len(names - self._done))
        self._done |= names


@dataclasses.dataclass(frozen=True)
class Mixed:
    n: int

    def joined(self, others):
        return Mixed(self.n + others.n)


@dataclasses.dataclass(frozen=True)
class Features:
    mixed: Mixed | None


@dataclasses.dataclass(frozen=True)
class SlowInputs:
    recipe: Recipe
    n_clips: int
    members: SlowMembers
    gives_frames = False

    @property
    def store(self):
        return SimpleNamespace(folder=self.recipe.backbone, onnx_file=lambda _: None)

    @property
    def clips(self):
        return SimpleNamespace(example=None)

    def frozen_features(self, y_true, *, progress, with_mixed, **_):
        self.members.compute({(self.recipe.backbone, "clip", number) for number in range(self.n_clips)})
        return Features(self.mixed_clips(y_true, range(self.recipe.n_mixed_clips)) if with_mixed else None)

    def mixed_clips(self, y_true, numbers, *, progress=None):
        self.members.compute({(self.recipe.backbone, "mix", number) for number in numbers})
        return Mixed(len(numbers))


FROZEN = Recipe(backbone="mn04_audioset", n_mixed_clips=3000)
LITE0 = Recipe(backbone="efficientnet_lite0")


@pytest.mark.parametrize(("budget", "n_mixed"), [(None, 3000), (20_000, 3000), (2000, 1750), (10, 0)])
def test_mixed_clips_are_as_many_as_there_is_time_for(run, monkeypatch, budget, n_mixed):
    """Of 2000 s, 9 are kept for the model. After 12 s for the clips, there are 250 mixed clips at once."""
    members, lines = SlowMembers(monkeypatch), []
    training = run(Recipe(budget=budget), lines.append, clock=members.clock)
    training.fit([SlowInputs(FROZEN, 12, members)], folds_of(np.eye(4, dtype=bool)[np.arange(16) % 4]))
    assert members.fitted == [("", n_mixed)]
    is_cut = n_mixed < 3000
    line = f"mn04_audioset frozen: {n_mixed} of 3000 mixed clips, as many as there is time for"
    assert (line in lines) == is_cut


def test_features_of_mixed_clips_are_read_once(run, monkeypatch):
    """Each step reads only its own, so that the time grows with the number of mixed clips, not with its square."""
    members, ranges = SlowMembers(monkeypatch), []
    original = SlowInputs.mixed_clips
    monkeypatch.setattr(
        SlowInputs, "mixed_clips", lambda *args, **kwargs: ranges.append(args[2]) or original(*args, **kwargs)
    )
    training = run(Recipe(budget=20_000), clock=members.clock)
    training.fit([SlowInputs(FROZEN, 12, members)], folds_of(np.eye(4, dtype=bool)[np.arange(16) % 4]))
    assert [number for numbers in ranges for number in numbers] == list(range(3000))


def best_of(members, n_clips=100):
    """Members as in the recipe `best`."""
    refit = small_recipe(final_model="refit", epochs=30)
    return [SlowInputs(FROZEN, n_clips, members), SlowInputs(LITE0, n_clips, members), SlowInputs(refit, 0, members)]


def test_plan_is_logged_and_followed(run, monkeypatch):
    """Of 1500 s, 7 s and 2 s for each network are kept. Fine-tuning takes 3.25 s per epoch of all clips and 3 folds."""
    members, lines = SlowMembers(monkeypatch), []
    inputs = best_of(members)
    cross_validation = folds_of(np.eye(4, dtype=bool)[np.arange(16) % 4])
    training = run(Recipe(budget=1500), lines.append, clock=members.clock)
    plans = training.plan(inputs, cross_validation)
    assert lines == [
        "plan: mn04_audioset frozen: 5 trainings with 1000 mixed clips, about 18 min",
        "plan: efficientnet_lite0 frozen: 5 trainings, about 2 min",
        "plan: scratch fine-tuned: 5 trainings of 30 epochs, about 2 min",
        "plan: about 22 min of 25 min in all, with reading the sounds and writing the model",
    ]
    training.fit(inputs, cross_validation, plans)
    assert [name for name, _ in members.fitted[:3]] == [
        "mn04_audioset frozen, ",
        "efficientnet_lite0 frozen, ",
        "scratch fine-tuned, ",
    ]
    assert members.fitted[0][1] == 1000
    assert "mn04_audioset frozen, heads of 4 folds, 7 min left of 25" in lines


def test_what_was_left_out_is_reconsidered_at_the_end(run, monkeypatch):
    """There is time for 1000 mixed clips and fine-tuning, which then takes no time: so there are more mixed clips."""
    members, lines = SlowMembers(monkeypatch), []
    inputs = best_of(members)[::2]
    cross_validation = folds_of(np.eye(4, dtype=bool)[np.arange(16) % 4])
    run(Recipe(budget=1450), lines.append, clock=members.clock).fit(inputs, cross_validation)
    assert [fitted for fitted in members.fitted if "frozen" in fitted[0]] == [
        ("mn04_audioset frozen, ", 1000),
        ("mn04_audioset frozen, ", 1250),
    ]
    assert any(line.startswith("plan now, in the time that is left: mn04_audioset frozen: 5 train") for line in lines)
    assert members.now <= 1450


def test_member_that_is_reconsidered_late_is_measured_first(run, monkeypatch):
    """The second member is not measured before the first one is trained. It would take ten times the time left."""
    members = SlowMembers(monkeypatch)
    original = members._cost_of_frozen

    def cost(*arguments):
        members.spend(20)
        return original(*arguments)

    monkeypatch.setattr("spectag.training.ensemble.cost_of_frozen", cost)
    training = run(Recipe(budget=1000), clock=members.clock)
    members.now = 690.0
    inputs = [SlowInputs(Recipe(backbone=name), n, members) for name, n in (("mn04_audioset", 100), ("scratch", 2000))]
    training.fit(inputs, folds_of(np.eye(4, dtype=bool)[np.arange(16) % 4]))
    assert members.fitted == [("mn04_audioset frozen, ", 0)]
    assert members.now <= 1000


@pytest.mark.parametrize("slowness", [lambda _: 1.0, lambda _: 2.0, lambda now: 1.0 if now < 700 else 2.0])
@pytest.mark.parametrize("budget", [400, 1500, 4000])
def test_budget_is_kept_on_slower_machines_and_if_other_work_starts(run, monkeypatch, slowness, budget):
    """The cost is measured on the machine as it is in the beginning. What is not fine-tuned is left for writing."""
    members = SlowMembers(monkeypatch, slowness)
    original = members._cost_of_frozen

    def cost(*arguments):
        exact, factor = original(*arguments), slowness(members.now)
        of_mixed = exact.per_mixed_clip * factor
        return dataclasses.replace(exact, features=exact.features * factor, per_mixed_clip=of_mixed)

    monkeypatch.setattr("spectag.training.ensemble.cost_of_frozen", cost)
    training = run(Recipe(budget=budget), clock=members.clock)
    training.fit(best_of(members), folds_of(np.eye(4, dtype=bool)[np.arange(16) % 4]))
    assert members.now + 2 * 7 <= 7 / 6 * budget
    assert members.now >= 0.5 * min(budget, 3200)


def test_fine_tuned_members_share_the_time(run, monkeypatch):
    """Of 1000 s, 7 s and 2 s for each network are kept. Each of two members has half of the rest."""
    members = SlowMembers(monkeypatch)
    inputs = [SlowInputs(small_recipe(epochs=1000), 0, members)] * 2
    cross_validation = folds_of(np.eye(4, dtype=bool)[np.arange(16) % 4])
    run(Recipe(budget=1000), clock=members.clock).fit(inputs, cross_validation)
    assert members.fitted[0][1] == pytest.approx((1000 - 7 - 4) / 2, abs=5)
    assert members.fitted[1][1] == pytest.approx(1000 - 7 - 4, abs=5)  # the first one took no time


def test_nothing_is_measured_if_most_of_the_time_is_over(run, monkeypatch):
    members, lines = SlowMembers(monkeypatch), []
    training = run(Recipe(budget=1000), lines.append, clock=members.clock)
    members.now = 800.0
    monkeypatch.setattr("spectag.training.ensemble.cost_of_frozen", None)
    training.fit(best_of(members), folds_of(np.eye(4, dtype=bool)[np.arange(16) % 4]))
    assert members.fitted == [("mn04_audioset frozen, ", 0)]
    assert members.now == 900.0
    why = "there was no time for another one; increase --budget"
    assert f"the model is no ensemble but one network, mn04_audioset frozen: {why}" in lines


def test_there_is_no_plan_for_one_member_without_a_budget(run, monkeypatch):
    members, lines = SlowMembers(monkeypatch), []
    assert run(Recipe(), lines.append).plan([SlowInputs(FROZEN, 100, members)], folds_of(np.eye(4, dtype=bool))) == {}
    assert not lines


def test_members_of_one_label_have_the_average_precision_and_say_so(run, monkeypatch):
    """lwlrap of one label is always 1. The average precision of equal scores is the fraction of true clips."""
    y_true = (np.arange(32) % 4 == 0)[:, None]
    fits = iter([MemberFit((), HeldOutLogits(np.zeros((32, 1)))), MemberFit((), HeldOutLogits(2.0 * y_true))])
    monkeypatch.setattr("spectag.training.members.finetuned.fit_finetuned", lambda *_, **__: next(fits))
    monkeypatch.setattr("spectag.training.ensemble._fingerprint", lambda *_: "")
    lines = []
    members = [SimpleNamespace(recipe=small_recipe())] * 2
    ensemble = run(Recipe(), lines.append).fit(members, folds_of(y_true))
    assert [(member.metric, member.score, member.ensemble_score) for member in ensemble.scores] == [
        ("mAP", 0.25, 0.25),
        ("mAP", 1.0, 1.0),
    ]
    assert lines[0].startswith("scratch fine-tuned: held-out mAP 0.2500, ensemble so far 0.2500")
    assert not any("lwlrap" in line for line in lines)


def test_harmful_member_has_no_weight(rng, monkeypatch):
    """A member with logits near 0 once got a huge weight, and the ensemble was worse than the other member alone."""
    monkeypatch.setattr(
        "spectag.training.setup.member_weights.fit_ensemble_weights",
        lambda logits, _: EnsembleWeights(tuple(1.0 for _ in logits)),
    )
    y_true = np.eye(4, dtype=bool)[np.arange(40) % 4]
    good, harmful, harmless = np.where(y_true, 1.0, -1.0), 5 * rng.normal(size=(40, 4)), rng.normal(size=(40, 4)) / 10
    for members in ([good, harmful, harmless], [harmful, good, harmless]):
        weights, _ = blend([HeldOutLogits(logits) for logits in members], folds_of(y_true))
        assert [weight > 0 for weight in weights.weights] == [logits is not harmful for logits in members]


def test_complementary_members_have_weight(rng):
    y_true = np.eye(4, dtype=bool)[np.arange(80) % 4]
    signal = np.where(y_true, 1.0, -1.0)
    members = [HeldOutLogits(signal * knows + rng.normal(size=(80, 4))) for knows in ([1, 1, 0, 0], [0, 0, 1, 1])]
    weights, _ = blend(members, folds_of(y_true))
    assert min(weights.weights) > 0


def test_clips_without_a_label_are_negatives_for_the_weights(rng):
    """Of one label, the clips that have it do not show which member is right."""
    y_true = (np.arange(800) % 2 == 0)[:, None]
    members = [HeldOutLogits(2.0 * y_true + rng.normal(size=(800, 1))), HeldOutLogits(rng.normal(size=(800, 1)))]
    for order in (members, members[::-1]):
        weights, _ = blend(order, folds_of(y_true))
        assert weights.weights[order.index(members[0])] > 2 * weights.weights[order.index(members[1])]


def test_clips_that_a_member_did_not_predict_are_scored_by_the_others(rng):
    """A member of two of four folds: the weights are fitted on these, and all clips have a score."""
    y_true = np.eye(4, dtype=bool)[np.arange(80) % 4]
    cross_validation = folds_of(y_true)
    frozen, fine_tuned = y_true + rng.normal(size=(80, 4)), 3 + 5 * (y_true + 0.5 * rng.normal(size=(80, 4)))
    is_missing = cross_validation.parts >= 2
    partial = np.where(is_missing[:, None], np.nan, fine_tuned)
    weights, logits = blend([HeldOutLogits(frozen), HeldOutLogits(partial)], cross_validation)
    assert min(weights.weights) > 0
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits[is_missing].argsort(axis=1), frozen[is_missing].argsort(axis=1))
    assert logits[is_missing].mean() == pytest.approx(logits[~is_missing].mean(), rel=0.3)
    assert logits[is_missing].std() == pytest.approx(logits[~is_missing].std(), rel=0.3)


def test_log_says_which_member_was_validated_on_few_clips(run, monkeypatch, rng):
    y_true = np.eye(4, dtype=bool)[np.arange(16) % 4]
    partial = np.where(np.arange(16)[:, None] < 8, y_true + rng.normal(size=(16, 4)), np.nan)
    fits = iter(
        [MemberFit((), HeldOutLogits(y_true + rng.normal(size=(16, 4)))), MemberFit((), HeldOutLogits(partial))]
    )
    monkeypatch.setattr("spectag.training.members.finetuned.fit_finetuned", lambda *_, **__: next(fits))
    monkeypatch.setattr("spectag.training.ensemble._fingerprint", lambda *_: "")
    lines = []
    ensemble = run(Recipe(), lines.append).fit([SimpleNamespace(recipe=small_recipe())] * 2, folds_of(y_true))
    assert np.isfinite(ensemble.logits).all()
    assert lines[-1] == (
        "scratch fine-tuned 2: validated on 8 of 16 held-out clips; the scores of the other 8 are those of the other "
        "members"
    )


def folds_of(y_true, n_folds=4):
    """Folds with several clips of every label, if there are many clips."""
    fold = np.arange(len(y_true)) // 4 % n_folds
    rows = tuple(fold == number for number in range(n_folds))
    return CrossValidation.of(y_true, HeldOut(tuple(map(str, range(n_folds))), rows, False, ""))


def test_ensemble_of_guesses_scores_like_a_guess(rng):
    """Weights that were fitted on the scored clips made twelve members that know nothing seem to know something."""
    scores = []
    for _ in range(12):
        y_true = np.eye(5, dtype=bool)[rng.integers(5, size=60)]
        members = list(rng.normal(size=(12, 60, 5)))
        cross_validation = folds_of(y_true)
        weights, logits = blend([HeldOutLogits(member) for member in members], cross_validation)
        scores.append([cross_validation.score(weights(members)), cross_validation.score(logits)])
    (on_fitted_clips, honest), (_, error) = np.mean(scores, axis=0), np.std(scores, axis=0) / len(scores) ** 0.5
    guess = np.mean(1 / np.arange(1, 6))
    assert on_fitted_clips > guess + 0.03
    assert honest == pytest.approx(guess, abs=3 * error)


def test_labels_of_a_part_do_not_change_the_weights_for_it(rng):
    y_true = np.eye(4, dtype=bool)[np.arange(80) % 4]
    cross_validation = folds_of(y_true)
    in_part = cross_validation.parts == 2
    members = [HeldOutLogits(y_true + noise * rng.normal(size=(80, 4))) for noise in (0.5, 2.0)]
    spoilt = dataclasses.replace(cross_validation, targets=np.where(in_part[:, None], ~y_true, y_true))
    (first, first_logits), (other, other_logits) = (blend(members, folds) for folds in (cross_validation, spoilt))
    assert first != other
    order = [logits[in_part].argsort(axis=1) for logits in (first_logits, other_logits)]
    np.testing.assert_array_equal(*order)


def test_member_is_blended_by_the_settings_that_are_chosen_without_the_part(rng):
    """The logits that were chosen with the clips of a part play no role for it: here they know the labels."""
    y_true = np.eye(4, dtype=bool)[np.arange(80) % 4]
    cross_validation = folds_of(y_true)
    members = []
    for noise in rng.normal(size=(2, 80, 4)):
        knows_part = [np.where((cross_validation.parts == part)[:, None], noise, noise + y_true) for part in range(4)]
        members.append(HeldOutLogits(noise + 50 * y_true, tuple(knows_part)))
    weights, logits = blend(members, cross_validation)
    assert cross_validation.score(weights([member.chosen for member in members])) == 1.0
    assert cross_validation.score(logits) < 0.65
