"""Scores of sounds with start and end by intersections: PSDS.

PSDS is the area under the curve of found sounds against false detections per hour, over thresholds (psds-eval).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.scoring.event_scores import SoundEvents, ratio_or_nan

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class IntersectionCriteria:
    """When a detection is right, a sound is found, and a detection is a cross-trigger: fractions of their lengths."""

    detection_tolerance: float = 0.5
    """Least part of a detection that true sounds of its label cover (DTC)."""
    truth_intersection: float = 0.5
    """Least part of a true sound that right detections cover (GTC)."""
    cross_trigger_tolerance: float = 0.3
    """Least part of a wrong detection that sounds of another label cover (CTTC)."""


@dataclass(frozen=True, eq=False)
class IntersectionRates:
    """Rates at one threshold."""

    true_positive_ratios: FloatArray
    """Found sounds of all true ones, (n_labels,); NaN without true sounds."""
    false_positives_per_hour: FloatArray
    """(n_labels,), per hour of recordings."""
    cross_triggers_per_hour: FloatArray
    """(n_labels, n_labels): of the detected label, per hour of the true label; NaN on the diagonal."""


@dataclass(frozen=True, eq=False)
class IntersectionOutcomes:
    """Which sounds are found, which detections are wrong, and which of these lie on sounds of other labels."""

    truth: SoundEvents
    detected: SoundEvents
    is_found: BoolArray
    """Of each true sound."""
    is_wrong: BoolArray
    """Of each detection."""
    crossed: IntArray
    """Rows of wrong detections, (n_cross_triggers,)."""
    crossed_labels: IntArray
    """Labels of the sounds on which they lie, (n_cross_triggers,)."""

    def rates(self, durations: FloatArray, n_labels: int, weights: FloatArray | None = None) -> IntersectionRates:
        """The rates in recordings of these lengths in seconds, each counted `weights` (n_recordings,) times."""
        weights = np.ones(len(durations)) if weights is None else weights
        truth, detected = self.truth, self.detected
        of_truth, of_detected = weights[truth.recordings], weights[detected.recordings]
        n_true = np.bincount(truth.labels, of_truth, n_labels)
        n_found = np.bincount(truth.labels, of_truth * self.is_found, n_labels)
        n_wrong = np.bincount(detected.labels, of_detected * self.is_wrong, n_labels)
        cells = detected.labels[self.crossed] * n_labels + self.crossed_labels
        n_crossed = np.bincount(cells, of_detected[self.crossed], n_labels**2).reshape(n_labels, n_labels)
        hours_of_labels = np.bincount(truth.labels, of_truth * (truth.ends - truth.starts), n_labels)
        cross_triggers = ratio_or_nan(n_crossed, hours_of_labels / _SECONDS_PER_HOUR)
        np.fill_diagonal(cross_triggers, np.nan)
        hours = float(weights @ durations) / _SECONDS_PER_HOUR
        return IntersectionRates(ratio_or_nan(n_found, n_true), n_wrong / hours, cross_triggers)


def match_by_intersection(
    truth: SoundEvents, detected: SoundEvents, n_labels: int, criteria: IntersectionCriteria
) -> IntersectionOutcomes:
    """Which sounds are found and which detections are wrong, by how much they overlap.

    Parameters
    ----------
    truth, detected : SoundEvents
        Sounds of one label in one recording do not overlap (`merged`).
    n_labels : int
    criteria : IntersectionCriteria

    References
    ----------
    Bilen et al.: "A framework for the robust evaluation of sound event detection", ICASSP 2020; psds-eval.
    """
    rows, true_rows, seconds = intersections(truth, detected)
    same = detected.labels[rows] == truth.labels[true_rows]
    of_detection = seconds / (detected.ends - detected.starts)[rows]
    of_truth = seconds / (truth.ends - truth.starts)[true_rows]

    is_right = np.bincount(rows[same], of_detection[same], len(detected)) >= criteria.detection_tolerance
    counts = same & is_right[rows]
    has_right = np.bincount(true_rows[counts], minlength=len(truth)) > 0
    covered = np.bincount(true_rows[counts], of_truth[counts], len(truth))

    crossing = ~same & ~is_right[rows]
    keys, inverse = np.unique(rows[crossing] * n_labels + truth.labels[true_rows[crossing]], return_inverse=True)
    is_cross = np.bincount(inverse, of_detection[crossing], len(keys)) >= criteria.cross_trigger_tolerance
    return IntersectionOutcomes(
        truth,
        detected,
        is_found=has_right & (covered >= criteria.truth_intersection),
        is_wrong=~is_right,
        crossed=keys[is_cross] // n_labels,
        crossed_labels=keys[is_cross] % n_labels,
    )


def intersections(truth: SoundEvents, detected: SoundEvents) -> tuple[IntArray, IntArray, FloatArray]:
    """Rows of detections and of true sounds that overlap, and for how many seconds."""
    order = np.lexsort((truth.starts, truth.recordings))
    longest = float((truth.ends - truth.starts).max(initial=0.0))
    keys = truth.recordings[order], truth.starts[order]
    rows: list[IntArray] = []
    true_rows: list[IntArray] = []
    bounds = np.searchsorted(keys[0], [np.arange(truth.recordings.max(initial=-1) + 2)])[0]
    for row in range(len(detected)):
        recording = detected.recordings[row]
        if recording >= len(bounds) - 1:
            continue
        begin, end = bounds[recording], bounds[recording + 1]
        starts = keys[1][begin:end]
        first = begin + np.searchsorted(starts, detected.starts[row] - longest)
        last = begin + np.searchsorted(starts, detected.ends[row])
        near = order[first:last]
        near = near[truth.ends[near] > detected.starts[row]]
        rows.append(np.full(len(near), row))
        true_rows.append(near)
    if not rows:
        empty = np.empty(0, np.int64)
        return empty, empty, np.empty(0)
    pairs, true_pairs = np.concatenate(rows), np.concatenate(true_rows)
    seconds = np.minimum(detected.ends[pairs], truth.ends[true_pairs]) - np.maximum(
        detected.starts[pairs], truth.starts[true_pairs]
    )
    return pairs, true_pairs, seconds


@dataclass(frozen=True, eq=False)
class PsdsCurve:
    """The curve under which PSDS is the area."""

    score: float
    """NaN without true sounds."""
    false_positives_per_hour: FloatArray
    """(n_points,); with the weight of cross-triggers."""
    true_positive_ratio: FloatArray
    """(n_points,): mean over labels, minus the weight of its standard deviation."""


def psds(
    rates: Sequence[IntersectionRates],
    *,
    cross_trigger_weight: float = 0.0,
    spread_weight: float = 0.0,
    max_per_hour: float = 100.0,
) -> PsdsCurve:
    """The polyphonic sound detection score, from 0 to 1 (best): the area under the curve up to `max_per_hour`.

    Parameters
    ----------
    rates : sequence of IntersectionRates
        One for each threshold.
    cross_trigger_weight : float
        How much cross-triggers count beside other false detections (alpha_ct).
    spread_weight : float
        How much the standard deviation over labels lowers the ratio (alpha_st).
    max_per_hour : float
        Largest rate of false detections.

    References
    ----------
    As `match_by_intersection`.
    """
    ratios = np.stack([rate.true_positive_ratios for rate in rates], axis=1)
    cross = np.stack([_mean_over_labels(rate.cross_triggers_per_hour) for rate in rates], axis=1)
    per_hour = np.stack([rate.false_positives_per_hour for rate in rates], axis=1) + cross_trigger_weight * cross
    ratios, per_hour = (np.pad(values, ((0, 0), (0, 1))) for values in (ratios, per_hour))  # nothing detected
    points = np.unique(per_hour)
    curves = np.stack([_staircase(points, *label) for label in zip(per_hour, ratios, strict=True)])
    curves = curves[~np.isnan(curves).any(axis=1)]
    if not len(curves):
        return PsdsCurve(math.nan, points, np.full(len(points), math.nan))
    combined = np.maximum(curves.mean(axis=0) - spread_weight * curves.std(axis=0), 0.0)
    return PsdsCurve(_area(points, combined, max_per_hour) / max_per_hour, points, combined)


def _mean_over_labels(cross_triggers: FloatArray) -> FloatArray:
    """Mean over the other labels; 0 with a single label."""
    n_known = (~np.isnan(cross_triggers)).sum(axis=1)
    return np.where(n_known > 0, np.nansum(cross_triggers, axis=1) / np.maximum(n_known, 1), 0.0)


def _staircase(points: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """The highest y up to each point; NaN for a label without true sounds."""
    if np.isnan(y).any():
        return np.full(len(points), np.nan)
    highest = np.zeros(len(points))
    np.maximum.at(highest, np.searchsorted(points, x), y)
    return np.maximum.accumulate(highest)


def _area(x: FloatArray, y: FloatArray, max_x: float) -> float:
    """Area under a staircase from 0 to max_x."""
    edges = np.append(x[x < max_x], max_x)
    return float(np.diff(edges) @ y[: len(edges) - 1])
