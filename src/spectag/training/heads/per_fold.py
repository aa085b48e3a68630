"""Heads on a frozen network, for each part of a task: solved to the end, or trained by epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.config.recipe import Recipe
from spectag.scoring.calibration_curves import fit_line
from spectag.system.epoch_log import Epoch, OnEpoch
from spectag.system.progress import Log, Progress
from spectag.training.heads.by_epochs import train_head
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, WEIGHT_DECAYS, LinearHead, Standardization, fit_heads
from spectag.training.inputs.mixed_clips import Mixes
from spectag.training.networks.network import StandardizedLinear, build_head, load_part
from spectag.training.setup.noisy_labels import Relabelled, relabel
from spectag.training.setup.optimization import WeightedTensors
from spectag.training.setup.task import CrossValidation, Fold


@dataclass(frozen=True)
class FrozenFeatures:
    """What a frozen network makes of the clips: `clips` (n_clips, n_features), and the number in each stage."""

    clips: Float32Array
    group_sizes: list[int]
    noisy: Float32Array | None = None  # (n_noisy, n_features), of the clips with doubtful labels
    mixes: Mixes | None = None

    def training_arrays(self, part: Fold, y_true: BoolArray) -> tuple[Float32Array, FloatArray, FloatArray]:
        """Features, targets and weights of all that a part learns from."""
        features = [self.clips[part.train]]
        targets: list[NDArray[Any]] = [y_true[part.train]]
        weights = [np.ones(part.train.sum())]
        if part.noisy is not None and self.noisy is not None:
            kept = part.noisy.weights > 0
            features.append(self.noisy[kept])
            targets.append(part.noisy.targets[kept])
            weights.append(part.noisy.weights[kept])
        if self.mixes is not None:
            within = self.mixes.within(part.train)
            features.append(self.mixes.features[within])
            targets.append(self.mixes.targets[within])
            weights.append(np.ones(within.sum()))
        return np.concatenate(features), np.concatenate(targets).astype(np.float64), np.concatenate(weights)


@dataclass(frozen=True)
class HeadFit:
    """Heads, and what those of the parts said of the clips that they did not see.

    `heads` are one for each part of the task and, after folds, one for the whole. `logits` (n_clips, n_labels) are NaN
    where all saw the clip.
    """

    heads: tuple[nn.Module, ...]
    logits: FloatArray
    epochs: tuple[Epoch, ...] = ()


def fit_by_lbfgs(
    data: FrozenFeatures, task: CrossValidation, recipe: Recipe, *, progress: Progress, log: Log
) -> HeadFit:
    """Linear heads at the least of their loss, with the weight decay that is best on the held-out clips."""
    can_choose = any(task.y_true[part.valid].any() for part in task.parts)
    decays = _decays(recipe, can_choose=can_choose)
    logits = {decay: np.full(task.y_true.shape, np.nan) for decay in decays}
    solved = []
    for n_done, part in enumerate(task.parts, start=1):
        heads = _solve(data, part, task.y_true, decays)
        for decay, head in zip(decays, heads, strict=True):
            logits[decay][part.valid] = head.logits(data.clips[part.valid])
        solved.append(heads)
        progress("heads", n_done, len(task.parts))
    decay = max(decays, key=lambda decay: task.score(logits[decay]) or 0.0)
    if len(decays) > 1:
        log(f"weight decay {decay:g}: the best of {', '.join(f'{d:g}' for d in decays)} on held-out clips")
    chosen = [heads[decays.index(decay)] for heads in solved]
    if task.whole is not None:
        chosen += _solve(data, task.whole, task.y_true, (decay,))
    return HeadFit(tuple(as_module(head) for head in chosen), logits[decay])


def _decays(recipe: Recipe, *, can_choose: bool) -> tuple[float, ...]:
    if recipe.weight_decay is not None:
        return (recipe.weight_decay,)
    return WEIGHT_DECAYS if can_choose else (DEFAULT_WEIGHT_DECAY,)


def _solve(data: FrozenFeatures, part: Fold, y_true: BoolArray, decays: Sequence[float]) -> list[LinearHead]:
    features, targets, weights = data.training_arrays(part, y_true)
    return fit_heads(features, targets, data.group_sizes, decays, clip_weights=weights)


def as_module(head: LinearHead) -> StandardizedLinear:
    """The head for torch."""
    module = _standardized_linear(head.standardization, len(head.bias))
    module.linear.weight.data = torch.from_numpy(np.ascontiguousarray(head.weights.T, np.float32))
    module.linear.bias.data = torch.from_numpy(head.bias.astype(np.float32))
    return module


def _standardized_linear(standardization: Standardization, n_labels: int) -> StandardizedLinear:
    module = StandardizedLinear(len(standardization.center), n_labels)
    module.center.copy_(torch.from_numpy(standardization.center))
    module.scale.copy_(torch.from_numpy(standardization.scale))
    return module


def fit_by_gradient(
    data: FrozenFeatures, task: CrossValidation, recipe: Recipe, *, name: str, log: Log, on_epoch: OnEpoch
) -> HeadFit:
    """Heads trained by epochs."""
    logits = np.full(task.y_true.shape, np.nan)
    heads, epochs = [], []

    def on_any_epoch(epoch: Epoch) -> None:
        epochs.append(epoch)
        on_epoch(epoch)

    for part in task.all_folds:
        if len(task.all_folds) > 1:
            log(part.name)
        head = descend_on(data, part, task.y_true, recipe, on_any_epoch, label=f"{name}{part.name}")
        with torch.inference_mode():
            logits[part.valid] = head(torch.from_numpy(data.clips[part.valid])).numpy()
        heads.append(head)
    return HeadFit(tuple(heads), logits, tuple(epochs))


def descend_on(
    data: FrozenFeatures, part: Fold, y_true: BoolArray, recipe: Recipe, on_epoch: OnEpoch, *, label: str
) -> nn.Module:
    """A head trained by epochs on one part."""
    features, targets, weights = data.training_arrays(part, y_true)
    head = new_head(features, data.group_sizes, y_true.shape[1], recipe)
    valid = WeightedTensors(*_tensors(data.clips[part.valid], y_true[part.valid], np.ones(part.valid.sum())))
    train_head(
        head,
        WeightedTensors(*_tensors(features, targets, weights)),
        valid if part.valid.any() else None,
        recipe,
        on_epoch,
        part=label,
    )
    return head


def new_head(features: Float32Array, group_sizes: list[int], n_labels: int, recipe: Recipe) -> nn.Module:
    """A head of random weights drawn from the recipe's seed, or with those of the bundle that `init` names."""
    torch.manual_seed(recipe.seed)
    if recipe.head == "linear":
        head: nn.Module = _standardized_linear(Standardization.of(features, group_sizes), n_labels)
    else:
        head = build_head(recipe.head, features.shape[1], n_labels)
    if recipe.init is not None:
        load_part(head, "head", Path(recipe.init))
    return head


