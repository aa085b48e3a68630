"""Every score of a tagger on clips that are drawn again and again: what the intervals of an evaluation are made of.

A resample is told by how often it counts each clip, so each label's clips are sorted once for all resamples.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import ndtri

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.scoring.metrics import check_scores, is_single_label, precision_at_labels, ratio

CountArray = NDArray[np.uint16]

PER_LABEL = ("lwlrap", "average_precision", "roc_auc", "d_prime", "f1", "precision", "recall")
"""The scores of a label."""

OVERALL = (
    "lwlrap",
    "mean_average_precision",
    "roc_auc",
    "d_prime",
    "f1_micro",
    "f1_macro",
    "precision_micro",
    "precision_macro",
    "recall_micro",
    "recall_macro",
    "top1_accuracy",
)
"""The scores of all labels together; the last one only where every clip has one label."""

_ROUNDING = 1e-12  # a difference below is none
_COUNTS_AT_ONCE = 2**20  # how many counts of clips are in hand, to stay in the processor's cache


@dataclass(frozen=True, eq=False)
class SampledScores:
    """Scores on each resample, by their names; NaN where a score is not defined there.

    Those of `overall` are of shape (n_resamples,), those of `per_label` of shape (n_resamples, n_labels).
    """

    overall: dict[str, FloatArray]
    per_label: dict[str, FloatArray]


def draw_groups(groups: Sequence[Hashable], *, n_resamples: int, rng: np.random.Generator) -> CountArray:
    """How often each resample counts each clip, when whole groups are drawn with replacement.

    Clips of one recording are alike: drawn one by one they would make a score look surer than it is.

    Parameters
    ----------
    groups : sequence of n_clips names
        Clips of one name are drawn together.
    n_resamples : int
    rng : np.random.Generator

    Returns
    -------
    uint16 array of shape (n_clips, n_resamples)

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 8: what is drawn is what is independent.

    Examples
    --------
    >>> draw_groups(["a", "a", "b"], n_resamples=2, rng=np.random.default_rng(1))
    array([[1, 0],
           [1, 0],
           [1, 2]], dtype=uint16)
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    n_groups = len(numbers)
    counts = np.empty((n_groups, n_resamples), np.uint16)
    for resample in range(n_resamples):
        counts[:, resample] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
    return counts[[numbers[group] for group in groups]]


