"""Which of many clips to label next: those that stand for the most others that are still in doubt."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.curation.embedding import nearest

IntArray = NDArray[np.intp]

NEAR_DUPLICATE = 0.99
"""Vectors as alike as this are of sounds that a tagger can't tell apart. In ESC-10 no two clips are; a clip and the
same at half its level mostly are (median 0.993)."""
UNLIKE = 0.4
"""Vectors less alike than this have little to do with each other: in ESC-10, one clip in 400 is so far from all
others."""

_LEAST_WEIGHT = 0.25  # of a clip without any doubt: the tagger may be wrong where it is sure
_MOST_TO_COVER = 10_000  # clips; of more, as many at random speak for all
_BLOCK = 256  # candidates whose gain is computed at once


@dataclass(frozen=True)
class Selection:
    """A clip to label."""

    index: int
    stands_for: int
    """About how many clips are like this one, and more so than like any that is labelled or was chosen before."""
    likeness: float
    """To the nearest labelled clip, from -1 to 1; NaN where none is labelled."""


def margin_uncertainty(probabilities: ArrayLike, *, none_is_an_answer: bool = False) -> FloatArray:
    """How unclear it is which labels are true, from 0 (clear) to 1: of each clip, shape (n_clips,).

    With a clip's probabilities in order, the labels that are true end somewhere. Where it is clear, there is a wide gap
    between two neighbours; the doubt is 1 less the widest one. After the last label comes 0, so that all may be true.

    Parameters
    ----------
    probabilities : float array of shape (n_clips, n_labels)
    none_is_an_answer : bool
        Clips may have no label: before the first comes 1. Else a clip in which no label is heard is in doubt.

    Raises
    ------
    ValueError
        If the probabilities have another shape, or there is no label.

    Examples
    --------
    >>> doubts([[0.9, 0.8, 0.0], [0.5, 0.4, 0.3], [0.0, 0.0, 0.0]]).round(1)
    array([0.2, 0.7, 1. ])
    """
    rows = np.asarray(probabilities, np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"need probabilities (n_clips, n_labels) of one label at least, got shape {rows.shape}")
    falling = np.sort(rows, axis=1)[:, ::-1]
    before, after = np.ones((len(rows), int(none_is_an_answer))), np.zeros((len(rows), 1))
    widest: FloatArray = -np.diff(np.hstack([before, falling, after]), axis=1).min(axis=1)
    return 1 - widest


def select(
    vectors: Float32Array,
    *,
    doubt: ArrayLike | None = None,
    labelled: Float32Array | None = None,
    near_duplicate: float = NEAR_DUPLICATE,
    rng: np.random.Generator,
) -> Iterator[Selection]:
    """Clips to label, the most useful first: the first few are what to choose where there is time for so many.

    A clip covers another as far as it is like it. One after another, that clip is taken that adds most to how well all
    clips are covered, those in doubt counting for more; what is labelled covers from the beginning. So the choice
    begins with what is typical of many, goes on to what is new, and keeps away from what is known. Clips that are
    nearly the same as a labelled or chosen one never come.

    Parameters
    ----------
    vectors : float32 array of shape (n_clips, n_dimensions)
        Unit vectors of the clips to choose from.
    doubt : float array of shape (n_clips,), optional
        From 0 to 1. Without it all clips count alike.
    labelled : float32 array of shape (n_labelled, n_dimensions), optional
        Unit vectors of the clips that are labelled.
    near_duplicate : float
        The likeness from which two clips are nearly the same.
    rng : Generator
        Draws the clips to be covered, where there are more than 10,000.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Notes
    -----
    The gain is that of the facility location function, of which greedy choice reaches 63 % of the best at least. Since
    gains only fall, those of earlier rounds are bounds, and few are computed anew (Minoux, "Accelerated greedy
    algorithms for maximizing submodular set functions", 1978). Time goes by n_clips * min(n_clips, 10,000) *
    n_dimensions once, and memory by n_clips * n_dimensions.
    """
    weights = np.ones(len(vectors)) if doubt is None else _LEAST_WEIGHT + (1 - _LEAST_WEIGHT) * np.asarray(doubt)
    if vectors.ndim != 2 or weights.shape != (len(vectors),):
        raise ValueError(
            "need vectors (n_clips, n_dimensions) and a doubt for each clip, got shapes "
            f"{vectors.shape} and {weights.shape}"
        )
    likeness = np.full(len(vectors), np.nan)
    if labelled is not None and len(labelled):
        likeness[:] = nearest(vectors, labelled, 1)[1][:, 0]
    cover = _FacilityLocation(vectors, weights, np.nan_to_num(likeness, nan=-1.0), near_duplicate, rng)
    while (best := cover.best()) is not None:
        yield Selection(best, cover.add(best), float(likeness[best]))


class _FacilityLocation:
    """How well clips are covered so far, and what each would add."""

    def __init__(
        self,
        vectors: Float32Array,
        weights: FloatArray,
        likeness: FloatArray,
        near_duplicate: float,
        rng: np.random.Generator,
    ) -> None:
        n_clips = len(vectors)
        drawn = rng.choice(n_clips, _MOST_TO_COVER, replace=False) if n_clips > _MOST_TO_COVER else np.arange(n_clips)
        self._vectors = vectors
        self._weights = weights.astype(np.float32)
        self._near_duplicate = near_duplicate
        self._drawn = np.sort(drawn)
        self._clips_each = n_clips / max(len(drawn), 1)
        self._targets = np.ascontiguousarray(vectors[self._drawn].T)  # (n_dimensions, n_targets)
        self._covered = np.maximum(likeness[self._drawn], 0).astype(np.float32)  # (n_targets,)
        self._gains = np.empty(n_clips, np.float32)  # what each would add, or would have added in an earlier round
        for start in range(0, n_clips, _BLOCK):
            self._compute_gains(np.arange(start, min(start + _BLOCK, n_clips)))
        self._take_out(likeness >= near_duplicate)

    def _compute_gains(self, rows: IntArray) -> None:
        added = self._vectors[rows] @ self._targets - self._covered
        self._gains[rows] = np.maximum(added, 0, out=added) @ self._weights[self._drawn] * self._weights[rows]

    def _take_out(self, rows: BoolArray) -> None:
        self._gains[rows] = -np.inf

    def add(self, clip: int) -> int:
        """Add a clip, and tell about how many it stands for."""
        likeness = self._vectors @ self._vectors[clip]
        of_targets = likeness[self._drawn]
        n_targets = np.count_nonzero(of_targets > np.maximum(self._covered, UNLIKE))
        np.maximum(self._covered, of_targets, out=self._covered)
        likeness[clip] = np.inf
        self._take_out(likeness >= self._near_duplicate)
        return round(n_targets * self._clips_each)

    def best(self) -> int | None:
        """The clip that adds most, of those that are left: only what may surpass it is computed anew."""
        is_new = np.zeros(len(self._gains), np.bool_)
        while len(self._gains):
            best = int(self._gains.argmax())
            if self._gains[best] == -np.inf:
                break
            if is_new[best]:
                return best
            rows = np.argpartition(-self._gains, min(_BLOCK, len(self._gains)) - 1)[:_BLOCK]
            rows = rows[(self._gains[rows] > -np.inf) & ~is_new[rows]]
            self._compute_gains(rows)
            is_new[rows] = True
        return None
