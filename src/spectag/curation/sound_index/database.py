"""The database of a sound index: recordings, windows and detections in SQLite; the vectors are in a file beside it.

index.json        metadata: the model, the labels and the windows
index.sqlite      files, windows, detected labels, and the position of each file's vectors
vectors-N.f32     unit vectors, one after the other, as float32
graph-N-M.usearch usearch's graph of the first M vectors, if there is one

The database is authoritative: each transaction survives a kill or a power cut. Vectors are written before the
transaction that refers to them. Vectors that no transaction refers to are overwritten.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectag.array_types import Float32Array, IntArray
from spectag.curation.embedding import Embedding
from spectag.curation.sound_index.filters import FILES_TABLE, ROWS_TABLE, SearchFilter, build_query
from spectag.curation.sound_index.recording_dates import RecordingDate, from_seconds, to_seconds
from spectag.errors import DataError
from spectag.models.timeline import Timeline
from spectag.system.atomic_files import sha256_of
from spectag.system.regular_files import check_regular_file

DATABASE = "index.sqlite"
VECTOR_DTYPE = np.dtype("<f4")
Rows = IntArray

_LOCK_SECONDS = 30.0  # to wait for a process that writes
_MAX_NUMBER = 2**40
_MAX_BYTES = 2**44
_MAX_SECONDS = 1e9  # of a recording: 30 years
_YEAR_70, _YEAR_9500 = -6e10, 2.37e11  # in seconds since 1970
_GRAPH_SHA256 = "graph_sha256"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    generation INTEGER, n_vectors INTEGER, n_dimensions INTEGER, n_in_graph INTEGER, expansion INTEGER,
    is_settled INTEGER
);
CREATE TABLE IF NOT EXISTS blob (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS file (
    number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, fingerprint TEXT NOT NULL, seconds REAL, recorded REAL,
    date_source TEXT, n_windows INTEGER NOT NULL, first_row INTEGER
);
CREATE INDEX IF NOT EXISTS file_by_date ON file (recorded);
CREATE INDEX IF NOT EXISTS file_by_length ON file (seconds);
CREATE INDEX IF NOT EXISTS file_by_row ON file (first_row);
CREATE TABLE IF NOT EXISTS span (file INTEGER, position INTEGER, starts REAL, ends REAL, PRIMARY KEY (file, position))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS detection (
    label INTEGER, file INTEGER, position INTEGER, probability REAL, PRIMARY KEY (label, file, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS detection_in_file ON detection (file, position);
CREATE TABLE IF NOT EXISTS features (file INTEGER PRIMARY KEY, value BLOB NOT NULL);
"""


class IndexState(NamedTuple):
    """The valid vectors of an index."""

    generation: int
    """Number of the vectors file. It increases when the file is rewritten."""
    n_vectors: int
    """Further vectors in the file belong to an interrupted run."""
    n_dimensions: int
    n_in_graph: int
    """The first vectors that the graph contains; 0: there is no graph."""
    expansion: int
    """usearch's search expansion; 0: do not use the graph, because it would miss too many vectors."""
    is_settled: bool
    """Whether the embedding is final. Until then, features are kept to fit it again."""

    @property
    def vectors_file(self) -> str:
        """Name of the vectors file."""
        return f"vectors-{self.generation}.f32"

    @property
    def graph_file(self) -> str:
        """Name of the graph file."""
        return f"graph-{self.generation}-{self.n_in_graph}.usearch"


class FileEntry(NamedTuple):
    """A recording in the index."""

    number: int
    name: str
    fingerprint: str
    n_windows: int
    first_row: int | None
    """Number of its first vector; None before it is embedded."""


class IndexRow(NamedTuple):
    """A window of a recording."""

    number: int
    file: str
    start_seconds: float
    end_seconds: float | None
    recorded: RecordingDate | None
    """When the window began."""
    detections: tuple[tuple[int, float], ...]
    """Numbers and probabilities of the detected labels, the most probable first."""


