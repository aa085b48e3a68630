"""The projects that this user had open last, for the start page."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from spectag.serving.project.database import DATABASE
from spectag.system.atomic_files import unfinished_file

MAX_RECENT = 20
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class RecentProject:
    """A project that was open."""

    folder: str
    opened: str
    """When it was opened last, in UTC, as ISO 8601."""


def recent_projects() -> list[RecentProject]:
    """Those that still exist, the newest first. A list that is missing or damaged is empty."""
    try:
        path = _file()
        if path.stat().st_size > _MAX_BYTES:
            return []
        stored = [RecentProject(**values) for values in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError):
        return []
    return [project for project in stored[:MAX_RECENT] if _exists(project)]


def remember_project(folder: Path) -> None:
    """Put a project at the start of the list. Where the list can't be written, nothing happens."""
    opened = RecentProject(str(folder.resolve()), datetime.now(UTC).isoformat(timespec="seconds"))
    others = [project for project in recent_projects() if project.folder != opened.folder]
    with suppress(OSError, UnicodeEncodeError), unfinished_file(_file()) as unfinished:
        listed = [asdict(project) for project in [opened, *others][:MAX_RECENT]]
        unfinished.write_text(json.dumps(listed, indent=1), encoding="utf-8")


def _exists(project: RecentProject) -> bool:
    texts = (project.folder, project.opened)
    try:
        return all(isinstance(text, str) for text in texts) and Path(project.folder, DATABASE).is_file()
    except (OSError, ValueError):
        return False


def _file() -> Path:
    """Where the user's data belong. An OSError if the user has no home folder."""
    try:
        return platformdirs.user_data_path("spectag", appauthor=False) / "recent-projects.json"
    except RuntimeError as error:
        raise FileNotFoundError("no home folder") from error
