"""A linear head on frozen features: logistic regression for each label, solved to the end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import expit
from threadpoolctl import threadpool_limits

from spectag.progress import Progress, silent

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

WEIGHT_DECAYS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""Tried on the folds, strongest first, for features of unit mean square norm."""

DEFAULT_WEIGHT_DECAY = 3e-4
"""Where there are no folds to choose on: near the best from two clips a label to a hundred."""

SHALLOWEST = 0.3
"""How much the first stage counts beside the last. Deep features tell more, and with few clips that must be said: from
one recording a label of ESC-10, accuracy is 0.893 with it and 0.868 without (benchmarks/few_recordings.py)."""


@dataclass(frozen=True)
class Standardization:
    """Features as the head sees them: (features - center) * scale."""

    center: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, features: Float32Array, group_sizes: Sequence[int]) -> "Standardization":
        """Zero mean and equal deviation in a stage, deeper stages weighing more, mean square norm near 1."""
        depth = np.repeat(np.linspace(SHALLOWEST, 1.0, len(group_sizes)) if len(group_sizes) > 1 else 1.0, group_sizes)
        deviation = features.std(axis=0, dtype=np.float64)
        varies = deviation > 1e-6
        scale = np.where(varies, depth / np.where(varies, deviation, 1.0), 0.0) / np.sqrt(features.shape[1])
        return cls(features.mean(axis=0, dtype=np.float64), scale)

    def __call__(self, features: Float32Array) -> FloatArray:
        result: FloatArray = (features - self.center) * self.scale
        return result


@dataclass(frozen=True)
class LinearHead:
    """logits = (features - center) * scale @ weights + bias."""

    standardization: Standardization
    weights: FloatArray  # (n_features, n_labels)
    bias: FloatArray  # (n_labels,)

    def logits(self, features: Float32Array) -> FloatArray:
        """Logits (n_clips, n_labels)."""
        result: FloatArray = self.standardization(features) @ self.weights + self.bias
        return result

    def probabilities(self, features: Float32Array) -> FloatArray:
        """Probabilities (n_clips, n_labels)."""
        result: FloatArray = expit(self.logits(features))
        return result


def fit_heads(
    features: Float32Array, y_true: BoolArray, group_sizes: Sequence[int], weight_decays: Sequence[float]
) -> list[LinearHead]:
    """A head for each weight decay: the logistic loss per clip plus half the decay times the weights' squares, at its
    least. The bias is not pulled.

    Parameters
    ----------
    features : float array of shape (n_clips, n_features)
    y_true : bool array of shape (n_clips, n_labels)
    group_sizes : ints
        Number of features of each stage, shallow first.
    weight_decays : floats
        Above 0; each begins where the one before it ended.
    """
    with threadpool_limits(1):  # on a few cores BLAS's threads wait for each other longer than they work
        standardization = Standardization.of(features, group_sizes)
        x = standardization(features)
        axes, squares = _principal_axes(x)
        scores = x @ axes
        rate = np.clip(y_true.mean(axis=0), 0.5 / len(x), 1 - 0.5 / len(x))
        weights, bias = np.zeros((axes.shape[1], y_true.shape[1])), np.log(rate / (1 - rate))
        heads = []
        for weight_decay in weight_decays:
            weights, bias = _solve(scores, squares, y_true.astype(np.float64), weight_decay, weights, bias)
            heads.append(LinearHead(standardization, axes @ weights, bias))
        return heads


def held_out_logits(
    features: Float32Array,
    y_true: BoolArray,
    group_sizes: Sequence[int],
    held_out: Sequence[BoolArray],
    weight_decays: Sequence[float],
    *,
    progress: Progress = silent,
) -> dict[float, FloatArray]:
    """For each weight decay, logits (n_clips, n_labels) from heads that did not see the clip; NaN where all saw it.

    Parameters
    ----------
    held_out : sequence of bool arrays of shape (n_clips,)
        The clips that are held out, fold by fold.
    """
    logits = {decay: np.full(y_true.shape, np.nan) for decay in weight_decays}
    for n_done, rows in enumerate(held_out, start=1):
        heads = fit_heads(features[~rows], y_true[~rows], group_sizes, weight_decays)
        for decay, head in zip(weight_decays, heads, strict=True):
            logits[decay][rows] = head.logits(features[rows])
        progress("heads", n_done, len(held_out))
    return logits


def _principal_axes(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Orthonormal axes (n_features, rank) of the clips, along which the weights lie, and the clips' squares on each."""
    if len(x) < x.shape[1]:
        squares, vectors = eigh(x @ x.T)
        kept = squares > squares[-1] * 1e-10
        return x.T @ (vectors[:, kept] / np.sqrt(squares[kept])), squares[kept]
    squares, vectors = eigh(x.T @ x)
    kept = squares > squares[-1] * 1e-10
    return vectors[:, kept], squares[kept]


def _solve(
    scores: FloatArray, squares: FloatArray, y: FloatArray, weight_decay: float, weights: FloatArray, bias: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weights along the axes, and bias, where the loss is least; the search begins with those given.

    It goes by steps that are as wide along each axis as the loss is flat: a label's curvature is at most a quarter of
    the clips' mean square there, plus the decay.
    """
    n_clips = len(scores)
    width = 1 / np.sqrt(np.append(squares / (4 * n_clips) + weight_decay, 0.25))[:, None]
    inputs = np.hstack([scores, np.ones((n_clips, 1))]) * width.T
    decay = np.append(np.full(len(squares), weight_decay), 0.0)[:, None] * width**2  # the bias is not pulled

    def loss_and_gradient(flat: FloatArray) -> tuple[float, FloatArray]:
        steps = flat.reshape(len(width), -1)
        logits = inputs @ steps
        loss = (np.logaddexp(0, logits) - y * logits).sum() / n_clips + (decay * steps**2).sum() / 2
        return loss, (inputs.T @ ((expit(logits) - y) / n_clips) + decay * steps).ravel()

    solution = minimize(
        loss_and_gradient,
        (np.vstack([weights, bias]) / width).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-6},  # logits right within 1e-3
    )
    result: FloatArray = solution.x.reshape(width.shape[0], -1) * width
    return result[:-1], result[-1]
