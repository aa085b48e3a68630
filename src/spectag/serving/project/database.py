"""The database of a project: project.sqlite. What it confirms survives a kill and a power cut."""

import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectag.errors import DataError
from spectag.models.versioned_json import parse_json
from spectag.system.file_errors import reason_of
from spectag.system.regular_files import check_regular_file

DATABASE = "project.sqlite"
_VERSION = 1
_LOCK_SECONDS = 30.0  # to wait for another program that writes
_MAX_BYTES = 2**36
_LARGEST = 2**63 - 1  # integer of SQLite


class ProjectDatabase:
    """A connection that several threads share.

    Parameters
    ----------
    folder : Path
        Of the project, which exists.
    schema : sequence of str
        Statements that create the tables that are not there yet.

    Raises
    ------
    DataError
        If the file is not such a database, is of a later version, or can't be opened.
    """

    def __init__(self, folder: Path, schema: Sequence[str]) -> None:
        self.path = folder / DATABASE
        self._lock = threading.RLock()
        with self._problems():
            if self.path.exists():
                check_regular_file(self.path, max_bytes=_MAX_BYTES)
            self._connection = sqlite3.connect(
                self.path, timeout=_LOCK_SECONDS, check_same_thread=False, isolation_level=None
            )
            try:
                self._open(schema)
            except BaseException:
                self._connection.close()
                raise

    def _open(self, schema: Sequence[str]) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA trusted_schema = OFF")
        [found] = self._connection.execute("PRAGMA user_version").fetchone()
        if found > _VERSION:
            raise DataError(f"{self.path}: made by a later version of spectag; install it, or choose another project")
        self._check_tables(schema)
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        with self.transaction() as connection:
            for statement in schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _check_tables(self, schema: Sequence[str]) -> None:
        """A file from a stranger may have triggers and views, or tables that are not what they seem."""
        expected = {_words(statement).replace("if not exists ", "") for statement in schema}
        names = {statement.split()[2] for statement in expected}
        for kind, name, statement in self._connection.execute("SELECT type, lower(name), sql FROM sqlite_master"):
            is_known = kind == "index" or (kind == "table" and not _words(statement).startswith("create virtual"))
            if not is_known or (name in names and _words(statement) not in expected):
                raise DataError(f"{self.path}: has the unknown {kind} {name!r}, so it is no project of this version")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Changes that are on disk at the end of the `with` block; after an error, none of them is.

        Raises
        ------
        DataError
            If the database can't be read or written.
        """
        with self._lock, self._problems():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of a query. A DataError if they can't be read."""
        if any(isinstance(value, int) and abs(value) > _LARGEST for value in values):
            return []  # SQLite has no such numbers, so no row has one
        with self._lock, self._problems():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            raise DataError(f"{self.path}: {reason}; see whether the disk is full, or restore a copy") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def plain_values(row: sqlite3.Row) -> dict[str, Any]:
    """The columns of a row. Bytes, which only a stranger's file has, become empty texts."""
    return {name: "" if isinstance(row[name], bytes) else row[name] for name in row.keys()}  # noqa: SIM118


def json_object(text: object) -> dict[str, Any]:
    """A stored JSON object; an empty one if a stranger's file has something else."""
    found = _parsed(text)
    return found if isinstance(found, dict) else {}


def text_list(text: object) -> list[str]:
    """A stored list of texts; an empty one if a stranger's file has something else."""
    found = _parsed(text)
    return [line for line in found if isinstance(line, str)] if isinstance(found, list) else []


def _parsed(text: object) -> Any:
    try:
        return parse_json(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _words(statement: str) -> str:
    """An SQL statement with single spaces, in lower case."""
    return re.sub(r"\s+", " ", statement).strip().lower()
