"""All scores of a tagger's predictions at once, overall and label by label."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spectag.array_types import FloatArray, IntArray
from spectag.scoring.metrics import (
    Metric,
    average_precision,
    bootstrap_interval,
    check_labelled,
    d_prime,
    f1_scores,
    is_single_label,
    lwlrap,
    lwlrap_per_label,
    mean_of_defined,
    roc_auc,
    top1_accuracy,
)


@dataclass(frozen=True, eq=False)
class LabelScores:
    """The scores of each label, each array of shape (n_labels,); NaN where a score is not defined."""

    n_clips: IntArray  # that have the label
    lwlrap: FloatArray
    average_precision: FloatArray
    roc_auc: FloatArray
    f1: FloatArray


@dataclass(frozen=True, eq=False)
class Scores:
    """How good a tagger is on some clips, overall and label by label."""

    n_clips: int
    lwlrap: float
    mean_average_precision: float
    roc_auc: float  # mean over the labels
    d_prime: float  # of the mean ROC-AUC
    f1_micro: float
    f1_macro: float
    top1_accuracy: float | None  # None unless every clip has exactly one label
    intervals: dict[str, tuple[float, float]]  # 95 %, by the name of the score; empty when none was asked for
    per_label: LabelScores

    def to_dict(self) -> dict[str, Any]:
        """The scores for JSON: arrays as lists, None for what is NaN or infinite."""
        overall = {name: _for_json(value) for name, value in vars(self).items() if name != "per_label"}
        return {**overall, "per_label": {name: _for_json(value) for name, value in vars(self.per_label).items()}}


def score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    thresholds: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
    groups: ArrayLike | None = None,
) -> Scores:
    """Every score of these predictions.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
    thresholds : float, or float array of shape (n_labels,) or (n_clips, n_labels), optional
        For F1, on the scale of the scores; 0.5 where not given.
    rng : np.random.Generator, optional
        Draws the clips for the intervals of lwlrap and top-1 accuracy; without it there are none.
    groups : array of shape (n_clips,), optional
        Clips of one group, such as a recording, are drawn together.

    Raises
    ------
    ValueError
        If a threshold is NaN, or no clip has a true label.

    Examples
    --------
    >>> scores = score([[1, 0], [0, 1], [0, 1]], [[0.9, 0.2], [0.5, 0.8], [0.6, 0.4]])
    >>> round(scores.lwlrap, 3), round(scores.top1_accuracy, 3), scores.roc_auc
    (0.833, 0.667, 1.0)
    """
    y_true, y_score = check_labelled(y_true, y_score)
    precision, auc = average_precision(y_true, y_score), roc_auc(y_true, y_score)
    f1 = f1_scores(y_true, y_score, thresholds=0.5 if thresholds is None else thresholds)
    by_clip: dict[str, Metric] = {"lwlrap": lwlrap}
    if is_single_label(y_true):
        by_clip["top1_accuracy"] = top1_accuracy
    overall = {name: metric(y_true, y_score) for name, metric in by_clip.items()}
    intervals = {}
    if rng is not None:
        intervals = {
            name: bootstrap_interval(metric, y_true, y_score, rng=rng, groups=groups)
            for name, metric in by_clip.items()
        }
    return Scores(
        n_clips=len(y_true),
        lwlrap=overall["lwlrap"],
        mean_average_precision=mean_of_defined(precision),
        roc_auc=mean_of_defined(auc),
        d_prime=d_prime(mean_of_defined(auc)),
        f1_micro=f1.micro,
        f1_macro=f1.macro,
        top1_accuracy=overall.get("top1_accuracy"),
        intervals=intervals,
        per_label=LabelScores(
            n_clips=y_true.sum(axis=0),
            lwlrap=lwlrap_per_label(y_true, y_score)[0],
            average_precision=precision,
            roc_auc=auc,
            f1=f1.per_label,
        ),
    )


def _for_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_for_json(item) for item in value.tolist()]
    if isinstance(value, dict):
        return {name: list(interval) for name, interval in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
