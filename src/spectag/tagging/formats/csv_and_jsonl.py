"""Events as CSV or TSV, and as JSON Lines or a JSON list."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, TextIO

from spectag.data.detections import PLACE_COLUMNS, TAG_COLUMNS
from spectag.system.output import csv_writer
from spectag.tagging.events import FileEvents

NOVELTY_COLUMN = "novelty"


def columns_of(*, has_novelty: bool, has_places: bool) -> tuple[str, ...]:
    """The columns of a table with a row for each event."""
    return (*TAG_COLUMNS, *((NOVELTY_COLUMN,) if has_novelty else ()), *(PLACE_COLUMNS if has_places else ()))


def place_fields(file: FileEvents, start_seconds: float) -> tuple[str, str]:
    """The values of `PLACE_COLUMNS` for a sound; empty if nothing is known."""
    return ("", "") if file.place is None else file.place.fields(start_seconds)


def write_csv(
    files: Iterable[FileEvents],
    out: TextIO,
    *,
    has_novelty: bool = False,
    has_places: bool = False,
    delimiter: str = ",",
) -> None:
    """Write a line for each event: file, start, end (seconds), label, probability, and novelty if the model has it.

    If wanted, `PLACE_COLUMNS` follow.
    Any label and any file name can be read back. Those that a spreadsheet would run as a formula start with an
    apostrophe (`escape_formula`).
    """
    write_row = csv_writer(out, delimiter=delimiter)
    write_row(columns_of(has_novelty=has_novelty, has_places=has_places))
    for file in files:
        for event in file.events:
            end = "" if event.end_seconds is None else f"{event.end_seconds:.3f}"
            row = [file.file, f"{event.start_seconds:.3f}", end, event.label, f"{event.probability:.6f}"]
            if has_novelty:
                row.append(f"{event.novelty:.3f}")
            write_row([*row, *place_fields(file, event.start_seconds)] if has_places else row)


write_tsv = partial(write_csv, delimiter="\t")
"""Write the table of `write_csv` with tabs instead of commas."""


def write_jsonl(
    files: Iterable[FileEvents], out: TextIO, *, has_novelty: bool = False, has_places: bool = False
) -> None:
    """Write a JSON object in each line: file, start, end (seconds), tags (a list of objects: label, probability).

    If the model has novelty, each object has it, too. A recording has an object for each window, with all its tags or
    an empty list; or one with one tag for each segment. If wanted, `PLACE_COLUMNS` follow.

    Raises
    ------
    ValueError
        If an event of a window does not have the times of a window.
    """
    for record in tag_records(files, has_novelty, has_places):
        out.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_json(
    files: Iterable[FileEvents], out: TextIO, *, has_novelty: bool = False, has_places: bool = False
) -> None:
    """Write the objects of `write_jsonl` as one JSON list, each on a line of its own."""
    separator = "["
    for record in tag_records(files, has_novelty, has_places):
        out.write(f"{separator}\n{json.dumps(record, ensure_ascii=False)}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


def tag_records(files: Iterable[FileEvents], has_novelty: bool, has_places: bool) -> Iterator[dict[str, Any]]:
    """The objects that `write_jsonl` writes."""
    for file in files:
        spans = file.events_by_window() if file.by_window else ((*event[:2], [event]) for event in file.events)
        novelties = _novelties(file) if has_novelty else None
        for start, end, events in spans:
            tags = [{"label": event.label, "probability": round(event.probability, 6)} for event in events]
            times = {"start": round(start, 3), "end": None if end is None else round(end, 3)}  # as in the CSV
            record: dict[str, Any] = {"file": file.file, **times, "tags": tags}
            if novelties is not None:
                record[NOVELTY_COLUMN] = round(next(novelties), 3)
            if has_places:
                record |= zip(PLACE_COLUMNS, place_fields(file, start), strict=True)
            yield record


def _novelties(file: FileEvents) -> Iterator[float]:
    """The novelty of each window, or of each segment."""
    if not file.by_window:
        yield from (event.novelty for event in file.events if event.novelty is not None)
    elif file.timeline.novelty is not None:
        yield from file.timeline.novelty.tolist()
