"""The journal of a run over many files: what is tagged stays tagged, however the run ends.

It is an SQLite database, whose committed transactions survive a kill or a power cut. It holds the probabilities of all
labels and the novelty, so that a resumed run may write other formats and use other thresholds.
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
_LOCK_SECONDS = 0.5  # to wait for another process that holds the journal
_BATCH_WINDOWS = 10_000  # in a row of the database: SQLite stores a gigabyte in a row at most
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tagged_file (name BLOB PRIMARY KEY, fingerprint TEXT NOT NULL, reason TEXT, seconds REAL,
    is_truncated INTEGER NOT NULL, expected_seconds REAL, notes TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS window_batch (
    name BLOB, batch INTEGER, times BLOB NOT NULL, probabilities BLOB NOT NULL, novelty BLOB,
    PRIMARY KEY (name, batch)
);
"""


class FileStatus(NamedTuple):
    """Whether a file was tagged."""

    file: str
    reason: str | None
    """Why it was skipped; None if it was tagged."""
    seconds: float | None
    """Length of the recording, or of the part that could be read; None for an image or a skipped file."""
    is_truncated: bool
    """Whether only a part could be read."""
    expected_seconds: float | None
    """Length of a truncated recording according to its header; None if it is not known."""
    notes: str
    """Faults of the sound, separated by semicolons."""

    @property
    def status(self) -> str:
        """done, truncated or skipped."""
        if self.reason is not None:
            return "skipped"
        return "truncated" if self.is_truncated else "done"


class Journal:
    """The files that a run has tagged so far."""

    def __init__(self, database: sqlite3.Connection, *, is_new: bool) -> None:
        self._database = database
        self.is_new = is_new
        """False if an earlier run with this journal did not complete."""
        self._database.executescript(_SCHEMA)
        self._committed_at = time.monotonic()
        self.is_complete = False
        """Set when the run is complete: the journal is then removed."""

    def fingerprints(self) -> dict[str, str]:
        """The content fingerprint of each tagged file. Skipped files are left out, so that they are tried again."""
        rows = self._database.execute("SELECT name, fingerprint FROM tagged_file WHERE reason IS NULL")
        return {os.fsdecode(name): fingerprint for name, fingerprint in rows}

    def add(self, tagged: TaggedFile, fingerprint: str) -> None:
        """Store the result for a file; it is committed within a third of a second."""
        name = os.fsencode(tagged.file)
        faults = tagged.faults
        status = name, fingerprint, tagged.reason, tagged.duration_seconds
        found = faults.is_truncated, faults.expected_seconds, "; ".join(faults.descriptions())
        self._database.execute("INSERT OR REPLACE INTO tagged_file VALUES (?, ?, ?, ?, ?, ?, ?)", (*status, *found))
        self._database.execute("DELETE FROM window_batch WHERE name = ?", (name,))
        if tagged.timeline is not None:
            self._database.executemany(
                "INSERT INTO window_batch VALUES (?, ?, ?, ?, ?)", _batches(name, tagged.timeline)
            )
        if time.monotonic() - self._committed_at > _SECONDS_BETWEEN_COMMITS:
            self.commit()

    def commit(self) -> None:
        """Write everything added so far to the disk."""
        self._database.commit()
        self._committed_at = time.monotonic()

    def statuses(self, files: Iterable[str]) -> Iterator[FileStatus]:
        """The status of each file, all of which have been added."""
        for file in files:
            query = "SELECT reason, seconds, is_truncated, expected_seconds, notes FROM tagged_file WHERE name = ?"
            yield FileStatus(file, *self._database.execute(query, (os.fsencode(file),)).fetchone())

    def tagged(self, files: Iterable[str]) -> Iterator[TaggedFile]:
        """The result for each file, all of which have been added."""
        for status in self.statuses(files):
            timeline = self._timeline(os.fsencode(status.file)) if status.reason is None else None
            yield TaggedFile(status.file, timeline, status.reason)

    def _timeline(self, name: bytes) -> Timeline:
        query = "SELECT times, probabilities, novelty FROM window_batch WHERE name = ? ORDER BY batch"
        times, probabilities, novelty = bytearray(), bytearray(), bytearray()
        for batch_times, batch_probabilities, batch_novelty in self._database.execute(query, (name,)):
            times += batch_times
            probabilities += batch_probabilities
            novelty += batch_novelty or b""
        starts, ends = np.frombuffer(times, np.float64).reshape(-1, 2).T
        return Timeline(
            starts,
            ends,
            np.frombuffer(probabilities, np.float32).reshape(len(starts), -1),
            np.frombuffer(novelty, np.float32) if novelty else None,
        )


def _batches(name: bytes, timeline: Timeline) -> Iterator[tuple[bytes, int, bytes, bytes, bytes | None]]:
    for number, begin in enumerate(range(0, len(timeline.starts), _BATCH_WINDOWS)):
        rows = slice(begin, begin + _BATCH_WINDOWS)
        times = np.stack([timeline.starts[rows], timeline.ends[rows]], axis=1)
        novelty = None if timeline.novelty is None else timeline.novelty[rows].tobytes()
        yield name, number, times.tobytes(), timeline.probabilities[rows].tobytes(), novelty


@contextmanager
def open_journal(folder: Path, *, key: str) -> Iterator[Journal]:
    """Open the journal of a run, in a folder of its own that is removed when the run is complete.

    Parameters
    ----------
    folder : Path
    key : str
        Hash of the model and the windows, in hexadecimal: each combination has a database of its own.

    Raises
    ------
    DataError
        If the journal cannot be read or written, for example because the disk is full: what is committed is kept. Also
        if another run uses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key[:16]}.sqlite"
    is_new = not path.exists()
    try:
        with FileLock(folder / "lock", timeout=_LOCK_SECONDS), closing(sqlite3.connect(path)) as database:
            journal = Journal(database, is_new=is_new)
            try:
                yield journal
            finally:
                journal.commit()
            if journal.is_complete:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise DataError(f"{folder}: another run writes to this output; wait for it, or give another -o") from error
    except sqlite3.OperationalError as error:
        raise DataError(f"{path}: the journal cannot be written: {error}; free some space and run again") from error
    except sqlite3.Error as error:
        raise DataError(f"{path}: the journal cannot be read: {error}; delete it to start over") from error
