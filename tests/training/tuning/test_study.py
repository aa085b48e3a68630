"""Tuning: the search space, and a study that can be resumed after any stop."""

import csv
import importlib
import itertools
import json
import math
import shlex
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from helpers.command import write_manifest
from helpers.configs import read_config
from spectag.config.backbones import resolve_mel
from spectag.config.base import MelConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.config.training import AugmentConfig, FinetuneConfig, LossConfig
from spectag.errors import ConfigError, DataError, SpectrogramCacheError
from spectag.system.epoch_log import Epoch
from spectag.training.tuning.figures import study_figure
from spectag.training.tuning.search_space import GROUPS, Range, at_an_end, search_space, value_of, with_values
from spectag.training.tuning.study import BEST_TOML, FIGURE, TRIALS_CSV, tune
from spectag.training.tuning.study_storage import JOURNAL

MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=32, f_max=8000.0)
LOGISTIC = Recipe(classifier="logistic")
SCRATCH = Recipe(backbone="scratch", mel=MEL, folds=2, n_mixed_clips=0, classifier="logistic")
TUNED = Recipe(mode="finetune", backbone="scratch", epochs=6)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("sounds"))


@dataclass
class FakeTraining:
    """In place of training: the held-out lwlrap is `lwlrap` of the recipe."""

    recipes: list = field(default_factory=list)
    folders: list = field(default_factory=list)

    def __call__(self, manifest, noisy, recipe, callbacks, data, checkpoints):
        self.recipes.append(recipe)
        self.folders.append(checkpoints)
        checkpoints.mkdir(exist_ok=True)
        score = self.lwlrap(recipe, callbacks.on_epoch)
        return SimpleNamespace(scores=SimpleNamespace(main_score=score), skipped=())

    @staticmethod
    def lwlrap(recipe, on_epoch):
        decay = 1.0 if recipe.weight_decay is None else recipe.weight_decay
        return 0.9 - 0.1 * abs(math.log10(decay) + 3) - 0.05 * (recipe.features == "last")


@pytest.fixture
def fake_training(monkeypatch):
    fake, module = FakeTraining(), importlib.import_module("spectag.training.tuning.study")
    monkeypatch.setattr(module, "score_recipe", fake)
    monkeypatch.setattr(module, "save_figure", lambda *_: None)  # drawing takes longer than everything else
    return fake


def rows(folder):
    with (folder / TRIALS_CSV).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names_of(recipe, over=GROUPS):
    return set(search_space(recipe, over).settings)


# Search space


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(), {"features", "n_mixed_clips"}),
        (LOGISTIC, {"weight_decay", "features", "n_mixed_clips"}),
        (Recipe(weight_decay=0.1, n_mixed_clips=0), {"features"}),
        (
            Recipe(optimizer="adam"),
            {"weight_decay", "features", "n_mixed_clips", "learning_rate", "loss.kind", "loss.label_smoothing"},
        ),
        (
            Recipe(mode="finetune", loss=LossConfig(kind="lsep"), augment=AugmentConfig(mix=0.7, warp=0.0)),
            {"augment.spec_augment", "augment.gain_db", "augment.mixup", "loss.label_smoothing", "learning_rate"}
            | {"finetune.layer_decay", "finetune.schedule", "finetune.weight_averaging"},
        ),
        (
            Recipe(backbone="scratch", weight_decay=1e-3, features="all", n_mixed_clips=0, mel=MelConfig(n_mels=64)),
            {"mel.hop_length", "mel.f_min", "mel.f_max", "mel.ref", "mel.top_db"},
        ),
        (
            Recipe(n_mixed_clips=100, weight_decay=1e-3, features="all"),
            {"augment.mix_db", "augment.gain_db", "augment.spec_augment", "augment.warp"},
        ),
    ],
)
def test_settings_that_are_not_set_and_have_an_effect_are_searched_over(recipe, expected):
    assert names_of(recipe) == expected


