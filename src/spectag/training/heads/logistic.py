"""A linear head on frozen features: L2-regularised logistic regression for each label, fitted by L-BFGS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from spectag.array_types import AnyFloatArray, BoolArray, Float32Array, FloatArray
from spectag.models.clip_windows import FrameWindows
from spectag.scoring.logistic_loss import fit_logistic

WEIGHT_DECAYS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""Compared by cross-validation, strongest first; for features with a mean squared norm of 1."""

WIDER_WEIGHT_DECAYS = (0.1, 0.03, *WEIGHT_DECAYS, 3e-5, 1e-5)
"""Tried one by one beyond an end of WEIGHT_DECAYS as long as they are better."""

DEFAULT_WEIGHT_DECAY = 3e-4
"""Used without held-out clips: close to the best value from two clips to a hundred clips per label."""

FIRST_STAGE_SCALE = 0.7
"""Scale of the first stage's features relative to the last stage's. With 0.3, 0.5, 0.7 and 1, the accuracy of LDA with
one recording per label of ESC-10 is 0.905, 0.898, 0.890 and 0.881 for mn04 without its prior, which matters more, and
0.463, 0.470, 0.479 and 0.486 for efficientnet_lite0. With more recordings, and for mixed clips, 0.5 to 1 is the best
for efficientnet_lite0, by 0.003 to 0.009, and all are equal within 0.003 for mn04."""


_SMALLEST_WEIGHT = 1e-9  # of the clips whose label is known


@dataclass(frozen=True)
class Standardization:
    """Standardised features: (features - center) * scale."""

    center: FloatArray
    scale: FloatArray

    @classmethod
    def fit(
        cls, features: Float32Array, group_sizes: Sequence[int], clip_weights: FloatArray | None = None
    ) -> "Standardization":
        """Zero mean and, within a stage, equal standard deviations, larger for deeper stages; mean squared norm near 1.

        Without `clip_weights` (n_clips,), all clips count the same.
        """
        clip_weights = np.ones(len(features)) if clip_weights is None else clip_weights
        fractions = clip_weights / clip_weights.sum()
        depth = np.repeat(
            np.linspace(FIRST_STAGE_SCALE, 1.0, len(group_sizes)) if len(group_sizes) > 1 else 1.0, group_sizes
        )
        center: FloatArray = fractions @ features
        deviation = np.sqrt(fractions @ np.square(features - center))
        varies = deviation > 1e-6
        scale = np.where(varies, depth / np.where(varies, deviation, 1.0), 0.0) / np.sqrt(features.shape[1])
        return cls(center, scale)

    def __call__(self, features: Float32Array) -> FloatArray:
        return np.asarray((features - self.center) * self.scale)


@dataclass(frozen=True)
class LinearHead:
    """logits = (features - center) * scale @ weights + bias. With `windows`, those of a clip contain their maximum."""

    standardization: Standardization
    weights: FloatArray  # (n_features, n_labels)
    bias: FloatArray  # (n_labels,)
    windows: FrameWindows | None = None

    def logits(self, features: Float32Array) -> FloatArray:
        """Logits (n_clips, n_labels)."""
        return np.asarray(self.standardization(features) @ self.weights + self.bias)


@dataclass(frozen=True)
class PrincipalAxes:
    """Training clips along the principal axes of their standardised features, for fitting several heads.

    Attributes
    ----------
    standardization : Standardization
    axes : float array of shape (n_features, rank)
        Orthonormal; they span the clips.
    clips : float array of shape (n_clips, rank)
        The standardised features along the axes, as float64 or float32.
    squares : float array of shape (rank,)
        The weighted sum of the clips' squares along each axis.
    clip_weights : float array of shape (n_clips,)
        How much each clip counts; their mean is 1.
    """

    standardization: Standardization
    axes: FloatArray
    clips: AnyFloatArray
    squares: FloatArray
    clip_weights: FloatArray

    @classmethod
    def largest(cls, features: Float32Array, group_sizes: Sequence[int], n_axes: int) -> "PrincipalAxes":
        """Only the axes with the greatest deviations, in float32: for many rows, with little loss of information."""
        with threadpool_limits(1):
            standardization = Standardization.fit(features, group_sizes)
            x = standardization(features).astype(np.float32)
            n_features = x.shape[1]
            kept = max(n_features - n_axes, 0), n_features - 1
            squares, axes = eigh((x.T @ x).astype(np.float64), subset_by_index=kept)
            return cls(standardization, axes, x @ axes.astype(np.float32), squares.clip(0), np.ones(len(x)))

    def of_rows(self, rows: BoolArray) -> "PrincipalAxes":
        """Some of the clips along the same axes."""
        clips, weights = self.clips[rows], self.clip_weights[rows]
        squares = (weights / weights.mean()) @ np.square(clips, dtype=np.float64)
        return replace(self, clips=clips, squares=squares, clip_weights=weights / weights.mean())

    @classmethod
    def of(
        cls, features: Float32Array, group_sizes: Sequence[int], clip_weights: FloatArray | None = None
    ) -> "PrincipalAxes":
        """Those of the features (n_clips, n_features). Without `clip_weights` (n_clips,), all clips count the same."""
        with threadpool_limits(1):  # with a few cores, BLAS threads spend more time waiting than working
            standardization = Standardization.fit(features, group_sizes, clip_weights)
            x = standardization(features)
            clip_weights = np.ones(len(x)) if clip_weights is None else clip_weights / clip_weights.mean()
            axes, squares, clips = _principal_axes(x, clip_weights)
            return cls(standardization, axes, clips, squares, clip_weights)

    def head(self, weights: FloatArray, bias: FloatArray) -> LinearHead:
        """A head with these weights (rank, n_labels) along the axes."""
        return LinearHead(self.standardization, self.axes @ weights, bias)

    def logits(self, head: LinearHead) -> FloatArray:
        """Logits (n_clips, n_labels) of the training clips by a head with their standardisation."""
        return np.asarray(self.clips @ (self.axes.T @ head.weights) + head.bias)


