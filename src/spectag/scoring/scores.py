"""All scores of some predictions, overall and for each label, with intervals over recordings."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import ndtri

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.scoring.bootstrap import Estimate, Resampling, as_json
from spectag.scoring.metrics import (
    check_scores,
    decides_lwlrap,
    is_known,
    is_single_label,
    precision_at_labels,
    ranked_labels,
    ratio,
)

PER_LABEL_METRICS = ("lwlrap", "average_precision", "roc_auc", "d_prime", "f1", "precision", "recall")
"""The scores of each label."""

_RANKING_METRICS = ("lwlrap", "mean_average_precision", "roc_auc", "d_prime")
OVERALL_METRICS = (
    *_RANKING_METRICS,
    *(f"{metric}_{average}" for metric in ("f1", "precision", "recall") for average in ("micro", "macro")),
    "top1_accuracy",
)
"""The scores over all labels. The last one is defined only if every clip has exactly one label."""

MIN_RECORDINGS_PER_LABEL = 10
"""A mean over labels gets no interval if its labels have fewer recordings each (harmonic mean), except for ROC-AUC."""

_JSON_OVERALL = (*_RANKING_METRICS, "f1_micro", "f1_macro")
_JSON_PER_LABEL = ("lwlrap", "average_precision", "roc_auc", "f1")
_JSON_INTERVALS = ("lwlrap", "mean_average_precision", "top1_accuracy")
_SHOWN = ("mean_average_precision", "f1_macro", "top1_accuracy")  # in the text of scores
_COUNTS_PER_BLOCK = 2**20  # keeps a block of counts in the processor's cache


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """How good some predictions are.

    Attributes
    ----------
    n_clips : int
    n_clips_per_label : int array of shape (n_labels,)
    overall : dict
        An estimate for each of OVERALL_METRICS.
    per_label : dict
        For each of PER_LABEL_METRICS, one estimate per label. NaN where a score is not defined.
    """

    n_clips: int
    n_clips_per_label: IntArray
    overall: dict[str, Estimate]
    per_label: dict[str, tuple[Estimate, ...]]

    def __repr__(self) -> str:
        """The main scores, with intervals."""
        others = [f"{name} {self.overall[name].value:.3f}" for name in _SHOWN if name in self.overall]
        return f"Scores({', '.join([score_summary(self.overall), *others])}; {self.n_clips:,} clips)"

    @property
    def lwlrap(self) -> float:
        """NaN where it is not defined: see `spectag.scoring.metrics.lwlrap`."""
        return self.overall["lwlrap"].value

    @property
    def main_metric(self) -> str:
        """The score that training and tuning maximise: lwlrap, or mean average precision where that is not defined."""
        return main_metric(self.overall)

    @property
    def main_score(self) -> float:
        """The value of `main_metric`; NaN if that is not defined either."""
        return self.overall[self.main_metric].value

    @property
    def top1_accuracy(self) -> float | None:
        """The fraction of clips whose most probable label is right; None unless every clip has exactly one label."""
        return self.overall["top1_accuracy"].value if "top1_accuracy" in self.overall else None

    def to_dict(self) -> dict[str, Any]:
        """The main scores for JSON, as spectag.json stores them: None instead of NaN and infinity."""
        intervals = {
            name: [estimate.low, estimate.high]
            for name, estimate in self.overall.items()
            if name in _JSON_INTERVALS and not math.isnan(estimate.low)
        }
        return {
            "n_clips": self.n_clips,
            **{name: as_json(self.overall[name].value) for name in _JSON_OVERALL},
            "top1_accuracy": self.top1_accuracy,
            "intervals": intervals,
            "per_label": {
                "n_clips": self.n_clips_per_label.tolist(),
                **{name: as_json([estimate.value for estimate in self.per_label[name]]) for name in _JSON_PER_LABEL},
            },
        }


def score_predictions(
    y_true: ArrayLike,
    probabilities: ArrayLike,
    groups: Sequence[Hashable],
    *,
    thresholds: ArrayLike = 0.5,
    resampling: Resampling | None = None,
) -> Scores:
    """Every score of these predictions.

    Parameters
    ----------
    y_true, probabilities : bool and float arrays of shape (n_clips, n_labels)
        NaN in `y_true` is an unknown label, which no score depends on.
    groups : sequence of n_clips names
        The recording of each clip: the resamples draw whole recordings.
    thresholds : float, or float array of shape (n_labels,) or (n_clips, n_labels)
        For F1, precision and recall. A label is detected where probability >= threshold.
    resampling : Resampling, optional
        For the intervals. By default 1,000 resamples with a confidence of 95 %.

    Raises
    ------
    ValueError
        If the shapes differ, or a probability or threshold is NaN.

    Examples
    --------
    >>> scores = score_predictions([[1, 0], [0, 1], [0, 1]], [[0.9, 0.2], [0.5, 0.8], [0.6, 0.4]], ["a", "b", "c"])
    >>> round(scores.lwlrap, 3), round(scores.top1_accuracy, 3), scores.overall["roc_auc"].value
    (0.833, 0.667, 1.0)
    """
    _, scores = check_scores(y_true, probabilities)
    resampling = resampling or Resampling()
    detected = scores >= _check_thresholds(thresholds, scores.shape)
    samples = resampled_scores(y_true, probabilities, detected, resampling.counts(groups))
    return scores_of(samples, y_true, detected, groups, resampling)


def scores_of(
    samples: "ResampledScores",
    y_true: ArrayLike,
    detected: BoolArray,
    groups: Sequence[Hashable],
    resampling: Resampling,
) -> Scores:
    """The scores and their intervals, of samples with the counts of this resampling."""
    y_true = np.asarray(y_true)
    n_recordings = count_recordings(y_true, detected, groups)
    overall = {
        name: resampling.estimates(samples.overall[name][:, None], n)[0]
        for name, n in n_recordings.overall.items()
        if name in samples.overall
    }
    per_label = {name: resampling.estimates(samples.per_label[name], n) for name, n in n_recordings.per_label.items()}
    overall["d_prime"] = _estimate_of_d_prime(overall["roc_auc"])
    per_label["d_prime"] = tuple(map(_estimate_of_d_prime, per_label["roc_auc"]))
    return Scores(
        n_clips=len(y_true),
        n_clips_per_label=(y_true == 1).sum(axis=0),
        overall={name: overall[name] for name in OVERALL_METRICS if name in overall},
        per_label={name: per_label[name] for name in PER_LABEL_METRICS},
    )


def score_summary(overall: Mapping[str, Estimate]) -> str:
    """The main score and its interval in a few words.

    >>> score_summary({"lwlrap": Estimate(0.979, 0.961, 0.989)})
    'lwlrap 0.979 (0.961 to 0.989)'
    """
    name = main_metric(overall)
    value, low, high = (getattr(overall[name], part) for part in ("value", "low", "high"))
    return f"{name} {value:.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")


def main_metric(overall: Mapping[str, Estimate]) -> str:
    """The name of the score that training and tuning maximise, of overall scores: see `Scores.main_metric`."""
    return "mean_average_precision" if math.isnan(overall["lwlrap"].value) else "lwlrap"


def _check_thresholds(thresholds: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.shape not in [(), shape[1:], shape]:
        raise ValueError(f"thresholds must be one number or of shape {shape[1:]} or {shape}, got {thresholds.shape}")
    if np.isnan(thresholds).any():
        raise ValueError("a threshold is NaN; give a default to the labels without a fitted threshold")
    return thresholds


@dataclass(frozen=True, eq=False)
class RecordingCounts:
    """How many recordings each score rests on, by the name of the score. NaN: too few for an interval."""

    overall: dict[str, float]
    per_label: dict[str, FloatArray]


def count_recordings(y_true: ArrayLike, detected: BoolArray, groups: Sequence[Hashable]) -> RecordingCounts:
    """How many recordings each score rests on, except d', whose interval is that of ROC-AUC.

    Of a label, these are the recordings that have it, for ROC-AUC those that have it or those that do not, whichever
    are fewer, and for F1 and precision those in which it is detected. A mean over labels varies as if it had n_labels
    times the harmonic mean of these numbers.
    """
    truth, numbers = np.asarray(y_true), {group: number for number, group in enumerate(dict.fromkeys(groups))}
    recording = np.array([numbers[group] for group in groups])
    order = np.argsort(recording, kind="stable")
    starts = np.searchsorted(recording[order], np.arange(len(numbers)))
    has_label, lacks_label, is_detected = (
        np.logical_or.reduceat(cells[order], starts, axis=0) for cells in (truth == 1, truth == 0, detected)
    )
    n_true = has_label.sum(axis=0).astype(np.float64)
    per_label = {
        "lwlrap": n_true,
        "average_precision": n_true,
        "roc_auc": np.minimum(n_true, lacks_label.sum(axis=0)),
        "f1": (has_label | is_detected).sum(axis=0).astype(np.float64),
        "precision": is_detected.sum(axis=0).astype(np.float64),
        "recall": n_true,
    }

    def over_labels(metric: str, at_least: float = MIN_RECORDINGS_PER_LABEL) -> float:
        counted = per_label[metric][per_label[metric] > 0]
        harmonic_mean = round(len(counted) / (1 / counted).sum(), 9) if len(counted) else 0.0
        return min(len(numbers), len(counted) * harmonic_mean) if harmonic_mean >= at_least else math.nan

    n_labelled = float(has_label.any(axis=1).sum())
    overall = {
        "lwlrap": n_labelled,
        "mean_average_precision": over_labels("average_precision"),
        "roc_auc": over_labels("roc_auc", at_least=1),
        "f1_micro": float((has_label | is_detected).any(axis=1).sum()),
        "precision_micro": float(is_detected.any(axis=1).sum()),
        "recall_micro": n_labelled,
        **{f"{metric}_macro": over_labels(metric) for metric in ("f1", "precision", "recall")},
        "top1_accuracy": n_labelled,
    }
    return RecordingCounts(overall, per_label)


def _estimate_of_d_prime(auc: Estimate) -> Estimate:
    return Estimate(*_d_prime(np.array([auc.value, auc.low, auc.high])).tolist())


@dataclass(frozen=True, eq=False)
class ResampledScores:
    """Scores on each resample, by name; NaN where a score is not defined.

    The arrays in `overall` have shape (n_resamples,), those in `per_label` (n_resamples, n_labels).
    """

    overall: dict[str, FloatArray]
    per_label: dict[str, FloatArray]


def resampled_scores(
    y_true: ArrayLike, y_score: ArrayLike, detected: BoolArray, counts: NDArray[np.integer]
) -> ResampledScores:
    """Every score on resamples of the clips.

    A score on a resample equals that of `spectag.scoring.metrics` on the clips, each repeated as often as it counts.

    Parameters
    ----------
    y_true, y_score : bool and float arrays of shape (n_clips, n_labels)
    detected : bool array of shape (n_clips, n_labels)
        Where the probability reaches the threshold; for F1, precision and recall.
    counts : integer array of shape (n_clips, n_resamples)
        How often each clip occurs in each resample. A column of ones gives the scores of the clips themselves.

    Raises
    ------
    ValueError
        If the shapes differ, or a score is NaN or infinite.
    """
    y_true, y_score = check_scores(y_true, y_score)
    if detected.shape != y_true.shape or counts.ndim != 2 or len(counts) != len(y_true):
        raise ValueError(
            f"need detected of shape {y_true.shape} and counts of shape ({len(y_true)}, n_resamples), "
            f"got {detected.shape} and {counts.shape}"
        )
    scorer = _Scorer(y_true, y_score, detected)
    n_columns = max(1, _COUNTS_PER_BLOCK // len(y_true))
    blocks = [
        scorer(counts[:, start : start + n_columns].astype(np.float64))
        for start in range(0, max(1, counts.shape[1]), n_columns)
    ]
    overall = {name: np.concatenate([block.overall[name] for block in blocks]) for name in blocks[0].overall}
    per_label = {name: np.concatenate([block.per_label[name] for block in blocks]) for name in PER_LABEL_METRICS}
    return ResampledScores(overall, per_label)


class _Scorer:
    """The scores of some predictions as a function of how often each clip counts. Sorts the clips only once."""

    def __init__(self, y_true: BoolArray, y_score: FloatArray, detected: BoolArray) -> None:
        self._true = y_true.astype(np.float64)
        self._detected = (detected & is_known(y_score)).astype(np.float64)
        self._hits = (y_true & detected).astype(np.float64)
        ranked = ranked_labels(y_true, y_score)
        self._ranked, self._precision = ranked.astype(np.float64), precision_at_labels(ranked, y_score)
        self._decides_lwlrap = decides_lwlrap(np.where(is_known(y_score), y_true, np.nan)).astype(np.float64)
        self._rankings = [_LabelRanking(truth, scores) for truth, scores in zip(y_true.T, y_score.T, strict=True)]
        self._is_right = None
        if is_single_label(y_true):
            self._is_right = y_true[np.arange(len(y_true)), y_score.argmax(axis=1)].astype(np.float64)

    def __call__(self, counts: FloatArray) -> ResampledScores:
        """The scores for counts (n_clips, n_resamples)."""
        cell_counts = [counts.T @ cells for cells in (self._true, self._detected, self._hits)]
        total_counts = [cells.sum(axis=1) for cells in cell_counts]
        precisions, n_ranked = counts.T @ self._precision, counts.T @ self._ranked
        precisions[self._decides_lwlrap @ counts == 0] = np.nan
        average_precision, auc = (
            np.stack(columns, axis=1) for columns in zip(*(ranking(counts) for ranking in self._rankings), strict=True)
        )
        per_label = {
            "lwlrap": ratio(precisions, n_ranked),
            "average_precision": average_precision,
            "roc_auc": auc,
            "d_prime": _d_prime(auc),
            **_detection_scores(*cell_counts),
        }
        mean_auc = _mean_of_defined(auc)
        overall = {
            "lwlrap": ratio(precisions.sum(axis=1), n_ranked.sum(axis=1)),
            "mean_average_precision": _mean_of_defined(average_precision),
            "roc_auc": mean_auc,
            "d_prime": _d_prime(mean_auc),
        }
        for metric, values in _detection_scores(*total_counts).items():
            overall |= {f"{metric}_micro": values, f"{metric}_macro": _mean_of_defined(per_label[metric])}
        if self._is_right is not None:
            overall["top1_accuracy"] = ratio(self._is_right @ counts, counts.sum(axis=0))
        return ResampledScores(overall, per_label)


class _LabelRanking:
    """Average precision and ROC-AUC of a label as a function of how often each clip counts; without unknown clips.

    The k different scores of the clips with the label divide all scores into 2 k + 1 ranks: below the lowest, equal to
    it, between it and the next, and so on. Both metrics need only the number of clips in each rank.
    """

    def __init__(self, truth: BoolArray, scores: FloatArray) -> None:
        levels, known = np.unique(scores[truth]), np.flatnonzero(is_known(scores))
        ranks = np.searchsorted(levels, scores, side="left") + np.searchsorted(levels, scores, side="right")
        self._sum_by_rank = _rank_sums(ranks[known], known, 2 * len(levels) + 1, len(scores))
        with_label = np.flatnonzero(truth)
        self._sum_true_by_level = _rank_sums(ranks[with_label] // 2, with_label, len(levels), len(scores))

    def __call__(self, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Average precision and ROC-AUC, both (n_resamples,)."""
        at_rank, true_at_level = self._sum_by_rank @ counts, self._sum_true_by_level @ counts
        n_from_top = np.cumsum(at_rank[::-1], axis=0)[::-1][1::2]
        true_from_top = np.cumsum(true_at_level[::-1], axis=0)[::-1]
        n_true = true_at_level.sum(axis=0)
        n_false = at_rank.sum(axis=0) - n_true
        false_below = n_false - (n_from_top - true_from_top)
        false_equal = at_rank[1::2] - true_at_level
        precision = true_from_top / np.maximum(n_from_top, 1)  # if no clip counts, none is true either
        n_won = true_at_level * (false_below + false_equal / 2)
        return ratio((true_at_level * precision).sum(axis=0), n_true), ratio(n_won.sum(axis=0), n_true * n_false)


