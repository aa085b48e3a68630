"""Selection tables, as Raven opens them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from spectag.errors import DataError
from spectag.system.output import open_output, tsv_field
from spectag.system.paths import Parts, TablePaths, join_parts, split_location
from spectag.tagging.events import Event, FileEvents

RAVEN_SUFFIX = ".Table.1.selections.txt"
RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Annotation",  # the eighth, where OpenSoundscape looks for it
    "Score",
    "Begin Path",
    "File Offset (s)",
)


def write_raven(
    files: Iterable[FileEvents], folder: str | Path, *, root: Parts = (), low_hz: float, high_hz: float
) -> None:
    """Write a selection table for each recording, even if it has no events, with times within the recording.

    The tables are named STEM.Table.1.selections.txt. Their folders below `folder` are those of the recordings below
    `root`. A row has Selection (1, 2, ...), View (Spectrogram 1), Channel (1), Begin Time (s), End Time (s),
    Low Freq (Hz), High Freq (Hz), Annotation (the label), Score (its probability), Begin Path (the recording) and
    File Offset (s), which here equals Begin Time (s). Raven finds the columns by name, in any order.

    In labels, tabs and line breaks become spaces. A label that begins with a quotation mark is quoted as in a CSV.

    Parameters
    ----------
    files : iterable of FileEvents
    folder : str or Path
        A path or a URL.
    root : tuple of str
        From `common_folder`.
    low_hz, high_hz : float
        Frequency range of every selection in Hz, because a tagger predicts no frequencies.

    Raises
    ------
    DataError
        If a table cannot be written, or a file is an image, which has no times.
    """
    paths = TablePaths(folder, root, RAVEN_SUFFIX)
    for file in files:
        with open_output(paths.path_for(file.file)) as out:
            table = _SelectionTable(out, low_hz, high_hz)
            for event in file.events:
                table.add(file, event, offset_seconds=0.0)


def write_raven_combined(files: Iterable[FileEvents], out: TextIO, *, low_hz: float, high_hz: float) -> None:
    """Write one selection table for all recordings.

    Begin Time (s) and End Time (s) continue from recording to recording, as in a Raven window in which all of them are
    open in this order; recordings without events take up time, too. Begin Path and File Offset (s) name the recording
    and the time within it, which Raven uses when the table is opened as a sound selection table. The columns are those
    of `write_raven`.

    Raises
    ------
    DataError
        If the length of a recording is unknown, or a file is an image, which has no times.
    """
    table = _SelectionTable(out, low_hz, high_hz)
    offset_seconds = 0.0
    for file in files:
        for event in file.events:
            table.add(file, event, offset_seconds=offset_seconds)
        if file.duration_seconds is None:
            raise DataError(
                f"{file.file}: its length is unknown, so the start of the next recording in a combined table is "
                "unknown, too; write a table for each recording (raven)"
            )
        offset_seconds += file.duration_seconds


class _SelectionTable:
    """A selection table, written row by row."""

    def __init__(self, out: TextIO, low_hz: float, high_hz: float) -> None:
        self._out = out
        self._band = f"{float(low_hz)}", f"{float(high_hz)}"  # with a decimal point: some readers need it
        self._n_selections = 0
        self._write(RAVEN_COLUMNS)

    def add(self, file: FileEvents, event: Event, *, offset_seconds: float) -> None:
        self._n_selections += 1
        begin, end = offset_seconds + event.start_seconds, offset_seconds + file.end_seconds_of(event)
        self._write(
            (
                str(self._n_selections),
                "Spectrogram 1",
                "1",
                f"{begin:.6f}",
                f"{end:.6f}",
                *self._band,
                tsv_field(event.label),
                f"{event.probability:.6f}",
                tsv_field(join_parts(split_location(file.file))),
                f"{event.start_seconds:.6f}",
            )
        )

    def _write(self, fields: Iterable[str]) -> None:
        self._out.write("\t".join(fields) + "\n")
