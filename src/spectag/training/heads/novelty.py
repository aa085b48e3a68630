"""Fit the novelty of sounds on the features of a frozen network and the held-out clips."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.data.folds import stratified_folds
from spectag.models.novelty import KEPT_FRACTION, NoveltyModel, unit_rows
from spectag.training.heads.logistic import Standardization
from spectag.training.heads.per_fold import FrozenFeatures
from spectag.training.setup.cross_validation import CrossValidation

_N_FOLDS = 5  # if no clips are held out for a score
_MIN_RECORDINGS = 3  # of the median label, for folds
_MAX_PAIRS = 1000  # of labels; those of most clips
_SMALLEST_LEVEL = 0.01  # if held-out clips are copies of training clips


def fit_novelty(data: FrozenFeatures, cross_validation: CrossValidation, *, seed: int = 0) -> NoveltyModel | None:
    """A model of the novelty of sounds, fitted on all training clips.

    Its level is that of held-out clips: the distances of clips that a model is fitted on are much smaller. Without
    held-out clips, folds are made for this purpose. A clip in parts has the smallest novelty of its parts. Clips with
    noisy labels are not used.

    Returns None if no clips are held out and the median label has fewer than three recordings, which are too few for
    folds.
    """
    targets, distances = cross_validation.targets, np.full(len(cross_validation.targets), np.nan)
    with threadpool_limits(1):
        for train, valid in _folds(cross_validation, seed):
            model = fit_directions(data.clips[train], targets[train], n_used=data.group_sizes[-1])
            distances[valid] = _distances(model, data, valid)
        known = distances[~np.isnan(distances)]
        if not len(known):
            return None
        level = max(float(np.quantile(known, KEPT_FRACTION)), _SMALLEST_LEVEL)
        final = cross_validation.trainings[-1].train
        model = fit_directions(data.clips[final], targets[final], n_used=data.group_sizes[-1])
    return replace(model, level=level, n_held_out=len(known))


def fit_directions(features: Float32Array, targets: BoolArray | FloatArray, *, n_used: int) -> NoveltyModel:
    """A model with level 1, fitted on features (n_clips, n_features) and labels (n_clips, n_labels), NaN if unknown.

    The direction of a label is that of the mean of its clips' directions. Clips that are known to have no label have a
    direction of their own. Pairs of labels that a clip has together count as labels.
    """
    used = features[:, -n_used:]
    standardization = Standardization.fit(used, [n_used])
    with_none = np.column_stack([targets == 1, (targets == 0).all(axis=1)])
    labels = with_none[:, with_none.any(axis=0)].astype(np.float64)
    directions = unit_rows(labels.T @ unit_rows(standardization(used)))
    return NoveltyModel(standardization.center, standardization.scale, directions.T, _combinations(directions, labels))


def _combinations(directions: FloatArray, y_true: FloatArray) -> FloatArray:
    """The weights (n_labels, n_candidates) of single labels, and of pairs that occur."""
    n_labels = len(directions)
    together = np.triu(y_true.T @ y_true, k=1)
    first, second = np.unravel_index(np.argsort(-together, axis=None, kind="stable")[:_MAX_PAIRS], together.shape)
    occur = together[first, second] > 0
    first, second = first[occur], second[occur]
    pairs = np.zeros((n_labels, len(first)))
    pairs[first, np.arange(len(first))] = pairs[second, np.arange(len(first))] = 1
    lengths = np.linalg.norm(directions[first] + directions[second], axis=1)
    return np.hstack([np.eye(n_labels), pairs[:, lengths > 0] / lengths[lengths > 0]])


def _distances(model: NoveltyModel, data: FrozenFeatures, rows: BoolArray) -> FloatArray:
    """The distances (n_rows,) of some clips, of long clips the smallest one of their parts."""
    distances = model.distances(data.clips[rows])
    for position, row in enumerate(np.flatnonzero(rows)):
        if (parts := data.parts.get(int(row))) is not None:
            distances[position] = model.distances(parts.features).min()
    return distances


def _folds(cross_validation: CrossValidation, seed: int) -> Iterator[tuple[BoolArray, BoolArray]]:
    """The training and held-out clips of each fold, bool arrays of shape (n_clips,)."""
    if any(fold.valid.any() for fold in cross_validation.folds):
        for fold in cross_validation.folds:
            if fold.train.any():
                yield fold.train, fold.valid
        return
    y_true = cross_validation.y_true
    groups = cross_validation.groups or tuple(map(str, range(len(y_true))))
    n_recordings = [len({groups[row] for row in np.flatnonzero(rows)}) for rows in y_true.T if rows.any()]
    median = int(np.median(n_recordings)) if n_recordings else 0
    if median < _MIN_RECORDINGS:
        return
    folds = stratified_folds(y_true, min(_N_FOLDS, median), groups=groups, seed=seed)
    for number in np.unique(folds):
        yield folds != number, folds == number
