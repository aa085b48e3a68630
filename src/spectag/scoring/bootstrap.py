"""Bootstrap over recordings: resamples, percentile intervals, and p-values of paired differences."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import FloatArray

CountArray = NDArray[np.uint16]

_ROUNDING_ERROR = 1e-12  # a smaller difference counts as 0


@dataclass(frozen=True)
class Estimate:
    """A score and its confidence interval."""

    value: float
    """NaN where the score is not defined; infinite for the d′ of a ROC-AUC of 1."""
    low: float = math.nan
    """Lower end of the interval. NaN, as is `high`, if there is none, for example with clips of a single recording."""
    high: float = math.nan


@dataclass(frozen=True)
class Resampling:
    """How to compute intervals: the number of resamples, the confidence level, and the seed that draws them."""

    n_resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def counts(self, groups: Sequence[Hashable]) -> CountArray:
        """How often each clip counts, (n_clips, 1 + n_resamples): once in the first column, then in each resample.

        A single group cannot be resampled, so it gets the first column only.
        """
        n_resamples = self.n_resamples if len(set(groups)) > 1 else 0
        drawn = draw_groups(groups, n_resamples=n_resamples, rng=np.random.default_rng(self.seed))
        return np.concatenate([np.ones((len(groups), 1), np.uint16), drawn], axis=1)

    def estimates(self, samples: FloatArray) -> tuple[Estimate, ...]:
        """The estimate of each column of samples (1 + n_resamples, n); the first row holds the values."""
        values = samples[0].tolist()
        if len(samples) == 1:
            return tuple(map(Estimate, values))
        lows, highs = percentile_interval(samples[1:], self.confidence)
        return tuple(
            Estimate(value) if math.isnan(value) else Estimate(value, low, high)
            for value, low, high in zip(values, lows.tolist(), highs.tolist(), strict=True)
        )

    def estimate(self, samples: FloatArray) -> Estimate:
        """The estimate of samples (1 + n_resamples,)."""
        return self.estimates(samples[:, None])[0]


def draw_groups(groups: Sequence[Hashable], *, n_resamples: int, rng: np.random.Generator) -> CountArray:
    """How often each clip occurs in each resample, when whole groups are drawn with replacement.

    Clips of one recording resemble each other. Drawing them one by one would make the intervals too narrow.

    Parameters
    ----------
    groups : sequence of n_clips names
        Clips with the same name are drawn together.
    n_resamples : int
    rng : np.random.Generator

    Returns
    -------
    uint16 array of shape (n_clips, n_resamples)

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 8: draw the units that are independent.

    Examples
    --------
    >>> draw_groups(["a", "a", "b"], n_resamples=2, rng=np.random.default_rng(1))
    array([[1, 0],
           [1, 0],
           [1, 2]], dtype=uint16)
    """
    indices = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    n_groups = len(indices)
    counts = np.empty((n_groups, n_resamples), np.uint16)
    for resample in range(n_resamples):
        counts[:, resample] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
    return counts[[indices[group] for group in groups]]


def percentile_interval(samples: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """The interval that contains this fraction of the samples, with equally many left out on both sides.

    Parameters
    ----------
    samples : float array of shape (n_resamples, ...)
        NaN is ignored; infinity counts as a value.
    confidence : float
        From 0 to 1.

    Returns
    -------
    low, high : float arrays of the shape of one sample
        Always values of samples, without interpolation. NaN where all samples are NaN.

    Examples
    --------
    >>> low, high = percentile_interval(np.arange(1001.0), 0.95)
    >>> float(low), float(high)
    (25.0, 975.0)
    """
    ordered = np.sort(samples, axis=0)  # NaN comes last
    last = np.maximum((~np.isnan(samples)).sum(axis=0) - 1, 0)
    tail = (1 - confidence) / 2
    low, high = np.floor(tail * last).astype(int), np.ceil((1 - tail) * last).astype(int)
    return np.take_along_axis(ordered, low[None], axis=0)[0], np.take_along_axis(ordered, high[None], axis=0)[0]


def paired_difference(first: FloatArray, other: FloatArray) -> FloatArray:
    """First minus other, resample by resample; 0 if both are infinite, or differ by a rounding error only."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isclose(first, other, rtol=0, atol=_ROUNDING_ERROR), 0.0, first - other)


def two_sided_p_value(differences: FloatArray) -> float:
    """P-value of the hypothesis that the true difference is 0, from paired resamples (n_resamples,).

    It is twice the fraction of resamples on the rarer side of 0; a difference of 0 counts on both sides. It is never
    0, because no number of resamples can show that. NaN if no difference is defined.

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapters 15 and 16; Davison and Hinkley, "Bootstrap
    methods and their application", 1997, section 4.2 (why 1 is added).

    Examples
    --------
    >>> two_sided_p_value(np.zeros(99)), two_sided_p_value(np.ones(99))
    (1.0, 0.02)
    """
    defined = differences[~np.isnan(differences)]
    if not defined.size:
        return math.nan
    n_rarer = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, float(2 * (n_rarer + 1) / (defined.size + 1)))


def as_json(value: Any) -> Any:
    """The value for JSON: dictionaries for dataclasses, lists for tuples, and None for NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value
