"""spectag summary."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import Names, OptionalOutput
from spectag.cli.terminal import new_table, print_message, progress_display, stdout_console
from spectag.config.findings import SummarySettings

if TYPE_CHECKING:
    from spectag.findings.summary_results import Summary

_MAX_SKIPPED_SHOWN = 20


def summary_command(
    detections: Path,
    /,
    *,
    output: OptionalOutput = None,
    settings: Annotated[SummarySettings | None, Parameter(name="*")] = None,
    tables: Path | None = None,
    min_probability: Annotated[float, Parameter(name="--min", validator=Number(gte=0, lte=1))] = 0.0,
    recordings: Names = None,
    status: Names = None,
    site_from: str | None = None,
    deployments: Path | None = None,
    model: str | None = None,
    apply_thresholds: Literal["windows", "clips"] | None = None,
    checked: Path | None = None,
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
) -> int:
    """Count detections by site, day and hour, beside recorded hours.

    The page shows when and where each label was detected, relative to the recorded hours and to sunrise. The tables are
    for other programs: counts, detection histories for occupancy models (unmarked, camtrapR), and Darwin Core. Times
    and sites come from the columns recorded and site of the table, else from the recordings and their names.

    Parameters
    ----------
    detections
        Table of detections, or a folder of selection tables or label tracks.
    output
        The page to write, .html.
    tables
        Folder for CSV tables.
    min_probability
        Leave out detections below this probability.
    recordings
        Folders of recordings: those without detections count as effort, too.
    status
        Tables of spectag tag with the status of all tagged files, which count as effort. By default the one beside the
        table of detections.
    site_from
        Regular expression that finds the site in the path of a recording. By default the column site, or what comes
        before the date in the file name, or the folder.
    deployments
        Table with site, latitude, longitude, start and end of each deployment.
    model
        State the thresholds of this model. The counts are still those of the table.
    apply_thresholds
        Count only detections that reach the thresholds of --model for short windows and segments, or for clips. By
        default all in the table.
    checked
        decisions.csv of spectag check: state the precision of each label.
    audio_dir
        Folder of the recordings, if they are not beside the table.
    label_column
        Column of the labels, if it is not found by its name.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    """
    from spectag.findings.detection_summary import summary

    with progress_display() as (progress, log):
        result = summary(
            detections,
            output,
            settings,
            tables=tables,
            min_probability=min_probability,
            recordings=recordings or (),
            status=status or (),
            site_from=site_from,
            deployments=deployments,
            model=model,
            apply_thresholds=apply_thresholds,
            checked=checked,
            audio_dir=audio_dir,
            label_column=label_column,
            label_separator=label_separator,
            command=shlex.join(["spectag", *sys.argv[1:]]),
            progress=progress,
            log=log,
        )
    _print_labels(result)
    if model is not None and apply_thresholds is None:
        print_message(
            f"note: all detections in the table are counted; the thresholds of {model} are stated, but not applied "
            "(--apply-thresholds windows or clips)"
        )
    for note in result.effort.notes:
        print_message(f"note: {note}")
    places = [str(path) for path in (output, tables) if path is not None]
    if places:
        print(f"summary: {', '.join(places)}")
    n_more = len(result.skipped) - _MAX_SKIPPED_SHOWN
    for reason in result.skipped[:_MAX_SKIPPED_SHOWN]:
        print_message(f"incomplete: {reason}")
    if n_more > 0:
        print_message(f"incomplete: {n_more:,} more recordings")
    return SKIPPED_SOME if result.skipped else 0


def _print_labels(summary: "Summary") -> None:
    from spectag.reporting.number_texts import quantity

    columns = ("detections", "per hour", "sites", "days")
    table = new_table("label", *columns, "first", "last", right=columns)
    for row in summary.labels:
        rate = "-" if row.per_hour is None else f"{row.per_hour:.3g}"
        ends = ("" if time is None else time.date().isoformat() for time in (row.first, row.last))
        counts = (f"{row.n_detections:,}", rate, f"{row.n_sites:,}", f"{row.n_days:,}")
        table.add_row(row.label, *counts, *ends)
    if summary.labels:
        stdout_console().print(table)
    known, total = f"{summary.hours:,.2f}", f"{summary.total_hours:,.2f}"
    at_known_times = "" if known == total else f" ({known} at known times)"
    print(
        f"{quantity(len(summary.detections), 'detection')} in {total} recorded hours{at_known_times}: "
        f"{quantity(summary.n_recordings, 'recording')} at {quantity(len(summary.sites), 'site')}"
    )
