"""Scores of detections in long recordings, compared with annotations: by events, by segments, and PSDS."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from spectag.array_types import BoolArray, FloatArray
from spectag.audio.files import audio_info
from spectag.config.findings import EventSettings
from spectag.data.detections import DetectedSound, DetectionTable, read_detections
from spectag.data.label_matching import stemmed_words
from spectag.errors import DataError
from spectag.evaluation.event_errors import ComparedSounds, EventError, find_event_errors, write_event_errors
from spectag.scoring.bootstrap import Estimate, Resampling, as_json
from spectag.scoring.event_scores import DetectionCounts, SoundEvents, count_events, count_segments, match_events
from spectag.scoring.intersection_scores import IntersectionCriteria, match_by_intersection, psds
from spectag.system.output import check_output_folder, csv_writer, open_output
from spectag.system.progress import Progress, shows_progress, silent
from spectag.system.short_texts import short_repr

_THRESHOLDS = np.linspace(0, 1, 52)[1:-1]  # of the curves and of PSDS: 50, as usual
_N_PSDS_RESAMPLES = 200
PSDS_MAX_PER_HOUR = 100.0
"""False detections per hour, up to which PSDS counts."""
_COUNT_SCORES = ("f1", "precision", "recall")
_COUNTED = tuple(f"{kind}_{score}" for kind in ("event", "segment") for score in _COUNT_SCORES)
PSDS_SCENARIOS = {
    "psds1": (IntersectionCriteria(0.7, 0.7, 0.3), 0.0),  # when exactly
    "psds2": (IntersectionCriteria(0.1, 0.1, 0.3), 0.5),  # which sound, at about which time
}
"""The two scenarios of DCASE task 4: criteria, and the weight of cross-triggers."""


@dataclass(frozen=True)
class ThresholdScores:
    """Scores of the detections with at least a probability."""

    threshold: float
    event_f1: float
    event_precision: float
    event_recall: float
    segment_f1: float
    segment_precision: float
    segment_recall: float


@dataclass(frozen=True)
class PsdRocCurve:
    """Found sounds over false detections, with the point of nothing detected; under it, the area is PSDS."""

    false_positives_per_hour: tuple[float, ...]
    """With the weight of cross-triggers."""
    true_positive_ratio: tuple[float, ...]
    """Mean over labels less their standard deviation, the highest up to this rate of false detections."""


@short_repr
@dataclass(frozen=True)
class EventEvaluation:
    """How well detections match annotations."""

    detections: Path
    annotations: Path
    settings: EventSettings
    n_resamples: int
    n_recordings: int
    hours: float
    """Length of all recordings."""
    scores: dict[str, Estimate]
    """Of all labels together: event_f1, event_precision, event_recall, segment_f1 and so on, psds1 and psds2."""
    per_label: dict[str, dict[str, Estimate]]
    """The same without PSDS, of each annotated label."""
    n_true: dict[str, int]
    """Annotated sounds by label."""
    curve: tuple[ThresholdScores, ...]
    """Over thresholds, of all labels together; empty without PSDS."""
    label_curves: dict[str, tuple[ThresholdScores, ...]]
    """The same of each label."""
    psd_roc: dict[str, PsdRocCurve]
    """The curves of psds1 and psds2."""
    errors: tuple[EventError, ...]
    """Missed sounds and wrong detections."""
    ignored: dict[str, int]
    """Detections of labels that are not annotated, which are not scored."""
    not_annotated: dict[str, int]
    """Scored detections in each recording that the annotations do not name. All of them count as false."""
    never_detected: dict[str, tuple[str, ...]]
    """Annotated labels that no detection has, each with similar labels of detections that are not annotated."""
    no_psds: str | None
    """Why there is no PSDS; None if there is."""

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON, except the single errors and the curves of PSDS and of each label."""
        left_out = {"errors", "label_curves", "psd_roc"}
        values = {name: value for name, value in vars(self).items() if name not in left_out}
        paths = {"detections": str(self.detections), "annotations": str(self.annotations)}
        result: dict[str, Any] = as_json(values | paths | {"settings": self.settings.model_dump()})
        return result


