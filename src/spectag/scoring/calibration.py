"""Calibration: from logits to probabilities that are right, so that 80 % of the predictions with 0.8 are true.

The sigmoid of a network's logits may be overconfident or underconfident, differently for each label. Calibration maps
the logits of each label by a curve that is fitted on clips the network was not trained on. The curve increases
strictly, so the ranking of clips within a label never changes.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import model_validator
from scipy.special import expit, logit

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.config.base import Config
from spectag.scoring.calibration_curves import CalibrationCurve, fit_line, fit_lines, isotonic_curve, linear_curve
from spectag.scoring.thresholds import BEST_F1, ThresholdGoal, fill_thresholds, fit_thresholds

FittedMethod = Literal["temperature", "platt", "isotonic"]
CalibrationMethod = Literal["auto", "none", "temperature", "platt", "isotonic"]

LOGIT_LIMIT = 23.0
"""The probability of this logit differs from 1 in the tenth digit."""
DEFAULT_THRESHOLD = 0.5
"""The threshold of a label with too few clips to fit one."""
SCALE_L2_PENALTY, OFFSET_L2_PENALTY = 30.0, 10.0
"""L2 penalties of a label's own scale and offset, which are shrunk towards the common ones; see `fit_line`.

Chosen on the test clips of seven synthetic data sets of 10 labels (as in benchmarks/calibration.py). The log loss per
decision is 0.1603 with one curve for all labels and 0.1584 with a curve per label, fitted on 40 clips; 0.1577 and
0.1531 with 240 to 320 clips. A third of the penalties gives 0.1586 and 0.1526, no penalty 0.236 and 0.155.
"""
MIN_CLIPS_ISOTONIC = 100
"""How many clips with a label, and without it, isotonic regression needs."""
_MAX_POINTS = 10_000_000  # of all curves, padded to the longest one


class _Candidate(NamedTuple):
    """A method, with one curve for all labels (pooled) or one for each label."""

    method: FittedMethod
    is_pooled: bool


_CANDIDATES = (  # the simplest first
    _Candidate("temperature", True),
    _Candidate("temperature", False),
    _Candidate("platt", True),
    _Candidate("platt", False),
    _Candidate("isotonic", False),
)


@dataclass(frozen=True, eq=False)
class PiecewiseLinear:
    """The curves of all labels as a sum, in a form that both NumPy and ONNX can compute.

        heights + slopes_below * min(logit - lefts, 0) + slopes_above * max(logit - rights, 0)
        + sum over k of slopes[k] * clip(logit - starts[k], 0, widths[k])

    Arrays have shape (n_labels,), the last three (n_pieces, n_labels), padded with zeros.
    """

    heights: FloatArray
    lefts: FloatArray
    rights: FloatArray
    slopes_below: FloatArray
    slopes_above: FloatArray
    starts: FloatArray
    widths: FloatArray
    slopes: FloatArray


class Calibration(Config):
    """How a tagger's logits become probabilities, label by label. It is stored in spectag.json."""

    method: FittedMethod
    curves: tuple[CalibrationCurve, ...]
    """One curve for each label, in the order of the labels."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        n_points = max((len(curve.points) for curve in self.curves), default=0)
        if n_points * len(self.curves) > _MAX_POINTS:
            raise ValueError(f"{len(self.curves)} curves of up to {n_points} points are more than {_MAX_POINTS} points")
        return self

    def __call__(self, logits: ArrayLike) -> FloatArray:
        """Calibrated probabilities.

        Parameters
        ----------
        logits : float array of shape (..., n_labels)
            The network's output. NaN stays NaN.

        Raises
        ------
        ValueError
            If the last axis does not match the labels.
        """
        return probabilities_of(self.calibrated_logits(logits), None)

    def calibrated_logits(self, logits: ArrayLike) -> FloatArray:
        """Logits (..., n_labels) of the calibrated probabilities."""
        z, pieces = np.asarray(logits, np.float64), self.pieces
        if z.ndim == 0 or z.shape[-1] != len(self.curves):
            raise ValueError(f"need logits of shape (..., {len(self.curves)}), one for each label, got {z.shape}")
        calibrated: FloatArray = pieces.heights + pieces.slopes_below * np.minimum(z - pieces.lefts, 0)
        calibrated += pieces.slopes_above * np.maximum(z - pieces.rights, 0)
        for start, width, slope in zip(pieces.starts, pieces.widths, pieces.slopes, strict=True):
            calibrated += slope * np.clip(z - start, 0, width)
        return calibrated

    def raw_logits(self, logits: ArrayLike) -> FloatArray:
        """Logits (..., n_labels) before calibration, from those of calibrated probabilities."""
        inverse = [
            CalibrationCurve(
                points=tuple((y, x) for x, y in curve.points),
                slope_below=1 / curve.slope_below,
                slope_above=1 / curve.slope_above,
            )
            for curve in self.curves
        ]
        return Calibration(method=self.method, curves=tuple(inverse)).calibrated_logits(logits)

    @cached_property
    def pieces(self) -> PiecewiseLinear:
        """The curves as arrays."""
        curves = self.curves
        pieces = np.zeros((3, max((len(curve.points) for curve in curves), default=1) - 1, len(curves)))
        for label, curve in enumerate(curves):
            for k, ((x, y), (next_x, next_y)) in enumerate(pairwise(curve.points)):
                pieces[:, k, label] = x, next_x - x, (next_y - y) / (next_x - x)
        ends = [(*curve.points[0][::-1], curve.points[-1][0], curve.slope_below, curve.slope_above) for curve in curves]
        return PiecewiseLinear(*np.array(ends).T, *pieces)


def probabilities_of(logits: ArrayLike, calibration: Calibration | None) -> FloatArray:
    """Probabilities of logits (..., n_labels): calibrated, or the plain sigmoid without a calibration."""
    if calibration is not None:
        return calibration(logits)
    probabilities: FloatArray = expit(np.asarray(logits, np.float64))
    return probabilities


def clipped_logit(probabilities: ArrayLike, limit: float = LOGIT_LIMIT) -> FloatArray:
    """The logits of probabilities, clipped to +-limit, because those of 0 and 1 are infinite. NaN stays NaN."""
    logits: FloatArray = np.clip(logit(np.asarray(probabilities, np.float64)), -limit, limit)
    return logits


def fit_calibration(
    logits: ArrayLike, y_true: ArrayLike, *, method: CalibrationMethod = "auto", folds: ArrayLike | None = None
) -> Calibration | None:
    """The best calibration for these clips, which the networks must not have been trained on.

    Cross-validation over the folds chooses between one curve for all labels and one for each. A label's own curve is
    shrunk towards the common one: with few clips it stays close to it, with many clips it follows the data.

    Parameters
    ----------
    logits : float array of shape (n_clips, n_labels)
        Clips that have NaN anywhere are ignored.
    y_true : bool array of shape (n_clips, n_labels)
        Or 0 and 1, and NaN for unknown labels, which are ignored.
    method : str
        temperature: a scale. platt: a scale and an offset. isotonic: any increasing curve for each label that at least
        MIN_CLIPS_ISOTONIC clips have and as many do not have, and platt for the other labels. none: no calibration.
        auto: the best of these in cross-validation. A simpler method is preferred unless another is better by more
        than the standard error of the difference.
    folds : int array of shape (n_clips,), optional
        The fold of each clip; clips with -1 are ignored. All clips of a recording must be in one fold. Required for
        auto. Without folds, every label gets its own curve.

    Returns
    -------
    Calibration or None
        None means the plain sigmoid: nothing is clearly better, no clip has a label, or auto has fewer than two folds.

    Raises
    ------
    ValueError
        If shapes differ, a logit is infinite, or `folds` are missing for auto.
    """
    if method == "auto" and folds is None:
        raise ValueError("method auto chooses by cross-validation, which needs folds")
    clips = _Clips.usable(logits, y_true, folds)[0]
    return clips.calibration(clips.best_candidate(method))


class _Clips:
    """Clips to fit on, with a cache of the lines that were fitted without some of the folds.

    `truth` is 1, 0, or NaN for unknown labels.
    """

    def __init__(self, logits: FloatArray, truth: FloatArray, folds: IntArray) -> None:
        self.logits, self.truth, self.folds = logits, truth, folds
        self.fold_names: list[int] = np.unique(folds).tolist()
        self._lines: dict[tuple[frozenset[int], bool, bool], list[tuple[float, float]]] = {}

    @classmethod
    def usable(cls, logits: ArrayLike, y_true: ArrayLike, folds: ArrayLike | None) -> tuple["_Clips", BoolArray]:
        """The clips with logits and a fold, and a bool array (n_clips,) that marks them."""
        z, truth = np.asarray(logits, np.float64), np.asarray(y_true, np.float64)
        fold_of_clip = np.zeros(len(z), np.int64) if folds is None else np.asarray(folds)
        if z.ndim != 2 or z.shape != truth.shape or fold_of_clip.shape != z.shape[:1]:
            raise ValueError(
                "need logits and y_true of one shape (n_clips, n_labels) and folds of shape (n_clips,), got "
                f"{z.shape}, {truth.shape} and {fold_of_clip.shape}"
            )
        if np.isinf(z).any():
            raise ValueError("need finite logits, or NaN for clips to ignore, got infinity")
        is_usable = (fold_of_clip >= 0) & ~np.isnan(z).any(axis=1)
        return cls(z[is_usable], truth[is_usable], fold_of_clip[is_usable]), is_usable

    def best_candidate(self, method: CalibrationMethod, left_out: frozenset[int] = frozenset()) -> _Candidate | None:
        """The simplest candidate that is not clearly worse than another in cross-validation over the other folds."""
        candidates = [candidate for candidate in _CANDIDATES if method in ("auto", candidate.method)]
        best = None if method == "auto" or not candidates else candidates.pop(0)
        if len(self.fold_names) - len(left_out) < 2:
            return candidates[-1] if best and candidates else best
        best_losses = self._held_out_losses(best, left_out)
        for candidate in candidates:
            losses = self._held_out_losses(candidate, left_out)
            gains = best_losses - losses
            if gains.mean() > gains.std() / np.sqrt(len(gains)):
                best, best_losses = candidate, losses
        return best

    def _held_out_losses(self, candidate: _Candidate | None, left_out: frozenset[int]) -> FloatArray:
        """The log loss of each clip that is not left out, calibrated on the other folds."""
        losses = np.full(len(self.folds), np.nan)
        for fold in set(self.fold_names) - left_out:
            in_fold = self.folds == fold
            calibration = self.calibration(candidate, left_out | {fold})
            z = self.logits[in_fold] if calibration is None else calibration.calibrated_logits(self.logits[in_fold])
            losses[in_fold] = np.nansum(np.logaddexp(0, z) - self.truth[in_fold] * z, axis=1)
        return np.asarray(losses[~np.isnan(losses)])

    def calibration(self, candidate: _Candidate | None, left_out: frozenset[int] = frozenset()) -> Calibration | None:
        """The calibration fitted on the folds that are not left out; None if none of their clips has a label."""
        logits, truth = self._without(left_out)
        if candidate is None or not (truth == 1).any():
            return None
        lines = self._lines_without(left_out, candidate.method != "temperature", candidate.is_pooled)
        curves = [linear_curve(scale, offset) for scale, offset in lines]
        if candidate.method == "isotonic":
            known, n_true, n_false = ~np.isnan(truth), (truth == 1).sum(axis=0), (truth == 0).sum(axis=0)
            for label in np.flatnonzero(np.minimum(n_true, n_false) >= MIN_CLIPS_ISOTONIC):
                rows = known[:, label]
                curves[label] = isotonic_curve(logits[rows, label], truth[rows, label] == 1, *lines[label])
        return Calibration(method=candidate.method, curves=tuple(curves))

    def _lines_without(self, left_out: frozenset[int], with_offset: bool, is_pooled: bool) -> list[tuple[float, float]]:
        """Scale and offset of each label."""
        key = left_out, with_offset, is_pooled
        if key not in self._lines:
            logits, truth = self._without(left_out)
            if is_pooled:
                self._lines[key] = [fit_line(logits, truth, with_offset=with_offset)] * truth.shape[1]
            else:
                scale, offset = self._lines_without(left_out, with_offset, True)[0]
                scales, offsets = fit_lines(
                    scale * logits + offset,
                    truth,
                    with_offset=with_offset,
                    scale_l2_penalty=SCALE_L2_PENALTY,
                    offset_l2_penalty=OFFSET_L2_PENALTY,
                )
                own_scales, own_offsets = (scales * scale).tolist(), (scales * offset + offsets).tolist()
                self._lines[key] = list(zip(own_scales, own_offsets, strict=True))
        return self._lines[key]

    def _without(self, left_out: frozenset[int]) -> tuple[FloatArray, FloatArray]:
        kept = ~np.isin(self.folds, list(left_out))
        return self.logits[kept], self.truth[kept]


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Probabilities and thresholds for an unbiased score: those of each clip are fitted on the other folds only.

    Attributes
    ----------
    probabilities : float array of shape (n_clips, n_labels)
        NaN for ignored clips.
    thresholds : float array of shape (n_clips, n_labels)
        The thresholds for the fold of each clip, 0.5 where they cannot be fitted; NaN for ignored clips.
    """

    probabilities: FloatArray
    thresholds: FloatArray

    def with_fixed_thresholds(self, thresholds: ArrayLike, is_fitted: ArrayLike) -> "CrossFitted":
        """The same with these thresholds (n_labels,) for the labels whose threshold is not fitted."""
        return replace(self, thresholds=np.where(is_fitted, self.thresholds, thresholds))


