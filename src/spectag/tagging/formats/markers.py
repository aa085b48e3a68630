"""Markers of audio editors: regions of Reaper, and cue points of Adobe Audition."""

from collections.abc import Iterable
from typing import TextIO

from spectag.system.output import csv_writer, escape_formula, one_line
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.sound_files import only_file

REAPER_COLUMNS = ("#", "Name", "Start", "End", "Length")
AUDITION_COLUMNS = ("Name", "Start", "Duration", "Time Format", "Type", "Description")


def write_reaper(file: FileEvents, out: TextIO) -> None:
    """Write the regions of a recording, as the Region/Marker Manager of Reaper imports them.

    A row has # (R1, R2, ...), Name (the label), and Start, End and Length as hours:minutes:seconds with milliseconds,
    which Reaper reads the same way whatever the tempo of the project. There is no column for a probability.

    Raises
    ------
    DataError
        If the file is an image, which has no times.
    """
    write_row = csv_writer(out)
    write_row(REAPER_COLUMNS)
    for number, event in enumerate(file.events, start=1):
        start, end = _milliseconds(event.start_seconds), _milliseconds(file.end_seconds_of(event))
        times = (_clock(time) for time in (start, end, end - start))
        write_row([f"R{number}", one_line(event.label), *times])


def write_audition(file: FileEvents, out: TextIO) -> None:
    """Write the cue points of a recording, as the Markers panel of Adobe Audition imports them.

    The file is called CSV, but has tabs. A row has Name (the label), Start and Duration as minutes:seconds or
    hours:minutes:seconds with milliseconds, Time Format (decimal), Type (Cue) and Description (the probability).

    Raises
    ------
    DataError
        If the file is an image, which has no times.
    """
    out.write("\t".join(AUDITION_COLUMNS) + "\n")
    for event in file.events:
        start, end = _milliseconds(event.start_seconds), _milliseconds(file.end_seconds_of(event))
        times = (_clock(time, hours=time >= 3_600_000) for time in (start, end - start))
        name = escape_formula(one_line(event.label))
        out.write("\t".join([name, *times, "decimal", "Cue", f"{event.probability:.6f}"]) + "\n")


def write_only_reaper(files: Iterable[FileEvents], out: TextIO) -> None:
    """Write the regions of a single recording, as `write_reaper`.

    Raises
    ------
    DataError
        If there are several recordings.
    """
    write_reaper(only_file(files), out)


def write_only_audition(files: Iterable[FileEvents], out: TextIO) -> None:
    """Write the cue points of a single recording, as `write_audition`.

    Raises
    ------
    DataError
        If there are several recordings.
    """
    write_audition(only_file(files), out)


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _clock(milliseconds: int, *, hours: bool = True) -> str:
    """A time such as 1:02:03.456, or 62:03.456 without hours."""
    minutes, rest = divmod(milliseconds, 60_000)
    if not hours:
        return f"{minutes}:{rest // 1000:02}.{rest % 1000:03}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"
