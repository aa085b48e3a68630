"""Ensembles: several models combined by a weighted sum of their logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from spectag.array_types import FloatArray
from spectag.scoring.logistic_loss import fit_logistic

L2_PENALTY = 20.0
"""Penalty for unequal contributions, in nats over all held-out clips; see `fit_ensemble_weights`.

Chosen on a synthetic data set of 300 clips and 10 labels, whose held-out clips overrate a fine-tuned member. Without
the penalty this member contributes 0.79 beside a frozen one, and the cross-entropy on the test set is 2.085 per clip;
with it, 0.69 and 2.060. With a weak third member: 2.147 without and 2.109 with the penalty. With one of pure noise:
2.085 and 2.015, and a contribution of 0.04. Half or twice the penalty is as good within 0.02.
"""


@dataclass(frozen=True)
class EnsembleWeights:
    """How to combine the logits of the members: sum of weights[m] * logits[m], plus bias."""

    weights: tuple[float, ...]
    bias: float = 0.0

    def __call__(self, logits: Sequence[ArrayLike]) -> FloatArray:
        """The combined logits.

        Parameters
        ----------
        logits : sequence of float arrays of shape (n_clips, n_labels) or (n_labels,)
            One array per member, all of the same shape.

        Raises
        ------
        ValueError
            If the number of arrays is not that of the weights, or their shapes differ.
        """
        if len(logits) != len(self.weights):
            raise ValueError(f"need the logits of {len(self.weights)} members, got those of {len(logits)}")
        weights = np.array(self.weights)
        is_used = weights != 0  # a member without weight may have NaN
        return np.asarray(np.tensordot(weights[is_used], _stack(logits)[is_used], axes=1) + self.bias)


ONE_MODEL = EnsembleWeights((1.0,))
"""The weights of a single model."""


def fit_ensemble_weights(logits: Sequence[ArrayLike], y_true: ArrayLike) -> EnsembleWeights:
    """The weights with the lowest binary cross-entropy on clips that the members were not trained on.

    The contribution of a member is its weight times the standard deviation of its logits, so that the scale of its
    logits does not matter. Contributions are shrunk towards equal ones: to the cross-entropy, summed over clips and
    labels, this penalty is added:

        L2_PENALTY / 2 * sum over members of (contribution / equal contribution - 1) ** 2

    So with a few hundred clips no member dominates by chance, or because it was selected on these same clips. With
    many clips, the data decide. Targets are slightly below 1 and above 0 (as Platt proposes), which keeps the weights
    finite if the members make no mistake.

    Parameters
    ----------
    logits : sequence of float arrays of shape (n_clips, n_labels)
        One array per member. Clips that have NaN in any of them are ignored.
    y_true : bool array of shape (n_clips, n_labels)
        Or 0 and 1, and NaN for unknown labels, which are ignored.

    Returns
    -------
    EnsembleWeights
        Weights of 0 or more (0 for a harmful member) and one bias for all labels. For one member, `ONE_MODEL`. If every
        member is harmful, all contribute equally.

    Raises
    ------
    ValueError
        If there is no member, shapes differ, logits are infinite, or no clip has the logits of all members.

    References
    ----------
    Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers 1999.
    """
    scores, cells = _complete_clips(logits, y_true)
    n_members = len(scores)
    if n_members == 1:
        return ONE_MODEL
    means, deviations = scores.mean(axis=(1, 2)), scores.std(axis=(1, 2))
    deviations[deviations == 0] = np.inf  # constant logits carry no information
    known = ~np.isnan(cells)
    standardised_logits = ((scores - means[:, None, None]) / deviations[:, None, None])[:, known]
    truth = cells[known] == 1
    n_true, n_false = truth.sum(), (~truth).sum()
    targets = np.where(truth, (n_true + 1) / (n_true + 2), 1 / (n_false + 2))
    with threadpool_limits(1):  # with a few cores, BLAS threads spend more time waiting than working
        total, bias = _fit_contributions(standardised_logits.mean(axis=0, keepdims=True), targets, np.ones(1), 0.0, 0.0)
        equal = np.full(n_members, (total[0] or 1.0) / n_members)
        contributions, bias = _fit_contributions(standardised_logits, targets, equal, bias, L2_PENALTY)
    weights = (contributions if contributions.any() else equal) / deviations
    return EnsembleWeights(tuple(weights.tolist()), float(bias - weights @ means))


def _complete_clips(logits: Sequence[ArrayLike], y_true: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Logits (n_members, n_clips, n_labels) and truth of the clips that have the logits of all members."""
    if len(logits) == 0:
        raise ValueError("need the logits of at least one member, got none")
    scores, truth = _stack(logits), np.asarray(y_true, np.float64)
    if truth.ndim != 2 or scores.shape[1:] != truth.shape:
        raise ValueError(
            f"need y_true of shape (n_clips, n_labels) and logits of the same, got {truth.shape} and {scores.shape[1:]}"
        )
    if np.isinf(scores).any():
        raise ValueError("need finite logits, or NaN for clips to ignore, got infinity")
    is_complete = ~np.isnan(scores).any(axis=(0, 2))
    if not is_complete.any():
        raise ValueError(f"none of {len(truth)} clips has the logits of all {len(scores)} members")
    return scores[:, is_complete], truth[is_complete]


def _stack(logits: Sequence[ArrayLike]) -> FloatArray:
    arrays = [np.asarray(member_logits, np.float64) for member_logits in logits]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"need logits of one shape from all members, got {[array.shape for array in arrays]}")
    return np.stack(arrays)


def _fit_contributions(
    standardised_logits: FloatArray, targets: FloatArray, center: FloatArray, bias: float, l2_penalty: float
) -> tuple[FloatArray, float]:
    """Contributions (n_members,) of 0 or more, and bias; logits have shape (n_members, n_targets)."""
    n_members, n_targets = standardised_logits.shape
    coefficients = fit_logistic(
        np.vstack([standardised_logits, np.ones(n_targets)]).T,
        targets[:, None],
        np.append(center, bias)[:, None],
        l2_penalty=np.append(l2_penalty / center**2, 0.0)[:, None] / n_targets,
        l2_center=np.append(center, 0.0)[:, None],
        bounds=[(0, None)] * n_members + [(None, None)],
        ftol=1e-14,
        gtol=1e-8,
    )[:, 0]
    return coefficients[:-1], float(coefficients[-1])
