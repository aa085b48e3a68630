"""A table of detections, as Wildlife Acoustics' Kaleidoscope opens it."""

from collections.abc import Iterable
from typing import TextIO

from spectag.system.output import csv_writer
from spectag.system.paths import Parts, join_parts, split_below
from spectag.tagging.events import FileEvents

KALEIDOSCOPE_COLUMNS = ("INDIR", "FOLDER", "IN FILE", "OFFSET", "DURATION", "TOP1MATCH", "TOP1DIST")


def write_kaleidoscope(files: Iterable[FileEvents], out: TextIO, *, root: Parts) -> None:
    """Write a CSV with a row for each event and only the columns that Kaleidoscope knows.

    INDIR is the folder that holds all recordings, FOLDER the recording's folder below it, and IN FILE its name. OFFSET
    and DURATION are the start and the length of the event in seconds, and TOP1MATCH is the label. Kaleidoscope's own
    TOP1DIST is the distance to the centre of a cluster: the smaller, the more certain. Here it is 1 - probability, so
    that sorting by it puts the most probable events first.

    Parameters
    ----------
    files : iterable of FileEvents
    out : text file
    root : tuple of str
        From `common_folder`.

    Raises
    ------
    DataError
        If a file is an image, which has no times.
    """
    write_row = csv_writer(out, exact=True)  # Kaleidoscope looks for files with these names
    write_row(KALEIDOSCOPE_COLUMNS)
    for file in files:
        parent, (*folders, name) = split_below(file.file, root)
        location = join_parts(parent), join_parts(tuple(folders)), name
        for event in file.events:
            duration = file.end_seconds_of(event) - event.start_seconds
            times = f"{event.start_seconds:.6f}", f"{duration:.6f}"
            write_row([*location, *times, event.label, f"{1 - event.probability:.6f}"])
