"""The folds of one training run: which clips each network is trained on, and which it is validated on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spectag.array_types import BoolArray, FloatArray
from spectag.scoring.metrics import lwlrap
from spectag.training.setup.held_out import HeldOut
from spectag.training.setup.noisy_labels import Relabelled

ALL_CLIPS = "all clips"


@dataclass(frozen=True)
class Fold:
    """One training. `train` and `valid` are bool arrays of shape (n_clips,); `noisy`: its clips with noisy labels."""

    name: str
    train: BoolArray
    valid: BoolArray
    noisy: Relabelled | None = None


@dataclass(frozen=True)
class CrossValidation:
    """The labels of all clips, and the folds to train.

    `folds` has one item per fold, or a single item for one split or for no held-out clips at all. `all_clips` is the
    training on all clips that follows the folds; it is None if there are no folds.
    """

    y_true: BoolArray  # (n_clips, n_labels)
    folds: tuple[Fold, ...]
    all_clips: Fold | None

    @classmethod
    def of(cls, y_true: BoolArray, held_out: HeldOut) -> "CrossValidation":
        """The trainings for a choice of held-out clips."""
        n_clips = len(y_true)
        all_clips = Fold(ALL_CLIPS, np.ones(n_clips, bool), np.zeros(n_clips, bool))
        if not held_out.names:
            return cls(y_true, (all_clips,), None)
        prefix = "" if held_out.is_single_split else "fold "
        folds = [Fold(f"{prefix}{name}", ~rows, rows) for name, rows in zip(held_out.names, held_out.rows, strict=True)]
        return cls(y_true, tuple(folds), None if held_out.is_single_split else all_clips)

    @property
    def trainings(self) -> tuple[Fold, ...]:
        """The folds, then the training on all clips if there is one."""
        return self.folds if self.all_clips is None else (*self.folds, self.all_clips)

    def with_noisy(self, relabelled: Sequence[Relabelled]) -> "CrossValidation":
        """A copy with clips with noisy labels for each of `trainings`."""
        trainings = [replace(fold, noisy=noisy) for fold, noisy in zip(self.trainings, relabelled, strict=True)]
        n_folds = len(self.folds)
        return replace(self, folds=tuple(trainings[:n_folds]), all_clips=trainings[n_folds] if self.all_clips else None)

    def score(self, logits: FloatArray) -> float | None:
        """lwlrap of held-out logits (n_clips, n_labels), NaN for the other clips; None if no labelled clip has any."""
        rows = ~np.isnan(logits).any(axis=1) & self.y_true.any(axis=1)
        return lwlrap(self.y_true[rows], logits[rows]) if rows.any() else None
