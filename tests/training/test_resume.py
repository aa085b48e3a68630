"""Fine-tuning that is killed and resumed: identical weights and scores, and no files left behind."""

import csv
import dataclasses
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.paths import TESTS
from helpers.small_training import held_out, make_examples, make_training, small_recipe, write_sounds
from spectag.config.base import to_toml
from spectag.config.data_options import DataOptions
from spectag.config.training import NoisyConfig
from spectag.errors import BundleError, ConfigError
from spectag.system.epoch_log import is_epoch_step
from spectag.system.progress import silent
from spectag.training.members.finetune_loop import FineTuning, read_checkpoint
from spectag.training.pipeline import train

CLOCK = {"clips_per_second", "seconds_left"}
KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from helpers.configs import read_config
from spectag.config.recipe import Recipe
from spectag.system.epoch_log import is_epoch_step
from spectag.training.pipeline import train

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def progress(step, n_done, n_total):
    if is_epoch_step(step) and (step, n_done) == ({step!r}, {n_done}):
        die()

def log(line):
    if line == {line!r}:
        die()

train({data!r}, {output!r}, read_config({recipe!r}, Recipe), resume={resume}, progress=progress, log=log)
"""


class StopError(Exception):
    """Stops a training in tests that do not kill the process."""


def stop_at(step):
    """A progress callback that stops a training in this step, counted from 1."""
    steps = count(1)

    def progress(name, *_):
        if is_epoch_step(name) and next(steps) == step:
            raise StopError

    return progress


# ------------------------------------------------------------------------------------------- from any step

CASES = {
    "adamw, ema": {},
    "sgd, swa": {"optimizer": "sgd", "finetune": {"weight_averaging": "swa", "schedule": "one_cycle"}},
    "adam, no average": {"optimizer": "adam", "finetune": {"weight_averaging": "none", "batch_norm": "trained"}},
    "separate head": {"noisy_labels": NoisyConfig(separate_head=True)},
    "patience": {"learning_rate": 1e-9, "epochs": 4, "finetune": {"patience": 1}},
}


def make_run(case, checkpoint=None):
    settings = {"learning_rate": 0.01, "epochs": 2, "batch_size": 4} | CASES[case]
    settings["finetune"] = {"checkpoint_steps": 2} | settings.get("finetune", {})
    options = {"examples": make_examples(12, n_noisy=6), "valid": held_out(), "checkpoint": checkpoint}
    return make_training(small_recipe(**settings), fingerprint="this one", **options)


def scores(epochs):
    return [{name: value for name, value in dataclasses.asdict(epoch).items() if name not in CLOCK} for epoch in epochs]


def assert_same(fit, expected):
    torch.testing.assert_close(fit.network.state_dict(), expected.network.state_dict(), rtol=0, atol=0)
    assert fit.other_weights.keys() == expected.other_weights.keys()
    for name, tagger in fit.other_weights.items():
        torch.testing.assert_close(tagger.state_dict(), expected.other_weights[name].state_dict(), rtol=0, atol=0)
    assert scores(fit.epochs) == scores(expected.epochs)
    np.testing.assert_array_equal(fit.valid_logits, expected.valid_logits)


@pytest.mark.parametrize("case", CASES)
def test_resumed_run_ends_with_the_same_weights_and_scores(case, tmp_path):
    """Epochs have 5 steps. The run stops before the first checkpoint, within both epochs, and between them."""
    expected = make_run(case).run(lambda _: None, silent)
    for step in (1, 4, 6, 8):
        checkpoint = tmp_path / f"{step}.pt"
        with pytest.raises(StopError):
            make_run(case, checkpoint).run(lambda _: None, stop_at(step))
        saved = read_checkpoint(checkpoint, "this one")
        assert (saved is None) == (step == 1)
        run = make_run(case, checkpoint)
        if saved is not None:
            run.load(saved)
        epochs = []
        assert_same(run.run(epochs.append, silent), expected)
        assert scores(epochs) == scores(expected.epochs)


def test_checkpoints_are_written_every_checkpoint_steps(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(FineTuning, "save", lambda run: written.append((run.state.epoch, run.state.step)))
    make_run("adamw, ema", tmp_path / "c.pt").run(lambda _: None, silent)
    assert written == [(1, 2), (1, 4), (2, 0), (2, 2), (2, 4), (3, 0)]


def test_checkpoint_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BundleError, match=r"file/c\.pt: cannot write the checkpoint: .*exists"):
        make_run("adamw, ema", tmp_path / "file" / "c.pt").run(lambda _: None, silent)


# ------------------------------------------------------------------------------------------------ whole trainings


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """The cache of all tests, also for fixtures of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_sounds(tmp_path_factory.mktemp("resume") / "data")


FOLDS = small_recipe(folds="given", epochs=3, batch_size=2, finetune={"checkpoint_steps": 1})


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("undisturbed") / "model", FOLDS)


def history(bundle):
    with (bundle / "epochs.csv").open(encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name not in CLOCK} for row in csv.DictReader(file)]


