"""What every training with gradient steps needs: weighted tensors, an optimizer, checks and scores."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectag.config.recipe import Recipe, TrainSettings
from spectag.errors import ConfigError
from spectag.scoring.metrics import decides_lwlrap, lwlrap
from spectag.system.epoch_log import Epoch
from spectag.training.networks.losses import class_weights, clip_losses


class WeightedTensors(NamedTuple):
    """Inputs (n_clips, ...), targets (n_clips, n_labels) and weights (n_clips,) of clips."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor


def label_weights_for(targets: Tensor, recipe: Recipe) -> Tensor | None:
    """Loss weights (n_labels,) for targets (n_clips, n_labels); None if all labels have the same weight."""
    return None if recipe.loss.class_weights == "none" else class_weights(targets.nansum(dim=0))


def make_optimizer(groups: list[dict[str, Any]], recipe: TrainSettings) -> torch.optim.Optimizer:
    """The recipe's optimizer for parameter groups, each with its own learning rate."""
    decay = recipe.weight_decay or 0.0
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum, weight_decay=decay)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, recipe.learning_rate, weight_decay=decay)


def check_losses_finite(epoch: Epoch, recipe: TrainSettings) -> None:
    """Refuse an epoch whose loss is not finite.

    Raises
    ------
    ConfigError
    """
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.valid_loss or 0)):
        raise ConfigError(f"{epoch}: learning_rate {recipe.learning_rate:g} is too large")


def mean_loss_and_lwlrap(logits: Tensor, targets: Tensor, recipe: Recipe) -> tuple[float, float | None]:
    """Mean loss and lwlrap of logits (n_clips, n_labels). NaN in the targets is an unknown label.

    lwlrap is None if the loss is not finite, or lwlrap is not defined.
    """
    loss = float(clip_losses(logits, targets, recipe.loss).mean())
    truth = targets.numpy()
    y_true = np.where(np.isnan(truth), np.nan, truth > 0.5)
    has_score = math.isfinite(loss) and decides_lwlrap(y_true).any()
    return loss, lwlrap(y_true, logits.double().numpy()) if has_score else None
