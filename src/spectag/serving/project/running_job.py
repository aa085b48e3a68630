"""A job in its process: starts it, follows what it writes, and stops it."""

import json
import subprocess  # nosec B404 - runs this Python only
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectag.errors import DataError
from spectag.serving.project.job_kinds import JOB_KINDS
from spectag.serving.project.job_process import SECONDS_TO_STOP

JOBS_FOLDER = "jobs"
_MAX_LOG_LINES = 1_000
_MAX_EPOCHS = 10_000
_OWN_GROUP: dict[str, Any] = (  # so that Ctrl-C in the terminal of the server stops it by the server, in good order
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)


@dataclass
class JobProgress:
    """How far a running job is."""

    step: str = ""
    n_done: int = 0
    n_total: int = 0
    """0: not known."""
    seconds_left: float | None = None
    """Until the whole job is done; None: not known."""
    log: tuple[str, ...] = ()
    epochs: tuple[Mapping[str, Any], ...] = ()
    """The epochs of fine-tuning, as `spectag.system.epoch_log.Epoch`."""


@dataclass
class RunningJob:
    """A job and its process.

    Parameters
    ----------
    number : int
    log : sequence of str
        The lines from before it was resumed.
    on_log : callable
        Called with all lines when there is a new one.
    """

    number: int
    log: Sequence[str]
    on_log: Callable[[Sequence[str]], None]
    progress: JobProgress = field(init=False)
    is_stopped: bool = field(init=False, default=False)
    _process: "subprocess.Popen[bytes] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.progress = JobProgress(log=tuple(self.log))

    def run(self, folder: Path, kind: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """Run it to its end; returns its result.

        Raises
        ------
        DataError
            With the reason, if there is no result.
        OSError
            If its process can't be started, or its log can't be written.
        """
        function = JOB_KINDS.get(kind)
        if function is None:
            raise DataError(f"this version of spectag has no jobs of the kind {kind!r}; start a new one on its page")
        job_folder = folder / JOBS_FOLDER / f"{self.number:04}"
        job_folder.mkdir(parents=True, exist_ok=True)
        log = job_folder / "errors.log"
        command = [sys.executable, "-m", "spectag.serving.project.job_process", str(folder), str(job_folder), function]
        with (
            log.open("ab") as errors,
            subprocess.Popen(  # nosec B603 - this Python, with a kind of job that is known
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, **_OWN_GROUP
            ) as process,
        ):
            self._process = process
            if self.is_stopped:
                self.stop()
            return self._follow(process, query, log)

    def _follow(self, process: "subprocess.Popen[bytes]", query: Mapping[str, Any], log: Path) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError, ValueError):  # it has ended, or was stopped
            process.stdin.write(json.dumps(query).encode() + b"\n")
            process.stdin.flush()
        end: dict[str, Any] = {}
        for line in process.stdout:
            with suppress(ValueError):  # a killed process leaves half a line
                end = self._take(json.loads(line)) or end
        process.wait()
        if end.get("result") is None:
            raise DataError(end.get("problem") or _unexpected_end(process.returncode, log))
        result: dict[str, Any] = end["result"]
        return result

    def _take(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Note an event; the last one, with the result or the problem, is returned."""
        progress = self.progress
        if "progress" in event:
            progress.step, progress.n_done, progress.n_total = event["progress"]
        elif "seconds_left" in event:
            progress.seconds_left = event["seconds_left"]
        elif "epoch" in event:
            progress.epochs = (*progress.epochs, event["epoch"])[-_MAX_EPOCHS:]
        elif "log" in event:
            progress.log = (*progress.log, event["log"])[-_MAX_LOG_LINES:]
            self.on_log(progress.log)
        else:
            return event
        return None

    def stop(self) -> None:
        """Ask the process to end; kill it if it does not."""
        self.is_stopped = True
        process = self._process
        if process is None or process.stdin is None:
            return
        with suppress(OSError, ValueError):
            process.stdin.close()  # which it takes for Ctrl-C
        timer = threading.Timer(SECONDS_TO_STOP, process.kill)
        timer.daemon = True
        timer.start()


def _unexpected_end(status: int, log: Path) -> str:
    """Why a process without a last word has ended, as far as its status says."""
    if status in (-9, 137):
        return (
            "the process was killed, probably because of too little memory; close other programs, then resume the job"
        )
    return f"the process of the job ended with status {status}; {log} has the details"
