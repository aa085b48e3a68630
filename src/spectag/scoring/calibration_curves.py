"""Calibration curves: rising curves from a label's logit to its calibrated logit, and how to fit them.

References
----------
Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers 1999.
Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature).
Oron and Flournoy, "Centered isotonic regression", Statistics in Biopharmaceutical Research 2017.
"""

from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator
from scipy.special import expit

from spectag.array_types import BoolArray, FloatArray
from spectag.config.base import Config
from spectag.scoring.logistic_loss import fit_logistic

POOLED_L2_PENALTY = 1.0
"""L2 penalty of the scale and offset in `fit_line`, in nats over all decisions."""
ISOTONIC_L2_PENALTY = 10.0
"""How many clips on the label's line are added to each block. 3 and 30 are no better on the data by which the penalties
in `spectag.scoring.calibration` were chosen."""

_SCALE_LIMITS = (0.02, 50.0)
_N_NEWTON_STEPS = 20  # most labels need six
_CONVERGED_STEP = 1e-8
_MIN_GAP = 1e-3  # in logits, between two points of a curve
_MAX_LOGIT = 500.0  # its probability is still above 0 and below 1

_Logit = Annotated[float, Field(ge=-1e9, le=1e9)]


class CalibrationCurve(Config):
    """The calibrated logit of a label as a piecewise linear function of its logit."""

    points: tuple[tuple[_Logit, _Logit], ...] = Field(min_length=1, max_length=100_000)
    """Pairs of logit and calibrated logit; both increase from point to point."""
    slope_below: float = Field(gt=0, le=1e9)
    """The slope before the first point."""
    slope_above: float = Field(gt=0, le=1e9)
    """The slope after the last point."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not (x < next_x and y < next_y) for (x, y), (next_x, next_y) in pairwise(self.points)):
            raise ValueError(f"both numbers of a curve's points must increase from point to point, got {self.points}")
        return self


def linear_curve(scale: float, offset: float) -> CalibrationCurve:
    """The curve scale * logit + offset."""
    return CalibrationCurve(points=((0.0, offset),), slope_below=scale, slope_above=scale)


def fit_line(
    logits: ArrayLike,
    y_true: ArrayLike,
    *,
    with_offset: bool = True,
    scale_l2_penalty: float = POOLED_L2_PENALTY,
    offset_l2_penalty: float = POOLED_L2_PENALTY,
) -> tuple[float, float]:
    """The scale and offset with the lowest log loss over all these decisions (Platt scaling).

    An L2 penalty keeps them finite if the logits separate true from false without an error. It is added to the sum of
    the log loss over all decisions:

        scale_l2_penalty / 2 * (scale - 1) ** 2 + offset_l2_penalty / 2 * offset ** 2

    Parameters
    ----------
    logits : float array of any shape
    y_true : bool array of the same shape
        Or 0 and 1, and NaN for unknown labels, which are ignored.
    with_offset : bool
        If False, the offset is 0: temperature scaling.

    Raises
    ------
    ValueError
        If the shapes differ or the arrays are empty.
    """
    if np.shape(logits) != np.shape(y_true) or not np.size(logits):
        raise ValueError(f"need logits and labels of one shape, got {np.shape(logits)} and {np.shape(y_true)}")
    z, truth = (np.asarray(values, np.float64).reshape(-1, 1) for values in (logits, y_true))
    [scale], [offset] = fit_lines(
        z, truth, with_offset=with_offset, scale_l2_penalty=scale_l2_penalty, offset_l2_penalty=offset_l2_penalty
    )
    return float(scale), float(offset)


def fit_lines(
    logits: FloatArray,
    truth: BoolArray | FloatArray,
    *,
    with_offset: bool,
    scale_l2_penalty: float,
    offset_l2_penalty: float,
) -> tuple[FloatArray, FloatArray]:
    """`fit_line` for each column of (n_clips, n_labels): scales and offsets (n_labels,). Ignores cells without truth.

    Newton's method runs on all columns together, which is 20 times as fast as one after another. A column for which
    it does not converge is solved by L-BFGS.
    """
    n_labels, known = logits.shape[1], ~np.isnan(truth)
    truth = np.where(known, truth, 0.0).astype(np.float64)
    scales, offsets = np.ones(n_labels), np.zeros(n_labels)
    solved = np.zeros(n_labels, np.bool_)
    with np.errstate(all="ignore"):  # columns that diverge are solved again
        for _ in range(_N_NEWTON_STEPS):
            probabilities = expit(scales * logits + offsets)
            errors, spread = known * (probabilities - truth), known * probabilities * (1 - probabilities)
            slope = (errors * logits).sum(axis=0) + scale_l2_penalty * (scales - 1)
            curvature = (spread * logits**2).sum(axis=0) + scale_l2_penalty
            if with_offset:
                offset_slope = errors.sum(axis=0) + offset_l2_penalty * offsets
                offset_curvature, shared = spread.sum(axis=0) + offset_l2_penalty, (spread * logits).sum(axis=0)
                determinant = curvature * offset_curvature - shared**2
                step = (offset_curvature * slope - shared * offset_slope) / determinant
                offset_step = (curvature * offset_slope - shared * slope) / determinant
            else:
                step, offset_step = slope / curvature, np.zeros(n_labels)
            scales, offsets = scales - step, offsets - offset_step
            solved = np.maximum(np.abs(step), np.abs(offset_step)) < _CONVERGED_STEP
            if solved.all():
                break
    solved &= (scales > _SCALE_LIMITS[0]) & (scales < _SCALE_LIMITS[1])
    for label in np.flatnonzero(~solved):
        coefficients = fit_logistic(
            np.column_stack([logits[:, label], np.ones(len(logits))]),
            truth[:, [label]],
            np.array([[1.0], [0.0]]),
            sample_weights=known[:, label].astype(np.float64),
            l2_penalty=np.array([[scale_l2_penalty], [offset_l2_penalty]]) / len(logits),
            l2_center=np.array([[1.0], [0.0]]),
            bounds=(_SCALE_LIMITS, (None, None) if with_offset else (0.0, 0.0)),
            ftol=1e-12,
            gtol=1e-7,
        )
        scales[label], offsets[label] = coefficients[:, 0]
    return scales, offsets


def isotonic_curve(
    logits: FloatArray, truth: BoolArray, scale: float, offset: float, *, l2_penalty: float = ISOTONIC_L2_PENALTY
) -> CalibrationCurve:
    """Centred isotonic regression of a label: linear between the centres of the blocks, with the line's slope outside.

    Parameters
    ----------
    logits, truth : float and bool arrays of shape (n_clips,)
    scale, offset : float
        The label's line. Each block is shrunk towards it, as if it had `l2_penalty` more clips on the line.
    """
    from scipy.optimize import isotonic_regression

    order = np.lexsort((~truth, logits))  # of equal logits the true ones first, so that a block never splits them
    z, hits = logits[order], truth[order].astype(np.float64)
    blocks = isotonic_regression(hits).blocks
    weights = np.diff(blocks) + l2_penalty
    centres = np.add.reduceat(z, blocks[:-1]) / np.diff(blocks)
    on_line = np.clip(scale * centres + offset, -_MAX_LOGIT, _MAX_LOGIT)
    n_true = np.add.reduceat(hits, blocks[:-1]) + l2_penalty * expit(on_line)
    n_false = np.add.reduceat(1 - hits, blocks[:-1]) + l2_penalty * expit(-on_line)
    # shrinking may change the order of neighbouring blocks
    shrunk = isotonic_regression(n_true / weights, weights=weights)
    first = shrunk.blocks[:-1]
    xs = np.add.reduceat(weights * centres, first) / shrunk.weights
    # this ratio is exact where the fraction n_true / weights rounds to 1
    ys = np.log(np.add.reduceat(n_true, first) / np.add.reduceat(n_false, first))
    kept = np.concatenate([[True], np.diff(xs) > _MIN_GAP])
    points = zip(xs[kept].astype(np.float32).tolist(), ys[kept].tolist(), strict=True)
    return CalibrationCurve(points=tuple(points), slope_below=scale, slope_above=scale)
