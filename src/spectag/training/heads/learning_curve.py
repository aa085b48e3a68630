"""How the held-out score of a head that is fitted exactly grows with the number of recordings.

The heads of the folds are fitted again on a quarter and a half of their recordings, with the settings that are chosen
for all of them. Clips with noisy labels are all trained on.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.training.heads.logistic import LinearHead
from spectag.training.heads.per_fold import FrozenFeatures, HeadFit, for_each_fold
from spectag.training.setup.cross_validation import CrossValidation, Fold

FRACTIONS = (0.25, 0.5)
"""Of the recordings that each fold is trained on."""

MAX_CLIPS = 3000
"""With more clips to train on (plain, noisy and mixed ones) there is no curve: it takes long, and they gain little."""

_FEWEST_TIMES = 1.2
"""Each point has at least this many times as many recordings as the one before."""

_SMALLEST_ERROR = 1e-3
"""Smaller errors count as this one, because a few clips more or less are chance, and 0 has no logarithm."""


@dataclass(frozen=True)
class LearningCurve:
    """Scores of the held-out clips (lwlrap, or mAP where lwlrap says nothing) after training on fewer recordings.

    Attributes
    ----------
    fractions : tuple of float
        The fraction of each fold's training recordings, ascending; the last one is 1. It is larger than those in
        `FRACTIONS` where labels have few recordings, because each label keeps at least one.
    scores : tuple of float
        The score with each fraction.
    """

    fractions: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def expected(self) -> float:
        """The score to expect with twice as many recordings: see `extrapolate`."""
        return extrapolate(self.fractions, self.scores)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"expected": self.expected}


def extrapolate(fractions: Sequence[float], scores: Sequence[float]) -> float:
    """The score to expect with twice as many recordings.

    The error, 1 - score, is a power of the number of recordings. The exponent is fitted to the logarithms of all
    points by least squares, and is not above 0. The curve goes through the last point.

    Parameters
    ----------
    fractions : sequence of float
        Two different ones or more, the last one is 1.
    scores : sequence of float
        Below or equal to 1.

    Examples
    --------
    >>> round(extrapolate([0.25, 0.5, 1], [0.6, 0.8, 0.9]), 3)
    0.95
    """
    errors = np.maximum(1 - np.asarray(scores), _SMALLEST_ERROR)
    exponent = np.polyfit(np.log(fractions), np.log(errors), 1)[0]
    return float(1 - (1 - scores[-1]) * 2 ** min(exponent, 0))


def learning_curve(
    data: FrozenFeatures, cross_validation: CrossValidation, fit: HeadFit[LinearHead], *, seed: int
) -> LearningCurve | None:
    """The learning curve of heads, with the settings that were chosen for all recordings.

    Parameters
    ----------
    data : FrozenFeatures
    cross_validation : CrossValidation
    fit : HeadFit
        The result of `fit_linear_heads` for these.
    seed : int
        Decides which recordings are drawn.

    Returns
    -------
    LearningCurve or None
        None without labelled held-out clips, above `MAX_CLIPS` clips, and if there are too few recordings to train on
        fewer.
    """
    score = cross_validation.score(cross_validation.cross_fitted(fit.logits))
    trained_on = (data.clips, data.noisy, None if data.mixed is None else data.mixed.features)
    n_clips = sum(len(features) for features in trained_on if features is not None)
    if fit.refit is None or score is None or n_clips > MAX_CLIPS:
        return None
    points = [(1.0, score)]
    for fraction in reversed(FRACTIONS):
        fewer, drawn = _with_fewer_recordings(cross_validation, fraction, seed)
        if drawn * _FEWEST_TIMES > points[-1][0]:
            break
        score = fewer.score(_held_out_logits(data, fewer, fit.refit))
        assert score is not None, "the held-out clips are those of `cross_validation`"
        points.append((drawn, score))
    if len(points) == 1:
        return None
    fractions, scores = zip(*reversed(points), strict=True)
    return LearningCurve(fractions, scores)


def _with_fewer_recordings(
    cross_validation: CrossValidation, fraction: float, seed: int
) -> tuple[CrossValidation, float]:
    """The same folds, trained on a fraction of their recordings, and the fraction that these really are."""
    y_true, groups = cross_validation.y_true, cross_validation.groups
    recordings = np.unique(range(len(y_true)) if groups is None else groups, return_inverse=True)[1]
    rng = np.random.default_rng(seed)  # the same order for each fraction, so that a quarter is mostly part of the half
    folds, n_drawn, n_all = [], 0, 0
    for fold in cross_validation.folds:
        train = np.zeros(len(y_true), bool)
        train[fold.train] = draw_recordings(y_true[fold.train], recordings[fold.train], fraction, rng)
        folds.append(replace(fold, train=train))
        n_drawn += len(np.unique(recordings[train]))
        n_all += len(np.unique(recordings[fold.train]))
    return replace(cross_validation, folds=tuple(folds)), n_drawn / n_all


def draw_recordings(y_true: BoolArray, recordings: IntArray, fraction: float, rng: np.random.Generator) -> BoolArray:
    """Which clips, (n_clips,), belong to a random fraction of the recordings of each label; at least one of each.

    Labels are drawn for one after the other, the rarest first. Clips without a label count as a label.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
    recordings : int array of shape (n_clips,)
        The recording of each clip. The clips of a recording stay together.
    fraction : float
        Above 0 and below 1. Where it is no whole number of recordings, it is rounded up or down by chance.
    rng : numpy.random.Generator
    """
    names, numbers = np.unique(recordings, return_inverse=True)
    has_label = np.zeros((len(names), y_true.shape[1] + 1), bool)
    np.logical_or.at(has_label, numbers, np.column_stack([y_true, ~y_true.any(axis=1)]))
    counts = has_label.sum(axis=0)
    wanted = np.maximum(np.floor(fraction * counts + rng.random(len(counts))), 1)
    order = rng.permutation(len(names))
    drawn = np.zeros(len(names), bool)
    for label in np.argsort(counts, kind="stable"):
        n_missing = int(wanted[label]) - int(has_label[drawn, label].sum())
        candidates = order[has_label[order, label] & ~drawn[order]]
        drawn[candidates[: max(n_missing, 0)]] = True
    return np.asarray(drawn[numbers])


def _held_out_logits(
    data: FrozenFeatures, cross_validation: CrossValidation, refit: Callable[[Fold, int], LinearHead]
) -> FloatArray:
    """Held-out logits (n_clips, n_labels), each by settings that are chosen without the clip's part."""
    logits = np.full(cross_validation.y_true.shape, np.nan)

    def predict(fold: Fold) -> None:
        for part in np.unique(cross_validation.parts[fold.valid]):
            rows = fold.valid & (cross_validation.parts == part)
            head = refit(fold, int(part))
            logits[rows] = data.logits(head.logits, rows, head.windows)

    list(for_each_fold(predict, cross_validation.folds))
    return logits
