"""CSV manifests: one field with all labels, or one column of 0 and 1 per label."""

import csv
from collections.abc import Callable
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
}
MANIFEST_COLUMN_NAMES = frozenset(name.lower() for names in MANIFEST_COLUMNS.values() for name in names)
_TRUTH_VALUES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}

LabelReader = Callable[[list[str], str], tuple[str, ...]]
"""Reads the labels from the fields of a row; the second argument is its location, for error messages."""


def read_csv(path: Path, text: str, group_column: str | None) -> tuple[list[ManifestRow], tuple[str, ...] | None]:
    """The rows of a CSV and, if it is multi-hot, its labels in the order of the columns."""
    table = open_table(path, text, find_delimiter(text))
    columns = _find_columns(table, group_column)
    if "labels" in columns:
        return _read_rows(table, columns, _label_reader(table, columns["labels"])), None
    names = {position: name for position, name in enumerate(table.columns) if name and position not in columns.values()}
    if not names:
        raise DataError(
            f"{path}: no labels; expected a column labels, or a column of 0 and 1 for each label. "
            f"The columns are {abbreviate(list(table.columns))}"
        )
    return _read_rows(table, columns, partial(_read_multi_hot, names)), tuple(names.values())


def _label_reader(table: Table, labels_column: int) -> LabelReader:
    """Reads the column of labels. It refuses rows of `spectag suggest` that have not been labelled yet."""
    suggested_column = table.position("suggested") if table.position("why") is not None else None

    def read_labels(fields: list[str], where: str) -> tuple[str, ...]:
        labels = split_labels(fields[labels_column])
        if not labels and suggested_column is not None and fields[suggested_column]:
            raise DataError(
                f"{where}: not labelled yet; fill in labels, or delete the line. If the clip contains none of your "
                "labels, delete the text in the column suggested"
            )
        return labels

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
    header = first_lines(text, 1)
    for delimiter in ",;\t":
        names = next(csv.reader(header, delimiter=delimiter, skipinitialspace=True), [])
        if any(name.strip().lower() in MANIFEST_COLUMNS["fname"] for name in names):
            return delimiter
    return ","


def _find_columns(table: Table, group_column: str | None) -> dict[str, int]:
    """Positions of the columns with a meaning, by their names in `MANIFEST_COLUMNS`."""
    positions = {name: table.position(*aliases) for name, aliases in MANIFEST_COLUMNS.items()}
    if group_column is not None:
        positions["group"] = group_position(table, group_column)
    columns = {name: position for name, position in positions.items() if position is not None}
    if "fname" not in columns:
        raise DataError(
            f"{table.path}: no column with file names; expected fname (or {', '.join(MANIFEST_COLUMNS['fname'][1:])}) "
            f"in the first line. The columns are {abbreviate(list(table.columns))}"
        )
    return columns


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
    rows = []
    for line, fields in table.records:
        where = f"{table.path}, line {line}"
        values = {name: fields[position] for name, position in columns.items()}
        times = parse_times(values, where)
        fold, group = values.get("fold") or None, values.get("group") or None
        rows.append(ManifestRow(table.path, line, values["fname"], read_labels(fields, where), fold, group, *times))
    return rows


def _read_multi_hot(names: dict[int, str], fields: list[str], where: str) -> tuple[str, ...]:
    labels = []
    for position, name in names.items():
        is_true = _TRUTH_VALUES.get(fields[position].lower())
        if is_true is None:
            raise DataError(
                f"{where}: the column {name!r} contains {fields[position]!r}; expected 0 or 1 "
                "in every column of a table without a column labels"
            )
        if is_true:
            labels.append(name)
    return tuple(labels)
