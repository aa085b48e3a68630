"""Which clips the report shows: the worst ones, and surprising ones."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from spectag.evaluation.predictions import Predictions
from spectag.scoring.metrics import average_precision

UNLIKELY_SUCCESS = "unlikely success"
POSSIBLE_LABEL_ERROR = "possible label error"

_MAX_CHANCE = 0.7  # of an unlikely success
_MIN_PROBABILITY = 0.5  # of a possible label error
_MAX_SIMILAR = 2  # surprising clips with the same labels
_MAX_LABELS = 5  # shown for a clip


@dataclass(frozen=True)
class ChosenClip:
    """A clip to show: its row in the predictions, why it was chosen, and the labels to show for it."""

    row: int
    kind: str
    reason: str
    labels: tuple[int, ...]


def worst_clips(predictions: Predictions, n: int) -> list[ChosenClip]:
    """The clips with the lowest lwlrap, at most n; clips without an error are left out.

    Among clips with equal lwlrap, those with the widest margin of a wrong label over a true one come first.
    """
    scores = average_precision(predictions.targets.T, predictions.probabilities.T)
    y_true, predicted = predictions.y_true, predictions.detected
    highest_wrong = np.where(y_true | predictions.unknown, -np.inf, predictions.probabilities).max(axis=1)
    lowest_true = np.where(y_true, predictions.probabilities, np.inf).min(axis=1)
    rows = np.flatnonzero(y_true.any(axis=1) & ((scores < 1) | (predicted != y_true).any(axis=1)))
    order = np.lexsort((rows, -(highest_wrong - lowest_true)[rows], scores[rows]))
    return [
        ChosenClip(row, _error_kind(predictions, row), _error_reason(predictions, row), shown_labels(predictions, row))
        for row in rows[order[:n]].tolist()
    ]


def _error_reason(predictions: Predictions, row: int) -> str:
    probabilities, y_true = predictions.probabilities[row], predictions.y_true[row]
    order = np.argsort(-probabilities, kind="stable")
    true = next(int(label) for label in order[::-1] if y_true[label])
    wrong = next((int(label) for label in order if not (y_true[label] or predictions.unknown[row, label])), None)
    threshold = predictions.thresholds[row, true]
    true_text = _label_text(predictions, row, true)
    if wrong is not None and probabilities[wrong] >= probabilities[true]:
        rank = _ordinal(int((probabilities >= probabilities[true]).sum()))
        return f"The true label {true_text} is ranked {rank}, below {_label_text(predictions, row, wrong)}."
    if probabilities[true] < threshold:
        fitted = ", fitted on other clips," if predictions.origins[row] == "out_of_fold" else ""
        return f"The true label {true_text} is missed: its threshold{fitted} is {threshold:.2f}."
    assert wrong is not None
    return f"{_label_text(predictions, row, wrong)} is predicted, but the clip does not have this label."


def _error_kind(predictions: Predictions, row: int) -> str:
    predicted, y_true = predictions.detected[row], predictions.y_true[row]
    if (y_true & ~predicted).any():
        return "confused" if (predicted & ~y_true).any() else "missed"
    return "false positive" if (predicted & ~y_true).any() else "wrong order"


def surprising_clips(predictions: Predictions, n: int, *, without: Collection[int] = ()) -> list[ChosenClip]:
    """Unlikely successes and possible label errors, at most n, half of each kind if there are enough.

    Parameters
    ----------
    predictions : Predictions
    n : int
    without : collection of int
        Rows of clips that are already shown.
    """
    successes = _unlikely_successes(predictions, n)
    label_errors = _possible_label_errors(predictions, n, without)
    n_label_errors = min(len(label_errors), max(n // 2, n - len(successes)))
    return [*successes[: n - n_label_errors], *label_errors[:n_label_errors]]


def _unlikely_successes(predictions: Predictions, n: int) -> list[ChosenClip]:
    """Clips with exactly the right labels predicted although these are often missed."""
    y_true, predicted = predictions.y_true, predictions.detected
    recalls = (y_true & predicted).sum(axis=0) / np.maximum(y_true.sum(axis=0), 1)
    chances = np.where(y_true, recalls, 1.0).prod(axis=1)
    rows = np.flatnonzero(y_true.any(axis=1) & (predicted == y_true).all(axis=1) & (chances <= _MAX_CHANCE))
    lowest_true = np.where(y_true, predictions.probabilities, np.inf).min(axis=1)
    order = np.lexsort((rows, -lowest_true[rows], chances[rows]))
    n_similar: Counter[bytes] = Counter()
    chosen: list[ChosenClip] = []
    for row in rows[order].tolist():
        labels = y_true[row].tobytes()
        n_similar[labels] += 1
        if len(chosen) < n and n_similar[labels] <= _MAX_SIMILAR:
            n_labels = int(y_true[row].sum())
            subject = "The label is" if n_labels == 1 else f"All {n_labels} labels are"
            reason = f"{subject} detected, and no wrong one; the chance of this was {chances[row]:.0%}."
            chosen.append(ChosenClip(row, UNLIKELY_SUCCESS, reason, shown_labels(predictions, row)))
    return chosen


def _possible_label_errors(predictions: Predictions, n: int, without: Collection[int]) -> list[ChosenClip]:
    """Clips with a confident prediction of a label that they do not have."""
    wrong = ~predictions.y_true & predictions.detected
    probabilities = np.where(wrong, predictions.probabilities, 0)
    highest, labels = probabilities.max(axis=1), probabilities.argmax(axis=1)
    n_similar: Counter[int] = Counter()
    chosen: list[ChosenClip] = []
    for row in np.argsort(-highest, kind="stable").tolist():
        label = int(labels[row])
        if len(chosen) == n or highest[row] < _MIN_PROBABILITY:
            break
        if row in without:
            continue
        n_similar[label] += 1
        if n_similar[label] <= _MAX_SIMILAR:
            reason = f"{_label_text(predictions, row, label)} is predicted, but the clip does not have this label."
            chosen.append(ChosenClip(row, POSSIBLE_LABEL_ERROR, reason, shown_labels(predictions, row, label)))
    return chosen


def shown_labels(predictions: Predictions, row: int, required: int | None = None) -> tuple[int, ...]:
    """At most five labels to show for a clip, most probable first.

    True labels come before wrong ones that are predicted, and these before wrong ones ranked above a true label.
    Unknown labels are not shown.

    Parameters
    ----------
    predictions : Predictions
    row : int
    required : int, optional
        A label that is shown in any case.
    """
    probabilities, y_true = predictions.probabilities[row], predictions.y_true[row]
    predicted, unknown = predictions.detected[row], predictions.unknown[row]
    lowest_true = probabilities[y_true].min() if y_true.any() else np.inf
    order = np.argsort(-probabilities, kind="stable").tolist()
    candidates = [] if required is None else [required]
    for is_candidate in (y_true, predicted, (probabilities > lowest_true) & ~unknown):
        candidates += [label for label in order if is_candidate[label]]
    kept = set(list(dict.fromkeys(candidates))[:_MAX_LABELS])
    return tuple(label for label in order if label in kept)


def _label_text(predictions: Predictions, row: int, label: int) -> str:
    return f"“{predictions.labels.names[label]}” ({predictions.probabilities[row, label]:.2f})"


def _ordinal(rank: int) -> str:
    ending = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending}"
