"""Relabelling a manifest: labels are merged, renamed, dropped, or put below others."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TextIO

from spectag.data.corrections import join_labels
from spectag.data.detections import TAG_COLUMNS
from spectag.data.hierarchy import read_hierarchy
from spectag.data.label_map import LabelChanges, LabelMap, as_label_map
from spectag.data.labels import LabelSplitter, parse_label_list
from spectag.data.manifest import read_rows
from spectag.data.readers.annotations import is_label_track
from spectag.data.readers.columns import Layout, find_delimiter, find_layout, is_label_column, open_manifest_table
from spectag.data.readers.csv_table import ABSENT, N_PEEKED, multi_hot_reader
from spectag.data.readers.dataframes import dataframe_as_csv
from spectag.data.readers.delimited_text import Table, abbreviate
from spectag.data.readers.file_finder import FileFinder
from spectag.data.readers.rows import ManifestRow, TableOptions, format_times
from spectag.data.readers.text_files import read_text
from spectag.errors import DataError, did_you_mean
from spectag.system.dataframes import DataFrame, is_dataframe
from spectag.system.file_errors import similar_file
from spectag.system.output import csv_writer, escape_formula, open_output, tsv_field, unescape_formula
from spectag.system.paths import relative_name
from spectag.system.short_texts import short_repr

_ANNOTATION_COLUMNS = ("fname", "start", "end", "event_label")
_CLIP_COLUMNS = ("fname", "labels", "fold", "group")

_LABEL = TAG_COLUMNS.index("label")

_Row = list[str]
_Labels = tuple[str, ...]


@short_repr
@dataclass(frozen=True)
class Relabelling:
    """What changed in a manifest."""

    output: Path | None
    """The new table; None: nothing was written."""
    n_clips: int
    """Clips, or annotated sounds."""
    before: dict[str, int]
    """Clips by old label, in the order of the names."""
    after: dict[str, int]
    """Clips by new label."""
    new_names: dict[str, tuple[str, ...]]
    """What became of each old label: its new labels, without those above them."""
    without_labels: tuple[str, ...] = ()
    """The names of the clips that had labels and have none now."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Labels of the map that no clip has, each with a hint: "; did you mean 'Dog'?", or an empty text."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """The old labels without a new one."""
        return tuple(label for label, names in self.new_names.items() if not names)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON objects."""
        return {
            "output": None if self.output is None else str(self.output),
            "n_clips": self.n_clips,
            "before": self.before,
            "after": self.after,
            "new_names": {label: list(names) for label, names in self.new_names.items()},
            "without_labels": list(self.without_labels),
            "unknown": list(self.unknown),
        }


def relabel(
    manifest: str | Path | DataFrame,
    label_map: LabelChanges | None = None,
    output: str | Path | None = None,
    *,
    hierarchy: str | Path | None = None,
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
) -> Relabelling:
    """Merge, rename, drop and nest the labels of a manifest, or of a table of annotations or detections.

    A table keeps its columns, its order and its separators; names of sounds change only if they would not be found from
    the folder of the new table. Folders and label tracks become a table.

    Parameters
    ----------
    manifest : path or DataFrame
        As for `read_manifest`.
    label_map : path or mapping, optional
        A table with the columns old, new and parent, see `read_label_map`; "ucs", which gives AudioSet's labels their
        CatID of the Universal Category System; or the new names by old label.
    output : path, optional
        The new table. By default nothing is written.
    hierarchy : path, optional
        A table of children and parents, or AudioSet's ontology.json, see `read_hierarchy`. A clip gets all labels above
        its own.
    audio_dir, label_column, label_separator
        As for `read_manifest`. The sounds may be missing.

    Raises
    ------
    DataError
        If a table is not understood, the map and the hierarchy have no label of the manifest, all labels would be
        dropped, or the output can't be written.
    """
    if label_map is None and hierarchy is None:
        raise DataError("nothing to change; give a map of labels, or a hierarchy")
    counts = _Counts(as_label_map({} if label_map is None else label_map, separator=label_separator))
    if hierarchy is not None:
        counts.map = counts.map.with_hierarchy(read_hierarchy(hierarchy))
    output = None if output is None else Path(output)
    finder = FileFinder(None if audio_dir is None else Path(audio_dir))
    options = TableOptions(None, label_column, label_separator)
    source, text = (Path("DataFrame"), dataframe_as_csv(manifest)) if is_dataframe(manifest) else _read(manifest)
    relabelled = _relabelled(source, text, finder, options, counts, output)
    if output is None:
        deque(relabelled.rows, maxlen=0)
        counts.check(source)
    else:
        with open_output(output) as file:
            write_row = _row_writer(file, relabelled.delimiter)
            write_row(relabelled.columns)
            for row in relabelled.rows:
                write_row(row)
            counts.check(source)
    return counts.result(output)


def _read(manifest: object) -> tuple[Path, str]:
    """The path of a manifest, and its text; that of a folder is empty."""
    if not isinstance(manifest, str | os.PathLike):
        raise DataError(f"expected the path of a table or a folder, or a DataFrame, got {type(manifest).__name__}")
    source = Path(manifest)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder{similar_file(source)}")
    return source, "" if source.is_dir() else read_text(source)


def _row_writer(file: TextIO, delimiter: str) -> Callable[[Sequence[str]], object]:
    """Writes rows as they were read: fields of tables with tabs are neither quoted nor escaped."""
    if delimiter != "\t":
        return csv_writer(file, delimiter=delimiter)
    return lambda fields: file.write("\t".join(map(tsv_field, fields)) + "\n")


@dataclass(frozen=True)
class _Relabelled:
    """The new table."""

    columns: Sequence[str]
    rows: Iterator[_Row]
    delimiter: str = ","


class _Counts:
    """Maps labels, and counts them before and after."""

    def __init__(self, label_map: LabelMap) -> None:
        self.map = label_map
        self.n_clips = 0
        self.before, self.after = Counter[str](), Counter[str]()
        self.without_labels: list[str] = []
        self._known: set[str] = set()  # all labels of the manifest, also those of no clip

    def add(self, old: Iterable[str], new: Iterable[str], name: str) -> None:
        """Count a clip."""
        old, new = set(old), set(new)
        self.n_clips += 1
        self.before.update(old)
        self.after.update(new)
        if old and not new:
            self.without_labels.append(name)

    def know(self, labels: Iterable[str]) -> None:
        """Remember labels that may have no clip: unknown ones, and columns of 0."""
        self._known.update(labels)

    def check(self, source: Path) -> None:
        """Raise a DataError if there is no clip, nothing changes, or no label remains."""
        known = {*self._known, *self.before}
        if not self.n_clips:
            raise DataError(f"{source}: no clips; expected one line per clip")
        if not any(label in self.map.new_names or self.map((label,)) != (label,) for label in known):
            first = next(iter((*self.map.new_names, *self.map.hierarchy.parents)), "")
            raise DataError(
                f"{source}: none of its labels is in the map or the hierarchy. Its labels are "
                f"{abbreviate(sorted(known))}; use these names{did_you_mean(first, known)}"
            )
        if self.before and not self.after:
            raise DataError(f"{source}: all labels would be dropped; keep at least one")

    def result(self, output: Path | None) -> Relabelling:
        known = sorted({*self._known, *self.before})
        targets = {*chain(*self.map.new_names.values(), *self.map.hierarchy.parents.values())}
        listed = () if self.map.is_built_in else self.map.new_names
        missing = [label for label in listed if label not in known and label not in targets]
        return Relabelling(
            output,
            self.n_clips,
            {label: self.before[label] for label in known},
            dict(sorted(self.after.items())),
            {label: self.map.new_names.get(label, (label,)) for label in known},
            tuple(self.without_labels),
            {label: did_you_mean(label, known) for label in missing},
        )


def _relabelled(
    source: Path, text: str, finder: FileFinder, options: TableOptions, counts: _Counts, output: Path | None
) -> _Relabelled:
    """The new table: the old one with other labels, or one made of a folder, a label track, or a selection table."""
    if source.is_dir() or is_label_track(text):
        return _from_rows(read_rows(source, finder, options)[0], finder, counts, output)
    table, first = open_manifest_table(source, text).peek(N_PEEKED)
    delimiter = find_delimiter(text)
    if tuple(table.columns[: len(TAG_COLUMNS)]) == TAG_COLUMNS and options.label_column is None:
        names = _NewNames(finder, source, 0, output)
        return _Relabelled(table.columns, _tag_rows(table, names, counts, delimiter), delimiter)
    layout = find_layout(table, first, label_column=options.label_column, has_own_sound=lambda: True)
    if "fname" not in layout.positions:
        return _from_rows(read_rows(source, finder, options)[0], finder, counts, output)
    keeps_names = layout.holds_video_ids
    names = _NewNames(finder, source, layout.positions["fname"], None if keeps_names else output)
    if layout.label_columns:
        return _multi_hot(table, layout, names, counts, delimiter)
    rewriter = _LabelColumns(table, layout, options.label_separator, counts)
    return _Relabelled(table.columns, rewriter.rows(names), delimiter)


@dataclass(frozen=True)
class _NewNames:
    """The names of sounds in the new table: those of the old one, if they are found from there."""

    finder: FileFinder
    source: Path
    column: int
    output: Path | None

    def __call__(self, fields: _Row) -> _Row:
        """The row with the new name of its sound."""
        if self.output is None:
            return fields
        fname = fields[self.column]
        path = self.finder.find(fname, self.source) if fname else None
        if path is None:
            return fields
        fields = list(fields)
        fields[self.column] = relative_name(path, fname, self.output.parent)
        return fields


def _tag_rows(table: Table, names: _NewNames, counts: _Counts, delimiter: str) -> Iterator[_Row]:
    """The rows of a table of `spectag tag`: each has one label, which may contain commas.

    Of several labels of a window or a segment that become the same label, the most probable one stays.
    """
    is_escaped = delimiter == "\t"  # in other tables, `open_table` and `csv_writer` do it
    for _, same_times in groupby(table.records, key=lambda record: record[1][:_LABEL]):
        merged: dict[str, _Row] = {}
        for _, fields in same_times:
            label = unescape_formula(fields[_LABEL]) if is_escaped else fields[_LABEL]
            old = (label,) if label else ()
            new = counts.map(old)
            counts.add(old, new, fields[0])
            counts.after.subtract(label for label in new if label in merged)
            fields = names(fields)
            for label in new:
                text = escape_formula(label) if is_escaped else label
                row = [*fields[:_LABEL], text, *fields[_LABEL + 1 :]]
                if label not in merged or _probability(row) > _probability(merged[label]):
                    merged[label] = row
        yield from merged.values()


def _probability(row: _Row) -> float:
    try:
        return float(row[_LABEL + 1].replace(",", "."))
    except ValueError:
        return 0.0


class _LabelColumns:
    """Relabels a table with a column of labels, and perhaps others of secondary and unknown labels."""

    def __init__(self, table: Table, layout: Layout, separator: str | None, counts: _Counts) -> None:
        self._table, self._layout, self._separator, self._counts = table, layout, separator, counts
        self._split = LabelSplitter(separator)
        self._column = layout.positions["labels"]
        self._secondary, self._unknown, self._present = (
            layout.positions.get(name) for name in ("more_labels", "unknown", "present")
        )

    def rows(self, names: _NewNames) -> Iterator[_Row]:
        """The new rows. A sound with several new labels has a row for each, if a row had one label before."""
        for line, fields in self._table.records:
            try:
                yield from self._new_rows(names(fields))
            except DataError as error:
                raise DataError(f"{self._table.path}, line {line}: {error}") from error

    def _new_rows(self, fields: _Row) -> Iterator[_Row]:
        main = self._split(fields[self._column])
        new = self._counts.map(main)
        if self._present is not None and fields[self._present].lower() in ABSENT:
            renamed = tuple(name for label in main for name in self._counts.map.new_names.get(label, (label,)))
            yield self._with(fields, {self._column: renamed})
            return
        more = () if self._secondary is None else self._split(fields[self._secondary])
        new_more = tuple(label for label in self._counts.map(more) if label not in new)
        unknown = () if self._unknown is None else self._split(fields[self._unknown])
        self._counts.know(unknown)
        self._counts.add((*main, *more), (*new, *new_more), fields[self._layout.positions["fname"]])
        cells = {self._column: new}
        if self._secondary is not None:
            cells[self._secondary] = new_more
        if self._unknown is not None:
            doubtful = self._counts.map(unknown)
            cells[self._unknown] = tuple(label for label in doubtful if label not in (*new, *new_more))
        if self._layout.is_annotation and len(main) == 1 < len(new):
            for label in new:
                yield self._with(fields, cells | {self._column: (label,)})
            return
        yield self._with(fields, cells)

    def _with(self, fields: _Row, cells: dict[int, _Labels]) -> _Row:
        """The row with other labels. Cells whose labels do not change keep their text."""
        new = list(fields)
        for column, labels in cells.items():
            if set(labels) == set(self._split(fields[column])):
                continue
            is_list = bool(fields[column]) and parse_label_list(fields[column]) is not None
            new[column] = repr(list(labels)) if is_list else _joined(labels, self._separator)
        return new


def _joined(labels: _Labels, separator: str | None) -> str:
    if separator is None or len(separator) == 1:
        return join_labels(labels, separator=separator or ",")
    if wrong := [label for label in labels if separator in label]:
        raise DataError(f"the label {wrong[0]!r} contains the separator {separator!r}; choose another name")
    return separator.join(labels)


def _multi_hot(table: Table, layout: Layout, names: _NewNames, counts: _Counts, delimiter: str) -> _Relabelled:
    """The other columns, followed by one of 0, 1 and empty cells for each new label."""
    old = layout.label_columns
    new = counts.map(old.values())
    counts.know(old.values())
    others = [position for position in range(len(table.columns)) if position not in old]
    if not new:
        raise DataError(f"{table.path}: all labels would be dropped; keep at least one")
    if reserved := [label for label in new if not is_label_column(label)]:
        raise DataError(
            f"{table.path}: a column called {abbreviate(reserved)} would not be read as a label; choose another name"
        )
    if both := [label for label in new if label in {table.columns[position] for position in others}]:
        raise DataError(f"{table.path}: there is already a column {both[0]!r} that is not a label; rename it")
    read_labels = multi_hot_reader(table.path, old)

    def rows() -> Iterator[_Row]:
        for line, fields in table.records:
            labels, unknown = read_labels(fields, line)
            true, doubtful = set(counts.map(labels)), set(counts.map(unknown))
            counts.add(labels, true, fields[layout.positions["fname"]])
            fields = names(fields)
            cells = ("1" if label in true else "" if label in doubtful else "0" for label in new)
            yield [*(fields[position] for position in others), *cells]

    return _Relabelled([*(table.columns[position] for position in others), *new], rows(), delimiter)


def _from_rows(rows: Iterable[ManifestRow], finder: FileFinder, counts: _Counts, output: Path | None) -> _Relabelled:
    """A table of clips or of annotated sounds, from what has no such table."""
    rows = list(rows)
    is_annotation = any(row.is_annotation for row in rows)

    def new_rows() -> Iterator[_Row]:
        for row in rows:
            path = None if output is None else finder.find(row.fname, row.source)
            fname = row.fname if path is None or output is None else relative_name(path, row.fname, output.parent)
            new = counts.map(row.labels)
            counts.add(row.labels, new, row.fname)
            if is_annotation:
                times = format_times(row.start_seconds, row.end_seconds)
                start = times[0] or ("0.0" if times[1] else "")
                yield from ([fname, start, times[1], join_labels((label,))] for label in new)
                if not new:
                    yield [fname, start, times[1], ""]
            else:
                yield [fname, join_labels(new), row.fold or "", row.group or ""]

    return _Relabelled(_ANNOTATION_COLUMNS if is_annotation else _CLIP_COLUMNS, new_rows())
