"""An index on disk: files, windows and labels in a database, and their vectors in a file beside it.

index.json        what the index is: made by which tagger, in which windows
index.sqlite      the files, their windows, the labels heard in each, and which vectors are theirs
vectors-N.f32     a unit vector after the other, as float32
graph-N-M.usearch usearch's graph of the first M vectors, where there is one

The database is what counts: it keeps every whole transaction through a kill or a power cut. Vectors are written before
the transaction that tells of them, and those that no transaction tells of are written over.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectag.array_types import Float32Array, IntArray
from spectag.curation.embedding import Embedding
from spectag.curation.sound_index.filters import CHOSEN, SOUGHT, Condition, query_of
from spectag.curation.sound_index.recording_dates import Recorded, from_seconds, to_seconds
from spectag.errors import DataError
from spectag.models.timeline import Timeline

DATABASE = "index.sqlite"
VECTOR = np.dtype("<f4")
Rows = IntArray

_SECONDS_TO_WAIT = 30.0  # for a process that writes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    generation INTEGER, n_vectors INTEGER, n_dimensions INTEGER, n_in_graph INTEGER, expansion INTEGER,
    is_settled INTEGER
);
CREATE TABLE IF NOT EXISTS blob (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS file (
    number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, mark TEXT NOT NULL, seconds REAL, recorded REAL,
    by_name INTEGER, n_rows INTEGER NOT NULL, first_row INTEGER
);
CREATE INDEX IF NOT EXISTS file_by_date ON file (recorded);
CREATE INDEX IF NOT EXISTS file_by_length ON file (seconds);
CREATE INDEX IF NOT EXISTS file_by_row ON file (first_row);
CREATE TABLE IF NOT EXISTS stretch (file INTEGER, place INTEGER, starts REAL, ends REAL, PRIMARY KEY (file, place))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heard (
    label INTEGER, file INTEGER, place INTEGER, probability REAL, PRIMARY KEY (label, file, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS heard_in_file ON heard (file, place);
CREATE TABLE IF NOT EXISTS features (file INTEGER PRIMARY KEY, value BLOB NOT NULL);
"""


class State(NamedTuple):
    """Which vectors count."""

    generation: int
    """Number of the file of vectors; one that is written anew gets the next number."""
    n_vectors: int
    """Those after them are left by a run that was killed."""
    n_dimensions: int
    n_in_graph: int
    """Vectors, from the first, that the graph knows; 0: there is no graph."""
    expansion: int
    """How far the graph is to be followed; 0: not at all, for it would miss too many."""
    is_settled: bool
    """Whether the embedding stays as it is; as long as it may change, the features are kept."""

    @property
    def vectors_file(self) -> str:
        """Name of the file of vectors."""
        return f"vectors-{self.generation}.f32"

    @property
    def graph_file(self) -> str:
        """Name of the file of the graph."""
        return f"graph-{self.generation}-{self.n_in_graph}.usearch"


class FileEntry(NamedTuple):
    """A recording in the index."""

    number: int
    name: str
    mark: str
    n_rows: int
    first_row: int | None
    """Number of its first vector; None as long as it has none."""


class Row(NamedTuple):
    """A window of a recording."""

    number: int
    file: str
    start_seconds: float
    end_seconds: float | None
    recorded: Recorded | None
    """When the window began."""
    heard: tuple[tuple[int, float], ...]
    """Numbers and probabilities of the labels that were heard in it, the most probable first."""


