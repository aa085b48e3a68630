"""The table of labels: every score of every label, to be sorted and filtered."""

import math
from collections.abc import Sequence
from html import escape

from spectag.evaluation.results import Estimate, ModelEvaluation
from spectag.reporting.evaluation_report.formatting import interval, lead, percent, score, swatch

_COLUMNS = {
    "lwlrap": "lwlrap",
    "average_precision": "AP",
    "roc_auc": "ROC-AUC",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
}
_EXPLAINED = (
    "AP is average precision, the area under the label's precision-recall curve. F1, precision and recall are of the "
    "label given at its threshold. A dash stands where a score is not defined, as of a label that no clip has."
)


def label_section(model: ModelEvaluation, colored: Sequence[str], confidence: float | None) -> str:
    """The table as HTML, like any other where scripts do not run; without a confidence there are no intervals."""
    intervals = "" if confidence is None else f" The small numbers are {percent(confidence)} intervals."
    columns = {metric: name for metric, name in _COLUMNS.items() if metric in model.per_label}
    most = max(1, int(model.n_clips_per_label.max(initial=0)))
    rows = "".join(_row(model, label, list(columns), most, colored) for label in range(len(model.labels)))
    heads = ["Label", "Clips", *columns.values(), "Threshold"]
    head = "".join(f'<th scope="col"{"" if place else " class=first"}>{name}</th>' for place, name in enumerate(heads))
    return (
        lead(_EXPLAINED + intervals)
        + '<div class="controls needs-script" hidden><label>Find <input type="search" id="label-filter" '
        'placeholder="label" autocomplete="off"></label><label><input type="checkbox" id="label-with-clips"> '
        'only labels with clips</label><output id="label-count" for="label-filter label-with-clips"></output></div>'
        '<div class="scrolls" tabindex="0" role="region" aria-label="Scores of each label">'
        f'<table class="labels sortable" id="label-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(model: ModelEvaluation, label: int, metrics: list[str], most: int, colored: Sequence[str]) -> str:
    name = model.labels.names[label]
    n_clips = int(model.n_clips_per_label[label])
    cells = "".join(_cell(model.per_label[metric][label]) for metric in metrics)
    shown = f'<a href="#curves">{escape(name)}</a>' if n_clips else escape(name)
    key = f' data-label="{label}"' if n_clips else ""
    return (
        f'<tr{key} data-clips="{n_clips}"><th scope="row">{swatch(name, colored)}{shown}</th>'
        f'<td data-value="{n_clips}" style="--share:{n_clips / most:.3f}" class="bar">{n_clips:,}</td>{cells}'
        f'<td data-value="{model.thresholds[label]:.6g}">{model.thresholds[label]:.2f}</td></tr>'
    )


def _cell(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return f"<td>{score(estimate.value)}</td>"
    between = interval(estimate, 2)
    small = f" <small>{between}</small>" if between else ""
    return (
        f'<td data-value="{estimate.value:.6g}" style="--share:{min(max(estimate.value, 0), 1):.3f}" class="bar">'
        f"{score(estimate.value)}{small}</td>"
    )
