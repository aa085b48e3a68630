"""Search filters: SQL queries for the windows of an index by date, label and file."""

from datetime import datetime
from typing import Any, NamedTuple

from spectag.curation.sound_index.recording_dates import to_seconds

FILES_TABLE, ROWS_TABLE = "filter_files", "filter_rows"
"""Temporary tables with one column, `number`: the wanted files, and the rows that a query is limited to."""

_FROM_ALL = "file JOIN span ON span.file = file.number"
_FROM_LABELS = (
    "detection JOIN span ON span.file = detection.file AND span.position = detection.position "
    "JOIN file ON file.number = detection.file"
)
_FROM_ROWS = (
    f"{ROWS_TABLE} CROSS JOIN file ON file.number = "  # nosec B608 - a constant; CROSS forces this join order
    f"(SELECT number FROM file WHERE first_row <= {ROWS_TABLE}.number ORDER BY first_row DESC LIMIT 1) "
    f"CROSS JOIN span ON span.file = file.number AND span.position = {ROWS_TABLE}.number - file.first_row"
)


class SearchFilter(NamedTuple):
    """Conditions on windows. Labels and files are given by their numbers."""

    after: datetime | None = None
    before: datetime | None = None
    labels: tuple[int, ...] = ()
    not_labels: tuple[int, ...] = ()
    files: tuple[int, ...] | None = None


def build_query(search_filter: SearchFilter, *, among_rows: bool) -> tuple[str, list[Any]]:
    """SQL query, and its parameters, for the rows that pass a filter: all rows, or those in the table ROWS_TABLE.

    Without ROWS_TABLE, a filter by label uses the database index of labels.
    """
    by_label = bool(search_filter.labels) and not among_rows
    terms = ["file.first_row IS NOT NULL"]
    values: list[Any] = []
    if by_label:
        terms.append(f"detection.label IN ({_placeholders(search_filter.labels)})")
        values.extend(search_filter.labels)
    detected = "(SELECT 1 FROM detection AS other WHERE other.file = span.file AND other.position = span.position"
    other_labels = () if by_label else search_filter.labels
    for operator, labels in (("EXISTS", other_labels), ("NOT EXISTS", search_filter.not_labels)):
        if labels:
            terms.append(f"{operator} {detected} AND other.label IN ({_placeholders(labels)}))")
            values.extend(labels)
    if search_filter.after is not None:
        terms.append("file.recorded + span.starts >= ?")
        terms.append("file.recorded >= ? - (SELECT max(seconds) FROM file)")  # lets SQLite use its index of dates
        values.extend([to_seconds(search_filter.after)] * 2)
    if search_filter.before is not None:
        terms.append("file.recorded + span.starts < ?")
        terms.append("file.recorded < ?")
        values.extend([to_seconds(search_filter.before)] * 2)
    if search_filter.files is not None:
        terms.append(f"file.number IN {FILES_TABLE}")
    tables = _FROM_ROWS if among_rows else _FROM_LABELS if by_label else _FROM_ALL
    rows = f"{'DISTINCT ' if by_label else ''}file.first_row + span.position"
    return f"SELECT {rows} FROM {tables} WHERE {' AND '.join(terms)}", values  # nosec B608 - constants and placeholders


def _placeholders(values: tuple[int, ...]) -> str:
    return ",".join("?" * len(values))
