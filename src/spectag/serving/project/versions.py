"""The versions of a project's model: each is a folder of its own, and one of them is in use."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from sqlite3 import Row
from typing import Any

from spectag.errors import BundleError, ConfigError, DataError
from spectag.models.bundle import INFO_FILE, read_info, replace_when_complete
from spectag.serving.project.database import ProjectDatabase, json_object, plain_values
from spectag.system.file_errors import reason_of
from spectag.system.regular_files import irregular

MODELS = "models"
VERSION_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS version (
        number INTEGER PRIMARY KEY AUTOINCREMENT, created TEXT NOT NULL, origin TEXT NOT NULL, parent INTEGER,
        results TEXT NOT NULL, is_ready INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE TABLE IF NOT EXISTS version_in_use (time TEXT NOT NULL, number INTEGER NOT NULL)",
)


@dataclass(frozen=True)
class ModelVersion:
    """A version of the model."""

    number: int
    folder: Path
    created: str
    """Time in UTC, as ISO 8601."""
    origin: str
    """How it was made, such as "first", "trained", "refitted" or "thresholds"."""
    parent: int | None
    """The version that it was made from."""
    results: Mapping[str, Any]
    """What is shown about it, such as scores with their intervals."""


class ModelVersions:
    """The versions of a project.

    Parameters
    ----------
    database : ProjectDatabase
    folder : Path
        Of the project.
    """

    def __init__(self, database: ProjectDatabase, folder: Path) -> None:
        self._database, self._folder = database, folder / MODELS

    def __iter__(self) -> Iterator[ModelVersion]:
        """All versions, oldest first."""
        rows = self._database.rows("SELECT * FROM version WHERE is_ready ORDER BY number")
        return iter([self._version(row) for row in rows])

    def get(self, number: int) -> ModelVersion | None:
        """A version by its number; None if there is none."""
        rows = self._database.rows("SELECT * FROM version WHERE is_ready AND number = ?", number)
        return self._version(rows[0]) if rows else None

    @property
    def current(self) -> ModelVersion | None:
        """The version in use; None in a project without a model."""
        rows = self._database.rows("SELECT number FROM version_in_use ORDER BY rowid DESC LIMIT 1")
        return self.get(rows[0]["number"]) if rows else None

    def with_same_networks(self, number: int) -> list[int]:
        """A version and those of its ancestors that have the same networks, nearest first.

        They give the same probabilities for a clip: what was computed with one of them counts for the version.
        """
        version, found = self.get(number), [number]
        networks = None if version is None else _networks_of(version.folder)
        parent = None if version is None else version.parent
        while networks is not None and parent is not None:
            ancestor = self.get(parent)
            if ancestor is not None and _networks_of(ancestor.folder) == networks:
                found.append(parent)
            # A deleted version still has its row.
            rows = self._database.rows("SELECT parent FROM version WHERE number = ?", parent)
            parent = rows[0]["parent"] if rows else None
        return found

    def use(self, number: int) -> ModelVersion:
        """Put a version into use. A DataError if there is none with this number."""
        version = self.get(number)
        if version is None:
            raise DataError(f"{self._folder}: there is no version {number}; choose another one")
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO version_in_use VALUES (?, ?)", (utc_now(), number))
        return version

    def delete(self, number: int) -> None:
        """Delete a version, and the files of its model.

        Raises
        ------
        ConfigError
            If it is in use.
        DataError
            If there is no such version, or its files can't be deleted.
        """
        version, current = self.get(number), self.current
        if version is None:
            raise DataError(f"{self._folder}: there is no version {number}; choose another one")
        if current is not None and current.number == number:
            raise ConfigError(f"version {number} is in use; use another one before you delete it")
        with self._database.transaction() as connection:
            connection.execute("UPDATE version SET is_ready = 0 WHERE number = ?", (number,))
        try:
            shutil.rmtree(version.folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DataError(
                f"{version.folder}: can't be deleted: {reason_of(error)}; delete this folder by hand"
            ) from error

    @contextmanager
    def new(
        self, origin: str, *, parent: int | None = None, created: str | None = None
    ) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The folder of a new version, which the `with` block writes, and its results, which it fills.

        The version counts when the block has succeeded and spectag.json is there. It does not contain what has changed
        in the project since `created`, a time in UTC as ISO 8601; by default now.
        """
        folder, results = self.begin(origin, parent=parent, created=created), dict[str, Any]()
        yield folder, results
        self.finish(folder, results)

    def begin(self, origin: str, *, parent: int | None = None, created: str | None = None) -> Path:
        """The folder of a new version, which does not exist yet; see `new`. It counts after `finish`."""
        with self._database.transaction() as connection:
            number = connection.execute(
                "INSERT INTO version (created, origin, parent, results) VALUES (?, ?, ?, '{}')",
                (created or utc_now(), origin, parent),
            ).lastrowid
        assert number is not None
        folder = self._folder_of(number)
        folder.parent.mkdir(exist_ok=True)
        return folder

    def finish(self, folder: Path, results: Mapping[str, Any]) -> None:
        """Count the version in a folder from `begin`, which is complete. A BundleError if it is not."""
        read_info(folder)
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE version SET results = ?, is_ready = 1 WHERE number = ?", (json.dumps(results), int(folder.name))
            )

    def add_copy(self, bundle: Path, origin: str = "first") -> ModelVersion:
        """Copy a model into the project and use it. If it is the one in use already, nothing changes.

        Raises
        ------
        DataError
            If it can't be copied.
        """
        current = self.current
        if current is not None and _same(bundle, current.folder):
            return current
        with self.new(origin, parent=None if current is None else current.number) as (folder, _):
            try:
                with replace_when_complete(folder) as unfinished:
                    shutil.copytree(bundle, unfinished, dirs_exist_ok=True, ignore=irregular)
            except (OSError, shutil.Error) as error:
                raise DataError(f"{folder}: can't be written: {reason_of(error)}; make room on the disk") from error
        return self.use(int(folder.name))

    def _folder_of(self, number: int) -> Path:
        return self._folder / f"{number:04}"

    def _version(self, row: Row) -> ModelVersion:
        values = plain_values(row)
        number, results = values["number"], json_object(values["results"])
        return ModelVersion(
            number, self._folder_of(number), values["created"], values["origin"], values["parent"], results
        )


def _same(first: Path, second: Path) -> bool:
    """Whether two folders contain the same model: spectag.json has the SHA-256 of the networks."""
    if first.resolve() == second.resolve():
        return True
    try:
        return (first / INFO_FILE).read_bytes() == (second / INFO_FILE).read_bytes()
    except OSError as error:
        raise BundleError(f"{first}: {reason_of(error)}; copy the complete model again") from error


def _networks_of(folder: Path) -> tuple[Any, ...] | None:
    """What the probabilities of a model depend on; None if its spectag.json can't be read or has no hashes."""
    try:
        return _read_networks(folder, (folder / INFO_FILE).stat().st_mtime_ns)
    except (OSError, BundleError):
        return None


@lru_cache(maxsize=100)
def _read_networks(folder: Path, _changed: int) -> tuple[Any, ...] | None:
    info = read_info(folder)
    return (info.sha256, info.labels, info.members, info.bias, info.calibration) if info.sha256 else None


def utc_now() -> str:
    """The time now in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
