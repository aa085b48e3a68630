"""The table of output formats, and one function that writes any of them.

A writer takes the recordings one after another and keeps none of them in memory. To write several formats, pass the
recordings once for each.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spectag.data.labels import LabelSet
from spectag.system.output import open_binary_output, open_output
from spectag.system.parquet import load_pyarrow
from spectag.system.paths import Parts, TablePaths
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.audacity import write_audacity, write_only_audacity_track
from spectag.tagging.formats.csv_and_jsonl import write_csv, write_json, write_jsonl, write_tsv
from spectag.tagging.formats.excel import load_xlsxwriter, write_excel
from spectag.tagging.formats.kaleidoscope import write_kaleidoscope
from spectag.tagging.formats.label_studio import write_label_studio
from spectag.tagging.formats.markers import write_audition, write_only_audition, write_only_reaper, write_reaper
from spectag.tagging.formats.parquet import write_parquet, write_wide_parquet
from spectag.tagging.formats.raven import write_raven, write_raven_combined
from spectag.tagging.formats.sonic_visualiser import write_only_layer, write_sonic_visualiser
from spectag.tagging.formats.soundevent import write_soundevent
from spectag.tagging.formats.submission import Template, write_submission
from spectag.tagging.formats.wide import write_multi_hot_tags, write_wide


@dataclass(frozen=True)
class TableContext:
    """What writers may need to know beside the events. Each takes the fields that its format names in `options`."""

    labels: LabelSet
    """All labels of the model."""
    root: Parts
    """Parts of the folder that holds all recordings, from `spectag.system.paths.common_folder`."""
    low_hz: float
    """With `high_hz`, the frequency range of a selection in Raven."""
    high_hz: float
    template: Template | None = None
    """That of a submission."""
    has_novelty: bool = False
    """Whether the model computes novelty, which tables then have."""
    has_places: bool = False
    """Whether tables have the columns recorded and site."""


class Format(NamedTuple):
    """An output format: how its files are named, and how they are written."""

    suffix: str
    """Of its file, or of each file in its folder."""
    write: Callable[..., None]
    """Writes one table for all recordings to an open file."""
    write_recording: Callable[..., None] | None = None
    """Writes one of a folder of files, one for each recording, in formats that have such a folder."""
    options: tuple[str, ...] = ()
    """Fields of a `TableContext` that the writers take as keyword arguments."""
    is_binary: bool = False
    has_all_labels: bool = False
    """Whether the table has a probability for every label, not only for detected ones."""
    stem: str = "tags"
    """Name of the file in an output folder, without the suffix. No two formats share stem and suffix."""


_EVENT_OPTIONS = ("has_novelty", "has_places")

FORMATS: dict[str, Format] = {
    "csv": Format(".csv", write_csv, options=_EVENT_OPTIONS),
    "tsv": Format(".tsv", write_tsv, options=_EVENT_OPTIONS),
    "xlsx": Format(".xlsx", write_excel, options=_EVENT_OPTIONS, is_binary=True),
    "json": Format(".json", write_json, options=_EVENT_OPTIONS),
    "jsonl": Format(".jsonl", write_jsonl, options=_EVENT_OPTIONS),
    "parquet": Format(".parquet", write_parquet, options=_EVENT_OPTIONS, is_binary=True),
    "wide": Format(".wide.csv", write_wide, options=("labels",), has_all_labels=True),
    "wide-parquet": Format(
        ".wide.parquet", write_wide_parquet, options=("labels",), is_binary=True, has_all_labels=True
    ),
    "multi-hot": Format(".multi-hot.csv", write_multi_hot_tags, options=("labels",)),
    "raven": Format(".Table.1.selections.txt", write_raven_combined, write_raven, options=("low_hz", "high_hz")),
    "raven-combined": Format(".selections.txt", write_raven_combined, options=("low_hz", "high_hz")),
    "audacity": Format(".txt", write_only_audacity_track, write_audacity),
    "reaper": Format(".reaper.csv", write_only_reaper, write_reaper),
    "audition": Format(".audition.csv", write_only_audition, write_audition),
    "sonic-visualiser": Format(".svl", write_only_layer, write_sonic_visualiser),
    "label-studio": Format(".label-studio.json", write_label_studio, options=("root",)),
    "soundevent": Format(".soundevent.json", write_soundevent),
    "kaleidoscope": Format(".kaleidoscope.csv", write_kaleidoscope, options=("root",)),
    "submission": Format(
        ".csv", write_submission, options=("labels", "template"), has_all_labels=True, stem="submission"
    ),
}


def check_installed(names: Sequence[str]) -> None:
    """Raise a MissingExtraError, before any work, if a format needs a package that is not installed."""
    if any("parquet" in name for name in names):
        load_pyarrow()
    if "xlsx" in names:
        load_xlsxwriter()


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
        one table for all recordings, and others the file of a single one.

    Raises
    ------
    DataError
        If the output cannot be written, or a file does not fit the format: an image has no times.
    MissingExtraError
        If the format needs a package that is not installed.
    """
    table_format = FORMATS[name]
    options = {option: getattr(context, option) for option in table_format.options}
    if table_format.write_recording is not None and in_folder and location is not None:
        paths = TablePaths(location, context.root, table_format.suffix)
        for file in files:
            with open_output(paths.path_for(file.file)) as out:
                table_format.write_recording(file, out, **options)
        return
    with open_binary_output(location) if table_format.is_binary else open_output(location) as out:
        table_format.write(files, out, **options)
