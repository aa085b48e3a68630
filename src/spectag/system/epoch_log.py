"""What happened in training, epoch by epoch."""

import csv
import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Epoch:
    """How good a tagger is after a pass through its clips.

    The valid scores are None where no clips are held out, and lwlrap where none of the clips has a label.
    `clips_per_second` and `seconds_left` (of its training) are None where nobody needs to wait.
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
    """How many its training has at most."""
    part: str = ""
    """Which training it belongs to, such as fold 2 of a member."""

    def __str__(self) -> str:
        train = f"epoch {self.epoch:3}   train {_in_words(self.train_loss, self.train_lwlrap)}"
        if self.valid_loss is None:
            return train
        return f"{train}   valid {_in_words(self.valid_loss, self.valid_lwlrap)}"


def checkpoints_of(output: Path) -> Path:
    """The folder beside a tagger's place in which its fine-tuning is kept until it ends."""
    return output.absolute().parent / f".{output.absolute().name}-checkpoints"


OnEpoch = Callable[[Epoch], None]


def epoch_step(part: str, epoch: int) -> str:
    """What the way through an epoch's batches is called where progress is told."""
    return f"{part} epoch {epoch}".lstrip()


def is_epoch_step(step: str) -> bool:
    """Whether a step of progress is the way through an epoch's batches."""
    return re.fullmatch(r"(.* )?epoch \d+", step) is not None


def _in_words(loss: float, lwlrap: float | None) -> str:
    return f"loss {loss:.4f}" + (f" lwlrap {lwlrap:.4f}" if lwlrap is not None else "")


def write_history(path: Path, epochs: Iterable[Epoch]) -> None:
    """Write epochs as CSV, a row each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(epoch) for epoch in epochs)
