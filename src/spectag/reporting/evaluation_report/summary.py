"""What was evaluated on what, how good it is, how it compares, and on which clips it is better or worse."""

import math
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from itertools import groupby

import numpy as np

from spectag.evaluation.results import Comparison, Evaluation, ModelEvaluation, Slice
from spectag.reporting.evaluation_report.dot_plots import Row, difference_scale, dot_table, score_scale
from spectag.reporting.evaluation_report.formatting import (
    NOTHING,
    count,
    interval,
    lead,
    metric_name,
    percent,
    score,
    without_folders,
)

_HEADLINES = "lwlrap", "mean_average_precision", "roc_auc", "f1_micro", "top1_accuracy"
_MEANINGS = {
    "lwlrap": "how high true labels are ranked within a clip",
    "mean_average_precision": "how high the clips that have a label are ranked, mean over labels",
    "roc_auc": "how often a clip with a label scores above one without, mean over labels",
    "d_prime": "the same as a distance in standard deviations",
    "f1_micro": "labels given at their thresholds: all decisions together",
    "f1_macro": "mean over labels",
    "top1_accuracy": "clips whose most probable label is the true one",
}
_PACKAGES = "numpy", "onnxruntime"
_MOST_SKIPPED = 20  # named
BY_DURATION = "duration"


def headlines(model: ModelEvaluation) -> str:
    """The scores that are looked at first, as HTML."""
    tiles = [
        f'<div class="tile"><dt>{escape(metric_name(metric))}</dt><dd><b>{score(model.overall[metric].value)}</b>'
        f"<small>{interval(model.overall[metric])}</small></dd></div>"
        for metric in _HEADLINES
        if metric in model.overall
    ]
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def facts(evaluation: Evaluation, command: str | None) -> str:
    """What was evaluated, on what and how, a line each, as HTML."""
    lines = "".join(f"<dt>{name}</dt><dd>{words}</dd>" for name, words in _facts(evaluation, command))
    return f'<dl class="facts">{lines}</dl>'


def _facts(evaluation: Evaluation, command: str | None) -> Iterator[tuple[str, str]]:
    model = evaluation.models[0]
    predictions = model.predictions
    yield "Evaluated", _what(model)
    yield "On", f"{count(len(predictions.clips), 'clip')} of {escape(evaluation.manifest.source.name)}{_seconds(model)}"
    n_without = int((model.n_clips_per_label == 0).sum())
    yield "Labels", f"{len(model.labels):,}" + (f", {n_without:,} of which no clip has" if n_without else "")
    yield "Predictions", "<br>".join(_note(note) for one in evaluation.models for note in one.notes)
    if model.skipped:
        yield "Skipped", _skipped(model)
    yield "Intervals", _intervals(evaluation)
    if command is not None:
        yield "Command", f"<code>{escape(command)}</code>"
    versions = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    yield "Versions", f"spectag {version('spectag')}, Python {platform.python_version()}, {versions}"
    yield "Date", _today()


def _intervals(evaluation: Evaluation) -> str:
    if not evaluation.n_resamples:
        return "none"
    return (
        f"{percent(evaluation.confidence)}: percentile bootstrap over {count(evaluation.n_groups, 'recording')}, "
        f"{evaluation.n_resamples:,} resamples, seed {evaluation.seed}"
    )


def _note(note: str) -> str:
    return f"<strong>{escape(note)}</strong>" if note.startswith("WARNING") else escape(note)


def _what(model: ModelEvaluation) -> str:
    name = f"<b>{escape(model.name)}</b>"
    if model.tagger is None:
        return f"{name}, a table of predictions"
    info = model.tagger.info
    networks = f"{len(info.members)} networks that answer as one, first " if info.members else ""
    trained = f", trained on {escape(info.data.name)}" if info.data.name else ""
    return f"{name}, a tagger ({networks}{escape(info.backbone.name)}{trained})"


def _seconds(model: ModelEvaluation) -> str:
    seconds = float(np.nansum(model.predictions.durations))
    if not seconds:
        return ""
    for unit, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f", {seconds / unit:.1f} {name} of sound"
    return f", {seconds:.1f} seconds of sound"


