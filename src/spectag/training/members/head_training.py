"""Heads on frozen features trained by epochs (Adam, AdamW or SGD), and PyTorch modules of heads."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.config.recipe import Recipe
from spectag.scoring.model_selection import HeldOutLogits
from spectag.system.epoch_log import Epoch, OnEpoch
from spectag.training.heads.head_weights import HeadKind, HeadWeights
from spectag.training.heads.logistic import LinearHead, Standardization
from spectag.training.heads.per_fold import FrozenFeatures, HeadFit
from spectag.training.networks.losses import clip_losses
from spectag.training.networks.network import StandardizedLinear, build_head, load_part
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation, Fold
from spectag.training.setup.optimization import (
    WeightedTensors,
    check_losses_finite,
    label_weights_for,
    make_optimizer,
    mean_loss_and_lwlrap,
)


def fit_by_gradient(
    data: FrozenFeatures, cross_validation: CrossValidation, recipe: Recipe, callbacks: Callbacks, *, name: str
) -> HeadFit[HeadWeights]:
    """Heads trained by epochs with the recipe's optimizer. `name` is a prefix of the epochs' names."""
    logits = np.full(cross_validation.y_true.shape, np.nan)
    heads, epochs = [], []

    def collect(epoch: Epoch) -> None:
        epochs.append(epoch)
        callbacks.on_epoch(epoch)

    for fold in cross_validation.trainings:
        if len(cross_validation.trainings) > 1:
            callbacks.log(fold.name)
        module = train_fold_head(data, fold, cross_validation.targets, recipe, collect, name=f"{name}{fold.name}")
        head = head_weights(module)
        logits[fold.valid] = data.logits(head.logits, fold.valid)
        heads.append(head)
    return HeadFit(tuple(heads), HeldOutLogits(logits), tuple(epochs))


def train_fold_head(
    data: FrozenFeatures, fold: Fold, y_true: BoolArray | FloatArray, recipe: Recipe, on_epoch: OnEpoch, *, name: str
) -> nn.Module:
    """A head trained by epochs on the clips of one fold."""
    features, targets, weights = data.training_arrays(fold, y_true)
    head = initial_head(features, data.group_sizes, y_true.shape[1], recipe)
    valid = WeightedTensors(*_tensors(data.clips[fold.valid], y_true[fold.valid], np.ones(fold.valid.sum())))
    train = WeightedTensors(*_tensors(features, targets, weights))
    train_head(head, train, valid if fold.valid.any() else None, recipe, on_epoch, name=name)
    return head


def train_head(
    head: nn.Module,
    train: WeightedTensors,
    valid: WeightedTensors | None,
    recipe: Recipe,
    on_epoch: OnEpoch,
    *,
    name: str = "",
) -> None:
    """Train a head in place.

    Parameters
    ----------
    head : nn.Module
        Features (batch, n_features) to logits (batch, n_labels).
    train : WeightedTensors
        Features to train on.
    valid : WeightedTensors, optional
        Scored after each epoch.
    on_epoch : callable
        Called with each Epoch.
    name : str
        Name of the training in its epochs.

    Raises
    ------
    ConfigError
        If the learning rate is so large that the loss is not finite.
    """
    label_weights = label_weights_for(train.targets, recipe)
    optimizer = make_optimizer([{"params": list(head.parameters()), "lr": recipe.learning_rate}], recipe)
    shuffle = torch.Generator().manual_seed(recipe.seed)
    for number in range(1, recipe.epochs + 1):
        head.train()
        for rows in torch.split(torch.randperm(len(train.inputs), generator=shuffle), recipe.batch_size):
            optimizer.zero_grad()
            losses = clip_losses(
                head(train.inputs[rows]), train.targets[rows], recipe.loss, label_weights=label_weights
            )
            (losses * train.weights[rows]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        head.eval()
        train_scores = _evaluate(head, train, recipe)
        valid_scores: tuple[float | None, float | None] = (None, None)
        if valid is not None:
            valid_scores = _evaluate(head, valid, recipe)
        epoch = Epoch(
            number, *train_scores, *valid_scores, learning_rate=recipe.learning_rate, n_epochs=recipe.epochs, part=name
        )
        check_losses_finite(epoch, recipe)
        on_epoch(epoch)


@torch.inference_mode()
def _evaluate(head: nn.Module, clips: WeightedTensors, recipe: Recipe) -> tuple[float, float | None]:
    return mean_loss_and_lwlrap(head(clips.inputs), clips.targets, recipe)


def initial_head(features: Float32Array, group_sizes: list[int], n_labels: int, recipe: Recipe) -> nn.Module:
    """A head with random weights drawn with the recipe's seed, or with those of the bundle `recipe.init`."""
    torch.manual_seed(recipe.seed)
    if recipe.head == "linear":
        head: nn.Module = _standardized_linear(Standardization.fit(features, group_sizes), n_labels)
    else:
        head = build_head(recipe.head, features.shape[1], n_labels)
    if recipe.init is not None:
        load_part(head, "head", Path(recipe.init))
    return head


def head_module(head: LinearHead) -> StandardizedLinear:
    """The head as a PyTorch module."""
    module = _standardized_linear(head.standardization, len(head.bias))
    arrays = HeadWeights.of_linear(head).arrays
    module.load_state_dict({name: torch.from_numpy(values) for name, values in arrays.items()})
    return module


def head_weights(module: nn.Module) -> HeadWeights:
    """The arrays of a head on the CPU."""
    kind: HeadKind = "linear" if isinstance(module, StandardizedLinear) else "layer_norm"
    return HeadWeights(kind, {name: values.numpy().copy() for name, values in module.state_dict().items()})


def _standardized_linear(standardization: Standardization, n_labels: int) -> StandardizedLinear:
    module = StandardizedLinear(len(standardization.center), n_labels)
    module.center.copy_(torch.from_numpy(standardization.center))
    module.scale.copy_(torch.from_numpy(standardization.scale))
    return module


def _tensors(*arrays: NDArray[np.generic]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(array, np.float32)) for array in arrays]
