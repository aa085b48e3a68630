"""Thresholds with a known precision, from detections that people checked by ear."""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spectag.data.checked_detections import CheckedDetection, CheckInfo, read_check_info, read_decisions
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import ConfigError, DataError, did_you_mean
from spectag.models.bundle import BundleInfo
from spectag.scoring.bootstrap import as_json
from spectag.scoring.checked_precision import CheckedPrecision, checked_precision
from spectag.scoring.thresholds import ThresholdGoal
from spectag.system.output import csv_writer
from spectag.system.progress import Log

_COLUMNS = (
    *("label", "threshold", "precision", "lower", "upper", "n_true", "recall"),
    *("n_detections", "n_checked", "n_right"),
)
_IS_RIGHT = {"yes": 1.0, "no": 0.0, "unsure": 0.0, "": np.nan}  # unsure counts as wrong


Problem = Literal["", "too few checks", "too many errors", "reversed"]


@dataclass(frozen=True)
class CheckedLabel:
    """The threshold of a label, and what the checked sample says about the detections that reach it."""

    label: str
    n_checked: int
    """Detections with a decision, over all probabilities."""
    n_unsure: int
    """Of these, those that count as wrong because nobody was sure."""
    n_undecided: int
    """Sampled detections without a decision."""
    old_threshold: float
    threshold: float
    """The old one if no threshold reaches the goal."""
    problem: Problem
    """Why no threshold reaches the goal. Too many errors: even the most probable detections are too often wrong.
    Reversed: they are less often right than the others, so that no threshold helps."""
    is_lowest: bool
    """Whether all detections of the table reach the threshold, so that a lower one might do as well."""
    precision: float
    """At the threshold, of all detections of the table, and its interval."""
    lower: float
    upper: float
    best_precision: float
    """At any threshold; of estimates, the most probable detections have it."""
    n_detections: float
    """Detections of the table that reach the threshold, as far as the sample shows."""
    n_true: float
    """How many of these are right."""
    recall: float
    """The fraction of all right detections of the table that reach the threshold."""
    n_more_checks: int
    """About so many more checks make the interval as narrow as wished; at most those that are left."""
    n_unchecked: int
    """Detections of the table without a decision. If there are none, all numbers are counts."""

    @property
    def reaches_goal(self) -> bool:
        """Whether the threshold reaches the precision."""
        return not self.problem

    def is_enough(self, width: float) -> bool:
        """Whether checking can stop: the threshold reaches the goal, with an interval that is no wider than this."""
        return self.reaches_goal and self.upper - self.lower <= width


