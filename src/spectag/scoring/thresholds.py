"""From which probability a label is given: thresholds fitted label by label to a goal."""

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from spectag.array_types import BoolArray, FloatArray
from spectag.config.base import Config
from spectag.scoring.metrics import best_thresholds, check_scores, threshold_below


class ThresholdGoal(Config):
    """What a label's threshold is to reach on clips that the tagger did not see.

    `f1`: the best F1. `precision`: of the clips that are given the label at least this share have it, and of all such
    thresholds the lowest, so that the most are found. `recall`: of the clips that have the label at least this share
    are given it, and of all such thresholds the highest, so that the fewest are given it wrongly.
    """

    kind: Literal["f1", "precision", "recall"] = "f1"
    at_least: float | None = Field(None, gt=0, le=1)
    """The share to reach; none for f1."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "f1") != (self.at_least is None):
            wanted = "no at_least, for the best is sought" if self.kind == "f1" else "at_least, the share to reach"
            raise ValueError(f"a goal of kind {self.kind} needs {wanted}, got at_least={self.at_least}")
        return self

    def __str__(self) -> str:
        """The goal in words."""
        return "the best F1" if self.at_least is None else f"a {self.kind} of at least {self.at_least:g}"


BEST_F1 = ThresholdGoal()


def fit_thresholds(
    y_true: ArrayLike, probabilities: ArrayLike, goal: ThresholdGoal = BEST_F1, *, min_positives: int = 3
) -> FloatArray:
    """For each label, the threshold that reaches a goal on these clips.

    It lies midway between the lowest score that is given the tag and the next lower one; where every clip is given the
    tag, it is the lowest score. Fit on predictions for clips that the model was not trained on, such as out-of-fold
    ones, and report it on others: see `spectag.scoring.calibration.cross_fitted`.

    Parameters
    ----------
    y_true, probabilities : bool and float arrays of shape (n_clips, n_labels)
    goal : ThresholdGoal
        A precision that no threshold reaches gives the threshold of the greatest precision that there is (of several
        the lowest); a recall can always be reached.
    min_positives : int
        A label that fewer clips have gets no threshold.

    Returns
    -------
    float array of shape (n_labels,)
        To be used as probability >= threshold. NaN where a threshold can't be fitted, for the caller to replace by a
        default: fewer than `min_positives` clips have the label, or none does, or every one does.

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
    if goal.at_least is None:
        return best_thresholds(y_true, probabilities, min_positives=min_positives)
    truth, scores = check_scores(y_true, probabilities)
    n_positives = truth.sum(axis=0)
    fitted = (n_positives >= max(min_positives, 1)) & (n_positives < len(truth))
    thresholds = np.full(truth.shape[1], np.nan)
    for label in np.flatnonzero(fitted):
        thresholds[label] = _threshold(truth[:, label], scores[:, label], goal.kind, goal.at_least)
    return thresholds


def _threshold(truth: BoolArray, scores: FloatArray, kind: str, at_least: float) -> float:
    order = np.argsort(-scores)
    ranked, n_hits = scores[order], np.cumsum(truth[order])
    parts = np.append(ranked[:-1] != ranked[1:], True)  # no threshold parts equal scores
    if kind == "recall":
        return threshold_below(ranked, int(np.argmax(parts & (n_hits / truth.sum() >= at_least))))
    precision = np.where(parts, n_hits / np.arange(1, len(scores) + 1), 0.0)
    good = precision >= min(at_least, precision.max())
    return threshold_below(ranked, int(np.flatnonzero(good)[-1]))
