"""Metrics of predictions: lwlrap, average precision, ROC-AUC, top-1 accuracy, and the thresholds of the best F1.

Everywhere `y_true` (bool, or 0 and 1) and `y_score` (logits or probabilities) have shape (n_clips, n_labels). NaN in
`y_true` marks an unknown label: the metric does not depend on what is predicted for it. A function raises a ValueError
if the shapes differ, or a score is NaN or infinite. A metric that is not defined for a label is NaN for that label.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from spectag.array_types import BoolArray, FloatArray, IntArray

_SCORES_PER_BLOCK = 2**19  # limits the memory of ranking


def lwlrap(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Label-weighted label-ranking average precision, above 0 up to 1 (best).

    For each true label of a clip, take the labels that score as high or higher in this clip, and the fraction of them
    that is true. lwlrap is the mean of this fraction over all true labels of all clips. It equals scikit-learn's
    `label_ranking_average_precision_score`, weighted by the number of labels of each clip.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
        Clips without a true label are ignored. Unknown labels (NaN) are left out of the ranking of their clip. A clip
        whose other labels are all unknown is ignored, because any scores would be right.
    y_score : float array of shape (n_clips, n_labels)
        Logits or probabilities: only their order within a clip matters. Ties take the worst rank.

    Returns
    -------
    float
        NaN where the score says nothing, because it is 1 for any scores: with one label, or if every clip with a label
        has all labels.

    Raises
    ------
    ValueError
        If the shapes differ, a score is NaN or infinite, or no clip has a true label.

    References
    ----------
    Fonseca et al., "Audio tagging with noisy labels and minimal supervision", DCASE 2019.

    Examples
    --------
    >>> lwlrap([[1, 1, 0], [0, 0, 1]], [[0.9, 0.2, 0.5], [0.1, 0.3, 0.2]])
    0.7222...
    >>> lwlrap([[1, 1, 0], [0, np.nan, 1]], [[0.9, 0.2, 0.5], [0.1, 0.3, 0.2]])
    0.8888...
    """
    truth, y_score = check_scores(y_true, y_score)
    if not truth.any():
        raise ValueError(f"lwlrap needs at least one clip with a true label; none of the {len(truth)} clips has one")
    if not decides_lwlrap(y_true).any():
        return math.nan
    ranked = ranked_labels(truth, y_score)
    return float(precision_at_labels(ranked, y_score).sum() / ranked.sum())


def ranked_labels(y_true: BoolArray, y_score: FloatArray) -> BoolArray:
    """The true labels that count in lwlrap: those of all clips, except where all other labels are unknown.

    Both have shape (n_clips, n_labels). In `y_score`, unknown labels are those that are not `is_known`.
    """
    known = is_known(y_score)
    says_nothing = (y_true == known).all(axis=1) & ~known.all(axis=1)
    return np.asarray(y_true & ~says_nothing[:, None])


def decides_lwlrap(y_true: ArrayLike) -> BoolArray:
    """Which clips, (n_clips,), may have a bad order of labels: those that have a label and lack another."""
    y_true = np.asarray(y_true)
    return np.asarray((y_true == 1).any(axis=1) & (y_true == 0).any(axis=1))


def selection_score(y_true: ArrayLike, y_score: ArrayLike) -> float | None:
    """The score by which training chooses: lwlrap, or mean average precision where lwlrap says nothing.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)

    Returns
    -------
    float or None
        Higher is better. None if neither says anything: every label is in no clip or in every clip where it is known.

    Examples
    --------
    >>> selection_score([[1], [0], [0]], [[0.5], [0.9], [0.1]]), selection_score([[1], [1]], [[0.5], [0.9]])
    (0.5, None)
    """
    check_scores(y_true, y_score)
    y_true, y_score = np.asarray(y_true), np.asarray(y_score)
    if decides_lwlrap(y_true).any():
        return lwlrap(y_true, y_score)
    is_informative = decides_lwlrap(y_true.T)
    if not is_informative.any():
        return None
    return float(average_precision(y_true[:, is_informative], y_score[:, is_informative]).mean())


def average_precision(y_true: ArrayLike, y_score: ArrayLike) -> FloatArray:
    """Average precision of each label over the clips; its mean is mAP.

    Equal to scikit-learn's `average_precision_score`: the area under the precision-recall steps, without
    interpolation.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
        Only the order of the clips within a label matters. Ties take the worst rank.

    Returns
    -------
    float array of shape (n_labels,)
        NaN for a label that no clip has.

    Examples
    --------
    >>> average_precision([[1, 0], [0, 0], [1, 0]], [[0.9, 0.2], [0.5, 0.1], [0.4, 0.3]]).round(3)
    array([0.833,   nan])
    """
    y_true, y_score = check_scores(y_true, y_score)
    return ratio(precision_at_labels(y_true.T, y_score.T).sum(axis=1), y_true.sum(axis=0))


