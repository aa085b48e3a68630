"""From logits to probabilities that come true: what was said with 0.8 is so in eight of ten cases.

A network's logits are made to rank, and its sigmoid may be too sure or not sure enough, each label in its own way.
Calibration bends each label's logit by a rising curve that was fitted on clips the network did not see. The curve of a
label rises strictly, so the ranking of clips within a label never changes.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.config.base import Config
from spectag.scoring.calibration_curves import Curve, fit_line, fit_lines, isotonic_curve, line
from spectag.scoring.thresholds import BEST_F1, ThresholdGoal, fit_thresholds

Fitted = Literal["temperature", "platt", "isotonic"]
Method = Literal["auto", "none", "temperature", "platt", "isotonic"]

DEFAULT_THRESHOLD = 0.5
"""Of a label whose threshold can't be fitted."""
SCALE_L2_PENALTY, OFFSET_L2_PENALTY = 30.0, 10.0
"""Of a label's own scale and offset, which are drawn towards those for all labels; see `fit_line`.

Chosen on the test clips of seven made competitions of 10 labels (benchmarks/calibration.py makes the like), whose log
loss a decision is 0.1603 by one curve for all and 0.1584 by own curves fitted on 40 clips, 0.1577 and 0.1531 by those
on 240 to 320. A third of these pulls gives 0.1586 and 0.1526, none at all 0.236 and 0.155.
"""
MIN_CLIPS_ISOTONIC = 100
"""Clips with a label, and without it, from which its curve may have any rising form."""


class _Candidate(NamedTuple):
    """A method, with one curve for all labels or one for each."""

    method: Fitted
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
    """The curves of all labels as a sum, which NumPy and ONNX compute alike.

        heights + slopes_below * min(logit - lefts, 0) + slopes_above * max(logit - rights, 0)
        + sum over k of slopes[k] * clip(logit - starts[k], 0, widths[k])

    Arrays are of shape (n_labels,), the last three of (n_bends, n_labels), filled up with zeros.
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
    """How a tagger's logits become probabilities, label by label; a part of its spectag.json."""

    method: Fitted
    curves: tuple[Curve, ...]
    """One for each label, in their order."""

    def __call__(self, logits: ArrayLike) -> FloatArray:
        """Calibrated probabilities.

        Parameters
        ----------
        logits : float array of shape (..., n_labels)
            As the network gives them. NaN stays NaN.

        Raises
        ------
        ValueError
            If the last axis is not that of the labels.
        """
        probabilities: FloatArray = expit(self.calibrated_logits(logits))
        return probabilities

    def calibrated_logits(self, logits: ArrayLike) -> FloatArray:
        """Logits (..., n_labels) of the calibrated probabilities."""
        z, pieces = np.asarray(logits, np.float64), self.pieces
        if z.ndim == 0 or z.shape[-1] != len(self.curves):
            raise ValueError(f"need logits of shape (..., {len(self.curves)}), as many as labels, got {z.shape}")
        calibrated: FloatArray = pieces.heights + pieces.slopes_below * np.minimum(z - pieces.lefts, 0)
        calibrated += pieces.slopes_above * np.maximum(z - pieces.rights, 0)
        for start, width, slope in zip(pieces.starts, pieces.widths, pieces.slopes, strict=True):
            calibrated += slope * np.clip(z - start, 0, width)
        return calibrated

    @cached_property
    def pieces(self) -> PiecewiseLinear:
        """The curves as arrays."""
        curves = self.curves
        pieces = np.zeros((3, max((len(curve.points) for curve in curves), default=1) - 1, len(curves)))
        for label, curve in enumerate(curves):
            for k, ((x, y), (next_x, next_y)) in enumerate(pairwise(curve.points)):
                pieces[:, k, label] = x, next_x - x, (next_y - y) / (next_x - x)
        return PiecewiseLinear(
            np.array([curve.points[0][1] for curve in curves]),
            np.array([curve.points[0][0] for curve in curves]),
            np.array([curve.points[-1][0] for curve in curves]),
            np.array([curve.slope_below for curve in curves]),
            np.array([curve.slope_above for curve in curves]),
            *pieces,
        )


def probabilities_of(logits: ArrayLike, calibration: Calibration | None) -> FloatArray:
    """Probabilities of logits (..., n_labels): calibrated, or the plain sigmoid where there is no calibration."""
    if calibration is not None:
        return calibration(logits)
    probabilities: FloatArray = expit(np.asarray(logits, np.float64))
    return probabilities


