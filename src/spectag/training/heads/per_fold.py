"""Linear heads on the features of a frozen network for each fold, and the weights of clips with noisy labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import AnyFloatArray, BoolArray, Float32Array, FloatArray
from spectag.config.recipe import Recipe
from spectag.scoring.calibration_curves import fit_line
from spectag.scoring.model_selection import Choice, HeldOutLogits
from spectag.system.epoch_log import Epoch
from spectag.system.progress import Log, Progress
from spectag.training.heads.logistic import (
    DEFAULT_WEIGHT_DECAY,
    WEIGHT_DECAYS,
    WIDER_WEIGHT_DECAYS,
    LinearHead,
    fit_heads,
)
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation, Fold
from spectag.training.setup.noisy_labels import Relabelled, relabel

if TYPE_CHECKING:
    from spectag.training.inputs.feature_store import PartFeatures
    from spectag.training.inputs.mixed_clips import MixedClips

H = TypeVar("H")


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of the clips by a frozen network: `clips` (n_clips, n_features), and the number in each stage."""

    clips: Float32Array
    group_sizes: list[int]
    noisy: Float32Array | None = None  # (n_noisy, n_features), of the clips with noisy labels
    mixed: "MixedClips | None" = None
    parts: "Mapping[int, PartFeatures]" = field(default_factory=dict)  # of the long clips, by their rows in `clips`

    def logits(self, head: Callable[[Float32Array], AnyFloatArray], rows: BoolArray) -> FloatArray:
        """Logits (n_rows, n_labels) of some clips by a head, those of long clips as in tagging (`pool_logits`)."""
        logits = np.asarray(head(self.clips[rows]), np.float64)
        for position, row in enumerate(np.flatnonzero(rows)):
            if (parts := self.parts.get(int(row))) is not None:
                logits[position] = parts.logits(head)
        return logits

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
    """A head for each of `CrossValidation.trainings`, and the held-out logits of the folds' heads.

    There are epochs only if the heads were trained by epochs.
    """

    heads: tuple[H, ...]
    logits: HeldOutLogits
    epochs: tuple[Epoch, ...] = ()


def fit_by_lbfgs(
    data: FrozenFeatures, cross_validation: CrossValidation, recipe: Recipe, callbacks: Callbacks
) -> HeadFit[LinearHead]:
    """Linear heads fitted to convergence, with the weight decay that has the best score on held-out clips.

    Without labelled held-out clips, the weight decay is the default.
    """
    candidates = _Candidates(data, cross_validation, callbacks.progress)
    can_compare = any(cross_validation.y_true[fold.valid].any() for fold in cross_validation.folds)
    if recipe.weight_decay is not None or not can_compare:
        choice = candidates.add([recipe.weight_decay or DEFAULT_WEIGHT_DECAY])
    else:
        choice = candidates.add(WEIGHT_DECAYS)
        while (wider := _beyond_end(candidates.decays, choice)) is not None:
            choice = candidates.add([wider])
        _log_choice(candidates.decays, choice, callbacks.log)
    best = candidates.decays[choice.best]
    heads = [*candidates.heads[best]]
    if cross_validation.all_clips is not None:
        heads += _fit_fold(data, cross_validation.all_clips, cross_validation.y_true, [best])
    return HeadFit(tuple(heads), choice.logits_of([candidates.logits[decay] for decay in candidates.decays]))


class _Candidates:
    """Heads of each fold with several weight decays, and their held-out logits."""

    def __init__(self, data: FrozenFeatures, cross_validation: CrossValidation, progress: Progress) -> None:
        self._data, self._cross_validation, self._progress = data, cross_validation, progress
        self.heads: dict[float, list[LinearHead]] = {}
        self.logits: dict[float, FloatArray] = {}

    @property
    def decays(self) -> list[float]:
        """The weight decays, strongest first."""
        return sorted(self.heads, reverse=True)

    def add(self, decays: Sequence[float]) -> Choice:
        """Fit heads with further weight decays, and choose among all."""
        y_true, folds = self._cross_validation.y_true, self._cross_validation.folds
        starts: Sequence[LinearHead | None] = [None] * len(folds)
        if self.heads:
            starts = self.heads[min(self.decays, key=lambda decay: abs(np.log(decay / decays[0])))]
        for decay in decays:
            self.heads[decay], self.logits[decay] = [], np.full(y_true.shape, np.nan)
        for n_done, (fold, start) in enumerate(zip(folds, starts, strict=True), start=1):
            for decay, head in zip(decays, _fit_fold(self._data, fold, y_true, decays, start), strict=True):
                self.logits[decay][fold.valid] = self._data.logits(head.logits, fold.valid)
                self.heads[decay].append(head)
            self._progress("heads", n_done, len(folds))
        return self._cross_validation.choose([self.logits[decay] for decay in self.decays])


def _beyond_end(decays: Sequence[float], choice: Choice) -> float | None:
    """The next weight decay to try if the best one is at an end of those that were tried, strongest first."""
    best = WIDER_WEIGHT_DECAYS.index(decays[choice.best])
    if not choice.is_clear or 0 < choice.best < len(decays) - 1 or best in (0, len(WIDER_WEIGHT_DECAYS) - 1):
        return None
    return WIDER_WEIGHT_DECAYS[best - 1 if choice.best == 0 else best + 1]


def _log_choice(decays: Sequence[float], choice: Choice, log: Log) -> None:
    best = decays[choice.best]
    log(f"weight decay {best:g}: the best of {', '.join(f'{decay:g}' for decay in decays)} on held-out clips")
    if choice.is_clear and best in (WIDER_WEIGHT_DECAYS[0], WIDER_WEIGHT_DECAYS[-1]):
        extreme = "large" if best == WIDER_WEIGHT_DECAYS[0] else "small"
        log(
            f"no {extreme}er weight decay is tried. A best value this {extreme} is unusual: do folds share recordings? "
            "--weight-decay sets another"
        )


def _fit_fold(
    data: FrozenFeatures, fold: Fold, y_true: BoolArray, decays: Sequence[float], start: LinearHead | None = None
) -> list[LinearHead]:
    features, targets, weights = data.training_arrays(fold, y_true)
    return fit_heads(features, targets, data.group_sizes, decays, clip_weights=weights, start=start)


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
        logits[fold.valid] = data.logits(head.logits, fold.valid)
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
