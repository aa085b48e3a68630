"""Label tracks, as Audacity imports them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from spectag.errors import DataError
from spectag.system.output import one_line, open_output
from spectag.system.paths import Parts, TablePaths
from spectag.tagging.events import FileEvents


def write_audacity(files: Iterable[FileEvents], folder: str | Path, *, root: Parts = ()) -> None:
    """Write a label track for each recording, even if it has no events: start, end (seconds) and label in each line.

    The tracks are named STEM.txt. Their folders below `folder` are those of the recordings below `root`. There is no
    header and no probability, because Audacity reads three fields. In labels, tabs and line breaks become spaces;
    quotation marks stay, because Audacity does not unquote.

    Parameters
    ----------
    files : iterable of FileEvents
    folder : str or Path
        A path or a URL.
    root : tuple of str
        From `common_folder`.

    Raises
    ------
    DataError
        If a track cannot be written, or a file is an image, which has no times.
    """
    paths = TablePaths(folder, root, ".txt")
    for file in files:
        with open_output(paths.path_for(file.file)) as out:
            _write_track(file, out)


def write_audacity_track(files: Iterable[FileEvents], out: TextIO) -> None:
    """Write the label track of a single recording.

    Raises
    ------
    DataError
        If there are several recordings, or the file is an image.
    """
    for number, file in enumerate(files):
        if number:
            raise DataError(
                f"{file.file}: an Audacity label track holds one recording, and this is another; give a folder as -o "
                "to get one track for each recording"
            )
        _write_track(file, out)


def _write_track(file: FileEvents, out: TextIO) -> None:
    for event in file.events:
        out.write(f"{event.start_seconds:.6f}\t{file.end_seconds_of(event):.6f}\t{one_line(event.label)}\n")
