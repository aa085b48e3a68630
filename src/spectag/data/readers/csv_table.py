"""CSV manifests: one field with all labels, one column of 0 and 1 per label, or one row per annotated sound."""

import csv
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from spectag.data.labels import split_labels
from spectag.data.readers.delimited_text import Table, abbreviate, first_lines, open_table, parse_times
from spectag.data.readers.rows import ManifestRow
from spectag.errors import DataError, did_you_mean

# The names of each column: ours first, then those of published data sets. The first one that a table has is used.
MANIFEST_COLUMNS = {
    "fname": ("fname", "filename", "file_name", "file", "path", "image"),
    "labels": ("labels", "label", "category"),  # FSD50K and FSDKaggle2019; FSDKaggle2018; ESC-50
    "fold": ("fold", "split", "usage"),  # ESC-50; FSD50K; FSDKaggle2019's test set
    "group": ("group", "src_file", "freesound_id", "flickr_video_URL"),  # ESC-50; FSDKaggle2019
    "start": ("start", "start_seconds", "start_time"),  # the last one: OpenSoundscape
    "end": ("end", "end_seconds", "end_time"),
    "weight": ("weight",),
}
UNKNOWN_COLUMN = "unknown"
"""Lists the unknown labels in a table with a column of labels."""
_ANNOTATION_COLUMNS = {  # of tables with a row for each sound in a recording
    "fname": ("audio_file",),  # OpenSoundscape
    "labels": ("event_label", "annotation"),  # DCASE; OpenSoundscape
    "start": ("onset",),  # DCASE
    "end": ("offset",),
}
MANIFEST_COLUMN_NAMES = frozenset(
    name.lower() for names in (*MANIFEST_COLUMNS.values(), _ANNOTATION_COLUMNS["labels"]) for name in names
)
MAX_WEIGHT = 100.0
_TRUTH_VALUES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_UNKNOWN_VALUES = frozenset({"", "?", "nan", "-1", "-1.0"})

LabelReader = Callable[[list[str], str], tuple[tuple[str, ...], tuple[str, ...]]]
"""Reads the true and the unknown labels from the fields of a row; the second argument is its location, for errors."""


def read_csv(path: Path, text: str, group_column: str | None) -> tuple[list[ManifestRow], tuple[str, ...] | None]:
    """The rows of a CSV and, if it is multi-hot, its labels in the order of the columns."""
    table = open_table(path, text, find_delimiter(text))
    columns = _find_columns(table, group_column)
    if "labels" in columns:
        return _read_rows(table, columns, _label_reader(table, columns)), None
    names = {position: name for position, name in enumerate(table.columns) if name and position not in columns.values()}
    if not names:
        raise DataError(
            f"{path}: no labels; expected a column labels, or a column of 0 and 1 for each label. "
            f"The columns are {abbreviate(list(table.columns))}"
        )
    rows = _read_rows(table, columns, partial(_read_multi_hot, names))
    _check_absent_labels(path, rows, n_labels=len(names))
    return rows, tuple(names.values())


def _check_absent_labels(path: Path, rows: list[ManifestRow], *, n_labels: int) -> None:
    """Raise a DataError if a multi-hot table has empty cells but no 0: then they mean 0."""
    n_unknown = sum(len(row.unknown) for row in rows)
    if n_unknown and n_unknown + sum(len(row.labels) for row in rows) == n_labels * len(rows):
        raise DataError(
            f"{path}: {n_unknown} cells are empty, and none is 0. An empty cell means that nobody knows whether the "
            "label is true; write 0 where it is not"
        )