@shows_progress
def evaluate_events(
    detections: str | Path | DetectionTable,
    annotations: str | Path | DetectionTable,
    output: str | Path | None = None,
    settings: EventSettings | None = None,
    *,
    audio_dir: str | Path | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> EventEvaluation:
    """Compare detections in recordings with annotations of the same recordings.

    Only labels of the annotations are scored. Detections, or annotations, of one label that overlap or touch count as
    one sound.

    Parameters
    ----------
    detections, annotations : path or DetectionTable
        Tables that `read_detections` reads. Recordings without sounds count, if one of the tables names them. In a
        table with a probability for each label in each window, the detections are those with at least
        `settings.min_probability`.
    output : path, optional
        Folder for metrics.json, per_label.csv, curve.csv, psd_roc.csv and errors.csv.
    settings : EventSettings, optional
    audio_dir : path, optional
        Folder of the recordings, if they are not beside the tables. Their lengths are needed.
    n_resamples, seed : int
        Bootstrap resamples of recordings for the intervals (0: no intervals), and what draws them.
    progress : Progress

    Raises
    ------
    DataError
        If a table is not understood, names recordings that are not found, there are no annotations, one of them starts
        after the end of its recording, or a detection has no probability and there is a `settings.min_probability`.
    AudioError
        If the length of a recording cannot be read.
    """
    if output is not None:
        check_output_folder(Path(output))
    settings = settings or EventSettings()
    truth = (
        annotations
        if isinstance(annotations, DetectionTable)
        else read_detections(annotations, audio_dir=audio_dir, min_option=None)
    )
    found = (
        detections
        if isinstance(detections, DetectionTable)
        else read_detections(
            detections, audio_dir=audio_dir, min_in_windows=settings.min_probability, min_option="--min-probability"
        )
    )
    if not truth.detections:
        raise DataError(
            f"{truth.source}: there are no annotated sounds; expected the true start, end and label of each"
        )
    comparison = _Comparison(truth, found)
    if settings.min_probability is not None:
        comparison.check_probabilities(found.source)
    evaluation = comparison.evaluate(settings, Resampling(n_resamples, seed=seed), progress)
    if output is not None:
        write_event_evaluation(evaluation, output)
    return evaluation


def _similar(label: str, others: Iterable[str]) -> tuple[str, ...]:
    """Labels that have all words of this one, or only such words, or are spelled alike."""
    names, words = list(others), set(stemmed_words(label))
    related = [name for name in names if (own := set(stemmed_words(name))) and (own <= words or words <= own)]
    return tuple(dict.fromkeys([*related, *get_close_matches(label, names)]))


class _Comparison:
    """The true and the detected sounds as arrays."""

    def __init__(self, truth: DetectionTable, found: DetectionTable) -> None:
        self._sources = found.source, truth.source
        self._recordings = tuple(dict.fromkeys([*truth.recordings, *found.recordings]))
        self._names = {sound.path: sound.file for sound in [*found.detections, *truth.detections]}
        self.durations = np.array([audio_info(path).duration_seconds for path in self._recordings])
        self._numbers = {path: number for number, path in enumerate(self._recordings)}
        self._check_starts(truth)
        known = {sound.label for sound in truth.detections}
        self.labels = sorted(known)
        scored = [sound for sound in found.detections if sound.label in known]
        self.ignored = dict(Counter(sound.label for sound in found.detections if sound.label not in known))
        found_labels = {sound.label for sound in scored}
        self.never_detected = {
            label: _similar(label, self.ignored) for label in self.labels if label not in found_labels
        }
        n_scored = Counter(sound.path for sound in scored)
        annotated = set(truth.recordings)
        self.not_annotated = {str(path): n_scored[path] for path in found.recordings if path not in annotated}
        self.truth = self._events(truth.detections).merged()
        self._detected = self._events(scored)
        self._given = np.array([sound.probability for sound in scored], np.float64)  # None becomes NaN
        self._n_without_probability = int(np.isnan(self._given).sum())
        self._probabilities = None if self._n_without_probability or not scored else self._given

    def _check_starts(self, truth: DetectionTable) -> None:
        for sound in truth.detections:
            seconds = self.durations[self._numbers[sound.path]]
            if sound.start_seconds >= seconds:
                raise DataError(
                    f"{truth.source}: {sound.label!r} in {sound.file} starts at {sound.start_seconds:g} s, but the "
                    f"recording has {seconds:.3f} s; correct the annotation, or name the right recording"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of recordings and of labels."""
        return len(self.durations), len(self.labels)

    def _events(self, sounds: Sequence[DetectedSound]) -> SoundEvents:
        recordings = np.array([self._numbers[sound.path] for sound in sounds], np.int64)
        lengths = self.durations[recordings]
        ends = np.array([np.inf if sound.end_seconds is None else sound.end_seconds for sound in sounds], np.float64)
        names = {name: number for number, name in enumerate(self.labels)}
        return SoundEvents(
            recordings,
            np.array([sound.start_seconds for sound in sounds], np.float64),
            np.minimum(ends, np.maximum(lengths, 0)),
            np.array([names[sound.label] for sound in sounds], np.int64),
        )

    def detected(self, threshold: float | None) -> SoundEvents:
        """The detections with at least this probability; None: all."""
        return self._detected[self._rows(threshold)].merged()

    def _rows(self, threshold: float | None) -> BoolArray:
        if threshold is None or self._probabilities is None:
            return np.ones(len(self._detected), bool)
        return self._probabilities >= threshold

    def errors(self, settings: EventSettings) -> tuple[EventError, ...]:
        """Missed sounds and wrong detections, at the same threshold as the scores."""
        chosen = self._rows(settings.min_probability)
        detected, parts = self._detected[chosen].merge()
        probabilities = np.full(len(detected), np.nan)
        np.fmax.at(probabilities, parts, self._given[chosen])
        matches = match_events(
            self.truth, detected, collar_seconds=settings.collar, offset_fraction=settings.offset_fraction
        )
        sounds = ComparedSounds(self.truth, detected, probabilities, self._recordings, self._names, self.labels)
        return find_event_errors(sounds, matches)

    def thresholds(self) -> list[float]:
        """Thresholds between which the detections differ; none without probabilities."""
        if self._probabilities is None:
            return []
        return [float(threshold) for threshold in _THRESHOLDS if threshold <= self._probabilities.max()]

    def check_probabilities(self, source: Path) -> None:
        """Raise a DataError if a scored detection has no probability."""
        if self._n_without_probability:
            raise DataError(
                f"{source}: {self._n_without_probability:,} of {len(self._detected):,} detections have no probability, "
                "but --min-probability needs it; leave it out, or add the probabilities to the table"
            )

    def _why_no_psds(self) -> str | None:
        """The reason if there are no thresholds."""
        n_detected, n_without = len(self._detected), self._n_without_probability
        if not n_detected:
            return "there are no detections of annotated labels"
        if n_without:
            return f"{n_without:,} of {n_detected:,} detections have no probability"
        if not self.thresholds():
            return f"all probabilities are below the lowest threshold, {_THRESHOLDS[0]:.4f}"
        return None

    def evaluate(self, settings: EventSettings, resampling: Resampling, progress: Progress) -> EventEvaluation:
        """All scores."""
        weights = resampling.counts(range(len(self.durations))).T.astype(np.float64)
        counts = self._counts(self.detected(settings.min_probability), settings)
        scores, per_label = dict[str, Estimate](), {name: dict[str, Estimate]() for name in self.labels}
        for kind, table in counts.items():
            n_recordings = ((table.n_true > 0) | (table.n_detected > 0)).sum(axis=0)
            sampled = table.of_recordings(weights)
            for score in _COUNT_SCORES:
                overall = getattr(sampled.overall(), score)
                [scores[f"{kind}_{score}"]] = resampling.estimates(overall, len(self.durations))
                estimates = resampling.estimates(getattr(sampled, score), n_recordings)
                for name, estimate in zip(self.labels, estimates, strict=True):
                    per_label[name][f"{kind}_{score}"] = estimate
        n_true = np.bincount(self.truth.labels, minlength=len(self.labels)).tolist()
        curve, label_curves = self._curves(settings)
        psds_scores, psd_roc = self._psds(weights[: _N_PSDS_RESAMPLES + 1], resampling, progress)
        return EventEvaluation(
            *self._sources,
            settings,
            len(weights) - 1,
            n_recordings=len(self.durations),
            hours=float(self.durations.sum()) / 3600,
            scores=scores | psds_scores,
            per_label=per_label,
            n_true=dict(zip(self.labels, n_true, strict=True)),
            curve=curve,
            label_curves=label_curves,
            psd_roc=psd_roc,
            errors=self.errors(settings),
            ignored=self.ignored,
            not_annotated=self.not_annotated,
            never_detected=self.never_detected,
            no_psds=self._why_no_psds(),
        )

    def _counts(self, detected: SoundEvents, settings: EventSettings) -> dict[str, DetectionCounts]:
        events = count_events(
            self.truth,
            detected,
            self.shape,
            collar_seconds=settings.collar,
            offset_fraction=settings.offset_fraction,
        )
        return {
            "event": events,
            "segment": count_segments(self.truth, detected, self.shape, segment_seconds=settings.segment),
        }

    def _curves(
        self, settings: EventSettings
    ) -> tuple[tuple[ThresholdScores, ...], dict[str, tuple[ThresholdScores, ...]]]:
        """Scores over thresholds, of all labels together and of each."""
        overall, of_labels = list[ThresholdScores](), {name: list[ThresholdScores]() for name in self.labels}
        for threshold in self.thresholds():
            counts = [table.of_recordings() for table in self._counts(self.detected(threshold), settings).values()]
            overall.append(_threshold_scores(threshold, [table.overall() for table in counts], 0))
            for number, name in enumerate(self.labels):
                of_labels[name].append(_threshold_scores(threshold, counts, number))
        return tuple(overall), {name: tuple(points) for name, points in of_labels.items()}

    def _psds(
        self, weights: FloatArray, resampling: Resampling, progress: Progress
    ) -> tuple[dict[str, Estimate], dict[str, PsdRocCurve]]:
        """PSDS and its curve in both scenarios; none without thresholds."""
        scores, curves = dict[str, Estimate](), dict[str, PsdRocCurve]()
        thresholds, n_labels = self.thresholds(), len(self.labels)
        if not thresholds:
            return scores, curves
        progress("PSDS", 0, len(PSDS_SCENARIOS))
        for name, (criteria, cross_trigger_weight) in PSDS_SCENARIOS.items():
            outcomes = [
                match_by_intersection(self.truth, self.detected(threshold), n_labels, criteria)
                for threshold in thresholds
            ]
            samples = [
                psds(
                    [outcome.rates(self.durations, n_labels, of_sample) for outcome in outcomes],
                    cross_trigger_weight=cross_trigger_weight,
                    spread_weight=1.0,
                    max_per_hour=PSDS_MAX_PER_HOUR,
                )
                for of_sample in weights
            ]
            values = np.array([sample.score for sample in samples])
            [scores[name]] = resampling.estimates(values[:, None], len(self.durations))
            per_hour, ratios = samples[0].false_positives_per_hour, samples[0].true_positive_ratio
            curves[name] = PsdRocCurve(tuple(per_hour.tolist()), tuple(ratios.tolist()))
            progress("PSDS", len(scores), len(PSDS_SCENARIOS))
        return scores, curves


def _threshold_scores(threshold: float, counts: Sequence[DetectionCounts], label: int) -> ThresholdScores:
    """Scores of a label, or of all of them as one, by events and by segments."""
    values = [float(getattr(table, score)[label]) for table in counts for score in _COUNT_SCORES]
    return ThresholdScores(threshold, *values)


def write_event_evaluation(evaluation: EventEvaluation, folder: str | Path) -> None:
    """Write metrics.json, per_label.csv, curve.csv, psd_roc.csv and errors.csv.

    Raises
    ------
    DataError
        If a file cannot be written.
    """
    output = Path(folder)
    with open_output(output / "metrics.json") as file:
        file.write(json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n")
    with open_output(output / "per_label.csv") as file:
        write_row = csv_writer(file)
        write_row(["label", "sounds", *(f"{name}{end}" for name in _COUNTED for end in ("", "_low", "_high"))])
        for label, scores in evaluation.per_label.items():
            estimates = [scores[name] for name in _COUNTED]
            numbers = [value for estimate in estimates for value in (estimate.value, estimate.low, estimate.high)]
            write_row([label, str(evaluation.n_true[label]), *map(_number_text, numbers)])
    with open_output(output / "curve.csv") as file:
        write_row = csv_writer(file)
        write_row(["label", "threshold", *_COUNTED])
        for label, points in {"": evaluation.curve, **evaluation.label_curves}.items():
            for scored in points:
                write_row([label, *map(_number_text, astuple(scored))])
    with open_output(output / "psd_roc.csv") as file:
        write_row = csv_writer(file)
        write_row(["score", "false_positives_per_hour", "true_positive_ratio"])
        for name, curve in evaluation.psd_roc.items():
            for point in zip(curve.false_positives_per_hour, curve.true_positive_ratio, strict=True):
                write_row([name, *map(_number_text, point)])
    write_event_errors(output / "errors.csv", evaluation.errors)


def _number_text(number: float) -> str:
    """With four digits; empty if it is not defined."""
    return "" if math.isnan(number) else f"{number:.4f}"
