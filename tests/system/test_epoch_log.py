"""The record of a training, epoch by epoch."""

import csv
from dataclasses import asdict

from spectag.system.epoch_log import Epoch, write_history

EPOCHS = [
    Epoch(1, 0.5, None, None, None, part="fold 1"),
    Epoch(2, 0.25, 0.1 + 0.2, 1e-7, 0.75, learning_rate=1e-3, clips_per_second=12.5, seconds_left=0.0, part='a, "b"'),
]


def test_table_contains_every_field_of_every_epoch(tmp_path):
    path = tmp_path / "history.csv"
    write_history(path, EPOCHS)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(asdict(EPOCHS[0]))
    for row, epoch in zip(rows, EPOCHS, strict=True):
        for name, value in asdict(epoch).items():
            assert row[name] == ("" if value is None else str(value))
    assert float(rows[1]["train_lwlrap"]) == 0.1 + 0.2
    assert b"\r" not in path.read_bytes()


def test_table_without_epochs_is_a_header(tmp_path):
    path = tmp_path / "history.csv"
    write_history(path, [])
    assert path.read_text().startswith("epoch,train_loss,train_lwlrap,valid_loss,valid_lwlrap,")
    assert len(path.read_text().splitlines()) == 1


def test_epoch_as_text_is_one_line():
    assert str(Epoch(12, 0.25, 0.5, 1.0, None)) == "epoch  12   train loss 0.2500 lwlrap 0.5000   valid loss 1.0000"
    assert str(EPOCHS[0]) == "epoch   1   train loss 0.5000"
