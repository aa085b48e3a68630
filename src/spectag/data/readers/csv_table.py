"""Tables of clips or of annotated sounds: a field with all labels, or a column of 0 and 1 for each label."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from spectag.audio.files import audio_info
from spectag.data.labels import MISSING_VALUES, LabelSplitter
from spectag.data.readers.columns import (
    TRUTH_VALUES,
    UNKNOWN_VALUES,
    Layout,
    find_layout,
    has_other_times,
    open_manifest_table,
)
from spectag.data.readers.delimited_text import CLOCK_TIME, Record, Table, abbreviate, parse_time_field, shorten
from spectag.data.readers.file_finder import FileFinder
from spectag.data.readers.rows import ManifestRow, TableOptions
from spectag.errors import DataError, DataWarning, SpectagError

MAX_WEIGHT = 100.0
N_PEEKED = 200
"""Records, to see what the columns contain."""
_N_OPENED = 20  # sounds, to see whether they are excerpts
_TOLERANCE_SECONDS = 0.1  # of the lengths of sounds in tables

_PRESENT = frozenset({"present", "1", "1.0", "true", "yes", "y"})
ABSENT = frozenset({"not_present", "absent", "0", "0.0", "false", "no", "n"})
"""Values of the column `present` of a label that is not in the sound."""
_FALSE = frozenset(text for text, is_true in TRUTH_VALUES.items() if not is_true)
_NO_TIME = frozenset({"", "nan", "na", "none"})

_Labels = tuple[str, ...]
LabelReader = Callable[[list[str], int], tuple[_Labels, _Labels]]
"""Reads the true and the unknown labels from the fields of a row in a line."""


def read_csv(
    path: Path, text: str, finder: FileFinder, options: TableOptions
) -> tuple[Iterator[ManifestRow], tuple[str, ...] | None]:
    """The rows of a table and, if it is multi-hot, its labels in the order of the columns."""
    table, first = open_manifest_table(path, text).peek(N_PEEKED)
    layout = find_layout(
        table,
        first,
        group_column=options.group_column,
        label_column=options.label_column,
        has_own_sound=lambda: True,
    )
    layout = _without_clock_times(table, first, layout)
    _check_times(table, layout)
    if _are_excerpts(table, first, layout, finder):
        layout = replace(layout, holds_excerpts=True, is_annotation=False)
    elif layout.holds_excerpts:
        layout = replace(layout, holds_excerpts=False)
    if names := layout.label_columns:
        _warn_of_unread_labels(table, first, layout)
        reader = _RowReader(table, layout, finder, multi_hot_reader(path, names))
        return _check_absent_labels(path, reader.rows(), len(names)), tuple(names.values())
    splitter = LabelSplitter(options.label_separator)
    reader = _RowReader(table, layout, finder, _label_reader(table, layout, splitter))
    return _with_hint(path, table.columns[layout.positions["labels"]], reader.rows(), splitter), None


def _without_clock_times(table: Table, first: Sequence[Record], layout: Layout) -> Layout:
    """The layout of a table of clips without a start that is a clock time, such as 05:30:00, and has no end."""
    start = layout.positions.get("start")
    if start is None or layout.is_annotation or {"end", "duration"} & layout.positions.keys():
        return layout
    times = [fields[start] for _, fields in first if fields[start]]
    if not times or not all(map(CLOCK_TIME.fullmatch, times)):
        return layout
    warnings.warn(
        f"{table.path}: the column {table.columns[start]} contains clock times such as {times[0]}, and there is no "
        "end: they are read as the times of the recordings, and ignored. If they are the starts of excerpts, add a "
        "column end, or give them in seconds",
        DataWarning,
        stacklevel=3,
    )
    return replace(layout, positions={name: found for name, found in layout.positions.items() if name != "start"})


def _check_times(table: Table, layout: Layout) -> None:
    """Raise a DataError if times are not in seconds, or annotated sounds have no end."""
    start = layout.positions.get("start")
    if start is None and (columns := has_other_times(table)):
        raise DataError(
            f"{table.path}: the columns {abbreviate(columns)} look like times, but not in seconds; "
            "add the columns start and end in seconds, or delete them"
        )
    if layout.is_annotation and start is not None and not {"end", "duration"} & layout.positions.keys():
        raise DataError(
            f"{table.path}: the sounds have a start ({table.columns[start]}), but no end; add a column end or duration "
            "in seconds. If the column is not the start of the sound, rename it"
        )


def open_table_with_layout(path: Path, text: str, label_column: str | None) -> tuple[Table, Layout] | None:
    """A table, and what its columns mean; None if the text is not a table of clips or sounds."""
    with suppress(DataError):
        table, first = open_manifest_table(path, text).peek(N_PEEKED)
        return table, find_layout(table, first, label_column=label_column, has_own_sound=lambda: True)
    return None


def is_annotation_table(path: Path, text: str, *, label_column: str | None = None) -> bool:
    """Whether a text is a table with a row for each sound in a recording. Other texts may be no tables at all."""
    opened = open_table_with_layout(path, text, label_column)
    return opened is not None and opened[1].is_annotation


def clip_table(path: Path, text: str, *, label_column: str | None = None) -> tuple[Table, Layout] | None:
    """A table with a row for each clip, and what its columns mean; None if the text is something else."""
    opened = open_table_with_layout(path, text, label_column)
    return None if opened is None or opened[1].is_annotation else opened


def extra_columns(table: Table, layout: Layout) -> dict[str, dict[int, str]]:
    """The columns of a table that spectag does not use, by name; each as the field by line number."""
    names = {position: name for position, name in enumerate(table.columns) if name and position not in layout.used}
    columns: dict[str, dict[int, str]] = {name: {} for name in names.values()}
    for line, fields in table.records if names else ():
        for position, name in names.items():
            columns[name][line] = fields[position]
    return columns


def _are_excerpts(table: Table, first: Sequence[Record], layout: Layout, finder: FileFinder) -> bool:
    """Whether the files are the excerpts themselves, so that start and end are times in the originals.

    Then each file of the first rows has the length of its excerpt and is shorter than its end. If the column of file
    names does not say that they are excerpts, this must be so for at least one of them.
    """
    fname, start, end = (layout.positions.get(name) for name in ("fname", "start", "end"))
    if fname is None or start is None or end is None:
        return False
    names = [fields[fname] for _, fields in first]
    if len(set(names)) < len(names):
        return False
    is_excerpt = []
    for _, fields in first:
        with suppress(SpectagError):
            begin, stop = (parse_time_field(fields[column], "", "") for column in (start, end))
            name = fields[fname]
            if layout.holds_video_ids:
                name = finder.find_video(name, begin, stop, table.path)
            path = finder.find(name, table.path) if begin > 0 else None
            if path is not None:
                seconds = audio_info(path).duration_seconds
                is_whole = abs(seconds - (stop - begin)) <= _TOLERANCE_SECONDS
                is_excerpt.append(seconds < stop - _TOLERANCE_SECONDS and (is_whole or layout.holds_excerpts))
        if len(is_excerpt) >= _N_OPENED:
            break
    return all(is_excerpt) and bool(is_excerpt or layout.holds_excerpts)


def _warn_of_unread_labels(table: Table, first: Sequence[Record], layout: Layout) -> None:
    """Warn if a column of 0 and 1 in a multi-hot table is not a label because of its name, such as `country`."""
    values = {
        name: {fields[position].lower() for _, fields in first}
        for position, name in enumerate(table.columns)
        if name and position not in layout.used
    }
    unread = [name for name, found in values.items() if found <= TRUTH_VALUES.keys() and not found.isdisjoint(_FALSE)]
    if unread:
        warnings.warn(
            f"{table.path}: the columns {abbreviate(unread)} contain only 0 and 1, but have names of times, places or "
            "other details, so they are not read as labels; if they are labels, rename them",
            DataWarning,
            stacklevel=2,
        )


def _with_hint(path: Path, column: str, rows: Iterator[ManifestRow], splitter: LabelSplitter) -> Iterator[ManifestRow]:
    """The rows, followed by warnings if labels contain what could be a separator, or say that they are missing."""
    yield from rows
    if missing := splitter.n_missing.most_common():
        texts = ", ".join(f"{text!r}" if len(missing) == 1 else f"{text!r} ({n_rows:,})" for text, n_rows in missing)
        warnings.warn(
            f"{path}: {splitter.n_missing.total():,} fields of the column {column} are {texts}, which is read as no "
            f"label: none of the labels is true in these clips. If it is a label, write ['{missing[0][0]}']; if nobody "
            "listened, delete the lines",
            DataWarning,
            stacklevel=2,
        )
    for separator, (n_fields, example) in splitter.possible_separators.items():
        warnings.warn(
            f"{path}: {n_fields} fields of the column {column} contain {separator!r}, such as '{shorten(example)}', "
            f"which is read as a part of the label; if it separates labels, use --label-separator {separator!r}",
            DataWarning,
            stacklevel=2,
        )


class _RowReader:
    """Reads the rows of a table according to its layout."""

    def __init__(self, table: Table, layout: Layout, finder: FileFinder, read_labels: LabelReader) -> None:
        self._table, self._layout, self._finder, self._read_labels = table, layout, finder, read_labels
        self._names: dict[str, str] = {}  # so that equal names share memory
        self._raven_names: dict[str, str] = {}
        raven_columns = (table.position("begin_path"), table.position("begin_file"))
        is_raven = layout.positions.get("fname") in (None, *raven_columns)
        self._raven_columns = [position for position in raven_columns if position is not None] if is_raven else None
        self._lines_without_times: list[int] = []
        self._start, self._end, self._duration, self._offset = (
            layout.positions.get(name) for name in ("start", "end", "duration", "file_offset")
        )

    def rows(self) -> Iterator[ManifestRow]:
        """The rows, read while they are iterated."""
        fold, group, weight, present = (
            self._layout.positions.get(name) for name in ("fold", "group", "weight", "present")
        )
        path, is_annotation = self._table.path, self._layout.is_annotation
        for line, fields in self._table.records:
            labels, unknown = self._read_labels(fields, line)
            lacks_label = is_annotation and not labels and not unknown
            if present is not None and not self._is_present(fields[present], line):
                labels = ()
            start, end = (0.0, None) if self._start is None and self._end is None else self._times(fields, line, labels)
            name = self._file_name(fields, start, end)
            if self._layout.holds_excerpts:
                start, end = 0.0, None
            yield ManifestRow(
                path,
                line,
                name,
                labels,
                (fields[fold] or None) if fold is not None else None,
                (fields[group] or None) if group is not None else None,
                start,
                end,
                unknown,
                _parse_weight(fields[weight], path, line) if weight is not None and fields[weight] else 1.0,
                is_annotation,
                lacks_label and end is not None,
            )
        if lines := self._lines_without_times:
            warnings.warn(
                f"{path}: {len(lines):,} annotations have neither start nor end, such as that in line {lines[0]}. They "
                "are read as sounds of the whole recording; fill in the times, or delete the lines",
                DataWarning,
                stacklevel=2,
            )
        if self._raven_columns and self._offset is None and is_annotation and len(self._names) > 1:
            raise DataError(
                f"{path}: the selections are from several sounds, but there is no column File Offset (s) with the "
                "position within the sound; add that measurement in Raven and save the table again"
            )

    def _is_present(self, field: str, line: int) -> bool:
        if field.lower() in ABSENT:
            return False
        if field and field.lower() not in _PRESENT:
            raise DataError(
                f"{self._table.path}, line {line}: present is '{shorten(field)}'; expected PRESENT or NOT_PRESENT. "
                "If the column has another meaning, rename it"
            )
        return True

    def _file_name(self, fields: list[str], start: float, end: float | None) -> str:
        if self._raven_columns is None:
            name = fields[self._layout.positions["fname"]]
            if self._layout.holds_video_ids:
                name = self._finder.find_video(name, start, end, self._table.path)
        else:
            name = self._raven_file_name(fields)
        return self._names.setdefault(name, name)

    def _raven_file_name(self, fields: list[str]) -> str:
        """Begin Path if it is a file on this machine, else Begin File, else the sound with the table's name."""
        given = [fields[position] for position in self._raven_columns or () if fields[position]]
        if not given:
            return self._own_sound
        if given[0] not in self._raven_names:
            found = self._finder.find(given[0], self._table.path)
            is_beside = found is None or found.parent in self._finder.folders(self._table.path)
            last_part = given[-1].replace("\\", "/").rpartition("/")[2]
            self._raven_names[given[0]] = last_part if is_beside else given[0]
        return self._raven_names[given[0]]

    @cached_property
    def _own_sound(self) -> str:
        return self._finder.sound_of(self._table.path)

    def _times(self, fields: list[str], line: int, labels: _Labels) -> tuple[float, float | None]:
        """Start and end in seconds."""
        start_field = "" if self._start is None else fields[self._start]
        end_field = "" if self._end is None else fields[self._end]
        if not labels and start_field.lower() in _NO_TIME and end_field.lower() in _NO_TIME:
            return 0.0, None  # a recording without events
        start = self._seconds(start_field, self._start, line) if start_field else 0.0
        end = self._seconds(end_field, self._end, line) if end_field else None
        if self._end is None and self._duration is not None and fields[self._duration]:
            end = start + self._seconds(fields[self._duration], self._duration, line)
        if self._layout.is_annotation and end is None:
            if start_field:
                raise DataError(
                    f"{self._table.path}, line {line}: the sound starts at {shorten(start_field)}, but has no end; "
                    "fill it in, or delete the line. If the line is a clip up to the end of the file, and names all of "
                    "its labels, call their column labels"
                )
            self._lines_without_times.append(line)
        if self._offset is not None and end is not None and self._layout.is_annotation:
            # if several sounds are open together, Begin Time counts through all of them, File Offset within one
            offset = self._seconds(fields[self._offset], self._offset, line)
            return offset, offset + (end - start)
        return start, end

    def _seconds(self, field: str, column: int | None, line: int) -> float:
        try:  # nearly all fields
            seconds = float(field)
        except ValueError:
            seconds = math.nan
        if 0 <= seconds < math.inf:
            return seconds
        return parse_time_field(field, self._table.columns[column or 0], f"{self._table.path}, line {line}")


