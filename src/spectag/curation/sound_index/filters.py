"""Which windows of an index are sought: by date, label and file."""

from datetime import datetime
from typing import Any, NamedTuple

from spectag.curation.sound_index.recording_dates import to_seconds

CHOSEN, SOUGHT = "chosen", "sought"
"""Tables of one column, `number`: of the files that are wanted, and of the rows that are asked about."""

_OF_ALL = "file JOIN stretch ON stretch.file = file.number"
_OF_LABELS = (
    "heard JOIN stretch ON stretch.file = heard.file AND stretch.place = heard.place "
    "JOIN file ON file.number = heard.file"
)
_OF_SOUGHT = (
    f"{SOUGHT} CROSS JOIN file ON file.number = "  # CROSS: in this order
    f"(SELECT number FROM file WHERE first_row <= {SOUGHT}.number ORDER BY first_row DESC LIMIT 1) "
    f"CROSS JOIN stretch ON stretch.file = file.number AND stretch.place = {SOUGHT}.number - file.first_row"
)


class Condition(NamedTuple):
    """What windows are sought; labels and files by their numbers."""

    after: datetime | None = None
    before: datetime | None = None
    labels: tuple[int, ...] = ()
    not_labels: tuple[int, ...] = ()
    files: tuple[int, ...] | None = None


def query_of(condition: Condition, *, of_sought: bool) -> tuple[str, list[Any]]:
    """SQL for the rows that fulfil a condition, each once, and its values: of all, or of those in the table SOUGHT.

    Of all rows, those of a label are found by its index; of some, each is looked at by itself.
    """
    starts_from_label = bool(condition.labels) and not of_sought
    terms = ["file.first_row IS NOT NULL"]
    values: list[Any] = []
    if starts_from_label:
        terms.append(f"heard.label IN ({_marks(condition.labels)})")
        values.extend(condition.labels)
    for word, labels in (
        ("EXISTS", () if starts_from_label else condition.labels),
        ("NOT EXISTS", condition.not_labels),
    ):
        if labels:
            same = "other.file = stretch.file AND other.place = stretch.place"
            terms.append(f"{word} (SELECT 1 FROM heard AS other WHERE other.label IN ({_marks(labels)}) AND {same})")
            values.extend(labels)
    if condition.after is not None:
        terms.append("file.recorded + stretch.starts >= ?")
        terms.append("file.recorded >= ? - (SELECT max(seconds) FROM file)")  # so that the index of dates can be used
        values.extend([to_seconds(condition.after)] * 2)
    if condition.before is not None:
        terms.append("file.recorded + stretch.starts < ?")
        terms.append("file.recorded < ?")
        values.extend([to_seconds(condition.before)] * 2)
    if condition.files is not None:
        terms.append(f"file.number IN {CHOSEN}")
    tables = _OF_SOUGHT if of_sought else _OF_LABELS if starts_from_label else _OF_ALL
    rows = f"{'DISTINCT ' if starts_from_label else ''}file.first_row + stretch.place"
    return f"SELECT {rows} FROM {tables} WHERE {' AND '.join(terms)}", values


def _marks(values: tuple[int, ...]) -> str:
    return ",".join("?" * len(values))
