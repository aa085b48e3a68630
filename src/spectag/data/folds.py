"""Which clips are trained on and which are kept for validation: every label in every part, no group in two parts."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.errors import DataError

Groups = Iterable[Hashable | None]

_MAX_ROUNDS = 20  # of placing every group anew; it settles in a few
_N_RANDOM_SPLITS = 50
_DECIMALS = 9  # sums that differ by less are equal: a split must not hang on the rounding of one machine


def stratified_folds(y_true: ArrayLike, n_folds: int, *, groups: Groups | None = None, seed: int = 0) -> IntArray:
    """Fold number of each clip: all folds alike in size and in the share of every label, and no group in two folds.

    Iterative stratification: the rarest label is dealt out first. A group goes where it is most wanted, over all the
    labels of its clips, large groups first; then groups move while that brings the folds nearer to equal shares. A
    label with at least `n_folds` groups that hold no other label gets into every fold.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
        Clips without a label are spread too.
    n_folds : int
        At least 2.
    groups : iterable of n_clips names, optional
        Clips of one group (a recording, a site, a person) stay together. None stands for a group of the clip's own.
    seed : int
        Decides between groups that are alike. One seed gives one split, in whatever order the labels are.

    Returns
    -------
    int array of shape (n_clips,)
        From 1 to `n_folds`.

    Raises
    ------
    DataError
        If `n_folds` is below 2 or above the number of groups.
    ValueError
        If `y_true` is not a table of true and false, or `groups` are not as many as the clips.

    References
    ----------
    Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011; here with groups.

    Examples
    --------
    >>> stratified_folds(np.eye(2)[[0, 0, 1, 1]], 2)
    array([1, 2, 1, 2])
    """
    counts, group_of_clip = _count_by_group(y_true, groups)
    if n_folds < 2:
        raise DataError(f"a split into folds needs at least 2 of them, got {n_folds}")
    if n_folds > len(counts):
        unit = "clips" if groups is None else "groups of clips, which must each stay whole"
        raise DataError(f"can't make {n_folds} folds of {len(counts)} {unit}; ask for fewer folds")
    part_of_group = _deal_out(counts, np.full(n_folds, 1 / n_folds), np.random.default_rng(seed))
    return part_of_group[group_of_clip] + 1


def holdout(y_true: ArrayLike, validation_fraction: float, *, groups: Groups | None = None, seed: int = 0) -> BoolArray:
    """Which clips to keep for validation: near to a share of all clips and of every label, and no group on both sides.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
    validation_fraction : float
        Above 0 and below 1. At least one group comes to either side.
    groups : iterable of n_clips names, optional
    seed : int
        As for `stratified_folds`.

    Returns
    -------
    bool array of shape (n_clips,)
        True where the clip is for validation.

    Raises
    ------
    DataError
        If `validation_fraction` is not between 0 and 1, or there is only one group.
    ValueError
        As `stratified_folds`.

    Examples
    --------
    >>> holdout(np.eye(2)[[0, 0, 0, 0, 1, 1, 1, 1]], 0.25).sum()
    np.int64(2)
    """
    counts, group_of_clip = _count_by_group(y_true, groups)
    _check_share(validation_fraction)
    if len(counts) < 2:
        raise DataError("a validation set needs at least 2 groups of clips, got 1: one group can't be on both sides")
    is_valid = (
        _deal_out(counts, np.array([1 - validation_fraction, validation_fraction]), np.random.default_rng(seed)) == 1
    )
    if is_valid.all() or not is_valid.any():
        smallest = counts[:, -1].argmin()
        is_valid[smallest] = not is_valid[smallest]
    return np.asarray(is_valid[group_of_clip], dtype=np.bool_)


def random_holdout(n_clips: int, validation_fraction: float, *, seed: int) -> tuple[IntArray, IntArray]:
    """The rows of scikit-learn's `train_test_split(range(n_clips), test_size=validation_fraction, random_state=seed)`.

    Parameters
    ----------
    n_clips : int
    validation_fraction : float
        Above 0 and below 1; rounded up to whole clips.
    seed : int

    Returns
    -------
    train_positions, valid_positions : int arrays
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
    _check_share(validation_fraction)
    n_valid = math.ceil(validation_fraction * n_clips)
    if n_clips < 1 or n_valid >= n_clips:
        raise DataError(f"{validation_fraction:g} of {n_clips} clips for validation leaves none to train on")
    order = np.random.RandomState(seed).permutation(n_clips)  # the generator that scikit-learn draws from
    return order[n_valid:], order[:n_valid]


