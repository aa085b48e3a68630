"""The report of detections in recordings: scores, curves over thresholds, and errors to listen to; one HTML file."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from spectag.audio.spectrogram_drawing import SHOWN_DB
from spectag.data.clips import Clip
from spectag.errors import ConfigError
from spectag.evaluation.event_errors import EventError, EventErrorKind
from spectag.evaluation.event_evaluation import (
    PSDS_MAX_PER_HOUR,
    EventEvaluation,
    PsdRocCurve,
    ThresholdScores,
    write_event_evaluation,
)
from spectag.reporting.clip_view import ClipView, TimeMark, view_clip
from spectag.reporting.evaluation_report.clip_cards import color_ramp
from spectag.reporting.evaluation_report.dot_tables import DotRow, DotTable, score_scale
from spectag.reporting.evaluation_report.page import REPORT_FILE
from spectag.reporting.evaluation_report.summary import report_date, versions_text
from spectag.reporting.html_pages import check_page_path, render_page, write_page
from spectag.reporting.label_colors import LabelColors
from spectag.reporting.scales import Scale
from spectag.scoring.bootstrap import Estimate
from spectag.system.progress import Progress, shows_progress, silent
from spectag.system.worker_pool import n_usable_cores

N_PER_LABEL = 3
_MAX_CARDS = 36  # of a kind, whatever the number of labels
_MAX_FIGURES = 24  # labels with a small figure of their own
_EXCERPT_SECONDS, _CONTEXT_SECONDS = 8.0, 1.5
_SCORES = {
    "event_f1": ("F1 of events", "harmonic mean of precision and recall"),
    "event_precision": ("Precision of events", "correct detections of all detections"),
    "event_recall": ("Recall of events", "found sounds of all sounds"),
    "segment_f1": ("F1 of segments", "the same, with segments instead of sounds"),
    "segment_precision": ("Precision of segments", ""),
    "segment_recall": ("Recall of segments", ""),
    "psds1": ("PSDS 1", "when exactly: overlaps of at least 70 %"),
    "psds2": ("PSDS 2", "which sound, at about which time: overlaps of at least 10 %"),
}
_SHOWN_KINDS: tuple[EventErrorKind, ...] = ("false alarm", "missed", "wrong times")


class DrawnScore(NamedTuple):
    """A line over thresholds."""

    name: str
    color: str
    dash: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ErrorCard:
    """An error to look at and listen to."""

    error: EventError
    view: ClipView
    sentence: str
    facts: list[str]


def write_event_folder(
    evaluation: EventEvaluation,
    folder: Path,
    *,
    report: bool = True,
    command: str | None = None,
    progress: Progress = silent,
) -> None:
    """Write the files of an evaluation and, if wanted, its report. Without one, an earlier report is removed."""
    page = folder / REPORT_FILE
    page.unlink(missing_ok=True)
    write_event_evaluation(evaluation, folder)
    if report:
        write_event_report(evaluation, page, command=command, progress=progress)


@shows_progress
def write_event_report(
    evaluation: EventEvaluation,
    path: str | Path,
    *,
    n_per_label: int = N_PER_LABEL,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Write the report of detections compared with annotations.

    Parameters
    ----------
    evaluation : EventEvaluation
        Of `evaluate_events`.
    path : str or Path
        The page, .html. It is written completely or not at all.
    n_per_label : int
        Number of false alarms, of missed sounds and of sounds with wrong times of each label that are shown with their
        sound; of each kind 36 at most.
    command : str, optional
        The command line of the evaluation, which the report prints.
    progress : Progress
        Called with the number of sounds drawn.

    Raises
    ------
    ConfigError
        If the suffix is not .html, or `n_per_label` is below 0.
    DataError
        If the page can't be written. A recording that can no longer be read is named on the page.
    """
    path = Path(path)
    check_page_path(path)
    if n_per_label < 0:
        raise ConfigError(f"n_per_label: expected 0 or more sounds to show, got {n_per_label}")
    labels = sorted(evaluation.per_label)
    shown = {kind: _chosen(evaluation.errors, kind, n_per_label) for kind in _SHOWN_KINDS}
    cards = iter(_cards([error for errors in shown.values() for error in errors], progress))
    page = render_page(
        "event_report.html",
        ("player.js", "evaluation_report.js"),
        title=f"{evaluation.detections.name} compared with {evaluation.annotations.name}",
        evaluation=evaluation,
        colors=LabelColors(labels),
        labels=labels,
        overall=_overall_table(evaluation),
        score_names={name: heading for name, (heading, _) in _SCORES.items()},
        n_errors=Counter((error.label, error.kind) for error in evaluation.errors),
        n_of_kind=Counter(error.kind for error in evaluation.errors),
        curves=[(kind, list(_lines(evaluation.curve, kind))) for kind in ("event", "segment")]
        if evaluation.curve
        else [],
        label_figures=_label_figures(evaluation),
        n_left_out=max(0, len(labels) - _MAX_FIGURES),
        best_thresholds={name: _best(points) for name, points in evaluation.label_curves.items()},
        psd_roc=[(name, curve, _staircase(curve)) for name, curve in evaluation.psd_roc.items()],
        max_per_hour=PSDS_MAX_PER_HOUR,
        cards={kind: [next(cards) for _ in errors] for kind, errors in shown.items()},
        excerpt_seconds=_EXCERPT_SECONDS,
        context_seconds=_CONTEXT_SECONDS,
        shown_db=SHOWN_DB,
        color_ramp=color_ramp(),
        command=command,
        versions=versions_text(),
        date=report_date(),
    )
    write_page(path, page)
    return path


