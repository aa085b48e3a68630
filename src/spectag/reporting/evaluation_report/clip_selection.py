"""Which clips are worth showing: those a tagger did worst on, and those that surprise."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from spectag.evaluation.predictions import Predictions
from spectag.scoring.metrics import average_precision

WORST = (
    "The clips whose true labels are ranked lowest among all labels (least lwlrap of the clip); of equals, those first "
    "where a wrong label is furthest above the least probable true one."
)
SURPRISES = (
    "Two kinds. Heard against the odds: all labels of the clip were given, and no wrong one, though they are often "
    "missed; the chance of hearing them is the product of their recalls. Labels to look at again: a label was given "
    "with great confidence that the clip is not said to have; the tagger may be wrong, or the label missing."
)

_GREATEST_CHANCE = 0.7  # of what was heard against the odds
_LEAST_CONFIDENCE = 0.5  # in a label to look at again
_MOST_ALIKE = 2  # clips that surprise by the same labels
_MOST_LABELS = 5  # told of a clip


@dataclass(frozen=True)
class ChosenClip:
    """A clip to show: its row in the predictions, why, and the labels to tell of it."""

    row: int
    kind: str  # in a word or two
    why: str  # in a sentence
    labels: tuple[int, ...]


def worst_clips(predictions: Predictions, n: int) -> list[ChosenClip]:
    """The clips that the tagger did worst on, at most n: see WORST. Clips without a fault are left out."""
    scores = average_precision(predictions.y_true.T, predictions.probabilities.T)
    true, given = predictions.y_true, predictions.probabilities >= predictions.thresholds
    wrong = np.where(true, -np.inf, predictions.probabilities).max(axis=1)
    least_true = np.where(true, predictions.probabilities, np.inf).min(axis=1)
    rows = np.flatnonzero(true.any(axis=1) & ((scores < 1) | (given != true).any(axis=1)))
    order = np.lexsort((rows, -(wrong - least_true)[rows], scores[rows]))
    return [_worst(predictions, int(row)) for row in rows[order[:n]]]


def _worst(predictions: Predictions, row: int) -> ChosenClip:
    probabilities, true = predictions.probabilities[row], predictions.y_true[row]
    names = predictions.labels.names
    order = np.argsort(-probabilities, kind="stable")
    lowest = next(int(label) for label in order[::-1] if true[label])
    highest_wrong = next((int(label) for label in order if not true[label]), None)
    threshold = predictions.thresholds[row, lowest]
    if highest_wrong is not None and probabilities[highest_wrong] >= probabilities[lowest]:
        rank = int((probabilities >= probabilities[lowest]).sum())
        why = (
            f"Its label {_said(names[lowest], probabilities[lowest])} came {_ordinal(rank)}, after "
            f"{_said(names[highest_wrong], probabilities[highest_wrong])}."
        )
    elif probabilities[lowest] < threshold:
        why = f"Its label {_said(names[lowest], probabilities[lowest])} was missed: the threshold is {threshold:.2f}."
    else:
        assert highest_wrong is not None
        why = f"{_said(names[highest_wrong], probabilities[highest_wrong])} was given, which it does not have."
    return ChosenClip(row, _kind_of_fault(predictions, row), why, told_labels(predictions, row))


def _kind_of_fault(predictions: Predictions, row: int) -> str:
    given, true = predictions.probabilities[row] >= predictions.thresholds[row], predictions.y_true[row]
    if (true & ~given).any():
        return "taken for another" if (given & ~true).any() else "missed"
    return "given too much" if (given & ~true).any() else "outranked"


def surprises(predictions: Predictions, n: int, *, without: Collection[int] = ()) -> list[ChosenClip]:
    """The clips that surprise most, at most n, half of either kind where there are enough: see SURPRISES.

    Parameters
    ----------
    predictions : Predictions
    n : int
    without : collection of int
        Rows of clips that are shown already.
    """
    heard = _heard_against_the_odds(predictions, n)
    doubted = _doubted(predictions, n, without)
    n_doubted = min(len(doubted), max(n // 2, n - len(heard)))
    return [*heard[: n - n_doubted], *doubted[:n_doubted]]


def _heard_against_the_odds(predictions: Predictions, n: int) -> list[ChosenClip]:
    true, given = predictions.y_true, predictions.probabilities >= predictions.thresholds
    recalls = (true & given).sum(axis=0) / np.maximum(true.sum(axis=0), 1)
    chances = np.where(true, recalls, 1.0).prod(axis=1)
    rows = np.flatnonzero(true.any(axis=1) & (given == true).all(axis=1) & (chances <= _GREATEST_CHANCE))
    least = np.where(true, predictions.probabilities, np.inf).min(axis=1)
    order = np.lexsort((rows, -least[rows], chances[rows]))
    alike: Counter[bytes] = Counter()
    chosen: list[ChosenClip] = []
    for row in rows[order].tolist():
        alike[true[row].tobytes()] += 1
        if len(chosen) < n and alike[true[row].tobytes()] <= _MOST_ALIKE:
            n_labels = int(true[row].sum())
            heard = "Its label was heard" if n_labels == 1 else f"All {n_labels} labels were heard"
            why = f"{heard}, and nothing else; the chance of hearing {_them(n_labels)} was {chances[row]:.0%}."
            chosen.append(ChosenClip(row, "heard against the odds", why, told_labels(predictions, row)))
    return chosen


def _them(n_labels: int) -> str:
    return "it" if n_labels == 1 else "them all"


def _doubted(predictions: Predictions, n: int, without: Collection[int]) -> list[ChosenClip]:
    wrong = ~predictions.y_true & (predictions.probabilities >= predictions.thresholds)
    confidence = np.where(wrong, predictions.probabilities, 0).max(axis=1)
    labels = np.where(wrong, predictions.probabilities, 0).argmax(axis=1)
    alike: Counter[int] = Counter()
    chosen: list[ChosenClip] = []
    for row in np.argsort(-confidence, kind="stable").tolist():
        label = int(labels[row])
        if len(chosen) == n or confidence[row] < _LEAST_CONFIDENCE:
            break
        alike[label] += row not in without
        if row not in without and alike[label] <= _MOST_ALIKE:
            said = _said(predictions.labels.names[label], confidence[row])
            why = f"{said} was given, and is not among its labels. Is it to be heard?"
            chosen.append(ChosenClip(row, "a label to look at again", why, told_labels(predictions, row, label)))
    return chosen


def told_labels(predictions: Predictions, row: int, first: int | None = None) -> tuple[int, ...]:
    """Labels to tell of a clip, most probable first: true ones and wrong ones that were given or came before those.

    Parameters
    ----------
    predictions : Predictions
    row : int
    first : int, optional
        A label that is told in any case.
    """
    probabilities, true = predictions.probabilities[row], predictions.y_true[row]
    given = probabilities >= predictions.thresholds[row]
    order = [int(label) for label in np.argsort(-probabilities, kind="stable")]
    wanted = [label for label in order if true[label]]
    wanted += [label for label in order if given[label] and not true[label]]
    least_true = probabilities[true].min() if true.any() else np.inf
    wanted += [label for label in order if not true[label] and not given[label] and probabilities[label] > least_true]
    if first is not None:
        wanted.insert(0, first)
    kept = set(list(dict.fromkeys(wanted))[:_MOST_LABELS])
    return tuple(label for label in order if label in kept)


def _said(name: str, probability: float) -> str:
    return f"“{name}” ({probability:.2f})"


def _ordinal(rank: int) -> str:
    ending = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending}"
