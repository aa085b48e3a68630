"""Label tracks, as Audacity imports them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from spectag.errors import DataError
from spectag.system.output import one_line, written
from spectag.system.paths import Parts, TablePlaces
from spectag.tagging.events import FileEvents, end_seconds_of


def write_audacity(files: Iterable[FileEvents], folder: str | Path, *, root: Parts = ()) -> None:
    """A label track for each recording, also where nothing is heard: start, end (seconds) and label in each line.

    The tracks are named STEM.txt and lie below `folder` as the recordings lie below `root`. There is no header, and no
    probability: a fourth field is none of Audacity's. Tabs and ends of lines in labels become spaces; all else is as it
    is, quotation marks too, for Audacity knows no quoting.

    Parameters
    ----------
    files : iterable of FileEvents
    folder : str or Path
        A path or an address.
    root : tuple of str
        Of `common_folder`.

    Raises
    ------
    DataError
        If a track can't be written, or a file is an image, which has no times.
    """
    places = TablePlaces(folder, root, ".txt")
    for file in files:
        with written(places.of(file.file)) as out:
            _write_track(file, out)


def write_audacity_track(files: Iterable[FileEvents], out: TextIO) -> None:
    """The label track of a single recording.

    Raises
    ------
    DataError
        If there are several recordings, or it is an image.
    """
    for number, file in enumerate(files):
        if number:
            raise DataError(
                f"{file.file}: a label track of Audacity's is that of one recording, and this is another; give a "
                "folder as -o for a track for each"
            )
        _write_track(file, out)


def _write_track(file: FileEvents, out: TextIO) -> None:
    for event in file.events:
        out.write(f"{event.start_seconds:.6f}\t{end_seconds_of(event, file):.6f}\t{one_line(event.label)}\n")
