"""What spectag calibrate prints of checked detections and of false alarms."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from spectag.cli.terminal import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from spectag.evaluation.background_thresholds import BackgroundThresholds
    from spectag.evaluation.checked_thresholds import CheckedLabel, CheckedThresholds

_MAX_ROWS = 40  # of labels without false alarms there may be hundreds


def checked_table(checked: "CheckedThresholds") -> "Table":
    """A row for each label: threshold, precision, right detections, recall."""
    more = f"more checks\nfor {checked.width:g}"
    numbers = ("checked", "precision", "right\ndetections", "recall", more)
    table = new_table("label", "checked", "threshold\nold → new", "precision", "interval", *numbers[2:], right=numbers)
    table.columns[2].no_wrap = True
    for row in checked.labels:
        threshold = f"{row.old_threshold:.3f} → {row.threshold:.3f}{'' if row.reaches_goal else ' missed'}"
        interval = f"{row.lower:.3f} to {row.upper:.3f}"
        counts = f"{row.n_true:,.0f} of {row.n_detections:,.0f}", f"{row.recall:.3f}", f"{row.n_more_checks:,}"
        table.add_row(row.label, f"{row.n_checked:,}", threshold, f"{row.precision:.3f}", interval, *counts)
    return table


def checked_summary(checked: "CheckedThresholds") -> Iterator[str]:
    """The goal, and a line for each label that does not reach it."""
    from spectag.data.readers.delimited_text import abbreviate

    n_reached = sum(row.reaches_goal for row in checked.labels)
    percent = f"{100 * checked.confidence:g} %"
    yield f"thresholds: a precision of at least {checked.precision:g} with {percent} confidence, by checked detections"
    yield f"            {n_reached} of {len(checked.labels)} labels reach it"
    yield "precision, right detections, recall: of all detections in the table with at least the threshold"
    yield f"interval: above its lower end with {percent} confidence, and below its upper end with {percent}"
    yield f"more checks: about so many make the interval as narrow as {checked.width:g}, as far as detections are left"
    yield from map(_why_missed, (row for row in checked.labels if not row.reaches_goal))
    for row in checked.labels:
        if row.is_lowest:
            yield (
                f"{row.label}: all detections in the table reach the goal. The table has none below "
                f"{row.threshold:.3f}; to try lower thresholds, tag with a lower --min-confidence and check again"
            )
    if counted := [row.label for row in checked.labels if not row.n_unchecked]:
        yield (
            f"counted, not estimated, because all detections in the table are checked: {abbreviate(counted)}. This "
            "says little about other recordings; for more detections to check, tag again with a lower --min-confidence"
        )
    if n_unsure := sum(row.n_unsure for row in checked.labels):
        yield f"{n_unsure:,} unsure decisions count as wrong"
    if n_undecided := sum(row.n_undecided for row in checked.labels):
        yield f"{n_undecided:,} sampled detections have no decision yet; they are not used"


def _why_missed(row: "CheckedLabel") -> str:
    keeps = f"missed: {row.label} keeps its threshold"
    if row.problem == "reversed":
        return (
            f"{keeps}: its most probable detections are less often right than the others, so the numbers above do not "
            "hold for it, and no threshold helps. Listen to them: another sound may be the cause"
        )
    if row.problem == "too many errors":
        if not row.n_unchecked:
            return (
                f"{keeps}: all its detections in the table are checked, and no threshold has this precision; the best "
                f"one has {row.best_precision:.3f}"
            )
        return f"{keeps}: even its most probable detections have a precision of only about {row.best_precision:.3f}"
    if not row.n_unchecked:
        return f"{keeps}: the table has only {row.n_checked:,} detections, too few to choose a threshold by"
    return f"{keeps}: {row.n_checked:,} checks are too few to show this precision; check more, or ask for less"


def background_table(background: "BackgroundThresholds") -> "Table":
    """A row for each label with false alarms, and one for all labels."""
    numbers = ("false alarms\nold → new", "per hour\nat most")
    table = new_table("label", "threshold\nold → new", *numbers, right=numbers)
    rows = [row for row in background.labels if row.n_alarms_before]
    for row in sorted(rows, key=lambda row: -row.n_alarms_before)[:_MAX_ROWS]:
        note = "" if row.reaches_goal else " missed"
        threshold = f"{row.old_threshold:.3f} → {row.threshold:.3f}{note}"
        table.add_row(row.label, threshold, *_alarm_cells(row.n_alarms_before, row.n_alarms, row.per_hour_at_most))
    if len(rows) > _MAX_ROWS:
        table.add_row(f"{len(rows) - _MAX_ROWS} more labels")
    counts = background.n_alarms_before, background.n_alarms, background.per_hour_at_most
    table.add_row("all labels together", "", *_alarm_cells(*counts))
    return table


def _alarm_cells(n_before: int, n_after: int, per_hour: float) -> Sequence[str]:
    return f"{n_before:,} → {n_after:,}", f"{per_hour:.3g}"


def background_summary(background: "BackgroundThresholds") -> Iterator[str]:
    """The goal, the length of the background, and what cannot be shown with it."""
    percent = f"{100 * background.confidence:g} %"
    yield f"thresholds: at most {background.goal} false alarms of each label, with {percent} confidence"
    hours = f"{background.hours:.3g} h of background in {background.n_recordings:,} recordings"
    yield f"{hours}; a rate below {background.lowest_per_hour:.2g}/h cannot be shown with it"
    n_raised = sum(row.is_raised for row in background.labels)
    yield f"{n_raised:,} of {len(background.labels):,} thresholds are raised; none is lowered"
    for row in background.labels:
        if not row.reaches_goal:
            yield f"missed: {row.label} keeps its threshold: it has too many false alarms at every threshold"
