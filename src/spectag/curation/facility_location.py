"""Selecting a diverse subset of clips to label, by facility location weighted with the uncertainty of the model."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.curation.embedding import nearest_neighbors

NEAR_DUPLICATE = 0.99
"""Similarity from which two clips are indistinguishable for a model. No two clips of ESC-10 are; a clip and its copy at
half the level mostly are (median 0.993)."""
DISSIMILAR = 0.4
"""Clips with a lower similarity have little in common. In ESC-10, one clip in 400 is so far from all others."""

_MIN_WEIGHT = 0.25  # of a clip without uncertainty: the model may be wrong where it is certain
_MAX_TARGETS = 10_000  # of more clips, a random sample is covered
_BLOCK = 256  # candidates whose gains are computed at once


@dataclass(frozen=True)
class Selection:
    """A clip to label."""

    index: int
    n_represented: int
    """About how many clips are more similar to this one than to any clip that is labelled or was selected before."""
    similarity: float
    """To the closest labelled clip, from -1 to 1; NaN if no clip is labelled."""


def margin_uncertainty(probabilities: ArrayLike, *, allow_no_label: bool = False) -> FloatArray:
    """How uncertain it is which labels are true, from 0 (certain) to 1. Shape (n_clips,).

    The uncertainty is 1 minus the largest gap between successive probabilities of a clip in descending order: the
    labels above a large gap are true, those below are not. The order ends with 0, so that all labels can be true.

    Parameters
    ----------
    probabilities : float array of shape (n_clips, n_labels)
    allow_no_label : bool
        Clips may have no label: the order begins with 1. Otherwise a clip without a probable label is uncertain.

    Raises
    ------
    ValueError
        If the array has another shape, or there is no label.

    Examples
    --------
    >>> margin_uncertainty([[0.9, 0.8, 0.0], [0.5, 0.4, 0.3], [0.0, 0.0, 0.0]]).round(1)
    array([0.2, 0.7, 1. ])
    """
    rows = np.asarray(probabilities, np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"need probabilities of shape (n_clips, n_labels) with n_labels >= 1, got {rows.shape}")
    descending = np.sort(rows, axis=1)[:, ::-1]
    first, last = np.ones((len(rows), int(allow_no_label))), np.zeros((len(rows), 1))
    return np.asarray(1 + np.diff(np.hstack([first, descending, last]), axis=1).min(axis=1))


def select(
    vectors: Float32Array,
    *,
    uncertainty: ArrayLike | None = None,
    labelled: Float32Array | None = None,
    near_duplicate: float = NEAR_DUPLICATE,
    rng: np.random.Generator,
) -> Iterator[Selection]:
    """Select clips to label, the most useful first. The first k clips are the best k clips to label.

    A clip covers another one to the extent of their similarity. Clips are selected greedily: each one adds most to the
    coverage of all clips, weighted by uncertainty. Labelled clips cover others from the beginning. So the first
    selected clips are typical of many, later ones are rare, and none is similar to a labelled clip. Near-duplicates of
    labelled or selected clips are never selected.

    Parameters
    ----------
    vectors : float32 array of shape (n_clips, n_dimensions)
        Unit vectors of the clips.
    uncertainty : float array of shape (n_clips,), optional
        From 0 to 1. By default all clips have the same weight.
    labelled : float32 array of shape (n_labelled, n_dimensions), optional
        Unit vectors of the labelled clips.
    near_duplicate : float
        The similarity from which two clips are near-duplicates.
    rng : Generator
        Draws the clips to be covered, if there are more than 10,000.

    Raises
    ------
    ValueError
        If the shapes do not match.

    Notes
    -----
    Greedy selection reaches at least 63 % of the optimum of the facility location function. Gains never
    increase, so earlier gains are upper bounds, and few of them are computed again (lazy greedy). The computing time is
    proportional to n_clips * min(n_clips, 10,000) * n_dimensions, the memory to n_clips * n_dimensions.

    References
    ----------
    Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.
    """
    weights = np.ones(len(vectors)) if uncertainty is None else np.asarray(uncertainty, np.float64)
    if vectors.ndim != 2 or weights.shape != (len(vectors),):
        raise ValueError(
            "need vectors (n_clips, n_dimensions) and an uncertainty for each clip, got shapes "
            f"{vectors.shape} and {weights.shape}"
        )
    weights = _MIN_WEIGHT + (1 - _MIN_WEIGHT) * weights
    similarity = np.full(len(vectors), np.nan)
    if labelled is not None and len(labelled):
        similarity[:] = nearest_neighbors(vectors, labelled, 1)[1][:, 0]
    cover = _FacilityLocation(vectors, weights, np.nan_to_num(similarity, nan=-1.0), near_duplicate, rng)
    while (best := cover.best()) is not None:
        yield Selection(best, cover.add(best), float(similarity[best]))


class _FacilityLocation:
    """How well clips are covered so far, and the gain of each candidate."""

    def __init__(
        self,
        vectors: Float32Array,
        weights: FloatArray,
        similarity: FloatArray,
        near_duplicate: float,
        rng: np.random.Generator,
    ) -> None:
        n_clips = len(vectors)
        sample = rng.choice(n_clips, _MAX_TARGETS, replace=False) if n_clips > _MAX_TARGETS else np.arange(n_clips)
        self._vectors = vectors
        self._weights = weights.astype(np.float32)
        self._near_duplicate = near_duplicate
        self._target_rows = np.sort(sample)
        self._clips_per_target = n_clips / max(len(sample), 1)
        self._targets = np.ascontiguousarray(vectors[self._target_rows].T)
        """(n_dimensions, n_targets)"""
        self._coverage = np.maximum(similarity[self._target_rows], 0).astype(np.float32)
        """(n_targets,)"""
        self._gains = np.empty(n_clips, np.float32)
        """The gain of each candidate, in this round or an earlier one; -inf for excluded clips."""
        for start in range(0, n_clips, _BLOCK):
            self._compute_gains(np.arange(start, min(start + _BLOCK, n_clips)))
        self._exclude(similarity >= near_duplicate)

    def _compute_gains(self, rows: IntArray) -> None:
        added = self._vectors[rows] @ self._targets - self._coverage
        self._gains[rows] = np.maximum(added, 0, out=added) @ self._weights[self._target_rows] * self._weights[rows]

    def _exclude(self, rows: BoolArray) -> None:
        self._gains[rows] = -np.inf

    def add(self, clip: int) -> int:
        """Select a clip; return about how many clips it represents."""
        similarity = self._vectors @ self._vectors[clip]
        target_similarity = similarity[self._target_rows]
        n_targets = np.count_nonzero(target_similarity > np.maximum(self._coverage, DISSIMILAR))
        np.maximum(self._coverage, target_similarity, out=self._coverage)
        similarity[clip] = np.inf
        self._exclude(similarity >= self._near_duplicate)
        return round(n_targets * self._clips_per_target)

    def best(self) -> int | None:
        """The remaining clip with the largest gain. Gains are computed again only where they may be the largest."""
        is_current = np.zeros(len(self._gains), np.bool_)
        while len(self._gains):
            best = int(self._gains.argmax())
            if self._gains[best] == -np.inf:
                break
            if is_current[best]:
                return best
            rows = np.argpartition(-self._gains, min(_BLOCK, len(self._gains)) - 1)[:_BLOCK]
            rows = rows[(self._gains[rows] > -np.inf) & ~is_current[rows]]
            self._compute_gains(rows)
            is_current[rows] = True
        return None
