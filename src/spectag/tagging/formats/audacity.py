"""Label tracks, as Audacity imports them."""

from collections.abc import Iterable
from typing import TextIO

from spectag.errors import DataError
from spectag.system.output import one_line
from spectag.tagging.events import FileEvents


def write_audacity(file: FileEvents, out: TextIO) -> None:
    """Write the label track of a recording: start, end (seconds) and label in each line.

    There is no header and no probability, because Audacity reads three fields. In labels, tabs and line breaks become
    spaces; quotation marks stay, because Audacity does not unquote.

    Raises
    ------
    DataError
        If the file is an image, which has no times.
    """
    for event in file.events:
        out.write(f"{event.start_seconds:.6f}\t{file.end_seconds_of(event):.6f}\t{one_line(event.label)}\n")


def write_only_audacity_track(files: Iterable[FileEvents], out: TextIO) -> None:
    """Write the label track of a single recording.

    Raises
    ------
    DataError
        If there are several recordings, or the file is an image.
    """
    for number, file in enumerate(files):
        if number:
            raise DataError(f"{file.file}: a second recording, but an Audacity track holds one; give a folder as -o")
        write_audacity(file, out)
