"""Is the gain real? Two models on the same clips, resampled together."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spectag.data.clips import Clip
from spectag.errors import DataError
from spectag.evaluation.evaluated_models import EvaluatedModel, of_labels
from spectag.evaluation.intervals import Resampling, scores_on
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import METRIC_WORDS, Comparison, Difference
from spectag.scoring.bootstrap import difference_of_samples, two_sided_p

_Stretch = tuple[Path, float, float | None]


def compare(
    first: EvaluatedModel, other: EvaluatedModel, groups: Mapping[_Stretch, str], resampling: Resampling
) -> Comparison:
    """Every overall score of two, on the clips and the labels that both are judged by.

    Raises
    ------
    DataError
        If there is no such clip, or no such label.
    """
    labels = tuple(name for name in first.predictions.labels.names if name in other.predictions.labels.names)
    rows = {stretch(clip): row for row, clip in enumerate(other.predictions.clips)}
    pairs = [(row, rows[stretch(clip)]) for row, clip in enumerate(first.predictions.clips) if stretch(clip) in rows]
    if not labels or not pairs:
        raise DataError(
            f"{first.name} and {other.name} can't be compared: there is no {'clip' if labels else 'label'} by which "
            "both are judged"
        )
    of_first, of_other = np.array(pairs).T
    judged = [
        of_labels(evaluated_model.predictions.of(chosen), labels)
        for evaluated_model, chosen in ((first, of_first), (other, of_other))
    ]
    counts = resampling.counts([groups[stretch(clip)] for clip in judged[0].clips])
    scores = [scores_on(predictions, counts).overall for predictions in judged]
    differences = {}
    for metric, samples in scores[0].items():
        others = scores[1][metric]
        drawn = difference_of_samples(samples, others)
        p_value = math.nan if math.isnan(drawn[0]) else two_sided_p(drawn[1:])
        differences[metric] = Difference(float(samples[0]), float(others[0]), resampling.estimate(drawn), p_value)
    return Comparison(
        first=first.name,
        other=other.name,
        n_clips=len(pairs),
        labels=labels,
        n_labels_left_out=len({*first.predictions.labels.names, *other.predictions.labels.names} - set(labels)),
        differences=differences,
        sentence=_sentence(first.name, other.name, judged, differences, resampling.confidence),
    )


def stretch(clip: Clip) -> _Stretch:
    """What makes a clip the same in two predictions."""
    return clip.path, clip.start_seconds, clip.end_seconds


def _sentence(
    first: str, other: str, judged: list[Predictions], differences: Mapping[str, Difference], confidence: float
) -> str:
    """Whether one of them is better, in words."""
    lwlrap = differences["lwlrap"]
    found = lwlrap.difference
    where = f"on the same {len(judged[0].clips):,} clips and {len(judged[0].labels)} labels"
    if math.isnan(found.value):
        return f"{first} and {other} can't be compared {where}: no clip has a label"
    told = f"lwlrap {lwlrap.first:.4f} against {lwlrap.other:.4f} {where}"
    others = [METRIC_WORDS[metric] for metric, other in differences.items() if other.p_value < 1 - confidence]
    by_others = f" Other scores differ by more than chance explains: {'; '.join(others)}." if others else ""
    learnt = [name for name, one in zip((first, other), judged, strict=True) if "learnt" in one.origins]
    flattered = f" But {' and '.join(learnt)} learnt from such clips, which flatters." if learnt else ""
    if math.isnan(found.low):
        return f"{first} and {other}: {told}. What chance does is not known: there are no resamples.{flattered}"
    if found.low == found.high == 0:
        return f"{first} and {other} have the same lwlrap on every resample: {told}.{by_others}{flattered}"
    told += (
        f", a difference of {found.value:+.4f} ({confidence:.0%} interval {found.low:+.4f} to {found.high:+.4f}), "
        f"p = {lwlrap.p_value:.3f}"
    )
    if lwlrap.p_value >= 1 - confidence:
        return (
            f"No real difference between {first} and {other} is seen: {told}. It may be chance.{by_others}{flattered}"
        )
    better, worse = (first, other) if found.value > 0 else (other, first)
    return f"{better} is better than {worse}: {told}. Chance hardly explains it.{flattered}"
