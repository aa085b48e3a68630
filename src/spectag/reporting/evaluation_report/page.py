"""The evaluation report as one HTML file."""

from itertools import groupby
from pathlib import Path

from spectag.audio.spectrogram_drawing import SHOWN_DB
from spectag.errors import ConfigError
from spectag.evaluation.output import write_evaluation
from spectag.evaluation.results import Evaluation
from spectag.reporting.clip_view import reason_without_folder
from spectag.reporting.evaluation_report import clip_cards as cards
from spectag.reporting.evaluation_report import summary
from spectag.reporting.evaluation_report.clip_selection import surprising_clips, worst_clips
from spectag.reporting.evaluation_report.confusion import confusion_figure
from spectag.reporting.evaluation_report.curves import curve_figures
from spectag.reporting.evaluation_report.distributions import duration_histogram, labels_by_clips
from spectag.reporting.html_pages import check_page_path, render_page, write_page
from spectag.reporting.label_colors import LabelColors
from spectag.system.progress import Progress, shows_progress, silent

N_CLIPS = 12
"""Worst clips, and surprising clips."""
N_EXPLAINED = 4
"""The first of them, of each kind, that are explained: the network runs 194 times for each."""
REPORT_FILE = "report.html"

_BY_DURATION = "duration"


def write_evaluation_folder(
    evaluation: Evaluation,
    folder: Path,
    *,
    report: bool = True,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Write the files of an evaluation and, if wanted, its report; return the path of the report.

    Without a report, that of an earlier evaluation is removed. `command` and `progress` are as for `write_report`.
    """
    page = folder / REPORT_FILE
    page.unlink(missing_ok=True)
    write_evaluation(evaluation, folder)
    return write_report(evaluation, page, command=command, progress=progress) if report else page


@shows_progress
def write_report(
    evaluation: Evaluation,
    path: str | Path,
    *,
    n_clips: int = N_CLIPS,
    n_explained: int = N_EXPLAINED,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Write an evaluation as a single HTML file. Reading it needs no network and no script.

    Parameters
    ----------
    evaluation : Evaluation
        The report is about the first of its models; the others are compared with it.
    path : str or Path
        The page, .html. It is written completely or not at all.
    n_clips : int
        Number of worst clips, and of surprising clips, that are shown with their sound.
    n_explained : int
        The first worst clips, and the first surprising clips, with maps of where their labels are. Each takes a
        network 194 runs, such as one to two seconds of computing for a clip of 3 s.
    command : str, optional
        The command line of the evaluation, which the report prints.
    progress : Progress
        Called with the number of clips explained, then with that of the other clips drawn.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ConfigError
        If the suffix is not .html, or a number of clips is below 0.
    DataError
        If the page can't be written. A clip that can no longer be read is named on the page.

    Notes
    -----
    Equal evaluations give identical files on the same day, or if SOURCE_DATE_EPOCH is set.
    """
    path = Path(path)
    check_page_path(path)
    for name, number in {"n_clips": n_clips, "n_explained": n_explained}.items():
        if number < 0:
            raise ConfigError(f"{name}: expected 0 or more clips to show, got {number}")
    write_page(path, _page(evaluation, n_clips, n_explained, command, progress))
    return path


def _page(evaluation: Evaluation, n_clips: int, n_explained: int, command: str | None, progress: Progress) -> str:
    model = evaluation.models[0]
    predictions = model.predictions
    colors = LabelColors((predictions if model.tagger is None else model.tagger).labels.names)
    worst = worst_clips(predictions, n_clips)
    surprising = surprising_clips(predictions, n_clips, without={clip.row for clip in worst})
    shown = [*worst, *surprising]
    explained = {clip.row for clip in (*worst[:n_explained], *surprising[:n_explained])}
    all_cards = cards.clip_cards(model, shown, colors, progress, explained=explained)
    rows_with_card = {clip.row for clip in shown}
    tables = {
        by: summary.slice_table(by, list(slices), model)
        for by, slices in groupby(evaluation.slices, key=lambda part: part.by)
    }
    duration_slices = tables.pop(_BY_DURATION, None)
    return render_page(
        "evaluation_report.html",
        ("player.js", "evaluation_report.js"),
        title=f"{model.name} on {evaluation.manifest.source.name}",
        evaluation=evaluation,
        model=model,
        colors=colors,
        model_text=summary.model_text(model),
        total_duration=summary.total_duration_text(model),
        n_labels_without_clips=int((model.n_clips_per_label == 0).sum()),
        reason_without_folder=reason_without_folder,
        command=command,
        versions=summary.versions_text(),
        date=summary.report_date(),
        overall=summary.overall_table(evaluation),
        comparisons=[(comparison, summary.comparison_table(comparison)) for comparison in evaluation.comparisons],
        slices=list(tables.items()),
        duration_slices=duration_slices,
        curves=curve_figures(model),
        confusion=confusion_figure(predictions, rows_with_card),
        rows_with_card=rows_with_card,
        durations=duration_histogram(predictions.durations),
        labels_by_clips=labels_by_clips(model),
        worst=all_cards[: len(worst)] if n_clips else None,
        surprises=all_cards[len(worst) :] if n_clips else None,
        n_explained=n_explained,
        excerpt_seconds=cards.EXCERPT_SECONDS,
        shown_db=SHOWN_DB,
        color_ramp=cards.color_ramp(),
    )
