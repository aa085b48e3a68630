"""The precision of detections, estimated from a sample that somebody checked by ear."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spectag.data.checked_detections import CheckedDetection, CheckInfo
from spectag.data.detections import DetectedSound

_Z = 1.959964  # of 95 % intervals


@dataclass(frozen=True)
class LabelPrecision:
    """The fraction of a label's detections that are true, with its 95 % interval."""

    value: float
    low: float
    high: float
    n_checked: int
    """Detections with a decision. Unsure counts as wrong, as in `spectag calibrate --checked`."""


def precisions_of(
    detections: Iterable[DetectedSound], rows: Iterable[CheckedDetection], info: CheckInfo | None
) -> dict[str, LabelPrecision]:
    """The precision of detections, by label; none of labels whose sample does not represent all of them.

    Parameters
    ----------
    detections : iterable of DetectedSound
        What was counted. Sampled ones below their lowest probability do not count.
    rows : iterable of CheckedDetection
    info : CheckInfo, optional
        How the sample was drawn: detections beyond its limits cannot be in it, and with `presence`, it is not random.
    """
    if info is not None and info.presence:
        return {}
    low, high = (0.0, None) if info is None else (info.min_probability, info.max_probability)
    lowest: dict[str, float] = {}
    beyond_limits: set[str] = set()
    for sound in detections:
        if sound.probability is not None:
            lowest[sound.label] = min(lowest.get(sound.label, 1.0), sound.probability)
            if sound.probability < low or (high is not None and sound.probability >= high):
                beyond_limits.add(sound.label)
    precisions = label_precisions(rows, lowest)
    return {label: value for label, value in precisions.items() if label not in beyond_limits}


def label_precisions(
    rows: Iterable[CheckedDetection], lowest: Mapping[str, float] | None = None
) -> dict[str, LabelPrecision]:
    """The precision of each label that was checked.

    Parameters
    ----------
    rows : iterable of CheckedDetection
        Those without a decision do not count; unsure counts as wrong.
    lowest : mapping, optional
        The lowest probability of each label's detections whose precision is wanted.

    Notes
    -----
    Fractions are weighted by the sampling weights. Intervals are Wilson's, with Kish's effective number of checked
    detections, (Σ weight)² / Σ weight², and the correction for finite populations: if all detections are checked, the
    precision is known.
    """
    checked, n_detections, lowest = defaultdict(list), defaultdict[str, float](float), lowest or {}
    for row in rows:
        if row.probability is None or row.probability >= lowest.get(row.label, 0.0):
            n_detections[row.label] += row.weight
            if row.decision:
                checked[row.label].append((row.weight, row.decision == "yes"))
    return {label: _precision(found, n_detections[label]) for label, found in checked.items()}


def _precision(checked: list[tuple[float, bool]], n_detections: float) -> LabelPrecision:
    total = sum(weight for weight, _ in checked)
    n_effective = total**2 / sum(weight**2 for weight, _ in checked)
    p = sum(weight for weight, is_true in checked if is_true) / total
    unseen = max(1 - n_effective / n_detections, 0.0)
    x = _Z**2 / n_effective * unseen  # 0: all detections are checked
    middle, half = (p + x / 2) / (1 + x), math.sqrt(p * (1 - p) * x + x**2 / 4) / (1 + x)
    return LabelPrecision(p, max(middle - half, 0.0), min(middle + half, 1.0), len(checked))
