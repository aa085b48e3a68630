"""The journal of a run over many files: what is done stays done, however the run ends.

It is an SQLite database, which keeps every whole transaction through a kill or a power cut. It holds the probabilities
of all labels, so that a run may go on with other formats and thresholds than it began with.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectag.errors import DataError
from spectag.tag import TaggedFile
from spectag.timeline import Timeline

_SECONDS_BETWEEN_COMMITS = 1.0
_SECONDS_TO_WAIT = 0.5  # for another process that holds the journal
_PIECE = 10_000  # windows in a row: SQLite takes a gigabyte at most
_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS file (name BLOB PRIMARY KEY, mark TEXT NOT NULL, reason TEXT, seconds REAL);
CREATE TABLE IF NOT EXISTS windows (
    name BLOB, piece INTEGER, times BLOB NOT NULL, probabilities BLOB NOT NULL, PRIMARY KEY (name, piece)
);
"""


class Outcome(NamedTuple):
    """How it went with a file."""

    file: str
    reason: str | None
    """Why it was skipped; None where it was tagged."""
    seconds: float | None
    """Length of the recording; None of an image, and where it was skipped."""


class Journal:
    """What a run has done so far.

    Parameters
    ----------
    database : sqlite3.Connection
    key : str
        Of tagger and windows: what was done with others is forgotten.
    """

    def __init__(self, database: sqlite3.Connection, key: str) -> None:
        self._database = database
        self._database.executescript(_SCHEMA)
        if self._database.execute("SELECT key FROM run").fetchall() != [(key,)]:
            for table in ("run", "file", "windows"):
                self._database.execute(f"DELETE FROM {table}")
            self._database.execute("INSERT INTO run VALUES (?)", (key,))
        self._database.commit()
        self._committed_at = time.monotonic()

    def done(self) -> dict[str, str]:
        """The mark, of its content, of each file that is done."""
        return {os.fsdecode(name): mark for name, mark in self._database.execute("SELECT name, mark FROM file")}

    def add(self, tagged: TaggedFile, mark: str) -> None:
        """Note a file as done, for good within about a second."""
        name = os.fsencode(tagged.file)
        self._database.execute(
            "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", (name, mark, tagged.reason, tagged.duration_seconds)
        )
        self._database.execute("DELETE FROM windows WHERE name = ?", (name,))
        if tagged.timeline is not None:
            self._database.executemany("INSERT INTO windows VALUES (?, ?, ?, ?)", _pieces(name, tagged.timeline))
        if time.monotonic() - self._committed_at > _SECONDS_BETWEEN_COMMITS:
            self.commit()

    def commit(self) -> None:
        """Make all that was added lasting."""
        self._database.commit()
        self._committed_at = time.monotonic()

    def outcomes(self, files: Iterable[str]) -> Iterator[Outcome]:
        """Whether each of files that are done was tagged, and why not."""
        for file in files:
            query = "SELECT reason, seconds FROM file WHERE name = ?"
            yield Outcome(file, *self._database.execute(query, (os.fsencode(file),)).fetchone())

    def tagged(self, files: Iterable[str]) -> Iterator[TaggedFile]:
        """What is noted of files that are done."""
        for file, reason, _ in self.outcomes(files):
            yield TaggedFile(file, None if reason is not None else self._timeline(os.fsencode(file)), reason)

    def _timeline(self, name: bytes) -> Timeline:
        query = "SELECT times, probabilities FROM windows WHERE name = ? ORDER BY piece"
        times, probabilities = bytearray(), bytearray()
        for of_piece in self._database.execute(query, (name,)):
            times += of_piece[0]
            probabilities += of_piece[1]
        starts, ends = np.frombuffer(times, np.float64).reshape(-1, 2).T
        return Timeline(starts, ends, np.frombuffer(probabilities, np.float32).reshape(len(starts), -1))


def _pieces(name: bytes, timeline: Timeline) -> Iterator[tuple[bytes, int, bytes, bytes]]:
    for number, start in enumerate(range(0, len(timeline.starts), _PIECE)):
        part = slice(start, start + _PIECE)
        times = np.stack([timeline.starts[part], timeline.ends[part]], axis=1)
        yield name, number, times.tobytes(), timeline.probabilities[part].tobytes()


@contextmanager
def open_journal(path: Path, *, key: str) -> Iterator[Journal]:
    """The journal in a file, which is made where there is none.

    Raises
    ------
    DataError
        If it can't be read or written, as on a full disk; what is done so far is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)) as database:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            journal = Journal(database, key)
            try:
                yield journal
            finally:
                journal.commit()
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise DataError(
                f"{path}: another run is at work on this output; wait for it, or give another -o"
            ) from error
        if isinstance(error, sqlite3.OperationalError):
            raise DataError(
                f"{path}: the journal can't be kept: {error}; make room and give the same command again"
            ) from error
        raise DataError(
            f"{path}: the journal can't be read: {error}; delete it, and the same command begins anew"
        ) from error
