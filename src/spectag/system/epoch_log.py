"""The record of a training, epoch by epoch."""

import csv
import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Epoch:
    """Losses and scores after one pass through the training clips.

    The validation values are None without validation clips. An lwlrap is None if no clip has a label.
    `clips_per_second` and `seconds_left` (in this training) are None if the training is short.
    """

    epoch: int
    train_loss: float
    train_lwlrap: float | None
    valid_loss: float | None
    valid_lwlrap: float | None
    learning_rate: float | None = None
    clips_per_second: float | None = None
    seconds_left: float | None = None
    n_epochs: int | None = None
    """The maximum number of epochs of this training."""
    part: str = ""
    """The training that the epoch belongs to, such as "fold 2"."""

    def __str__(self) -> str:
        train = f"epoch {self.epoch:3}   train {_loss_and_lwlrap(self.train_loss, self.train_lwlrap)}"
        if self.valid_loss is None:
            return train
        return f"{train}   valid {_loss_and_lwlrap(self.valid_loss, self.valid_lwlrap)}"


OnEpoch = Callable[[Epoch], None]


def _loss_and_lwlrap(loss: float, lwlrap: float | None) -> str:
    return f"loss {loss:.4f}" + (f" lwlrap {lwlrap:.4f}" if lwlrap is not None else "")


def checkpoint_folder(output: Path) -> Path:
    """The folder for fine-tuning checkpoints, beside the folder of the bundle; it is deleted after the training."""
    return output.absolute().parent / f".{output.absolute().name}-checkpoints"


def epoch_step(part: str, epoch: int) -> str:
    """The name of the progress step that counts the batches of an epoch."""
    return f"{part} epoch {epoch}".lstrip()


def is_epoch_step(step: str) -> bool:
    """Whether a progress step counts the batches of an epoch."""
    return re.fullmatch(r"(.* )?epoch \d+", step) is not None


def write_history(path: Path, epochs: Iterable[Epoch]) -> None:
    """Write a CSV file with one row per epoch."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(epoch) for epoch in epochs)