@pytest.fixture
def kill(data, tmp_path):
    """Train in a separate process, which kills itself at a training step or at a line of the log."""
    (tmp_path / "recipe.toml").write_text(to_toml(FOLDS), encoding="utf-8")

    def start(*, step="", n_done=0, line="", resume):
        values = {"step": step, "n_done": n_done, "line": line, "resume": resume, "data": str(data)}
        values |= {"output": str(tmp_path / "model"), "recipe": str(tmp_path / "recipe.toml")}
        values |= {"tests": str(TESTS)}
        done = subprocess.run(
            [sys.executable, "-c", KILLED.format(**values)], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    return start


@pytest.mark.slow
def test_run_that_is_killed_repeatedly_gives_the_same_files(undisturbed, kill, run, data, tmp_path):
    """Within an epoch, between two folds, and at the last step."""
    kill(step="fold 0 epoch 2", n_done=2, resume=False)
    kill(line="fold 2 of 2 (fold 1)", resume=True)
    kill(step="fold 1 epoch 3", n_done=3, resume=True)
    done = run("train", data, "-o", tmp_path / "model", "--config", tmp_path / "recipe.toml", "--resume")
    assert done.status == 0
    assert "resuming from epoch 3, step 2" in done.err
    bundle = tmp_path / "model"
    assert (bundle / "weights.safetensors").read_bytes() == (undisturbed.bundle / "weights.safetensors").read_bytes()
    assert history(bundle) == history(undisturbed.bundle)
    assert len(history(bundle)) == 2 * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "recipe.toml"]


@pytest.fixture
def without_bundle(monkeypatch):
    """Do not write the bundle, which takes longest."""
    monkeypatch.setattr("spectag.training.ensemble.write_bundle", lambda *_, **__: 0.0)


def stopped(data, output, recipe, step, **options):
    with pytest.raises(StopError):
        train(data, output, recipe, progress=stop_at(step), **options)


@pytest.mark.slow
@pytest.mark.usefixtures("without_bundle")
def test_run_of_other_settings_is_not_resumed(data, tmp_path):
    stopped(data, tmp_path / "model", FOLDS, 4)
    other = FOLDS.model_copy(update={"learning_rate": 0.5})
    message = (
        "had other settings, clips or labels, so it cannot be resumed; run the same command as before, or leave out"
    )
    with pytest.raises(ConfigError, match=message):
        train(data, tmp_path / "model", other, resume=True)


@pytest.mark.slow
@pytest.mark.usefixtures("without_bundle")
def test_run_of_other_labels_is_not_resumed(data, tmp_path):
    stopped(data, tmp_path / "model", FOLDS, 4)
    changed = data.with_name("changed.csv")
    changed.write_text(data.read_text(encoding="utf-8").replace("00.wav,low", "00.wav,high"), encoding="utf-8")
    with pytest.raises(ConfigError, match="had other settings, clips or labels"):
        train(changed, tmp_path / "model", FOLDS, resume=True, data=DataOptions(audio_dir=data.parent / "clips"))


@pytest.mark.slow
@pytest.mark.usefixtures("without_bundle")
@pytest.mark.parametrize("length", [0, 100, 5000])
def test_damaged_checkpoint_is_named(data, tmp_path, length):
    stopped(data, tmp_path / "model", FOLDS, 4)
    [checkpoint] = tmp_path.glob(".model-checkpoints/*/0.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    with pytest.raises(BundleError, match=r"0\.pt: the checkpoint is damaged: .*; leave out --resume to start again"):
        train(data, tmp_path / "model", FOLDS, resume=True)


def test_checkpoint_runs_no_code(tmp_path):
    torch.save({"fingerprint": "this one", "step": Path("a class of its own")}, tmp_path / "c.pt")
    with pytest.raises(BundleError, match="the checkpoint is damaged"):
        read_checkpoint(tmp_path / "c.pt", "this one")


@pytest.mark.slow
@pytest.mark.usefixtures("without_bundle")
def test_without_resume_the_checkpoints_of_a_stopped_run_are_deleted(data, tmp_path):
    """Even if its settings were different."""
    lines = []
    stopped(data, tmp_path / "model", FOLDS.model_copy(update={"seed": 7}), 11)  # within the second fold
    assert len(list(tmp_path.glob(".model-checkpoints/*/*.pt"))) == 2
    stopped(data, tmp_path / "model", FOLDS, 4, log=lines.append)
    assert len(list(tmp_path.glob(".model-checkpoints/*/*.pt"))) == 1
    assert "fine-tuning starts from the beginning and deletes the checkpoints of a stopped run (no --resume)" in lines


@pytest.mark.slow
@pytest.mark.usefixtures("without_bundle")
def test_resume_without_checkpoint_starts_from_the_beginning(data, undisturbed, tmp_path):
    lines = []
    result = train(data, tmp_path / "model", FOLDS, resume=True, log=lines.append)
    assert "no stopped run to resume: fine-tuning starts from the beginning" in lines
    assert scores(result.epochs) == scores(undisturbed.epochs)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("without_bundle")
def test_resumed_run_keeps_its_number_of_epochs(data, tmp_path, monkeypatch):
    recipe = small_recipe(validation_fraction=0.25, epochs=9, budget=500.0, finetune={"checkpoint_steps": 1})
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 100.0)  # of almost 500 seconds for training
    monkeypatch.setattr("spectag.training.ensemble.seconds_of_writing", lambda *_, **__: 1.0)  # on a busy machine, too
    stopped(data, tmp_path / "model", recipe, 2)
    monkeypatch.setattr(FineTuning, "seconds_per_epoch", lambda _: 1.0)
    result = train(data, tmp_path / "model", recipe, resume=True)
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3, 4]
    assert {epoch.n_epochs for epoch in result.epochs} == {4}


@pytest.mark.slow
@pytest.mark.usefixtures("without_bundle")
def test_each_member_is_resumed_from_its_own_checkpoint(data, tmp_path):
    members = ({"seed": 1}, {"seed": 2})
    recipe = small_recipe(validation_fraction=0.25, members=members, finetune={"checkpoint_steps": 1})
    expected = train(data, tmp_path / "whole", recipe)
    stopped(data, tmp_path / "model", recipe, 9)  # 3 steps per epoch: in the second member
    result = train(data, tmp_path / "model", recipe, resume=True)
    assert scores(result.epochs) == scores(expected.epochs)
    np.testing.assert_array_equal(result.predictions, expected.predictions)
