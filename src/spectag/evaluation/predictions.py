"""What a tagger says of a manifest's clips; of those that it learnt from, what it said before it had seen them."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import expit

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import DataError
from spectag.models.out_of_fold import CALIBRATION_FILE, OutOfFoldPredictions, read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.scoring.calibration import probabilities_of
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.tagging.parallel import TaggedFile, chunked, in_order, tag_chunks

Origin = Literal["new", "held out", "learnt", "given"]
"""Of a prediction: the tagger never saw the clip; networks said it that were trained without the clip; the tagger
learnt from the clip, so that it flatters; or a table has it."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a tagger says of clips. Arrays have a row for each clip, and a column for each of `labels`."""

    clips: tuple[Clip, ...]
    labels: LabelSet
    y_true: BoolArray
    """What the manifest says, (n_clips, n_labels)."""
    probabilities: Float32Array
    """As `spectag tag` gives them."""
    uncalibrated: Float32Array
    thresholds: Float32Array
    """A label counts as heard where its probability reaches this. Of held-out clips, fitted without the clip's part."""
    origins: tuple[Origin, ...]
    durations: FloatArray
    """In seconds; NaN of images."""
    features: Float32Array | None
    """(n_clips, n_features), where they were asked for."""
    skipped: tuple[tuple[Clip, str], ...]
    """Clips that can't be read, each with the reason."""

    def of(self, rows: BoolArray | IntArray) -> "Predictions":
        """The same of some of the clips."""
        chosen = np.arange(len(self.clips))[rows]
        return replace(
            self,
            clips=tuple(self.clips[row] for row in chosen),
            y_true=self.y_true[chosen],
            probabilities=self.probabilities[chosen],
            uncalibrated=self.uncalibrated[chosen],
            thresholds=self.thresholds[chosen],
            origins=tuple(self.origins[row] for row in chosen),
            durations=self.durations[chosen],
            features=None if self.features is None else self.features[chosen],
        )


