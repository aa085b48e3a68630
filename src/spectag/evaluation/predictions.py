"""Predictions for the clips of a manifest; for clips that a tagger was trained on, its out-of-fold predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.special import expit

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.audio.sound_faults import truncation_warning
from spectag.data.clips import Clip, Manifest, label_matrix, unknown_labels
from spectag.data.labels import LabelSet
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import DataError
from spectag.models.bundle import BundleInfo
from spectag.models.out_of_fold import CALIBRATION_FILE, OutOfFoldPredictions, read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline
from spectag.scoring.calibration import CrossFitted, probabilities_of
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.tagging.parallel import tag

PredictionOrigin = Literal["unseen", "out_of_fold", "train", "table"]
"""Where a prediction comes from. unseen: the tagger was not trained on the clip. out_of_fold: networks that were
trained without the clip. train: the tagger was trained on the clip, so the prediction is too good. table: a table."""


_LABEL_ARRAYS = ("y_true", "probabilities", "uncalibrated", "thresholds")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for clips. Arrays have a row for each clip, and a column for each of `labels`."""

    clips: tuple[Clip, ...]
    labels: LabelSet
    y_true: BoolArray
    """The labels in the manifest, (n_clips, n_labels)."""
    probabilities: Float32Array
    """The probabilities that `spectag tag` reports."""
    uncalibrated: Float32Array
    """The plain sigmoid of the logits."""
    thresholds: Float32Array
    """A label is detected if its probability reaches this. For out-of-fold clips, fitted on the other folds."""
    origins: tuple[PredictionOrigin, ...]
    durations: FloatArray
    """In seconds; NaN for images."""
    features: Float32Array | None
    """(n_clips, n_features), if requested."""
    skipped: tuple[tuple[Clip, str], ...]
    """Clips that cannot be read, each with the reason."""
    novelty: Float32Array | None = None
    """The novelty of each clip, (n_clips,), if the tagger has it."""

    @cached_property
    def unknown(self) -> BoolArray:
        """Where nobody knows whether the label is true, (n_clips, n_labels)."""
        return unknown_labels(self.clips, self.labels)

    @property
    def targets(self) -> FloatArray:
        """The truth (n_clips, n_labels): 1, 0, or NaN for an unknown label."""
        return np.where(self.unknown, np.nan, self.y_true)

    @property
    def detected(self) -> BoolArray:
        """Where the probability reaches the threshold, (n_clips, n_labels); False for unknown labels."""
        return (self.probabilities >= self.thresholds) & ~self.unknown

    def select(self, rows: BoolArray | IntArray) -> "Predictions":
        """The predictions for some of the clips."""
        indices = np.arange(len(self.clips))[rows]
        return replace(
            self,
            clips=tuple(self.clips[index] for index in indices),
            origins=tuple(self.origins[index] for index in indices),
            durations=self.durations[indices],
            features=None if self.features is None else self.features[indices],
            novelty=None if self.novelty is None else self.novelty[indices],
            **{name: getattr(self, name)[indices] for name in _LABEL_ARRAYS},
        )

    def select_labels(self, labels: Sequence[str]) -> "Predictions":
        """The predictions for some of the labels."""
        columns = [self.labels.index(label) for label in labels]
        arrays = {name: getattr(self, name)[:, columns] for name in _LABEL_ARRAYS}
        return replace(self, labels=LabelSet(tuple(labels)), **arrays)


