"""Clips for fitting calibration and thresholds: those with predictions of networks not trained on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.clips import Clip, Manifest
from spectag.data.hierarchy import close_as_trained
from spectag.data.readers.delimited_text import abbreviate
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import DataError, did_you_mean
from spectag.evaluation.predictions import predict_out_of_fold
from spectag.models.out_of_fold import (
    MIN_CLIPS,
    OutOfFoldPredictions,
    portable_clip_names,
    portable_group_names,
    read_out_of_fold,
)
from spectag.models.tagger import Tagger
from spectag.scoring.calibration import (
    Calibration,
    CalibrationMethod,
    CrossFitted,
    clipped_logit,
    cross_fit,
    probabilities_of,
)
from spectag.scoring.thresholds import ThresholdGoal
from spectag.system.progress import Log, Progress


@dataclass(frozen=True, eq=False)
class CalibrationClips:
    """Clips that a tagger, or the networks that predicted them, were not trained on.

    Attributes
    ----------
    labels : bool array of shape (n_labels,)
        Which of the tagger's labels can be fitted on the clips. The other arrays contain only these.
    logits, y_true : float and bool arrays of shape (n_clips, n_fitted_labels)
        Uncalibrated predictions; the truth: 1, 0, or NaN for unknown labels.
    fold_indices : int array of shape (n_clips,)
        The folds for cross-fitting.
    groups : tuple of n_clips names
        The recording of each clip.
    skipped : tuple
        Clips that cannot be read, each with the reason.
    manifest_predictions : OutOfFoldPredictions, optional
        The clips of a manifest, to store them with the tagger. None for clips that it already stores.
    """

    labels: BoolArray
    logits: FloatArray
    y_true: FloatArray
    fold_indices: IntArray
    groups: tuple[str, ...]
    skipped: tuple[tuple[Clip, str], ...] = ()
    manifest_predictions: OutOfFoldPredictions | None = None

    def calibrated(self, calibration: Calibration | None) -> FloatArray:
        """Probabilities (n_clips, n_fitted_labels), by a calibration of all labels of the tagger."""
        logits = np.zeros((len(self.logits), len(self.labels)))
        logits[:, self.labels] = self.logits
        return probabilities_of(logits, calibration)[:, self.labels]

    def cross_fitted(self, method: CalibrationMethod, goal: ThresholdGoal) -> CrossFitted | None:
        """Probabilities and thresholds of each fold, fitted on the others; None if there is only one recording."""
        if self.fold_indices.max(initial=0) < 1:
            return None
        return cross_fit(self.logits, self.y_true, self.fold_indices, method=method, goal=goal, groups=self.groups)


def read_stored_clips(bundle: Path, labels: Sequence[str]) -> CalibrationClips:
    """The training clips with out-of-fold predictions; no clips and no labels if none of them has a label.

    `labels` are those of the tagger. If it extends a published model, the clips are only for its own labels.
    """
    clips = read_out_of_fold(bundle)
    if clips is None or not clips.y_true[clips.has_prediction].any():
        nothing = np.zeros((0, 0))
        return CalibrationClips(np.zeros(len(labels), bool), nothing, nothing, np.zeros(0, np.int64), ())
    return replace(_select(clips, np.ones(len(clips.labels), np.bool_)), labels=np.isin(labels, clips.labels.names))


def predict_manifest_clips(
    bundle: Path, manifest: Manifest, workers: int | None, progress: Progress, log: Log
) -> CalibrationClips:
    """The clips of a manifest, with the labels that at least MIN_CLIPS of them have.

    Raises
    ------
    DataError
        If no label has so many clips, not counting unreadable clips and training clips.
    """
    tagger = Tagger(bundle)
    manifest = close_as_trained(manifest, tagger.info.parents, log)
    _check_labels(tagger, manifest, log)
    predictions = predict_out_of_fold(tagger, manifest, workers=workers, progress=progress, log=log)
    rows = np.array([origin != "train" for origin in predictions.origins])
    unbiased = predictions.select(rows)
    names = dict(zip(manifest.clips, portable_clip_names(manifest), strict=True))
    groups = dict(zip(manifest.clips, portable_group_names(manifest), strict=True))
    clips = OutOfFoldPredictions(
        labels=predictions.labels,
        fnames=tuple(names[clip] for clip in unbiased.clips),
        spans=tuple((clip.start_seconds, clip.end_seconds) for clip in unbiased.clips),
        folds=tuple(clip.fold or "" for clip in unbiased.clips),
        groups=tuple(groups[clip] for clip in unbiased.clips),
        keys=tuple(clip_key(clip) or "" for clip in unbiased.clips),
        y_true=unbiased.y_true,
        logits=clipped_logit(unbiased.uncalibrated),
        known=~unbiased.unknown,
    )
    if not clips.labels_with_enough_clips.any():
        raise DataError(
            f"{manifest.source}: no label of the tagger has {MIN_CLIPS} clips to fit on; {len(predictions.clips)} of "
            f"the {len(manifest.clips)} clips can be read, and the tagger was trained on {(~rows).sum()} of them; add "
            "clips"
        )
    selected = _select(clips, clips.labels_with_enough_clips)
    return replace(selected, skipped=predictions.skipped, manifest_predictions=clips)


def _check_labels(tagger: Tagger, manifest: Manifest, log: Log) -> None:
    unknown = [label for label in manifest.labels.names if label not in tagger.labels.names]
    if len(unknown) == len(manifest.labels):
        raise DataError(
            f"{manifest.source}: the tagger knows none of the {len(unknown)} labels ({abbreviate(unknown)}); spell "
            "them as the tagger does"
        )
    if unknown:
        hint = did_you_mean(unknown[0], tagger.labels.names)
        log(f"ignoring labels of {manifest.source.name} that the tagger does not know: {abbreviate(unknown)}{hint}")


def _select(clips: OutOfFoldPredictions, labels: BoolArray) -> CalibrationClips:
    rows = np.flatnonzero(clips.has_prediction)
    cells = np.ix_(rows, labels)
    groups = tuple(clips.groups[row] for row in rows)
    return CalibrationClips(labels, clips.logits[cells], clips.targets[cells], clips.fold_indices[rows], groups)
