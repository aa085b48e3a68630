"""How good probabilities are: arrays of truth and scores in, numbers out.

Everywhere `y_true` (bool, or 0 and 1) and `y_score` (logits or probabilities) are of shape (n_clips, n_labels), and a
ValueError says so if their shapes differ or a score is NaN or infinite. A score that is not defined for a label is NaN
there, and is left out of the mean over the labels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from spectag.array_types import BoolArray, FloatArray, IntArray

Metric = Callable[[BoolArray, FloatArray], float]

_SCORES_AT_ONCE = 2**19  # how many scores are ranked at once, to keep memory flat


def lwlrap(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Label-weighted label-ranking average precision, above 0 up to 1 (best).

    The mean, over all true labels of all clips, of the share of true labels among those that score as high or higher
    in that clip. It equals scikit-learn's `label_ranking_average_precision_score` weighted by each clip's number of
    labels.

    Parameters
    ----------
    y_true : bool array of shape (n_clips, n_labels)
        Clips without a true label do not count.
    y_score : float array of shape (n_clips, n_labels)
        Logits or probabilities: only their order within a clip matters. Ties take the worst rank.

    Returns
    -------
    float

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
    """
    precision, n_labels = _lwlrap_per_clip(y_true, y_score)
    return float(precision.sum() / n_labels.sum())


