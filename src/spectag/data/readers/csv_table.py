"""CSV manifests: one field with all labels, or one column of 0 and 1 per label."""

import csv
from collections.abc import Callable
from pathlib import Path

from spectag.data.labels import split_labels
from spectag.data.readers.delimited_text import Table, first_lines, open_table, parse_seconds, some_of
from spectag.data.readers.rows import Row
from spectag.errors import DataError, did_you_mean

# What each column is called: first by us, then in the published data sets (the first that is there counts).
COLUMNS = {
    "fname": ("fname", "filename", "file_name", "file", "path", "image"),
    "labels": ("labels", "label", "category"),  # FSD50K and FSDKaggle2019; FSDKaggle2018; ESC-50
    "fold": ("fold", "split", "usage"),  # ESC-50; FSD50K; FSDKaggle2019's test set
    "group": ("group", "src_file", "freesound_id", "flickr_video_URL"),  # ESC-50; FSDKaggle2019
    "start": ("start", "start_seconds"),
    "end": ("end", "end_seconds"),
}
COLUMN_NAMES = frozenset(name.lower() for called in COLUMNS.values() for name in called)
_BITS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def read_csv(path: Path, text: str, group_column: str | None) -> tuple[list[Row], tuple[str, ...] | None]:
    """The rows of a CSV and, where it is multi-hot, its labels in the order of the columns."""
    table = open_table(path, text, delimiter_of(text))
    columns = _known_columns(table, group_column)
    if "labels" in columns:
        return _read_rows(table, columns, _labels_in(table, columns["labels"])), None
    names = {position: name for position, name in enumerate(table.columns) if name and position not in columns.values()}
    if not names:
        raise DataError(
            f"{path}: no labels; expected a column labels, or a column of 0 and 1 for each label. "
            f"The columns are {some_of(list(table.columns))}"
        )
    return _read_rows(table, columns, lambda fields, where: _hot_labels(fields, names, where)), tuple(names.values())


def _labels_in(table: Table, place: int) -> Callable[[list[str], str], tuple[str, ...]]:
    """What reads the labels of a row; one that `spectag suggest` wrote and nobody has filled in is refused."""
    suggested = table.position("suggested") if table.position("why") is not None else None

    def labels_of(fields: list[str], where: str) -> tuple[str, ...]:
        labels = split_labels(fields[place])
        if not labels and suggested is not None and fields[suggested]:
            raise DataError(
                f"{where}: not labelled yet; fill in labels, or delete the line. If none of your labels is heard, "
                "empty the column suggested, too"
            )
        return labels

    return labels_of


def further_columns(path: Path, text: str) -> dict[str, dict[int, str]]:
    """The columns of a CSV that mean nothing to us, by name: each field by its line."""
    table = open_table(path, text, delimiter_of(text))
    if table.position(*COLUMNS["labels"]) is None:  # multi-hot: all columns that we do not know are labels
        return {}
    known = _known_columns(table, None).values()
    names = {place: name for place, name in enumerate(table.columns) if name and place not in known}
    columns: dict[str, dict[int, str]] = {name: {} for name in names.values()}
    for line, fields in table.records:
        for place, name in names.items():
            columns[name][line] = fields[place]
    return columns


def delimiter_of(text: str) -> str:
    """Comma, semicolon or tab: the one that makes a column of file names appear in the header."""
    header = first_lines(text, 1)
    for delimiter in ",;\t":
        names = next(csv.reader(header, delimiter=delimiter, skipinitialspace=True), [])
        if any(name.strip().lower() in COLUMNS["fname"] for name in names):
            return delimiter
    return ","


def _known_columns(table: Table, group_column: str | None) -> dict[str, int]:
    positions = {name: table.position(*called) for name, called in COLUMNS.items()}
    if group_column is not None:
        positions["group"] = group_position(table, group_column)
    columns = {name: position for name, position in positions.items() if position is not None}
    if "fname" not in columns:
        raise DataError(
            f"{table.path}: no column for the file names; expected fname (or {', '.join(COLUMNS['fname'][1:])}) "
            f"in the first line. The columns are {some_of(list(table.columns))}"
        )
    return columns


def group_position(table: Table, group_column: str) -> int:
    """Where the column is that the user wants for the groups."""
    position = table.position(group_column)
    if position is None:
        raise DataError(
            f"{table.path}: no column {group_column!r} to group by. The columns are "
            f"{some_of(list(table.columns), 12)}{did_you_mean(group_column, table.columns)}"
        )
    return position


def _read_rows(
    table: Table, columns: dict[str, int], labels_of: Callable[[list[str], str], tuple[str, ...]]
) -> list[Row]:
    rows = []
    for line, fields in table.records:
        where = f"{table.path}, line {line}"
        values = {name: fields[position] for name, position in columns.items()}
        start, end = values.get("start"), values.get("end")
        rows.append(
            Row(
                source=table.path,
                line=line,
                fname=values["fname"],
                labels=labels_of(fields, where),
                fold=values.get("fold") or None,
                group=values.get("group") or None,
                start_seconds=parse_seconds(start, "start", where) if start else 0.0,
                end_seconds=parse_seconds(end, "end", where) if end else None,
            )
        )
    return rows


def _hot_labels(fields: list[str], names: dict[int, str], where: str) -> tuple[str, ...]:
    labels = []
    for position, name in names.items():
        bit = _BITS.get(fields[position].lower())
        if bit is None:
            raise DataError(
                f"{where}: the column {name!r} holds {fields[position]!r}; expected 0 or 1 "
                "in each column of a table without a column labels"
            )
        if bit:
            labels.append(name)
    return tuple(labels)
