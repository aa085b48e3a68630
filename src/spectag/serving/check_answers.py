"""What a worker process computes for the Check view: samples, cards, precision against threshold, new models."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from spectag.config.base import Config
from spectag.config.findings import CheckSettings
from spectag.data.checked_detections import CheckedDetection, CheckInfo, read_check_info, read_decisions
from spectag.serving.answers import AnswerLimits, Question, Refusal, opened_tagger
from spectag.serving.field_types import Probability, Seconds
from spectag.system.progress import no_log

if TYPE_CHECKING:
    from spectag.scoring.checked_precision import CheckedPrecision

_DIGITS = 4  # of the numbers of a curve


class DrawQuery(CheckSettings):
    """How a sample is drawn, and into which folder."""

    output: Path
    audio_dir: Path | None = None
    min_probability: Probability | None = None
    labels: tuple[str, ...] | None = None
    """None: all."""


class DetectionTableQuery(Config):
    """Which detections of a table count."""

    min_probability: Probability = 0.0


class RecordingsQuery(Config):
    """The names of the recordings of a sample."""

    files: tuple[str, ...]
    audio_dir: Path | None = None
    min_probability: Probability = 0.0


class CardQuery(Config):
    """A detection that is shown."""

    start_seconds: Seconds
    end_seconds: Seconds | None
    context: Seconds


class GoalQuery(Config):
    """The precision that thresholds have to reach."""

    precision: float = Field(0.9, gt=0, lt=1)
    confidence: float = Field(0.9, ge=0.5, lt=1)
    width: float = Field(0.1, gt=0, lt=1)
    """Of an interval that is narrow enough."""


class CurveQuery(GoalQuery):
    """The label whose precision is estimated."""

    label: str = Field(max_length=10_000)


class CheckedVersionQuery(GoalQuery):
    """The folder of a new model."""

    output: Path


def draw_check(limits: AnswerLimits, question: Question) -> dict[str, Any] | Refusal:
    """Draw a sample of the detections in a table."""
    from spectag.findings.check_session import open_check

    query = question.query
    assert isinstance(query, DrawQuery)
    settings = CheckSettings(**{name: getattr(query, name) for name in CheckSettings.model_fields})
    with open_check(
        opened_tagger(limits),
        question.path,
        query.output,
        settings,
        labels=None if query.labels is None else frozenset(query.labels),
        audio_dir=query.audio_dir,
        min_probability=query.min_probability,
    ) as session:
        n_rows = len(session.rows)
    if not n_rows:
        shutil.rmtree(query.output, ignore_errors=True)
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"{question.name}: has no detections within these limits")
    return {"rows": n_rows}


def table_labels(_limits: AnswerLimits, question: Question) -> dict[str, Any]:
    """The labels of a table with their numbers of detections, the most frequent first."""
    from spectag.data.detections import read_detections
    from spectag.findings.checked_sample import unique_detections

    query = question.query
    assert isinstance(query, DetectionTableQuery)
    minimum = query.min_probability
    table = read_detections(question.path, min_probability=minimum, min_in_windows=minimum, missing_ok=True)
    counts = Counter(sound.label for sound in unique_detections(table.detections))
    ordered = sorted(counts.items(), key=lambda found: (-found[1], found[0]))
    return {"labels": [{"label": label, "detections": n} for label, n in ordered]}


def recordings(_limits: AnswerLimits, question: Question) -> dict[str, Any]:
    """The paths of recordings, by their names in the table."""
    from spectag.data.detections import read_detections
    from spectag.findings.checked_sample import unique_detections

    query = question.query
    assert isinstance(query, RecordingsQuery)
    minimum, wanted = query.min_probability, set(query.files)
    table = read_detections(question.path, audio_dir=query.audio_dir, min_in_windows=minimum, missing_ok=True)
    found = {sound.file.strip(): str(sound.path) for sound in unique_detections(table.detections)}
    return {name: path for name, path in found.items() if name in wanted}


def card(limits: AnswerLimits, question: Question) -> dict[str, Any]:
    """The spectrogram and the sound of a detection, or why they can't be shown."""
    from spectag.reporting.detection_view import view_detection

    query = question.query
    assert isinstance(query, CardQuery)
    tagger = opened_tagger(limits)
    view = view_detection(
        question.path,
        question.name,
        query.start_seconds,
        query.end_seconds,
        tagger.front_end.mel,
        context=query.context,
        channel=tagger.channel,
    )
    if view.figure is None:
        return {"problem": view.problem}
    figure = asdict(view.figure)
    del figure["maps"]
    return {"figure": figure, "sound": view.sound, "text": view.excerpt_text}


