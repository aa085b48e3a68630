"""The page to check detections by ear; a local server shows it, draws its cards and saves the decisions."""

from collections.abc import Sequence
from typing import Any

from spectag.data.checked_detections import CheckedDetection
from spectag.reporting.clip_view import ClipView
from spectag.reporting.html_pages import render, render_page
from spectag.reporting.label_colors import LabelColors


def render_check_page(
    rows: Sequence[CheckedDetection],
    labels: Sequence[str],
    *,
    title: str,
    about: str,
    finished: str,
    command: str,
    reviewer: str = "",
    revision: int = 0,
    units: Sequence[str | None] | None = None,
) -> str:
    """HTML of the page.

    Parameters
    ----------
    rows : sequence of CheckedDetection
        What to check, in the order in which it is asked.
    labels : sequence of str
        Labels of the model, which are suggested for other sounds.
    title, about : str
        Heading and first lines.
    finished, command : str
        What to do when all are checked.
    reviewer : str
        Name of who decides, if it is known.
    revision : int
        Of the decisions in the rows.
    units : sequence of str or None, optional
        Of the detections of a unit, one confirmed one is enough; None: each is asked.
    """
    sampled = list(dict.fromkeys(row.label for row in rows))
    units = units or [None] * len(rows)
    return render_page(
        "check.html",
        ("player.js", "check.js"),
        connects=True,
        title=title,
        about=about,
        finished=finished,
        command=command,
        reviewer=reviewer,
        cards=bool(rows),
        sampled_labels=sampled,
        labels=labels,
        colors=LabelColors([*labels, *sampled]),
        data={
            "cards": [card_facts(row, unit) for row, unit in zip(rows, units, strict=True)],
            "states": [decision_state(row) for row in rows],
            "revision": revision,
        },
    )


def render_check_card(view: ClipView) -> str:
    """HTML of the spectrogram and the sound of a detection, or why they cannot be shown."""
    return render("check_card.html", view=view)


def decision_state(row: CheckedDetection) -> dict[str, Any]:
    """What the page knows of a decision, for JSON."""
    return {
        "decision": row.decision,
        "other_labels": row.other_labels,
        "reviewer": row.reviewer,
        "comment": row.comment,
    }


def card_facts(row: CheckedDetection, unit: str | None) -> dict[str, str | None]:
    """What the page shows of a detection beside its sound, for JSON."""
    score = "" if row.probability is None else f"{row.probability:.2f}"
    return {"label": row.label, "facts": _facts(row), "score": score, "unit": unit}


def _facts(row: CheckedDetection) -> str:
    """Site, time, recording and position in it."""
    recorded = "" if row.recorded is None else row.recorded.strftime("%Y-%m-%d %H:%M:%S")
    end = "the end" if row.end_seconds is None else f"{row.end_seconds:.1f} s"
    return " · ".join(filter(None, [row.site, recorded, f"{row.file}, {row.start_seconds:.1f} s to {end}"]))