@dataclass(frozen=True, eq=False)
class Balance:
    """How evenly the parts of a split share every label, beside what chance would give.

    A deviation is the distance between the share of a label's clips that a part holds and the share that it should
    hold. The random splits keep groups together too, and cut them by size into parts of the same shares.
    """

    parts: tuple[Any, ...]  # their names, sorted
    sizes: IntArray  # clips, (n_parts,)
    counts: IntArray  # clips with each label, (n_parts, n_labels)
    worst: float  # deviation, over all parts and labels
    mean: float
    random_worst: float  # the same, each averaged over random splits
    random_mean: float

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON: arrays as lists."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def balance(
    y_true: ArrayLike,
    folds: Sequence[Any] | NDArray[Any],
    *,
    groups: Groups | None = None,
    shares: Sequence[float] | None = None,
    seed: int = 0,
) -> Balance:
    """How evenly a split shares every label, beside what random splits by group would give.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
        Labels that no clip has do not count.
    folds : sequence of n_clips numbers, names or bools
        The part that each clip is in, as from `stratified_folds` or `holdout`.
    groups : iterable of n_clips names, optional
    shares : sequence of float, optional
        What each part should hold of everything, in the sorted order of the parts; equal if not given.
    seed : int
        For the random splits.

    Raises
    ------
    ValueError
        If `y_true` is not a table of true and false, or the lengths differ.

    Examples
    --------
    >>> found = balance(np.eye(2)[[0, 0, 1, 1]], [1, 2, 1, 2])
    >>> found.counts.tolist(), found.worst, found.random_worst > 0
    ([[1, 1], [1, 1]], 0.0, True)
    """
    counts, group_of_clip = _count_by_group(y_true, groups)
    if len(folds) != len(group_of_clip):
        raise ValueError(f"need a fold for each of {len(group_of_clip)} clips, got {len(folds)}")
    names, part_of_clip = np.unique(np.asarray(folds), return_inverse=True)
    wanted = np.full(len(names), 1 / len(names)) if shares is None else np.asarray(shares, dtype=np.float64)
    if wanted.shape != names.shape or not math.isclose(wanted.sum(), 1):
        raise ValueError(f"need a share for each of {len(names)} parts, 1 in sum, got {wanted.tolist()}")
    rng = np.random.default_rng(seed)
    sizes = counts[:, -1]
    parts_drawn = [_cut_at_random(sizes, wanted, rng) for _ in range(_N_RANDOM_SPLITS)]
    deviations_drawn = [_deviation(_sum_by(part, counts, len(names)), wanted) for part in parts_drawn]
    random_worst, random_mean = np.mean(deviations_drawn, axis=0)
    by_part = _sum_by(part_of_clip, _with_clip_column(y_true), len(names))
    worst, mean = _deviation(by_part, wanted)
    return Balance(
        parts=tuple(names.tolist()),
        sizes=by_part[:, -1].astype(np.int64),
        counts=by_part[:, :-1].astype(np.int64),
        worst=worst,
        mean=mean,
        random_worst=float(random_worst),
        random_mean=float(random_mean),
    )


def _deal_out(counts: FloatArray, shares: FloatArray, rng: np.random.Generator) -> IntArray:
    """The part, from 0, that each group goes to, so that each part comes near to its share of every column.

    counts : (n_groups, n_columns), clips with each label and, last, all clips.
    """
    counts = _in_canonical_order(counts)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]  # large groups while there is room for them
    deal = _Deal(counts, shares)
    while (waiting := order[deal.part[order] < 0]).size:
        left = counts[waiting].sum(axis=0)
        rarest = int(np.where(left > 0, left, np.inf).argmin())
        queue = waiting[counts[waiting, rarest] > 0]
        queue = queue[np.argsort(-counts[queue, rarest], kind="stable")]
        for n_placed, group in enumerate(queue):
            deal.place(group, among=deal.parts_in_need(rarest, n_left=len(queue) - n_placed))
    for _ in range(_MAX_ROUNDS):
        before = deal.part.copy()
        for group in order:
            deal.place_anew(group)
        if np.array_equal(deal.part, before):
            break
    return deal.part


