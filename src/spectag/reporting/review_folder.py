"""The output folder of a label review: review.csv, review.html and, if suggestions are accepted, corrections.csv."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from spectag.curation.label_review import (
    Review,
    accept_suggestions,
    check_corrections_target,
    save_accepted,
    with_accepted,
    write_review,
)
from spectag.data.corrections import Correction, read_corrections
from spectag.models.tagger import Tagger
from spectag.reporting.label_review_page import N_SHOWN, write_review_page
from spectag.system.progress import Progress, silent

CORRECTIONS_FILE = "corrections.csv"


@dataclass(frozen=True)
class ReviewFiles:
    """The files that `write_review_folder` wrote."""

    table: Path
    page: Path
    corrections: Path
    """Where the page's corrections.csv should be saved. The file exists only if suggestions are accepted."""
    n_accepted: int | None
    """Number of suggestions that were added to the corrections; None if no suggestions are accepted."""


def write_review_folder(
    review: Review,
    folder: Path,
    tagger: Tagger,
    *,
    accept_above: float | None = None,
    reviewer: str = "",
    corrections: Path | None = None,
    max_shown: int = N_SHOWN,
    progress: Progress = silent,
) -> ReviewFiles:
    """Write the table and the page of a review, and accept suggestions.

    Parameters
    ----------
    review : Review
    folder : Path
    tagger : Tagger
        The model that the review was made with.
    accept_above : float, optional
        Add the suggestions with at least this certainty to corrections.csv, and leave them out of the page.
    reviewer : str
        Who accepts the suggestions.
    corrections : Path, optional
        The corrections that were applied before the review. The corrections of the page begin with them.
    max_shown : int
        Number of findings on the page.

    Raises
    ------
    DataError
        If a file can't be written.
    """
    table, target = folder / "review.csv", folder / CORRECTIONS_FILE
    write_review(table, review)
    previous = None if corrections is None else read_corrections(corrections)
    accepted: list[Correction] = []
    if accept_above is not None:
        accepted = accept_suggestions(review, accept_above, reviewer=reviewer, time=datetime.now().astimezone())
    page = write_review_page(
        review.without(accepted),
        folder / "review.html",
        tagger,
        n_shown=max_shown,
        earlier=previous if accept_above is None else with_accepted(target, accepted, previous),
        progress=progress,
    )
    if accept_above is not None:  # at last: once they are there, a run has to apply them
        check_corrections_target(target, corrections)  # another run may have written them in the meantime
        save_accepted(target, accepted, previous)
    return ReviewFiles(table, page, target, None if accept_above is None else len(accepted))
