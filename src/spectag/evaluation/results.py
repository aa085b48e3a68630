"""The results of an evaluation: scores, calibration, slices and comparisons, and their JSON."""

import hashlib
import math
import platform
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from spectag.array_types import FloatArray, IntArray
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.errors import ConfigError, did_you_mean
from spectag.evaluation.evaluated_models import EvaluatedModel
from spectag.scoring.bootstrap import Estimate, as_json
from spectag.scoring.reliability_diagram import Reliability
from spectag.scoring.scores import score_summary
from spectag.system.dataframes import to_dataframe
from spectag.system.environment import library_version
from spectag.system.short_texts import short_repr

METRIC_NAMES = {
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
"""The names of the scores in tables and reports."""


@dataclass(frozen=True, eq=False)
class CalibrationCheck:
    """How well probabilities are calibrated: those of the plain sigmoid, and those after calibration.

    Both are the same for a table, and for a tagger without calibration.
    """

    is_calibrated: bool
    reliability_before: Reliability
    reliability_after: Reliability
    ece_per_label: FloatArray
    """After calibration, (n_labels,)."""

    def to_dict(self) -> dict[str, Any]:
        """The errors and the bins, for JSON."""
        return {
            "is_calibrated": self.is_calibrated,
            "expected_calibration_error_before": as_json(self.reliability_before.error),
            "expected_calibration_error_after": as_json(self.reliability_after.error),
            "reliability_before": _bins(self.reliability_before),
            "reliability_after": _bins(self.reliability_after),
        }


@short_repr
@dataclass(frozen=True, eq=False)
class ModelEvaluation(EvaluatedModel):
    """The scores of a tagger, or of a table of predictions."""

    overall: dict[str, Estimate]
    """An estimate for each of `spectag.scoring.scores.OVERALL_METRICS`."""
    per_label: dict[str, tuple[Estimate, ...]]
    """For each of `spectag.scoring.scores.PER_LABEL_METRICS`, one estimate per label."""
    calibration: CalibrationCheck

    @property
    def labels(self) -> LabelSet:
        """The labels that are scored."""
        return self.predictions.labels

    @cached_property
    def n_clips_per_label(self) -> IntArray:
        """How many clips have each label, (n_labels,)."""
        return np.asarray(self.predictions.y_true.sum(axis=0))

    @property
    def skipped(self) -> tuple[tuple[Clip, str], ...]:
        """Clips without predictions, each with the reason."""
        return self.predictions.skipped

    @cached_property
    def thresholds(self) -> FloatArray:
        """The model's own threshold of each label, (n_labels,); for a table, the median of those of the clips."""
        if self.tagger is None:
            return np.asarray(np.median(self.predictions.thresholds.astype(np.float64), axis=0))
        columns = [self.tagger.labels.index(label) for label in self.labels.names]
        return np.asarray(self.tagger.thresholds[columns], np.float64)

    @property
    def has_cross_fitted_thresholds(self) -> bool:
        """Whether clips are scored with thresholds that were fitted without them, and differ from `thresholds`."""
        return bool((self.predictions.thresholds != self.thresholds.astype(np.float32)).any())

    @property
    def worst_labels(self) -> list[str]:
        """The labels with an average precision, the worst first."""
        precision = np.array([estimate.value for estimate in self.per_label["average_precision"]])
        order = np.argsort(precision, kind="stable")
        return [self.labels.names[label] for label in order if not math.isnan(precision[label])]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, for JSON."""
        return {
            "name": self.name,
            "source": str(self.source),
            "n_clips": len(self.predictions.clips),
            "n_clips_by_origin": self.n_by_origin,
            "n_clips_left_out": self.n_left_out,
            "notes": list(self.notes),
            "skipped": [{"fname": clip.name, "reason": reason} for clip, reason in self.skipped],
            "overall": as_json(self.overall),
            "per_label": {label: self._label_dict(index) for index, label in enumerate(self.labels.names)},
            "calibration": self.calibration.to_dict(),
        }

    def _label_dict(self, index: int) -> dict[str, Any]:
        return {
            "n_clips": int(self.n_clips_per_label[index]),
            **{metric: as_json(estimates[index]) for metric, estimates in self.per_label.items()},
            "threshold": float(self.thresholds[index]),
            "expected_calibration_error": as_json(float(self.calibration.ece_per_label[index])),
        }


@dataclass(frozen=True, eq=False)
class Slice:
    """The scores of the clips with one value of a property, such as all clips of a fold."""

    by: str
    """The property: "duration", "number of labels", "origin", or a column of the table."""
    value: str
    n_clips: int
    overall: dict[str, Estimate]
    """An estimate for each of SLICE_METRICS."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"slice": self.by, "value": self.value, "n_clips": self.n_clips, "overall": as_json(self.overall)}


@dataclass(frozen=True)
class Difference:
    """A score of two models on the same clips and labels, and the difference, first minus other."""

    first: float
    other: float
    difference: Estimate
    p_value: float
    """Two-sided, not corrected for multiple comparisons. NaN if the score is not defined."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models on the clips and labels for which both are scored."""

    first: str
    other: str
    n_clips: int
    labels: tuple[str, ...]
    n_labels_left_out: int
    """Labels for which only one of them is scored."""
    differences: dict[str, Difference]
    """A difference for each of `spectag.scoring.scores.OVERALL_METRICS`."""
    sentence: str
    """The result for a person: is the difference larger than chance explains?"""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields = {name: as_json(value) for name, value in vars(self).items() if name != "labels"}
        return fields | {"n_labels": len(self.labels)}


EvaluationTable = Literal["scores", "per_label", "slices", "comparisons", "predictions"]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The scores of a model on the clips of a manifest, and its comparison with others."""

    manifest: Manifest
    models: tuple[ModelEvaluation, ...]
    """The evaluated model, then those that it is compared with."""
    slices: tuple[Slice, ...]
    comparisons: tuple[Comparison, ...]
    confidence: float
    n_resamples: int
    seed: int
    n_groups: int
    """The number of recordings among the scored clips: the units of the bootstrap."""

    def __repr__(self) -> str:
        """The evaluated models and their main scores."""
        scores = ", ".join(f"{model.name} {score_summary(model.overall)}" for model in self.models)
        return f"Evaluation({scores}; {len(self.models[0].predictions.clips):,} clips of {self.manifest.source.name})"

    def to_dataframe(self, table: EvaluationTable = "scores") -> Any:
        """A table of the evaluation as a DataFrame of pandas, or of polars if only polars is installed.

        Parameters
        ----------
        table : str
            scores: a row for each score of each model. per_label: each label of the first model. slices: each slice of
            the clips. comparisons: each score of each comparison. predictions: the probabilities of each clip. The last
            four have the columns of the files that `spectag evaluate -o` writes.

        Raises
        ------
        ConfigError
            If there is no such table.
        MissingExtraError
            If neither pandas nor polars is installed.
        """
        from spectag.evaluation import tables

        makers = {
            "scores": lambda: tables.score_columns(self.models),
            "per_label": lambda: tables.per_label_columns(self.models[0]),
            "slices": lambda: tables.slice_columns(self.slices, self.models[0]),
            "comparisons": lambda: tables.comparison_columns(self.comparisons),
            "predictions": lambda: tables.prediction_columns(self.models[0].predictions),
        }
        if table not in makers:
            raise ConfigError(
                f"no table {table!r}{did_you_mean(table, makers) or '.'} Choose one of {', '.join(makers)}"
            )
        return to_dataframe(makers[table]())

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, for JSON: the content of metrics.json."""
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
            "slices": [slice_.to_dict() for slice_ in self.slices],
            "compared_with": [other.to_dict() for other in others],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "versions": {
                "python": platform.python_version(),
                **{name: library_version(name) for name in ("spectag", "numpy", "onnxruntime")},
            },
        }


def fingerprint(manifest: Manifest) -> str:
    """32 hexadecimal digits that depend on names, times and labels of the clips, but not on their order."""
    lines = sorted(
        "\t".join([clip.fname, f"{clip.start_seconds:g}", f"{clip.end_seconds}", *sorted(clip.labels), *unknown])
        for clip in manifest.clips
        for unknown in [[f"unknown {label}" for label in sorted(clip.unknown)]]
    )
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _bins(reliability: Reliability) -> list[dict[str, Any]]:
    """The bins with decisions."""
    columns = {
        "from": reliability.edges[:-1],
        "to": reliability.edges[1:],
        **{name: getattr(reliability, name) for name in ("n", "mean_probability", "fraction_true")},
    }
    rows = zip(*(column[reliability.n > 0].tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
