"""labels.csv of a project: the labels of its database as a manifest, for the command line and other programs."""

import hashlib
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING

from spectag.data.clips import Clip
from spectag.data.corrections import join_labels
from spectag.data.manifest import read_manifest
from spectag.data.readers.rows import format_times
from spectag.errors import DataError, DataWarning
from spectag.serving.project.database import ProjectDatabase
from spectag.serving.project.label_clips import ClipState, LabelledClip
from spectag.serving.project.label_rows import FoundClip, change_clip, insert_clip, new_step, write_edit
from spectag.system.output import csv_writer, open_output

if TYPE_CHECKING:
    from spectag.serving.project.labels import ProjectLabels

LABELS_FILE = "labels.csv"
LABEL_FILE_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS label_file (sha256 TEXT NOT NULL, edit INTEGER NOT NULL, clip INTEGER NOT NULL)",
)
"""The table as it was written last: its content, and the last edit and clip in it."""

_SECONDS_TO_WAIT = 1.0  # for more edits
_SHARE_OF_TIME = 10.0  # to wait, relative to how long writing took
_REVIEWER = LABELS_FILE  # who has changed the table is not known
_lock = threading.RLock()  # one thread writes at a time


@dataclass(frozen=True)
class TableChanges:
    """What another program has changed in labels.csv, in numbers of clips."""

    n_changed: int
    n_added: int
    n_dropped: int


class LabelFile:
    """Writes the table soon after an edit, and takes over what other programs have changed in it.

    Parameters
    ----------
    database : ProjectDatabase
    folder : Path
        Of the project.
    labels : ProjectLabels
    """

    def __init__(self, database: ProjectDatabase, folder: Path, labels: "ProjectLabels") -> None:
        self._database, self._folder, self._labels = database, folder, labels
        self.path = folder / LABELS_FILE
        self.problem = ""
        """Why the table is not written now."""
        self._timer: threading.Timer | None = None
        self._seconds = _SECONDS_TO_WAIT
        self._seen: tuple[int, int] | None = None
        if self._is_behind():  # the server was killed
            self.changed()

    def changed(self) -> None:
        """Write the table soon."""
        with _lock:
            if self._timer is None:
                self._timer = threading.Timer(self._seconds, self._write_later)
                self._timer.daemon = True
                self._timer.start()

    def update(self, *, overwrite: bool = False) -> TableChanges | None:
        """Take over what another program has changed, and write what the table lacks.

        Parameters
        ----------
        overwrite : bool
            Write the table also if another program has changed it, and its changes can't be read. They are lost.

        Returns
        -------
        TableChanges or None
            What was taken over.

        Raises
        ------
        DataError
            If the table can't be written.
        """
        with _lock:
            self._stop_timer()
            changes = self._take_over(overwrite=overwrite)
            if self.problem:
                return None
            if changes is not None or overwrite or self._is_behind():
                began = time.monotonic()
                self._write()
                self._seconds = max(_SECONDS_TO_WAIT, _SHARE_OF_TIME * (time.monotonic() - began))
            return changes

    def look(self) -> TableChanges | None:
        """Take over what another program has changed, and write the table soon; what `update` returns."""
        if not _lock.acquire(blocking=False):
            return None  # it is being written
        try:
            problem = self.problem
            changes = self._take_over(overwrite=False)
            if not self.problem and self._is_behind():
                self.problem = problem  # such as a full disk, until the table is written
                self.changed()
        finally:
            _lock.release()
        return changes

    def close(self) -> None:
        """Write what the table lacks, now."""
        with _lock:
            if self._timer is not None:
                self._write_later()

    def _write_later(self) -> None:
        try:
            self.update()
        except DataError as error:  # such as a full disk; the edits are in the database
            self.problem = str(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _written(self) -> tuple[str, int, int]:
        rows = self._database.rows("SELECT * FROM label_file")
        return tuple(rows[0]) if rows else ("", 0, 0)

    def _last(self) -> tuple[int, int]:
        """The last edit and clip of the database."""
        [row] = self._database.rows(
            "SELECT (SELECT ifnull(max(number), 0) FROM label_edit) AS edit, ifnull(max(number), 0) AS clip FROM clip"
        )
        return row["edit"], row["clip"]

    def _is_behind(self) -> bool:
        digest, *last = self._written()
        return tuple(last) != self._last() or (digest != "" and not self.path.exists())

    def _write(self) -> None:
        last = self._last()
        clips = self._labels.training_clips()
        with open_output(self.path) as out:
            write_row = csv_writer(out)
            for row in table_rows(clips, self._folder):
                write_row(row)
        self._store(last)

    def _store(self, last: tuple[int, int]) -> None:
        digest = self._digest()
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM label_file")
            connection.execute("INSERT INTO label_file VALUES (?, ?, ?)", (digest, *last))

    def _digest(self) -> str:
        """The SHA-256 of the table; empty if it does not exist."""
        try:
            status = self.path.stat()
            digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        except FileNotFoundError:
            self._seen = None
            return ""
        except OSError as error:
            raise DataError(f"{self.path}: can't be read: {error.strerror or error}") from error
        self._seen = status.st_mtime_ns, status.st_size
        return digest

    def _is_as_seen(self) -> bool:
        try:
            status = self.path.stat()
        except OSError:
            return False
        return self._seen == (status.st_mtime_ns, status.st_size)

    def _take_over(self, *, overwrite: bool) -> TableChanges | None:
        """The changes of another program, which are in the database now; None if there are none."""
        if overwrite or (self._is_as_seen() and not self.problem):
            self.problem = ""
            return None
        digest, edit, clip = self._written()
        found = self._digest()
        self.problem = ""
        if found in ("", digest):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)
                manifest = read_manifest(self.path)
            _check_sounds(manifest.clips)
        except DataError as error:
            self._seen = None
            self.problem = f"another program has changed {LABELS_FILE} so that it can't be read: {error}"
            return None
        changes = self._merge(manifest.clips, manifest.labels.names, edit, clip)
        return changes if changes != TableChanges(0, 0, 0) else None

    def _merge(self, rows: Sequence[Clip], names: Sequence[str], last_edit: int, last_clip: int) -> TableChanges:
        """Apply what differs from the table as it was written last; later edits of other clips stay."""
        with self._database.transaction() as connection:
            before = _states_before(connection, last_edit)
            clips = [LabelledClip.of_row(row) for row in connection.execute("SELECT * FROM clip")]
            by_key = {(str(one.path), one.start_seconds, one.end_seconds): one for one in clips}
            step = new_step(connection, _REVIEWER, "table")
            connection.executemany("INSERT OR IGNORE INTO known_label VALUES (?)", [(name,) for name in names])
            found: list[FoundClip] = []
            n_changed = n_dropped = 0
            for row in rows:
                key = os.path.realpath(row.path), row.start_seconds, row.end_seconds
                now, state = by_key.pop(key, None), ClipState.of(row)
                if now is None:
                    found.append(FoundClip(key[0], _short_name(row, self._folder), *key[1:], state))
                elif state.in_training != before.get(now.number, now.state).in_training:
                    state = replace(state, comment=now.state.comment, is_confirmed=now.state.is_confirmed)
                    n_changed += change_clip(connection, step, now, state)
            for now in by_key.values():
                was_in_table = now.number <= last_clip and before.get(now.number, now.state).in_training
                if was_in_table:
                    n_dropped += change_clip(connection, step, now, replace(now.state, is_dropped=True))
            for clip in found:
                write_edit(connection, step, insert_clip(connection, clip), None, clip.state, 1)
        return TableChanges(n_changed, len(found), n_dropped)