def roc_auc(y_true: ArrayLike, y_score: ArrayLike) -> FloatArray:
    """Area under the ROC curve of each label: how often a clip with the label scores higher than one without it.

    A tie counts half. Equal to scikit-learn's `roc_auc_score`.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
        Only the order of the clips within a label matters.

    Returns
    -------
    float array of shape (n_labels,)
        NaN for a label that no clip or every clip has.

    References
    ----------
    Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 1982.

    Examples
    --------
    >>> roc_auc([[1], [0], [1]], [[0.9], [0.5], [0.5]])
    array([0.75])
    """
    y_true, y_score = check_scores(y_true, y_score)
    return np.array([_auc(truth, scores) for truth, scores in zip(y_true.T, y_score.T, strict=True)])


def _auc(truth: BoolArray, scores: FloatArray) -> float:
    with_label, without_label = scores[truth], np.sort(scores[~truth & is_known(scores)])
    if not with_label.size or not without_label.size:
        return math.nan
    n_below = np.searchsorted(without_label, with_label, side="left")
    n_not_above = np.searchsorted(without_label, with_label, side="right")
    return float((n_below + n_not_above).mean() / (2 * without_label.size))


def top1_accuracy(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Fraction of clips whose highest score belongs to their only label. Of equal scores, the first label counts.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)

    Raises
    ------
    ValueError
        If a clip has no label or several labels.

    Examples
    --------
    >>> top1_accuracy([[1, 0], [0, 1]], [[0.9, 0.2], [0.5, 0.4]])
    0.5
    """
    y_true, y_score = check_scores(y_true, y_score)
    if not is_single_label(y_true):
        clip = int((y_true.sum(axis=1) != 1).argmax())
        raise ValueError(f"top-1 accuracy needs one label for every clip; clip {clip} has {y_true[clip].sum()}")
    return float(y_true[np.arange(len(y_true)), y_score.argmax(axis=1)].mean())


def check_scores(y_true: ArrayLike, y_score: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Truth and scores as arrays; a ValueError if their shapes do not fit, or a score is NaN or infinite.

    Unknown labels (NaN in `y_true`) are not true and have the score -inf, see `is_known`. So they follow all others in
    a ranking, and are never detected.
    """
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if y_true.ndim != 2 or y_true.shape != y_score.shape or y_true.size == 0:
        raise ValueError(
            "y_true and y_score need one shape (n_clips, n_labels) with at least one clip and one label, "
            f"got {y_true.shape} and {y_score.shape}"
        )
    if not np.isfinite(y_score).all():
        clip, label = np.argwhere(~np.isfinite(y_score))[0]
        raise ValueError(f"y_score must be finite, got {y_score[clip, label]} for clip {clip}, label {label}")
    if y_true.dtype == np.bool_:
        return y_true, y_score
    unknown = np.isnan(y_true) if y_true.dtype.kind == "f" else np.zeros(y_true.shape, np.bool_)
    if not np.isin(y_true[~unknown], [0, 1]).all():
        raise ValueError("y_true must contain only 0 and 1, or False and True, and NaN for unknown labels")
    return y_true == 1, np.where(unknown, -np.inf, y_score)


def is_known(y_score: FloatArray) -> BoolArray:
    """For which of the scores from `check_scores` the truth is known."""
    return np.asarray(y_score > -np.inf)


def is_single_label(y_true: BoolArray) -> bool:
    """Whether every clip has exactly one label."""
    return bool((y_true.sum(axis=1) == 1).all())


def precision_at_labels(y_true: BoolArray, y_score: FloatArray) -> FloatArray:
    """For every true cell, the fraction of true cells among those of its row that score as high or higher; else 0."""
    precision = np.zeros(y_score.shape)
    n_rows = max(1, _SCORES_PER_BLOCK // y_score.shape[1])
    for start in range(0, len(y_score), n_rows):
        rows = slice(start, start + n_rows)
        precision[rows] = _precision_in_rows(y_true[rows], y_score[rows]) * y_true[rows]
    return precision


def _precision_in_rows(y_true: BoolArray, y_score: FloatArray) -> FloatArray:
    order = np.argsort(-y_score, axis=1)
    last = _last_of_ties(np.take_along_axis(y_score, order, axis=1))
    n_true = np.cumsum(np.take_along_axis(y_true, order, axis=1), axis=1)
    precision = np.empty(y_score.shape)
    np.put_along_axis(precision, order, np.take_along_axis(n_true, last, axis=1) / (last + 1), axis=1)
    return precision


def _last_of_ties(ranked: FloatArray) -> IntArray:
    """For each score of a row sorted by score, the position of the last score that equals it."""
    n_scores = ranked.shape[1]
    is_last = np.ones(ranked.shape, dtype=np.bool_)
    is_last[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
    positions = np.where(is_last, np.arange(n_scores), n_scores)
    return np.minimum.accumulate(positions[:, ::-1], axis=1)[:, ::-1]


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """The quotient; NaN where the denominator is 0."""
    quotient = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.not_equal(denominator, 0))
    return quotient
