"""The probabilities of all labels: a row for each window, a column for each label."""

from collections.abc import Iterable, Sequence
from typing import TextIO

from spectag.system.output import csv_writer
from spectag.tagging.events import FileEvents

TIME_COLUMNS = ("file", "start_time", "end_time")
_WINDOWS_AT_ONCE = 1000


def write_wide(files: Iterable[FileEvents], labels: Sequence[str], out: TextIO) -> None:
    """A CSV with the columns file, start_time, end_time (seconds) and one for each label.

    This is the table that OpenSoundscape's `predict` gives; pandas.read_csv(path, index_col=[0, 1, 2]) makes its index.
    Times and probabilities have all their digits: read as float32, the probabilities are the same bits.

    Parameters
    ----------
    files : iterable of FileEvents
        Of which the timelines are written.
    labels : sequence of str
        All labels of the tagger. One that is named like a column of times gets its own column all the same.
    out : text file
    """
    write_row = csv_writer(out)
    write_row([*TIME_COLUMNS, *labels])
    for file in files:
        timeline = file.timeline
        for begin in range(0, len(timeline.starts), _WINDOWS_AT_ONCE):
            some = slice(begin, begin + _WINDOWS_AT_ONCE)
            texts = timeline.probabilities[some].astype(str).tolist()  # the shortest that is read as the same float32
            times = zip(timeline.starts[some].tolist(), timeline.ends[some].tolist(), strict=True)
            for (start, end), row in zip(times, texts, strict=True):
                write_row([file.file, repr(start), "" if end != end else repr(end), *row])
