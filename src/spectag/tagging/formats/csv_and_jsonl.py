"""Tags as CSV and as JSON lines."""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, TextIO

from spectag.system.output import csv_writer
from spectag.tagging.events import Event, FileEvents, window_times

TAG_COLUMNS = ("file", "start", "end", "label", "probability")


def write_csv(files: Iterable[FileEvents], out: TextIO) -> None:
    """A line for each event: file, start, end (seconds), label, probability.

    Any label and any name of a file survives; what a spreadsheet program makes of a label that begins with = is its
    own.
    """
    write_row = csv_writer(out)
    write_row(TAG_COLUMNS)
    for file in files:
        for event in file.events:
            times = _seconds(event.start_seconds), _seconds(event.end_seconds)
            write_row([file.file, *times, event.label, f"{event.probability:.6f}"])


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def write_jsonl(files: Iterable[FileEvents], out: TextIO, *, by_window: bool = True) -> None:
    """A JSON object a line: file, start, end (seconds), tags, which is a list of objects: label, probability.

    Parameters
    ----------
    files : iterable of FileEvents
    out : text file
    by_window : bool
        An object for each window of the timelines, with all its tags, or with none. Else one for each event, with one
        tag.

    Raises
    ------
    ValueError
        If `by_window`, and an event is not one of a window, or the events are not in the windows' order.
    """
    for file in files:
        stretches = _by_window(file) if by_window else _by_event(file)
        for start, end, tags in stretches:
            record = {"file": file.file, "start": start, "end": end, "tags": tags}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


_Stretch = tuple[float, float | None, list[dict[str, Any]]]


def _by_window(file: FileEvents) -> Iterator[_Stretch]:
    stretches = groupby(file.events, lambda event: (event.start_seconds, event.end_seconds))
    nothing = (None, iter(()))
    where, events = next(stretches, nothing)
    for window in window_times(file.timeline):
        if window == where:
            yield *window, [_tag(event) for event in events]
            where, events = next(stretches, nothing)
        else:
            yield *window, []
    if where is not None:
        raise ValueError(f"{file.file}: no window lies where the event at {where} s is; by_window=False?")


def _by_event(file: FileEvents) -> Iterator[_Stretch]:
    for event in file.events:
        yield event.start_seconds, event.end_seconds, [_tag(event)]


def _tag(event: Event) -> dict[str, Any]:
    return {"label": event.label, "probability": round(event.probability, 6)}