def fit_calibration(
    logits: ArrayLike, y_true: ArrayLike, *, method: Method = "auto", parts: ArrayLike | None = None
) -> Calibration | None:
    """The calibration that these clips call for, which the networks that gave the logits did not see.

    It is one curve for all labels, or one for each, whichever is better in cross-validation over the parts. A label's
    own curve is drawn towards the one for all: with few clips it is nearly that, with many it is as its clips say.

    Parameters
    ----------
    logits : float array of shape (n_clips, n_labels)
        Clips that have NaN anywhere do not count.
    y_true : bool array of shape (n_clips, n_labels)
    method : str
        temperature: a scale. platt: a scale and an offset. isotonic: any rising curve for each label that
        MIN_CLIPS_ISOTONIC clips have and as many have not, and platt for the others. none: no calibration. auto: the
        best of them all in cross-validation over the parts. What is simpler is taken unless another is clearly better,
        by more than the standard error of the difference.
    parts : int array of shape (n_clips,), optional
        Clips of one number are left out together in cross-validation, which auto needs; those of -1 do not count.
        Copies of a recording belong together. Without parts every label has its own curve.

    Returns
    -------
    Calibration or None
        None: the plain sigmoid, since nothing is clearly better, or there is nothing to learn from (no clip has a
        label, or auto has fewer than two parts to choose by).

    Raises
    ------
    ValueError
        If shapes differ, a logit is infinite, or `parts` are missing for auto.
    """
    if method == "auto" and parts is None:
        raise ValueError("method auto chooses by cross-validation, which needs parts")
    clips = _Clips.usable(logits, y_true, parts)[0]
    return clips.calibration(clips.best_candidate(method))


class _Clips:
    """Clips to learn from, and the lines that were fitted to them without some of their parts: each is needed often."""

    def __init__(self, logits: FloatArray, truth: BoolArray, parts: IntArray) -> None:
        self.logits, self.truth, self.parts = logits, truth, parts
        self.numbers: list[int] = np.unique(parts).tolist()
        self._lines: dict[tuple[frozenset[int], bool, bool], list[tuple[float, float]]] = {}

    @classmethod
    def usable(cls, logits: ArrayLike, y_true: ArrayLike, parts: ArrayLike | None) -> tuple["_Clips", BoolArray]:
        """Those of a part that have logits, and which they are of all."""
        z, truth = np.asarray(logits, np.float64), np.asarray(y_true, np.bool_)
        groups = np.zeros(len(z), np.int64) if parts is None else np.asarray(parts)
        if z.ndim != 2 or z.shape != truth.shape or groups.shape != z.shape[:1]:
            raise ValueError(
                "need logits and y_true of one shape (n_clips, n_labels) and parts of shape (n_clips,), got "
                f"{z.shape}, {truth.shape} and {groups.shape}"
            )
        if np.isinf(z).any():
            raise ValueError("need finite logits, or NaN for clips that do not count, got infinity")
        counts = (groups >= 0) & ~np.isnan(z).any(axis=1)
        return cls(z[counts], truth[counts], groups[counts]), counts

    def best_candidate(self, method: Method, left_out: frozenset[int] = frozenset()) -> _Candidate | None:
        """The best in cross-validation over the parts that are not left out; the simplest that is not clearly worse."""
        candidates = [candidate for candidate in _CANDIDATES if method in ("auto", candidate.method)]
        best = None if method == "auto" or not candidates else candidates.pop(0)
        if len(self.numbers) - len(left_out) < 2:
            return candidates[-1] if best and candidates else best
        least = self._held_out_losses(best, left_out)
        for candidate in candidates:
            losses = self._held_out_losses(candidate, left_out)
            gains = least - losses
            if gains.mean() > gains.std() / np.sqrt(len(gains)):
                best, least = candidate, losses
        return best

    def _held_out_losses(self, candidate: _Candidate | None, left_out: frozenset[int]) -> FloatArray:
        """The log loss of each clip that is not left out, calibrated by the other parts."""
        losses = np.full(len(self.parts), np.nan)
        for part in set(self.numbers) - left_out:
            own = self.parts == part
            calibration = self.calibration(candidate, left_out | {part})
            z = self.logits[own] if calibration is None else calibration.calibrated_logits(self.logits[own])
            losses[own] = (np.logaddexp(0, z) - self.truth[own] * z).sum(axis=1)
        held_out: FloatArray = losses[~np.isnan(losses)]
        return held_out

    def calibration(self, candidate: _Candidate | None, left_out: frozenset[int] = frozenset()) -> Calibration | None:
        """The calibration that fits the parts which are not left out; None where none of their clips has a label."""
        logits, truth = self._without(left_out)
        if candidate is None or not truth.any():
            return None
        lines = self._lines_without(left_out, candidate.method != "temperature", candidate.is_pooled)
        curves = [line(scale, offset) for scale, offset in lines]
        if candidate.method == "isotonic":
            n_true = truth.sum(axis=0)
            for label in np.flatnonzero(np.minimum(n_true, len(truth) - n_true) >= MIN_CLIPS_ISOTONIC):
                curves[label] = isotonic_curve(logits[:, label], truth[:, label], *lines[label])
        return Calibration(method=candidate.method, curves=tuple(curves))

    def _lines_without(self, left_out: frozenset[int], with_offset: bool, is_pooled: bool) -> list[tuple[float, float]]:
        """Scale and offset of each label."""
        key = left_out, with_offset, is_pooled
        if key not in self._lines:
            logits, truth = self._without(left_out)
            if is_pooled:
                self._lines[key] = [fit_line(logits, truth, with_offset=with_offset)] * truth.shape[1]
            else:
                [(scale, offset), *_] = self._lines_without(left_out, with_offset, True)
                self._lines[key] = _own_lines(logits, truth, scale, offset, with_offset=with_offset)
        return self._lines[key]

    def _without(self, left_out: frozenset[int]) -> tuple[FloatArray, BoolArray]:
        kept = ~np.isin(self.parts, list(left_out))
        return self.logits[kept], self.truth[kept]


