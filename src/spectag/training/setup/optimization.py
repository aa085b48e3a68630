"""What every training by gradient steps needs: tensors with weights, an optimiser, checks and scores."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectag.config.recipe import Recipe, TrainSettings
from spectag.errors import ConfigError
from spectag.scoring.metrics import lwlrap
from spectag.system.epoch_log import Epoch
from spectag.training.networks.losses import class_weights, clip_losses


class WeightedTensors(NamedTuple):
    """Inputs (n_clips, ...), what they should give (n_clips, n_labels), and how much each counts (n_clips,)."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor


def weights_of_labels(train: WeightedTensors, recipe: Recipe) -> Tensor | None:
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


def judge(logits: Tensor, targets: Tensor, recipe: Recipe) -> tuple[float, float | None]:
    """Mean loss of logits (n_clips, n_labels), and their lwlrap where a clip has a label."""
    loss = float(clip_losses(logits, targets, recipe.loss).mean())
    y_true = targets.numpy() > 0.5
    has_score = math.isfinite(loss) and y_true.any()
    return loss, lwlrap(y_true, logits.double().numpy()) if has_score else None
