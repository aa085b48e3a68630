"""Thresholds: the probability from which each label is reported, fitted to a goal."""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator
from scipy.special import bdtrik, betainc

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.config.base import Config
from spectag.scoring.metrics import check_scores, is_known


class ThresholdGoal(Config):
    """The goal of each label's threshold, on clips that the model was not trained on.

    `f1`: the best F1. `precision`: the lowest threshold with at least this precision, so that most clips with the
    label are detected. `recall`: the highest threshold with at least this recall, so that there are few false alarms.
    """

    kind: Literal["f1", "precision", "recall"] = "f1"
    at_least: float | None = Field(None, gt=0, le=1)
    """The precision or recall to reach; None for f1."""
    confidence: float = Field(0.9, gt=0, lt=1)
    """In at least this fraction of fits, new clips reach the precision or recall. Not used for f1."""
    below_f1: bool = False
    """Whether a threshold for a precision may be lower than the one with the best F1."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "f1") != (self.at_least is None):
            expected = "no at_least, as it takes the best F1" if self.kind == "f1" else f"at_least, the {self.kind}"
            raise ValueError(f"a goal of kind {self.kind} needs {expected}, got at_least={self.at_least}")
        return self

    @property
    def n_recordings_needed(self) -> float:
        """How many recordings show the precision or recall if none of their clips is wrong; 0 for f1, inf for 1."""
        if self.at_least is None or self.at_least == 1:
            return 0 if self.at_least is None else math.inf
        return math.ceil(math.log(1 - self.confidence) / math.log(self.at_least))

    def __str__(self) -> str:
        """The goal in words."""
        if self.at_least is None:
            return "the best F1"
        return f"a {self.kind} of at least {self.at_least:g} with {100 * self.confidence:g} % confidence"


BEST_F1 = ThresholdGoal()

_SELECTED_FRACTION = 0.5  # of a clip's largest probability, for the windows that count as positives


@dataclass(frozen=True, eq=False)
class FittedThresholds:
    """Thresholds of `fit_to_goal`.

    Attributes
    ----------
    thresholds : float array of shape (n_labels,)
        To be used as probability >= threshold. NaN, to be replaced by a default, for a label that too few clips, no
        clip or every clip has.
    reaches_goal : bool array of shape (n_labels,)
        Whether the goal is reached with its confidence. False where the threshold is NaN, True for the best F1.
    """

    thresholds: FloatArray
    reaches_goal: BoolArray


def fit_thresholds(
    y_true: ArrayLike,
    probabilities: ArrayLike,
    goal: ThresholdGoal = BEST_F1,
    *,
    groups: ArrayLike | None = None,
    min_positives: int = 3,
) -> FloatArray:
    """For each label, the threshold that comes closest to a goal; the thresholds of `fit_to_goal`.

    Examples
    --------
    >>> y_true, probabilities = [[1], [0], [1], [1], [0]], [[0.9], [0.8], [0.7], [0.4], [0.2]]
    >>> fit_thresholds(y_true, probabilities)
    array([0.3])
    >>> fit_thresholds(y_true, probabilities, ThresholdGoal(kind="recall", at_least=0.2, confidence=0.6))
    array([0.55])
    """
    return fit_to_goal(y_true, probabilities, goal, groups=groups, min_positives=min_positives).thresholds


def fit_to_goal(
    y_true: ArrayLike,
    probabilities: ArrayLike,
    goal: ThresholdGoal = BEST_F1,
    *,
    groups: ArrayLike | None = None,
    min_positives: int = 3,
) -> FittedThresholds:
    """For each label, the threshold that reaches a goal on new clips, and whether any does.

    The threshold lies midway between the lowest score above it and the next lower score. If every clip is above it, it
    is the lowest score. Fit it on predictions for clips that the model was not trained on, such as out-of-fold
    predictions, and score it on other clips: see `spectag.scoring.calibration.cross_fit`.

    A threshold reaches a precision or recall if its lower confidence bound (Clopper and Pearson 1934) does. Clips of a
    recording count as one: the bound is that of Kish's effective sample size, as if all clips of a recording were right
    or wrong together. Thresholds are tested in an order that does not depend on their outcome, until one fails
    (fixed-sequence testing), so that the choice among many does not reduce the confidence. For a recall, the order is
    from the lowest threshold upwards. For a precision, it is downwards from the threshold that most likely passes by
    the probabilities.

    Parameters
    ----------
    y_true, probabilities : bool and float arrays of shape (n_clips, n_labels)
        NaN in `y_true`: the label is unknown, and its threshold is fitted without the clip.
    goal : ThresholdGoal
        Of several thresholds with the best F1, the highest is taken. If no threshold reaches a precision or recall,
        the one whose test is closest to passing is taken, of several the one with the highest precision or recall on
        these clips. Unless the goal allows it, a threshold for a precision is not lower than the one with the best F1.
    groups : array of shape (n_clips,), optional
        The recording of each clip. By default every clip is a recording.
    min_positives : int
        A label needs this many clips to get a threshold.

    Raises
    ------
    ValueError
        If the shapes differ, or a probability is NaN.

    References
    ----------
    Angelopoulos et al., "Learn then test: calibrating predictive algorithms to achieve risk control", 2021.
    Kish, "Survey sampling", 1965. Korn and Graubard, "Confidence intervals for proportions with small expected number
    of positive counts estimated from survey data", Survey Methodology, 1998.
    """
    truth, scores = check_scores(y_true, probabilities)
    n_positives, known = truth.sum(axis=0), is_known(scores)
    can_fit = (n_positives >= max(min_positives, 1)) & (n_positives < known.sum(axis=0))
    recordings = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1]
    if len(recordings) != len(truth):
        raise ValueError(f"need a group for each of the {len(truth)} clips, got {len(recordings)}")
    thresholds, reaches_goal = np.full(truth.shape[1], np.nan), np.zeros(truth.shape[1], np.bool_)
    for label in np.flatnonzero(can_fit):
        order = np.argsort(-scores[:, label], kind="stable")[: known[:, label].sum()]
        ranking = _Ranking(truth[order, label], scores[order, label], recordings[order])
        rank, reaches_goal[label] = ranking.best_f1(), True
        if goal.kind == "recall":
            rank, reaches_goal[label] = ranking.reach_recall(goal)
        elif goal.kind == "precision":
            rank, reaches_goal[label] = ranking.reach_precision(goal)
        thresholds[label] = ranking.threshold_below(rank)
    return FittedThresholds(thresholds, reaches_goal)


def fit_window_thresholds(
    y_true: ArrayLike, probabilities: ArrayLike, clips: IntArray, *, min_positives: int = 3
) -> FloatArray:
    """Thresholds (n_labels,) for windows, with the best F1 on the windows of clips whose labels have no times.

    All windows of a clip without a label are negatives. In a clip with the label, the windows with at least half of the
    clip's largest probability are positives, and nobody knows about the others: they do not count (multiple-instance
    selection). The maximum over the windows of a clip would give thresholds that most windows with the label do not
    reach (docs/benchmarks.md).

    Parameters
    ----------
    y_true : bool or float array of shape (n_clips, n_labels)
        NaN for unknown labels.
    probabilities : float array of shape (n_windows, n_labels)
        Of clips that the model was not trained on.
    clips : int array of shape (n_windows,)
        The clip of each window.
    min_positives : int
        A label needs this many clips, otherwise its threshold is NaN.

    References
    ----------
    Dietterich et al., "Solving the multiple instance problem with axis-parallel rectangles", Artificial Intelligence
    1997.

    Examples
    --------
    >>> y_true, clips = [[1], [1], [0]], np.array([0, 0, 1, 2, 2])
    >>> fit_window_thresholds(y_true, [[0.9], [0.1], [0.7], [0.2], [0.5]], clips, min_positives=2)
    array([0.6])
    """
    of_clips, scores = np.asarray(y_true, np.float64), np.asarray(probabilities, np.float64)
    largest = np.zeros(of_clips.shape)
    np.maximum.at(largest, clips, scores)
    of_windows = of_clips[clips]
    of_windows[(of_windows == 1) & (scores < _SELECTED_FRACTION * largest[clips])] = np.nan
    n_positive_clips = (of_clips[np.unique(clips)] == 1).sum(axis=0)
    return np.where(n_positive_clips >= min_positives, fit_thresholds(of_windows, scores, min_positives=1), np.nan)


class _Ranking:
    """The clips of a label from the highest score down. A rank is the index of the last clip above a threshold."""

    def __init__(self, truth: BoolArray, scores: FloatArray, recordings: IntArray) -> None:
        self.truth, self.scores, self.recordings = truth, scores, recordings
        self.ranks = np.flatnonzero(np.append(scores[:-1] != scores[1:], True))  # none separates equal scores
        self.n_hits, self.n_detected = np.cumsum(truth, dtype=np.int64)[self.ranks], self.ranks + 1

    def best_f1(self) -> int:
        """The rank with the best F1, the highest threshold of several."""
        return int(self.ranks[self._best_f1()])

    def _best_f1(self) -> int:
        return int((2 * self.n_hits / (self.n_detected + self.truth.sum())).argmax())

    def reach_recall(self, goal: ThresholdGoal) -> tuple[int, bool]:
        """The rank of the highest threshold that reaches a recall, and whether one does."""
        n_effective = _effective_sizes(self.recordings[self.truth])[-1]
        p_values = _p_values(self.n_hits / self.truth.sum(), n_effective, goal)
        passes = p_values <= 1 - goal.confidence
        if passes.any():
            return int(self.ranks[passes.argmax()]), True
        return int(self.ranks[self.n_hits.argmax()]), False  # p_values fall as the recall rises

    def reach_precision(self, goal: ThresholdGoal) -> tuple[int, bool]:
        """The rank of the lowest threshold that reaches a precision and is allowed, and whether one does."""
        assert goal.at_least is not None
        most = self.truth.sum() / goal.at_least  # with more detections, the precision is too low even on these clips
        ranks = self.ranks[: max(1, np.searchsorted(self.n_detected, most, side="right"))]
        n_detected, n_effective = ranks + 1, _effective_sizes(self.recordings)[ranks]
        n_hits = self.n_hits[: len(ranks)]
        precisions = n_hits / n_detected
        p_values = _p_values(precisions, n_effective, goal)
        expected = np.cumsum(np.clip(self.scores, 0, 1))[ranks] / n_detected
        start = int(_chances_to_pass(expected, n_detected, n_effective, goal).argmax())
        fails = np.append(p_values[start:] > 1 - goal.confidence, True)
        last = start + int(fails.argmax()) - 1
        lowest = len(ranks) - 1 if goal.below_f1 else self._best_f1()
        if last >= start:  # precision falls with the threshold, so that a higher one reaches it, too
            return int(ranks[min(last, lowest)]), True
        closest = np.lexsort([ranks, -n_hits, -precisions, p_values])  # p_values can all be 1
        return int(ranks[closest[closest <= lowest][0]]), False

    def threshold_below(self, rank: int) -> float:
        """The threshold that only the scores up to this rank reach."""
        lowest, next_lower = self.scores[rank], self.scores[min(rank + 1, len(self.scores) - 1)]
        midway = float(lowest / 2 + next_lower / 2)
        return midway if midway > next_lower else float(lowest)  # there is no float between two neighbours


def _effective_sizes(recordings: IntArray) -> FloatArray:
    """Kish's effective sample size of the first clip, the first two, and so on, (n_clips,)."""
    order = np.argsort(recordings, kind="stable")
    earlier = np.empty(len(order), np.int64)  # clips of the same recording before each clip
    earlier[order] = np.arange(len(order)) - np.searchsorted(recordings[order], recordings[order])
    sum_of_squares = np.cumsum(2 * earlier + 1)  # of the number of clips in each recording
    return np.arange(1, len(order) + 1) ** 2 / sum_of_squares


