"""The scores of detected sounds on the terminal."""

import math
from typing import TYPE_CHECKING

from spectag.cli.terminal import estimate_cells, new_table, stdout_console
from spectag.system.output import quote_commas

if TYPE_CHECKING:
    from spectag.evaluation.event_evaluation import EventEvaluation

_N_MISSING, _N_SIMILAR = 10, 3  # shown labels
_NAMES = {
    "event_f1": "F1 of events",
    "event_precision": "precision of events",
    "event_recall": "recall of events",
    "segment_f1": "F1 of segments",
    "segment_precision": "precision of segments",
    "segment_recall": "recall of segments",
    "psds1": "PSDS 1",
    "psds2": "PSDS 2",
}


def print_event_evaluation(evaluation: "EventEvaluation") -> None:
    """Print all scores with their intervals, and the F1 of each label, the lowest first."""
    table = new_table("score", "value", "95 % interval", right=("value",))
    for name, estimate in evaluation.scores.items():
        table.add_row(_NAMES[name], *estimate_cells(estimate))
    per_label = new_table("label", "sounds", "F1 of events", "95 % interval", right=("sounds", "F1 of events"))
    by_f1 = sorted(evaluation.per_label.items(), key=lambda item: (_or_zero(item[1]["event_f1"].value), item[0]))
    for label, scores in by_f1:
        f1 = scores["event_f1"]
        per_label.add_row(label, f"{evaluation.n_true[label]:,}", *estimate_cells(f1))
    if evaluation.never_detected:
        print(_never_detected(evaluation))
    console = stdout_console()
    console.print(table, "", per_label, "")
    print(f"{evaluation.n_recordings:,} recordings, {evaluation.hours:,.2f} h, intervals over recordings")
    if evaluation.no_psds is not None:
        print(f"no PSDS: {evaluation.no_psds}")
    if n_others := len(evaluation.not_annotated):
        verb = "is" if n_others == 1 else "are"
        recordings = f"{n_others:,} of {evaluation.n_recordings:,} recordings {verb} not in the annotations"
        print(f"{recordings}; all detections there count as false")
    if evaluation.ignored:
        n_ignored, labels = sum(evaluation.ignored.values()), len(evaluation.ignored)
        print(f"not scored: {n_ignored:,} detections of {labels:,} labels that are not annotated")


def _never_detected(evaluation: "EventEvaluation") -> str:
    """Which annotated labels no detection has, those with similar names in the detections first."""
    missing = sorted(evaluation.never_detected.items(), key=lambda item: not item[1])
    names = [
        quote_commas(label) + (f" (similar: {', '.join(map(quote_commas, similar[:_N_SIMILAR]))})" if similar else "")
        for label, similar in missing
    ]
    n_more = len(names) - _N_MISSING
    listed = ", ".join(names[:_N_MISSING]) + (f" and {n_more:,} more" if n_more > 0 else "")
    text = f"never detected: {len(missing):,} of {len(evaluation.n_true):,} annotated labels: {listed}"
    rename = "if these are other names of the same sounds, rename them with spectag relabel --map"
    return f"{text}; {rename}" if missing[0][1] else text


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