def lwlrap_per_label(y_true: ArrayLike, y_score: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The lwlrap of each label, and each label's weight in the overall lwlrap.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
        As for `lwlrap`, with the same errors.

    Returns
    -------
    values : float array of shape (n_labels,)
        NaN for a label that no clip has.
    weights : float array of shape (n_labels,)
        Each label's share of all true labels; they sum to 1.

    Examples
    --------
    >>> values, weights = lwlrap_per_label([[1, 1, 0], [0, 1, 0]], [[0.9, 0.2, 0.5], [0.1, 0.3, 0.2]])
    >>> values.round(3), weights.round(3)
    (array([1.   , 0.833,   nan]), array([0.333, 0.667, 0.   ]))
    """
    y_true, y_score = check_labelled(y_true, y_score)
    n_clips = y_true.sum(axis=0)
    return ratio(precision_at_labels(y_true, y_score).sum(axis=0), n_clips), n_clips / n_clips.sum()


def average_precision(y_true: ArrayLike, y_score: ArrayLike) -> FloatArray:
    """Average precision of each label over the clips; its mean is mAP.

    Equal to scikit-learn's `average_precision_score` (the area under the precision-recall steps, not interpolated).

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
    """Area under each label's ROC curve: how often a clip with the label scores above one without; a tie counts half.

    Equal to scikit-learn's `roc_auc_score`.

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
    with_label, without = scores[truth], np.sort(scores[~truth])
    if not with_label.size or not without.size:
        return math.nan
    n_below = np.searchsorted(without, with_label, side="left")
    n_not_above = np.searchsorted(without, with_label, side="right")
    return float((n_below + n_not_above).mean() / (2 * without.size))


def d_prime(auc: float) -> float:
    """Distance between the scores with and without a label that gives this ROC-AUC, in standard deviations.

    Parameters
    ----------
    auc : float
        From 0 to 1, or NaN; 1 gives infinity.

    Raises
    ------
    ValueError
        If `auc` is below 0 or above 1.

    References
    ----------
    Simpson and Fitter, "What is the best index of detectability?", Psychological Bulletin 1973: for two normal
    distributions of one variance, d' = sqrt(2) * norm.ppf(auc).

    Examples
    --------
    >>> d_prime(0.5), round(d_prime(0.97), 3)
    (0.0, 2.66)
    """
    if not (math.isnan(auc) or 0 <= auc <= 1):
        raise ValueError(f"a ROC-AUC is from 0 to 1, got {auc:g}")
    return float(math.sqrt(2) * ndtri(auc))


@dataclass(frozen=True, eq=False)
class F1Scores:
    """F1 over all decisions (micro), as the mean over the labels (macro), and of each label, (n_labels,)."""

    micro: float
    macro: float
    per_label: FloatArray


def f1_scores(y_true: ArrayLike, y_score: ArrayLike, *, thresholds: ArrayLike = 0.5) -> F1Scores:
    """F1 of the tags given where a score reaches its label's threshold.

    Equal to scikit-learn's `f1_score` with `zero_division=nan`: a label that is nowhere true and nowhere given has no
    F1 (NaN) and is left out of the mean; a label that is given but nowhere true has an F1 of 0.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
    thresholds : float, or float array of shape (n_labels,) or (n_clips, n_labels)
        On the scale of the scores. A tag is given where score >= threshold.

    Raises
    ------
    ValueError
        If a threshold is NaN, or there is not one for all, one for each label, or one for each score.

    Examples
    --------
    >>> f1 = f1_scores([[1, 0], [0, 1], [1, 1]], [[0.9, 0.2], [0.5, 0.8], [0.4, 0.7]])
    >>> round(f1.micro, 3), f1.macro, f1.per_label
    (0.75, 0.75, array([0.5, 1. ]))
    """
    y_true, y_score = check_scores(y_true, y_score)
    given = y_score >= _check_thresholds(thresholds, y_true.shape)
    n_hits, n_given, n_true = (y_true & given).sum(axis=0), given.sum(axis=0), y_true.sum(axis=0)
    per_label = ratio(2 * n_hits, n_given + n_true)
    micro = ratio(2 * n_hits.sum(), n_given.sum() + n_true.sum())
    return F1Scores(micro=float(micro), macro=mean_of_defined(per_label), per_label=per_label)


def best_thresholds(y_true: ArrayLike, y_score: ArrayLike, *, min_positives: int = 3) -> FloatArray:
    """For each label, the threshold with the best F1 on these clips.

    It lies midway between the lowest score that is given the tag and the next lower one; where every clip is given the
    tag, it is the lowest score. Of thresholds with equal F1 the highest is taken. Fit on predictions for clips that
    the model was not trained on, such as out-of-fold ones.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
    min_positives : int
        A label that fewer clips have gets no threshold.

    Returns
    -------
    float array of shape (n_labels,)
        To be used as score >= threshold. NaN where a threshold can't be fitted, for the caller to replace by a
        default: fewer than `min_positives` clips have the label, or none does, or every one does.

    Examples
    --------
    >>> best_thresholds([[1, 0], [0, 0], [1, 1]], [[0.9, 0.2], [0.3, 0.8], [0.4, 0.7]], min_positives=2)
    array([0.35,  nan])
    """
    y_true, y_score = check_scores(y_true, y_score)
    n_positives = y_true.sum(axis=0)
    fitted = (n_positives >= max(min_positives, 1)) & (n_positives < len(y_true))
    thresholds = np.full(y_true.shape[1], np.nan)
    for label in np.flatnonzero(fitted):
        thresholds[label] = _best_threshold(y_true[:, label], y_score[:, label])
    return thresholds


def _best_threshold(truth: BoolArray, scores: FloatArray) -> float:
    order = np.argsort(-scores)
    ranked = scores[order]
    n_given = np.arange(1, len(scores) + 1)
    f1 = 2 * np.cumsum(truth[order]) / (n_given + truth.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = 0  # no threshold parts equal scores
    return threshold_below(ranked, int(f1.argmax()))


def threshold_below(ranked: FloatArray, last_given: int) -> float:
    """The threshold that gives a tag to all of these falling scores down to that place: midway to the next lower."""
    lowest_given, next_lower = ranked[last_given], ranked[min(last_given + 1, len(ranked) - 1)]
    midway = float(lowest_given / 2 + next_lower / 2)
    return midway if midway > next_lower else float(lowest_given)  # neighbouring floats have nothing between them


def top1_accuracy(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Share of clips whose highest score is at their one label; of equal scores the first label's counts.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)

    Raises
    ------
    ValueError
        If a clip has no label or several.

    Examples
    --------
    >>> top1_accuracy([[1, 0], [0, 1]], [[0.9, 0.2], [0.5, 0.4]])
    0.5
    """
    return float(_top1_per_clip(y_true, y_score)[0].mean())


def bootstrap_interval(
    metric: Metric,
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    rng: np.random.Generator,
    groups: ArrayLike | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of a metric when the clips are drawn again and again, with replacement (percentile bootstrap).

    Parameters
    ----------
    metric : function of (y_true, y_score) that gives a float
        `lwlrap` and `top1_accuracy` are quick: their clips are ranked once. Any other is computed on every resample;
        resamples where it is NaN are left out.
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
    rng : np.random.Generator
    groups : array of shape (n_clips,), optional
        Names or numbers: clips of one group, such as a recording, are drawn together. By default each by itself.
    n_resamples : int
    confidence : float
        Share of the resamples that lie in the interval.

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        If the arrays do not suit the metric, `n_resamples` is below 1, `confidence` is not between 0 and 1, or the
        metric is NaN on every resample.

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.

    Examples
    --------
    >>> y_true, y_score = np.eye(4, dtype=bool)[[0, 1, 2, 3] * 25], np.eye(4)[[0, 1, 2, 0] * 25]
    >>> low, high = bootstrap_interval(top1_accuracy, y_true, y_score, rng=np.random.default_rng(0))
    >>> low < 0.75 < high
    True
    """
    if n_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"need n_resamples >= 1 and 0 < confidence < 1, got n_resamples={n_resamples} and confidence={confidence:g}"
        )
    y_true, y_score = check_scores(y_true, y_score)
    members = [np.array([clip]) for clip in range(len(y_true))] if groups is None else _members(np.asarray(groups))
    statistic, n_groups = _resampled(metric, y_true, y_score, members), len(members)
    values = np.array([statistic(rng.integers(n_groups, size=n_groups)) for _ in range(n_resamples)])
    values = values[~np.isnan(values)]
    if not values.size:
        raise ValueError(f"the metric is NaN on each of {n_resamples} resamples of the {len(y_true)} clips")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _members(groups: NDArray[np.generic]) -> list[IntArray]:
    """The positions of each group's clips, groups in the order in which they come first."""
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return [np.flatnonzero(numbers == number) for number in order]


def _resampled(
    metric: Metric, y_true: BoolArray, y_score: FloatArray, members: Sequence[IntArray]
) -> Callable[[IntArray], float]:
    """The metric as a function of the groups that it counts, whose clips are at the positions `members`."""
    if metric not in _PER_CLIP:

        def on_clips(groups: IntArray) -> float:
            clips = np.concatenate([members[group] for group in groups])
            return metric(y_true[clips], y_score[clips])

        return on_clips
    numerators, denominators = (
        np.array([values[clips].sum() for clips in members]) for values in _PER_CLIP[metric](y_true, y_score)
    )
    return lambda groups: float(ratio(numerators[groups].sum(), denominators[groups].sum()))


def _lwlrap_per_clip(y_true: ArrayLike, y_score: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Each clip's sum of precisions at its labels, and its number of labels."""
    y_true, y_score = check_labelled(y_true, y_score)
    return precision_at_labels(y_true, y_score).sum(axis=1), y_true.sum(axis=1, dtype=np.float64)


def _top1_per_clip(y_true: ArrayLike, y_score: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """1 for each clip whose highest score is at its label, else 0; and 1 for each clip."""
    y_true, y_score = check_scores(y_true, y_score)
    if not is_single_label(y_true):
        clip = int((y_true.sum(axis=1) != 1).argmax())
        raise ValueError(f"top-1 accuracy needs one label for every clip; clip {clip} has {y_true[clip].sum()}")
    clips = np.arange(len(y_true))
    return y_true[clips, y_score.argmax(axis=1)].astype(np.float64), np.ones(len(y_true))


# Metrics that are a ratio of two sums over clips: resampling the summands is all that their bootstrap needs.
_PER_CLIP: dict[Metric, Callable[[ArrayLike, ArrayLike], tuple[FloatArray, FloatArray]]] = {
    lwlrap: _lwlrap_per_clip,
    top1_accuracy: _top1_per_clip,
}


def check_scores(y_true: ArrayLike, y_score: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Truth and scores as arrays; a ValueError if they do not fit, or a score is NaN or infinite."""
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if y_true.ndim != 2 or y_true.shape != y_score.shape or y_true.size == 0:
        raise ValueError(
            "y_true and y_score need one shape (n_clips, n_labels) with at least one clip and one label, "
            f"got {y_true.shape} and {y_score.shape}"
        )
    if not np.isfinite(y_score).all():
        clip, label = np.argwhere(~np.isfinite(y_score))[0]
        raise ValueError(f"y_score must be finite, got {y_score[clip, label]} for clip {clip}, label {label}")
    if y_true.dtype != np.bool_ and not np.isin(y_true, [0, 1]).all():
        raise ValueError("y_true must hold only 0 and 1, or False and True")
    return y_true.astype(np.bool_), y_score


def check_labelled(y_true: ArrayLike, y_score: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Truth and scores as arrays; a ValueError if they do not fit, or no clip has a true label."""
    y_true, y_score = check_scores(y_true, y_score)
    if not y_true.any():
        raise ValueError(f"none of the {len(y_true)} clips has a true label: lwlrap needs at least one")
    return y_true, y_score


def _check_thresholds(thresholds: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.shape not in [(), shape[1:], shape]:
        raise ValueError(f"thresholds must be one number or of shape {shape[1:]} or {shape}, got {thresholds.shape}")
    if np.isnan(thresholds).any():
        raise ValueError("a threshold is NaN: give a default to the labels that have no fitted threshold")
    return thresholds


def is_single_label(y_true: BoolArray) -> bool:
    """Whether every clip has exactly one label."""
    return bool((y_true.sum(axis=1) == 1).all())


def precision_at_labels(y_true: BoolArray, y_score: FloatArray) -> FloatArray:
    """At every true cell, the share of true ones among the cells of its row that score as high or higher; else 0."""
    precision = np.zeros(y_score.shape)
    n_rows = max(1, _SCORES_AT_ONCE // y_score.shape[1])
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
    """For each score of a row sorted by score, the position of the last one that equals it."""
    n_scores = ranked.shape[1]
    is_last = np.ones(ranked.shape, dtype=np.bool_)
    is_last[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
    positions = np.where(is_last, np.arange(n_scores), n_scores)
    return np.minimum.accumulate(positions[:, ::-1], axis=1)[:, ::-1]


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """Their quotient; NaN where the denominator is 0."""
    quotient = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.not_equal(denominator, 0))
    return quotient


def mean_of_defined(values: FloatArray) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
