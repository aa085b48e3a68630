"""The journal of a run over many files: what is done stays done, however the run ends.

It is an SQLite database, which keeps every whole transaction through a kill or a power cut. It holds the probabilities
of all labels, so that a run may go on with other formats and thresholds than it began with.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from spectag.errors import DataError
from spectag.models.timeline import Timeline
from spectag.tagging.parallel import TaggedFile

_SECONDS_BETWEEN_COMMITS = 0.3
_SECONDS_TO_WAIT = 0.5  # for another process that holds the journal
_PIECE = 10_000  # windows in a row: SQLite takes a gigabyte at most
_SCHEMA = """
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
    """What a run has done so far."""

    def __init__(self, database: sqlite3.Connection, *, is_new: bool) -> None:
        self._database = database
        self.is_new = is_new
        """Whether no run has begun it that did not end well."""
        self._database.executescript(_SCHEMA)
        self._committed_at = time.monotonic()
        self.is_needed = True
        """Until the run has ended well: the journal is then removed."""

    def done(self) -> dict[str, str]:
        """The mark, of its content, of each file that was tagged; what was skipped may be there again."""
        rows = self._database.execute("SELECT name, mark FROM file WHERE reason IS NULL")
        return {os.fsdecode(name): mark for name, mark in rows}

    def add(self, tagged: TaggedFile, mark: str) -> None:
        """Note a file as done, for good within a third of a second."""
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
def open_journal(folder: Path, *, key: str) -> Iterator[Journal]:
    """The journal of a run, in a folder that is the run's alone, and is there until the run has ended well.

    Parameters
    ----------
    folder : Path
    key : str
        Of tagger and windows: each has a database of its own.

    Raises
    ------
    DataError
        If it can't be read or written, as on a full disk; what is done so far is kept. If another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key[:16]}.sqlite"
    was_there = path.exists()
    try:
        with FileLock(folder / "lock", timeout=_SECONDS_TO_WAIT), closing(sqlite3.connect(path)) as database:
            journal = Journal(database, is_new=not was_there)
            try:
                yield journal
            finally:
                journal.commit()
            if not journal.is_needed:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise DataError(f"{folder}: another run is at work on this output; wait for it, or give another -o") from error
    except sqlite3.OperationalError as error:
        raise DataError(
            f"{path}: the journal can't be kept: {error}; make room and give the same command again"
        ) from error
    except sqlite3.Error as error:
        raise DataError(
            f"{path}: the journal can't be read: {error}; delete it, and the same command begins anew"
        ) from error