def _own_lines(
    logits: FloatArray, truth: BoolArray, scale: float, offset: float, *, with_offset: bool
) -> list[tuple[float, float]]:
    """Scale and offset of each label, drawn towards those for all labels."""
    scales, offsets = fit_lines(
        scale * logits + offset,
        truth,
        with_offset=with_offset,
        scale_l2_penalty=SCALE_L2_PENALTY,
        offset_l2_penalty=OFFSET_L2_PENALTY,
    )
    return list(zip((scales * scale).tolist(), (scales * offset + offsets).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """What is honest to report of calibration and thresholds: each clip's come from the other parts' clips alone.

    Attributes
    ----------
    probabilities : float array of shape (n_clips, n_labels)
        NaN for clips that do not count.
    thresholds : float array of shape (n_clips, n_labels)
        Those of a clip's part, 0.5 where they can't be fitted; NaN for clips that do not count.
    """

    probabilities: FloatArray
    thresholds: FloatArray


def cross_fitted(
    logits: ArrayLike, y_true: ArrayLike, parts: ArrayLike, *, method: Method = "auto", goal: ThresholdGoal = BEST_F1
) -> CrossFitted:
    """Probabilities and thresholds of each part, by calibration and thresholds fitted on the other parts.

    Parameters
    ----------
    logits : float array of shape (n_clips, n_labels)
        Clips that have NaN anywhere do not count.
    y_true : bool array of shape (n_clips, n_labels)
    parts : int array of shape (n_clips,)
        Clips of one number are calibrated together; those of -1 do not count. Copies of a recording belong together.
    method : str
        As for `fit_calibration`; auto chooses anew for each part.
    goal : ThresholdGoal

    Raises
    ------
    ValueError
        As `fit_calibration`, or if there are fewer than two parts.
    """
    clips, counts = _Clips.usable(logits, y_true, parts)
    if len(clips.numbers) < 2:
        raise ValueError(f"cross-fitting needs two parts or more with logits, got {len(clips.numbers)}")
    probabilities, thresholds = np.full((2, *clips.logits.shape), np.nan)
    for part in clips.numbers:
        own, left_out = clips.parts == part, frozenset([part])
        calibration = clips.calibration(clips.best_candidate(method, left_out), left_out)
        probabilities[own] = probabilities_of(clips.logits[own], calibration)
        fitted = fit_thresholds(clips.truth[~own], probabilities_of(clips.logits[~own], calibration), goal)
        thresholds[own] = np.where(np.isnan(fitted), DEFAULT_THRESHOLD, fitted)
    result = np.full((2, *np.shape(logits)), np.nan)
    result[:, counts] = probabilities, thresholds
    return CrossFitted(*result)
