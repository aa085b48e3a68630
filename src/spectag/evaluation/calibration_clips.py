"""Clips that a tagger did not learn from, to fit its calibration and thresholds on."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import logit

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.clips import Clip, Manifest
from spectag.data.readers.delimited_text import some_of
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import DataError, did_you_mean
from spectag.evaluation.predictions import predict_out_of_fold
from spectag.models.out_of_fold import MIN_CLIPS, OutOfFoldPredictions, group_names, names_of_clips, read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.scoring.calibration import Calibration, CrossFitted, Method, cross_fitted, probabilities_of
from spectag.scoring.thresholds import ThresholdGoal
from spectag.system.progress import Log, Progress

_SUREST = 23.0  # a logit whose probability float64 still tells from 1


@dataclass(frozen=True, eq=False)
class UnseenClips:
    """What a tagger, or networks trained without a clip, said of clips; and the labels that the clips tell of.

    Attributes
    ----------
    labels : bool array of shape (n_labels,)
        Of all that the tagger knows, those that the other arrays are about.
    logits, y_true : float and bool arrays of shape (n_clips, n_told_labels)
        Not calibrated; the truth.
    parts : int array of shape (n_clips,)
        To fit on and to judge by turns.
    skipped : tuple
        Clips that can't be read, each with the reason.
    of_manifest : OutOfFoldPredictions, optional
        The clips to remember with the tagger, where they are not those that it keeps from training.
    """

    labels: BoolArray
    logits: FloatArray
    y_true: BoolArray
    parts: IntArray
    skipped: tuple[tuple[Clip, str], ...] = ()
    of_manifest: OutOfFoldPredictions | None = None

    def calibrated(self, calibration: Calibration | None) -> FloatArray:
        """Probabilities (n_clips, n_told_labels), by a calibration of all the tagger's labels."""
        logits = np.zeros((len(self.logits), len(self.labels)))
        logits[:, self.labels] = self.logits
        return probabilities_of(logits, calibration)[:, self.labels]

    def cross_fitted(self, method: Method, goal: ThresholdGoal) -> CrossFitted | None:
        """Of each part, fitted on the others; None where the clips are too few recordings to be parted."""
        if self.parts.max(initial=0) < 1:
            return None
        return cross_fitted(self.logits, self.y_true, self.parts, method=method, goal=goal)


def kept_clips(bundle: Path) -> UnseenClips | None:
    """The training clips as they were held out; None where none was, or none that was has a label."""
    clips = read_out_of_fold(bundle)
    if clips is None or not clips.y_true[clips.seen].any():
        return None
    return _unseen(clips, np.ones(len(clips.labels), np.bool_))


def predict_manifest_clips(
    bundle: Path, manifest: Manifest, workers: int | None, progress: Progress, log: Log
) -> UnseenClips:
    """A manifest's clips; they tell of labels that MIN_CLIPS of them have.

    Raises
    ------
    DataError
        If there is no label that so many clips have, which can be read and which it did not learn from.
    """
    tagger = Tagger(bundle)
    unknown = [label for label in manifest.labels.names if label not in tagger.labels.names]
    if len(unknown) == len(manifest.labels):
        raise DataError(
            f"{manifest.source}: the tagger knows none of its {len(unknown)} labels ({some_of(unknown)}); labels must "
            "be written as the tagger has them"
        )
    if unknown:
        hint = did_you_mean(unknown[0], tagger.labels.names)
        log(f"labels of {manifest.source.name} that the tagger does not know: {some_of(unknown)}{hint}")
    said = predict_out_of_fold(tagger, manifest, workers=workers, progress=progress, log=log)
    logits = np.clip(logit(said.uncalibrated.astype(np.float64)), -_SUREST, _SUREST)
    names = dict(zip(manifest.clips, zip(names_of_clips(manifest), group_names(manifest), strict=True), strict=True))
    judging = [place for place, origin in enumerate(said.origins) if origin != "learnt"]
    heard = [said.clips[place] for place in judging]
    clips = OutOfFoldPredictions(
        labels=said.labels,
        fnames=tuple(names[clip][0] for clip in heard),
        stretches=tuple((clip.start_seconds, clip.end_seconds) for clip in heard),
        folds=tuple(clip.fold or "" for clip in heard),
        groups=tuple(names[clip][1] for clip in heard),
        keys=tuple(clip_key(clip) or "" for clip in heard),
        y_true=said.y_true[judging],
        logits=logits[judging],
    )
    if not clips.told.any():
        n_learnt = said.origins.count("learnt")
        raise DataError(
            f"{manifest.source}: no label of the tagger's has {MIN_CLIPS} clips to fit on; {len(said.clips)} of its "
            f"{len(manifest.clips)} clips can be read, and {n_learnt} of them the tagger learnt from"
        )
    return replace(_unseen(clips, clips.told), skipped=said.skipped, of_manifest=clips)


def _unseen(clips: OutOfFoldPredictions, labels: BoolArray) -> UnseenClips:
    rows = np.ix_(clips.seen, labels)
    return UnseenClips(labels, clips.logits[rows], clips.y_true[rows], clips.parts[clips.seen])
