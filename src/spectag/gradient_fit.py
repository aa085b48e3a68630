"""A head on frozen features trained by epochs: BCE with logits, Adam, AdamW or SGD."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from spectag.metrics import lwlrap
from spectag.recipe import Recipe

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Epoch:
    """How good the head is after an epoch; the valid scores are None where no clips are held out."""

    epoch: int
    train_loss: float
    train_lwlrap: float
    valid_loss: float | None
    valid_lwlrap: float | None

    def __str__(self) -> str:
        valid = (
            f"   valid loss {self.valid_loss:.4f} lwlrap {self.valid_lwlrap:.4f}" if self.valid_loss is not None else ""
        )
        return f"epoch {self.epoch:3}   train loss {self.train_loss:.4f} lwlrap {self.train_lwlrap:.4f}{valid}"


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
    """
    inputs, targets = torch.from_numpy(features), torch.from_numpy(y_true.astype(np.float32))
    held_out = torch.from_numpy(valid)
    train_inputs, train_targets = inputs[~held_out], targets[~held_out]
    optimizer = _optimizer(head, recipe)
    shuffle = torch.Generator().manual_seed(recipe.seed)
    for epoch in range(1, recipe.epochs + 1):
        head.train()
        for rows in torch.randperm(len(train_inputs), generator=shuffle).split(recipe.batch_size):
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(head(train_inputs[rows]), train_targets[rows]).backward()
            optimizer.step()
        head.eval()
        train_loss, train_lwlrap = _evaluate(head, train_inputs, train_targets)
        valid_scores = _evaluate(head, inputs[held_out], targets[held_out]) if valid.any() else (None, None)
        on_epoch(Epoch(epoch, train_loss, train_lwlrap, *valid_scores))


def _optimizer(head: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decay = recipe.weight_decay or 0.0
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(head.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=decay)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(head.parameters(), recipe.learning_rate, weight_decay=decay)


@torch.inference_mode()
def _evaluate(head: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    logits = head(inputs)
    loss = float(binary_cross_entropy_with_logits(logits, targets))
    return loss, lwlrap(targets.numpy() > 0.5, logits.double().numpy())
