"""The tables of an evaluation: columns that become CSV files and DataFrames."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import Comparison, ModelEvaluation, Slice
from spectag.models.out_of_fold import label_columns
from spectag.scoring.bootstrap import Estimate
from spectag.system.output import unicode_text

Table = dict[str, Any]
"""Lists or arrays of equal length, by the name of the column. Numbers that are not defined are NaN."""


def score_columns(models: Sequence[ModelEvaluation]) -> Table:
    """A row for each score of each model, and for its calibration error."""
    rows = [
        (model.name, metric, estimate.value, estimate.low, estimate.high)
        for model in models
        for metric, estimate in (*model.overall.items(), ("calibration_error", _calibration_error(model)))
    ]
    return _as_columns(("model", "metric", "value", "low", "high"), rows)


def per_label_columns(model: ModelEvaluation) -> Table:
    """A row for each label: its clips, its scores with intervals, its threshold and its calibration error."""
    names = ("label", "n_clips", *_estimate_names(model.per_label), "threshold", "ece")
    rows = []
    for index, (label, n_clips) in enumerate(zip(model.labels.names, model.n_clips_per_label, strict=True)):
        estimates = [label_estimates[index] for label_estimates in model.per_label.values()]
        last = float(model.thresholds[index]), float(model.calibration.ece_per_label[index])
        rows.append((label, int(n_clips), *_numbers(estimates), *last))
    return _as_columns(names, rows)


def slice_columns(slices: Sequence[Slice], model: ModelEvaluation) -> Table:
    """A row for each slice: its clips, and its scores with intervals."""
    metrics = slices[0].overall if slices else model.overall
    names = ("slice", "value", "n_clips", *_estimate_names(metrics))
    return _as_columns(
        names, [(part.by, part.value, part.n_clips, *_numbers(part.overall.values())) for part in slices]
    )


def comparison_columns(comparisons: Sequence[Comparison]) -> Table:
    """A row for each score of each comparison of two models."""
    names = ("first", "other", "n_clips", "n_labels", "metric", "score_first", "score_other")
    rows = [
        (
            *(comparison.first, comparison.other, comparison.n_clips, len(comparison.labels)),
            *(metric, result.first, result.other),
            *(*_numbers([result.difference]), result.p_value),
        )
        for comparison in comparisons
        for metric, result in comparison.differences.items()
    ]
    return _as_columns((*names, *_estimate_names(["difference"]), "p_value"), rows)


def prediction_columns(predictions: Predictions) -> Table:
    """A row for each clip: its name, times, fold, labels and length, and the probability of each label."""
    clips = predictions.clips
    return {
        "fname": [unicode_text(clip.fname) for clip in clips],
        "start": [clip.start_seconds for clip in clips],
        "end": [clip.end_seconds for clip in clips],
        "fold": [clip.fold for clip in clips],
        "origin": list(predictions.origins),
        "labels": [list(clip.labels) for clip in clips],
        "unknown_labels": [list(clip.unknown) for clip in clips],
        "duration": predictions.durations,
        **dict(zip(label_columns(predictions.labels), np.ascontiguousarray(predictions.probabilities.T), strict=True)),
    }


def _calibration_error(model: ModelEvaluation) -> Estimate:
    return Estimate(model.calibration.reliability_after.error, float("nan"), float("nan"))


def _as_columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def _estimate_names(metrics: Iterable[str]) -> list[str]:
    return [column for metric in metrics for column in (metric, f"{metric}_low", f"{metric}_high")]


def _numbers(estimates: Iterable[Estimate]) -> list[float]:
    return [value for estimate in estimates for value in (estimate.value, estimate.low, estimate.high)]
