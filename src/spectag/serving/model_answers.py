"""What worker processes compute for the Model view: precision and recall of thresholds, and new versions."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from spectag.array_types import FloatArray
from spectag.config.base import Config
from spectag.models.bundle import read_info
from spectag.models.limits import MAX_LABELS
from spectag.serving.answers import AnswerLimits, Question
from spectag.system.progress import no_log

THRESHOLDS = (0.001, 0.002, 0.005, *(round(0.01 * step, 2) for step in range(1, 100)), 0.995, 0.998, 0.999)
"""The thresholds that the page offers."""


class ThresholdsQuery(Config):
    """Thresholds of labels."""

    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1, max_length=MAX_LABELS)


class VersionQuery(ThresholdsQuery):
    """What to write into a new folder."""

    output: Path


def threshold_scores(limits: AnswerLimits, _: Question) -> dict[str, Any]:
    """How many held-out clips each of THRESHOLDS detects, and how many of them have the label.

    The probabilities are cross-fitted, as those from which `spectag calibrate --set` prints precision and recall.
    Without out-of-fold predictions of several recordings, there are no labels in the answer.
    """
    from spectag.evaluation.calibration_clips import read_stored_clips

    info = read_info(limits.model)
    clips = read_stored_clips(limits.model, info.labels)
    cross_fitted = clips.cross_fitted(info.calibration_method, info.threshold_goal) if clips.labels.any() else None
    if cross_fitted is None:
        return {"n_clips": 0, "labels": {}}
    own = np.flatnonzero(clips.labels)
    fixed = np.array(info.thresholds)[own], np.array(info.thresholds_fitted)[own]
    now = cross_fitted.with_fixed_thresholds(*fixed).thresholds
    columns = enumerate(own.tolist())
    return {
        "n_clips": len(clips.logits),
        "labels": {
            info.labels[label]: _counts(clips.y_true[:, column], cross_fitted.probabilities[:, column], now[:, column])
            for column, label in columns
        },
    }


def _counts(y_true: FloatArray, probabilities: FloatArray, now: FloatArray) -> dict[str, Any]:
    """Counts of clips for a label. `now` has the model's threshold, for each clip fitted on the others."""
    known = ~np.isnan(y_true)
    has_label = y_true[known] == 1
    is_detected = (probabilities >= now)[known]
    return {
        "n_clips": int(has_label.sum()),
        "detected": _n_reaching(probabilities[known]),
        "right": _n_reaching(probabilities[known][has_label]),
        "now": {"detected": int(is_detected.sum()), "right": int(is_detected[has_label].sum())},
    }


def _n_reaching(probabilities: FloatArray) -> list[int]:
    """How many probabilities are at or above each threshold."""
    below = np.searchsorted(np.sort(probabilities), THRESHOLDS, side="left")
    return [len(probabilities) - n for n in below.tolist()]


def write_with_thresholds(limits: AnswerLimits, question: Question) -> dict[str, Any]:
    """Write the model with other thresholds into a new folder."""
    from spectag.evaluation.recalibration import calibrate

    query = question.query
    assert isinstance(query, VersionQuery)
    calibrate(limits.model, thresholds=query.thresholds, output=query.output, log=no_log)
    return {}