def fit_heads(
    features: Float32Array,
    targets: BoolArray | FloatArray,
    group_sizes: Sequence[int],
    weight_decays: Sequence[float],
    *,
    clip_weights: FloatArray | None = None,
) -> list[LinearHead]:
    """As `fit_logistic_heads`, for features (n_clips, n_features) that are not along their principal axes yet.

    `group_sizes` are the numbers of features of each stage, first stage first.
    """
    return fit_logistic_heads(PrincipalAxes.of(features, group_sizes, clip_weights), targets, weight_decays)


def fit_logistic_heads(
    training: PrincipalAxes,
    targets: BoolArray | FloatArray,
    weight_decays: Sequence[float],
) -> list[LinearHead]:
    """A head for each weight decay.

    Each minimises the mean logistic loss of the clips plus weight_decay / 2 times the sum of the squared weights. The
    bias has no penalty.

    Parameters
    ----------
    training : PrincipalAxes
        The training clips.
    targets : array of shape (n_clips, n_labels)
        Labels, or the probability that each label is true. NaN: unknown; the clip does not count for this label.
    weight_decays : floats
        All above 0. Each fit starts from the solution of the one before.
    """
    with threadpool_limits(1):
        clips, n_clips = training.clips, len(training.clips)
        with_label, without_label = split_weights(training.clip_weights, targets)
        total = np.maximum((with_label + without_label).sum(axis=0), _SMALLEST_WEIGHT)
        rate = (with_label.sum(axis=0) / total).clip(0.5 / n_clips, 1 - 0.5 / n_clips)
        cell_weights = training.clip_weights[:, None]
        if np.isnan(targets).any():
            cell_weights = (with_label + without_label) * n_clips / total  # the loss is the mean over the known clips
        weights, bias = np.zeros((clips.shape[1], targets.shape[1])), np.log(rate / (1 - rate))
        y = np.where(np.isnan(targets), 0.0, targets)
        heads = []
        for weight_decay in weight_decays:
            weights, bias = _solve(clips, training.squares, y, cell_weights, weight_decay, weights, bias)
            heads.append(training.head(weights, bias))
        return heads


def split_weights(clip_weights: FloatArray, targets: BoolArray | FloatArray) -> tuple[FloatArray, FloatArray]:
    """How much each clip counts as one with each label, and as one without it, both (n_clips, n_labels).

    `clip_weights` have shape (n_clips,), `targets` (n_clips, n_labels). A clip whose label is unknown (NaN) is neither.
    """
    known = ~np.isnan(targets)
    probabilities = np.where(known, targets, 0.0)
    return clip_weights[:, None] * probabilities, clip_weights[:, None] * (known - probabilities)


def mean_and_deviation(logits: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Weighted mean and standard deviation of the logits (n_clips, n_labels) of all clips and labels together."""
    mean = np.average(logits, axis=0, weights=weights).mean()
    return float(mean), float(np.sqrt(np.average(np.square(logits - mean), axis=0, weights=weights).mean()))


def _principal_axes(x: FloatArray, clip_weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Orthonormal axes (n_features, rank) that span the clips, the sum of the clips' squares along each, and the clips.

    The optimal weights are a combination of these axes. The squares are weighted; the clips (n_clips, rank) are not.
    """
    factors = np.sqrt(clip_weights)[:, None]
    weighted = x * factors
    if len(x) < x.shape[1] and (clip_weights > 0).all():
        squares, vectors = eigh(weighted @ weighted.T, driver="evd")
        kept = squares > squares[-1] * 1e-10
        squares, vectors = squares[kept], vectors[:, kept]
        lengths = np.sqrt(squares)
        return weighted.T @ (vectors / lengths), squares, vectors * lengths / factors
    squares, vectors = eigh(weighted.T @ weighted, driver="evd")
    kept = squares > squares[-1] * 1e-10
    return vectors[:, kept], squares[kept], x @ vectors[:, kept]


def _solve(
    scores: AnyFloatArray,
    squares: FloatArray,
    y: FloatArray,
    cell_weights: FloatArray,
    weight_decay: float,
    weights: FloatArray,
    bias: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Weights along the axes, and bias, of the smallest loss, starting from the given ones.

    The search runs in scaled coordinates in which the curvature of the loss is at most 1: along an axis it is at most a
    quarter of the clips' mean square there, plus the decay. With float32, rounding errors stop it earlier.
    """
    n_clips = len(scores)
    width = 1 / np.sqrt(np.append(squares / (4 * n_clips) + weight_decay, 0.25))[:, None]
    is_single = scores.dtype == np.float32
    inputs = (np.hstack([scores, np.ones((n_clips, 1), scores.dtype)]) * width.T).astype(scores.dtype, copy=False)
    decay = np.append(np.full(len(squares), weight_decay), 0.0)[:, None] * width**2  # no penalty on the bias

    coefficients = width * fit_logistic(
        inputs,
        y,
        np.vstack([weights, bias]) / width,
        l2_penalty=decay,
        sample_weights=cell_weights,
        ftol=1e-6 if is_single else 1e-12,
        gtol=1e-4 if is_single else 1e-6,  # logits are accurate to 1e-3
    )
    return coefficients[:-1], coefficients[-1]
