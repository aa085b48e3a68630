"""The label review page: findings to look at, listen to and decide; the page saves the decisions as corrections.csv."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectag.curation.label_review import AUDIO_ISSUES, LABEL_ISSUES, Finding, Review
from spectag.data.clips import Clip
from spectag.data.corrections import CORRECTION_COLUMNS, Corrections
from spectag.models.tagger import Tagger
from spectag.reporting.clip_view import ClipView, view_clip
from spectag.reporting.html_pages import render_page, write_page
from spectag.reporting.label_colors import LabelColors
from spectag.reporting.number_texts import quantity
from spectag.system.progress import Progress, silent

N_SHOWN = 100

_EXCERPT_SECONDS = 20.0


@dataclass(frozen=True)
class LabelChoice:
    """A label to tick."""

    label: str
    probability: float | None
    notes: list[str]


@dataclass(frozen=True)
class ReviewCard:
    """What the page shows of a finding."""

    finding: Finding
    clip_index: int
    text: str
    view: ClipView
    choices: list[LabelChoice]


def write_review_page(
    review: Review,
    path: str | Path,
    tagger: Tagger,
    *,
    n_shown: int = N_SHOWN,
    earlier: Corrections | None = None,
    progress: Progress = silent,
) -> Path:
    """Write the first findings of a review as a single HTML file.

    Parameters
    ----------
    review : Review
    path : str or Path
        The page, .html. It is written completely or not at all.
    tagger : Tagger
        The spectrograms are drawn with its MelConfig.
    n_shown : int
        Number of findings that are shown with their sound.
    earlier : Corrections, optional
        Corrections that the table saved by the page starts with.
    progress : Progress
        Called with the number of findings drawn.

    Raises
    ------
    DataError
        If the page can't be written. A clip that can no longer be read is named on the page.
    """
    path = Path(path)
    findings = [finding for finding in review.findings if finding.kind in (*LABEL_ISSUES, *AUDIO_ISSUES)]
    shown = findings[:n_shown]
    clips = list(dict.fromkeys(finding.clip for finding in shown))
    page = render_page(
        "label_review.html",
        ("player.js", "label_review.js"),
        title=f"Review of {review.manifest.source.name}",
        about=" ".join(_about(review, len(shown), len(findings))),
        kinds=list(_kinds(shown)),
        cards=list(_cards(shown, clips, tagger, progress)),
        colors=LabelColors(tagger.labels.names),
        labels=review.manifest.labels.names,
        data=_script_data(review, shown, clips, earlier),
    )
    write_page(path, page)
    return path


def _about(review: Review, n_shown: int, n_findings: int) -> Iterator[str]:
    n_label_issues, n_audio_issues = (
        sum(review.counts[kind] for kind in kinds) for kinds in (LABEL_ISSUES, AUDIO_ISSUES)
    )
    n_checked = len(review.findings)
    yield f"{n_label_issues:,} of {quantity(n_checked, 'clip')} may have wrong labels."
    if n_audio_issues:
        yield f"{quantity(n_audio_issues, 'sound')} may have a defect."
    if n_shown < n_findings:
        yield f"The first {n_shown:,} are shown here; review.csv lists all."
    if review.skipped:
        yield f"{quantity(len(review.skipped), 'clip')} cannot be read."
    if review.n_confirmed:
        yield f"{quantity(review.n_confirmed, 'clip')} were left out because a reviewer confirmed their labels."
    if n_train := review.origins.get("train", 0):
        yield (
            f"WARNING: {n_train:,} of the clips were used to train this model, so it tends to confirm their labels. "
            "Train it with folds to get out-of-fold predictions."
        )


def _kinds(shown: Sequence[Finding]) -> Iterator[tuple[str, int]]:
    """Each kind of finding that is shown, and how often."""
    for kind in (*LABEL_ISSUES, *AUDIO_ISSUES):
        if n := sum(finding.kind == kind for finding in shown):
            yield kind, n


def _script_data(
    review: Review, shown: Sequence[Finding], clips: Sequence[Clip], earlier: Corrections | None
) -> dict[str, Any]:
    """What the script needs, as JSON."""
    return {
        "manifest": str(review.manifest.source.resolve()),
        "columns": CORRECTION_COLUMNS,
        "earlier": [list(row.fields().values()) for row in earlier.rows] if earlier else [],
        "labels": review.manifest.labels.names,
        "clips": [
            {
                "fname": clip.fname,
                "start": f"{clip.start_seconds!r}" if clip.start_seconds else "",
                "end": "" if clip.end_seconds is None else f"{clip.end_seconds!r}",
                "labels": clip.labels,
            }
            for clip in clips
        ],
        "suggested": [finding.suggested for finding in shown],
    }


def _cards(shown: Sequence[Finding], clips: Sequence[Clip], tagger: Tagger, progress: Progress) -> Iterator[ReviewCard]:
    clip_indices = {clip: index for index, clip in enumerate(clips)}
    for n_done, finding in enumerate(shown):
        progress("findings drawn", n_done, len(shown))
        view = view_clip(finding.clip, _EXCERPT_SECONDS, tagger.front_end.mel, channel=tagger.channel)
        yield ReviewCard(finding, clip_indices[finding.clip], _text(finding), view, list(_choices(finding)))
    progress("findings drawn", len(shown), len(shown))


def _text(finding: Finding) -> str:
    """What may be wrong, and how certain that is."""
    if finding.label is None:
        return f"{finding.note[:1].upper()}{finding.note[1:]}."
    label = f"“{finding.label}” (predicted probability {finding.probability:.2f})"
    suggested = ", ".join(f"“{name}”" for name in finding.suggested) or "no label"
    problem = {
        "swapped label": f"{label} is probably wrong, and {suggested} right",
        "wrong label": f"{label} is probably wrong",
        "missing label": f"{label} is probably missing",
    }[finding.kind]
    note = f" Note: {finding.note}." if finding.note else ""
    return (
        f"{problem}. The labels are wrong with a probability of {_percent(finding.score)}, "
        f"and the suggestion is right with {_percent(finding.certainty)}.{note}"
    )


def _percent(probability: float | None) -> str:
    """A rounded probability, never 0 % or 100 %."""
    assert probability is not None
    return "over 99 %" if probability > 0.99 else "under 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"


def _choices(finding: Finding) -> Iterator[LabelChoice]:
    """Labels to tick, the most probable first."""
    probabilities = dict(finding.label_probabilities)
    marked = {"current": finding.clip.labels, "suggested": finding.suggested}
    for label in dict.fromkeys([*probabilities, *finding.clip.labels, *finding.suggested]):
        notes = [note for note, labels in marked.items() if label in labels]
        yield LabelChoice(label, probabilities.get(label), notes)