def _overall_table(evaluation: EventEvaluation) -> DotTable:
    rows = [DotRow((_SCORES[name][0],), estimate, _SCORES[name][1]) for name, estimate in evaluation.scores.items()]
    heading = "Value, 95 % interval" if evaluation.n_resamples else "Value"
    return DotTable(["Score"], rows, heading, score_scale(evaluation.scores.values()))


def _chosen(errors: Sequence[EventError], kind: EventErrorKind, n_per_label: int) -> list[EventError]:
    """The first errors of each label, in turn: the first of all labels, then the second ones, at most 36."""
    of_label: dict[str, list[EventError]] = defaultdict(list)
    for error in errors:
        if error.kind == kind:
            of_label[error.label].append(error)
    turns = ([found[turn] for found in of_label.values() if turn < len(found)] for turn in range(n_per_label))
    return [error for turn in turns for error in turn][:_MAX_CARDS]


def _cards(errors: Sequence[EventError], progress: Progress) -> list[ErrorCard]:
    """A card for each error. The card of a recording that can no longer be read shows the reason."""
    cards: list[ErrorCard] = []
    if errors:
        progress("sounds drawn", 0, len(errors))
    with ThreadPoolExecutor(n_usable_cores()) as pool:
        try:
            for card in pool.map(_card, errors):
                cards.append(card)
                progress("sounds drawn", len(cards), len(errors))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the remaining sounds
    return cards


def _card(error: EventError) -> ErrorCard:
    start = max(0.0, error.start_seconds - _CONTEXT_SECONDS)
    end = min(error.end_seconds + _CONTEXT_SECONDS, start + _EXCERPT_SECONDS)
    clip = Clip(error.path, error.file, (error.label,), start_seconds=start, end_seconds=end)
    view = view_clip(clip, _EXCERPT_SECONDS, None, marks=list(_marks(error, start, end)))
    return ErrorCard(error, view, _sentence(error), list(_facts(error, end)))


