"""Thresholds: the probability from which each label is reported, fitted to a goal."""

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from spectag.array_types import BoolArray, FloatArray
from spectag.config.base import Config
from spectag.scoring.metrics import check_scores


class ThresholdGoal(Config):
    """The goal of each label's threshold, on clips that the model was not trained on.

    `f1`: the best F1. `precision`: the lowest threshold with at least this precision, so that most clips with the
    label are detected. `recall`: the highest threshold with at least this recall, so that there are few false alarms.
    """

    kind: Literal["f1", "precision", "recall"] = "f1"
    at_least: float | None = Field(None, gt=0, le=1)
    """The precision or recall to reach; None for f1."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "f1") != (self.at_least is None):
            expected = "no at_least, as it takes the best F1" if self.kind == "f1" else f"at_least, the {self.kind}"
            raise ValueError(f"a goal of kind {self.kind} needs {expected}, got at_least={self.at_least}")
        return self

    def __str__(self) -> str:
        """The goal in words."""
        return "the best F1" if self.at_least is None else f"a {self.kind} of at least {self.at_least:g}"


BEST_F1 = ThresholdGoal()


def fit_thresholds(
    y_true: ArrayLike, probabilities: ArrayLike, goal: ThresholdGoal = BEST_F1, *, min_positives: int = 3
) -> FloatArray:
    """For each label, the threshold that reaches a goal on these clips.

    The threshold lies midway between the lowest score above it and the next lower score. If every clip is above it, it
    is the lowest score. Fit it on predictions for clips that the model was not trained on, such as out-of-fold
    predictions, and score it on other clips: see `spectag.scoring.calibration.cross_fit`.

    Parameters
    ----------
    y_true, probabilities : bool and float arrays of shape (n_clips, n_labels)
    goal : ThresholdGoal
        Of several thresholds with the best F1, the highest is taken. If no threshold reaches the precision, the lowest
        of those with the greatest precision is taken. A recall can always be reached.
    min_positives : int
        A label needs this many clips to get a threshold.

    Returns
    -------
    float array of shape (n_labels,)
        To be used as probability >= threshold. NaN, to be replaced by a default, for a label that fewer than
        `min_positives` clips, no clip or every clip has.

    Raises
    ------
    ValueError
        If the shapes differ, or a probability is NaN.

    Examples
    --------
    >>> y_true, probabilities = [[1], [0], [1], [1], [0]], [[0.9], [0.8], [0.7], [0.4], [0.2]]
    >>> fit_thresholds(y_true, probabilities, ThresholdGoal(kind="precision", at_least=0.75))
    array([0.3])
    >>> fit_thresholds(y_true, probabilities, ThresholdGoal(kind="recall", at_least=0.6))
    array([0.55])
    """
    truth, scores = check_scores(y_true, probabilities)
    n_positives = truth.sum(axis=0)
    can_fit = (n_positives >= max(min_positives, 1)) & (n_positives < len(truth))
    thresholds = np.full(truth.shape[1], np.nan)
    for label in np.flatnonzero(can_fit):
        thresholds[label] = _fit_threshold(truth[:, label], scores[:, label], goal)
    return thresholds


def _fit_threshold(truth: BoolArray, scores: FloatArray, goal: ThresholdGoal) -> float:
    order = np.argsort(-scores)
    ranked, n_hits, n_detected = scores[order], np.cumsum(truth[order]), np.arange(1, len(scores) + 1)
    is_possible = np.append(ranked[:-1] != ranked[1:], True)  # no threshold separates equal scores
    if goal.at_least is None:
        f1 = 2 * n_hits / (n_detected + truth.sum())
        return _threshold_below(ranked, int(np.where(is_possible, f1, 0).argmax()))
    if goal.kind == "recall":
        return _threshold_below(ranked, int(np.argmax(is_possible & (n_hits / truth.sum() >= goal.at_least))))
    precision = np.where(is_possible, n_hits / n_detected, 0.0)
    is_good = precision >= min(goal.at_least, precision.max())
    return _threshold_below(ranked, int(np.flatnonzero(is_good)[-1]))


def _threshold_below(ranked: FloatArray, last: int) -> float:
    """The threshold that only the scores up to index `last` of these falling scores reach."""
    lowest, next_lower = ranked[last], ranked[min(last + 1, len(ranked) - 1)]
    midway = float(lowest / 2 + next_lower / 2)
    return midway if midway > next_lower else float(lowest)  # there is no float between two neighbours


def fill_thresholds(fitted: FloatArray, default: ArrayLike) -> FloatArray:
    """Fitted thresholds, with a default where they are NaN."""
    return np.where(np.isnan(fitted), default, fitted)
