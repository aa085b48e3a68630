"""The decisions of a checking session: each is on disk before it is confirmed."""

import io
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from spectag.data.checked_detections import DECISION_COLUMNS, CheckedDetection, Decision, read_decisions
from spectag.errors import DataError
from spectag.system.atomic_files import unfinished_file
from spectag.system.output import csv_writer


class ChangedRowError(Exception):
    """The row of a decision has changed since it was seen."""

    def __init__(self, row: CheckedDetection) -> None:
        super().__init__("somebody else has decided about this detection meanwhile")
        self.row = row
        """As it is now."""


class DecisionStore:
    """The rows of a decisions.csv, which several threads change, and the order in which they changed.

    The whole table is written again for each decision: it is either the old or the new one, whenever the process is
    killed. Rows are kept as text, so that this takes milliseconds.

    Parameters
    ----------
    path : Path
        A table that exists.

    Raises
    ------
    DataError
        If the table is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = read_decisions(path)
        self._lines = [_line(row.fields()) for row in self._rows]
        self._changed: list[int] = []
        self._lock = threading.RLock()
        self._file_id = _file_id(path)

    @property
    def rows(self) -> tuple[CheckedDetection, ...]:
        """All rows as they are now."""
        with self._lock:
            return tuple(self._rows)

    @property
    def revision(self) -> int:
        """How many decisions were made, or undone, in this session."""
        return len(self._changed)

    def decide(
        self,
        index: int,
        decision: Decision,
        *,
        other_labels: Sequence[str] = (),
        reviewer: str,
        comment: str = "",
        since: int | None = None,
    ) -> CheckedDetection:
        """Store a decision, or undo it with an empty one, and return the row. The others stay as they are.

        Parameters
        ----------
        index : int
            Of the row.
        decision : str
        other_labels : sequence of str
            Other labels that are heard.
        reviewer, comment : str
        since : int, optional
            The revision that whoever decides has seen. By default it does not matter what others have decided.

        Raises
        ------
        ChangedRowError
            If the row has changed since that revision. Then it stays as it is.
        OSError
            If it can't be written. Then nothing has changed.
        """
        with self._lock:
            if since is not None and index in self._changed[max(since, 0) :]:
                raise ChangedRowError(self._rows[index])
            row = replace(self._rows[index], decision=decision, other_labels=(), reviewer="", time=None, comment="")
            if decision:
                time = datetime.now().astimezone().replace(microsecond=0)
                others = tuple(dict.fromkeys(label for label in other_labels if label != row.label))
                row = replace(row, other_labels=others, reviewer=reviewer, time=time, comment=comment)
            line = _line(row.fields())
            self._write([*self._lines[:index], line, *self._lines[index + 1 :]])
            self._rows[index], self._lines[index] = row, line
            self._changed.append(index)
            return row

    def reload(self) -> None:
        """Take over what other programs have decided in the table; it counts as decided in this session.

        Raises
        ------
        DataError
            If the table is damaged, or has other detections.
        """
        with self._lock:
            file_id = _file_id(self._path)
            if file_id == self._file_id:
                return
            rows = read_decisions(self._path)
            if [row.key for row in rows] != [row.key for row in self._rows]:
                raise DataError(f"{self._path}: has other detections than before; open the check again")
            self._changed += [index for index, row in enumerate(rows) if row != self._rows[index]]
            self._rows, self._lines, self._file_id = rows, [_line(row.fields()) for row in rows], file_id

    def changes_since(self, revision: int) -> tuple[int, dict[int, CheckedDetection]]:
        """The revision now, and the rows that changed after an earlier one, by index."""
        with self._lock:
            return len(self._changed), {index: self._rows[index] for index in self._changed[max(revision, 0) :]}

    def _write(self, lines: Sequence[str]) -> None:
        with unfinished_file(self._path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
            file.write(_line(DECISION_COLUMNS))
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        self._file_id = _file_id(self._path)


def _file_id(path: Path) -> tuple[int, int, int] | None:
    """Differs when the file was written again; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _line(fields: Sequence[str]) -> str:
    out = io.StringIO()
    csv_writer(out)(fields)
    return out.getvalue()
