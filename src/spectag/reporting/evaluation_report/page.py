"""The page of an evaluation: its sections in their order, in one file."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from spectag.errors import ConfigError, DataError
from spectag.evaluation.results import Evaluation
from spectag.reporting.evaluation_report.clip_cards import EXCERPT_SECONDS, clip_cards, color_bar
from spectag.reporting.evaluation_report.clip_selection import SURPRISES, WORST, surprises, worst_clips
from spectag.reporting.evaluation_report.confusion import confusion_section
from spectag.reporting.evaluation_report.curves import curves_section
from spectag.reporting.evaluation_report.formatting import lead
from spectag.reporting.evaluation_report.histograms import calibration_section, clips_per_label_figure, durations_figure
from spectag.reporting.evaluation_report.label_table import label_section
from spectag.reporting.evaluation_report.summary import (
    BY_DURATION,
    comparison_section,
    facts,
    headlines,
    overall_table,
    slice_table,
    slices_section,
)
from spectag.system.atomic_files import unfinished_file
from spectag.system.progress import Progress, silent

N_CLIPS = 12

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
$headlines
</header>
<nav aria-label="Sections"><ul>$contents</ul></nav>
<main>
$sections
</main>
<script>
$script</script>
</body>
</html>
""")


def write_report(
    evaluation: Evaluation,
    path: str | Path,
    *,
    n_clips: int = N_CLIPS,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Write an evaluation as a page that needs nothing else: no network, no other file, and no script to be read.

    Parameters
    ----------
    evaluation : Evaluation
        The first of its models is the one that is reported; others are compared with it.
    path : str or Path
        The page, .html; written whole or not at all.
    n_clips : int
        Worst clips, and as many that surprise, that are shown with their sound.
    command : str, optional
        The command line that made the evaluation, to be told.
    progress : Progress
        Told how many clips are drawn, for which the tagger is asked where it looked.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ConfigError
        If the suffix is another, or `n_clips` is below 0.
    DataError
        If the page can't be written. A clip that can't be read any more is named on the page.
    MissingExtraError
        If matplotlib, which has the colours of the spectrograms, is not installed.

    Notes
    -----
    Equal evaluations give equal bytes on the same day, or where SOURCE_DATE_EPOCH is set.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{path}: the report is an HTML file; change the suffix to .html")
    if n_clips < 0:
        raise ConfigError(f"clips: expected 0 or more to show, got {n_clips}")
    text = _page(evaluation, n_clips, command, progress)
    try:
        with unfinished_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"{path}: the report can't be written: {error.strerror or error}") from error
    return path


def _page(evaluation: Evaluation, n_clips: int, command: str | None, progress: Progress) -> str:
    model = evaluation.models[0]
    sections = list(_sections(evaluation, n_clips, command, progress))
    style, script = (
        files("spectag.reporting.evaluation_report").joinpath(name).read_text("utf-8")
        for name in ("report.css", "report.js")
    )
    return _PAGE.substitute(
        policy=_policy(script),
        title=escape(f"{model.name} on {evaluation.manifest.source.name}"),
        style=style,
        headlines=headlines(model),
        contents="".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in sections),
        sections="\n".join(
            f'<section id="{name}"><h2>{escape(title)}</h2>\n{content}\n</section>' for name, title, content in sections
        ),
        script=script,
    )


def _policy(script: str) -> str:
    """What the page may load and run: only what is in it, and no script but ours."""
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _sections(
    evaluation: Evaluation, n_clips: int, command: str | None, progress: Progress
) -> Iterator[tuple[str, str, str]]:
    """Name, title and content of each section."""
    model = evaluation.models[0]
    predictions = model.predictions
    colored = predictions.labels.names if model.tagger is None else model.tagger.labels.names
    worst = worst_clips(predictions, n_clips)
    surprising = surprises(predictions, n_clips, without={clip.row for clip in worst})
    shown = {clip.row for clip in (*worst, *surprising)}
    others = tuple(one for one in evaluation.slices if one.by != BY_DURATION)

    yield "summary", "Summary", facts(evaluation, command) + overall_table(evaluation)
    if evaluation.comparisons:
        yield "comparison", "Comparison", "\n".join(map(comparison_section, evaluation.comparisons))
    if others:
        yield "slices", "Where it is better and worse", slices_section(others, model)
    yield "labels", "Labels", label_section(model, colored, evaluation.confidence if evaluation.n_resamples else None)
    yield "curves", "Precision and recall", curves_section(model, colored)
    yield "confusion", "Which labels are taken for which", confusion_section(predictions, colored, shown)
    yield "calibration", "Calibration", calibration_section(model.calibration)
    yield "clips", "Clips", _clips(evaluation, colored)
    if n_clips:
        cards = clip_cards(model, [*worst, *surprising], colored, progress)
        hint = _hint(model.tagger is not None) if cards and not evaluation.manifest.holds_images else ""
        yield "worst", "Worst clips", lead(escape(WORST)) + hint + _together(cards[: len(worst)])
        yield "surprises", "Best surprises", lead(escape(SURPRISES)) + _together(cards[len(worst) :])


def _clips(evaluation: Evaluation, colored: Sequence[str]) -> str:
    """How long the clips are, whether that matters, and how many each label has."""
    model = evaluation.models[0]
    figures = durations_figure(model.predictions.durations) + clips_per_label_figure(model, colored)
    by_duration = [one for one in evaluation.slices if one.by == BY_DURATION]
    if len(by_duration) < 2:
        return f'<div class="figures">{figures}</div>'
    return f'<div class="figures">{figures}</div><h3>By duration</h3>{slice_table(by_duration, model, "lwlrap")}'


def _hint(has_maps: bool) -> str:
    where = (
        " Press a label to see where in time and frequency the tagger looked for it: the more of its colour a place "
        "has, the more of the label's logit is lost when the place is replaced by the clip's own background. All "
        "labels of a clip have one scale, and the line is around what has half of its greatest or more. A label "
        "without a ring has no such place."
    )
    read = (
        "The number after a label is its probability; the one after the stroke, and the mark on the bar, is the "
        f"threshold from which on it is given. Of clips longer than {EXCERPT_SECONDS:g} s the loudest "
        f"{EXCERPT_SECONDS:g} s are shown; sounds are made equally loud."
    )
    press = f"Press into a spectrogram to listen from there.{where if has_maps else ''}"
    return f'{lead(read)}<p class="lead needs-script" hidden>{press}</p>{color_bar()}'


def _together(cards: Sequence[str]) -> str:
    return f'<div class="cards">{"".join(cards)}</div>' if cards else "<p>There are none.</p>"
