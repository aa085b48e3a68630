"""What there is to learn: true labels, labels that may be wrong, and which clips each training may not see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spectag.array_types import BoolArray, FloatArray
from spectag.scoring.metrics import lwlrap
from spectag.training.setup.holdout import HeldOut
from spectag.training.setup.noisy_labels import Relabelled

ALL_CLIPS = "all clips"


@dataclass(frozen=True)
class Fold:
    """One training: the clips that it learns from and those that it is then asked about.

    `train` and `valid` are bool arrays of shape (n_clips,); `noisy` is what the clips with doubtful labels teach.
    """

    name: str
    train: BoolArray
    valid: BoolArray
    noisy: Relabelled | None = None


@dataclass(frozen=True)
class CrossValidation:
    """What there is to learn, and in which parts.

    `parts` holds a training for each fold; or the one that a share of the clips is held out of; or one on all clips.
    `whole` is the training on all clips after folds, None where there are no folds.
    """

    y_true: BoolArray  # (n_clips, n_labels)
    parts: tuple[Fold, ...]
    whole: Fold | None

    @classmethod
    def of(cls, y_true: BoolArray, held_out: HeldOut) -> "CrossValidation":
        """The trainings that a choice of held-out clips asks for."""
        n_clips = len(y_true)
        everything = Fold(ALL_CLIPS, np.ones(n_clips, bool), np.zeros(n_clips, bool))
        kind = "" if held_out.is_share else "fold "
        held = zip(held_out.names, held_out.rows, strict=True)
        parts = tuple(Fold(f"{kind}{name}", ~rows, rows) for name, rows in held)
        if not parts:
            return cls(y_true, (everything,), None)
        return cls(y_true, parts, None if held_out.is_share else everything)

    @property
    def all_folds(self) -> tuple[Fold, ...]:
        """The parts and, after folds, the whole."""
        return self.parts if self.whole is None else (*self.parts, self.whole)

    def with_noisy(self, relabelled: Sequence[Relabelled]) -> "CrossValidation":
        """The same with doubtful clips for each of `all_folds`."""
        parts = [replace(part, noisy=noisy) for part, noisy in zip(self.all_folds, relabelled, strict=True)]
        n_parts = len(self.parts)
        return replace(self, parts=tuple(parts[:n_parts]), whole=parts[n_parts] if self.whole else None)

    def score(self, logits: FloatArray) -> float | None:
        """lwlrap of held-out logits (n_clips, n_labels), NaN in the rows of other clips; None if there is none."""
        seen = ~np.isnan(logits).any(axis=1) & self.y_true.any(axis=1)
        return lwlrap(self.y_true[seen], logits[seen]) if seen.any() else None