@given(
    backbone=st.sampled_from(["mn04_audioset", "scratch"]),
    mode=st.sampled_from(["frozen", "finetune"]),
    data=st.data(),
)
def test_set_values_are_never_searched_over_and_all_searched_values_are_valid(backbone, mode, data):
    recipe = Recipe(backbone=backbone, mode=mode)
    space = search_space(recipe).settings
    names = data.draw(st.lists(st.sampled_from(sorted(space)), unique=True, max_size=len(space) - 1))
    drawn = {
        name: data.draw(
            st.floats(domain.low, domain.high) if isinstance(domain, Range) else st.sampled_from(domain.values)
        )
        for name, domain in space.items()
    }
    partly_set = with_values(recipe, {name: drawn[name] for name in names})
    assert names_of(partly_set).isdisjoint(names)
    all_set = with_values(recipe, drawn)
    assert {name: value_of(all_set, name) for name in drawn} == drawn


def test_setting_with_its_default_value_counts_as_set():
    assert "weight_decay" not in names_of(Recipe(classifier="logistic", weight_decay=None))
    assert "finetune.schedule" not in names_of(Recipe(mode="finetune", finetune=FinetuneConfig(schedule="cosine")))


def test_mel_settings_are_around_those_of_the_backbone_with_at_most_n_fft_over_8_bands():
    own = resolve_mel("scratch", MEL)
    space = search_space(Recipe(backbone="scratch", mel=MelConfig(sample_rate=16_000, n_fft=512, f_max=8000))).settings
    assert set(space) >= {"mel.n_mels", "mel.hop_length"}
    assert own.n_fft == 512
    assert max(space["mel.n_mels"].values[1:]) <= 64
    assert "mel.f_max" not in space


@pytest.mark.parametrize(
    ("recipe", "over", "words"),
    [
        (Recipe(), ["mel"], "no search over mel: mn04_audioset was trained with fixed mel settings"),
        (Recipe(), ["learning_rate"], "optimizer lbfgs has no learning rate; use --optimizer adam"),
        (
            Recipe(n_mixed_clips=0),
            ["augment"],
            "no search over augment: the recipe sets n_mixed_clips; leave out settings",
        ),
        (
            Recipe(features="all"),
            ["head"],
            "no search over head: the recipe sets features; leave out .*; --classifier logistic has a weight_decay",
        ),
        (Recipe(), ["heads"], "cannot search over 'heads'; did you mean 'head'"),
        (Recipe(), [], "nothing is left to search over"),
        (
            Recipe(members=({"n_mixed_clips": 9}, {"n_mixed_clips": 0})),
            GROUPS,
            "only one network can be tuned at a time.* 2 members",
        ),
    ],
)
def test_reason_is_given_if_nothing_is_left_to_search_over(recipe, over, words):
    with pytest.raises(ConfigError, match=words):
        search_space(recipe, over)


def test_mel_settings_are_not_searched_over_for_images():
    with pytest.raises(ConfigError, match="mel settings have no effect on images"):
        search_space(Recipe(backbone="scratch"), ["mel"], holds_images=True)


@pytest.mark.parametrize(
    ("recipe", "values", "expected"),
    [
        (LOGISTIC, {"weight_decay": 1e-5, "n_mixed_clips": 3000}, {"weight_decay", "n_mixed_clips"}),
        (LOGISTIC, {"weight_decay": 0.098, "n_mixed_clips": 1000}, {"weight_decay"}),
        (LOGISTIC, {"weight_decay": 1e-3, "n_mixed_clips": 0, "features": "all"}, set()),  # no fewer than 0 mixed clips
        (TUNED, {"augment.mix": 1.0, "augment.warp": 0.0, "augment.gain_db": 12.0}, {"augment.gain_db"}),
        (
            TUNED,
            {"learning_rate": 3e-3, "finetune.layer_decay": 1.0, "mel.n_mels": 64},
            {"learning_rate", "mel.n_mels"},
        ),
    ],
)
def test_value_is_at_an_end_of_the_search_only_if_values_beyond_it_are_possible(recipe, values, expected):
    assert set(at_an_end(recipe, search_space(recipe), values)) == expected


# A study


