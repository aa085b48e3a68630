"""What labels that may be wrong are worth, in the light of a tagger that learnt from labels that are right.

The tagger's opinion of a clip and the label that somebody gave it are two witnesses. How reliable the labels are is
worked out from how often the two agree (expectation and maximisation, as Dawid and Skene did with physicians); then
Bayes' rule gives the probability that each label is true.

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
"""Weight of a clip whose labels the tagger doubts beside one where it agrees, when both are used."""
_N_ROUNDS = 30  # of expectation and maximisation; the rates settle in ten
_SENSITIVITY_LIMITS = (0.05, 0.99)
_FALSE_RATE_LIMITS = (1e-4, 0.9)


@dataclass(frozen=True)
class Rates:
    """How reliable given labels are.

    `sensitivity` is how often a label that is true was given, `false_rate` how often one that is not.
    """

    sensitivity: float
    false_rate: float


@dataclass(frozen=True)
class Relabelled:
    """What to learn from clips with doubtful labels.

    Attributes
    ----------
    targets : float array of shape (n_clips, n_labels)
        Probability that each label is true.
    weights : float array of shape (n_clips,)
        How much each clip counts, 0 for those that are left out.
    agrees : bool array of shape (n_clips,)
        Where the tagger agrees with every label, given or not.
    over_limit : bool array of shape (n_clips,)
        Clips that agree but were left out, for a label has surer ones enough.
    rates : Rates
    """

    targets: FloatArray
    weights: FloatArray
    agrees: BoolArray
    over_limit: BoolArray
    rates: Rates


def _check(logits: FloatArray, labels: BoolArray) -> None:
    if logits.shape != labels.shape or not logits.size:
        raise ValueError(f"need logits and labels of one shape, got {logits.shape} and {labels.shape}")


def relabel(
    logits: FloatArray, given: BoolArray, *, keeps_doubtful: bool, per_label: int | None = None, weight: float = 1.0
) -> Relabelled:
    """Targets and weights for clips whose labels may be wrong.

    Parameters
    ----------
    logits : float array of shape (n_clips, n_labels)
        A tagger's calibrated opinion of the clips.
    given : bool array of shape (n_clips, n_labels)
        The labels that the clips came with.
    keeps_doubtful : bool
        Also keep clips with labels that the tagger doubts, with probabilities for labels and less weight.
    per_label : int, optional
        Most clips kept of a label among those where the tagger agrees, the surest first.
    weight : float
        Of a clip where the tagger agrees.

    Raises
    ------
    ValueError
        If the shapes differ or there is nothing to learn from.
    """
    _check(logits, given)
    probabilities, rates = _probabilities(logits, given)
    agrees = ((probabilities > 0.5) == given).all(axis=1) & given.any(axis=1)
    kept = agrees & _within_limit(probabilities, given, agrees, per_label)
    doubtful = ~agrees if keeps_doubtful else np.zeros(len(given), bool)
    targets = np.where(kept[:, None], given, probabilities)
    return Relabelled(
        targets, weight * (kept + DOUBTFUL_WEIGHT * doubtful), agrees, over_limit=agrees & ~kept, rates=rates
    )


def _probabilities(logits: FloatArray, given: BoolArray) -> tuple[FloatArray, Rates]:
    """Probability that each label is true, by the tagger's opinion and the labels' own reliability."""
    prior = np.clip(logits, -20.0, 20.0)  # nothing is so sure that its opposite would not be a number
    rates = Rates(0.7, 0.05)
    for _ in range(_N_ROUNDS):
        present = np.log(rates.sensitivity) - np.log(rates.false_rate)
        absent = np.log1p(-rates.sensitivity) - np.log1p(-rates.false_rate)
        probabilities = expit(prior + np.where(given, present, absent))
        sensitivity = np.clip((probabilities * given).sum() / probabilities.sum(), *_SENSITIVITY_LIMITS)
        false_rate = np.clip(((1 - probabilities) * given).sum() / (1 - probabilities).sum(), *_FALSE_RATE_LIMITS)
        rates = Rates(float(sensitivity), float(min(sensitivity, false_rate)))  # a given label never speaks against it
    return probabilities, rates


def _within_limit(probabilities: FloatArray, given: BoolArray, agrees: BoolArray, per_label: int | None) -> BoolArray:
    """Clips that are among the surest of every label that they were given."""
    within = np.ones(len(given), bool)
    if per_label is None:
        return within
    sureness = np.where(given, probabilities, 1.0).min(axis=1)  # a clip is as sure as the least sure of its labels
    for column in given.T:
        rows = np.flatnonzero(column & agrees)
        within[rows[np.argsort(-sureness[rows], kind="stable")[per_label:]]] = False
    return within


def relabel_report(relabelled: Relabelled, given: BoolArray, labels: Sequence[str]) -> list[str]:
    """Lines that say, label by label, how many of the noisy clips were kept and why the others were not."""
    kept = relabelled.agrees & ~relabelled.over_limit
    doubted = ~relabelled.agrees
    fate = "count less, their labels as probabilities" if relabelled.weights[doubted].any() else "are left out"
    lines = [
        f"noisy labels: of {len(given)} clips {kept.sum()} are kept; {doubted.sum()} are doubted and {fate}",
        f"a label that is true was given {relabelled.rates.sensitivity:.0%} of the time, one that is not "
        f"{relabelled.rates.false_rate:.1%}",
    ]
    width = max(map(len, ("label", *labels)))
    lines.append(f"{'label':{width}}  given  kept  doubted  over the limit  added")
    for name, is_given, probability in zip(labels, given.T, relabelled.targets.T, strict=True):
        is_added = ~is_given & doubted & (relabelled.weights > 0) & (probability > 0.5)
        rows = (is_given, is_given & kept, is_given & doubted, is_given & relabelled.over_limit, is_added)
        lines.append("{:{}}  {:5d}  {:4d}  {:7d}  {:14d}  {:5d}".format(name, width, *(part.sum() for part in rows)))
    return lines
