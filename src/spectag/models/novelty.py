"""Novelty: how much a sound differs from the training sounds, in units of a level that most of these stay below."""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from spectag.array_types import AnyFloatArray, FloatArray
from spectag.config.base import Config
from spectag.models.limits import MAX_CLIPS, MAX_MEMBERS

KEPT_FRACTION = 0.97
"""Fraction of the held-out training clips whose novelty is at most 1."""

SMALLEST_NORM = 1e-9
"""Of scaled features: those at the centre of all training clips have no direction."""


class NoveltyInfo(Config):
    """The novelty of a bundle. One of its networks computes it: the output `novelty` of its model.onnx."""

    network: int = Field(0, ge=0, le=MAX_MEMBERS)
    """Index of this network; 0 if there is only one."""
    kept_fraction: float = Field(KEPT_FRACTION, gt=0, le=1)
    """Fraction of the held-out training clips whose novelty is at most 1."""
    n_held_out: int = Field(ge=1, le=MAX_CLIPS)
    """Number of these clips."""


@dataclass(frozen=True, eq=False)
class NoveltyModel:
    """Novelty of features: their angle to the closest label, divided by a level.

    Only the last features are used. They are centred and scaled; then only their direction matters, because the length
    depends more on how clear a sound is than on what it is. A clip with two labels lies between both, so sums of
    two labels count as labels, too.

    Attributes
    ----------
    center, scale : float arrays of shape (n_used,)
        For the last n_used features.
    directions : float array of shape (n_used, n_labels)
        A unit vector for each label.
    combinations : float array of shape (n_labels, n_candidates)
        Weights of the labels in each candidate, such that a candidate is a unit vector, too.
    level : float
        Distance (1 minus the cosine) that has novelty 1.
    n_held_out : int
        Number of held-out clips from which the level is.
    """

    center: FloatArray
    scale: FloatArray
    directions: FloatArray
    combinations: FloatArray
    level: float = 1.0
    n_held_out: int = 0

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        """Novelty (n_clips,), 0 or more, of features (n_clips, n_features)."""
        return self.distances(features) / self.level

    def distances(self, features: AnyFloatArray) -> FloatArray:
        """1 minus the cosine of the angle to the closest candidate, (n_clips,), of features (n_clips, n_features)."""
        scaled = (features[:, -len(self.center) :] - self.center) * self.scale
        cosines = unit_rows(scaled) @ self.directions @ self.combinations
        return np.asarray(np.maximum(1 - cosines.max(axis=1), 0))


def unit_rows(rows: FloatArray) -> FloatArray:
    """The rows divided by their length; rows of zeros stay."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST_NORM))
