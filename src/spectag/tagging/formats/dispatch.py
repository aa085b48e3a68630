"""The table of output formats, and one function that writes any of them.

A writer takes the recordings one after another and keeps none of them in memory. To write several formats, pass the
recordings once for each.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from spectag.data.labels import LabelSet
from spectag.system.output import open_binary_output, open_output
from spectag.system.parquet import load_pyarrow
from spectag.system.paths import Parts
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.audacity import write_audacity, write_audacity_track
from spectag.tagging.formats.csv_and_jsonl import write_csv, write_jsonl
from spectag.tagging.formats.kaleidoscope import write_kaleidoscope
from spectag.tagging.formats.parquet import write_parquet, write_wide_parquet
from spectag.tagging.formats.raven import RAVEN_SUFFIX, write_raven, write_raven_combined
from spectag.tagging.formats.submission import Template, write_submission
from spectag.tagging.formats.wide import write_wide


@dataclass(frozen=True)
class TableContext:
    """What writers need to know beside the events."""

    labels: LabelSet
    """All labels of the model."""
    by_window: bool
    """Whether the events are those of windows, not segments: JSON Lines then lists windows without events, too."""
    root: Parts
    """Parts of the folder that holds all recordings, from `spectag.system.paths.common_folder`."""
    low_hz: float
    """With `high_hz`, the frequency range of a selection in Raven."""
    high_hz: float
    template: Template | None = None
    """That of a submission."""


class Format(NamedTuple):
    """An output format: how its files are named, and how they are written."""

    suffix: str
    """Of its file, or of each file in its folder."""
    write: Callable[[Iterable[FileEvents], Any, TableContext], None]
    """Writes one table for all recordings to an open file."""
    write_folder: Callable[[Iterable[FileEvents], str | Path, TableContext], None] | None = None
    """Writes a file for each recording into a folder, in formats that have one."""
    is_binary: bool = False
    has_all_labels: bool = False
    """Whether the table has a probability for every label, not only for detected ones."""
    stem: str = "tags"
    """Name of the file in an output folder, without the suffix. No two formats share stem and suffix."""


FORMATS: dict[str, Format] = {
    "csv": Format(".csv", lambda files, out, _: write_csv(files, out)),
    "jsonl": Format(".jsonl", lambda files, out, context: write_jsonl(files, out, by_window=context.by_window)),
    "parquet": Format(".parquet", lambda files, out, _: write_parquet(files, out), is_binary=True),
    "wide": Format(
        ".wide.csv", lambda files, out, context: write_wide(files, context.labels.names, out), has_all_labels=True
    ),
    "wide-parquet": Format(
        ".wide.parquet",
        lambda files, out, context: write_wide_parquet(files, context.labels.names, out),
        is_binary=True,
        has_all_labels=True,
    ),
    "raven": Format(
        RAVEN_SUFFIX,
        lambda files, out, context: write_raven_combined(files, out, low_hz=context.low_hz, high_hz=context.high_hz),
        lambda files, folder, context: write_raven(
            files, folder, root=context.root, low_hz=context.low_hz, high_hz=context.high_hz
        ),
    ),
    "raven-combined": Format(
        ".selections.txt",
        lambda files, out, context: write_raven_combined(files, out, low_hz=context.low_hz, high_hz=context.high_hz),
    ),
    "audacity": Format(
        ".txt",
        lambda files, out, _: write_audacity_track(files, out),
        lambda files, folder, context: write_audacity(files, folder, root=context.root),
    ),
    "kaleidoscope": Format(
        ".kaleidoscope.csv", lambda files, out, context: write_kaleidoscope(files, out, root=context.root)
    ),
    "submission": Format(
        ".csv",
        lambda files, out, context: write_submission(files, _template(context), context.labels, out),
        has_all_labels=True,
        stem="submission",
    ),
}


def _template(context: TableContext) -> Template:
    assert context.template is not None, "TagSettings requires a template for a submission"
    return context.template


def check_installed(names: Iterable[str]) -> None:
    """Raise a MissingExtraError, before any work, if a format needs a package that is not installed."""
    if any("parquet" in name for name in names):
        load_pyarrow()


def write(
    name: str,
    files: Iterable[FileEvents],
    location: str | Path | None,
    context: TableContext,
    *,
    in_folder: bool = True,
) -> None:
    """Write the events of recordings in one format.

    Parameters
    ----------
    name : str
        One of FORMATS.
    files : iterable of FileEvents
    location : str or Path, optional
        Path or URL of the file, or of the folder for a format with a file for each recording. A file is written
        completely or not at all. None: stdout.
    context : TableContext
    in_folder : bool
        False if `location` is a file, so that a format with a file for each recording has no folder. Raven then gets
        one table for all recordings, and Audacity the track of a single one.

    Raises
    ------
    DataError
        If the output cannot be written, or a file does not fit the format: an image has no times.
    MissingExtraError
        If the format needs a package that is not installed.
    """
    table_format = FORMATS[name]
    if table_format.write_folder is not None and in_folder and location is not None:
        table_format.write_folder(files, location, context)
        return
    opened: Any = open_binary_output(location) if table_format.is_binary else open_output(location)
    with opened as out:
        table_format.write(files, out, context)
