"""Selection tables, as Raven opens them."""

from collections.abc import Iterable, Iterator
from typing import TextIO

from spectag.errors import DataError
from spectag.system.output import tsv_field
from spectag.system.paths import join_parts, split_location
from spectag.tagging.events import Event, FileEvents

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


def write_raven(file: FileEvents, out: TextIO, *, low_hz: float, high_hz: float) -> None:
    """Write the selection table of a recording, even if it has no events, with times within the recording.

    A row has Selection (1, 2, ...), View (Spectrogram 1), Channel (1), Begin Time (s), End Time (s), Low Freq (Hz),
    High Freq (Hz), Annotation (the label), Score (its probability), Begin Path (the recording) and File Offset (s),
    which here equals Begin Time (s). Raven finds the columns by name, in any order.

    In labels, tabs and line breaks become spaces. A label that begins with a quotation mark is quoted as in a CSV.

    Parameters
    ----------
    file : FileEvents
    out : text file
    low_hz, high_hz : float
        Frequency range of every selection in Hz, because a tagger predicts no frequencies.

    Raises
    ------
    DataError
        If the file is an image, which has no times.
    """
    _write_table(out, ((file, event, 0.0) for event in file.events), low_hz, high_hz)


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
    _write_table(out, _events_with_offsets(files), low_hz, high_hz)


def _events_with_offsets(files: Iterable[FileEvents]) -> Iterator[tuple[FileEvents, Event, float]]:
    """Each event with the seconds from the start of the first recording to the start of its own."""
    offset_seconds = 0.0
    for file in files:
        for event in file.events:
            yield file, event, offset_seconds
        if file.duration_seconds is None:
            raise DataError(
                f"{file.file}: its length is unknown, so the start of the next recording in a combined table is "
                "unknown, too; write a table for each recording (raven)"
            )
        offset_seconds += file.duration_seconds


def _write_table(out: TextIO, events: Iterable[tuple[FileEvents, Event, float]], low_hz: float, high_hz: float) -> None:
    band = f"{float(low_hz)}", f"{float(high_hz)}"  # with a decimal point: some readers need it
    out.write("\t".join(RAVEN_COLUMNS) + "\n")
    for number, (file, event, offset_seconds) in enumerate(events, start=1):
        begin, end = offset_seconds + event.start_seconds, offset_seconds + file.end_seconds_of(event)
        times = f"{begin:.6f}", f"{end:.6f}"
        label, path = tsv_field(event.label), tsv_field(join_parts(split_location(file.file)))
        fields = (f"{number}", "Spectrogram 1", "1", *times, *band, label, f"{event.probability:.6f}", path)
        out.write("\t".join(fields) + f"\t{event.start_seconds:.6f}\n")
