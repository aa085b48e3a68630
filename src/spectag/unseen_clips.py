"""Clips that a tagger did not learn from, to fit its calibration and thresholds on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from spectag.calibration import Calibration, CrossFitted, Method, cross_fitted, probabilities_of
from spectag.errors import DataError
from spectag.held_out import HeldOutClips, read_held_out
from spectag.manifest import Clip, Manifest
from spectag.manifest.table import some_of
from spectag.predict import predict_honestly
from spectag.progress import Progress, Say
from spectag.runtime import Tagger
from spectag.thresholds import ThresholdGoal

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

MIN_CLIPS = 3
"""Of a manifest that must have a label, for the label's curve and threshold to be fitted anew."""
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
    """

    labels: BoolArray
    logits: FloatArray
    y_true: BoolArray
    parts: IntArray
    skipped: tuple[tuple[Clip, str], ...] = ()

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
    clips = read_held_out(bundle)
    if clips is None or not clips.y_true[clips.seen].any():
        return None
    return _unseen(clips, np.ones(len(clips.labels), np.bool_))


def heard_clips(bundle: Path, manifest: Manifest, workers: int | None, progress: Progress, say: Say) -> UnseenClips:
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
        say(f"labels of {manifest.source.name} that the tagger does not know: {some_of(unknown)}")
    said = predict_honestly(tagger, manifest, workers=workers, progress=progress, say=say)
    logits = np.clip(logit(said.uncalibrated.astype(np.float64)), -_SUREST, _SUREST)
    logits[np.array(said.origins) == "learnt"] = np.nan
    groups = dict(zip(manifest.clips, manifest.groups, strict=True))
    clips = HeldOutClips(
        labels=said.labels,
        fnames=tuple(clip.fname for clip in said.clips),
        stretches=tuple((clip.start_seconds, clip.end_seconds) for clip in said.clips),
        folds=tuple(clip.fold or "" for clip in said.clips),
        groups=tuple(groups[clip] for clip in said.clips),
        keys=("",) * len(said.clips),
        y_true=said.y_true,
        logits=logits,
    )
    told: BoolArray = clips.y_true[clips.seen].sum(axis=0) >= MIN_CLIPS
    if not told.any():
        n_learnt = said.origins.count("learnt")
        raise DataError(
            f"{manifest.source}: no label of the tagger's has {MIN_CLIPS} clips to fit on; {len(said.clips)} of its "
            f"{len(manifest.clips)} clips can be read, and {n_learnt} of them the tagger learnt from"
        )
    return _unseen(clips, told, said.skipped)


def _unseen(clips: HeldOutClips, labels: BoolArray, skipped: tuple[tuple[Clip, str], ...] = ()) -> UnseenClips:
    rows = np.ix_(clips.seen, labels)
    return UnseenClips(labels, clips.logits[rows], clips.y_true[rows], clips.parts[clips.seen], skipped)
