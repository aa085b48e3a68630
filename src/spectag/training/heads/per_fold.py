"""Linear heads on the features of a frozen network for each fold, and the weights of clips with noisy labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.config.recipe import Recipe
from spectag.scoring.calibration_curves import fit_line
from spectag.system.epoch_log import Epoch
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, WEIGHT_DECAYS, LinearHead, fit_heads
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation, Fold
from spectag.training.setup.noisy_labels import Relabelled, relabel

if TYPE_CHECKING:
    from spectag.training.inputs.mixed_clips import MixedClips

H = TypeVar("H")


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of the clips by a frozen network: `clips` (n_clips, n_features), and the number in each stage."""

    clips: Float32Array
    group_sizes: list[int]
    noisy: Float32Array | None = None  # (n_noisy, n_features), of the clips with noisy labels
    mixed: "MixedClips | None" = None

    def training_arrays(self, fold: Fold, y_true: BoolArray) -> tuple[Float32Array, FloatArray, FloatArray]:
        """Features, targets and weights of all clips that a fold is trained on: plain, noisy and mixed ones."""
        features = [self.clips[fold.train]]
        targets: list[NDArray[Any]] = [y_true[fold.train]]
        weights = [np.ones(fold.train.sum())]
        if fold.noisy is not None and self.noisy is not None:
            kept = fold.noisy.weights > 0
            features.append(self.noisy[kept])
            targets.append(fold.noisy.targets[kept])
            weights.append(fold.noisy.weights[kept])
        if self.mixed is not None:
            rows = self.mixed.within(fold.train)
            features.append(self.mixed.features[rows])
            targets.append(self.mixed.targets[rows])
            weights.append(np.ones(rows.sum()))
        return np.concatenate(features), np.concatenate(targets).astype(np.float64), np.concatenate(weights)


@dataclass(frozen=True)
class HeadFit(Generic[H]):
    """A head for each of `CrossValidation.trainings`, and the held-out logits (n_clips, n_labels) of the folds' heads.

    Logits are NaN for clips that were never held out. There are epochs only if the heads were trained by epochs.
    """

    heads: tuple[H, ...]
    logits: FloatArray
    epochs: tuple[Epoch, ...] = ()


def fit_by_lbfgs(
    data: FrozenFeatures, cross_validation: CrossValidation, recipe: Recipe, callbacks: Callbacks
) -> HeadFit[LinearHead]:
    """Linear heads fitted to convergence, with the weight decay that has the best lwlrap on held-out clips."""
    y_true, folds = cross_validation.y_true, cross_validation.folds
    decays = _weight_decays(recipe, can_compare=any(y_true[fold.valid].any() for fold in folds))
    logits = {decay: np.full(y_true.shape, np.nan) for decay in decays}
    heads_by_fold = []
    for n_done, fold in enumerate(folds, start=1):
        heads = _fit_fold(data, fold, y_true, decays)
        for decay, head in zip(decays, heads, strict=True):
            logits[decay][fold.valid] = head.logits(data.clips[fold.valid])
        heads_by_fold.append(heads)
        callbacks.progress("heads", n_done, len(folds))
    best = max(decays, key=lambda decay: cross_validation.score(logits[decay]) or 0.0)
    if len(decays) > 1:
        callbacks.log(
            f"weight decay {best:g}: the best of {', '.join(f'{decay:g}' for decay in decays)} on held-out clips"
        )
    chosen = [heads[decays.index(best)] for heads in heads_by_fold]
    if cross_validation.all_clips is not None:
        chosen += _fit_fold(data, cross_validation.all_clips, y_true, (best,))
    return HeadFit(tuple(chosen), logits[best])


def _weight_decays(recipe: Recipe, *, can_compare: bool) -> tuple[float, ...]:
    if recipe.weight_decay is not None:
        return (recipe.weight_decay,)
    return WEIGHT_DECAYS if can_compare else (DEFAULT_WEIGHT_DECAY,)


def _fit_fold(data: FrozenFeatures, fold: Fold, y_true: BoolArray, decays: Sequence[float]) -> list[LinearHead]:
    features, targets, weights = data.training_arrays(fold, y_true)
    return fit_heads(features, targets, data.group_sizes, decays, clip_weights=weights)


def relabel_noisy_clips(
    data: FrozenFeatures, labels: BoolArray, cross_validation: CrossValidation, recipe: Recipe
) -> list[Relabelled]:
    """Targets and weights of the clips with noisy labels, for each of `trainings`.

    For each training, the predictions come from a head that was fitted on that training's clips only.

    Parameters
    ----------
    data : FrozenFeatures
        Including those of the clips with noisy labels.
    labels : bool array of shape (n_noisy, n_labels)
        The labels that may be wrong.
    cross_validation : CrossValidation
        Without clips with noisy labels.
    recipe : Recipe
    """
    assert data.noisy is not None
    y_true, noisy_labels = cross_validation.y_true, recipe.noisy_labels
    heads = [_fit_fold(data, fold, y_true, (DEFAULT_WEIGHT_DECAY,))[0] for fold in cross_validation.trainings]
    logits = np.full(y_true.shape, np.nan)
    for fold, head in zip(cross_validation.folds, heads, strict=False):  # the training on all clips comes last
        logits[fold.valid] = head.logits(data.clips[fold.valid])
    rows = ~np.isnan(logits).any(axis=1)
    scale, offset = fit_line(logits[rows], y_true[rows]) if rows.any() else (1.0, 0.0)
    return [
        relabel(
            scale * head.logits(data.noisy) + offset,
            labels,
            keep_doubtful=noisy_labels.method == "relabel",
            per_label=noisy_labels.per_label,
            weight=noisy_labels.weight,
        )
        for head in heads
    ]
