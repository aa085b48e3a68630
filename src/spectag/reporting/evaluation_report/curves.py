"""Precision-recall curves: of each label, of their mean, thinned for drawing, and as SVG paths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import BoolArray, FloatArray
from spectag.evaluation.results import ModelEvaluation
from spectag.reporting.scales import Scale

_MAX_STEPS = 100  # of a drawn curve
_N_WORST, _N_BEST = 8, 4  # labels with a small figure of their own


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """Precision over recall in steps: `precision[k]` from recall `recall[k]` to `recall[k + 1]`."""

    recall: FloatArray  # (n_steps + 1,), from 0 to 1
    precision: FloatArray  # (n_steps,)

    @property
    def area(self) -> float:
        """The average precision."""
        return float(np.diff(self.recall) @ self.precision)

    def resampled(self, n_steps: int = _MAX_STEPS) -> "PrecisionRecallCurve":
        """The curve in steps of equal width, each the mean over that width: the area does not change."""
        edges = np.linspace(0, 1, n_steps + 1)
        areas = np.concatenate([[0.0], np.cumsum(np.diff(self.recall) * self.precision)])
        return PrecisionRecallCurve(edges, np.diff(np.interp(edges, self.recall, areas)) * n_steps)

    def thinned(self) -> "PrecisionRecallCurve":
        """The curve in at most 100 steps, with the same area."""
        return self if len(self.precision) <= _MAX_STEPS else self.resampled()

    def svg_path(self, recall_scale: Scale, precision_scale: Scale) -> str:
        """The curve as the data of an SVG path."""
        return "".join(self._svg_commands(recall_scale, precision_scale))

    def _svg_commands(self, recall_scale: Scale, precision_scale: Scale) -> Iterator[str]:
        yield f"M{recall_scale.start:g} {precision_scale(self.precision[0]):.4g}"
        previous = None
        for right, precision in zip(self.recall[1:], self.precision, strict=True):
            y = f"{precision_scale(precision):.4g}"
            yield f"H{recall_scale(right):.4g}" if y == previous else f"V{y}H{recall_scale(right):.4g}"
            previous = y


@dataclass(frozen=True, eq=False)
class LabelCurve:
    """The curve of a label."""

    label: int
    name: str
    average_precision: float
    curve: PrecisionRecallCurve  # thinned
    at_threshold: tuple[float, float] | None
    """Recall and precision at the label's threshold; None if one of them is not defined."""


@dataclass(frozen=True, eq=False)
class CurveFigures:
    """What the section draws."""

    labels: list[LabelCurve]
    """Labels of at least one clip, the lowest average precision first."""
    mean: PrecisionRecallCurve
    n_left_out: int
    """Labels without a clip, which have no curve."""
    worst: Sequence[LabelCurve]
    best: Sequence[LabelCurve]


def precision_recall(truth: BoolArray, scores: FloatArray) -> PrecisionRecallCurve:
    """The curve of a label, with a step for each clip that has the label. Its area is the average precision.

    Parameters
    ----------
    truth, scores : bool and float arrays of shape (n_clips,)
        At least one clip has the label. Ties take the worst rank, as in `metrics.average_precision`.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    last_of_ties = np.searchsorted(-ranked, -ranked[truth[order]], side="right") - 1
    precision = hits[last_of_ties] / (last_of_ties + 1)
    return PrecisionRecallCurve(np.arange(len(precision) + 1) / len(precision), precision)


def mean_curve(curves: Sequence[PrecisionRecallCurve]) -> PrecisionRecallCurve:
    """The mean of several curves; its area is the mean of their areas."""
    resampled = [curve.resampled() for curve in curves]
    return PrecisionRecallCurve(resampled[0].recall, np.mean([curve.precision for curve in resampled], axis=0))


def curve_figures(model: ModelEvaluation) -> CurveFigures | None:
    """The curves of all labels that a clip has; None if there is no such label."""
    predictions, names, known = model.predictions, model.labels.names, ~model.predictions.unknown
    curves = {
        label: precision_recall(
            predictions.y_true[known[:, label], label],
            predictions.probabilities[known[:, label], label].astype(np.float64),
        )
        for label in np.flatnonzero(predictions.y_true.any(axis=0)).tolist()
    }
    if not curves:
        return None
    labels = [
        LabelCurve(label, names[label], curve.area, curve.thinned(), _at_threshold(model, label))
        for label, curve in curves.items()
    ]
    labels.sort(key=lambda label: (label.average_precision, label.name))
    return CurveFigures(
        labels,
        mean_curve(list(curves.values())),
        len(names) - len(curves),
        worst=labels[:_N_WORST],
        best=labels[_N_WORST:][-_N_BEST:],
    )


def _at_threshold(model: ModelEvaluation, label: int) -> tuple[float, float] | None:
    recall, precision = (model.per_label[metric][label].value for metric in ("recall", "precision"))
    return None if np.isnan(recall) or np.isnan(precision) else (recall, precision)
