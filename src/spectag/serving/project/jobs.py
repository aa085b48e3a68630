"""Jobs of a project: work that takes longer than a request, one after another, each in a process of its own."""

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Row
from typing import Any, Literal, get_args

from spectag.errors import ConfigError, DataError
from spectag.serving.project.database import ProjectDatabase, json_object, plain_values, text_list
from spectag.serving.project.job_kinds import JOB_KINDS
from spectag.serving.project.running_job import JobProgress, RunningJob

JobState = Literal["waiting", "running", "done", "failed", "stopped", "interrupted"]
ENDED: tuple[JobState, ...] = ("done", "failed", "stopped", "interrupted")
RESUMABLE: tuple[JobState, ...] = ("failed", "stopped", "interrupted")
JOB_SCHEMA = (
    f"""CREATE TABLE IF NOT EXISTS job (
        number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, title TEXT NOT NULL, query TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN {get_args(JobState)}), created TEXT NOT NULL, started TEXT, ended TEXT,
        result TEXT, problem TEXT NOT NULL DEFAULT '', log TEXT NOT NULL DEFAULT '[]'
    )""",
)
_logger = logging.getLogger("spectag")
_NOT_AGAIN = "the server ended while it ran; resume it"


@dataclass(frozen=True)
class Job:
    """A job, as it is now."""

    number: int
    kind: str
    title: str
    query: Mapping[str, Any]
    state: JobState
    created: str
    """Times are in UTC, as ISO 8601."""
    started: str | None
    ended: str | None
    result: Mapping[str, Any] | None
    """What the job's function returned, when it is done."""
    problem: str
    """Why it failed."""
    log: tuple[str, ...]
    progress: JobProgress | None = None
    """None if it does not run."""


class Jobs:
    """The jobs of a project. They use all cores, so one runs at a time, and the others wait.

    Those that ran when a server was killed count as interrupted, and can be resumed.

    Parameters
    ----------
    database : ProjectDatabase
    folder : Path
        Of the project.
    """

    def __init__(self, database: ProjectDatabase, folder: Path) -> None:
        self._database, self._folder = database, folder
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: RunningJob | None = None
        self._is_closed = False
        with database.transaction() as connection:
            connection.execute(
                "UPDATE job SET state = 'interrupted', ended = ?, problem = ? WHERE state = 'running'",
                (_now(), _NOT_AGAIN),
            )
            has_waiting = connection.execute("SELECT 1 FROM job WHERE state = 'waiting'").fetchone() is not None
        if has_waiting:
            self._run_waiting()

    def start(self, kind: str, query: Mapping[str, Any], title: str) -> int:
        """Add a job that runs when those before it have ended.

        Parameters
        ----------
        kind : str
            One of JOB_KINDS.
        query : mapping
            For its function; JSON.
        title : str
            For people.

        Returns
        -------
        int
            Its number.
        """
        assert kind in JOB_KINDS, kind
        with self._database.transaction() as connection:
            number = connection.execute(
                "INSERT INTO job (kind, title, query, state, created) VALUES (?, ?, ?, 'waiting', ?)",
                (kind, title, json.dumps(query), _now()),
            ).lastrowid
        assert number is not None
        self._run_waiting()
        return number

    def all(self) -> list[Job]:
        """All jobs, newest first."""
        return [self._job(row) for row in self._database.rows("SELECT * FROM job ORDER BY number DESC")]

    def get(self, number: int) -> Job | None:
        """A job by its number; None if there is none."""
        rows = self._database.rows("SELECT * FROM job WHERE number = ?", number)
        return self._job(rows[0]) if rows else None

    def last(self, kind: str) -> Job | None:
        """The newest job of a kind."""
        rows = self._database.rows("SELECT * FROM job WHERE kind = ? ORDER BY number DESC LIMIT 1", kind)
        return self._job(rows[0]) if rows else None

    def stop(self, number: int) -> None:
        """Stop a job, as Ctrl-C would; one that has ended stays as it is."""
        with self._lock:
            running = self._running
            if running is not None and running.number == number:
                running.stop()
                return
            self._set_state(number, "stopped", "waiting")

    def resume(self, number: int) -> None:
        """Run a job again that did not succeed, with what it was asked for. A ConfigError if it is not such a job."""
        with self._database.transaction() as connection:
            changed = connection.execute(
                f"UPDATE job SET state = 'waiting', started = NULL, ended = NULL, problem = '' "  # nosec B608
                f"WHERE number = ? AND state IN {RESUMABLE}",
                (number,),
            ).rowcount
        if not changed:
            raise ConfigError("only a job that was stopped, interrupted or has failed can be resumed")
        self._run_waiting()

    def close(self) -> None:
        """Stop the job that runs. It counts as interrupted; those that wait run when the project is opened again."""
        with self._lock:
            self._is_closed = True
            if self._running is not None:
                self._running.stop()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run_waiting(self) -> None:
        with self._lock:
            if self._is_closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run_all, name="spectag jobs", daemon=True)
            self._thread.start()

    def _run_all(self) -> None:
        while (row := self._next()) is not None:
            self._run(row)

    def _next(self) -> Row | None:
        """The oldest job that waits, which is then the running one. With none left, the thread has ended."""
        with self._lock:
            rows = self._database.rows("SELECT * FROM job WHERE state = 'waiting' ORDER BY number LIMIT 1")
            if self._is_closed or not rows:
                self._thread = None
                return None
            number = rows[0]["number"]
            self._set_state(number, "running", "waiting")
            self._running = RunningJob(number, text_list(rows[0]["log"]), lambda lines: self._store_log(number, lines))
            return rows[0]

    def _run(self, row: Row) -> None:
        running = self._running
        assert running is not None
        try:
            result, problem = running.run(self._folder, row["kind"], json_object(row["query"])), ""
        except (DataError, OSError) as error:
            result, problem = None, str(error)
        state: JobState = "done" if result is not None else "failed"
        if result is None and running.is_stopped:
            state, problem = ("interrupted", _NOT_AGAIN) if self._is_closed else ("stopped", "")
        with self._lock:
            self._running = None
            try:
                self._store_end(running, state, result, problem)
            except DataError:
                _logger.exception("the end of job %d can't be stored", running.number)

    def _store_end(self, running: RunningJob, state: JobState, result: Mapping[str, Any] | None, problem: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE job SET state = ?, ended = ?, result = ?, problem = ?, log = ? WHERE number = ?",
                (state, _now(), json.dumps(result), problem, json.dumps(running.progress.log), running.number),
            )

    def _set_state(self, number: int, state: JobState, before: JobState) -> None:
        column = "started" if state == "running" else "ended"
        with self._database.transaction() as connection:
            connection.execute(
                f"UPDATE job SET state = ?, {column} = ? WHERE number = ? AND state = ?",  # nosec B608
                (state, _now(), number, before),
            )

    def _store_log(self, number: int, lines: Sequence[str]) -> None:
        with self._database.transaction() as connection:
            connection.execute("UPDATE job SET log = ? WHERE number = ?", (json.dumps(lines), number))

    def _job(self, row: Row) -> Job:
        running = self._running
        values = plain_values(row)
        values["query"] = json_object(row["query"])
        values["result"] = None if row["result"] in (None, "null") else json_object(row["result"])
        values["log"] = tuple(text_list(row["log"]))
        if running is not None and running.number == row["number"]:
            values.update(progress=running.progress, log=running.progress.log)
        return Job(**values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
