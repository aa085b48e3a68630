"""A head on frozen features trained by epochs: BCE with logits, Adam, AdamW or SGD."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from spectag.errors import ConfigError
from spectag.metrics import lwlrap
from spectag.recipe import Recipe

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Epoch:
    """How good the head is after an epoch.

    The valid scores are None where no clips are held out, and lwlrap where none of the clips has a label.
    """

    epoch: int
    train_loss: float
    train_lwlrap: float | None
    valid_loss: float | None
    valid_lwlrap: float | None

    def __str__(self) -> str:
        train = f"epoch {self.epoch:3}   train {_in_words(self.train_loss, self.train_lwlrap)}"
        if self.valid_loss is None:
            return train
        return f"{train}   valid {_in_words(self.valid_loss, self.valid_lwlrap)}"


def _in_words(loss: float, lwlrap: float | None) -> str:
    return f"loss {loss:.4f}" + (f" lwlrap {lwlrap:.4f}" if lwlrap is not None else "")


def train_head(
    head: nn.Module,
    features: Float32Array,
    y_true: BoolArray,
    valid: BoolArray,
    recipe: Recipe,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Train a head in place.

    Parameters
    ----------
    head : nn.Module
        Features (batch, n_features) to logits (batch, n_labels).
    features : float array of shape (n_clips, n_features)
    y_true : bool array of shape (n_clips, n_labels)
    valid : bool array of shape (n_clips,)
        Clips that are only looked at after each epoch.

    Raises
    ------
    ConfigError
        If the steps are so large that the loss is no longer finite.
    """
    inputs, targets = torch.from_numpy(features), torch.from_numpy(y_true.astype(np.float32))
    held_out = torch.from_numpy(valid)
    train_inputs, train_targets = inputs[~held_out], targets[~held_out]
    optimizer = _optimizer(head, recipe)
    shuffle = torch.Generator().manual_seed(recipe.seed)
    for number in range(1, recipe.epochs + 1):
        head.train()
        for rows in torch.split(torch.randperm(len(train_inputs), generator=shuffle), recipe.batch_size):
            optimizer.zero_grad()
            loss = binary_cross_entropy_with_logits(head(train_inputs[rows]), train_targets[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        head.eval()
        valid_scores = _evaluate(head, inputs[held_out], targets[held_out]) if valid.any() else (None, None)
        epoch = Epoch(number, *_evaluate(head, train_inputs, train_targets), *valid_scores)
        if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.valid_loss or 0)):
            raise ConfigError(f"{epoch}: learning_rate {recipe.learning_rate:g} is too large")
        on_epoch(epoch)


def _optimizer(head: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decay = recipe.weight_decay or 0.0
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(head.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=decay)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(head.parameters(), recipe.learning_rate, weight_decay=decay)


@torch.inference_mode()
def _evaluate(head: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float | None]:
    logits = head(inputs)
    loss = float(binary_cross_entropy_with_logits(logits, targets))
    y_true = targets.numpy() > 0.5
    has_score = math.isfinite(loss) and y_true.any()
    return loss, lwlrap(y_true, logits.double().numpy()) if has_score else None
