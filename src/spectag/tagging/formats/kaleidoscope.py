"""A table of detections, as Wildlife Acoustics' Kaleidoscope opens it."""

from collections.abc import Iterable
from typing import TextIO

from spectag.system.output import csv_writer
from spectag.system.paths import Parts, divided, location_of
from spectag.tagging.events import FileEvents, end_seconds_of

KALEIDOSCOPE_COLUMNS = ("INDIR", "FOLDER", "IN FILE", "OFFSET", "DURATION", "TOP1MATCH", "TOP1DIST")


def write_kaleidoscope(files: Iterable[FileEvents], out: TextIO, *, root: Parts) -> None:
    """A CSV with a row for each event, and the columns that Kaleidoscope knows, no others.

    INDIR is the folder that holds all recordings, FOLDER where below it the recording lies, IN FILE its name, OFFSET
    and DURATION the event's in seconds, TOP1MATCH the label. TOP1DIST is a distance: of Kaleidoscope's own detections,
    from the middle of their cluster. The smaller, the surer, and the surest come first when it is sorted; so here it is
    1 - probability.

    Parameters
    ----------
    files : iterable of FileEvents
    out : text file
    root : tuple of str
        Of `common_folder`.

    Raises
    ------
    DataError
        If a file is an image, which has no times.
    """
    write_row = csv_writer(out)
    write_row(KALEIDOSCOPE_COLUMNS)
    for file in files:
        above, (*folders, name) = divided(file.file, root)
        place = location_of(above), location_of(tuple(folders)), name
        for event in file.events:
            duration = end_seconds_of(event, file) - event.start_seconds
            times = f"{event.start_seconds:.6f}", f"{duration:.6f}"
            write_row([*place, *times, event.label, f"{1 - event.probability:.6f}"])
