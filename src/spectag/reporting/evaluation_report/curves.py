"""Precision over recall: the curve of each label, their mean, and how they are drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from spectag.array_types import BoolArray, FloatArray
from spectag.evaluation.results import ModelEvaluation
from spectag.reporting.evaluation_report.formatting import count, lead, score, swatch
from spectag.reporting.evaluation_report.svg import DASH_ARRAYS, Scale, figure, x_axis, y_axis
from spectag.reporting.label_colors import color_of, dash_of

N_STEPS = 100  # of a curve at most
FEW_LABELS = 10  # all drawn in their colours
_N_WORST, _N_BEST = 8, 4  # drawn each by itself, where there are more labels


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision over recall as steps: `precision[k]` from recall `recall[k]` to `recall[k + 1]`."""

    recall: FloatArray  # (n_steps + 1,), from 0 to 1
    precision: FloatArray  # (n_steps,)

    @property
    def area(self) -> float:
        """The average precision."""
        return float(np.diff(self.recall) @ self.precision)


def precision_recall(truth: BoolArray, scores: FloatArray) -> Curve:
    """The curve of a label, whose area is the label's average precision.

    Parameters
    ----------
    truth, scores : bool and float arrays of shape (n_clips,)
        At least one clip has the label. Ties take the worst rank, as in `metrics.average_precision`.

    Returns
    -------
    Curve
        With a step for each clip that has the label.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    last_of_ties = np.searchsorted(-ranked, -ranked[truth[order]], side="right") - 1
    precision = hits[last_of_ties] / (last_of_ties + 1)
    return Curve(np.arange(len(precision) + 1) / len(precision), precision)


def thinned(curve: Curve, n_steps: int = N_STEPS) -> Curve:
    """The curve in at most so many steps of equal width, each the mean over its stretch: the area stays as it is."""
    return curve if len(curve.precision) <= n_steps else _resampled(curve, n_steps)


def mean_curve(curves: Sequence[Curve], n_steps: int = N_STEPS) -> Curve:
    """The mean of several curves; its area is the mean of theirs."""
    resampled = [_resampled(curve, n_steps) for curve in curves]
    return Curve(resampled[0].recall, np.mean([curve.precision for curve in resampled], axis=0))


def _resampled(curve: Curve, n_steps: int) -> Curve:
    edges = np.linspace(0, 1, n_steps + 1)
    areas = np.concatenate([[0.0], np.cumsum(np.diff(curve.recall) * curve.precision)])
    return Curve(edges, np.diff(np.interp(edges, curve.recall, areas)) * n_steps)


def curves_section(model: ModelEvaluation, colored: Sequence[str]) -> str:
    """The curves of all labels that a clip has, as HTML; `colored` are the labels that give the colours."""
    predictions = model.predictions
    curves = {
        label: precision_recall(predictions.y_true[:, label], predictions.probabilities[:, label].astype(np.float64))
        for label in np.flatnonzero(predictions.y_true.any(axis=0)).tolist()
    }
    if not curves:
        return "<p>No clip has a label, so there are no curves.</p>"
    names = predictions.labels.names
    average = {label: curve.area for label, curve in curves.items()}
    worst_first = sorted(curves, key=lambda label: (average[label], names[label]))
    mean = mean_curve(list(curves.values()))
    chart = _chart(model, {label: thinned(curve) for label, curve in curves.items()}, mean, colored)
    legend = "".join(
        f'<li><button type="button" class="key" data-label="{label}">{swatch(names[label], colored)}'
        f'<span class="text">{escape(names[label])}</span><b>{score(average[label])}</b></button></li>'
        for label in worst_first
    )
    n_left_out = len(names) - len(curves)
    left_out = f" {count(n_left_out, 'label')} that no clip has {'is' if n_left_out == 1 else 'are'} not drawn."
    parts = [
        lead(
            "Of the clips that score highest for a label, the share that have it (precision), over the share of the "
            "label's clips that are among them (recall). The area under a curve is its average precision, told in the "
            "list, the least first; a dot is what the label's threshold gives. The thick line is the mean over labels."
            f"{left_out if n_left_out else ''}"
        ),
        f'<div class="side-by-side {"few" if len(curves) <= FEW_LABELS else "many"}"><figure>{chart}</figure>',
        '<div><p class="hint needs-script" hidden>Point at a label to see its curve; press it to keep it.</p>'
        f'<ol class="legend">{legend}</ol></div></div>',
    ]
    if len(curves) > FEW_LABELS:
        parts.append(_small_multiples(model, curves, worst_first, mean, colored))
    return "\n".join(parts)


def _chart(model: ModelEvaluation, curves: dict[int, Curve], mean: Curve, colored: Sequence[str]) -> str:
    across, up = Scale(0, 1, 44, 404), Scale(0, 1, 324, 12)
    names = model.labels.names
    parts = [*y_axis(up, 44, "Precision", far=404), *x_axis(across, 324, "Recall")]
    parts += [_path(curve, across, up, names[label], colored, label) for label, curve in curves.items()]
    parts.append(f'<path class="mean" d="{_steps(mean, across, up)}"/>')
    parts += [_dot(model, label, across, up, colored) for label in curves]
    alt = f"Precision-recall curves of {count(len(curves), 'label')} and their mean"
    return figure(416, 362, alt, parts)


def _small_multiples(
    model: ModelEvaluation, curves: dict[int, Curve], worst_first: list[int], mean: Curve, colored: Sequence[str]
) -> str:
    shown = [*worst_first[:_N_WORST], *worst_first[_N_WORST:][-_N_BEST:]]
    names = model.labels.names
    across, up = Scale(0, 1, 30, 172), Scale(0, 1, 112, 8)
    parts = []
    for label in shown:
        drawn = [
            *y_axis(up, 30, "", ticks=[0, 0.5, 1], far=172),
            *x_axis(across, 112, "", ticks=[0, 0.5, 1]),
            f'<path class="mean" d="{_steps(mean, across, up)}"/>',
            _path(thinned(curves[label]), across, up, names[label], colored, None),
            _dot(model, label, across, up, colored),
        ]
        title = f"{swatch(names[label], colored)}{escape(names[label])} <b>{score(curves[label].area)}</b>"
        alt = f"Precision-recall curve of {names[label]}"
        parts.append(f"<figure><figcaption>{title}</figcaption>{figure(180, 134, alt, drawn)}</figure>")
    n_best = len(shown) - min(_N_WORST, len(shown))
    heading = (
        f"<h3>The {min(_N_WORST, len(shown))} labels with the lowest average precision, and the {n_best} best</h3>"
    )
    return f'{heading}<div class="multiples lit">{"".join(parts)}</div>'


def _path(curve: Curve, across: Scale, up: Scale, name: str, colored: Sequence[str], label: int | None) -> str:
    key = "" if label is None else f' data-label="{label}"'
    dashes = DASH_ARRAYS[dash_of(name, colored)]
    return (
        f'<path class="curve"{key} style="--label:{color_of(name, colored)};--dashes:{dashes}" '
        f'd="{_steps(curve, across, up)}"><title>{escape(name)}</title></path>'
    )


def _steps(curve: Curve, across: Scale, up: Scale) -> str:
    return "".join(_step_commands(curve, across, up))


def _step_commands(curve: Curve, across: Scale, up: Scale) -> Iterator[str]:
    yield f"M{across.start:g} {up(curve.precision[0]):.4g}"
    height = None
    for right, precision in zip(curve.recall[1:], curve.precision, strict=True):
        y = f"{up(precision):.4g}"
        yield f"H{across(right):.4g}" if y == height else f"V{y}H{across(right):.4g}"
        height = y


def _dot(model: ModelEvaluation, label: int, across: Scale, up: Scale, colored: Sequence[str]) -> str:
    """Precision and recall as the thresholds give them; nothing where one is not defined."""
    precision, recall = (model.per_label[metric][label].value for metric in ("precision", "recall"))
    if np.isnan(precision) or np.isnan(recall):
        return ""
    color = color_of(model.labels.names[label], colored)
    return (
        f'<circle class="dot" data-label="{label}" style="--label:{color}" cx="{across(recall):.1f}" '
        f'cy="{up(precision):.1f}" r="4"/>'
    )
