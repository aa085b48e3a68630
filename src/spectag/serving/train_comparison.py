"""Comparison of two versions of a model, by what each predicts for clips that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.evaluation.predictions import cross_fit_training_clips
from spectag.models.bundle import read_info
from spectag.models.out_of_fold import CALIBRATION_FILE, OutOfFoldPredictions, read_out_of_fold
from spectag.scoring.bootstrap import Resampling, as_json, paired_difference
from spectag.scoring.scores import count_recordings, main_metric, resampled_scores, scores_of

MAX_CHANGED_CLIPS = 300
"""That are listed. The others are counted."""


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """The training clips of a version, with the predictions of networks that were trained without each clip."""

    clips: OutOfFoldPredictions
    probabilities: FloatArray
    """Calibrated, (n_clips, n_labels); NaN for clips without a prediction."""
    detected: BoolArray
    """Where the probability reaches the threshold that was fitted without the clip, (n_clips, n_labels)."""

    @classmethod
    def read(cls, version: Path) -> "HeldOutPredictions | None":
        """Those of a version; None if it has none, as a published model."""
        clips = read_out_of_fold(version)
        if clips is None or not clips.has_prediction.any():
            return None
        fitted = cross_fit_training_clips(clips, read_info(version), read_out_of_fold(version, CALIBRATION_FILE))
        return cls(clips, fitted.probabilities, fitted.probabilities >= fitted.thresholds)


@dataclass(frozen=True)
class ChangedClip:
    """A clip with other detections than before, or other labels."""

    fname: str
    start_seconds: float
    end_seconds: float | None
    truth: tuple[str, ...]
    """The labels that the newer version was trained with."""
    truth_before: tuple[str, ...]
    detected: tuple[str, ...]
    detected_before: tuple[str, ...]
    n_right: int
    """How many more labels are right than before; negative: fewer."""


@dataclass(frozen=True, eq=False)
class VersionComparison:
    """What is different in a newer version."""

    n_clips: int
    """Clips that both have predictions for."""
    n_labels: int
    n_labels_left_out: int
    metric: str
    """The main one."""
    differences: dict[str, dict[str, float | None]]
    """For each metric `score`, `before`, and `value`, `low` and `high` of the difference."""
    changed: tuple[ChangedClip, ...]
    """At most MAX_CHANGED_CLIPS, those that became wrong first, then those that became right."""
    n_changed: int
    n_better: int
    """Changed clips with more right labels than before."""
    n_worse: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = as_json(self)
        return found


def compare_versions(
    newer: HeldOutPredictions, older: HeldOutPredictions, resampling: Resampling | None = None
) -> VersionComparison | None:
    """Compare two versions on the clips and labels that both have, by the labels of the newer one.

    Returns
    -------
    VersionComparison or None
        None if they have no clip or no label in common.
    """
    resampling = resampling or Resampling()
    labels = [name for name in newer.clips.labels.names if name in older.clips.labels.names]
    rows = _common_rows(newer.clips, older.clips)
    if not labels or not len(rows):
        return None
    both = [_Selected.of(held_out, rows[:, index], labels) for index, held_out in enumerate((newer, older))]
    metric, differences = _differences(both[0], both[1], resampling)
    changed = _changed_clips(both[0], both[1], labels)
    n_all = len({*newer.clips.labels.names, *older.clips.labels.names})
    return VersionComparison(
        n_clips=len(rows),
        n_labels=len(labels),
        n_labels_left_out=n_all - len(labels),
        metric=metric,
        differences=differences,
        changed=tuple(changed[:MAX_CHANGED_CLIPS]),
        n_changed=len(changed),
        n_better=sum(clip.n_right > 0 for clip in changed),
        n_worse=sum(clip.n_right < 0 for clip in changed),
    )


def _common_rows(newer: OutOfFoldPredictions, older: OutOfFoldPredictions) -> IntArray:
    """The rows of the clips that both have predictions for, (n_clips, 2). Clips are recognised by their content."""
    of_older = {key: row for row, key in enumerate(older.keys) if older.has_prediction[row]}
    pairs = [
        (row, of_older[key]) for row, key in enumerate(newer.keys) if newer.has_prediction[row] and key in of_older
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class _Selected:
    """The predictions for some clips and labels; the truth is 1, 0 or NaN."""

    fnames: tuple[str, ...]
    spans: tuple[tuple[float, float | None], ...]
    groups: tuple[str, ...]
    truth: FloatArray
    probabilities: FloatArray
    detected: BoolArray

    @classmethod
    def of(cls, held_out: HeldOutPredictions, rows: IntArray, labels: Sequence[str]) -> "_Selected":
        clips = held_out.clips
        cells = np.ix_(rows, np.array([clips.labels.index(label) for label in labels]))
        return cls(
            tuple(clips.fnames[row] for row in rows),
            tuple(clips.spans[row] for row in rows),
            tuple(clips.groups[row] for row in rows),
            clips.targets[cells],
            held_out.probabilities[cells],
            held_out.detected[cells],
        )


def _differences(
    newer: _Selected, older: _Selected, resampling: Resampling
) -> tuple[str, dict[str, dict[str, float | None]]]:
    """The main metric, and the difference in each metric, resampled together."""
    counts, truth = resampling.counts(newer.groups), newer.truth
    samples, estimates = [], []
    for selected in (newer, older):
        detected = selected.detected & ~np.isnan(truth)
        samples.append(resampled_scores(truth, selected.probabilities, detected, counts))
        estimates.append(scores_of(samples[-1], truth, detected, newer.groups, resampling).overall)
    n_recordings = count_recordings(truth, newer.detected & ~np.isnan(truth), newer.groups).overall
    differences: dict[str, dict[str, float | None]] = {}
    for metric in ("lwlrap", "mean_average_precision", "top1_accuracy", "f1_macro"):
        if metric in estimates[0]:
            score, before = estimates[0][metric], estimates[1][metric]
            resamples = samples[0].overall[metric][1:], samples[1].overall[metric][1:]
            n = min(len(set(newer.groups)), n_recordings[metric])
            gain, _ = paired_difference(score, before, resamples, n, resampling.confidence)
            differences[metric] = {"score": score.value, "before": before.value, **vars(gain)}
    return main_metric(estimates[0]), differences


def _changed_clips(newer: _Selected, older: _Selected, labels: Sequence[str]) -> list[ChangedClip]:
    """Clips with other detections or labels, those that became worse first, then those that became better."""
    names, known = np.array(labels), ~np.isnan(newer.truth)
    right = (newer.detected == (newer.truth == 1)) & known
    right_before = (older.detected == (newer.truth == 1)) & known
    gains = right.sum(axis=1) - right_before.sum(axis=1)
    is_other = (newer.detected != older.detected).any(axis=1)
    is_other |= ((newer.truth == 1) != (older.truth == 1)).any(axis=1)
    rows = sorted(np.flatnonzero(is_other).tolist(), key=lambda row: (gains[row] >= 0, gains[row] == 0, row))
    return [
        ChangedClip(
            newer.fnames[row],
            *newer.spans[row],
            tuple(names[newer.truth[row] == 1].tolist()),
            tuple(names[older.truth[row] == 1].tolist()),
            tuple(names[newer.detected[row]].tolist()),
            tuple(names[older.detected[row]].tolist()),
            int(gains[row]),
        )
        for row in rows
    ]
