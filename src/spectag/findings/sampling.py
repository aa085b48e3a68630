"""Choose detections for a look or a listen: the best, at random, or spread over scores, recordings, sites and hours."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from spectag.config.findings import SampleMode
from spectag.data.detections import DetectedSound
from spectag.errors import ConfigError

N_BANDS = 10  # of probabilities, each 0.1 wide

Keys = Callable[[DetectedSound], Sequence[Hashable]]


def sample_detections(
    detections: Sequence[DetectedSound],
    per_label: int | None,
    mode: SampleMode,
    keys: Keys,
    rng: np.random.Generator,
) -> list[DetectedSound]:
    """At most `per_label` detections of each label, in the order of the table; None: all.

    Parameters
    ----------
    detections : sequence of DetectedSound
    per_label : int or None
    mode : SampleMode
    keys : function
        What the modes balanced and spread distribute: the recording first, for `spread` followed by others.
    rng : Generator
        Decides between equals.

    Raises
    ------
    ConfigError
        If the mode is "top" and a detection has no probability.
    """
    rows_of: dict[str, list[int]] = {}
    for row, detection in enumerate(detections):
        rows_of.setdefault(detection.label, []).append(row)
    chosen: list[int] = []
    for _, rows in sorted(rows_of.items()):
        if per_label is None or len(rows) <= per_label:
            chosen += rows
        elif mode == "top":
            chosen += _most_probable(detections, rows, per_label)
        elif mode == "random":
            chosen += rng.choice(rows, per_label, replace=False).tolist()
        else:
            n_keys = 1 if mode == "balanced" else None
            chosen += _spread([keys(detections[row])[:n_keys] for row in rows], rows, per_label, rng)
    return [detections[row] for row in sorted(chosen)]


def score_band(probability: float | None) -> int:
    """The number of the score band, counted from 0; -1 without a probability."""
    return -1 if probability is None else min(max(int(probability * N_BANDS), 0), N_BANDS - 1)


def _most_probable(detections: Sequence[DetectedSound], rows: list[int], n_chosen: int) -> list[int]:
    if any(detections[row].probability is None for row in rows):
        raise ConfigError(
            f"the detections of {detections[rows[0]].label} have no probability, so the most probable are unknown; "
            "choose another mode: random, balanced or spread"
        )
    return sorted(rows, key=lambda row: -(detections[row].probability or 0.0))[:n_chosen]


def _spread(
    keys: Sequence[Sequence[Hashable]], rows: Sequence[int], n_chosen: int, rng: np.random.Generator
) -> list[int]:
    """One after another, a detection whose keys are the least frequent among those chosen before."""
    order = rng.permutation(len(rows))
    columns = [_numbers([keys[index][column] for index in order]) for column in range(len(keys[0]))]
    counts = [np.zeros(column.max() + 1) for column in columns]
    is_free = np.ones(len(rows), bool)
    chosen = []
    for _ in range(n_chosen):
        frequency = np.sum([count[column] for count, column in zip(counts, columns, strict=True)], axis=0)
        best = int(np.argmin(np.where(is_free, frequency, np.inf)))
        is_free[best] = False
        for count, column in zip(counts, columns, strict=True):
            count[column[best]] += 1
        chosen.append(rows[order[best]])
    return chosen


def _numbers(values: Sequence[Hashable]) -> np.ndarray:
    numbers = {value: number for number, value in enumerate(Counter(values))}
    return np.array([numbers[value] for value in values])