def _label_reader(table: Table, layout: Layout, splitter: LabelSplitter) -> LabelReader:
    """Reads the columns of labels. It refuses rows of `spectag suggest` that have not been labelled yet."""
    suggested = table.position("suggested") if table.position("why") is not None else None
    column, more, unknown = (layout.positions.get(name) for name in ("labels", "more_labels", "unknown"))

    def read_labels(fields: list[str], line: int) -> tuple[_Labels, _Labels]:
        try:
            labels = splitter(fields[column or 0])
            if more is not None and fields[more]:
                labels = tuple(dict.fromkeys((*labels, *splitter(fields[more]))))
        except DataError as error:
            raise DataError(f"{table.path}, line {line}: {error}") from error
        if not labels and (field := fields[column or 0]) in MISSING_VALUES:
            splitter.n_missing[field] += 1
        if not labels and suggested is not None and fields[suggested]:
            raise DataError(
                f"{table.path}, line {line}: not labelled yet; fill in labels, or delete the line. If the clip "
                "contains none of your labels, delete the text in the column suggested"
            )
        return labels, splitter(fields[unknown]) if unknown is not None else ()

    return read_labels


def _parse_weight(field: str, path: Path, line: int) -> float:
    """A weight from 0 to MAX_WEIGHT, with a decimal point or a decimal comma."""
    with suppress(ValueError):
        weight = float(field.replace(",", "."))
        if 0 <= weight <= MAX_WEIGHT:
            return weight
    raise DataError(
        f"{path}, line {line}: weight is '{shorten(field)}'; expected how much the clip counts in training, from 0 "
        f"(not at all) to {MAX_WEIGHT:g}, or nothing for 1"
    )


