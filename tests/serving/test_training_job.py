"""The job that trains a version: what it stores, and that it goes on after a stop."""

import pytest

from helpers.small_training import SMALL, SMALL_MEL, write_sounds
from spectag.config.recipe import Recipe
from spectag.errors import DataError
from spectag.serving.project.job_kinds import JobContext
from spectag.serving.project.project import open_project
from spectag.serving.project.training import train_version
from spectag.system.progress import no_log

EPOCHS = 4


@pytest.fixture
def folder(tmp_path):
    """A project whose version has a recipe of fine-tuning."""
    write_sounds(tmp_path / "sounds")
    with open_project(tmp_path / "project") as project:
        (project.folder / "models" / "0001").mkdir(parents=True)
    return tmp_path


def context_of(folder, *, stop_after=None, log=no_log, steps=None):
    epochs = []

    def progress(step, _n_done, _n_total):
        if steps is not None:
            steps.add(step)

    def on_epoch(epoch):
        epochs.append(epoch.epoch)
        if len(epochs) == stop_after:
            raise KeyboardInterrupt

    job_folder = folder / "project" / "jobs" / "0001"
    job_folder.mkdir(parents=True, exist_ok=True)
    return JobContext(folder / "project", progress, log, job_folder, on_epoch), epochs


def use_recipe(monkeypatch, recipe):
    monkeypatch.setattr("spectag.serving.project.training.recipe_of", lambda *_: recipe)


@pytest.mark.slow
def test_fine_tuning_goes_on_with_its_last_checkpoint(folder, monkeypatch):
    use_recipe(monkeypatch, Recipe(**SMALL | {"epochs": EPOCHS, "folds": "none", "find_shared_audio": False}))
    query = {"manifest": str(folder / "sounds" / "clips.csv"), "recipe": "best"}
    context, before = context_of(folder, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        train_version(context, query)
    assert before == [1, 2]
    steps = set()
    context, after = context_of(folder, steps=steps)
    assert train_version(context, query) == {"version": 1}
    assert after == [1, 2, 3, 4], "the curve has all epochs"
    assert any(step.endswith("epoch 4") for step in steps)
    assert not any(step.endswith("epoch 1") for step in steps), "the first epoch is not trained again"
    assert [path.name for path in context.job_folder.iterdir()] == []


@pytest.mark.slow
def test_training_starts_again_if_labels_have_changed_since_it_was_stopped(folder, monkeypatch):
    use_recipe(monkeypatch, Recipe(**SMALL | {"epochs": EPOCHS, "folds": "none", "find_shared_audio": False}))
    table = folder / "sounds" / "clips.csv"
    context, _ = context_of(folder, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        train_version(context, {"manifest": str(table), "recipe": "best"})
    table.write_text(table.read_text(encoding="utf-8").replace("02.wav,high", "02.wav,low"), encoding="utf-8")
    lines = []
    context, epochs = context_of(folder, log=lines.append)
    assert train_version(context, {"manifest": str(table), "recipe": "best"}) == {"version": 1}
    assert epochs == [1, 2, 3, 4]
    assert any("have changed, so fine-tuning starts from the beginning" in line for line in lines)


@pytest.mark.slow
def test_version_without_held_out_clips_has_no_scores_and_its_notes_are_in_the_log(folder, monkeypatch):
    use_recipe(
        monkeypatch, Recipe(backbone="scratch", pretrained=False, mel=SMALL_MEL, folds="none", find_shared_audio=False)
    )
    table = folder / "sounds" / "clips.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("02.wav,high", "02.wav,High"), encoding="utf-8")
    lines = []
    context, _ = context_of(folder, log=lines.append)
    train_version(context, {"manifest": str(table), "recipe": "quick"})
    with open_project(folder / "project") as project:
        [version] = project.versions
    assert (version.results["scores"], version.results["labels"], version.results["n_clips"]) == (None, [], 12)
    assert any(line.startswith("note: ") and "High" in line for line in lines)


def test_project_without_labels_is_explained(folder):
    context, _ = context_of(folder)
    with pytest.raises(DataError, match="no clip of the project is labelled yet"):
        train_version(context, {"recipe": "quick"})