class IndexDatabase:
    """The database of an index. It is created if it does not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with database_errors(folder), _damage_errors(folder):
            if (folder / DATABASE).exists():
                check_regular_file(folder / DATABASE, max_bytes=_MAX_BYTES)
            self._connection = sqlite3.connect(folder / DATABASE, timeout=_LOCK_SECONDS, check_same_thread=False)
            if not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                first_state = "INSERT INTO state VALUES (0, 0, 0, 0, 0, 0);"  # a kill leaves all tables or none
                self._connection.executescript(f"BEGIN; {_SCHEMA} {first_state} COMMIT;")
            elif _schema(self._connection) != _expected_schema():  # views and triggers could do anything
                raise DamagedIndexError("its tables are not those of an index")

    def close(self) -> None:
        """Close the database, without uncommitted changes."""
        self._connection.close()

    def commit(self) -> None:
        """Commit all changes."""
        self._connection.commit()

    @contextmanager
    def reading(self) -> Iterator[IndexState]:
        """A read transaction: other processes' changes are not visible in the `with` block."""
        with database_errors(self.folder), _damage_errors(self.folder):
            self._connection.execute("BEGIN")
            try:
                yield self.state
            finally:
                self._connection.rollback()

    @property
    def state(self) -> IndexState:
        """The valid vectors."""
        numbers = self._connection.execute("SELECT * FROM state").fetchone()
        if numbers is None or not all(isinstance(number, int) and 0 <= number <= _MAX_NUMBER for number in numbers):
            raise DamagedIndexError(f"its state is {numbers}")
        state = IndexState(*numbers)
        return state._replace(is_settled=bool(state.is_settled))

    @state.setter
    def state(self, state: IndexState) -> None:
        self._connection.execute("DELETE FROM state")
        self._connection.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?)", state)

    @property
    def graph_sha256(self) -> str:
        """SHA-256 of the graph file, as hexadecimal digits; empty without a graph."""
        return (self.blob(_GRAPH_SHA256) or b"").hex()

    def use_graph(self, n_in_graph: int, expansion: int) -> None:
        """Search with the graph of the first `n_in_graph` vectors, whose file exists, and remember its SHA-256."""
        state = self.state._replace(n_in_graph=n_in_graph, expansion=expansion)
        self.state = state
        self.store_blob(_GRAPH_SHA256, bytes.fromhex(sha256_of(self.folder / state.graph_file)))

    def blob(self, name: str) -> bytes | None:
        """The bytes stored under a name, or None."""
        row = self._connection.execute("SELECT value FROM blob WHERE name = ?", (name,)).fetchone()
        if row is not None and not isinstance(row[0], bytes):
            raise DamagedIndexError(f"{name} is not binary")
        return None if row is None else row[0]

    def store_blob(self, name: str, value: bytes | None) -> None:
        """Store bytes under a name; None: delete them."""
        self._connection.execute("DELETE FROM blob WHERE name = ?", (name,))
        if value is not None:
            self._connection.execute("INSERT INTO blob VALUES (?, ?)", (name, value))

    @property
    def is_indexing(self) -> bool:
        """Whether a process is adding files, or was killed while it did."""
        return self.blob("indexing") is not None

    @is_indexing.setter
    def is_indexing(self, value: bool) -> None:
        self.store_blob("indexing", b"yes" if value else None)

    @property
    def embedding(self) -> Embedding | None:
        """The embedding; None if there are no sounds yet."""
        value = self.blob("embedding")
        try:
            return None if value is None else Embedding.from_bytes(value)
        except ValueError as error:
            raise DamagedIndexError(str(error)) from error

    def add(
        self, name: str, fingerprint: str, date: RecordingDate | None, timeline: Timeline, thresholds: Float32Array
    ) -> int:
        """Add a file with its windows and the labels above their thresholds; return its number."""
        date_columns = (None, None) if date is None else (to_seconds(date.time), date.source)
        values = (os.fsencode(name), fingerprint, float(timeline.ends[-1]), *date_columns, len(timeline.starts))
        insert = "INSERT INTO file VALUES (NULL, ?, ?, ?, ?, ?, ?, NULL)"
        number = int(self._connection.execute(insert, values).lastrowid or 0)
        times = zip(timeline.starts.tolist(), timeline.ends.tolist(), strict=True)
        windows = ((number, position, start, end) for position, (start, end) in enumerate(times))
        self._connection.executemany("INSERT INTO span VALUES (?, ?, ?, ?)", windows)
        detections = (
            (label, number, position, float(timeline.probabilities[position, label]))
            for position, label in np.argwhere(timeline.probabilities >= thresholds).tolist()
        )
        self._connection.executemany("INSERT INTO detection VALUES (?, ?, ?, ?)", detections)
        return number

    def remove(self, names: Iterable[str]) -> None:
        """Remove files. Their vectors remain until the vectors file is rewritten."""
        keys = [(os.fsencode(name),) for name in names]
        file = "(SELECT number FROM file WHERE name = ?)"
        for table in ("span", "detection", "features"):
            self._connection.executemany(f"DELETE FROM {table} WHERE file = {file}", keys)  # nosec B608 - names above
        self._connection.executemany("DELETE FROM file WHERE name = ?", keys)

    def set_first_row(self, file: int, first_row: int) -> None:
        """Store the number of the vector of a file's first window."""
        self._connection.execute("UPDATE file SET first_row = ? WHERE number = ?", (first_row, file))

    def entry(self, name: str) -> FileEntry | None:
        """The file with this name, or None."""
        return next(self._entries("WHERE name = ?", (os.fsencode(name),)), None)

    def entries(self) -> list[FileEntry]:
        """All files, in the order in which they were added."""
        return list(self._entries("ORDER BY number"))

    def _entries(self, clause: str, values: tuple[bytes, ...] = ()) -> Iterator[FileEntry]:
        columns = "number, name, fingerprint, n_windows, first_row"
        query = f"SELECT {columns} FROM file {clause}"  # nosec B608 - clauses of this class
        for number, name, fingerprint, n_windows, first_row in self._connection.execute(query, values):
            if not (isinstance(name, bytes) and _is_number(n_windows) and (first_row is None or _is_number(first_row))):
                raise DamagedIndexError(f"the entry of file {number} is invalid")
            yield FileEntry(number, os.fsdecode(name), str(fingerprint), n_windows, first_row)

    def counts(self) -> tuple[int, int]:
        """Number of files and windows that can be found."""
        query = "SELECT count(*), coalesce(sum(n_windows), 0) FROM file WHERE first_row IS NOT NULL"
        n_files, n_rows = self._connection.execute(query).fetchone()
        return n_files, n_rows

    def store_features(self, file: int, features: Float32Array) -> None:
        """Store the features (n_windows, n_features) of a file."""
        self._connection.execute("INSERT INTO features VALUES (?, ?)", (file, features.astype("<f4").tobytes()))

    def features(self) -> list[tuple[int, Float32Array]]:
        """Files and their features (n_windows, n_features), in the order in which they were added."""
        query = "SELECT number, n_windows, value FROM features JOIN file ON file.number = features.file ORDER BY number"
        return [
            (number, np.frombuffer(value, "<f4").reshape(n_windows, -1))
            for number, n_windows, value in self._connection.execute(query)
        ]

    def n_stored_features(self) -> int:
        """Number of windows with stored features."""
        query = "SELECT coalesce(sum(n_windows), 0) FROM file JOIN features ON features.file = file.number"
        return int(self._connection.execute(query).fetchone()[0])

    def delete_features(self) -> None:
        """Delete all stored features."""
        self._connection.execute("DELETE FROM features")

    def windows(self, file: int) -> list[tuple[float, float | None]]:
        """Start and end of each window of a file, in seconds."""
        query = "SELECT starts, ends FROM span WHERE file = ? ORDER BY position"
        windows = self._connection.execute(query, (file,)).fetchall()
        if not windows or not all(_are_times(*window) for window in windows):
            raise DamagedIndexError(f"the windows of file {file} are missing or invalid")
        return windows

    def row(self, number: int) -> IndexRow | None:
        """The window of a vector; None if its file has been removed."""
        query = (
            "SELECT file, position, name, recorded, date_source, starts, ends "
            "FROM file JOIN span ON span.file = file.number AND span.position = ? - file.first_row "
            "WHERE file.number = (SELECT number FROM file WHERE first_row <= ? ORDER BY first_row DESC LIMIT 1)"
        )
        window = self._connection.execute(query, (number, number)).fetchone()
        if window is None:
            return None
        *key, name, recorded, source, start, end = window
        query = "SELECT label, probability FROM detection WHERE file = ? AND position = ? ORDER BY 2 DESC, label"
        detections = tuple(self._connection.execute(query, key))
        if not (
            isinstance(name, bytes)
            and _are_times(start, end)
            and (recorded is None or (isinstance(recorded, float) and _YEAR_70 < recorded < _YEAR_9500))
            and all(_is_number(label) and isinstance(probability, float) for label, probability in detections)
        ):
            raise DamagedIndexError(f"the window of vector {number} is invalid")
        date = None if recorded is None else RecordingDate(from_seconds(recorded + start), source)
        return IndexRow(number, os.fsdecode(name), start, end, date, detections)

    def filter_rows(self, search_filter: SearchFilter, *, among: Rows | None = None, limit: int | None = None) -> Rows:
        """Sorted numbers of the vectors whose windows pass a filter: of all vectors, or of some.

        If there are more than `limit`, any `limit` + 1 of them are returned.
        """
        self._fill(FILES_TABLE, search_filter.files or ())
        self._fill(ROWS_TABLE, () if among is None else among.tolist())
        query, values = build_query(search_filter, among_rows=among is not None)
        if limit is not None:
            query += f" LIMIT {limit + 1}"
        return np.sort(np.fromiter((row for (row,) in self._connection.execute(query, values)), np.int64))

    def _fill(self, table: str, numbers: Iterable[int]) -> None:
        """Fill a temporary table."""
        self._connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} (number INTEGER PRIMARY KEY)")
        self._connection.execute(f"DELETE FROM {table}")  # nosec B608 - one of two constants
        rows = ((number,) for number in numbers)
        self._connection.executemany(f"INSERT INTO {table} VALUES (?)", rows)  # nosec B608 - one of two constants


