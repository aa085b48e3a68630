"""Fine-tuning from end to end: epochs in every output, patience, and resuming."""

import csv
import re

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spectag.audio.files import read_audio, write_audio
from spectag.audio.synthesis import KINDS
from spectag.config.base import MelConfig, to_toml
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.models.bundle import read_info
from spectag.models.out_of_fold import read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.scoring.metrics import lwlrap
from spectag.training.bundle_writer import check_output
from spectag.training.pipeline import train

pytestmark = pytest.mark.slow

PATIENCE, MAX_EPOCHS = 2, 40
RECIPE = Recipe(
    mode="finetune",
    backbone="scratch",
    features="last",
    head="layer_norm",
    mel=MelConfig(sample_rate=16_000, n_fft=512, hop_length=512, n_mels=16, f_max=8000.0),
    epochs=MAX_EPOCHS,
    batch_size=8,
    learning_rate=0.01,
    validation_fraction=0.5,
    finetune={
        "patience": PATIENCE,
        "weight_averaging": "none",
        "schedule": "constant",
        "linear_probe_first": False,
        "crop_seconds": 0.3,
    },
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    rows = ["fname,labels"]
    for label in list(KINDS)[:3]:
        for number in range(6):
            write_audio(folder / f"{label} {number}.wav", KINDS[label](rng, 0.4, 16_000), 16_000)
            rows.append(f"{label} {number}.wav,{label}")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder / "clips.csv"


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def watched(manifest, tmp_path_factory):
    """A training that was stopped in its third epoch and resumed, and the epochs it reported each time."""
    folder = tmp_path_factory.mktemp("watched")
    places = {"output": folder / "model", "data": DataOptions(cache=folder / "cache"), "tensorboard": folder / "tb"}
    before, after = [], []

    def until_killed(epoch):
        before.append(epoch)
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(manifest, recipe=RECIPE, on_epoch=until_killed, **places)
    result = train(manifest, recipe=RECIPE, on_epoch=after.append, resume=True, **places)
    return folder, before, after, result


def test_training_ends_after_patience_epochs_without_improvement(watched):
    *_, result = watched
    scores = [epoch.valid_lwlrap for epoch in result.epochs]
    assert len(scores) == 1 + int(np.argmax(scores)) + PATIENCE < MAX_EPOCHS


def test_best_weights_are_used_and_the_last_are_kept(watched, manifest):
    folder, *_, result = watched
    best = max(epoch.valid_lwlrap for epoch in result.epochs)
    assert best > result.epochs[-1].valid_lwlrap  # otherwise the last weights would pass too
    assert result.scores.lwlrap <= best  # the score does not know which epoch is the best on its clips
    clips, tagger = read_manifest(manifest), Tagger(folder / "model")
    rows = read_out_of_fold(folder / "model").has_prediction
    sounds = [read_audio(clip.path) for clip, is_held_out in zip(clips.clips, rows, strict=True) if is_held_out]
    logits = [tagger.outputs(waveform, sample_rate).logits for waveform, sample_rate in sounds]
    assert lwlrap(clips.multi_hot()[rows], np.stack(logits)) == pytest.approx(best)
    taken, last = (load_file(folder / "model" / f"{name}.safetensors") for name in ("weights", "last"))
    assert taken.keys() == last.keys()
    assert any((taken[name] != last[name]).any() for name in taken)
    assert not (folder / "model" / "best.safetensors").exists()


def test_resumed_run_repeats_its_earlier_epochs(watched):
    _, before, after, result = watched
    assert [epoch.epoch for epoch in before] == [1, 2]
    assert after[:2] == before
    assert tuple(after) == result.epochs
    assert [epoch.epoch for epoch in after] == [*range(1, len(after) + 1)]


def test_tensorboard_has_every_epoch_of_a_resumed_run_once(watched):
    folder, *_, result = watched
    events = EventAccumulator(str(folder / "tb" / "model" / "valid")).Reload()
    for name, field in (("loss/train", "train_loss"), ("lwlrap/valid", "valid_lwlrap")):
        points = [(event.step, event.value) for event in events.Scalars(name)]
        assert points == [(epoch.epoch, pytest.approx(getattr(epoch, field))) for epoch in result.epochs]


def test_table_of_epochs_in_the_bundle_agrees(watched):
    folder, *_, result = watched
    rows = read_csv(folder / "model" / "epochs.csv")
    assert [float(row["valid_lwlrap"]) for row in rows] == [epoch.valid_lwlrap for epoch in result.epochs]
    assert {row["n_epochs"] for row in rows} == {str(MAX_EPOCHS)}
    assert all(float(row["clips_per_second"]) > 0 for row in rows)


def test_command_logs_and_draws_epochs_and_uses_the_last_without_patience(run, manifest, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text(to_toml(RECIPE))
    model = tmp_path / "model"
    done = run("train", manifest, "-o", model, "--config", settings, "--epochs", "4", "--finetune.patience", "none")
    assert done.status == 0
    lines = [line for line in done.err.splitlines() if line.startswith("epoch ")]
    form = r"epoch   \d   train loss .* lwlrap .*   valid loss .* lwlrap .*   rate \S+   \S+ clips/s   0:00:\d\d left"
    assert len(lines) == 4
    assert all(re.fullmatch(form, line) for line in lines)
    scores = [float(row["valid_lwlrap"]) for row in read_csv(model / "epochs.csv")]
    assert read_info(model).metrics["lwlrap"] == pytest.approx(scores[-1])
    assert (model / "best.safetensors").exists() == (int(np.argmax(scores)) != 3)
    assert (model / "epochs.png").read_bytes().startswith(b"\x89PNG")
    check_output(model)  # the figure is not a foreign file


def test_tensorboard_with_lbfgs_is_refused_by_the_command(run, manifest, tmp_path):
    done = run("train", manifest, "-o", tmp_path / "model", "--backbone", "scratch", "--tensorboard", tmp_path / "tb")
    assert done.status == 1
    assert "TensorBoard shows epochs; leave out --tensorboard, use an optimizer other than lbfgs" in done.err
    assert not (tmp_path / "tb").exists()
