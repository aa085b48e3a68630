"""Events as CSV and as JSON Lines."""

import json
from collections.abc import Iterable, Iterator
from typing import TextIO

from spectag.system.output import csv_writer
from spectag.tagging.events import FileEvents

TAG_COLUMNS = ("file", "start", "end", "label", "probability")


NOVELTY_COLUMN = "novelty"


def write_csv(files: Iterable[FileEvents], out: TextIO, *, has_novelty: bool = False) -> None:
    """Write a line for each event: file, start, end (seconds), label, probability, and novelty if the model has it.

    Any label and any file name can be read back. Those that a spreadsheet would run as a formula start with an
    apostrophe (`escape_formula`).
    """
    write_row = csv_writer(out)
    write_row((*TAG_COLUMNS, NOVELTY_COLUMN) if has_novelty else TAG_COLUMNS)
    for file in files:
        for event in file.events:
            end = "" if event.end_seconds is None else f"{event.end_seconds:.3f}"
            row = [file.file, f"{event.start_seconds:.3f}", end, event.label, f"{event.probability:.6f}"]
            write_row([*row, f"{event.novelty:.3f}"] if has_novelty else row)


def write_jsonl(files: Iterable[FileEvents], out: TextIO, *, by_window: bool = True, has_novelty: bool = False) -> None:
    """Write a JSON object in each line: file, start, end (seconds), tags (a list of objects: label, probability).

    If the model has novelty, each object has it, too.

    Parameters
    ----------
    files : iterable of FileEvents
    out : text file
    by_window : bool
        Write an object for each window of the timelines, with all its tags or an empty list. Otherwise write an object
        with one tag for each event.

    Raises
    ------
    ValueError
        If `by_window`, and an event does not have the times of a window.
    """
    for file in files:
        spans = file.events_by_window() if by_window else ((*event[:2], [event]) for event in file.events)
        novelties = _novelties(file, by_window) if has_novelty else None
        for start, end, events in spans:
            tags = [{"label": event.label, "probability": round(event.probability, 6)} for event in events]
            record = {"file": file.file, "start": start, "end": end, "tags": tags}
            if novelties is not None:
                record[NOVELTY_COLUMN] = round(next(novelties), 3)
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


def _novelties(file: FileEvents, by_window: bool) -> Iterator[float]:
    """The novelty of each window, or of each event."""
    if not by_window:
        yield from (event.novelty for event in file.events if event.novelty is not None)
    elif file.timeline.novelty is not None:
        yield from file.timeline.novelty.tolist()
