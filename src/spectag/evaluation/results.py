"""What an evaluation finds."""

import hashlib
import math
import platform
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from spectag.array_types import FloatArray, IntArray
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.evaluation.predictions import Origin, Predictions
from spectag.models.tagger import Tagger
from spectag.scoring.reliability_diagram import Reliability

METRIC_WORDS = {
    "lwlrap": "lwlrap",
    "mean_average_precision": "mAP",
    "average_precision": "average precision",
    "roc_auc": "ROC-AUC",
    "d_prime": "d′",
    "f1": "F1",
    "f1_micro": "F1, micro",
    "f1_macro": "F1, macro",
    "precision": "precision",
    "precision_micro": "precision, micro",
    "precision_macro": "precision, macro",
    "recall": "recall",
    "recall_micro": "recall, micro",
    "recall_macro": "recall, macro",
    "top1_accuracy": "top-1 accuracy",
}
"""What a person reads for the name of a score."""


@dataclass(frozen=True)
class Estimate:
    """A score, and the interval in which it lies."""

    value: float
    """NaN where it is not defined; infinite where d′ belongs to a ROC-AUC of 1."""
    low: float = math.nan
    """NaN, as is `high`, where there is no interval: all clips are of one recording."""
    high: float = math.nan

    def to_dict(self) -> dict[str, float | None]:
        """For JSON: None for what is NaN or infinite."""
        return {"value": _finite(self.value), "low": _finite(self.low), "high": _finite(self.high)}


@dataclass(frozen=True, eq=False)
class CalibrationCheck:
    """How far probabilities can be taken at their word: by the plain sigmoid, and as the tagger calibrates them.

    Both are the same where the tagger has no calibration, and of a table.
    """

    is_calibrated: bool
    reliability_before: Reliability
    reliability_after: Reliability
    ece_before: float
    ece_after: float
    ece_per_label: FloatArray
    """After, (n_labels,)."""

    def to_dict(self) -> dict[str, Any]:
        """The errors and the bins, for JSON."""
        return {
            "is_calibrated": self.is_calibrated,
            "expected_calibration_error_before": _finite(self.ece_before),
            "expected_calibration_error_after": _finite(self.ece_after),
            "reliability_before": _bins(self.reliability_before),
            "reliability_after": _bins(self.reliability_after),
        }


@dataclass(frozen=True, eq=False)
class ModelEvaluation:
    """What a tagger, or a table of predictions, is worth on the clips that judge it."""

    name: str
    """Of its folder or file; in one evaluation each has a name of its own."""
    source: Path
    tagger: Tagger | None
    """None: a table."""
    predictions: Predictions
    """Of the clips and labels that judge it, and of no others."""
    overall: dict[str, Estimate]
    """By `spectag.scoring.bootstrap.OVERALL`."""
    per_label: dict[str, tuple[Estimate, ...]]
    """By `spectag.scoring.bootstrap.PER_LABEL`, one estimate for each label."""
    calibration: CalibrationCheck
    n_by_origin: dict[Origin, int]
    """How many clips have predictions, by where these come from; also of those that do not judge."""
    n_left_out: int
    """Clips that the tagger learnt from, which do not judge it since there are others."""
    notes: tuple[str, ...]
    """What the scores stand on, in lines for a person."""

    @property
    def labels(self) -> LabelSet:
        """The labels that are judged."""
        return self.predictions.labels

    @cached_property
    def n_clips_per_label(self) -> IntArray:
        """How many clips have each label, (n_labels,)."""
        n_clips: IntArray = self.predictions.y_true.sum(axis=0)
        return n_clips

    @property
    def skipped(self) -> tuple[tuple[Clip, str], ...]:
        """Clips without predictions, each with the reason."""
        return self.predictions.skipped

    @cached_property
    def thresholds(self) -> FloatArray:
        """The thresholds that the labels were judged by, (n_labels,): the median where clips have their own."""
        thresholds: FloatArray = np.median(self.predictions.thresholds.astype(np.float64), axis=0)
        return thresholds

    @property
    def worst_labels(self) -> list[str]:
        """The labels that clips have, by average precision, the worst first."""
        precision = np.array([estimate.value for estimate in self.per_label["average_precision"]])
        order = np.argsort(precision, kind="stable")
        return [self.labels.names[label] for label in order if not math.isnan(precision[label])]

    def to_dict(self) -> dict[str, Any]:
        """All but the predictions, for JSON."""
        return {
            "name": self.name,
            "source": str(self.source),
            "n_clips": len(self.predictions.clips),
            "n_clips_by_origin": self.n_by_origin,
            "n_clips_left_out": self.n_left_out,
            "notes": list(self.notes),
            "skipped": [{"fname": clip.name, "reason": reason} for clip, reason in self.skipped],
            "overall": _estimates(self.overall),
            "per_label": {label: self._of_label(number) for number, label in enumerate(self.labels.names)},
            "calibration": self.calibration.to_dict(),
        }

    def _of_label(self, number: int) -> dict[str, Any]:
        return {
            "n_clips": int(self.n_clips_per_label[number]),
            **{metric: estimates[number].to_dict() for metric, estimates in self.per_label.items()},
            "threshold": float(self.thresholds[number]),
            "expected_calibration_error": _finite(float(self.calibration.ece_per_label[number])),
        }


