"""Tables with a row for each window and a column for each label: probabilities, or 0 and 1."""

from collections.abc import Iterable
from typing import TextIO

from spectag.data.labels import LabelSet
from spectag.system.output import csv_writer, escape_formula
from spectag.tagging.events import FileEvents

TIME_COLUMNS = ("file", "start_time", "end_time")
_BATCH_WINDOWS = 1000  # turned into text at once


def write_wide(files: Iterable[FileEvents], out: TextIO, *, labels: LabelSet) -> None:
    """Write a CSV with the columns file, start_time, end_time (seconds) and one for each label.

    This is the table that OpenSoundscape's `predict` returns: read it with pandas.read_csv(path, index_col=[0, 1, 2]).
    Times and probabilities have all their digits, so probabilities read as float32 are bit for bit the same.

    Parameters
    ----------
    files : iterable of FileEvents
        Their timelines are written.
    out : text file
    labels : LabelSet
        All labels of the model. A label with the name of a time column gets a second column of that name.

    File names and labels that a spreadsheet would run as a formula start with an apostrophe (`escape_formula`).
    """
    write_row = csv_writer(out, exact=True)  # most fields are numbers
    write_row([*TIME_COLUMNS, *map(escape_formula, labels.names)])
    for file in files:
        timeline, name = file.timeline, escape_formula(file.file)
        for begin in range(0, len(timeline.starts), _BATCH_WINDOWS):
            rows = slice(begin, begin + _BATCH_WINDOWS)
            texts = timeline.probabilities[rows].astype(str).tolist()  # the shortest that reads as the same float32
            times = zip(timeline.starts[rows].tolist(), timeline.ends[rows].tolist(), strict=True)
            for (start, end), row in zip(times, texts, strict=True):
                write_row([name, repr(start), "" if end != end else repr(end), *row])


def write_multi_hot_tags(files: Iterable[FileEvents], out: TextIO, *, labels: LabelSet) -> None:
    """Write the columns of `write_wide` with 1 for each detected label of a window, and 0 for the others.

    The table is a multi-hot manifest. Windows without a detected label have a row of zeros.

    Parameters
    ----------
    files : iterable of FileEvents
        Their events are those of windows.
    out : text file
    labels : LabelSet
        All labels of the model.

    Raises
    ------
    ValueError
        If an event does not have the times of a window.
    """
    write_row = csv_writer(out, exact=True)  # most fields are numbers
    write_row([*TIME_COLUMNS, *map(escape_formula, labels.names)])
    for file in files:
        for start, end, events in file.events_by_window():
            detected = {event.label for event in events}
            times = repr(start), "" if end is None else repr(end)
            write_row(
                [escape_formula(file.file), *times, *("1" if label in detected else "0" for label in labels.names)]
            )