def test_first_trial_is_the_recipe_itself_and_the_best_recipe_is_that_of_the_best_trial(
    manifest, tmp_path, fake_training
):
    recipe = SCRATCH.model_copy(update={"seed": 3})
    study = tune(manifest, tmp_path / "s", recipe, trials=16)
    assert fake_training.recipes[0].model_dump() == recipe.model_dump()
    assert study.trials[0].settings["weight_decay"] is None
    assert len(study.trials) == len(fake_training.recipes) == 16
    best = max(study.trials, key=lambda trial: trial.score)
    assert study.best == best == study.ranked[0]
    assert best.score > 0.85
    assert read_config(tmp_path / "s" / BEST_TOML, Recipe) == study.recipe
    assert {name: value_of(study.recipe, name) for name in best.settings} == best.settings
    assert study.recipe == fake_training.recipes[best.number]
    assert {(tried.n_mixed_clips, tried.folds, tried.seed, tried.mel.n_mels) for tried in fake_training.recipes} == {
        (0, 2, 3, 32)
    }


def test_best_value_at_the_end_of_its_range_is_reported(manifest, tmp_path, fake_training):
    fake_training.lwlrap = lambda recipe, _: 0.5 if recipe.weight_decay is None else 0.9 + 0.01 * recipe.weight_decay
    lines = []
    study = tune(manifest, tmp_path / "s", SCRATCH, trials=40, over=["head"], log=lines.append)
    assert study.best.settings["weight_decay"] > 0.08
    at_end = f"weight_decay {study.best.settings['weight_decay']:g} is at the end of the values that were searched"
    assert lines[-1].startswith(at_end)


@pytest.mark.parametrize("recipe", [Recipe(), LOGISTIC], ids=["default", "logistic"])
def test_all_trials_have_the_head_of_the_recipe(manifest, tmp_path, fake_training, recipe):
    study = tune(manifest, tmp_path / "s", recipe, trials=6)
    assert {tried.classifier for tried in fake_training.recipes} == {recipe.classifier} == {study.recipe.classifier}


def test_best_recipe_is_unchanged_if_no_trial_is_better(manifest, tmp_path, fake_training):
    fake_training.lwlrap = lambda recipe, _: 0.5
    study = tune(manifest, tmp_path / "s", Recipe(seed=3), trials=3)
    assert study.best.number == 0
    assert (tmp_path / "s" / BEST_TOML).read_text().splitlines()[-1] == "seed = 3"


def test_table_has_every_trial_with_all_its_settings(manifest, tmp_path, fake_training):
    study = tune(manifest, tmp_path / "s", SCRATCH, trials=4)
    table = rows(tmp_path / "s")
    assert list(table[0]) == ["number", "state", "score", "seconds", *study.trials[0].settings, "reason"]
    assert table[0]["weight_decay"] == "none"
    assert [(row["number"], row["score"]) for row in table] == [
        (str(trial.number), f"{trial.score:.6f}") for trial in study.trials
    ]
    assert [float(row["weight_decay"]) for row in table[1:]] == [
        trial.settings["weight_decay"] for trial in study.trials[1:]
    ]


def test_stopped_study_is_continued_and_retries_the_interrupted_settings(manifest, tmp_path, fake_training):
    folder, calls = tmp_path / "s", itertools.count(1)

    def stopped(recipe, on_epoch):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return FakeTraining.lwlrap(recipe, on_epoch)

    fake_training.lwlrap = stopped
    with pytest.raises(KeyboardInterrupt):
        tune(manifest, folder, SCRATCH, trials=7)
    before = rows(folder)
    assert len(before) == 3
    assert (folder / ".trial-3").exists()

    study = tune(manifest, folder, SCRATCH, trials=7)
    after = rows(folder)
    assert after[:3] == before
    assert [trial.state for trial in study.trials] == ["complete"] * 3 + ["stopped"] + ["complete"] * 4
    assert study.trials[4].settings == study.trials[3].settings
    assert fake_training.recipes[3] == fake_training.recipes[4]
    assert fake_training.folders[3] == fake_training.folders[4]  # so that fine-tuning can be resumed
    assert len({tuple(trial.settings.values()) for trial in study.trials}) == 7
    assert not list(folder.glob(".trial-*"))
    assert "duplicate" not in (folder / JOURNAL).read_text()  # no settings were proposed twice


