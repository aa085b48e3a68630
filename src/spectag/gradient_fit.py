"""A head on frozen features trained by epochs: Adam, AdamW or SGD."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spectag.errors import ConfigError
from spectag.history import Epoch, OnEpoch
from spectag.losses import class_weights, clip_losses
from spectag.metrics import lwlrap
from spectag.recipe import Recipe, TrainSettings


class Lessons(NamedTuple):
    """Inputs (n_clips, ...), what they should give (n_clips, n_labels), and how much each counts (n_clips,)."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor


def train_head(
    head: nn.Module,
    train: Lessons,
    valid: Lessons | None,
    recipe: Recipe,
    on_epoch: OnEpoch,
    *,
    part: str = "",
) -> None:
    """Train a head in place.

    Parameters
    ----------
    head : nn.Module
        Features (batch, n_features) to logits (batch, n_labels).
    train : Lessons
        Features to learn from.
    valid : Lessons, optional
        Only looked at after each epoch.
    part : str
        What the epochs are told to belong to.

    Raises
    ------
    ConfigError
        If the steps are so large that the loss is no longer finite.
    """
    label_weights = weights_of_labels(train, recipe)
    optimizer = make_optimizer([{"params": list(head.parameters()), "lr": recipe.learning_rate}], recipe)
    shuffle = torch.Generator().manual_seed(recipe.seed)
    for number in range(1, recipe.epochs + 1):
        head.train()
        for rows in torch.split(torch.randperm(len(train.inputs), generator=shuffle), recipe.batch_size):
            optimizer.zero_grad()
            logits = head(train.inputs[rows])
            losses = clip_losses(logits, train.targets[rows], recipe.loss, label_weights=label_weights)
            (losses * train.weights[rows]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        head.eval()
        train_loss, train_lwlrap = _evaluate(head, train, recipe)
        valid_loss, valid_lwlrap = _evaluate(head, valid, recipe) if valid is not None else (None, None)
        epoch = Epoch(
            number,
            train_loss,
            train_lwlrap,
            valid_loss,
            valid_lwlrap,
            learning_rate=recipe.learning_rate,
            n_epochs=recipe.epochs,
            part=part,
        )
        check_finite(epoch, recipe)
        on_epoch(epoch)


def weights_of_labels(train: Lessons, recipe: Recipe) -> Tensor | None:
    """How much each label counts, None where all count alike."""
    if recipe.loss.class_weights == "none":
        return None
    return class_weights(train.targets.nansum(dim=0))


def make_optimizer(groups: list[dict[str, Any]], recipe: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer that a recipe names, for groups of parameters with a learning rate each."""
    decay = recipe.weight_decay or 0.0
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum, weight_decay=decay)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, recipe.learning_rate, weight_decay=decay)


def check_finite(epoch: Epoch, recipe: TrainSettings) -> None:
    """Refuse an epoch whose loss is not finite.

    Raises
    ------
    ConfigError
    """
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.valid_loss or 0)):
        raise ConfigError(f"{epoch}: learning_rate {recipe.learning_rate:g} is too large")


@torch.inference_mode()
def _evaluate(head: nn.Module, lessons: Lessons, recipe: Recipe) -> tuple[float, float | None]:
    return judge(head(lessons.inputs), lessons.targets, recipe)


def judge(logits: Tensor, targets: Tensor, recipe: Recipe) -> tuple[float, float | None]:
    """Mean loss of logits (n_clips, n_labels), and their lwlrap where a clip has a label."""
    loss = float(clip_losses(logits, targets, recipe.loss).mean())
    y_true = targets.numpy() > 0.5
    has_score = math.isfinite(loss) and y_true.any()
    return loss, lwlrap(y_true, logits.double().numpy()) if has_score else None