class Store:
    """The database of an index."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self.folder = folder
        self._database = database

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open the database, which is made where there is none."""
        with errors_of(folder):
            database = sqlite3.connect(folder / DATABASE, timeout=_SECONDS_TO_WAIT, check_same_thread=False)
            if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                database.executescript(_SCHEMA)
                database.execute("INSERT INTO state VALUES (0, 0, 0, 0, 0, 0)")
                database.commit()
        return cls(folder, database)

    def close(self) -> None:
        """Close the database; what was not committed is undone."""
        self._database.close()

    def commit(self) -> None:
        """Make all changes lasting."""
        self._database.commit()

    @contextmanager
    def reading(self) -> Iterator[State]:
        """For the time of the `with` block the index stays as it is, whoever writes."""
        with errors_of(self.folder):
            self._database.execute("BEGIN")
            try:
                yield self.state
            finally:
                self._database.rollback()

    @property
    def state(self) -> State:
        """Which vectors count."""
        state = State(*self._database.execute("SELECT * FROM state").fetchone())
        return state._replace(is_settled=bool(state.is_settled))

    @state.setter
    def state(self, state: State) -> None:
        self._database.execute("DELETE FROM state")
        self._database.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?)", state)

    def blob(self, name: str) -> bytes | None:
        """The bytes kept under a name."""
        row = self._database.execute("SELECT value FROM blob WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_blob(self, name: str, value: bytes | None) -> None:
        """Keep bytes under a name; None: none any more."""
        self._database.execute("DELETE FROM blob WHERE name = ?", (name,))
        if value is not None:
            self._database.execute("INSERT INTO blob VALUES (?, ?)", (name, value))

    @property
    def is_at_work(self) -> bool:
        """Whether a run is adding to the index, or was killed while it did."""
        return self.blob("at work") is not None

    @is_at_work.setter
    def is_at_work(self, value: bool) -> None:
        self.keep_blob("at work", b"yes" if value else None)

    @property
    def embedding(self) -> Embedding | None:
        """What makes vectors of features; None as long as there are no sounds."""
        value = self.blob("embedding")
        return None if value is None else Embedding.from_bytes(value)

    def marks(self) -> dict[str, str]:
        """The mark, of its content, of each file in the index."""
        return {os.fsdecode(name): mark for name, mark in self._database.execute("SELECT name, mark FROM file")}

    def add(self, name: str, mark: str, when: Recorded | None, timeline: Timeline, thresholds: Float32Array) -> int:
        """Note a file with its windows and the labels that reach their thresholds in each, and give its number."""
        date = (None, None) if when is None else (to_seconds(when.at), when.by_name)
        values = (os.fsencode(name), mark, float(timeline.ends[-1]), *date, len(timeline.starts))
        insert = "INSERT INTO file (name, mark, seconds, recorded, by_name, n_rows) VALUES (?, ?, ?, ?, ?, ?)"
        number = int(self._database.execute(insert, values).lastrowid or 0)
        times = zip(timeline.starts.tolist(), timeline.ends.tolist(), strict=True)
        windows = ((number, place, start, end) for place, (start, end) in enumerate(times))
        self._database.executemany("INSERT INTO stretch VALUES (?, ?, ?, ?)", windows)
        heard = np.argwhere(timeline.probabilities >= thresholds)
        labels = (
            (label, number, place, float(timeline.probabilities[place, label])) for place, label in heard.tolist()
        )
        self._database.executemany("INSERT INTO heard VALUES (?, ?, ?, ?)", labels)
        return number

    def remove(self, names: Iterable[str]) -> None:
        """Forget files; their vectors stay where they are until the file of vectors is written anew."""
        for name in names:
            found = self._database.execute("SELECT number FROM file WHERE name = ?", (os.fsencode(name),)).fetchone()
            if found is not None:
                for table, column in (("file", "number"), ("stretch", "file"), ("heard", "file"), ("features", "file")):
                    self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", found)

    def place(self, file: int, first_row: int) -> None:
        """Note which vector is that of a file's first window."""
        self._database.execute("UPDATE file SET first_row = ? WHERE number = ?", (first_row, file))

    def entry(self, name: str) -> FileEntry | None:
        """The file of this name."""
        return next(self._entries("WHERE name = ?", (os.fsencode(name),)), None)

    def entries(self) -> list[FileEntry]:
        """All files, in the order in which they came."""
        return list(self._entries("ORDER BY number"))

    def _entries(self, clause: str, values: tuple[bytes, ...] = ()) -> Iterator[FileEntry]:
        query = f"SELECT number, name, mark, n_rows, first_row FROM file {clause}"
        for number, name, *rest in self._database.execute(query, values):
            yield FileEntry(number, os.fsdecode(name), *rest)

    def counts(self) -> tuple[int, int]:
        """How many files and rows can be found."""
        query = "SELECT count(*), coalesce(sum(n_rows), 0) FROM file WHERE first_row IS NOT NULL"
        n_files, n_rows = self._database.execute(query).fetchone()
        return n_files, n_rows

    def keep_features(self, file: int, features: Float32Array) -> None:
        """Keep the features (n_windows, n_features) of a file."""
        self._database.execute("INSERT INTO features VALUES (?, ?)", (file, features.astype("<f4").tobytes()))

    def features(self) -> list[tuple[int, Float32Array]]:
        """Files and their features (n_windows, n_features), in the order in which they came."""
        query = "SELECT number, n_rows, value FROM features JOIN file ON file.number = features.file ORDER BY number"
        return [
            (number, np.frombuffer(value, "<f4").reshape(n_rows, -1))
            for number, n_rows, value in self._database.execute(query)
        ]

    def n_with_features(self) -> int:
        """How many rows have their features kept."""
        query = "SELECT coalesce(sum(n_rows), 0) FROM file JOIN features ON features.file = file.number"
        return int(self._database.execute(query).fetchone()[0])

    def drop_features(self) -> None:
        """Keep features no longer."""
        self._database.execute("DELETE FROM features")

    def windows_of(self, file: int) -> list[tuple[float, float | None]]:
        """Start and end of each window of a file, in seconds."""
        query = "SELECT starts, ends FROM stretch WHERE file = ? ORDER BY place"
        return self._database.execute(query, (file,)).fetchall()

    def row(self, number: int) -> Row | None:
        """What the vector of this number is that of; None: of a file that left."""
        query = (
            "SELECT number, name, recorded, by_name, first_row, n_rows FROM file WHERE first_row <= ? "
            "ORDER BY first_row DESC LIMIT 1"
        )
        found = self._database.execute(query, (number,)).fetchone()
        if found is None or number >= found[4] + found[5]:
            return None
        file, name, recorded, by_name, first_row, _ = found
        where = (file, number - first_row)
        query = "SELECT starts, ends FROM stretch WHERE file = ? AND place = ?"
        start, end = self._database.execute(query, where).fetchone()
        query = "SELECT label, probability FROM heard WHERE file = ? AND place = ? ORDER BY probability DESC, label"
        heard = tuple(self._database.execute(query, where))
        when = None if recorded is None else Recorded(from_seconds(recorded + start), bool(by_name))
        return Row(number, os.fsdecode(name), start, end, when, heard)

    def rows_where(self, condition: Condition, *, among: Rows | None = None, at_most: int | None = None) -> Rows:
        """Numbers of the vectors whose windows fulfil a condition, in their order: of all, or among some.

        Where there are more than `at_most`, any of them are given, and one more than that.
        """
        self._fill(CHOSEN, condition.files or ())
        self._fill(SOUGHT, () if among is None else among.tolist())
        query, values = query_of(condition, of_sought=among is not None)
        if at_most is not None:
            query += f" LIMIT {at_most + 1}"
        rows = np.fromiter((row for (row,) in self._database.execute(query, values)), np.int64)
        return np.sort(rows)

    def _fill(self, table: str, numbers: Iterable[int]) -> None:
        """A table for the time of a question."""
        self._database.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} (number INTEGER PRIMARY KEY)")
        self._database.execute(f"DELETE FROM {table}")
        self._database.executemany(f"INSERT INTO {table} VALUES (?)", ((number,) for number in numbers))


@contextmanager
def errors_of(folder: Path) -> Iterator[None]:
    """What the database complains of, in words."""
    try:
        yield
    except sqlite3.ProgrammingError:  # ours, or a question to an index that was closed
        raise
    except sqlite3.OperationalError as error:
        raise DataError(f"{folder / DATABASE}: can't be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{folder / DATABASE}: damaged: {error}; delete the folder {folder} and index the recordings again"
        ) from error