def test_settings_interrupted_twice_are_not_tried_a_third_time(manifest, tmp_path, fake_training):
    def stopped(recipe, on_epoch):
        if recipe.weight_decay is not None:
            raise KeyboardInterrupt
        return 0.5

    fake_training.lwlrap = stopped
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(manifest, tmp_path / "s", SCRATCH, trials=3)
    fake_training.lwlrap = FakeTraining.lwlrap
    study = tune(manifest, tmp_path / "s", SCRATCH, trials=3)
    assert [trial.state for trial in study.trials] == ["complete", "stopped", "stopped", "complete", "complete"]
    assert study.trials[2].settings == study.trials[1].settings
    assert study.trials[1].settings not in [trial.settings for trial in study.trials[3:]]
    assert not list((tmp_path / "s").glob(".trial-*"))


def test_run_stopped_before_the_first_score_starts_again(manifest, tmp_path, fake_training):
    fake_training.lwlrap = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        tune(manifest, tmp_path / "s", SCRATCH, trials=2)
    fake_training.lwlrap = FakeTraining.lwlrap
    assert [trial.state for trial in tune(manifest, tmp_path / "s", SCRATCH, trials=2).trials] == ["complete"] * 2


def test_incomplete_line_and_lock_of_a_killed_run_are_removed(manifest, tmp_path, fake_training):
    folder = tmp_path / "s"
    tune(manifest, folder, SCRATCH, trials=3)
    with (folder / JOURNAL).open("a") as journal:
        journal.write('{"op_code":4,"wor')
    (folder / f"{JOURNAL}.lock").touch()
    study = tune(manifest, folder, SCRATCH, trials=5)
    assert len(study.trials) == 5
    assert all(json.loads(line) for line in (folder / JOURNAL).read_text().splitlines())


def test_finished_study_is_returned_again(manifest, tmp_path, fake_training):
    first = tune(manifest, tmp_path / "s", SCRATCH, trials=3)
    again = tune(manifest, tmp_path / "s", SCRATCH, trials=3)
    assert (again.trials, again.recipe) == (first.trials, first.recipe)
    assert len(fake_training.recipes) == 3
    assert again.ended == "3 trials are done"


