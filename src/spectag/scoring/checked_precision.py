"""Precision of detections above a threshold, estimated from a sample that people checked by ear."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, log_expit, logit

from spectag.array_types import BoolArray, FloatArray, IntArray

MIN_COUNTED = 5
"""Detections that must be counted before a threshold is set by their count."""

_CLIPPED_AT = 6.0  # logits: above a probability of 0.9975, and below 0.0025, all detections count as equally probable
_CELL_WIDTH = 0.02  # logits; detections of a cell are treated as equal
_HEIGHTS = -6.0, 6.0, 25  # of the curve at the middle of the sample, in logits: from, to, and how many
_SLOPES = 0.0, 4.0, 17  # 0: the probability says nothing; 1: as for calibrated probabilities
_CEILINGS = 0.0, 1.0, 9  # positions in _LAPSES
_LAPSES = np.array([0.0, 0.02, 0.05, 0.08, 0.12, 0.17, 0.25, 0.4, 0.6])  # 1 minus the ceiling; all equally likely

_FINE = 21, 13, 21  # heights, slopes and ceilings of the second grid
_LEAST_LIKELIHOOD = math.log(1e-5)  # of a curve, compared with the best one
_TOP_FRACTIONS = 1 / 4, 1 / 3, 1 / 2  # of the checked detections, compared with the others
_ROUNDING = 1e-6  # of weights in a table
_REVERSED_LEVEL = 0.02  # so seldom, the most probable detections seem to be worse by chance


@dataclass(frozen=True, eq=False)
class CheckedPrecision:
    """Precision against threshold, from a checked sample; arrays of shape (n_thresholds,), highest threshold first.

    Attributes
    ----------
    thresholds : float array
        Of the detections of the sample, these have probability >= threshold; the last has all detections.
    precision, lower, upper : float arrays
        Of all detections with at least this probability, not only of the sample. In `confidence` of all cases the
        precision is above `lower`, and in as many below `upper`.
    n_detections, n_true : float arrays
        How many detections of the table have at least this probability, and how many of these are right.
    recall : float array
        The fraction of all right detections of the table that have at least this probability.
    is_exact : bool array
        Whether all detections of the table with at least this probability are checked. Their numbers are then counts,
        not estimates: `lower`, `precision` and `upper` are equal.
    n_checked, n_right : int arrays
        Checked detections of the sample with at least this probability, and how many of these are right.
    confidence : float
    is_reversed : bool
        Whether the most probable detections are clearly less often right than the others, so that the curves, and all
        estimates here, are wrong. False if nothing is estimated.
    """

    thresholds: FloatArray
    precision: FloatArray
    lower: FloatArray
    upper: FloatArray
    n_detections: FloatArray
    n_true: FloatArray
    recall: FloatArray
    is_exact: BoolArray
    n_checked: IntArray
    n_right: IntArray
    confidence: float
    is_reversed: bool

    def lowest_index(self, at_least: float) -> int | None:
        """Which threshold is the lowest one with this precision, in `confidence` of all samples; None: there is none.

        In every curve that the estimate considers, the precision rises with the threshold. So all estimates above the
        one found pass as well, and a choice among many is no more optimistic than a single test. Counts are certain,
        but those of a few detections say little about other recordings.
        """
        is_enough = ~self.is_exact | (self.n_checked >= MIN_COUNTED)
        passed = np.flatnonzero((self.lower >= at_least) & is_enough)
        return int(passed[-1]) if passed.size else None

    def index_of(self, threshold: float) -> int:
        """Which of the thresholds is the next one at or below another, or the lowest."""
        return min(int((self.thresholds > threshold).sum()), len(self.thresholds) - 1)

    @property
    def n_unchecked(self) -> int:
        """Detections of the table without a decision."""
        return max(0, round(float(self.n_detections[-1]) - int(self.n_checked[-1])))

    def n_more_checks(self, index: int, width: float) -> int:
        """About how many more checks make the interval at a threshold no wider than this; at most those that are left.

        The width falls with the square root of their number.
        """
        ratio = float(self.upper[index] - self.lower[index]) / width
        wanted = max(0, math.ceil(int(self.n_checked[-1]) * (ratio**2 - 1)))
        return min(wanted, self.n_unchecked)


def checked_precision(
    probabilities: ArrayLike,
    weights: ArrayLike,
    is_right: ArrayLike,
    *,
    confidence: float = 0.9,
    lowest: float | None = None,
    others_below: ArrayLike = math.inf,
) -> CheckedPrecision:
    """Precision against threshold of all detections of a label, from a sample that was checked.

    A detection with probability p is right with a chance that rises with p to a ceiling: ceiling * expit(height + slope
    * logit(p)), a logistic curve that errs even for the most probable detections, as psychometric functions do. Each
    combination of ceiling, height and slope on a grid is weighted by its likelihood. The precision above a threshold
    is the mean of a curve over the sample, weighted by how many detections of the table each one stands for. Its
    quantiles over the curves are the bounds. So checks of any probability count for every threshold, which matters if
    the sample has few where most detections are (benchmarks/checked_thresholds.py).

    Where all detections above a threshold are checked, they are counted instead. The estimates at lower thresholds do
    not use these counts apart from the curves: if they did, a few lucky ones at the top would make them optimistic.

    No such curve describes most probable detections that are less often right than others. Fisher's exact test finds
    clear cases.

    Parameters
    ----------
    probabilities : float array of shape (n_sampled,)
    weights : float array of shape (n_sampled,)
        How many detections of the table each sampled one stands for.
    is_right : float array of shape (n_sampled,)
        1, 0, or NaN if nobody has decided.
    confidence : float
        Of each bound.
    lowest : float, optional
        The lowest probability of a detection in the table; the lowest threshold. By default that in the sample.
    others_below : float or float array of shape (n_sampled,)
        The other detections that a sampled one stands for have lower probabilities than this, such as the upper end of
        the score band that it was drawn from. By default they may have any.

    Raises
    ------
    ValueError
        If the shapes differ, a number is out of range, or nothing is decided.

    References
    ----------
    Wichmann and Hill, "The psychometric function", Perception & Psychophysics 2001 (curves with a lapse rate).

    Examples
    --------
    >>> result = checked_precision([0.9, 0.8, 0.4, 0.3], [10, 10, 30, 30], [1, 1, 0, 0])
    >>> result.n_detections
    array([10., 20., 50., 80.])
    >>> bool(result.lower[0] < result.precision[0] < result.upper[0])
    True
    """
    scores, sizes, right = (np.asarray(values, np.float64) for values in (probabilities, weights, is_right))
    _check(scores, sizes, right, confidence)
    highest_other = np.where(sizes > 1 + _ROUNDING, others_below, -math.inf).max()
    order = np.argsort(-scores, kind="stable")
    scores, sizes, right = scores[order], sizes[order], right[order]
    logits = np.clip(logit(np.clip(scores, 1e-12, 1 - 1e-12)), -_CLIPPED_AT, _CLIPPED_AT)
    cells = np.round(logits / _CELL_WIDTH)
    first = np.flatnonzero(np.append(True, cells[1:] != cells[:-1]))  # of each cell
    n_right, n_wrong, n_detections = (np.add.reduceat(x, first) for x in (right == 1, right == 0, sizes))
    middle = float(np.median(logits[~np.isnan(right)]))
    log_right, plausibility = _plausible_curves(cells[first] * _CELL_WIDTH - middle, n_right, n_wrong)
    thresholds = _thresholds(scores, first, lowest)
    n_undecided = np.cumsum(np.add.reduceat(np.isnan(right), first, dtype=np.int64))
    is_exact = (thresholds >= highest_other) & (n_undecided == 0)
    total, counted = np.cumsum(n_detections), np.cumsum(n_right)
    n_true = np.cumsum(np.exp(log_right) * n_detections, axis=1)  # (n_curves, n_cells)
    precisions, known = n_true / total, counted / total
    n_true = np.where(is_exact, counted, np.maximum(n_true, counted[is_exact].max(initial=0)))
    n_true_of_all = np.maximum(n_true[:, -1:], np.finfo(float).tiny)
    return CheckedPrecision(
        thresholds=thresholds,
        precision=np.where(is_exact, known, plausibility @ precisions),
        lower=np.where(is_exact, known, _quantiles(precisions, plausibility, 1 - confidence)),
        upper=np.where(is_exact, known, _quantiles(precisions, plausibility, confidence)),
        n_detections=total,
        n_true=np.where(is_exact, n_true[0], plausibility @ n_true),
        recall=np.minimum(plausibility @ (n_true / n_true_of_all), 1.0),  # not 1 and a rounding error
        is_exact=is_exact,
        n_checked=np.cumsum(n_right + n_wrong),
        n_right=np.cumsum(n_right),
        confidence=confidence,
        is_reversed=not is_exact[-1] and _is_reversed(right[~np.isnan(right)]),
    )


def _check(scores: FloatArray, sizes: FloatArray, right: FloatArray, confidence: float) -> None:
    if not scores.shape == sizes.shape == right.shape or scores.ndim != 1:
        raise ValueError(
            "need a probability, a weight and a decision for each detection, got arrays of the shapes "
            f"{scores.shape}, {sizes.shape} and {right.shape}"
        )
    if not ((scores >= 0) & (scores <= 1)).all() or not ((sizes > 0) & np.isfinite(sizes)).all():
        raise ValueError("need probabilities from 0 to 1 and weights above 0")
    if not np.isin(right[~np.isnan(right)], (0, 1)).all() or np.isnan(right).all():
        raise ValueError("need decisions of 1 (right), 0 (wrong) or NaN (not decided), at least one of them not NaN")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"need a confidence from 0.5 to 1, got {confidence:g}")


def _plausible_curves(logits: FloatArray, n_right: IntArray, n_wrong: IntArray) -> tuple[FloatArray, FloatArray]:
    """Logarithms of the chances to be right (n_curves, n_cells) of possible curves, and the weights of the curves.

    Two grids: the second covers only what the first has left, so that it is as fine as the number of checks needs.
    """
    ranges = [_HEIGHTS, _SLOPES, _CEILINGS]
    for counts in ((_HEIGHTS[2], _SLOPES[2], _CEILINGS[2]), _FINE):
        axes = [np.linspace(low, high, n) for (low, high, _), n in zip(ranges, counts, strict=True)]
        heights, slopes, positions = (grid.reshape(-1, 1) for grid in np.meshgrid(*axes, indexing="ij"))
        lapses = np.interp(positions, np.linspace(*_CEILINGS), _LAPSES)
        linear = heights + slopes * logits
        log_right = np.log1p(-lapses) + log_expit(linear)
        log_wrong = np.log(lapses + (1 - lapses) * expit(-linear))
        likelihood = log_right @ n_right + log_wrong @ n_wrong
        is_possible = likelihood > likelihood.max() + _LEAST_LIKELIHOOD
        values = (grid[is_possible] for grid in (heights, slopes, positions))
        ranges = [_around(found, limits) for found, limits in zip(values, ranges, strict=True)]
    plausibility = np.exp(likelihood[is_possible] - likelihood.max())
    return log_right[is_possible], plausibility / plausibility.sum()


def _around(values: FloatArray, limits: tuple[float, float, int]) -> tuple[float, float, int]:
    """The range of the values and of their neighbours on a grid with these limits."""
    low, high, n = limits
    step = (high - low) / (n - 1)
    return max(low, float(values.min()) - step), min(high, float(values.max()) + step), n


def _quantiles(values: FloatArray, weights: FloatArray, level: float) -> FloatArray:
    """The weighted quantile of each column of `values` (n_curves, n_cells), at most that of the column before it.

    The values fall from column to column in every curve, so the order of their quantiles is known.
    """
    order = np.argsort(values, axis=0)
    middles = np.cumsum(weights[order], axis=0) - weights[order] / 2
    columns = zip(middles.T, np.take_along_axis(values, order, axis=0).T, strict=True)
    return np.minimum.accumulate([np.interp(level, *column) for column in columns])


def _thresholds(scores: FloatArray, first: IntArray, lowest: float | None) -> FloatArray:
    """Midway between the lowest score of each cell and the highest of the next; the last is the lowest of the table."""
    least = float(scores[-1]) if lowest is None else min(lowest, float(scores[-1]))
    lowest_of_cell, next_lower = scores[first[1:] - 1], scores[first[1:]]
    midway = (lowest_of_cell + next_lower) / 2
    return np.append(np.where(midway > next_lower, midway, lowest_of_cell), least)


def _is_reversed(right: FloatArray) -> bool:
    """Whether decisions, sorted from the highest probability down, are clearly worse at the top."""
    from scipy.stats import hypergeom  # takes 0.3 s to import, and serve does not need it to start

    n, n_right = len(right), int(right.sum())
    for fraction in _TOP_FRACTIONS:
        n_top = round(fraction * n)
        if hypergeom.cdf(right[:n_top].sum(), n, n_right, n_top) < _REVERSED_LEVEL / len(_TOP_FRACTIONS):
            return True
    return False
