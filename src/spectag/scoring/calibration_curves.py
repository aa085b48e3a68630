"""Rising curves from a label's logit to a calibrated one, and how they are fitted to one label's clips.

References
----------
Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers 1999.
Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature).
Oron and Flournoy, "Centered isotonic regression", Statistics in Biopharmaceutical Research 2017.
"""

from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator
from scipy.special import expit

from spectag.array_types import BoolArray, FloatArray
from spectag.config.base import Config

POOLED_L2_PENALTY = 1.0
"""Of `fit_line`, in nats over all decisions."""
ISOTONIC_L2_PENALTY = 10.0
"""Clips that lie on the label's line, added to each block: 3 and 30 do no better on the clips that the pulls of
`spectag.scoring.calibration` were chosen on."""

_SCALE_LIMITS = (0.02, 50.0)
_N_STEPS = 20  # of Newton's, of which most labels need six
_SMALL_STEP = 1e-8
_LEAST_GAP = 1e-3  # in logits between two points of a curve
_FARTHEST = 500.0  # calibrated logit of a point, whose probability is still not 0


class Curve(Config):
    """How a label's logit becomes a calibrated one: straight lines from point to point, and on beyond the ends."""

    points: tuple[tuple[float, float], ...] = Field(min_length=1)
    """Logit and calibrated logit; both rise from point to point."""
    slope_below: float = Field(gt=0)
    """Before the first point."""
    slope_above: float = Field(gt=0)
    """After the last one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not (x < next_x and y < next_y) for (x, y), (next_x, next_y) in pairwise(self.points)):
            raise ValueError(f"the points of a curve must rise, got {self.points}")
        return self


def line(scale: float, offset: float) -> Curve:
    """The curve scale * logit + offset."""
    return Curve(points=((0.0, offset),), slope_below=scale, slope_above=scale)


def fit_line(
    logits: ArrayLike,
    y_true: ArrayLike,
    *,
    with_offset: bool = True,
    scale_l2_penalty: float = POOLED_L2_PENALTY,
    offset_l2_penalty: float = POOLED_L2_PENALTY,
) -> tuple[float, float]:
    """Scale and offset of least log loss over all these decisions (Platt), drawn towards 1 and 0.

    Beside the log loss, summed over the decisions, they cost

        scale_l2_penalty / 2 * (scale - 1) ** 2 + offset_l2_penalty / 2 * offset ** 2

    which keeps them finite where all is told apart without an error.

    Parameters
    ----------
    logits : float array of any shape
    y_true : bool array of the same shape
    with_offset : bool
        Without one, the offset is 0: temperature scaling.

    Raises
    ------
    ValueError
        If the shapes differ or there is nothing to learn from.
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
    """What `fit_line` gives of each column of (n_clips, n_labels): scales and offsets (n_labels,).

    All columns take Newton's steps together, which is twenty times as fast as one after another; a column that these
    do not bring to an end is solved alone.
    """
    n_labels = logits.shape[1]
    scales, offsets = np.ones(n_labels), np.zeros(n_labels)
    solved = np.zeros(n_labels, np.bool_)
    with np.errstate(all="ignore"):  # columns that go astray are solved again
        for _ in range(_N_STEPS):
            probabilities = expit(scales * logits + offsets)
            errors, spread = probabilities - truth, probabilities * (1 - probabilities)
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
            solved = np.maximum(np.abs(step), np.abs(offset_step)) < _SMALL_STEP
            if solved.all():
                break
    solved &= (scales > _SCALE_LIMITS[0]) & (scales < _SCALE_LIMITS[1])
    for label in np.flatnonzero(~solved):
        scales[label], offsets[label] = _line_within_limits(
            logits[:, label], truth[:, label], with_offset, np.array([scale_l2_penalty, offset_l2_penalty])
        )
    return scales, offsets


def _line_within_limits(
    z: FloatArray, truth: BoolArray | FloatArray, with_offset: bool, pulls: FloatArray
) -> tuple[float, float]:
    """Scale and offset of one label, by a search that can't go astray."""
    from scipy.optimize import minimize  # takes a tenth of a second to load, and tagging needs none

    def loss_and_gradient(values: FloatArray) -> tuple[float, FloatArray]:
        calibrated = values[0] * z + values[1]
        errors, away = expit(calibrated) - truth, values - (1.0, 0.0)
        loss = np.logaddexp(0, calibrated).sum() - truth @ calibrated + pulls @ away**2 / 2
        return loss / z.size, (np.array([errors @ z, errors.sum()]) + pulls * away) / z.size

    bounds = (_SCALE_LIMITS, (None, None) if with_offset else (0.0, 0.0))
    solution = minimize(
        loss_and_gradient,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-12, "gtol": 1e-7},
    )
    scale, offset = solution.x
    return float(scale), float(offset)


def isotonic_curve(
    logits: FloatArray, truth: BoolArray, scale: float, offset: float, *, l2_penalty: float = ISOTONIC_L2_PENALTY
) -> Curve:
    """Centred isotonic regression of a label: straight between the blocks' centres, on beyond the ends as the line.

    Parameters
    ----------
    logits, truth : float and bool arrays of shape (n_clips,)
    scale, offset : float
        The label's line, which each block is drawn to as if `l2_penalty` more clips lay on it.
    """
    from scipy.optimize import isotonic_regression

    order = np.lexsort((~truth, logits))  # of equal logits the true ones first, which no block boundary parts
    z, hits = logits[order], truth[order].astype(np.float64)
    blocks = isotonic_regression(hits).blocks
    weights = np.diff(blocks) + l2_penalty
    centres = np.add.reduceat(z, blocks[:-1]) / np.diff(blocks)
    on_line = np.clip(scale * centres + offset, -_FARTHEST, _FARTHEST)
    n_true = np.add.reduceat(hits, blocks[:-1]) + l2_penalty * expit(on_line)
    n_false = np.add.reduceat(1 - hits, blocks[:-1]) + l2_penalty * expit(-on_line)
    drawn = isotonic_regression(n_true / weights, weights=weights)  # drawn to the line, neighbours may change places
    first = drawn.blocks[:-1]
    xs = np.add.reduceat(weights * centres, first) / drawn.weights
    ys = np.log(np.add.reduceat(n_true, first) / np.add.reduceat(n_false, first))  # also where the share rounds to 1
    apart = np.concatenate([[True], np.diff(xs) > _LEAST_GAP])
    points = zip(xs[apart].astype(np.float32).tolist(), ys[apart].tolist(), strict=True)
    return Curve(points=tuple(points), slope_below=scale, slope_above=scale)