def sampled_scores(
    y_true: ArrayLike, y_score: ArrayLike, given: BoolArray, counts: NDArray[np.integer]
) -> SampledScores:
    """Every score of these predictions on resamples of their clips.

    A score on a resample is what `spectag.scoring.metrics` gives of the clips so often repeated.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
    given : bool array of shape (n_clips, n_labels)
        Which labels the tagger gives the clip, for F1, precision and recall.
    counts : integer array of shape (n_clips, n_resamples)
        How often a resample counts a clip; ones give the scores of the clips as they are.

    Raises
    ------
    ValueError
        If the shapes differ, or a score is NaN or infinite.
    """
    y_true, y_score = check_scores(y_true, y_score)
    if given.shape != y_true.shape or counts.ndim != 2 or len(counts) != len(y_true):
        raise ValueError(
            f"need given of shape {y_true.shape} and counts of shape ({len(y_true)}, n_resamples), "
            f"got {given.shape} and {counts.shape}"
        )
    judge = _Judge(y_true, y_score, given)
    some = max(1, _COUNTS_AT_ONCE // len(y_true))
    blocks = [
        judge(counts[:, start : start + some].astype(np.float64)) for start in range(0, max(1, counts.shape[1]), some)
    ]
    overall = {name: np.concatenate([block.overall[name] for block in blocks]) for name in blocks[0].overall}
    per_label = {name: np.concatenate([block.per_label[name] for block in blocks]) for name in PER_LABEL}
    return SampledScores(overall, per_label)


class _Judge:
    """The scores of some predictions, as a function of how often each clip counts."""

    def __init__(self, y_true: BoolArray, y_score: FloatArray, given: BoolArray) -> None:
        self._n_clips = y_true.shape[0]
        self._true = y_true.astype(np.float64)
        self._given = given.astype(np.float64)
        self._hits = (y_true & given).astype(np.float64)
        self._precision = precision_at_labels(y_true, y_score)
        self._ranks = [_Ranks(truth, scores) for truth, scores in zip(y_true.T, y_score.T, strict=True)]
        self._is_right = None
        if is_single_label(y_true):
            self._is_right = y_true[np.arange(len(y_true)), y_score.argmax(axis=1)].astype(np.float64)

    def __call__(self, counts: FloatArray) -> SampledScores:
        """The scores where each clip counts so often, (n_clips, n_resamples)."""
        n_true, n_given, n_hits = (counts.T @ cells for cells in (self._true, self._given, self._hits))
        precisions = counts.T @ self._precision
        of_ranks = [ranks(counts) for ranks in self._ranks]
        average_precision = np.stack([precision for precision, _ in of_ranks], axis=1)
        auc = np.stack([auc for _, auc in of_ranks], axis=1)
        per_label = {
            "lwlrap": ratio(precisions, n_true),
            "average_precision": average_precision,
            "roc_auc": auc,
            "d_prime": _d_prime(auc),
            "f1": ratio(2 * n_hits, n_given + n_true),
            "precision": ratio(n_hits, n_given),
            "recall": ratio(n_hits, n_true),
        }
        all_true, all_given, all_hits = (cells.sum(axis=1) for cells in (n_true, n_given, n_hits))
        mean_auc = _mean_of_defined(auc)
        overall = {
            "lwlrap": ratio(precisions.sum(axis=1), all_true),
            "mean_average_precision": _mean_of_defined(average_precision),
            "roc_auc": mean_auc,
            "d_prime": _d_prime(mean_auc),
            "f1_micro": ratio(2 * all_hits, all_given + all_true),
            "f1_macro": _mean_of_defined(per_label["f1"]),
            "precision_micro": ratio(all_hits, all_given),
            "precision_macro": _mean_of_defined(per_label["precision"]),
            "recall_micro": ratio(all_hits, all_true),
            "recall_macro": _mean_of_defined(per_label["recall"]),
        }
        if self._is_right is not None:
            overall["top1_accuracy"] = ratio(self._is_right @ counts, counts.sum(axis=0))
        return SampledScores(overall, per_label)


class _Ranks:
    """Average precision and ROC-AUC of a label, as functions of how often each clip counts; its clips sorted once.

    The k different scores of clips with the label part all scores into 2 k + 1 ranks: below the lowest, equal to it,
    between it and the next, and so on. How often the clips of each rank are counted is all that both need.
    """

    def __init__(self, truth: BoolArray, scores: FloatArray) -> None:
        levels = np.unique(scores[truth])
        ranks = np.searchsorted(levels, scores, side="left") + np.searchsorted(levels, scores, side="right")
        self._all = _summing(ranks, np.arange(len(scores)), 2 * len(levels) + 1, len(scores))
        with_label = np.flatnonzero(truth)
        self._with_label = _summing(ranks[with_label] // 2, with_label, len(levels), len(scores))

    def __call__(self, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Average precision and ROC-AUC, both (n_resamples,)."""
        at_rank, true_at_level = self._all @ counts, self._with_label @ counts
        n_from_top = np.cumsum(at_rank[::-1], axis=0)[::-1][1::2]
        true_from_top = np.cumsum(true_at_level[::-1], axis=0)[::-1]
        n_true = true_at_level.sum(axis=0)
        n_false = at_rank.sum(axis=0) - n_true
        false_below = n_false - (n_from_top - true_from_top)
        false_equal = at_rank[1::2] - true_at_level
        precision = true_from_top / np.maximum(n_from_top, 1)  # where none is counted, none of them is true
        n_won = true_at_level * (false_below + false_equal / 2)
        return ratio((true_at_level * precision).sum(axis=0), n_true), ratio(n_won.sum(axis=0), n_true * n_false)


def _summing(ranks: IntArray, clips: IntArray, n_ranks: int, n_clips: int) -> csr_array:
    """The matrix (n_ranks, n_clips) that sums what clips have over those of each rank."""
    order = np.argsort(ranks, kind="stable")
    starts = np.searchsorted(ranks[order], np.arange(n_ranks + 1))
    return csr_array((np.ones(len(clips)), clips[order], starts), shape=(n_ranks, n_clips))


def percentile_interval(samples: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """The interval that holds this share of the samples, equally many left out on both sides.

    Parameters
    ----------
    samples : float array of shape (n_resamples, ...)
        NaNs are left out; infinity is a value like any other.
    confidence : float
        From 0 to 1.

    Returns
    -------
    low, high : float arrays of the shape of one sample
        Values of samples, none in between. NaN where all samples are.

    Examples
    --------
    >>> low, high = percentile_interval(np.arange(1001.0), 0.95)
    >>> float(low), float(high)
    (25.0, 975.0)
    """
    ordered = np.sort(samples, axis=0)  # NaNs come last
    last = np.maximum((~np.isnan(samples)).sum(axis=0) - 1, 0)
    tail = (1 - confidence) / 2
    low, high = np.floor(tail * last).astype(int), np.ceil((1 - tail) * last).astype(int)
    return np.take_along_axis(ordered, low[None], axis=0)[0], np.take_along_axis(ordered, high[None], axis=0)[0]


def difference_of_samples(first: FloatArray, other: FloatArray) -> FloatArray:
    """What the first has more than the other, resample by resample; 0 where both are infinite, or rounding differs."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isclose(first, other, rtol=0, atol=_ROUNDING), 0.0, first - other)


def two_sided_p(differences: FloatArray) -> float:
    """How probable so great a difference is where there is none in truth: from paired resamples, (n_resamples,).

    Twice the share of resamples on the rarer side of 0; a difference of 0 counts for both sides. It is never 0: no
    number of resamples shows that. NaN where no difference is defined.

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapters 15 and 16; Davison and Hinkley, "Bootstrap
    methods and their application", 1997, 4.2 (why one is added).

    Examples
    --------
    >>> two_sided_p(np.zeros(99)), two_sided_p(np.ones(99))
    (1.0, 0.02)
    """
    defined = differences[~np.isnan(differences)]
    if not defined.size:
        return float("nan")
    n_rarer = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, float(2 * (n_rarer + 1) / (defined.size + 1)))


def _d_prime(auc: FloatArray) -> FloatArray:
    """As `spectag.scoring.metrics.d_prime`, of an array."""
    distance: FloatArray = np.sqrt(2) * ndtri(auc)
    return distance


def _mean_of_defined(values: FloatArray) -> FloatArray:
    """Means over the labels that have a value, (n_resamples,); NaN where none has."""
    return ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))