class _Deal:
    """Groups on their way into parts: which part each is in, and what the parts hold."""

    def __init__(self, counts: FloatArray, shares: FloatArray) -> None:
        totals = counts.sum(axis=0)
        self.part = np.full(len(counts), -1)
        self._counts = counts
        self._shares = shares
        self._held = np.zeros((len(shares), len(totals)))
        self._targets = np.outer(shares, totals)
        self._weighted = counts / totals  # one clip weighs more for a rare label
        self._is_due = np.round(np.outer(shares, (counts > 0).sum(axis=0)), _DECIMALS) >= 1  # a group or more

    def place(self, group: int, *, among: BoolArray) -> None:
        """Put a group where it is most wanted."""
        self._put(group, int(np.where(among, self._wanted(group), -np.inf).argmax()))

    def place_anew(self, group: int) -> None:
        """Move a group to where it is wanted more, unless its part would have nothing left of one of its labels."""
        part = self.part[group]
        self._held[part] -= self._counts[group]
        wanted = self._wanted(group)
        would_lose = (self._held[part] == 0) & (self._counts[group] > 0)
        self._put(group, part if would_lose.any() or wanted[part] == wanted.max() else int(wanted.argmax()))

    def parts_in_need(self, column: int, *, n_left: int) -> BoolArray:
        """The parts that must get one of the last `n_left` groups of a column to have any; else all parts."""
        without = self._is_due[:, column] & (self._held[:, column] == 0)
        return without if n_left <= without.sum() else np.ones(len(without), dtype=np.bool_)

    def _wanted(self, group: int) -> FloatArray:
        """For each part, half the fall of sum((target - held)^2 / target) that the group would bring."""
        lacking = self._targets - self._held - self._counts[group] / 2
        wanted: FloatArray = lacking @ self._weighted[group] / self._shares
        return np.round(wanted, _DECIMALS)

    def _put(self, group: int, part: int) -> None:
        self.part[group] = part
        self._held[part] += self._counts[group]


def _in_canonical_order(counts: FloatArray) -> FloatArray:
    """The columns in an order that does not hang on how the labels were ordered, without labels that no clip has."""
    labels = sorted(counts[:, :-1].T, key=lambda column: (column.sum(), column.tobytes()))
    return np.stack([column for column in labels if column.any()] + [counts[:, -1]], axis=1)


def _cut_at_random(sizes: FloatArray, shares: FloatArray, rng: np.random.Generator) -> IntArray:
    """The part of each group when the groups are shuffled and cut where the shares of all clips are reached."""
    order = rng.permutation(len(sizes))
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    part = np.empty(len(sizes), dtype=np.int64)
    part[order] = np.searchsorted(np.cumsum(shares)[:-1] * sizes.sum(), middles)
    return part


def _deviation(by_part: FloatArray, shares: FloatArray) -> tuple[float, float]:
    """Worst and mean distance from the shares wanted, over the labels that a clip has."""
    counts = by_part[:, :-1]
    counts = counts[:, counts.any(axis=0)]
    if not counts.size:
        return 0.0, 0.0
    distances = np.abs(counts / counts.sum(axis=0) - shares[:, np.newaxis])
    return float(distances.max()), float(distances.mean())


def _count_by_group(y_true: ArrayLike, groups: Groups | None) -> tuple[FloatArray, IntArray]:
    """Clips with each label and, last, all clips, of each group (n_groups, n_labels + 1); the group of each clip."""
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
            f"y_true must hold true and false (1 and 0) in shape (n_clips, n_labels), got {y_true.dtype} {y_true.shape}"
        )
    return np.column_stack([y_true, np.ones(len(y_true))]).astype(np.float64)


def _sum_by(part: IntArray, table: FloatArray, n_parts: int) -> FloatArray:
    """Sum of the rows of each part, (n_parts, n_columns)."""
    return np.stack([np.bincount(part, weights=column, minlength=n_parts) for column in table.T], axis=1)


def _check_share(validation_fraction: float) -> None:
    if not 0 < validation_fraction < 1:
        raise DataError(f"the share of clips for validation must be above 0 and below 1, got {validation_fraction:g}")
