"""Event files, read with TensorBoard's own reader."""

from dataclasses import replace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.command import run_without, write_manifest
from spectag.errors import ConfigError
from spectag.system.epoch_log import Epoch
from spectag.training.setup.tensorboard import TensorBoardLog

FULL = Epoch(
    1,
    train_loss=0.5,
    train_lwlrap=0.25,
    valid_loss=0.75,
    valid_lwlrap=0.125,
    learning_rate=0.001,
    clips_per_second=100.0,
    part="fold 1",
)
NAMES = ["clips_per_second", "learning_rate", "loss/train", "loss/valid", "lwlrap/train", "lwlrap/valid"]


def read(folder):
    """Steps and values of every curve."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)] for name in sorted(events.Tags()["scalars"])
    }


def write(folder, *epochs):
    with TensorBoardLog(folder) as log:
        for epoch in epochs:
            log(epoch)


def test_every_number_of_an_epoch_is_a_point_of_its_curve(tmp_path):
    write(tmp_path, FULL, replace(FULL, epoch=2, train_loss=0.25))
    curves = read(tmp_path / "fold 1")
    assert list(curves) == NAMES
    assert curves["loss/train"] == [(1, 0.5), (2, 0.25)]
    assert curves["lwlrap/valid"] == [(1, 0.125), (2, 0.125)]
    assert curves["learning_rate"][0] == (1, pytest.approx(0.001))
    assert curves["clips_per_second"] == [(1, 100.0), (2, 100.0)]


def test_missing_number_has_no_point(tmp_path):
    write(tmp_path, Epoch(1, 0.5, None, None, None))
    assert read(tmp_path) == {"loss/train": [(1, 0.5)]}


def test_each_training_is_a_run(tmp_path):
    write(tmp_path, FULL, replace(FULL, part="timm/resnet18 fine-tuned, fold 2", train_loss=0.125))
    assert {path.name for path in tmp_path.iterdir()} == {"fold 1", "timm_resnet18 fine-tuned, fold 2"}
    assert read(tmp_path / "timm_resnet18 fine-tuned, fold 2")["loss/train"] == [(1, 0.125)]
    assert read(tmp_path / "fold 1")["loss/train"] == [(1, 0.5)]


def test_repeated_epochs_are_written_once(tmp_path):
    write(tmp_path, *(replace(FULL, epoch=number) for number in (1, 2, 3)))
    write(tmp_path, *(replace(FULL, epoch=number, train_loss=0.25) for number in (1, 2, 3, 4)))
    assert read(tmp_path / "fold 1")["loss/train"] == [(number, 0.25) for number in (1, 2, 3, 4)]


def test_run_that_goes_on_keeps_the_epochs_before(tmp_path):
    write(tmp_path, *(replace(FULL, epoch=number) for number in (1, 2, 3)))
    write(tmp_path, *(replace(FULL, epoch=number, train_loss=0.25) for number in (3, 4)))
    assert read(tmp_path / "fold 1")["loss/train"] == [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0.25)]


def test_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/tb: cannot create the folder for TensorBoard events: Not a directory"):
        TensorBoardLog(tmp_path / "file" / "tb")


def test_missing_tensorboard_is_reported_before_any_work(tmp_path):
    manifest = write_manifest(tmp_path / "data", 3)
    options = ("--backbone", "scratch", "--optimizer", "adam", "--tensorboard", tmp_path / "tb")
    done = run_without({"tensorboard"}, "train", manifest, "-o", tmp_path / "model", *options)
    assert done.status == 1
    assert (
        "spectag: writing events for TensorBoard needs the package tensorboard: pip install 'spectag[finetune]'"
        in (done.err.splitlines()[-1])
    )
    assert "log_mels" not in done.err