def multi_hot_reader(path: Path, names: dict[int, str]) -> LabelReader:
    """Reads the columns of 0, 1 and empty cells."""

    def read_labels(fields: list[str], line: int) -> tuple[_Labels, _Labels]:
        labels, unknown = [], []
        others = [position for position, field in enumerate(fields) if field != "0"]  # most fields are 0
        for position in others:
            if (name := names.get(position)) is None:
                continue
            value = fields[position].lower()
            if value in UNKNOWN_VALUES:
                unknown.append(name)
            elif value not in TRUTH_VALUES:
                raise DataError(
                    f"{path}, line {line}: the column '{shorten(name)}' contains '{shorten(fields[position])}'; "
                    "expected 0 or 1, or nothing if it is unknown, in every column of a table without a column "
                    "labels. Name the column of labels with --label-column if there is one"
                )
            elif TRUTH_VALUES[value]:
                labels.append(name)
        return tuple(labels), tuple(unknown)

    return read_labels


def _check_absent_labels(path: Path, rows: Iterator[ManifestRow], n_labels: int) -> Iterator[ManifestRow]:
    """Raise a DataError if a multi-hot table has empty cells but no 0: then they mean 0."""
    n_unknown = n_absent = 0
    for row in rows:
        n_unknown += len(row.unknown)
        n_absent += n_labels - len(row.unknown) - len(row.labels)
        yield row
    if n_unknown and not n_absent:
        raise DataError(
            f"{path}: {n_unknown} cells are empty, and none is 0. An empty cell means that nobody knows whether the "
            "label is true; write 0 where it is not"
        )
