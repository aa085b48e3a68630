"""spectag clips."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.options import Flag, Output, Workers
from spectag.cli.terminal import new_table, print_skipped, progress_display, stdout_console
from spectag.config.findings import ClipSettings


def clips_command(
    detections: Path,
    /,
    *,
    output: Output,
    settings: Annotated[ClipSettings | None, Parameter(name="*")] = None,
    min_probability: Annotated[float, Parameter(name="--min", validator=Number(gte=0, lte=1))] = 0.0,
    max_probability: Annotated[float | None, Parameter(name="--max", validator=Number(gte=0, lte=1))] = None,
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    site_from: str | None = None,
    dry_run: Flag = False,
    workers: Workers = None,
) -> int:
    """Cut detections out of their recordings.

    There is a folder of clips for each label. Reads the tables of spectag tag, Raven, Audacity, BirdNET-Analyzer,
    Kaleidoscope and OpenSoundscape. clips.csv in the output is a manifest of the clips, for spectag train. The same
    command continues after a stop.

    Parameters
    ----------
    detections
        Table of detections, or a folder of selection tables or label tracks.
    output
        Folder for the clips and clips.csv.
    min_probability
        Leave out detections below this probability.
    max_probability
        Leave out detections at or above this probability. By default none.
    audio_dir
        Folder of the recordings, if they are not beside the table.
    label_column
        Column of the labels, if it is not found by its name.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    site_from
        Regular expression that finds the site in the path of a recording, for --mode spread. By default the site is
        what comes before the date in the file name, or the folder.
    dry_run
        Print how many clips and bytes it would be, and write nothing.
    workers
        Number of processes. By default one per core.
    """
    from spectag.findings.clip_export import clips

    with progress_display() as (progress, _):
        result = clips(
            detections,
            output,
            settings,
            min_probability=min_probability,
            max_probability=float("inf") if max_probability is None else max_probability,
            audio_dir=audio_dir,
            label_column=label_column,
            label_separator=label_separator,
            site_from=site_from,
            dry_run=dry_run,
            workers=workers,
            progress=progress,
        )
    table = new_table("label", "clips", right=("clips",))
    for label, count in result.counts.items():
        table.add_row(label, f"{count:,}")
    if result.counts:
        stdout_console().print(table)
    n_clips = sum(result.counts.values())
    size = f"{'about ' if dry_run else ''}{result.n_bytes / 1e6:,.1f} MB"
    print(f"{n_clips:,} clips of {result.n_detections:,} detections, {size}{'' if dry_run else f': {result.manifest}'}")
    return print_skipped(result.skipped)