def test_no_trial_starts_that_would_exceed_the_budget(manifest, tmp_path, fake_training, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(
        importlib.import_module("spectag.training.tuning.study"), "time", SimpleNamespace(monotonic=lambda: clock[0])
    )

    def lasting(recipe, on_epoch):
        clock[0] += 50 if len(fake_training.recipes) == 1 else 10  # the first trial computes the spectrograms
        return FakeTraining.lwlrap(recipe, on_epoch)

    fake_training.lwlrap = lasting
    budget = {"budget": 139}
    study = tune(manifest, tmp_path / "s", SCRATCH.model_copy(update=budget))
    assert [trial.seconds for trial in study.trials] == [50.0] + [10.0] * 8  # 130 s; a tenth would end at 140 s
    assert study.ended == "130 of 139 s are used, and a trial takes 10.0 s; increase the budget to go on"
    longer = tune(manifest, tmp_path / "s", SCRATCH.model_copy(update={"budget": 150}))
    assert len(longer.trials) == 11
    short = tune(manifest, tmp_path / "short", SCRATCH.model_copy(update={"budget": 1}))
    assert len(short.trials) == 1
    assert "budget" not in (tmp_path / "s" / BEST_TOML).read_text()


def test_search_needs_a_limit(manifest, tmp_path):
    with pytest.raises(ConfigError, match="set --budget, such as 30m, or --trials, such as 50"):
        tune(manifest, tmp_path / "s", SCRATCH)
    assert not (tmp_path / "s").exists()


def test_trial_with_invalid_settings_is_recorded_and_the_search_goes_on(manifest, tmp_path, fake_training):
    def failing(recipe, on_epoch):
        if recipe.features == "last":
            raise ConfigError("learning_rate 0.1 is too large")
        return FakeTraining.lwlrap(recipe, on_epoch)

    fake_training.lwlrap = failing
    study = tune(manifest, tmp_path / "s", SCRATCH, trials=8)
    failed = [trial for trial in study.trials if trial.state == "failed"]
    assert failed
    assert all(trial.score is None and trial.settings["features"] == "last" for trial in failed)
    reasons = [row["reason"] for row in rows(tmp_path / "s") if row["state"] == "failed"]
    assert set(reasons) == {"learning_rate 0.1 is too large"}
    assert len(study.trials) == 8
    assert not list((tmp_path / "s").glob(".trial-*"))


def test_error_that_would_affect_every_trial_ends_the_run(manifest, tmp_path, fake_training):
    fake_training.lwlrap = lambda *_: (_ for _ in ()).throw(DataError("fold 2 has no clips"))
    with pytest.raises(DataError, match="fold 2 has no clips"):
        tune(manifest, tmp_path / "s", SCRATCH, trials=3)
    full = itertools.chain([0.5], itertools.repeat(None))

    def on_full_disk(*_):
        score = next(full)
        if score is None:
            raise SpectrogramCacheError("no space left")
        return score

    fake_training.lwlrap = on_full_disk
    with pytest.raises(SpectrogramCacheError, match="no space left"):
        tune(manifest, tmp_path / "s", SCRATCH, trials=3)


def test_trial_whose_epochs_are_below_the_median_is_pruned(manifest, tmp_path, fake_training):
    n_seen = []

    def by_epochs(recipe, on_epoch):
        score = 0.1 if len(fake_training.recipes) == 7 else 0.5 + 0.01 * len(fake_training.recipes)
        for fold, number in itertools.product("12", range(1, 7)):
            n_seen.append((len(fake_training.recipes), fold, number))
            on_epoch(Epoch(number, 1.0, None, 1.0, score, n_epochs=6, part=fold))
        return score

    fake_training.lwlrap = by_epochs
    study = tune(manifest, tmp_path / "s", TUNED, trials=8, over=["learning_rate"])
    assert [trial.state for trial in study.trials] == ["complete"] * 6 + ["pruned", "complete"]
    assert study.trials[6].score is None
    assert study.trials[6].reason.startswith("pruned: lwlrap 0.1000 after")
    assert 1 <= sum(number == 7 for number, _, _ in n_seen) <= 4
    assert [seen[1:] for seen in n_seen if seen[0] == 8] == list(itertools.product("12", range(1, 7)))


def test_settings_are_not_tried_twice_and_the_search_ends_when_all_are_used(manifest, tmp_path, fake_training):
    study = tune(manifest, tmp_path / "s", Recipe(weight_decay=1e-3), trials=50)
    tried = [tuple(trial.settings.values()) for trial in study.trials]
    assert sorted(tried) == sorted(itertools.product((0, 1000, 3000), ("all", "last")))
    assert "hardly any new settings" in study.ended


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (SCRATCH.model_copy(update={"seed": 1}), "has other settings: seed not set, here 1"),
        (with_values(SCRATCH, {"mel.n_mels": 64}), "has other settings: mel.n_mels 32, here 64"),
        (
            with_values(SCRATCH, {"folds": 3}),
            "folds 2, here 3; run the command that started it, or choose another folder",
        ),
    ],
)
def test_study_of_another_recipe_is_refused(manifest, tmp_path, fake_training, recipe, words):
    tune(manifest, tmp_path / "s", SCRATCH, trials=1)
    with pytest.raises(ConfigError, match=words):
        tune(manifest, tmp_path / "s", recipe, trials=2)
    assert len(fake_training.recipes) == 1


def test_study_over_other_settings_is_refused(manifest, tmp_path, fake_training):
    tune(manifest, tmp_path / "s", LOGISTIC, trials=1)
    tune(manifest, tmp_path / "s", LOGISTIC, trials=1, over=["head", "augment"])  # the same settings, named explicitly
    with pytest.raises(ConfigError, match="there searches over n_mixed_clips, weight_decay, features, with the ranges"):
        tune(manifest, tmp_path / "s", LOGISTIC, trials=1, over=["head"])


def test_study_of_other_clips_is_refused(manifest, tmp_path, fake_training):
    tune(manifest, tmp_path / "s", SCRATCH, trials=1)
    other = write_manifest(tmp_path / "other", n_clips=9)
    for source, options in ((other, DataOptions()), (manifest, DataOptions(noisy=manifest))):
        with pytest.raises(ConfigError, match="the study there has other clips, labels or folds; run the command"):
            tune(source, tmp_path / "s", SCRATCH, trials=2, data=options)


def test_study_in_use_by_another_process_is_refused(manifest, tmp_path, fake_training):
    (tmp_path / "s").mkdir()
    with (
        FileLock(tmp_path / "s" / ".lock"),
        pytest.raises(ConfigError, match="another process is using the study there"),
    ):
        tune(manifest, tmp_path / "s", SCRATCH, trials=2)


