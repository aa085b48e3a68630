"""The files that belong to a project, and the check that none of them leads to another place."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from spectag.errors import DataError
from spectag.serving.project.database import DATABASE
from spectag.serving.project.label_file import LABELS_FILE
from spectag.serving.project.running_job import JOBS_FOLDER
from spectag.serving.project.tagging_runs import RUNS
from spectag.serving.project.versions import MODELS

LOCK = ".project.lock"
CACHE = ".cache"
CHECKS, MAPS, TABLES = "checks", "maps", "tables"
_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LOCK, LABELS_FILE)
_FOLDERS = (MODELS, CHECKS, RUNS, JOBS_FOLDER, MAPS, TABLES)


def check_own_files(project: Path) -> None:
    """Refuse links, pipes and devices among the files of a project, which may come from a stranger.

    Through a link, the server would change files elsewhere; a pipe would never end. Other files in the folder, such as
    recordings, may be links.

    Raises
    ------
    DataError
        It names the file.
    """
    for path in _own_paths(project):
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            what = "a link" if stat.S_ISLNK(kind) else "a pipe or device"
            raise DataError(f"{path}: is {what}, which a project may not have here; replace it by the file or folder")


def _own_paths(project: Path) -> Iterator[Path]:
    """The files and folders that exist."""
    for name in (*_FILES, *_FOLDERS, CACHE):
        path = project / name
        if os.path.lexists(path):
            yield path
    for name in _FOLDERS:
        for parent, folders, files in os.walk(project / name):
            yield from (Path(parent, child) for child in (*folders, *files))