class DamagedIndexError(Exception):
    """What is wrong in a database. `IndexDatabase.reading` raises it as a DataError."""


def _is_number(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= _MAX_NUMBER


def _are_times(start: object, end: object) -> bool:
    return _is_time(start) and (end is None or _is_time(end))


def _is_time(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= _MAX_SECONDS


def _schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"
    return connection.execute(query).fetchall()


@cache
def _expected_schema() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _schema(connection)


@contextmanager
def _damage_errors(folder: Path) -> Iterator[None]:
    """Raise a DamagedIndexError, and errors of values that an intact database never has, as a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder / DATABASE}: the database can't be used: {error.strerror or error}") from error
    except (DamagedIndexError, OverflowError, IndexError) as error:
        raise DataError(
            f"{folder / DATABASE}: the database is damaged: {error}; delete {folder} and index the recordings again"
        ) from error


@contextmanager
def database_errors(folder: Path) -> Iterator[None]:
    """Raise errors of SQLite as a DataError."""
    try:
        yield
    except sqlite3.ProgrammingError:  # a bug, or a search in a closed index
        raise
    except sqlite3.OperationalError as error:
        raise DataError(f"{folder / DATABASE}: the database can't be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{folder / DATABASE}: the database is damaged: {error}; delete {folder} and index the recordings again"
        ) from error
