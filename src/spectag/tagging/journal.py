"""The journal of a run over many files: what is tagged stays tagged, however the run ends.

It is an SQLite database, whose committed transactions survive a kill or a power cut. It holds the probabilities of all
labels and the novelty, so that a resumed run may write other formats and use other thresholds.
"""

import os
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from spectag.errors import DataError
from spectag.models.frames_info import FramesInfo
from spectag.models.timeline import Timeline
from spectag.tagging.parallel import TaggedFile

_SECONDS_BETWEEN_COMMITS = 0.3
_LOCK_SECONDS = 0.5  # to wait for another process that holds the journal
_BATCH_WINDOWS = 10_000  # in a row of the database: SQLite stores a gigabyte in a row at most
_SCHEMA = """
CREATE TABLE IF NOT EXISTS checked_file (name BLOB PRIMARY KEY, fingerprint TEXT NOT NULL, reason TEXT, seconds REAL,
    is_truncated INTEGER NOT NULL, expected_seconds REAL, notes TEXT NOT NULL, checksum INTEGER NOT NULL, frames TEXT);
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
        rows = self._database.execute("SELECT name, fingerprint FROM checked_file WHERE reason IS NULL")
        return {os.fsdecode(name): fingerprint for name, fingerprint in rows}

    def add(self, tagged: TaggedFile, fingerprint: str) -> None:
        """Store the result for a file; it is committed within a third of a second."""
        name = os.fsencode(tagged.file)
        faults = tagged.faults
        notes = "; ".join(faults.descriptions())
        expected_seconds = faults.expected_seconds
        status = FileStatus(
            tagged.file, tagged.reason, tagged.duration_seconds, faults.is_truncated, expected_seconds, notes
        )
        self._database.execute("DELETE FROM window_batch WHERE name = ?", (name,))
        frames = _frames_text(tagged.timeline)
        checksum = _checksum_of_status(status, frames)
        for batch in _batches(name, tagged.timeline) if tagged.timeline is not None else ():
            self._database.execute("INSERT INTO window_batch VALUES (?, ?, ?, ?, ?)", batch)
            checksum = _checksum_of_batch(batch[2:], checksum)
        values = (name, fingerprint, *status[1:], checksum, frames)
        self._database.execute("INSERT OR REPLACE INTO checked_file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        if time.monotonic() - self._committed_at > _SECONDS_BETWEEN_COMMITS:
            self.commit()

    def commit(self) -> None:
        """Write everything added so far to the disk."""
        self._database.commit()
        self._committed_at = time.monotonic()

    def statuses(self, files: Iterable[str]) -> Iterator[FileStatus]:
        """The status of each file, all of which have been added."""
        return (status for status, _, _ in self._entries(files))

    def tagged(self, files: Iterable[str]) -> Iterator[TaggedFile]:
        """The result for each file, all of which have been added.

        Raises
        ------
        DataError
            If the bytes of a result have changed since they were written.
        """
        for status, checksum, frames in self._entries(files):
            timeline = self._timeline(status, checksum, frames) if status.reason is None else None
            yield TaggedFile(status.file, timeline, status.reason, sound_seconds=status.seconds)

    def _entries(self, files: Iterable[str]) -> Iterator[tuple[FileStatus, int, str | None]]:
        """The status of each file, the checksum, and how its frames become segments (None: it has windows)."""
        columns = "reason, seconds, is_truncated, expected_seconds, notes, checksum, frames"
        for file in files:
            query = f"SELECT {columns} FROM checked_file WHERE name = ?"  # nosec B608 - the columns above
            row = self._database.execute(query, (os.fsencode(file),)).fetchone()
            if row is None:
                raise _damaged(file)
            yield FileStatus(file, *row[:-2]), *row[-2:]

    def _timeline(self, status: FileStatus, checksum: int, frames: str | None) -> Timeline:
        query = "SELECT times, probabilities, novelty FROM window_batch WHERE name = ? ORDER BY batch"
        times, probabilities, novelty = bytearray(), bytearray(), bytearray()
        found = _checksum_of_status(status, frames)
        for batch in self._database.execute(query, (os.fsencode(status.file),)):
            found = _checksum_of_batch(batch, found)
            times += batch[0]
            probabilities += batch[1]
            novelty += batch[2] or b""
        if found != checksum:
            raise _damaged(status.file)
        starts, ends = np.frombuffer(times, np.float64).reshape(-1, 2).T
        return Timeline(
            starts,
            ends,
            np.frombuffer(probabilities, np.float32).reshape(len(starts), -1),
            np.frombuffer(novelty, np.float32) if novelty else None,
            FramesInfo.model_validate_json(frames) if frames else None,
        )


def _frames_text(timeline: Timeline | None) -> str | None:
    return None if timeline is None or timeline.frames is None else timeline.frames.model_dump_json()


def _damaged(file: str) -> DataError:
    return DataError(
        f"{file}: its result in the journal is damaged; delete the journal (the hidden folder beside the output), and "
        "run again"
    )


def _checksum_of_status(status: FileStatus, frames: str | None) -> int:
    """CRC-32 of what is known of a file."""
    seconds = [None if value is None else float(value) for value in (status.seconds, status.expected_seconds)]
    content = (status.reason, *seconds, int(status.is_truncated), status.notes, frames)
    return zlib.crc32(repr(content).encode("utf-8", "backslashreplace"), zlib.crc32(os.fsencode(status.file)))


def _checksum_of_batch(batch: Sequence[bytes | None], checksum: int) -> int:
    """CRC-32 that also covers the columns of a batch."""
    for column in batch:
        if not isinstance(column, bytes | None):
            return -1  # damaged
        checksum = zlib.crc32(column or b"", checksum)
    return checksum


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
