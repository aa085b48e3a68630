"""Bootstrap over recordings: resamples, intervals of scores and of their differences, and p-values.

The bootstrap tells how much a score from 0 to 1 varies, also if the clips of a recording are alike. But it cannot tell
anything of errors that no clip shows: of 20 clips without an error, every resample is without an error. So the
intervals are not percentiles of the resamples, but Wilson's intervals with an effective number of recordings. They
never have zero width. benchmarks/coverage.py measures how often they contain the true score.

References
----------
Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
Brown, Cai and DasGupta, "Interval estimation for a binomial proportion", Statistical Science 2001.
Franco, Little, Louis and Slud, "Comparative study of confidence intervals for proportions in complex sample surveys",
Journal of Survey Statistics and Methodology 2019: Wilson's interval with an effective sample size.
Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data",
Statistics in Medicine 1998; Zou and Donner, "Construction of confidence limits about effect measures: a general
approach", Statistics in Medicine 2008.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from spectag.array_types import FloatArray

CountArray = NDArray[np.uint16]

_ROUNDING_ERROR = 1e-9  # of a score, of its distance from 0 and 1, and of a difference


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

    def estimates(self, samples: FloatArray, n_recordings: ArrayLike) -> tuple[Estimate, ...]:
        """The estimate of each column of samples (1 + n_resamples, n), with intervals by `score_interval`."""
        ends = score_interval(samples, n_recordings, self.confidence)
        return tuple(map(Estimate, samples[0].tolist(), *(end.tolist() for end in ends)))


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


def score_interval(samples: FloatArray, n_recordings: ArrayLike, confidence: float) -> tuple[FloatArray, FloatArray]:
    """The confidence interval of scores from 0 (worst) to 1 (best): low and high, both (n,).

    It is Wilson's interval of a proportion. The score takes the place of the proportion, after subtraction of the bias
    that the resamples show. The number of independent trials is that which would make a proportion vary as the
    resamples do. The resamples count as n recordings, and one more recording votes for the largest possible variance,
    that of a proportion with one trial per recording. It decides where the resamples do not vary.

    Parameters
    ----------
    samples : float array of shape (1 + n_resamples, n)
        In the first row the scores of all clips, then those of each resample of recordings. NaN is ignored.
    n_recordings : number, or float array of shape (n,)
        How many recordings each score rests on. NaN: the score gets no interval.
    confidence : float
        From 0 to 1.

    Returns
    -------
    low, high : float arrays of shape (n,)
        From 0 to 1, around the score. NaN where the score is not defined, there are no resamples, or `n_recordings` is
        NaN.

    Examples
    --------
    >>> low, high = score_interval(np.ones((1001, 1)), 20, confidence=0.95)  # 20 clips, all of them right
    >>> low.round(3), high
    (array([0.839]), array([1.]))
    """
    values, resamples = samples[0], samples[1:]
    is_defined = ~np.isnan(resamples)
    n_defined = is_defined.sum(axis=0)
    n = np.where(n_defined > 0, n_recordings, np.nan)
    means = np.where(is_defined, resamples, 0).sum(axis=0) / np.maximum(n_defined, 1)
    variances = (np.where(is_defined, resamples - means, 0) ** 2).sum(axis=0) / np.maximum(n_defined, 1)
    centres = np.clip(2 * values - means, 0, 1)
    largest = centres * (1 - centres)
    has_variance = largest > _ROUNDING_ERROR
    relative = np.where(has_variance, n * variances / np.where(has_variance, largest, 1), 1)
    n_effective = n * (n + 1) / (n * relative + 1)
    z2 = ndtri((1 + confidence) / 2) ** 2
    middle = (n_effective * centres + z2 / 2) / (n_effective + z2)
    half = np.sqrt(z2 * (n_effective * largest + z2 / 4)) / (n_effective + z2)
    return np.clip(np.minimum(middle - half, values), 0, 1), np.clip(np.maximum(middle + half, values), 0, 1)


def paired_difference(
    first: Estimate, other: Estimate, resamples: tuple[FloatArray, FloatArray], n_recordings: float, confidence: float
) -> tuple[Estimate, float]:
    """First minus other of two scores of the same clips, with its interval, and the p-value.

    The interval is Newcombe's for paired proportions (MOVER): it combines the distances of the two scores from the ends
    of their own intervals by the correlation of the scores over the resamples. One more recording votes for no
    correlation, so that the interval of a difference of two equal models has a width, too.

    Parameters
    ----------
    first, other : Estimate
        The scores, with intervals of the same confidence.
    resamples : two float arrays of shape (n_resamples,)
        The scores of both on the same resamples. NaN and infinity are ignored.
    n_recordings : float
        How many recordings the scores rest on.
    confidence : float
        Of the intervals, from 0 to 1.

    Returns
    -------
    difference : Estimate
        Without an interval if one of the scores has none, or is infinite.
    p_value : float
        Two-sided, of the hypothesis that there is no difference: 1 minus the confidence where the interval ends at 0.
        NaN if there is no interval.
    """
    if math.isinf(first.value) or math.isinf(other.value) or math.isnan(first.low + other.low):
        return Estimate(first.value - other.value), math.nan
    value = first.value - other.value
    correlation = _correlation(*resamples) * n_recordings / (n_recordings + 1)

    def distance(by_first: float, by_other: float) -> float:
        return math.sqrt(max(0.0, by_first**2 + by_other**2 - 2 * correlation * by_first * by_other))

    below = distance(first.value - first.low, other.high - other.value)
    above = distance(first.high - first.value, other.value - other.low)
    if abs(value) < _ROUNDING_ERROR:
        return Estimate(0.0, -below, above), 1.0
    to_zero = max(below if value > 0 else above, _ROUNDING_ERROR)  # an interval can end at its score
    deviations = abs(value) / to_zero * float(ndtri((1 + confidence) / 2))
    return Estimate(value, value - below, value + above), 2 * float(ndtr(-deviations))


def _correlation(first: FloatArray, other: FloatArray) -> float:
    """0 where one of the two does not vary."""
    both = np.isfinite(first) & np.isfinite(other)
    if both.sum() < 2 or min(np.ptp(first[both]), np.ptp(other[both])) < _ROUNDING_ERROR:
        return 0.0
    return float(np.corrcoef(first[both], other[both])[0, 1])


def as_json(value: Any) -> Any:
    """The value for JSON: dictionaries for dataclasses, lists for tuples, and None for NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value
