"""How well probabilities come true: of the decisions that were said with 0.8, eight in ten should be so.

`y_true` (bool) and `probabilities` are arrays of one shape, (n_clips, n_labels) or (n_clips,) of one label. Each cell
is a decision; where a probability is NaN there was none.

References
----------
Guo et al., "On calibration of modern neural networks", ICML 2017: bins of equal width, and the error over them.
Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927: the intervals.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from spectag.array_types import FloatArray, IntArray

N_BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """Decisions in bins of equal width by their probability: what was said, and what was so.

    Attributes
    ----------
    edges : float array of shape (n_bins + 1,)
        From 0 to 1. A probability on an edge is in the bin above it, 1 in the last one.
    n : int array of shape (n_bins,)
        Decisions in each bin.
    mean_probability, share_true : float arrays of shape (n_bins,)
        NaN where a bin has no decision.
    share_low, share_high : float arrays of shape (n_bins,)
        Interval of `share_true` (Wilson's); 0 and 1 where a bin has no decision.
    """

    edges: FloatArray
    n: IntArray
    mean_probability: FloatArray
    share_true: FloatArray
    share_low: FloatArray
    share_high: FloatArray

    @property
    def error(self) -> float:
        """The expected calibration error; NaN without a decision."""
        if not self.n.any():
            return math.nan
        return float(np.nansum(self.n * np.abs(self.mean_probability - self.share_true)) / self.n.sum())


def reliability(
    y_true: ArrayLike, probabilities: ArrayLike, *, n_bins: int = N_BINS, confidence: float = 0.95
) -> Reliability:
    """What was said and what was so, in bins.

    Parameters
    ----------
    y_true, probabilities : bool and float arrays of one shape
    n_bins : int
    confidence : float
        Of the intervals.

    Raises
    ------
    ValueError
        If the shapes differ, a probability is not from 0 to 1, `n_bins` is below 1 or `confidence` not between 0 and 1.

    Examples
    --------
    >>> bins = reliability([1, 0, 1, 1, 0, 0], [0.9, 0.7, 0.7, 0.7, 0.1, 0.2], n_bins=2)
    >>> bins.n, bins.mean_probability.round(2), bins.share_true, round(bins.error, 3)
    (array([2, 4]), array([0.15, 0.75]), array([0.  , 0.75]), 0.05)
    """
    truth, said = np.asarray(y_true, np.bool_).ravel(), np.asarray(probabilities, np.float64).ravel()
    if np.shape(y_true) != np.shape(probabilities):
        raise ValueError(
            f"need truth and probabilities of one shape, got {np.shape(y_true)} and {np.shape(probabilities)}"
        )
    if n_bins < 1 or not 0 < confidence < 1:
        raise ValueError(f"need n_bins >= 1 and 0 < confidence < 1, got {n_bins} and {confidence:g}")
    truth, said = truth[~np.isnan(said)], said[~np.isnan(said)]
    if said.size and not (said.min() >= 0 and said.max() <= 1):
        raise ValueError(f"a probability is from 0 to 1, got {said.min():g} to {said.max():g}")
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.minimum(np.searchsorted(edges, said, side="right") - 1, n_bins - 1)
    n = np.bincount(bins, minlength=n_bins)
    n_true, total = np.bincount(bins, truth, n_bins), np.bincount(bins, said, n_bins)
    filled = np.where(n > 0, n, np.nan)
    low, high = wilson_interval(n_true, n, confidence=confidence)
    return Reliability(edges, n, total / filled, n_true / filled, low, high)


def wilson_interval(n_true: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Wilson's interval of a share, from the number of cases and of those that are true; 0 and 1 without a case.

    Examples
    --------
    >>> low, high = wilson_interval([8, 0], [10, 0])
    >>> low.round(3), high.round(3)
    (array([0.49, 0.  ]), array([0.943, 1.   ]))
    """
    hits, cases = np.asarray(n_true, np.float64), np.asarray(n, np.float64)
    z = -ndtri((1 - confidence) / 2)
    centre = (hits + z**2 / 2) / (cases + z**2)
    variance = hits * (1 - hits / np.maximum(cases, 1)) + z**2 / 4
    reach = z * np.sqrt(variance) / (cases + z**2)
    share = hits / np.maximum(cases, 1)  # which the rounding of the last digit must not leave outside
    low, high = np.clip(centre - reach, 0, 1), np.clip(centre + reach, 0, 1)
    return np.where(cases, np.minimum(low, share), low), np.where(cases, np.maximum(high, share), high)


def expected_calibration_error(y_true: ArrayLike, probabilities: ArrayLike, *, n_bins: int = N_BINS) -> float:
    """Mean distance of what was said from what was so, over bins of equal width; each decision counts alike.

    With few decisions chance alone keeps it above 0: of 300 that come true as said, it is 0.04 or more.

    Parameters
    ----------
    y_true, probabilities : bool and float arrays of one shape
        All labels together where they are (n_clips, n_labels).

    Returns
    -------
    float
        From 0 (best) to 1; NaN without a decision.

    Raises
    ------
    ValueError
        As `reliability`.

    Examples
    --------
    >>> expected_calibration_error([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5])
    0.25
    """
    return reliability(y_true, probabilities, n_bins=n_bins).error


def calibration_errors(y_true: ArrayLike, probabilities: ArrayLike, *, n_bins: int = N_BINS) -> FloatArray:
    """The expected calibration error of each label, (n_labels,), of arrays (n_clips, n_labels)."""
    truth, said = np.asarray(y_true), np.asarray(probabilities)
    if truth.ndim != 2 or truth.shape != said.shape:
        raise ValueError(f"need arrays of one shape (n_clips, n_labels), got {truth.shape} and {said.shape}")
    return np.array([expected_calibration_error(*pair, n_bins=n_bins) for pair in zip(truth.T, said.T, strict=True)])


def log_loss(y_true: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean log loss in nats a decision, of arrays of one shape; where a probability is NaN there was none.

    Probabilities nearer to 0 or 1 than 1e-12 count as that.

    Examples
    --------
    >>> round(log_loss([1, 0], [0.8, 0.2]), 3)
    0.223
    """
    truth, said = np.asarray(y_true, np.bool_), np.asarray(probabilities, np.float64)
    if truth.shape != said.shape:
        raise ValueError(f"need truth and probabilities of one shape, got {truth.shape} and {said.shape}")
    said_of_truth = np.where(truth, said, 1 - said)[~np.isnan(said)]
    return float(-np.log(np.clip(said_of_truth, 1e-12, 1)).mean()) if said_of_truth.size else math.nan


def calibration_metrics(y_true: ArrayLike, before: ArrayLike, after: ArrayLike) -> dict[str, Any]:
    """What calibration changed, for a tagger's metrics: error and log loss of all labels together, before and after.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
    before, after : float arrays of the same shape
        Probabilities by the plain sigmoid, and calibrated by clips other than those that they are of.
    """
    return {
        "n_clips": len(np.asarray(y_true)),
        "expected_calibration_error": [expected_calibration_error(y_true, said) for said in (before, after)],
        "log_loss": [log_loss(y_true, said) for said in (before, after)],
    }
