"""Selection tables, as Raven opens them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from spectag.errors import DataError
from spectag.system.output import tsv_field, written
from spectag.system.paths import Parts, TablePlaces, location_of, parts_of
from spectag.tagging.events import Event, FileEvents, end_seconds_of

SUFFIX = ".Table.1.selections.txt"
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
    """A selection table for each recording, also where nothing is heard, with times within the recording.

    The tables are named STEM.Table.1.selections.txt and lie below `folder` as the recordings lie below `root`. A row
    has Selection (1, 2, ...), View (Spectrogram 1), Channel (1), Begin Time (s), End Time (s), Low Freq (Hz),
    High Freq (Hz), Annotation (the label), Score (its probability), Begin Path (the recording) and File Offset (s),
    which is here the same as Begin Time (s). The order of the columns is all one to Raven, which goes by their names.

    Tabs and ends of lines in labels become spaces. A label that begins with a quotation mark is quoted as in a CSV.

    Parameters
    ----------
    files : iterable of FileEvents
    folder : str or Path
        A path or an address.
    root : tuple of str
        Of `common_folder`.
    low_hz, high_hz : float
        What each selection spans in Hz: taggers know no frequencies.

    Raises
    ------
    DataError
        If a table can't be written, or a file is an image, which has no times.
    """
    places = TablePlaces(folder, root, SUFFIX)
    for file in files:
        with written(places.of(file.file)) as out:
            table = _Selections(out, low_hz, high_hz)
            for event in file.events:
                table.add(file, event, seconds_before=0.0)


def write_raven_combined(files: Iterable[FileEvents], out: TextIO, *, low_hz: float, high_hz: float) -> None:
    """One selection table for all recordings.

    Begin Time (s) and End Time (s) go on from recording to recording, in their order, as Raven counts when it has
    opened them all in one window; there is time for those in which nothing is heard. Begin Path and File Offset (s)
    tell the recording and the time within it, which is what Raven goes by when the table is opened as a sound selection
    table. The columns are those of `write_raven`.

    Raises
    ------
    DataError
        If the length of a recording is not known, or a file is an image, which has no times.
    """
    table = _Selections(out, low_hz, high_hz)
    seconds_before = 0.0
    for file in files:
        for event in file.events:
            table.add(file, event, seconds_before=seconds_before)
        if file.duration_seconds is None:
            raise DataError(
                f"{file.file}: its length is not known, so there is no telling when the next recording begins; write a "
                "table for each recording (raven)"
            )
        seconds_before += file.duration_seconds


class _Selections:
    """A selection table, row by row."""

    def __init__(self, out: TextIO, low_hz: float, high_hz: float) -> None:
        self._out = out
        self._band = f"{float(low_hz)}", f"{float(high_hz)}"  # with a point: there are readers that want one
        self._n_selections = 0
        self._write(RAVEN_COLUMNS)

    def add(self, file: FileEvents, event: Event, *, seconds_before: float) -> None:
        self._n_selections += 1
        begin, end = seconds_before + event.start_seconds, seconds_before + end_seconds_of(event, file)
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
                tsv_field(location_of(parts_of(file.file))),
                f"{event.start_seconds:.6f}",
            )
        )

    def _write(self, fields: Iterable[str]) -> None:
        self._out.write("\t".join(fields) + "\n")