def _check_sounds(clips: Sequence[Clip]) -> None:
    """Raise a DataError if two clips are the same sound, by a link."""
    names: dict[tuple[str, float, float | None], str] = {}
    for clip in clips:
        key = os.path.realpath(clip.path), clip.start_seconds, clip.end_seconds
        if names.setdefault(key, clip.fname) != clip.fname:
            raise DataError(f"{names[key]} and {clip.fname} are the same sound, {key[0]}; keep one of these lines")


def _states_before(connection: Connection, last_edit: int) -> dict[int, ClipState]:
    """The states of the clips that were edited after an edit, as they were then; by number."""
    rows = connection.execute(
        """SELECT clip, before FROM label_edit WHERE number IN
            (SELECT min(number) FROM label_edit WHERE number > ? GROUP BY clip)""",
        (last_edit,),
    )
    unlabelled = ClipState(is_labelled=False)
    return {row["clip"]: ClipState.of_json(row["before"]) if row["before"] else unlabelled for row in rows}


def _short_name(clip: Clip, folder: Path) -> str:
    path = Path(os.path.realpath(clip.path))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def table_rows(clips: Sequence[LabelledClip], folder: Path) -> Iterator[list[str]]:
    """The header and the rows of the manifest of clips. Columns that no clip uses are left out.

    Parameters
    ----------
    clips : sequence of LabelledClip
    folder : Path
        Of the table: names of files below it are relative to it, others are absolute.
    """
    cells = [_cells(clip, folder) for clip in clips]
    names = ["fname", "labels"]
    names += [
        name for name in ("start", "end", "unknown", "weight", "fold", "group") if any(row[name] for row in cells)
    ]
    yield names
    for row in cells:
        yield [row[name] for name in names]


def _cells(clip: LabelledClip, folder: Path) -> dict[str, str]:
    path, state = clip.path, clip.state
    fname = path.relative_to(folder) if path.is_relative_to(folder) else path
    start, end = format_times(clip.start_seconds, clip.end_seconds)
    return {
        "fname": fname.as_posix(),
        "labels": join_labels(state.labels),
        "start": start,
        "end": end,
        "unknown": join_labels(state.unknown),
        "weight": "" if state.weight == 1 else repr(state.weight),
        "fold": state.fold or "",
        "group": state.recording_group or "",
    }