def _detection_scores(n_true: FloatArray, n_detected: FloatArray, n_hits: FloatArray) -> dict[str, FloatArray]:
    return {
        "f1": ratio(2 * n_hits, n_detected + n_true),
        "precision": ratio(n_hits, n_detected),
        "recall": ratio(n_hits, n_true),
    }


def _rank_sums(ranks: IntArray, clips: IntArray, n_ranks: int, n_clips: int) -> csr_array:
    """The matrix (n_ranks, n_clips) that sums values of clips over each rank."""
    order = np.argsort(ranks, kind="stable")
    starts = np.searchsorted(ranks[order], np.arange(n_ranks + 1))
    return csr_array((np.ones(len(clips)), clips[order], starts), shape=(n_ranks, n_clips))


def _d_prime(auc: FloatArray) -> FloatArray:
    """Distance between the scores with and without a label, in standard deviations.

    For two normal distributions of one variance, d' = sqrt(2) * norm.ppf(auc). See Simpson and Fitter, "What is the
    best index of detectability?", Psychological Bulletin 1973.
    """
    return math.sqrt(2) * np.asarray(ndtri(auc), np.float64)


def _mean_of_defined(values: FloatArray) -> FloatArray:
    """Means over the labels that have a value, (n_resamples,); NaN where none has one."""
    return ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))
