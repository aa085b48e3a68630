"""Labelled segments of recordings: Raven selection tables and Audacity label tracks."""

import re
from pathlib import Path

from spectag.data.labels import split_labels
from spectag.data.readers.csv_table import group_position
from spectag.data.readers.delimited_text import (
    Table,
    abbreviate,
    first_lines,
    open_table,
    parse_time_field,
    split_lines,
)
from spectag.data.readers.file_finder import FileFinder
from spectag.data.readers.rows import ManifestRow
from spectag.errors import DataError

RAVEN_LABEL_COLUMNS = ("Annotation", "Species", "Common Name", "Label", "Tags")
_AUDACITY_LINE = re.compile(r"\s*-?\d+([.,]\d+)?\t\s*-?\d+([.,]\d+)?\s*(\t|$)")


def is_annotation(text: str) -> bool:
    """Whether a text is a Raven selection table or an Audacity label track."""
    return _is_raven(text) or _is_audacity(text)


def _is_raven(text: str) -> bool:
    header = "".join(first_lines(text, 1)).lower().split("\t")
    return {"begin time (s)", "end time (s)"} <= {name.strip() for name in header}


def _is_audacity(text: str) -> bool:
    return any(_AUDACITY_LINE.match(line) for line in first_lines(text, 1))


def read_annotations(tables: dict[Path, str], finder: FileFinder, group_column: str | None) -> list[ManifestRow]:
    """The rows of selection tables and label tracks, given as text by path. Other texts are ignored.

    A table without annotations becomes a row without labels: none of the labels is in its sound.
    """
    rows: list[ManifestRow] = []
    empty = []
    for path, text in tables.items():
        annotations = _read_annotation(path, text, finder, group_column)
        rows.extend(annotations or ())
        if annotations == []:
            empty.append(ManifestRow(path, None, finder.sound_of(path), ()))
    annotated = {finder.find(row.fname, row.source) for row in rows}
    return [*rows, *(row for row in empty if finder.find(row.fname, row.source) not in annotated)]


def _read_annotation(path: Path, text: str, finder: FileFinder, group_column: str | None) -> list[ManifestRow] | None:
    """The rows of a table; None if the text is not a table of annotations."""
    if _is_raven(text):
        return _read_raven(open_table(path, text, "\t"), finder, group_column)
    if _is_audacity(text):
        if group_column is not None:
            raise DataError(f"{path}: a label track has no column {group_column!r} for groups")
        return _read_audacity(path, text, finder)
    return None if text.strip() or finder.find(path.stem, path) is None else []


def _read_raven(table: Table, finder: FileFinder, group_column: str | None) -> list[ManifestRow]:
    records = list(table.records)
    label_column = _raven_label_column(table, records)
    group_index = None if group_column is None else group_position(table, group_column)
    lower = [column.lower() for column in table.columns]
    begin_column, end_column = lower.index("begin time (s)"), lower.index("end time (s)")
    offset_column = table.position("File Offset (s)")
    rows = []
    for line, fields in records:
        where = f"{table.path}, line {line}"
        begin = parse_time_field(fields[begin_column], "Begin Time (s)", where)
        end = parse_time_field(fields[end_column], "End Time (s)", where)
        # if several sounds are open together, Begin Time counts through all of them, File Offset within one
        start = begin if offset_column is None else parse_time_field(fields[offset_column], "File Offset (s)", where)
        fname, labels = _raven_sound(table, fields, finder), split_labels(fields[label_column])
        group = None if group_index is None else fields[group_index] or None
        times = start, start + (end - begin)
        rows.append(ManifestRow(table.path, line, fname, labels, None, group, *times, is_annotation=True))
    if offset_column is None and len({row.fname for row in rows}) > 1:
        raise DataError(
            f"{table.path}: the selections are from several sounds, but there is no column File Offset (s) with the "
            "position within the sound; add that measurement in Raven and save the table again"
        )
    return rows


def _raven_label_column(table: Table, records: list[tuple[int, list[str]]]) -> int:
    """Position of the first label column that is not empty."""
    columns = [position for name in RAVEN_LABEL_COLUMNS if (position := table.position(name)) is not None]
    if not columns:
        raise DataError(
            f"{table.path}: no column with labels; expected one of {', '.join(RAVEN_LABEL_COLUMNS)}. "
            f"The columns are {abbreviate(list(table.columns), 12)}"
        )
    return next((column for column in columns if any(fields[column] for _, fields in records)), columns[0])


def _raven_sound(table: Table, fields: list[str], finder: FileFinder) -> str:
    """Begin Path if it is a file on this machine, otherwise Begin File, otherwise the sound with the table's name."""
    positions = table.position("Begin Path"), table.position("Begin File")
    path, file = ("" if position is None else fields[position] for position in positions)
    if path and finder.find(path, table.path):
        return path
    return file or path.replace("\\", "/").rpartition("/")[2] or finder.sound_of(table.path)


def _read_audacity(path: Path, text: str, finder: FileFinder) -> list[ManifestRow]:
    fname = finder.sound_of(path)
    rows = []
    for line, content in enumerate(split_lines(text), start=1):
        if not content.strip() or content.startswith("\\"):  # a backslash: the frequency range of the label above
            continue
        where = f"{path}, line {line}"
        start, *rest = content.split("\t")
        if not rest:
            raise DataError(f"{where}: {content!r} is not a label; expected start, end and label, separated by tabs")
        label = rest[1] if len(rest) > 1 else ""
        start_seconds = parse_time_field(start.strip(), "the start", where)
        end_seconds = parse_time_field(rest[0].strip(), "the end", where)
        if start_seconds == end_seconds:
            raise DataError(
                f"{where}: {label!r} marks a point at {start_seconds:g} s, not a segment; "
                "in Audacity, extend the label over the sound, or delete it"
            )
        times = start_seconds, end_seconds
        rows.append(ManifestRow(path, line, fname, split_labels(label), None, None, *times, is_annotation=True))
    return rows