def predict(
    tagger: Tagger,
    clips: Sequence[Clip],
    *,
    features: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Predictions:
    """The predictions of a tagger for clips, whether it was trained on them or not.

    Parameters
    ----------
    tagger : Tagger
    clips : sequence of Clip
        Labels that the tagger does not know are ignored.
    features : bool
        Also return the features of the network.
    workers : int, optional
        Number of cores to use. By default all of them, or one for a few clips.
    progress : Progress
        Called with the number of tagged clips.
    log : Log
        Called if clips are truncated.

    Raises
    ------
    DataError
        If no clip can be read.
    BundleError
        If the model is damaged.
    """
    files = [str(clip.path) for clip in clips]
    spans = [(clip.start_seconds, clip.end_seconds) for clip in clips]
    tagged_files = tag(tagger, files, spans=spans, features=True, workers=workers, progress=progress)
    tagged_clips = list(zip(clips, tagged_files, strict=True))
    skipped = tuple((clip, str(tagged.reason)) for clip, tagged in tagged_clips if tagged.reason)
    timelines = [tagged.timeline for _, tagged in tagged_clips if tagged.timeline]
    outputs = [tagged.network_outputs for _, tagged in tagged_clips if tagged.network_outputs]
    readable = tuple(clip for clip, tagged in tagged_clips if tagged.timeline)
    if not readable:
        raise DataError(f"none of the {len(clips)} clips can be read: {skipped[0][1] if skipped else 'no clips'}")
    if truncated := [clip.name for clip, tagged in tagged_clips if tagged.faults.is_truncated]:
        log(truncation_warning(truncated))
    probabilities = np.concatenate([timeline.probabilities for timeline in timelines])
    logits = np.concatenate([output.logits for output in outputs])
    return Predictions(
        clips=readable,
        labels=tagger.labels,
        y_true=label_matrix([clip.labels for clip in readable], tagger.labels),
        probabilities=probabilities,
        uncalibrated=probabilities if tagger.info.calibration is None else expit(logits),
        thresholds=np.tile(tagger.thresholds, (len(readable), 1)),
        origins=tuple[PredictionOrigin, ...](["unseen"] * len(readable)),
        durations=np.array([tagged.duration_seconds for _, tagged in tagged_clips if tagged.timeline], np.float64),
        features=np.concatenate([output.features for output in outputs]) if features else None,
        skipped=skipped,
        novelty=_novelty(timelines) if tagger.has_novelty else None,
    )


def _novelty(timelines: Sequence[Timeline]) -> Float32Array:
    """The novelty of clips, each tagged as a whole, (n_clips,)."""
    return np.concatenate(
        [
            np.full(len(timeline.starts), np.nan, np.float32) if timeline.novelty is None else timeline.novelty
            for timeline in timelines
        ]
    )


def predict_out_of_fold(
    tagger: Tagger,
    manifest: Manifest,
    *,
    features: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Predictions:
    """Predictions for the clips of a manifest; for clips that the tagger was trained on, its out-of-fold predictions.

    Training stores predictions of networks that were trained without a clip (`read_out_of_fold`). They replace the
    tagger's own predictions here, with calibration and thresholds fitted without the clip's fold. The same applies to
    clips of another manifest on which the tagger was calibrated. Clips are recognised by their content, so a file may
    have a new name.

    Parameters
    ----------
    tagger, features, workers, progress
        As for `predict`.
    manifest : Manifest
    log : Log
        Called with messages about the origins of the predictions.

    Returns
    -------
    Predictions
        With the origin of each prediction. Predictions with origin "train" are too optimistic.
    """
    predictions = predict(tagger, manifest.clips, features=features, workers=workers, progress=progress, log=log)
    training = read_out_of_fold(tagger.folder)
    calibration = read_out_of_fold(tagger.folder, CALIBRATION_FILE)
    if training is None and calibration is None:
        return predictions
    keys = [clip_key(clip) for clip in predictions.clips]
    if training is not None:
        rows, own = _rows_of(keys, training), _has_stored(training, tagger.info)
        is_same = np.isclose(training.targets[rows], predictions.targets[:, own], equal_nan=True)
        has_changed = ~is_same.all(axis=1) & (rows >= 0)
        if has_changed.any():
            n_changed = has_changed.sum()
            log(f"{n_changed} clips have other labels than in training; use the --corrections of the training")
        predictions = _replace_training_clips(predictions, training, rows, tagger, calibration)
    if calibration is not None:
        predictions = _replace_calibration_clips(predictions, calibration, _rows_of(keys, calibration), tagger)
    if n_out_of_fold := predictions.origins.count("out_of_fold"):
        log(f"{n_out_of_fold} clips are scored with out-of-fold predictions")
    if n_train := predictions.origins.count("train"):
        log(f"{n_train} clips are training clips without out-of-fold predictions: their predictions are too optimistic")
    return predictions


def _rows_of(keys: Sequence[str | None], stored: OutOfFoldPredictions) -> IntArray:
    """The row of each clip among the stored clips, (n_clips,); -1 if it is not one of them."""
    rows = {key: row for row, key in enumerate(stored.keys)}
    return np.array([-1 if key is None else rows.get(key, -1) for key in keys], np.int64)


def _has_stored(stored: OutOfFoldPredictions, info: BundleInfo) -> BoolArray:
    """Which labels of a tagger are stored, (n_labels,): all, or the own ones of one that extends a published model."""
    return np.isin(info.labels, stored.labels.names)


def _replace_training_clips(
    predictions: Predictions,
    training: OutOfFoldPredictions,
    rows: IntArray,
    tagger: Tagger,
    calibration: OutOfFoldPredictions | None,
) -> Predictions:
    """Predictions with the out-of-fold ones of training clips; `rows` are the clips' rows in `training`."""
    is_train = rows >= 0
    is_out_of_fold = is_train & training.has_prediction[rows]
    origins: tuple[PredictionOrigin, ...] = tuple(
        "out_of_fold" if out_of_fold else "train" if train else "unseen"
        for out_of_fold, train in zip(is_out_of_fold, is_train, strict=True)
    )
    if not is_out_of_fold.any():
        return replace(predictions, origins=origins)
    rows, own = rows[is_out_of_fold], _has_stored(training, tagger.info)
    fitted = cross_fit_training_clips(training, tagger.info, calibration)
    cells = np.ix_(is_out_of_fold, own)
    return replace(
        predictions,
        probabilities=_replaced(predictions.probabilities, cells, fitted.probabilities[rows]),
        uncalibrated=_replaced(predictions.uncalibrated, cells, expit(training.logits[rows])),
        thresholds=_replaced(predictions.thresholds, cells, fitted.thresholds[rows]),
        origins=origins,
    )


def cross_fit_training_clips(
    training: OutOfFoldPredictions, info: BundleInfo, calibration: OutOfFoldPredictions | None
) -> CrossFitted:
    """Probabilities and thresholds of the training clips, none of them fitted on the clip's own fold.

    Labels that were calibrated on the clips of another manifest have the tagger's calibration and thresholds.
    """
    fitted, own = (
        training.cross_fitted(method=info.calibration_method, goal=info.threshold_goal),
        _has_stored(training, info),
    )
    is_fitted = np.array(info.thresholds_fitted)[own]  # the other thresholds are set by hand
    if calibration is not None and "on" in info.metrics.get("calibration", {}):
        from_manifest = calibration.labels_with_enough_clips[own]
        logits = np.zeros((len(training.logits), len(own)))
        logits[:, own] = training.logits
        calibrated = probabilities_of(logits, info.calibration)[:, own]
        fitted = replace(fitted, probabilities=np.where(from_manifest, calibrated, fitted.probabilities))
        is_fitted &= ~from_manifest
    return fitted.with_fixed_thresholds(np.array(info.thresholds, np.float32)[own], is_fitted)


def _replace_calibration_clips(
    predictions: Predictions, calibration: OutOfFoldPredictions, rows: IntArray, tagger: Tagger
) -> Predictions:
    """Predictions in which the clips that the tagger was calibrated on are cross-fitted."""
    is_known = (rows >= 0) & (np.array(predictions.origins) != "train")
    if not is_known.any():
        return predictions
    info, labels = tagger.info, calibration.labels_with_enough_clips
    fitted = calibration.cross_fitted(
        method=info.calibration_method, goal=info.threshold_goal, only_labels=labels
    ).with_fixed_thresholds(tagger.thresholds[labels], np.array(info.thresholds_fitted)[labels])
    cells = np.ix_(is_known, labels)
    return replace(
        predictions,
        probabilities=_replaced(predictions.probabilities, cells, fitted.probabilities[rows[is_known]]),
        thresholds=_replaced(predictions.thresholds, cells, fitted.thresholds[rows[is_known]]),
    )


def _replaced(
    values: Float32Array, where: BoolArray | tuple[BoolArray | IntArray, ...], replacements: FloatArray
) -> Float32Array:
    """A copy of the values with some of them replaced."""
    result = values.copy()
    result[where] = replacements
    return result