def label_curve(limits: AnswerLimits, question: Question) -> dict[str, Any] | Refusal:
    """Precision against threshold of a label, and whether its checks are enough; of the decisions in a table.

    The old threshold is None if the model does not have the label.
    """
    from spectag.evaluation.checked_thresholds import check_is_random, detection_thresholds

    query, path = question.query, question.path
    assert isinstance(query, CurveQuery)
    check = read_check_info(path)
    check_is_random(path, check)
    old = detection_thresholds(opened_tagger(limits).info).get(query.label)
    if query.label not in check.labels:
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"the check does not have the label {query.label}")
    rows = [row for row in read_decisions(path) if row.label == query.label]
    if not any(row.decision for row in rows):
        return {"old_threshold": old, "curve": None}
    fitted, curve = _fit(rows, check, old, query, path)
    columns = ("thresholds", "precision", "lower", "upper")
    numbers = {name: [round(float(value), _DIGITS) for value in getattr(curve, name)] for name in columns}
    return fitted | {"curve": numbers}


def all_thresholds(limits: AnswerLimits, question: Question) -> dict[str, Any] | Refusal:
    """The thresholds of all labels with decisions, first of those that the model has."""
    from spectag.evaluation.checked_thresholds import check_is_random, detection_thresholds

    query, path = question.query, question.path
    assert isinstance(query, GoalQuery)
    check = read_check_info(path)
    check_is_random(path, check)
    of_label = defaultdict(list)
    for row in read_decisions(path):
        of_label[row.label].append(row)
    olds = detection_thresholds(opened_tagger(limits).info)
    decided = [label for label, rows in of_label.items() if any(row.decision for row in rows)]
    if not decided:
        n_rows = sum(map(len, of_label.values()))
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"none of its {n_rows:,} detections has a decision yet")
    order = {label: number for number, label in enumerate(olds)}
    decided.sort(key=lambda label: order.get(label, len(order)))
    return {"labels": [_fit(of_label[label], check, olds.get(label), query, path)[0] for label in decided]}


def _fit(
    rows: Sequence[CheckedDetection], check: CheckInfo, old: float | None, query: GoalQuery, path: Path
) -> tuple[dict[str, Any], "CheckedPrecision"]:
    """The threshold of a label, for JSON, and its precision against threshold; at least one row is decided."""
    from spectag.evaluation.checked_thresholds import fit_label

    lowest = check.labels[rows[0].label].lowest_probability
    fitted, curve = fit_label(rows, _goal(query), old_threshold=old, lowest=lowest, width=query.width, where=str(path))
    return asdict(fitted) | {"old_threshold": old, "is_enough": fitted.is_enough(query.width)}, curve


def write_version(limits: AnswerLimits, question: Question) -> dict[str, Any]:
    """Write the model with the thresholds of checked detections to a new folder."""
    from spectag.evaluation.recalibration import calibrate

    query = question.query
    assert isinstance(query, CheckedVersionQuery)
    result = calibrate(
        limits.model, goal=_goal(query), checked=question.path, width=query.width, output=query.output, log=no_log
    )
    assert result.checked is not None
    return {"labels": [asdict(row) for row in result.checked.labels if row.reaches_goal]}


def _goal(query: GoalQuery) -> Any:
    from spectag.scoring.thresholds import ThresholdGoal

    return ThresholdGoal(kind="precision", at_least=query.precision, confidence=query.confidence)
