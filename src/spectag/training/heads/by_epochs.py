"""A head on frozen features trained by epochs: Adam, AdamW or SGD."""

import torch
from torch import nn

from spectag.config.recipe import Recipe
from spectag.system.epoch_log import Epoch, OnEpoch
from spectag.training.networks.losses import clip_losses
from spectag.training.setup.optimization import WeightedTensors, check_finite, judge, make_optimizer, weights_of_labels


def train_head(
    head: nn.Module,
    train: WeightedTensors,
    valid: WeightedTensors | None,
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


@torch.inference_mode()
def _evaluate(head: nn.Module, training_arrays: WeightedTensors, recipe: Recipe) -> tuple[float, float | None]:
    return judge(head(training_arrays.inputs), training_arrays.targets, recipe)
