"""Synthetic evaluations: random predictions of chosen quality."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import (
    CalibrationCheck,
    Comparison,
    Difference,
    Evaluation,
    ModelEvaluation,
    Slice,
)
from spectag.models.tagger import Tagger
from spectag.scoring.bootstrap import Estimate, Resampling
from spectag.scoring.metrics import lwlrap
from spectag.scoring.reliability_diagram import calibration_errors, reliability
from spectag.scoring.scores import score_predictions

OVERALL = ("lwlrap", "mean_average_precision", "roc_auc", "d_prime", "f1_micro", "f1_macro")
PER_LABEL = ("lwlrap", "average_precision", "roc_auc", "f1", "precision", "recall")
LABELS = ("Bark", "Doorbell", "Meow", "Rain", "Sea waves")


def random_predictions(
    rng: np.random.Generator,
    *,
    n_clips: int = 60,
    labels: Sequence[str] = LABELS,
    folder: Path = Path("sounds"),
    durations: Sequence[float] | None = None,
) -> Predictions:
    """One to three labels per clip, and noisy predictions, which are worse for the last labels."""
    n_labels = len(labels)
    y_true = np.zeros((n_clips, n_labels), bool)
    weights = 1 / np.arange(1, n_labels + 1) ** 0.7
    for truth in y_true:
        n_true = min(int(rng.choice([1, 1, 1, 2, 3])), n_labels)
        truth[rng.choice(n_labels, n_true, replace=False, p=weights / weights.sum())] = True
    skill = np.linspace(6, 2.5, n_labels)
    logits = y_true * skill - 0.6 * skill - 0.5 + rng.normal(0, 1.4, y_true.shape)
    names = LabelSet(tuple(labels))
    clips = tuple(
        Clip(
            folder / f"clip {row}.wav",
            f"clip {row}.wav",
            tuple(names.names[label] for label in np.flatnonzero(truth)),
            fold=str(row % 5 + 1),
        )
        for row, truth in enumerate(y_true)
    )
    seconds = np.array(durations) if durations is not None else rng.lognormal(1.5, 0.7, n_clips)
    uncalibrated = (1 / (1 + np.exp(-1.8 * logits))).astype(np.float32)
    return Predictions(
        clips=clips,
        labels=names,
        y_true=y_true,
        probabilities=(1 / (1 + np.exp(-logits))).astype(np.float32),
        uncalibrated=uncalibrated,
        thresholds=np.tile(rng.uniform(0.3, 0.6, n_labels), (n_clips, 1)).astype(np.float32),
        origins=("out_of_fold",) * n_clips,
        durations=seconds,
        features=None,
        skipped=((Clip(folder / "gone.wav", "gone.wav", (labels[0],)), "the file is empty"),),
    )


def make_model_evaluation(
    predictions: Predictions, *, name: str = "my tagger", tagger: Tagger | None = None
) -> ModelEvaluation:
    """The scores of predictions, with synthetic intervals."""
    scores = score_predictions(
        predictions.y_true,
        predictions.probabilities,
        range(len(predictions.clips)),
        thresholds=predictions.thresholds,
        resampling=Resampling(n_resamples=0),
    )
    before, after = (
        reliability(predictions.y_true, probabilities)
        for probabilities in (predictions.uncalibrated, predictions.probabilities)
    )
    return ModelEvaluation(
        name=name,
        source=Path(name),
        tagger=tagger,
        predictions=predictions,
        overall={metric: estimate(scores.overall[metric].value) for metric in OVERALL},
        per_label={
            metric: tuple(estimate(result.value) for result in scores.per_label[metric]) for metric in PER_LABEL
        },
        calibration=CalibrationCheck(
            True, before, after, calibration_errors(predictions.y_true, predictions.probabilities)
        ),
        n_by_origin={"out_of_fold": len(predictions.clips), "train": 7},
        n_left_out=7,
        notes=(f"{name}: {len(predictions.clips)} clips, all scored with out-of-fold predictions",),
    )


def estimate(value: float, reach: float = 0.03) -> Estimate:
    if not math.isfinite(value):
        return Estimate(float(value))
    return Estimate(float(value), max(float(value) - reach, 0.0), min(float(value) + reach, max(1.0, float(value))))


def make_evaluation(*models: ModelEvaluation) -> Evaluation:
    """The first of the models, compared with the others, sliced by fold and by duration."""
    first = models[0]
    predictions = first.predictions
    manifest = Manifest(Path("labels.csv"), predictions.clips, predictions.labels)
    folds = np.array([clip.fold or "" for clip in predictions.clips])
    edges = np.quantile(predictions.durations, [0, 0.33, 0.67, 1])
    groups = {("fold", f"fold {fold}"): folds == fold for fold in sorted(set(folds))}
    for low, high in pairwise(edges):
        rows = (predictions.durations >= low) & (predictions.durations <= high)
        groups["duration", f"{low:.3g} to {high:.3g} s"] = rows
    return Evaluation(
        manifest=manifest,
        models=models,
        slices=tuple(_slice(predictions, by, value, rows) for (by, value), rows in groups.items()),
        comparisons=tuple(_comparison(first, other) for other in models[1:]),
        confidence=0.95,
        n_resamples=1000,
        seed=0,
        n_groups=len(predictions.clips),
    )


def _slice(predictions: Predictions, by: str, value: str, rows: np.ndarray) -> Slice:
    score = lwlrap(predictions.y_true[rows], predictions.probabilities[rows])
    return Slice(by, value, int(rows.sum()), {"lwlrap": estimate(score, 0.05)})


def _comparison(first: ModelEvaluation, other: ModelEvaluation) -> Comparison:
    differences = {}
    for metric, one in first.overall.items():
        gain = one.value - other.overall[metric].value
        interval = Estimate(gain, gain - 0.02, gain + 0.02)
        differences[metric] = Difference(one.value, other.overall[metric].value, interval, 0.003)
    sentence = f"{first.name} is better than {other.name}: the gain is real."
    return Comparison(first.name, other.name, 60, first.labels.names, 0, differences, sentence)
