"""The weights of the members of an ensemble, and the held-out logits of all together."""

from collections.abc import Sequence

import numpy as np

from spectag.array_types import BoolArray, FloatArray
from spectag.scoring.blending import ONE_MODEL, EnsembleWeights, fit_ensemble_weights
from spectag.scoring.metrics import selection_score
from spectag.scoring.model_selection import HeldOutLogits, rescaled
from spectag.training.setup.cross_validation import CrossValidation

_TOLERATED_LOSS = 0.01
"""Held-out score that the ensemble may lose by a member before the member is left out."""


def blend(members: Sequence[HeldOutLogits], cross_validation: CrossValidation) -> tuple[EnsembleWeights, FloatArray]:
    """The weights of the members, and held-out logits (n_clips, n_labels) of the ensemble for its score.

    The weights are fitted on all held-out clips that have the logits of all members. For the logits of each part of the
    clips, they are fitted on the other parts, and the settings of the members are also chosen without this part. Clips
    without the logits of some members have those of an ensemble of the others, on the scale of the whole ensemble.
    """
    if len(members) == 1:
        return ONE_MODEL, cross_validation.cross_fitted(members[0])
    y_true, parts = cross_validation.targets, cross_validation.parts
    chosen = [member.chosen for member in members]
    weights = _fit_weights(chosen, y_true, parts >= 0)
    without = []
    for part in range(cross_validation.n_parts):
        logits = [member.without_part(part) for member in members]
        without.append(_fit_weights(logits, y_true, (parts >= 0) & (parts != part), default=weights)(logits))
    blended = cross_validation.cross_fitted(HeldOutLogits(weights(chosen), tuple(without)))
    complete = [member for member in members if has_logits(member.chosen)[parts >= 0].all()]
    is_missing = (parts >= 0) & ~has_logits(blended)
    if is_missing.any() and complete:
        _, of_complete = blend(complete, cross_validation)
        blended[is_missing] = rescaled(of_complete, blended)[is_missing]
    return weights, blended


def has_logits(logits: FloatArray) -> BoolArray:
    """Whether each clip (n_clips,) has logits, which are NaN for clips that were not held out."""
    return np.asarray(~np.isnan(logits).any(axis=1))


def _fit_weights(
    logits: Sequence[FloatArray],
    y_true: BoolArray | FloatArray,
    rows: BoolArray,
    default: EnsembleWeights | None = None,
) -> EnsembleWeights:
    """Weights of the members, fitted on these clips; the default, or equal weights, if none of them has a label.

    A member without which the held-out score is much better has no weight. A small gain does not count: held-out scores
    may favour one member by chance, and the ensemble is then better on other recordings.
    """
    rows = rows & ~np.isnan(logits).any(axis=(0, 2))
    if not (y_true[rows] == 1).any():
        return default or EnsembleWeights(tuple(1 / len(logits) for _ in logits))
    logits, y_true = [member[rows] for member in logits], y_true[rows]
    best: tuple[int, ...] = (0,)
    for newest in range(1, len(logits)):
        candidates = ((*best, newest), best, (newest,))
        scores = [
            selection_score(y_true, _weights_of(members, logits, y_true)(logits)) or 0.0 for members in candidates
        ]
        best = candidates[next(i for i, score in enumerate(scores) if score >= max(scores) - _TOLERATED_LOSS)]
    return _weights_of(best, logits, y_true)


def _weights_of(
    members: Sequence[int], logits: Sequence[FloatArray], y_true: BoolArray | FloatArray
) -> EnsembleWeights:
    """Fitted weights of the members with these indices, and 0 for the others."""
    fitted = ONE_MODEL if len(members) == 1 else fit_ensemble_weights([logits[i] for i in members], y_true)
    weights = np.zeros(len(logits))
    weights[list(members)] = fitted.weights
    return EnsembleWeights(tuple(weights.tolist()), fitted.bias)