def _label_reader(table: Table, columns: dict[str, int]) -> LabelReader:
    """Reads the columns of labels. It refuses rows of `spectag suggest` that have not been labelled yet."""
    suggested_column = table.position("suggested") if table.position("why") is not None else None

    def read_labels(fields: list[str], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        labels = split_labels(fields[columns["labels"]])
        if not labels and suggested_column is not None and fields[suggested_column]:
            raise DataError(
                f"{where}: not labelled yet; fill in labels, or delete the line. If the clip contains none of your "
                "labels, delete the text in the column suggested"
            )
        return labels, split_labels(fields[columns["unknown"]]) if "unknown" in columns else ()

    return read_labels


def extra_columns(path: Path, text: str) -> dict[str, dict[int, str]]:
    """The columns of a CSV that spectag does not use, by name; each as the field by line number."""
    table = open_table(path, text, find_delimiter(text))
    if table.position(*MANIFEST_COLUMNS["labels"]) is None:  # multi-hot: every other column is a label
        return {}
    used = _find_columns(table, None).values()
    names = {position: name for position, name in enumerate(table.columns) if name and position not in used}
    columns: dict[str, dict[int, str]] = {name: {} for name in names.values()}
    for line, fields in table.records:
        for position, name in names.items():
            columns[name][line] = fields[position]
    return columns


def find_delimiter(text: str) -> str:
    """Comma, semicolon or tab: the delimiter with which the header has a column of file names."""
    header, file_columns = first_lines(text, 1), (*MANIFEST_COLUMNS["fname"], *_ANNOTATION_COLUMNS["fname"])
    for delimiter in ",;\t":
        names = next(csv.reader(header, delimiter=delimiter, skipinitialspace=True), [])
        if any(name.strip().lower() in file_columns for name in names):
            return delimiter
    return ","


def _find_columns(table: Table, group_column: str | None) -> dict[str, int]:
    """Positions of the columns with a meaning, by their names in `MANIFEST_COLUMNS`."""
    positions = {name: table.position(*aliases) for name, aliases in MANIFEST_COLUMNS.items()}
    if has_annotations(table):
        for name, aliases in _ANNOTATION_COLUMNS.items():
            positions[name] = table.position(*aliases, *MANIFEST_COLUMNS[name])
    if positions["labels"] is not None:
        positions["unknown"] = table.position(UNKNOWN_COLUMN)
    if group_column is not None:
        positions["group"] = group_position(table, group_column)
    columns = {name: position for name, position in positions.items() if position is not None}
    if "fname" not in columns:
        raise DataError(
            f"{table.path}: no column with file names; expected fname (or {', '.join(MANIFEST_COLUMNS['fname'][1:])}) "
            f"in the first line. The columns are {abbreviate(list(table.columns))}"
        )
    return columns


def has_annotations(table: Table) -> bool:
    """Whether a table has a row for each sound in a recording, instead of a row for each clip."""
    has_labels = table.position(*MANIFEST_COLUMNS["labels"]) is not None
    return not has_labels and table.position(*_ANNOTATION_COLUMNS["labels"]) is not None


def group_position(table: Table, group_column: str) -> int:
    """Position of the column that the user chose for the groups."""
    position = table.position(group_column)
    if position is None:
        raise DataError(
            f"{table.path}: no column {group_column!r} for groups. The columns are "
            f"{abbreviate(list(table.columns), 12)}{did_you_mean(group_column, table.columns)}"
        )
    return position


def _read_rows(table: Table, columns: dict[str, int], read_labels: LabelReader) -> list[ManifestRow]:
    rows, is_annotation = [], has_annotations(table)
    for line, fields in table.records:
        where = f"{table.path}, line {line}"
        values = {name: fields[position] for name, position in columns.items()}
        labels, unknown = read_labels(fields, where)
        fold, group = values.get("fold") or None, values.get("group") or None
        row = ManifestRow(
            table.path,
            line,
            values["fname"],
            labels,
            fold,
            group,
            *parse_times(values, where),
            unknown,
            _parse_weight(values.get("weight", ""), where),
            is_annotation,
        )
        rows.append(row)
    return rows


def _parse_weight(field: str, where: str) -> float:
    """A weight from 0 to MAX_WEIGHT, with a decimal point or a decimal comma; 1 for an empty field."""
    if not field:
        return 1.0
    with suppress(ValueError):
        weight = float(field.replace(",", "."))
        if 0 <= weight <= MAX_WEIGHT:
            return weight
    raise DataError(
        f"{where}: weight is {field!r}; expected how much the clip counts in training, from 0 (not at all) to "
        f"{MAX_WEIGHT:g}, or nothing for 1"
    )


def _read_multi_hot(names: dict[int, str], fields: list[str], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    labels, unknown = [], []
    for position, name in names.items():
        value = fields[position].lower()
        if value in _UNKNOWN_VALUES:
            unknown.append(name)
        elif value not in _TRUTH_VALUES:
            raise DataError(
                f"{where}: the column {name!r} contains {fields[position]!r}; expected 0 or 1, or nothing if it is "
                "unknown, in every column of a table without a column labels"
            )
        elif _TRUTH_VALUES[value]:
            labels.append(name)
    return tuple(labels), tuple(unknown)
