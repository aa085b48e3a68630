"""The checks of a project: folders as `spectag check` writes them, which the command line may use at the same time."""

import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from spectag.data.checked_detections import CHECK_FILE, DECISIONS_FILE, CheckedDetection, read_check_info
from spectag.errors import ConfigError, DataError
from spectag.findings.check_protocol import count_decisions
from spectag.findings.check_session import locked_check
from spectag.findings.decision_store import DecisionStore
from spectag.serving.problems import ProblemError
from spectag.serving.project.own_files import CHECKS

_NAME = re.compile(r"\w[\w .()-]{0,79}(?<![ .])")  # file names of all systems
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


class OpenCheck:
    """A check of the project.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    DataError
        If a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self.file_id = _file_id(folder)
        self.info = read_check_info(folder)
        self.store = DecisionStore(self.decisions)
        self.session = secrets.token_hex(8)
        """Revisions are those of this session."""
        self.recordings: Mapping[str, str] | None = None
        """Paths by names in the table; None: they are not known yet."""
        self._lock = threading.Lock()

    @property
    def decisions(self) -> Path:
        """The table of the decisions."""
        return self.folder / DECISIONS_FILE

    def row(self, index: int) -> CheckedDetection:
        """A detection. A ProblemError (404) if there is none with this number."""
        rows = self.store.rows
        if not 0 <= index < len(rows):
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such detection")
        return rows[index]

    def decide(self, index: int, decision: Any, *, since: int, **values: Any) -> None:
        """Store a decision; the parameters are those of `DecisionStore.decide`.

        Raises
        ------
        ChangedRowError
            If the row has changed since the revision.
        ProblemError
            If `spectag check` has the folder open (423), the table is damaged (422), or it can't be written (507).
        """
        self.row(index)
        with self._lock:
            try:
                with locked_check(self.folder):
                    self.store.reload()
                    self.store.decide(index, decision, since=since, **values)
            except ConfigError as error:
                detail = "spectag check has this check open in a terminal; decide on its page, or end it there"
                raise ProblemError(HTTPStatus.LOCKED, detail) from error
            except DataError as error:
                raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
            except OSError as error:
                detail = f"the decision can't be written: {error.strerror or error}"
                raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, detail) from error

    def summary(self) -> dict[str, Any]:
        """What a list of checks shows, for JSON. The labels with most detections come first."""
        info = self.info
        counts = count_decisions(self.store.rows, info)
        most_first = sorted(counts.items(), key=lambda found: (-found[1].n_detections, found[0]))
        return {
            "name": self.name,
            "table": Path(info.table).name,
            "created": info.created.isoformat(timespec="seconds"),
            "presence": info.presence,
            "labels": [
                {"label": label, "sampled": count.n_sampled, "open": count.n_open, "decided": count.n_decided}
                for label, count in most_first
                if count.n_sampled
            ],
        }


class ProjectChecks:
    """The checks of a project, each opened when it is first asked for.

    Parameters
    ----------
    folder : Path
        Of the project.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / CHECKS
        self._open: dict[str, OpenCheck] = {}
        self._lock = threading.Lock()

    def summaries(self) -> list[dict[str, Any]]:
        """All checks, the newest first; a damaged one has the reason as its problem."""
        found = []
        for path in self.folder.glob(f"*/{CHECK_FILE}"):
            name = path.parent.name
            try:
                found.append(self.get(name).summary())
            except ProblemError as error:
                found.append({"name": name, "created": "", "problem": error.detail})
        return sorted(found, key=lambda check: check["created"], reverse=True)

    def get(self, name: str) -> OpenCheck:
        """A check with the decisions of all programs.

        Raises
        ------
        ProblemError
            If there is none of this name (404), or it is damaged (422).
        """
        folder = self.folder_of(name)
        with self._lock:
            try:
                check = self._open.get(name)
                if check is None or check.file_id != _file_id(folder):
                    if not (folder / CHECK_FILE).is_file():
                        self._open.pop(name, None)
                        raise ProblemError(HTTPStatus.NOT_FOUND, f"there is no check {name} in this project")
                    check = self._open[name] = OpenCheck(folder)
                check.store.reload()
            except DataError as error:
                self._open.pop(name, None)
                raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
            return check

    def folder_of(self, name: str) -> Path:
        """The folder of a check, also of one that does not exist. A ProblemError (422) if the name can't be used."""
        if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "the name of a check has letters, digits, spaces, dots, brackets and hyphens, at most 80",
            )
        return self.folder / name


def names_of_recordings(rows: Sequence[CheckedDetection]) -> tuple[str, ...]:
    """The recordings of a sample, as in its table."""
    return tuple(dict.fromkeys(row.file for row in rows))


def _file_id(folder: Path) -> tuple[int, int] | None:
    """Differs when a sample was drawn again; None if there is none."""
    try:
        found = (folder / CHECK_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
