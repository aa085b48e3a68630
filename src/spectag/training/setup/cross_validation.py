"""The folds of one training run: which clips each network is trained on, and which it is validated on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.models.out_of_fold import cross_fitting_folds
from spectag.scoring.metrics import decides_lwlrap, selection_score
from spectag.scoring.model_selection import Choice, HeldOutLogits, choose
from spectag.training.setup.held_out import HeldOut
from spectag.training.setup.noisy_labels import Relabelled

ALL_CLIPS = "all clips"
_MAX_PARTS = 5  # a choice is repeated without each of them


@dataclass(frozen=True)
class Fold:
    """One training.

    `train` and `valid` are bool arrays of shape (n_clips,); `noisy`: its clips with noisy labels. `weights` (n_clips,)
    are how much the clips count in training; None if all count the same.
    """

    name: str
    train: BoolArray
    valid: BoolArray
    noisy: Relabelled | None = None
    weights: FloatArray | None = None

    def weights_of(self, clips: IntArray) -> FloatArray:
        """The weights of the clips with these indices, in an array of the same shape."""
        return np.ones(clips.shape) if self.weights is None else self.weights[clips]


@dataclass(frozen=True)
class CrossValidation:
    """The labels of all clips, and the folds to train.

    `targets` (n_clips, n_labels) are 1 or 0, or NaN for an unknown label, on which nothing is trained or scored.
    `folds` has one item per fold, or a single item for one split or for no held-out clips at all. `all_clips` is the
    training on all clips that follows the folds; it is None if there are no folds. `groups` are the recordings of the
    clips; without them, each clip is a recording.
    """

    targets: BoolArray | FloatArray
    folds: tuple[Fold, ...]
    all_clips: Fold | None
    groups: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls, targets: BoolArray | FloatArray, held_out: HeldOut, weights: FloatArray | None = None
    ) -> "CrossValidation":
        """The trainings for a choice of held-out clips, and weights of the clips (n_clips,) if they differ.

        Clips with the weight 0 are not trained on. They may be held out, because scores are not weighted.
        """
        n_clips = len(targets)
        is_used = np.ones(n_clips, bool)
        if weights is not None:
            is_used, weights = weights > 0, relative_weights(weights)
        all_clips = Fold(ALL_CLIPS, is_used, np.zeros(n_clips, bool), weights=weights)
        if not held_out.names:
            return cls(targets, (all_clips,), None, held_out.groups)
        prefix = "" if held_out.is_single_split else "fold "
        rows_by_fold = zip(held_out.names, held_out.train_rows, held_out.rows, strict=True)
        folds = [Fold(f"{prefix}{name}", train & is_used, valid, None, weights) for name, train, valid in rows_by_fold]
        return cls(targets, tuple(folds), None if held_out.is_single_split else all_clips, held_out.groups)

    @cached_property
    def y_true(self) -> BoolArray:
        """The true labels, (n_clips, n_labels); False where a label is unknown."""
        return np.asarray(self.targets == 1)

    @property
    def trainings(self) -> tuple[Fold, ...]:
        """The folds, then the training on all clips if there is one."""
        return self.folds if self.all_clips is None else (*self.folds, self.all_clips)

    def with_noisy(self, relabelled: Sequence[Relabelled]) -> "CrossValidation":
        """A copy with clips with noisy labels for each of `trainings`."""
        trainings = [replace(fold, noisy=noisy) for fold, noisy in zip(self.trainings, relabelled, strict=True)]
        n_folds = len(self.folds)
        return replace(self, folds=tuple(trainings[:n_folds]), all_clips=trainings[n_folds] if self.all_clips else None)

    @cached_property
    def parts(self) -> IntArray:
        """The part of each clip for `spectag.scoring.model_selection`, from 0; -1 for clips that are not held out.

        Parts are folds, or several folds together if there are many. The held-out clips of a single split are dealt at
        random, whole recordings together.
        """
        parts = np.full(len(self.targets), -1)
        if len(self.folds) == 1:
            rows = np.flatnonzero(self.folds[0].valid)
            parts[rows] = cross_fitting_folds([str(row) if self.groups is None else self.groups[row] for row in rows])
        for number, fold in enumerate(self.folds if len(self.folds) > 1 else ()):
            parts[fold.valid] = number % _MAX_PARTS
        return parts

    @property
    def n_parts(self) -> int:
        """The number of parts; 0 if no clips are held out."""
        return int(self.parts.max(initial=-1)) + 1

    def score(self, logits: FloatArray) -> float | None:
        """`held_out_score` of held-out logits (n_clips, n_labels), NaN for the other clips."""
        rows = ~np.isnan(logits).any(axis=1)
        return held_out_score(self.targets[rows], logits[rows])

    @property
    def metric(self) -> str:
        """The name of `score`: lwlrap, or mAP where lwlrap is not defined."""
        return "lwlrap" if decides_lwlrap(self.targets[self.parts >= 0]).any() else "mAP"

    def choose(self, candidates: Sequence[FloatArray]) -> Choice:
        """The best of some candidates by their held-out logits, (n_clips, n_labels) each."""
        return choose(candidates, self.targets, self.parts, held_out_score)

    def cross_fitted(self, logits: HeldOutLogits) -> FloatArray:
        """Held-out logits (n_clips, n_labels) for a score: the settings for a clip are chosen on the other parts."""
        return logits.cross_fitted(self.parts)


def held_out_score(targets: BoolArray | FloatArray, logits: FloatArray) -> float | None:
    """The score by which settings are chosen, of logits (n_clips, n_labels); None if no score says anything."""
    return selection_score(targets, logits) if (targets == 1).any() else None


def relative_weights(weights: FloatArray) -> FloatArray:
    """Weights (n_clips,) divided by the mean of those above 0, so that they do not change the learning rate.

    Examples
    --------
    >>> relative_weights(np.array([1.0, 3.0, 0.0]))
    array([0.5, 1.5, 0. ])
    """
    return weights / weights[weights > 0].mean() if weights.any() else weights
