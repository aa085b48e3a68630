"""Logistic regression by L-BFGS: the coefficients with the lowest logistic loss and L2 penalty."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from spectag.array_types import Float32Array, FloatArray

Bounds = Sequence[tuple[float | None, float | None]]


def fit_logistic(
    inputs: FloatArray | Float32Array,
    targets: FloatArray,
    start: FloatArray,
    *,
    l2_penalty: FloatArray,
    l2_center: FloatArray | float = 0.0,
    sample_weights: FloatArray | None = None,
    bounds: Bounds | None = None,
    ftol: float,
    gtol: float,
) -> FloatArray:
    """Coefficients (n_inputs, n_outputs) of logits = inputs @ coefficients that minimise

        mean over samples of the sum over outputs of sample_weight * logistic loss
        + sum over coefficients of l2_penalty / 2 * (coefficient - l2_center) ** 2

    Parameters
    ----------
    inputs : float array of shape (n_samples, n_inputs)
        Of float32 values, the products with them are of float32, too, which is twice as fast.
    targets : float array of shape (n_samples, n_outputs)
        From 0 to 1.
    start : float array of shape (n_inputs, n_outputs)
        Coefficients with which the search begins.
    l2_penalty, l2_center : arrays that broadcast to the coefficients
    sample_weights : float array of shape (n_samples,), (n_samples, 1) or (n_samples, n_outputs), optional
        By default all 1.
    bounds : sequence of (low, high), optional
        Of each coefficient, in the order of `start.ravel()`.
    ftol, gtol : float
        Where L-BFGS stops: relative change of the loss, greatest component of its gradient.
    """
    from scipy.optimize import minimize  # takes 0.1 s to import, and tagging does not need it

    n_samples = len(inputs)
    weights = np.ones(n_samples) if sample_weights is None else sample_weights
    weights = weights.reshape(n_samples, -1)

    def loss_and_gradient(flat: FloatArray) -> tuple[float, FloatArray]:
        coefficients = flat.reshape(start.shape)
        logits = inputs @ coefficients.astype(inputs.dtype, copy=False)
        losses = weights * (np.logaddexp(0, logits) - targets * logits)
        distance = coefficients - l2_center
        loss = losses.sum() / n_samples + (l2_penalty * distance**2).sum() / 2
        errors = (expit(logits) - targets) * (weights / n_samples)
        gradient = inputs.T @ errors.astype(inputs.dtype, copy=False) + l2_penalty * distance
        return loss, gradient.ravel()

    options = {"maxiter": 500, "ftol": ftol, "gtol": gtol}
    solution = minimize(loss_and_gradient, start.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.reshape(solution.x, start.shape)