def _tensors(*arrays: NDArray[np.generic]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(array, np.float32)) for array in arrays]


def relabel_parts(data: FrozenFeatures, given: BoolArray, task: CrossValidation, recipe: Recipe) -> list[Relabelled]:
    """What each of `task.all_folds` may learn from the noisy clips, in the opinion of a head that saw its clips alone.

    Parameters
    ----------
    data : FrozenFeatures
        With those of the noisy clips.
    given : bool array of shape (n_noisy, n_labels)
        The labels that may be wrong.
    task : Task
        Without noisy clips.
    recipe : Recipe
    """
    assert data.noisy is not None
    heads = [_solve(data, part, task.y_true, (DEFAULT_WEIGHT_DECAY,))[0] for part in task.all_folds]
    logits = np.full(task.y_true.shape, np.nan)
    for part, head in zip(task.parts, heads, strict=False):  # the whole comes last and holds nothing out
        logits[part.valid] = head.logits(data.clips[part.valid])
    seen = ~np.isnan(logits).any(axis=1)
    scale, offset = fit_line(logits[seen], task.y_true[seen]) if seen.any() else (1.0, 0.0)
    noisy = recipe.noisy_labels
    return [
        relabel(
            scale * head.logits(data.noisy) + offset,
            given,
            keeps_doubtful=noisy.method == "relabel",
            per_label=noisy.per_label,
            weight=noisy.weight,
        )
        for head in heads
    ]
