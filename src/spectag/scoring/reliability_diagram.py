"""Calibration of probabilities: reliability diagrams, calibration errors and log loss.

`y_true` (bool) and `probabilities` have the same shape, (n_clips, n_labels) or (n_clips,) for one label. Each cell is a
decision; cells whose truth or probability is NaN are ignored.

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

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.scoring.metrics import ratio

N_BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """Decisions in bins of equal width by their probability: predicted and true fraction of each bin.

    Attributes
    ----------
    edges : float array of shape (n_bins + 1,)
        From 0 to 1. A probability on an edge belongs to the bin above it, and 1 to the last bin.
    n : int array of shape (n_bins,)
        Number of decisions in each bin.
    mean_probability, fraction_true : float arrays of shape (n_bins,)
        NaN for an empty bin.
    fraction_low, fraction_high : float arrays of shape (n_bins,)
        Wilson's interval of `fraction_true`; 0 and 1 for an empty bin.
    """

    edges: FloatArray
    n: IntArray
    mean_probability: FloatArray
    fraction_true: FloatArray
    fraction_low: FloatArray
    fraction_high: FloatArray

    @property
    def error(self) -> float:
        """The expected calibration error; NaN without a decision."""
        return _expected_error(self.n, self.mean_probability, self.fraction_true)


def reliability(
    y_true: ArrayLike, probabilities: ArrayLike, *, n_bins: int = N_BINS, confidence: float = 0.95
) -> Reliability:
    """The points of a reliability diagram: mean probability and fraction of true decisions in each bin.

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
    >>> bins.n, bins.mean_probability.round(2), bins.fraction_true, round(bins.error, 3)
    (array([2, 4]), array([0.15, 0.75]), array([0.  , 0.75]), 0.05)
    """
    from scipy.stats import binomtest  # takes 0.3 s to import, and tagging does not need it

    if not 0 < confidence < 1:
        raise ValueError(f"need 0 < confidence < 1, got {confidence:g}")
    edges, n, n_true, mean_probability = _bin(y_true, probabilities, n_bins)
    intervals = [
        binomtest(hits, total).proportion_ci(confidence, method="wilson") if total else (0.0, 1.0)
        for hits, total in zip(n_true.tolist(), n.tolist(), strict=True)
    ]
    low, high = np.array(intervals).T
    return Reliability(edges, n, mean_probability, ratio(n_true, n), low, high)


def expected_calibration_error(y_true: ArrayLike, probabilities: ArrayLike, *, n_bins: int = N_BINS) -> float:
    """Mean distance between predicted and true fraction, over bins of equal width, weighted by their decisions.

    Chance alone keeps it above 0 with few decisions: with 300 perfectly calibrated ones it is 0.04 or more.

    Parameters
    ----------
    y_true, probabilities : bool and float arrays of one shape
        Arrays (n_clips, n_labels) are taken together.

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
    _, n, n_true, mean_probability = _bin(y_true, probabilities, n_bins)
    return _expected_error(n, mean_probability, ratio(n_true, n))


def _expected_error(n: IntArray, mean_probability: FloatArray, fraction_true: FloatArray) -> float:
    return float(np.nansum(n * np.abs(mean_probability - fraction_true)) / n.sum()) if n.any() else math.nan


def _bin(y_true: ArrayLike, probabilities: ArrayLike, n_bins: int) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
    """Edges (n_bins + 1,); decisions, true decisions and mean probability of each bin, all (n_bins,)."""
    if n_bins < 1:
        raise ValueError(f"need n_bins >= 1, got {n_bins}")
    truth, predicted = _decisions(y_true, probabilities)
    if predicted.size and not (predicted.min() >= 0 and predicted.max() <= 1):
        raise ValueError(f"probabilities must be from 0 to 1, got {predicted.min():g} to {predicted.max():g}")
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.minimum(np.searchsorted(edges, predicted, side="right") - 1, n_bins - 1)
    n = np.bincount(bins, minlength=n_bins)
    return edges, n, np.bincount(bins[truth], minlength=n_bins), ratio(np.bincount(bins, predicted, n_bins), n)


def _decisions(y_true: ArrayLike, probabilities: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Truth and probabilities of all decisions, both (n_decisions,)."""
    truth, predicted = np.asarray(y_true, np.float64), np.asarray(probabilities, np.float64)
    if truth.shape != predicted.shape:
        raise ValueError(f"need truth and probabilities of one shape, got {truth.shape} and {predicted.shape}")
    is_decision = ~np.isnan(truth + predicted)
    return truth[is_decision] == 1, predicted[is_decision]


def calibration_errors(y_true: ArrayLike, probabilities: ArrayLike, *, n_bins: int = N_BINS) -> FloatArray:
    """The expected calibration error of each label, (n_labels,), of arrays (n_clips, n_labels)."""
    truth, predicted = np.asarray(y_true), np.asarray(probabilities)
    if truth.ndim != 2 or truth.shape != predicted.shape:
        raise ValueError(f"need arrays of one shape (n_clips, n_labels), got {truth.shape} and {predicted.shape}")
    columns = zip(truth.T, predicted.T, strict=True)
    return np.array([expected_calibration_error(*column, n_bins=n_bins) for column in columns])


def log_loss(y_true: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean log loss per decision, in nats; NaN without a decision.

    Probabilities closer to 0 or 1 than 1e-12 are moved to that distance.

    Examples
    --------
    >>> round(log_loss([1, 0], [0.8, 0.2]), 3)
    0.223
    """
    truth, predicted = _decisions(y_true, probabilities)
    probability_of_truth = np.where(truth, predicted, 1 - predicted)
    return float(-np.log(np.clip(probability_of_truth, 1e-12, 1)).mean()) if truth.size else math.nan


def calibration_metrics(y_true: ArrayLike, before: ArrayLike, after: ArrayLike) -> dict[str, Any]:
    """Calibration error and log loss over all labels, before and after calibration, as spectag.json stores them.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
    before, after : float arrays of the same shape
        Probabilities by the plain sigmoid, and cross-fitted ones: calibrated on other clips.
    """
    return {
        "n_clips": len(np.asarray(y_true)),
        "expected_calibration_error": [expected_calibration_error(y_true, predicted) for predicted in (before, after)],
        "log_loss": [log_loss(y_true, predicted) for predicted in (before, after)],
    }