def cross_fit(
    logits: ArrayLike,
    y_true: ArrayLike,
    folds: ArrayLike,
    *,
    method: CalibrationMethod = "auto",
    goal: ThresholdGoal = BEST_F1,
    groups: ArrayLike | None = None,
) -> CrossFitted:
    """Probabilities and thresholds of each fold, with calibration and thresholds fitted on the other folds.

    Parameters
    ----------
    logits : float array of shape (n_clips, n_labels)
        Clips that have NaN anywhere are ignored.
    y_true : bool array of shape (n_clips, n_labels)
        Or 0 and 1, and NaN for unknown labels, which are ignored.
    folds : int array of shape (n_clips,)
        The fold of each clip; clips with -1 are ignored. All clips of a recording must be in one fold.
    method : str
        As for `fit_calibration`; auto chooses again for each fold.
    goal, groups
        As for `fit_thresholds`.

    Raises
    ------
    ValueError
        As `fit_calibration`, or if there are fewer than two folds.
    """
    clips, is_usable = _Clips.usable(logits, y_true, folds)
    recordings = np.arange(len(is_usable)) if groups is None else np.asarray(groups)
    if len(clips.fold_names) < 2:
        raise ValueError(f"cross-fitting needs two or more folds with logits, got {len(clips.fold_names)}")
    probabilities, thresholds = np.full((2, *clips.logits.shape), np.nan)
    for fold in clips.fold_names:
        in_fold, left_out = clips.folds == fold, frozenset([fold])
        calibration = clips.calibration(clips.best_candidate(method, left_out), left_out)
        probabilities[in_fold] = probabilities_of(clips.logits[in_fold], calibration)
        fitted = fit_thresholds(
            clips.truth[~in_fold],
            probabilities_of(clips.logits[~in_fold], calibration),
            goal,
            groups=recordings[is_usable][~in_fold],
        )
        thresholds[in_fold] = fill_thresholds(fitted, DEFAULT_THRESHOLD)
    result = np.full((2, *np.shape(logits)), np.nan)
    result[:, is_usable] = probabilities, thresholds
    return CrossFitted(*result)
