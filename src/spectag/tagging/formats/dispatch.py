"""What is heard, written as the programs want it that read it.

Every writer takes the recordings one after another, and holds none that is done. To write several formats, go through
them several times: `for name in names: write(name, heard(), location, ...)`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from spectag.system.output import written, written_bytes
from spectag.system.paths import Parts
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.audacity import write_audacity, write_audacity_track
from spectag.tagging.formats.csv_and_jsonl import write_csv, write_jsonl
from spectag.tagging.formats.kaleidoscope import write_kaleidoscope
from spectag.tagging.formats.parquet import load_pyarrow, write_parquet, write_wide_parquet
from spectag.tagging.formats.raven import SUFFIX as RAVEN_SUFFIX
from spectag.tagging.formats.raven import write_raven, write_raven_combined
from spectag.tagging.formats.wide import write_wide

FormatName = Literal[
    "csv", "jsonl", "parquet", "wide", "wide-parquet", "raven", "raven-combined", "audacity", "kaleidoscope"
]


class Format(NamedTuple):
    """How a format lies on the disk."""

    suffix: str
    """Of its file, or of each file in its folder; no two formats of one file share it."""
    in_folder: bool = False
    """A folder with a file for each recording; else one file, or stdout."""


FORMATS: dict[FormatName, Format] = {
    "csv": Format(".csv"),
    "jsonl": Format(".jsonl"),
    "parquet": Format(".parquet"),
    "wide": Format(".wide.csv"),
    "wide-parquet": Format(".wide.parquet"),
    "raven": Format(RAVEN_SUFFIX, in_folder=True),
    "raven-combined": Format(".selections.txt"),
    "audacity": Format(".txt", in_folder=True),
    "kaleidoscope": Format(".kaleidoscope.csv"),
}
"""All but a submission, which goes by its template."""


def check_installed(names: Iterable[str]) -> None:
    """Raise a MissingExtraError, before any work, where a format needs a package that is not installed."""
    if any("parquet" in name for name in names):
        load_pyarrow()


def write(
    name: FormatName,
    files: Iterable[FileEvents],
    location: str | Path | None,
    *,
    labels: Sequence[str],
    by_window: bool,
    root: Parts,
    low_hz: float,
    high_hz: float,
    in_folder: bool = True,
) -> None:
    """Write what is heard in one format.

    Parameters
    ----------
    name : str
        One of FORMATS.
    files : iterable of FileEvents
    location : str or Path, optional
        Path or address of the file, or of the folder where the format is one of a file for each recording. A file is
        written whole or not at all. None: stdout.
    labels : sequence of str
        All labels of the tagger.
    by_window : bool
        Whether the events are those of windows, and not segments: JSON lines then has the windows without any, too.
    root : tuple of str
        Parts of the folder that holds the recordings, as `spectag.system.paths.common_folder` finds it.
    low_hz, high_hz : float
        What a selection spans in Raven.
    in_folder : bool
        Whether a format of a file for each recording has a folder to go to. Else Raven's is one table for all, and
        Audacity's the track of a single recording.

    Raises
    ------
    DataError
        If the output can't be written, or a file does not fit the format: an image has no times.
    MissingExtraError
        If the format needs a package that is not installed.
    """
    if FORMATS[name].in_folder and in_folder and location is not None:
        if name == "raven":
            write_raven(files, location, root=root, low_hz=low_hz, high_hz=high_hz)
        else:
            write_audacity(files, location, root=root)
        return
    match name:
        case "csv":
            with written(location) as out:
                write_csv(files, out)
        case "jsonl":
            with written(location) as out:
                write_jsonl(files, out, by_window=by_window)
        case "wide":
            with written(location) as out:
                write_wide(files, labels, out)
        case "raven" | "raven-combined":
            with written(location) as out:
                write_raven_combined(files, out, low_hz=low_hz, high_hz=high_hz)
        case "audacity":
            with written(location) as out:
                write_audacity_track(files, out)
        case "kaleidoscope":
            with written(location) as out:
                write_kaleidoscope(files, out, root=root)
        case "parquet":
            with written_bytes(location) as table:
                write_parquet(files, table)
        case "wide-parquet":
            with written_bytes(location) as table:
                write_wide_parquet(files, labels, table)
