"""Stratified folds and hold-outs of multi-label data: every label in every fold, and no group in two folds."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.errors import DataError

Groups = Iterable[Hashable | None]

_MAX_ROUNDS = 20  # of moving groups between folds; a few are usually enough
_N_RANDOM_SPLITS = 50
_DECIMALS = 9  # sums are rounded, so that a split does not depend on the rounding errors of one machine


def stratified_folds(y_true: ArrayLike, n_folds: int, *, groups: Groups | None = None, seed: int = 0) -> IntArray:
    """Fold number of each clip. Folds have similar sizes and label frequencies, and no group is in two folds.

    Iterative stratification: labels are distributed one after the other, the rarest label first. Each group goes to
    the fold that needs the labels of its clips most, large groups first. Then groups are moved between folds as long
    as that improves the balance. A label with at least `n_folds` groups that have no other label is in every fold.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
        Clips without a label are distributed, too.
    n_folds : int
        At least 2.
    groups : iterable of n_clips names, optional
        Clips of one group (a recording, a site, a person) stay together. None: the clip is a group by itself.
    seed : int
        Decides between equal groups. The same seed gives the same folds, in any order of the labels.

    Returns
    -------
    int array of shape (n_clips,)
        From 1 to `n_folds`.

    Raises
    ------
    DataError
        If `n_folds` is below 2 or above the number of groups.
    ValueError
        If `y_true` is not a table of true and false, or the number of groups is not the number of clips.

    References
    ----------
    Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011; extended to groups.

    Examples
    --------
    >>> stratified_folds(np.eye(2)[[0, 0, 1, 1]], 2)
    array([1, 2, 1, 2])
    """
    counts, group_of_clip = _count_by_group(y_true, groups)
    if n_folds < 2:
        raise DataError(f"a split needs at least 2 folds, got {n_folds}")
    if n_folds > len(counts):
        unit = "clips" if groups is None else "groups of clips"
        raise DataError(f"can't split {len(counts)} {unit} into {n_folds} folds; use fewer folds")
    fold_of_group = _assign_groups(counts, np.full(n_folds, 1 / n_folds), np.random.default_rng(seed))
    return fold_of_group[group_of_clip] + 1


def stratified_holdout(
    y_true: ArrayLike, validation_fraction: float, *, groups: Groups | None = None, seed: int = 0
) -> BoolArray:
    """Which clips to hold out for validation: about the same fraction of all clips and of every label, in whole groups.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
    validation_fraction : float
        Above 0 and below 1. Training and validation get at least one group each.
    groups : iterable of n_clips names, optional
    seed : int
        As for `stratified_folds`.

    Returns
    -------
    bool array of shape (n_clips,)
        True for validation clips.

    Raises
    ------
    DataError
        If `validation_fraction` is not between 0 and 1, or there is only one group.
    ValueError
        As `stratified_folds`.

    Examples
    --------
    >>> stratified_holdout(np.eye(2)[[0, 0, 0, 0, 1, 1, 1, 1]], 0.25).sum()
    np.int64(2)
    """
    counts, group_of_clip = _count_by_group(y_true, groups)
    _check_fraction(validation_fraction)
    if len(counts) < 2:
        raise DataError("a validation set needs at least 2 groups of clips, got 1, which can't be split")
    fractions = np.array([1 - validation_fraction, validation_fraction])
    is_valid = _assign_groups(counts, fractions, np.random.default_rng(seed)) == 1
    if is_valid.all() or not is_valid.any():
        smallest = counts[:, -1].argmin()
        is_valid[smallest] = not is_valid[smallest]
    return np.asarray(is_valid[group_of_clip], dtype=np.bool_)


def random_holdout(n_clips: int, validation_fraction: float, *, seed: int) -> tuple[IntArray, IntArray]:
    """The split of scikit-learn's `train_test_split(range(n_clips), test_size=validation_fraction, random_state=seed)`.

    Parameters
    ----------
    n_clips : int
    validation_fraction : float
        Above 0 and below 1. The number of validation clips is rounded up.
    seed : int

    Returns
    -------
    train_rows, validation_rows : int arrays
        In scikit-learn's order.

    Raises
    ------
    DataError
        If `validation_fraction` is not between 0 and 1, or leaves no clip to train on.

    Examples
    --------
    >>> random_holdout(5, 0.25, seed=42)
    (array([2, 0, 3]), array([1, 4]))
    """
    _check_fraction(validation_fraction)
    n_valid = math.ceil(validation_fraction * n_clips)
    if n_clips < 1 or n_valid >= n_clips:
        raise DataError(f"holding out {validation_fraction:g} of {n_clips} clips leaves no clip to train on")
    order = np.random.RandomState(seed).permutation(n_clips)  # the generator that scikit-learn uses
    return order[n_valid:], order[:n_valid]


@dataclass(frozen=True, eq=False)
class Balance:
    """How evenly labels are distributed over folds, compared with random splits.

    A deviation is the difference between the fraction of a label's clips that a fold contains and the fraction that it
    should contain. Random splits keep groups together and have the same target fractions.
    """

    folds: tuple[Any, ...]
    """Names, sorted."""
    sizes: IntArray
    """Number of clips, (n_folds,)."""
    counts: IntArray
    """Number of clips with each label, (n_folds, n_labels)."""
    worst: float
    """The largest deviation of all folds and labels."""
    mean: float
    """The mean deviation."""
    random_worst: float
    """The largest deviation of a random split, averaged over random splits."""
    random_mean: float

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def balance(
    y_true: ArrayLike,
    folds: Sequence[Any] | NDArray[Any],
    *,
    groups: Groups | None = None,
    fractions: Sequence[float] | None = None,
    seed: int = 0,
) -> Balance:
    """How evenly labels are distributed over folds, compared with random splits of the same groups.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
        Labels without clips are ignored.
    folds : sequence of n_clips numbers, names or bools
        The fold of each clip, as returned by `stratified_folds` or `stratified_holdout`.
    groups : iterable of n_clips names, optional
    fractions : sequence of float, optional
        The fraction of all clips that each fold should contain, for the folds in sorted order. By default equal.
    seed : int
        For the random splits.

    Raises
    ------
    ValueError
        If `y_true` is not a table of true and false, or the lengths differ.

    Examples
    --------
    >>> result = balance(np.eye(2)[[0, 0, 1, 1]], [1, 2, 1, 2])
    >>> result.counts.tolist(), result.worst, result.random_worst > 0
    ([[1, 1], [1, 1]], 0.0, True)
    """
    counts, group_of_clip = _count_by_group(y_true, groups)
    if len(folds) != len(group_of_clip):
        raise ValueError(f"need a fold for each of {len(group_of_clip)} clips, got {len(folds)}")
    names, fold_of_clip = np.unique(np.asarray(folds), return_inverse=True)
    target = np.full(len(names), 1 / len(names)) if fractions is None else np.asarray(fractions, dtype=np.float64)
    if target.shape != names.shape or not math.isclose(target.sum(), 1):
        raise ValueError(f"need a fraction for each of {len(names)} folds, with sum 1, got {target.tolist()}")
    rng = np.random.default_rng(seed)
    random_splits = [_random_split(counts[:, -1], target, rng) for _ in range(_N_RANDOM_SPLITS)]
    deviations = [_deviation(_sum_by(fold, counts, len(names)), target) for fold in random_splits]
    random_worst, random_mean = np.mean(deviations, axis=0).tolist()
    counts_by_fold = _sum_by(fold_of_clip, _with_clip_column(y_true), len(names)).astype(np.int64)
    worst, mean = _deviation(counts_by_fold, target)
    sizes, label_counts = counts_by_fold[:, -1], counts_by_fold[:, :-1]
    return Balance(tuple(names.tolist()), sizes, label_counts, worst, mean, random_worst, random_mean)


def _assign_groups(counts: FloatArray, fractions: FloatArray, rng: np.random.Generator) -> IntArray:
    """Fold index of each group, such that each fold gets about its fraction of every column.

    counts : (n_groups, n_columns), number of clips with each label; the last column counts all clips.
    """
    counts = _in_canonical_order(counts)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]  # large groups first, while every fold has room
    assignment = _Assignment(counts, fractions)
    while (waiting := order[assignment.folds[order] < 0]).size:
        remaining = counts[waiting].sum(axis=0)
        rarest = int(np.where(remaining > 0, remaining, np.inf).argmin())
        queue = waiting[counts[waiting, rarest] > 0]
        queue = queue[np.argsort(-counts[queue, rarest], kind="stable")]
        for n_placed, group in enumerate(queue):
            assignment.place(group, among=assignment.folds_in_need(rarest, n_left=len(queue) - n_placed))
    for _ in range(_MAX_ROUNDS):
        before = assignment.folds.copy()
        for group in order:
            assignment.move(group)
        if np.array_equal(assignment.folds, before):
            break
    return assignment.folds


class _Assignment:
    """The fold of each group so far, and what each fold contains."""

    def __init__(self, counts: FloatArray, fractions: FloatArray) -> None:
        totals = counts.sum(axis=0)
        self.folds = np.full(len(counts), -1)
        """-1: not placed yet."""
        self._counts = counts
        self._fractions = fractions
        self._contents = np.zeros((len(fractions), len(totals)))
        self._targets = np.outer(fractions, totals)
        self._weighted = counts / totals  # a clip with a rare label has a large weight
        expected_groups = np.outer(fractions, (counts > 0).sum(axis=0))
        self._needs_a_group = np.round(expected_groups, _DECIMALS) >= 1

    def place(self, group: int, *, among: BoolArray) -> None:
        """Put a group into the fold that needs it most."""
        self._put(group, int(np.where(among, self._need(group), -np.inf).argmax()))

    def move(self, group: int) -> None:
        """Move a group to the fold that needs it most, unless its fold would lose one of its labels."""
        fold = self.folds[group]
        self._contents[fold] -= self._counts[group]
        need = self._need(group)
        would_lose = (self._contents[fold] == 0) & (self._counts[group] > 0)
        self._put(group, fold if would_lose.any() or need[fold] == need.max() else int(need.argmax()))

    def folds_in_need(self, column: int, *, n_left: int) -> BoolArray:
        """The folds that must get one of the last `n_left` groups of a column, if there are such; otherwise all."""
        without = self._needs_a_group[:, column] & (self._contents[:, column] == 0)
        return without if n_left <= without.sum() else np.ones(len(without), dtype=np.bool_)

    def _need(self, group: int) -> FloatArray:
        """For each fold, half the decrease of sum((target - content)^2 / target) that adding the group causes."""
        missing = self._targets - self._contents - self._counts[group] / 2
        need: FloatArray = missing @ self._weighted[group] / self._fractions
        return np.round(need, _DECIMALS)

    def _put(self, group: int, fold: int) -> None:
        self.folds[group] = fold
        self._contents[fold] += self._counts[group]


def _in_canonical_order(counts: FloatArray) -> FloatArray:
    """The columns in an order that does not depend on the order of the labels, without labels that have no clip."""
    labels = sorted(counts[:, :-1].T, key=lambda column: (column.sum(), column.tobytes()))
    return np.stack([column for column in labels if column.any()] + [counts[:, -1]], axis=1)


def _random_split(sizes: FloatArray, fractions: FloatArray, rng: np.random.Generator) -> IntArray:
    """The fold of each group if shuffled groups are cut where the fractions of all clips are reached."""
    order = rng.permutation(len(sizes))
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    fold = np.empty(len(sizes), dtype=np.int64)
    fold[order] = np.searchsorted(np.cumsum(fractions)[:-1] * sizes.sum(), middles)
    return fold


def _deviation(counts_by_fold: FloatArray | IntArray, fractions: FloatArray) -> tuple[float, float]:
    """Largest and mean deviation from the target fractions, over all labels with clips."""
    counts = counts_by_fold[:, :-1]
    counts = counts[:, counts.any(axis=0)]
    if not counts.size:
        return 0.0, 0.0
    distances = np.abs(counts / counts.sum(axis=0) - fractions[:, np.newaxis])
    return float(distances.max()), float(distances.mean())


def _count_by_group(y_true: ArrayLike, groups: Groups | None) -> tuple[FloatArray, IntArray]:
    """Clips of each group with each label and, last, in total (n_groups, n_labels + 1); and the group of each clip."""
    table = _with_clip_column(y_true)
    if groups is None:
        return table, np.arange(len(table))
    names = [object() if name is None else name for name in groups]
    if len(names) != len(table):
        raise ValueError(f"need a group, or None, for each of {len(table)} clips, got {len(names)}")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    group_of_clip = np.array([numbers[name] for name in names])
    return _sum_by(group_of_clip, table, len(numbers)), group_of_clip


def _with_clip_column(y_true: ArrayLike) -> FloatArray:
    y_true = np.asarray(y_true)
    if y_true.ndim != 2 or len(y_true) == 0 or not np.isin(y_true, [0, 1]).all():
        raise ValueError(
            "y_true must contain true and false (1 and 0) in shape (n_clips, n_labels), got "
            f"{y_true.dtype} {y_true.shape}"
        )
    return np.column_stack([y_true, np.ones(len(y_true))]).astype(np.float64)


def _sum_by(group: IntArray, table: FloatArray, n_groups: int) -> FloatArray:
    """Sum of the rows of each group, (n_groups, n_columns)."""
    return np.stack([np.bincount(group, weights=column, minlength=n_groups) for column in table.T], axis=1)


def _check_fraction(validation_fraction: float) -> None:
    if not 0 < validation_fraction < 1:
        raise DataError(f"the validation fraction must be above 0 and below 1, got {validation_fraction:g}")
