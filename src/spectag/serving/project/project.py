"""A project: a folder that the page and the command line share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spectag.errors import ConfigError, DataError
from spectag.serving.project.database import DATABASE, ProjectDatabase
from spectag.serving.project.jobs import JOB_SCHEMA, Jobs
from spectag.serving.project.label_clips import LABEL_SCHEMA
from spectag.serving.project.label_file import LABEL_FILE_SCHEMA
from spectag.serving.project.label_review_tables import REVIEW_SCHEMA
from spectag.serving.project.label_rows import move_clips
from spectag.serving.project.labels import ProjectLabels
from spectag.serving.project.own_files import LOCK, check_own_files
from spectag.serving.project.versions import VERSION_SCHEMA, ModelVersions
from spectag.system.file_errors import reason_of
from spectag.system.output import check_output_folder, unicode_text

_FOLDER = "folder"  # the setting that says where the project was
_SETTING_SCHEMA = ("CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL)",)


class Project:
    """A project that is open in this process; no other server has it open.

    project.sqlite   versions of the model, jobs, and decisions of the page
    labels.csv       the labels of its clips, as a manifest
    models/0001/     a version of the model, as `spectag train` writes it
    checks/NAME/     a sample of detections, as `spectag check` writes it

    Parameters
    ----------
    folder : Path
        Which exists. Use `open_project`.

    Raises
    ------
    DataError
        If a file in it is damaged or can't be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        schema = (*_SETTING_SCHEMA, *VERSION_SCHEMA, *JOB_SCHEMA, *LABEL_SCHEMA, *LABEL_FILE_SCHEMA, *REVIEW_SCHEMA)
        self.database = ProjectDatabase(folder, schema)
        self._follow_move()
        self.versions = ModelVersions(self.database, self.folder)
        self.labels = ProjectLabels(self)
        self.jobs = Jobs(self.database, self.folder)

    def _follow_move(self) -> None:
        """Find the recordings in the folder also after it was moved, renamed or copied."""
        before, now = self.setting(_FOLDER), unicode_text(str(self.folder))
        if before == now:
            return
        with self.database.transaction() as connection:
            if before is not None:
                move_clips(connection, Path(before), self.folder)
            connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (_FOLDER, now))

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    def setting(self, name: str) -> str | None:
        """A stored text; None if there is none."""
        rows = self.database.rows("SELECT value FROM setting WHERE name = ?", name)
        return rows[0]["value"] if rows else None

    def store_setting(self, name: str, value: str) -> None:
        """Store a text under a name."""
        with self.database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """Stop the job that runs, and close the database."""
        self.jobs.close()
        self.labels.close()
        self.database.close()


@contextmanager
def open_project(folder: Path) -> Iterator[Project]:
    """Open a project, or make a new one in a folder that is empty or does not exist.

    Raises
    ------
    ConfigError
        If another server has it open, or the folder has other files.
    DataError
        If it is damaged or can't be written.
    """
    check_output_folder(folder)
    if folder.is_dir() and not (folder / DATABASE).exists() and _has_files(folder):
        raise ConfigError(f"{folder}: has files, but no project; choose an empty folder, or one that does not exist")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_own_files(folder)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"{folder}: another spectag serve has this project open; use its page, which several browsers may have open"
        ) from error
    except OSError as error:
        raise DataError(f"{folder}: can't be written: {reason_of(error)}; choose another folder") from error
    try:
        project = Project(folder)
        try:
            yield project
        finally:
            project.close()
    finally:
        lock.release()


def _has_files(folder: Path) -> bool:
    return any(not path.name.startswith(".") for path in folder.iterdir())
