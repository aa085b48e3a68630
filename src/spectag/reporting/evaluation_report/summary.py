"""The report's tables of overall scores, comparisons and slices, and the facts about the evaluation."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from spectag.evaluation.results import Comparison, Evaluation, ModelEvaluation, Slice
from spectag.reporting.evaluation_report.dot_tables import DotRow, DotTable, difference_scale, score_scale
from spectag.reporting.number_texts import metric_name, p_value_text, percent, score_text
from spectag.system.environment import library_version

_EXPLANATIONS = {
    "lwlrap": "how high the true labels of a clip are ranked",
    "mean_average_precision": "how high the clips of a label are ranked, mean over labels",
    "roc_auc": "chance that a clip with the label scores above one without it, mean over labels",
    "d_prime": "ROC-AUC as a distance in standard deviations",
    "f1_micro": "predictions at the thresholds, all decisions together",
    "f1_macro": "predictions at the thresholds, mean over labels",
    "top1_accuracy": "clips whose most probable label is true",
}
_UNBOUNDED = "d_prime"  # not drawn, because it is not between 0 and 1
_PACKAGES = "numpy", "onnxruntime"


def model_text(model: ModelEvaluation) -> str:
    """What kind of model it is: its backbone, or the size of the ensemble, and the training data."""
    if model.tagger is None:
        return "a table of predictions"
    info = model.tagger.info
    networks = f"ensemble of {len(info.members)} networks, the first with " if info.members else ""
    trained_on = f", trained on {info.data.name}" if info.data.name else ""
    return f"{networks}{info.backbone.name}{trained_on}"


def total_duration_text(model: ModelEvaluation) -> str:
    """The duration of all clips, such as "1.5 hours"; empty if it is not known."""
    seconds = float(np.nansum(model.predictions.durations))
    for unit, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} seconds" if seconds else ""


def versions_text() -> str:
    """Versions of spectag, Python and the packages that results depend on."""
    packages = ", ".join(f"{package} {library_version(package)}" for package in _PACKAGES)
    return f"spectag {library_version('spectag')}, Python {platform.python_version()}, {packages}"


def report_date() -> str:
    """Today, or the date of SOURCE_DATE_EPOCH (https://reproducible-builds.org)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    return now.date().isoformat()


def overall_table(evaluation: Evaluation) -> DotTable:
    """Every overall score of every model."""
    models = evaluation.models
    models_of = {metric: [model for model in models if metric in model.overall] for metric in models[0].overall}
    rows = [
        DotRow(
            (metric_name(metric), model.name) if len(models) > 1 else (metric_name(metric),),
            model.overall[metric],
            _EXPLANATIONS.get(metric, ""),
            is_drawn=metric != _UNBOUNDED,
            n_rows=0 if index else len(scored),
            is_secondary=model is not models[0],
        )
        for metric, scored in models_of.items()
        for index, model in enumerate(scored)
    ]
    scale = score_scale(row.estimate for row in rows if row.is_drawn)
    score_heading = f"Value, {percent(evaluation.confidence)} interval" if evaluation.n_resamples else "Value"
    return DotTable(["Score", "Model"] if len(models) > 1 else ["Score"], rows, score_heading, scale)


def comparison_table(comparison: Comparison) -> DotTable:
    """The difference of two models in each score."""
    rows = [
        DotRow(
            (metric_name(metric), score_text(result.first), score_text(result.other), p_value_text(result.p_value)),
            result.difference,
            is_drawn=metric != _UNBOUNDED,
        )
        for metric, result in comparison.differences.items()
    ]
    scale = difference_scale(row.estimate for row in rows if row.is_drawn)
    headings = ["Score", comparison.first, comparison.other, "p-value"]
    return DotTable(headings, rows, "Difference", scale, reference=0.0, are_differences=True)


def slice_table(heading: str, slices: Sequence[Slice], model: ModelEvaluation) -> DotTable:
    """The lwlrap of each slice; a line marks that of all clips."""
    overall = model.overall["lwlrap"]
    rows = [DotRow((part.value, f"{part.n_clips:,}"), part.overall["lwlrap"]) for part in slices]
    scale = score_scale([overall, *(row.estimate for row in rows)])
    return DotTable([heading.capitalize(), "Clips"], rows, metric_name("lwlrap"), scale, reference=overall.value)