def _p_values(proportions: FloatArray, n_effective: FloatArray, goal: ThresholdGoal) -> FloatArray:
    """How likely so many of n are right by chance if the true proportion misses the goal.

    At most 1 - confidence where the lower bound of Clopper and Pearson reaches the goal.
    """
    n_right = proportions * n_effective
    at_least = np.full(len(proportions), goal.at_least)
    return np.where(n_right > 0, betainc(np.maximum(n_right, 1e-9), n_effective - n_right + 1, at_least), 1.0)


def _chances_to_pass(
    expected: FloatArray, n_detected: IntArray, n_effective: FloatArray, goal: ThresholdGoal
) -> FloatArray:
    """The chance that the lower bound of a precision reaches the goal, by the expected precisions.

    Expected precisions near 1 are often too high. So the true ones are taken to be halfway to the goal.
    """
    assert goal.at_least is not None
    clips_per_recording = n_detected / n_effective
    n_wrong = bdtrik(1 - goal.confidence, n_effective, 1 - goal.at_least)  # so many recordings may be wrong
    n_wrong = np.floor(n_wrong * clips_per_recording) / clips_per_recording  # whole clips
    chances = betainc(np.maximum(n_effective - n_wrong, 1e-9), n_wrong + 1, (expected + goal.at_least) / 2)
    return np.where(goal.at_least**n_effective <= 1 - goal.confidence, chances, 0.0)


def fill_thresholds(fitted: FloatArray, default: ArrayLike) -> FloatArray:
    """Fitted thresholds, with a default where they are NaN."""
    return np.where(np.isnan(fitted), default, fitted)