@dataclass(frozen=True, eq=False)
class Slice:
    """The scores of some of the clips."""

    by: str
    value: str
    n_clips: int
    overall: dict[str, Estimate]
    """Those of SLICE_METRICS."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"by": self.by, "value": self.value, "n_clips": self.n_clips, "overall": _estimates(self.overall)}


@dataclass(frozen=True)
class Difference:
    """A score of two on the same clips and labels, and how much greater that of the first is."""

    first: float
    other: float
    difference: Estimate
    p_value: float
    """Two-sided: how probable so great a difference is where there is none in truth. NaN where it is not defined."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "first": _finite(self.first),
            "other": _finite(self.other),
            "difference": self.difference.to_dict(),
            "p_value": _finite(self.p_value),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two taggers, or tables, on the clips and labels that both are judged by."""

    first: str
    other: str
    n_clips: int
    labels: tuple[str, ...]
    n_labels_left_out: int
    """Labels that only one of them is judged by."""
    differences: dict[str, Difference]
    """By `spectag.scoring.bootstrap.OVERALL`."""
    sentence: str
    """Whether the gain is real."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "first": self.first,
            "other": self.other,
            "n_clips": self.n_clips,
            "n_labels": len(self.labels),
            "n_labels_left_out": self.n_labels_left_out,
            "sentence": self.sentence,
            "differences": {metric: difference.to_dict() for metric, difference in self.differences.items()},
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a tagger is on a manifest's clips."""

    manifest: Manifest
    models: tuple[ModelEvaluation, ...]
    """The one that is evaluated, and those that it is compared with."""
    slices: tuple[Slice, ...]
    comparisons: tuple[Comparison, ...]
    confidence: float
    n_resamples: int
    seed: int
    n_groups: int
    """Recordings among the clips that judge the first: what the resamples draw."""

    def to_dict(self) -> dict[str, Any]:
        """All but the predictions, for JSON: what metrics.json holds."""
        first, *others = self.models
        return {
            **first.to_dict(),
            "manifest": {
                "name": self.manifest.source.name,
                "n_clips": len(self.manifest.clips),
                "labels": list(self.manifest.labels.names),
                "fingerprint": fingerprint(self.manifest),
            },
            "confidence": self.confidence,
            "n_resamples": self.n_resamples,
            "seed": self.seed,
            "n_recordings": self.n_groups,
            "slices": [one.to_dict() for one in self.slices],
            "compared_with": [other.to_dict() for other in others],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("spectag", "numpy", "onnxruntime")},
            },
        }


def fingerprint(manifest: Manifest) -> str:
    """32 hexadecimal digits of the clips' names, times and labels, in any order."""
    told = sorted(
        "\t".join([clip.fname, f"{clip.start_seconds:g}", f"{clip.end_seconds}", *sorted(clip.labels)])
        for clip in manifest.clips
    )
    return hashlib.sha256("\n".join(told).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _estimates(by_metric: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {metric: estimate.to_dict() for metric, estimate in by_metric.items()}


def _bins(reliability: Reliability) -> list[dict[str, Any]]:
    """The bins that hold decisions."""
    edges = reliability.edges.tolist()
    columns = zip(
        edges,
        edges[1:],
        reliability.n.tolist(),
        reliability.mean_probability.tolist(),
        reliability.share_true.tolist(),
        strict=False,
    )
    names = ("from", "to", "n", "mean_probability", "share_true")
    return [dict(zip(names, column, strict=True)) for column in columns if column[2]]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
