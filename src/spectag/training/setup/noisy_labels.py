"""Clips whose labels may be wrong: which labels are true, and how much each clip counts in training.

The prediction of a model trained on reliable labels and the label that a clip came with are two independent
observations. Expectation maximisation estimates from their agreement how reliable the labels are (as Dawid and Skene
did for physicians); Bayes' rule then gives the probability that each label is true.

References
----------
Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", 1979.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from spectag.array_types import BoolArray, FloatArray

DOUBTFUL_WEIGHT = 0.3
"""Weight of a clip whose labels the model disagrees with, relative to a clip where it agrees."""
_N_ITERATIONS = 30  # of expectation maximisation; the rates converge in ten
_SENSITIVITY_LIMITS = (0.05, 0.99)
_FALSE_RATE_LIMITS = (1e-4, 0.9)


@dataclass(frozen=True)
class LabelRates:
    """How reliable the labels are: how often a true label (`sensitivity`) or a false one (`false_rate`) was given."""

    sensitivity: float
    false_rate: float


@dataclass(frozen=True)
class Relabelled:
    """Training targets and weights of clips with noisy labels.

    Attributes
    ----------
    targets : float array of shape (n_clips, n_labels)
        Probability that each label is true; NaN where it is unknown.
    weights : float array of shape (n_clips,)
        How much each clip counts; 0 for clips that are left out.
    agrees : bool array of shape (n_clips,)
        Whether the model agrees with every label of the clip, present or absent.
    over_limit : bool array of shape (n_clips,)
        Clips that agree but are left out because enough clips of that label have a higher probability.
    rates : LabelRates
    """

    targets: FloatArray
    weights: FloatArray
    agrees: BoolArray
    over_limit: BoolArray
    rates: LabelRates


def relabel_noisy(
    logits: FloatArray,
    labels: BoolArray | FloatArray,
    *,
    keep_doubtful: bool,
    per_label: int | None = None,
    weight: float = 1.0,
    clip_weights: FloatArray | None = None,
) -> Relabelled:
    """Targets and weights for clips whose labels may be wrong.

    Parameters
    ----------
    logits : float array of shape (n_clips, n_labels)
        A model's calibrated predictions for the clips.
    labels : bool array of shape (n_clips, n_labels)
        The labels that the clips came with; or 1, 0, and NaN for unknown labels.
    keep_doubtful : bool
        Keep clips that the model disagrees with too, with label probabilities as targets and a lower weight.
    per_label : int, optional
        Most clips to keep of each label among those where the model agrees, highest probability first.
    weight : float
        Weight of a clip where the model agrees.
    clip_weights : float array of shape (n_clips,), optional
        Factors of the weights; 0 for clips to leave out. By default all 1.

    Raises
    ------
    ValueError
        If the shapes differ or there are no clips.
    """
    if logits.shape != labels.shape or not logits.size:
        raise ValueError(f"need logits and labels of one shape, got {logits.shape} and {labels.shape}")
    clip_weights = np.ones(len(logits)) if clip_weights is None else clip_weights
    known, given = ~np.isnan(labels), np.asarray(labels == 1)
    probabilities, rates = _probabilities(logits, given, clip_weights[:, None] * known)
    agrees = (((probabilities > 0.5) == given) | ~known).all(axis=1) & given.any(axis=1)
    kept = agrees & _within_limit(probabilities, given, agrees & (clip_weights > 0), per_label)
    doubtful = ~agrees if keep_doubtful else np.zeros(len(given), bool)
    targets = np.where(known, np.where(kept[:, None], given, probabilities), np.nan)
    weights = weight * clip_weights * (kept + DOUBTFUL_WEIGHT * doubtful)
    return Relabelled(targets, weights, agrees, over_limit=agrees & ~kept, rates=rates)


def _probabilities(logits: FloatArray, labels: BoolArray, weights: FloatArray) -> tuple[FloatArray, LabelRates]:
    """Probability that each label is true, from the predictions and the labels, and how reliable the labels are.

    `weights` (n_clips, n_labels) are how much each label counts for the reliability.
    """
    prior = np.clip(logits, -20.0, 20.0)  # so that a probability and its complement are never 0
    rates = LabelRates(0.7, 0.05)
    for _ in range(_N_ITERATIONS):
        present = np.log(rates.sensitivity) - np.log(rates.false_rate)
        absent = np.log1p(-rates.sensitivity) - np.log1p(-rates.false_rate)
        probabilities = expit(prior + np.where(labels, present, absent))
        if_true, if_false = weights * probabilities, weights * (1 - probabilities)
        sensitivity = np.clip((if_true * labels).sum() / max(if_true.sum(), 1e-9), *_SENSITIVITY_LIMITS)
        false_rate = np.clip((if_false * labels).sum() / max(if_false.sum(), 1e-9), *_FALSE_RATE_LIMITS)
        # at most the sensitivity: a given label never lowers the probability that it is true
        rates = LabelRates(float(sensitivity), float(min(sensitivity, false_rate)))
    return probabilities, rates


def _within_limit(probabilities: FloatArray, labels: BoolArray, agrees: BoolArray, per_label: int | None) -> BoolArray:
    """Clips that are among the `per_label` most probable clips of every label that they have."""
    within = np.ones(len(labels), bool)
    if per_label is None:
        return within
    confidence = np.where(labels, probabilities, 1.0).min(axis=1)  # that of its least probable label
    for column in labels.T:
        rows = np.flatnonzero(column & agrees)
        within[rows[np.argsort(-confidence[rows], kind="stable")[per_label:]]] = False
    return within


def relabel_report(relabelled: Relabelled, labels: BoolArray, names: Sequence[str]) -> list[str]:
    """Lines for the log: how many noisy clips of each label are kept, and why the others are not."""
    kept = relabelled.agrees & ~relabelled.over_limit
    doubtful = ~relabelled.agrees
    treatment = (
        "count less, with label probabilities as targets" if relabelled.weights[doubtful].any() else "are left out"
    )
    lines = [
        f"noisy labels: {kept.sum()} of {len(labels)} clips are kept; the model disagrees with {doubtful.sum()}, which "
        f"{treatment}",
        f"estimated label quality: {relabelled.rates.sensitivity:.0%} of the true labels are given, and "
        f"{relabelled.rates.false_rate:.1%} of the false ones",
    ]
    width = max(map(len, ("label", *names)))
    lines.append(f"{'label':{width}}  given  kept  doubtful  over the limit  added")
    for name, is_given, probability in zip(names, labels.T, relabelled.targets.T, strict=True):
        is_added = ~is_given & doubtful & (relabelled.weights > 0) & (probability > 0.5)
        counted = (is_given, is_given & kept, is_given & doubtful, is_given & relabelled.over_limit, is_added)
        lines.append("{:{}}  {:5d}  {:4d}  {:8d}  {:14d}  {:5d}".format(name, width, *(rows.sum() for rows in counted)))
    return lines
