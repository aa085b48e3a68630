"""Confused labels: which wrong label is predicted instead of a true one, if clips may have several labels."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.evaluation.predictions import Predictions

_MAX_LABELS = 25  # of the matrix
_N_PAIRS = 15
_N_EXAMPLES = 4  # clips that are named for a pair


@dataclass(frozen=True, eq=False)
class Confusions:
    """How often a wrong label is predicted instead of a true one."""

    n_clips: IntArray
    """(n_labels,): clips that have the label."""
    counts: IntArray
    """(n_labels, n_labels): [i, j] counts the clips of label i for which j was predicted instead."""
    n_detected: IntArray
    """(n_labels,): clips of the label for which it was predicted."""
    n_nothing: IntArray
    """(n_labels,): clips of the label for which neither it nor a wrong label was predicted."""

    @property
    def most_confused(self) -> IntArray:
        """Labels that were confused with another, those with the most confusions first."""
        n_confusions = self.counts.sum(axis=0) + self.counts.sum(axis=1)
        order: IntArray = np.argsort(-n_confusions, kind="stable")[: np.count_nonzero(n_confusions)]
        return order

    def pairs(self, max_pairs: int) -> list[tuple[int, int]]:
        """Pairs of a true label and the one predicted instead, those with the most clips first."""
        order = np.argsort(-self.counts, axis=None, kind="stable")[:max_pairs]
        pairs = [divmod(int(index), len(self.n_clips)) for index in order]
        return [(true, predicted) for true, predicted in pairs if self.counts[true, predicted]]


@dataclass(frozen=True)
class ConfusedPair:
    """A true label, the label that was predicted instead, and the first clips, each with its row."""

    true: str
    predicted: str
    n_clips: int
    fraction: float
    examples: list[tuple[int, str]]


@dataclass(frozen=True, eq=False)
class ConfusionFigure:
    """What the section shows."""

    confusions: Confusions
    labels: list[int]
    """Of the matrix."""
    n_confused: int
    """Labels that were ever confused."""
    fractions: FloatArray
    """(n_labels, n_labels) of the matrix: counts over the clips of the row's label."""
    pairs: list[ConfusedPair]

    @property
    def max_fraction(self) -> float:
        """The fraction with the darkest colour."""
        return float(max(self.fractions.max(), 1e-9))


def predicted_instead_of(label: int, y_true: BoolArray, probabilities: NDArray[Any], predicted: BoolArray) -> BoolArray:
    """Which labels were predicted instead of this one, of shape (n_clips, n_labels).

    They are predicted but not true, in clips where this label is true and either missed or less probable.
    """
    instead = ~predicted[:, [label]] | (probabilities > probabilities[:, [label]])
    return y_true[:, [label]] & predicted & ~y_true & instead


def count_confusions(y_true: BoolArray, probabilities: NDArray[Any], predicted: BoolArray) -> Confusions:
    """Count confusions; all three arrays are of shape (n_clips, n_labels).

    References
    ----------
    Similar to Heydarian, Doyle and Samavi, "MLCM: Multi-label confusion matrix", IEEE Access 2022, whose matrix also
    has a row for each true label and a column for "no predicted label". The rule for when a cell counts differs.

    Examples
    --------
    >>> confusions = count_confusions(np.array([[True, False]]), np.array([[0.4, 0.8]]), np.array([[False, True]]))
    >>> confusions.counts
    array([[0, 1],
           [0, 0]])
    """
    counts, n_nothing = [], []
    for label in range(y_true.shape[1]):
        rows = y_true[:, label]
        instead = predicted_instead_of(label, y_true[rows], probabilities[rows], predicted[rows])
        counts.append(instead.sum(axis=0))
        n_nothing.append((~predicted[rows, label] & ~instead.any(axis=1)).sum())
    return Confusions(y_true.sum(axis=0), np.array(counts), (y_true & predicted).sum(axis=0), np.array(n_nothing))


def confusion_figure(predictions: Predictions, rows_with_card: Collection[int]) -> ConfusionFigure | None:
    """The confusions of the labels confused most often; None if there are none.

    Clips that the page shows (`rows_with_card`) come first among the examples.
    """
    predicted = predictions.detected
    confusions = count_confusions(predictions.y_true, predictions.probabilities, predicted)
    confused = confusions.most_confused
    if not confused.size:
        return None
    labels = np.sort(confused[:_MAX_LABELS])
    fractions = confusions.counts[np.ix_(labels, labels)] / np.maximum(confusions.n_clips[labels], 1)[:, None]
    pairs = [
        _pair(true, other, confusions, predictions, predicted, rows_with_card)
        for true, other in confusions.pairs(_N_PAIRS)
    ]
    return ConfusionFigure(confusions, labels.tolist(), len(confused), fractions, pairs)


def _pair(
    true: int,
    other: int,
    confusions: Confusions,
    predictions: Predictions,
    predicted: BoolArray,
    rows_with_card: Collection[int],
) -> ConfusedPair:
    instead = predicted_instead_of(true, predictions.y_true, predictions.probabilities, predicted)
    rows = sorted(np.flatnonzero(instead[:, other]).tolist(), key=lambda row: row not in rows_with_card)
    n_clips = int(confusions.counts[true, other])
    names: Sequence[str] = predictions.labels.names
    examples = [(row, predictions.clips[row].name) for row in rows[:_N_EXAMPLES]]
    return ConfusedPair(names[true], names[other], n_clips, n_clips / int(confusions.n_clips[true]), examples)