def predict(
    tagger: Tagger,
    clips: Sequence[Clip],
    *,
    features: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Predictions:
    """What a tagger says of clips now, whether it learnt from them or not.

    Parameters
    ----------
    tagger : Tagger
    clips : sequence of Clip
        Labels that the tagger does not know are left out of `y_true`.
    features : bool
        Give the network's features, too.
    workers : int, optional
        Number of cores to use; by default all, or one for a few clips.
    progress : Progress
        Told how many clips are done.

    Raises
    ------
    DataError
        If no clip can be read.
    BundleError
        If the tagger is damaged.
    """
    answers = _tagged(tagger, clips, workers, progress)
    heard = [(clip, answer) for clip, answer in zip(clips, answers, strict=True) if answer.timeline is not None]
    skipped = tuple((clip, str(answer.reason)) for clip, answer in zip(clips, answers, strict=True) if answer.reason)
    if not heard:
        raise DataError(f"none of the {len(clips)} clips can be read: {skipped[0][1] if skipped else 'there are none'}")
    probabilities = np.concatenate([answer.timeline.probabilities for _, answer in heard if answer.timeline])
    logits = np.concatenate([answer.network_outputs.logits for _, answer in heard if answer.network_outputs])
    kept = tuple(clip for clip, _ in heard)
    return Predictions(
        clips=kept,
        labels=tagger.labels,
        y_true=_truth(kept, tagger.labels),
        probabilities=probabilities,
        uncalibrated=probabilities if tagger.info.calibration is None else expit(logits),
        thresholds=np.tile(tagger.thresholds, (len(kept), 1)),
        origins=tuple[Origin, ...](["new"] * len(kept)),
        durations=np.array([answer.duration_seconds for _, answer in heard], np.float64),
        features=np.concatenate([answer.network_outputs.features for _, answer in heard if answer.network_outputs])
        if features
        else None,
        skipped=skipped,
    )


def _tagged(tagger: Tagger, clips: Sequence[Clip], workers: int | None, progress: Progress) -> list[TaggedFile]:
    files = [str(clip.path) for clip in clips]
    stretches = [(clip.start_seconds, clip.end_seconds) for clip in clips]
    chunks = chunked(files, workers, stretches)
    answers: list[TaggedFile] = []
    progress("tagging", 0, len(clips))
    with closing(tag_chunks(tagger, chunks, None, features=True, workers=workers)) as tagged:
        for chunk in in_order(tagged):
            answers.extend(chunk.files)
            progress("tagging", len(answers), len(clips))
    return answers


def _truth(clips: Sequence[Clip], labels: LabelSet) -> BoolArray:
    places = {name: place for place, name in enumerate(labels.names)}
    y_true = np.zeros((len(clips), len(labels)), np.bool_)
    for truth, clip in zip(y_true, clips, strict=True):
        truth[[places[label] for label in clip.labels if label in places]] = True
    return y_true


def predict_out_of_fold(
    tagger: Tagger,
    manifest: Manifest,
    *,
    features: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Predictions:
    """What a tagger says of a manifest's clips; of clips that it learnt from, what was said before it saw them.

    Training keeps what networks said of clips that were held out from them (`held_out.read_out_of_fold`). It stands for
    such clips here, calibrated and with thresholds that were fitted without the clip's own fold. So are clips of
    another manifest by which the tagger was calibrated. A clip is known by its content, whatever its file is called
    now.

    Parameters
    ----------
    tagger, features, workers, progress
        As for `predict`.
    manifest : Manifest
    say : Say
        Told where the predictions come from.

    Returns
    -------
    Predictions
        `origins` tells which is which. What a tagger says of clips that it learnt from ("learnt") flatters it.
    """
    now = predict(tagger, manifest.clips, features=features, workers=workers, progress=progress)
    learnt, adjusted_by = read_out_of_fold(tagger.folder), read_out_of_fold(tagger.folder, CALIBRATION_FILE)
    if learnt is None and adjusted_by is None:
        return now
    keys = [clip_key(clip) for clip in now.clips]
    before = now if learnt is None else _before(learnt, _rows_of(keys, learnt), now, tagger, adjusted_by)
    if adjusted_by is not None:
        before = _without_own_part(adjusted_by, _rows_of(keys, adjusted_by), before, tagger)
    if learnt is not None:
        _tell_of_other_labels(learnt, _rows_of(keys, learnt), now, log)
    n_held_out, n_learnt = before.origins.count("held out"), before.origins.count("learnt")
    if n_held_out:
        log(f"{n_held_out} clips are judged by networks that were trained without them")
    if n_learnt:
        log(f"{n_learnt} clips were learnt from and never held out: what the tagger says of them flatters it")
    return before


def _tell_of_other_labels(learnt: OutOfFoldPredictions, rows: IntArray, now: Predictions, log: Log) -> None:
    """Tell where the manifest does not say what the tagger was taught, as without the corrections it learnt by."""
    others = (learnt.y_true[rows] != now.y_true).any(axis=1) & (rows >= 0)
    if others.any():
        log(
            f"{others.sum()} clips have other labels here than when the tagger learnt from them; if it learnt with "
            "--corrections, give the same here"
        )


def _rows_of(keys: Sequence[str | None], known: OutOfFoldPredictions) -> IntArray:
    """The row of each clip among those that the tagger knows, (n_clips,); -1 where it is none of them."""
    rows = {key: row for row, key in enumerate(known.keys)}
    return np.array([-1 if key is None else rows.get(key, -1) for key in keys], np.int64)


def _before(
    known: OutOfFoldPredictions,
    found: IntArray,
    now: Predictions,
    tagger: Tagger,
    adjusted_by: OutOfFoldPredictions | None,
) -> Predictions:
    """Predictions in which those of held-out clips stand for what the tagger says now; `found` are rows of `known`."""
    learnt = found >= 0
    held_out = learnt & known.has_prediction[found]
    origins: tuple[Origin, ...] = tuple(
        "held out" if was_held_out else "learnt" if was_learnt else "new"
        for was_held_out, was_learnt in zip(held_out, learnt, strict=True)
    )
    if not held_out.any():
        return replace(now, origins=origins)
    rows, info = found[held_out], tagger.info
    judged = known.cross_fitted(method=info.calibration_method, goal=info.threshold_goal)
    probabilities, is_fitted_here = judged.probabilities, np.array(info.thresholds_fitted)  # others are set by hand
    if adjusted_by is not None and "on" in info.metrics.get("calibration", {}):
        told = adjusted_by.labels_with_enough_clips  # fitted on a manifest: of other clips, or see `_without_own_part`
        probabilities = np.where(told, probabilities_of(known.logits, info.calibration), probabilities)
        is_fitted_here &= ~told
    thresholds = np.where(is_fitted_here, judged.thresholds, tagger.thresholds)
    return replace(
        now,
        probabilities=_replaced(now.probabilities, held_out, probabilities[rows]),
        uncalibrated=_replaced(now.uncalibrated, held_out, expit(known.logits[rows])),
        thresholds=_replaced(now.thresholds, held_out, thresholds[rows]),
        origins=origins,
    )


def _without_own_part(known: OutOfFoldPredictions, found: IntArray, said: Predictions, tagger: Tagger) -> Predictions:
    """Predictions in which clips that the tagger was calibrated by are judged by what the others of them call for."""
    is_known = (found >= 0) & (np.array(said.origins) != "learnt")
    if not is_known.any():
        return said
    info, told, cells = tagger.info, known.labels_with_enough_clips, np.ix_(is_known, known.labels_with_enough_clips)
    judged = known.cross_fitted(method=info.calibration_method, goal=info.threshold_goal, only_labels=told)
    probabilities, thresholds = said.probabilities.copy(), said.thresholds.copy()
    probabilities[cells] = judged.probabilities[found[is_known]]
    by_hand = ~np.array(info.thresholds_fitted)[told]
    thresholds[cells] = np.where(by_hand, tagger.thresholds[told], judged.thresholds[found[is_known]])
    return replace(said, probabilities=probabilities, thresholds=thresholds)


def _replaced(values: Float32Array, rows: BoolArray, others: FloatArray) -> Float32Array:
    """The values with others in some rows."""
    result = values.copy()
    result[rows] = others
    return result
