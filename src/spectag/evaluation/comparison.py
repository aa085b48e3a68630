"""Comparison of two models: their scores on the same clips, resampled together."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spectag.data.clips import Clip
from spectag.errors import DataError
from spectag.evaluation.evaluated_models import EvaluatedModel
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import METRIC_NAMES, Comparison, Difference
from spectag.scoring.bootstrap import Resampling, paired_difference
from spectag.scoring.scores import main_metric, resampled_scores, scores_of

ClipId = tuple[Path, float, float | None]
"""Identifies a clip in two sets of predictions: its file, start and end."""


def clip_id(clip: Clip) -> ClipId:
    """The identity of a clip."""
    return clip.path, clip.start_seconds, clip.end_seconds


def compare_models(
    first: EvaluatedModel, other: EvaluatedModel, groups: Mapping[ClipId, str], resampling: Resampling
) -> Comparison:
    """Compare every overall score of two models, on the clips and labels for which both are scored.

    Raises
    ------
    DataError
        If the models have no such clip or no such label.
    """
    first_predictions, other_predictions = _common_predictions(first, other)
    clip_groups = [groups[clip_id(clip)] for clip in first_predictions.clips]
    counts = resampling.counts(clip_groups)
    samples, estimates = [], []
    for predictions in (first_predictions, other_predictions):
        y_true, detected = predictions.targets, predictions.detected
        samples.append(resampled_scores(y_true, predictions.probabilities, detected, counts))
        estimates.append(scores_of(samples[-1], y_true, detected, clip_groups, resampling).overall)
    first_scores, other_scores = estimates
    differences = {}
    for metric, score in first_scores.items():
        resamples = samples[0].overall[metric][1:], samples[1].overall[metric][1:]
        n_recordings = len(set(clip_groups))
        differences[metric] = Difference(
            score.value,
            other_scores[metric].value,
            *paired_difference(score, other_scores[metric], resamples, n_recordings, resampling.confidence),
        )
    labels = first_predictions.labels.names
    return Comparison(
        first=first.name,
        other=other.name,
        n_clips=len(first_predictions.clips),
        labels=labels,
        n_labels_left_out=len({*first.predictions.labels.names, *other.predictions.labels.names} - set(labels)),
        differences=differences,
        sentence=_sentence(
            [first.name, other.name],
            [first_predictions, other_predictions],
            differences,
            main_metric(first_scores),
            resampling.confidence,
        ),
    )


def _common_predictions(first: EvaluatedModel, other: EvaluatedModel) -> tuple[Predictions, Predictions]:
    """The predictions of two models for the clips and labels that both have."""
    labels = [name for name in first.predictions.labels.names if name in other.predictions.labels.names]
    other_rows = {clip_id(clip): row for row, clip in enumerate(other.predictions.clips)}
    pairs = [
        (row, other_rows[clip_id(clip)])
        for row, clip in enumerate(first.predictions.clips)
        if clip_id(clip) in other_rows
    ]
    if not labels or not pairs:
        missing = "clip" if labels else "label"
        raise DataError(f"cannot compare {first.name} and {other.name}: they are not scored on a common {missing}")
    first_rows, rows = np.array(pairs).T
    selected = first.predictions.select(first_rows), other.predictions.select(rows)
    return selected[0].select_labels(labels), selected[1].select_labels(labels)


def _sentence(
    names: Sequence[str],
    predictions: Sequence[Predictions],
    differences: Mapping[str, Difference],
    metric: str,
    confidence: float,
) -> str:
    """The result for a person, by one score."""
    first, other = names
    result, score_name = differences[metric], METRIC_NAMES[metric]
    gain = result.difference
    basis = f"on the same {len(predictions[0].clips):,} clips and {len(predictions[0].labels)} labels"
    if math.isnan(gain.value):
        return f"{first} and {other} cannot be compared {basis}: no clip has a label"
    scores = f"{score_name} {result.first:.4f} against {result.other:.4f} {basis}"
    significant = [METRIC_NAMES[name] for name, each in differences.items() if each.p_value < 1 - confidence]
    remarks = f" Other scores differ by more than chance: {'; '.join(significant)}." if significant else ""
    trained = [name for name, each in zip(names, predictions, strict=True) if "train" in each.origins]
    warning = f" But some are training clips of {' and '.join(trained)}: scores are optimistic." if trained else ""
    if math.isnan(gain.low):
        return f"{first} and {other}: {scores}. There is no interval, so the effect of chance is unknown.{warning}"
    scores += (
        f", a difference of {gain.value:+.4f} ({100 * confidence:.0f} % interval {gain.low:+.4f} to "
        f"{gain.high:+.4f}), p = {result.p_value:.3f}"
    )
    if gain.value == 0:
        return f"{first} and {other} have the same {score_name}: {scores}.{remarks}{warning}"
    if result.p_value >= 1 - confidence:
        return f"No clear difference between {first} and {other}: {scores}. It may be due to chance.{remarks}{warning}"
    better, worse = (first, other) if gain.value > 0 else (other, first)
    return f"{better} is better than {worse}: {scores}. Chance hardly explains it.{warning}"