def test_damaged_journal_is_named(manifest, tmp_path, fake_training):
    (tmp_path / JOURNAL).write_text("once upon a time\nthere was\n")
    with pytest.raises(
        ConfigError, match=rf"{JOURNAL}: cannot read the study: .*delete the file, or choose another folder"
    ):
        tune(manifest, tmp_path, SCRATCH, trials=2)


# With training


def test_without_held_out_clips_there_is_no_score(manifest, tmp_path):
    with pytest.raises(ConfigError, match="no labelled clip is held out for a score; set --validation-fraction"):
        tune(manifest, tmp_path / "s", SCRATCH.model_copy(update={"folds": "none"}), trials=2)


def test_model_trained_with_the_best_recipe_has_the_score_of_the_best_trial(run, manifest, tmp_path):
    settings = ["--backbone=scratch", "--folds=2", "--classifier=logistic", "--n-mixed-clips=0"]
    settings += ["--mel.sample-rate=16000", "--mel.f-max=8000"]
    settings += ["--mel.n-mels=32", "--mel.hop-length=256", "--over", "head", "--trials", "4"]
    done = run("tune", manifest, "-o", tmp_path / "a study", *settings, "--json")
    assert done.status == 0, done.err
    tuned = json.loads(done.out)
    assert len(tuned["trials"]) == 4
    assert (tmp_path / "a study" / FIGURE).read_bytes().startswith(b"\x89PNG")
    table = run("tune", manifest, "-o", tmp_path / "a study", *settings).out.splitlines()
    assert table[1].startswith("0 (recipe)")
    command = shlex.split(table[-1].removeprefix("to train with the best settings: "))[1:]
    assert command[-1] == str(tmp_path / "a study" / BEST_TOML)
    command[command.index("model")] = str(tmp_path / "model")
    trained = json.loads(run(*command, "--json").out)
    assert trained["scores"]["lwlrap"] == pytest.approx(tuned["best"]["score"], abs=1e-12)


def test_help_lists_the_command_and_explains_the_budget(run):
    assert "tune" in run("--help").out
    assert "time for all trials" in " ".join(run("tune", "--help").out.replace("│", " ").split())


def test_settings_file_of_training_works_for_tuning(manifest, tmp_path, fake_training, run):
    (tmp_path / "r.toml").write_text("backbone = 'scratch'\nfolds = 2\nbudget = '1s'\n")
    done = run("tune", manifest, "-o", tmp_path / "s", "--config", tmp_path / "r.toml", "--seed", 4, "--over", "head")
    assert done.status == 0, done.err
    assert [(recipe.backbone, recipe.seed) for recipe in fake_training.recipes][:1] == [("scratch", 4)]


def test_missing_optuna_is_reported_with_its_extra(run, manifest, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = run("tune", manifest, "-o", tmp_path / "s", "--trials", 2)
    assert done == (1, "", "spectag: tuning needs the package optuna: pip install 'spectag[tune]'\n")


def test_figure_shows_scores_by_trial_and_by_setting():
    scores = [0.5, 0.7, math.nan, 0.6]
    settings = {
        "learning_rate": [1e-3, 1e-1, 1e-4, 1e-2],
        "features": ["all", "last", "all", "all"],
        "n_mixed_clips": [0] * 4,
    }
    figure = study_figure(scores, settings)
    trials, *panels = (ax for ax in figure.axes if ax.axison)
    assert trials.get_title() == "4 trials, 1 without a score"
    best = next(line for line in trials.lines if line.get_label() == "best so far")
    assert best.get_ydata().tolist() == [0.5, 0.7, 0.7, 0.7]
    assert [panel.get_title() for panel in panels] == list(settings)
    assert [panel.get_xscale() for panel in panels] == ["log", "linear", "linear"]
    assert [tick.get_text() for tick in panels[1].get_xticklabels()] == ["all", "last"]
    drawn = np.ma.filled(panels[0].collections[0].get_offsets(), np.nan)
    assert drawn[~np.isnan(drawn).any(axis=1)].tolist() == [[1e-3, 0.5], [1e-1, 0.7], [1e-2, 0.6]]