def _skipped(model: ModelEvaluation) -> str:
    named = "".join(
        f"<li><code>{escape(clip.name)}</code>: {escape(without_folders(reason, clip))}</li>"
        for clip, reason in model.skipped[:_MOST_SKIPPED]
    )
    n_more = len(model.skipped) - _MOST_SKIPPED
    more = f"<li>and {n_more:,} more</li>" if n_more > 0 else ""
    summary = f"{count(len(model.skipped), 'clip')} that can't be read"
    return f"<details><summary>{summary}</summary><ul>{named}{more}</ul></details>"


def _today() -> str:
    """The date, or the one that makes builds repeatable, as https://reproducible-builds.org has it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    return now.date().isoformat()


def overall_table(evaluation: Evaluation) -> str:
    """Every overall score of every model, as HTML."""
    models = evaluation.models
    by_metric = {metric: [one for one in models if metric in one.overall] for metric in models[0].overall}
    on_axis = by_metric.keys() - {"d_prime"}
    scale = score_scale(one.overall[metric] for metric in on_axis for one in by_metric[metric])
    rows = [
        Row(
            (_metric_words(metric), *([escape(model.name)] if len(models) > 1 else [])),
            model.overall[metric],
            has_dot=metric in on_axis,
            n_rows=0 if place else len(judged),
            is_other=model is not models[0],
        )
        for metric, judged in by_metric.items()
        for place, model in enumerate(judged)
    ]
    heads = ["Score", *(["Of"] if len(models) > 1 else [])]
    name = f"Value, {percent(evaluation.confidence)} interval" if evaluation.n_resamples else "Value"
    return dot_table(heads, rows, scale, name=name)


def _metric_words(metric: str) -> str:
    meaning = _MEANINGS.get(metric)
    return escape(metric_name(metric)) + (f'<small class="about">{meaning}</small>' if meaning else "")


def comparison_section(comparison: Comparison) -> str:
    """The difference of two models in each score, and whether it is real, as HTML."""
    differences = comparison.differences
    on_axis = [metric for metric in differences if metric != "d_prime"]
    scale = difference_scale(differences[metric].difference for metric in on_axis)
    rows = [
        Row(
            (
                escape(metric_name(metric)),
                score(one.first),
                score(one.other),
                _p_value(one.p_value),
            ),
            one.difference,
            has_dot=metric in on_axis,
        )
        for metric, one in differences.items()
    ]
    left_out = comparison.n_labels_left_out
    labels = f"{count(len(comparison.labels), 'label')}" + (f" ({left_out} left out)" if left_out else "")
    heads = ["Score", comparison.first, comparison.other, "p"]
    return (
        f"<h3>{escape(comparison.first)} against {escape(comparison.other)}</h3>"
        f'<p class="sentence">{escape(comparison.sentence)}</p>'
        + lead(
            f"On the {count(comparison.n_clips, 'clip')} and {labels} that both are judged by; a paired bootstrap, in "
            "which both see the same resamples. p is how probable so great a difference is where there is none."
        )
        + dot_table(heads, rows, scale, name="Difference", reference=0.0, are_differences=True)
    )


def _p_value(p: float) -> str:
    if math.isnan(p):
        return NOTHING
    return "&lt; 0.001" if p < 0.001 else f"{p:.3f}"


def slices_section(slices: tuple[Slice, ...], model: ModelEvaluation) -> str:
    """The scores of each slice, drawn against that of all clips, as HTML."""
    parts = []
    for by, group in groupby(slices, key=lambda one: one.by):
        together = list(group)
        parts.append(f"<h3>By {escape(by)}</h3>{slice_table(together, model, 'lwlrap')}")
    return "\n".join(parts)


def slice_table(slices: list[Slice], model: ModelEvaluation, metric: str) -> str:
    """The score of each slice as dots; the line is that of all clips."""
    whole = model.overall[metric]
    scale = score_scale([whole, *(one.overall[metric] for one in slices)])
    rows = [Row((escape(one.value), f"{one.n_clips:,}"), one.overall[metric]) for one in slices]
    return dot_table([slices[0].by.capitalize(), "Clips"], rows, scale, name=metric_name(metric), reference=whole.value)