def _marks(error: EventError, start: float, end: float) -> Iterator[TimeMark]:
    is_detection = error.kind in ("false alarm", "repeated")
    names = ("detected", "annotated") if is_detection else ("annotated", "detected")
    spans = [(error.start_seconds, error.end_seconds), *([error.other_span] if error.other_span else [])]
    for index, (begin, stop) in enumerate(spans):
        if begin < end and stop > start:
            text = f"{error.label}, {names[index]} from {begin:.2f} s to {stop:.2f} s"
            is_detected = names[index] == "detected"
            yield TimeMark(text, max(begin, start) - start, min(stop, end) - start, is_secondary=is_detected)


def _sentence(error: EventError) -> str:
    """What went wrong."""
    others = ", ".join(f"“{label}”" for label in error.other_labels)
    if error.kind == "missed":
        found = f" Detected there: {others}." if others else ""
        return f"“{error.label}” was annotated here, but not detected.{found}"
    if error.kind == "false alarm":
        certainty = "" if error.probability is None else f" with probability {error.probability:.2f}"
        true = f" Annotated there: {others}." if others else " Nothing was annotated there."
        return f"“{error.label}” was detected{certainty}, but not annotated.{true}"
    assert error.other_span is not None
    starts, ends = (other - own for other, own in zip(error.other_span, _span(error), strict=True))
    return f"“{error.label}” was detected, but its start is {_shift(starts)} and its end {_shift(ends)}."


def _span(error: EventError) -> tuple[float, float]:
    return error.start_seconds, error.end_seconds


def _shift(seconds: float) -> str:
    return f"{abs(seconds):.2f} s too {'late' if seconds > 0 else 'early'}"


def _facts(error: EventError, end: float) -> Iterator[str]:
    yield f"{error.start_seconds:.2f} to {error.end_seconds:.2f} s"
    yield f"lasts {error.end_seconds - error.start_seconds:.2f} s"
    if error.end_seconds > end:
        yield f"only the first {_EXCERPT_SECONDS - _CONTEXT_SECONDS:g} s are shown"


def _lines(points: Iterable[ThresholdScores], kind: str) -> Iterator[DrawnScore]:
    """Precision, recall and F1 over thresholds; parts without a value are not drawn."""
    styles = {"precision": ("#0072b2", "solid"), "recall": ("#d55e00", "dashed"), "f1": ("#009e73", "solid")}
    for score, (color, dash) in styles.items():
        values = ((point.threshold, getattr(point, f"{kind}_{score}")) for point in points)
        defined = tuple((threshold, value) for threshold, value in values if value == value)
        yield DrawnScore("F1" if score == "f1" else score, color, dash, defined)


def _label_figures(evaluation: EventEvaluation) -> list[tuple[str, list[DrawnScore]]]:
    """The lines of each label, the lowest F1 of events first."""
    curves = evaluation.label_curves if evaluation.curve else {}
    order = sorted(curves, key=lambda name: (_or_zero(evaluation.per_label[name]["event_f1"]), name))
    return [(name, list(_lines(curves[name], "event"))) for name in order[:_MAX_FIGURES]]


def _or_zero(estimate: Estimate) -> float:
    return estimate.value if estimate.value == estimate.value else 0.0


def _best(points: Sequence[ThresholdScores]) -> ThresholdScores | None:
    """The threshold with the highest F1 of events; None if it is always 0."""
    defined = [point for point in points if point.event_f1 > 0]
    return max(defined, key=lambda point: point.event_f1) if defined else None


def _staircase(curve: PsdRocCurve) -> partial[str]:
    """A function of two scales that returns the curve as the data of an SVG path."""
    return partial(_svg_steps, curve)


def _svg_steps(curve: PsdRocCurve, per_hour: Scale, ratio: Scale) -> str:
    commands: list[str] = []
    for x, y in zip(curve.false_positives_per_hour, curve.true_positive_ratio, strict=True):
        if x <= per_hour.high and y == y:
            step = f"H{per_hour(x):.4g}V{ratio(y):.4g}" if commands else f"M{per_hour(x):.4g} {ratio(y):.4g}"
            commands.append(step)
    return "".join([*commands, f"H{per_hour.end:.4g}"]) if commands else ""