@dataclass(frozen=True)
class CheckedThresholds:
    """Thresholds from checked detections."""

    decisions: str
    """The table of decisions."""
    precision: float
    """The goal."""
    confidence: float
    width: float
    """The wished width of the interval."""
    labels: tuple[CheckedLabel, ...]
    curves: dict[str, CheckedPrecision] = field(repr=False, compare=False)
    """Precision against threshold of each label."""

    @property
    def thresholds(self) -> dict[str, float]:
        """The new thresholds, of labels that reach the goal."""
        return {row.label: row.threshold for row in self.labels if row.reaches_goal}

    @property
    def window_thresholds(self) -> dict[str, float]:
        """The new thresholds of short windows: the same."""
        return self.thresholds

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the curves."""
        values = as_json({name: value for name, value in vars(self).items() if name != "curves"})
        assert isinstance(values, dict)
        return values

    def to_csv(self) -> str:
        """The table checked.csv: precision against threshold of each label."""
        out = io.StringIO()
        write_row = csv_writer(out)
        write_row(_COLUMNS)
        for label, curve in self.curves.items():
            for row in _curve_rows(label, curve):
                write_row(row)
        return out.getvalue()


def _curve_rows(label: str, curve: CheckedPrecision) -> Iterator[list[str]]:
    floats = curve.thresholds, curve.precision, curve.lower, curve.upper, curve.n_true, curve.recall
    digits = (6, 4, 4, 4, 1, 4)
    for index in range(len(curve.thresholds)):
        values = (f"{column[index]:.{n}f}" for column, n in zip(floats, digits, strict=True))
        counts = f"{curve.n_detections[index]:.1f}", str(curve.n_checked[index]), str(curve.n_right[index])
        yield [label, *values, *counts]


def fit_to_checked(
    info: BundleInfo, decisions: str | Path, goal: ThresholdGoal, *, width: float, log: Log
) -> CheckedThresholds:
    """The lowest thresholds that reach a precision, by the decisions of `spectag check`.

    Parameters
    ----------
    info : BundleInfo
        The tagger with the old thresholds.
    decisions : path
        The decisions.csv, with check.json beside it.
    goal : ThresholdGoal
        Of kind precision.
    width : float
        The wished width of the interval of the precision.
    log : Log
        Called with labels that the tagger does not have.

    Raises
    ------
    ConfigError
        If a number is out of range.
    DataError
        If the tables cannot be read, the sample is not a random one, there is no decision, a probability is missing,
        or the tagger has none of the labels.
    """
    assert goal.at_least is not None
    if not 0 < width < 1:
        raise ConfigError(f"the width of an interval is a fraction between 0 and 1, such as 0.1; got {width:g}")
    if goal.confidence < 0.5:
        raise ConfigError(f"checked detections need a confidence of 0.5 or more, got {goal.confidence:g}")
    path = Path(decisions)
    rows = _rows_of_labels(path, info, log)
    olds = detection_thresholds(info)
    lowest = {label: of_label.lowest_probability for label, of_label in read_check_info(path).labels.items()}
    found, curves = [], dict[str, CheckedPrecision]()
    for label in info.labels:
        if any(row.decision for row in rows.get(label, ())):
            fitted, curves[label] = fit_label(
                rows[label], goal, old_threshold=olds[label], lowest=lowest.get(label), width=width, where=str(path)
            )
            found.append(fitted)
    return CheckedThresholds(str(path), goal.at_least, goal.confidence, width, tuple(found), curves)


def detection_thresholds(info: BundleInfo) -> dict[str, float]:
    """The thresholds of detections, by label: those of short windows, of which detections are made, if it has any."""
    windows = info.window_thresholds
    return dict(zip(info.labels, info.thresholds if windows is None else windows.thresholds, strict=True))


def fit_label(
    rows: Sequence[CheckedDetection],
    goal: ThresholdGoal,
    *,
    old_threshold: float | None,
    lowest: float | None,
    width: float,
    where: str,
) -> tuple[CheckedLabel, CheckedPrecision]:
    """The lowest threshold of a label that reaches a precision, and its precision against threshold.

    Parameters
    ----------
    rows : sequence of CheckedDetection
        All sampled detections of the label, at least one of them decided.
    goal : ThresholdGoal
        Of kind precision.
    old_threshold : float, optional
        Of the tagger. None, because it does not have the label: the one that all detections of the table reach.
    lowest : float, optional
        The lowest probability of a detection of the label in the whole table.
    width : float
        The wished width of the interval of the precision.
    where : str
        Of the rows, for messages.

    Raises
    ------
    DataError
        If a probability is missing.
    """
    assert goal.at_least is not None
    curve = _curve(where, rows, lowest, goal.confidence)
    old = float(curve.thresholds[-1]) if old_threshold is None else old_threshold
    return _checked_label(rows, curve, old, goal.at_least, width), curve


def _rows_of_labels(path: Path, info: BundleInfo, log: Log) -> dict[str, list[CheckedDetection]]:
    check_is_random(path, read_check_info(path))
    rows = defaultdict(list)
    for row in read_decisions(path):
        rows[row.label].append(row)
    if not any(row.decision for of_label in rows.values() for row in of_label):
        raise DataError(f"{path}: none of its {sum(map(len, rows.values())):,} detections has a decision yet")
    unknown = [label for label in rows if label not in info.labels]
    if unknown and len(unknown) == len(rows):
        raise DataError(
            f"{path}: the tagger has none of its labels ({abbreviate(unknown)}); calibrate the model that detected them"
        )
    if unknown:
        hint = did_you_mean(unknown[0], info.labels)
        log(f"ignoring labels of {path.name} that the tagger does not have: {abbreviate(unknown)}{hint}")
    return rows


def check_is_random(path: Path, check: CheckInfo) -> None:
    """Raise a DataError if precision can't be estimated from a sample: one with `presence`, or without a part."""
    if check.max_probability is not None:
        raise DataError(
            f"{path}: the sample has no detections at or above {check.max_probability:g} (--max), so the precision "
            "above a threshold is unknown; draw a sample with them: spectag check without --max"
        )
    if check.presence:
        raise DataError(
            f"{path}: the sample has the most probable detections of each site and day (--presence), which says "
            "nothing about the others; draw a random sample: spectag check without --presence"
        )


def _curve(where: str, rows: Sequence[CheckedDetection], lowest: float | None, confidence: float) -> CheckedPrecision:
    probabilities = [row.probability for row in rows if row.probability is not None]
    if len(probabilities) < len(rows):
        raise DataError(
            f"{where}: detections of {rows[0].label} have no probability, so there is no threshold to choose; check a "
            "table of detections with probabilities"
        )
    decided = [_IS_RIGHT[row.decision] for row in rows]
    weights, ends = [row.weight for row in rows], [row.others_below for row in rows]
    return checked_precision(probabilities, weights, decided, confidence=confidence, lowest=lowest, others_below=ends)


def _checked_label(
    rows: Sequence[CheckedDetection], curve: CheckedPrecision, old: float, at_least: float, width: float
) -> CheckedLabel:
    chosen = None if curve.is_reversed else curve.lowest_index(at_least)
    index = curve.index_of(old) if chosen is None else chosen
    n_of = {decision: sum(row.decision == decision for row in rows) for decision in _IS_RIGHT}
    problem: Problem = ""
    if chosen is None:
        is_hopeless = curve.precision.max() < at_least
        problem = "reversed" if curve.is_reversed else "too many errors" if is_hopeless else "too few checks"
    return CheckedLabel(
        label=rows[0].label,
        n_checked=len(rows) - n_of[""],
        n_unsure=n_of["unsure"],
        n_undecided=n_of[""],
        old_threshold=old,
        threshold=old if chosen is None else float(curve.thresholds[chosen]),
        problem=problem,
        is_lowest=chosen == len(curve.thresholds) - 1,
        precision=float(curve.precision[index]),
        lower=float(curve.lower[index]),
        upper=float(curve.upper[index]),
        best_precision=float(curve.precision.max()),
        n_detections=float(curve.n_detections[index]),
        n_true=float(curve.n_true[index]),
        recall=float(curve.recall[index]),
        n_more_checks=curve.n_more_checks(index, width),
        n_unchecked=curve.n_unchecked,
    )
