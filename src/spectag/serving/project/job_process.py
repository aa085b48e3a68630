"""The process of a job: reads what to do from stdin, and writes progress and the result to stdout, as lines of JSON.

The end of stdin stops it, also when the server was killed.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from _thread import interrupt_main
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock

from spectag.errors import SpectagError
from spectag.serving.project.job_kinds import JobContext, imported_function
from spectag.system.epoch_log import Epoch
from spectag.system.file_errors import reason_of

SECONDS_TO_STOP = 20.0
"""After which a job that was asked to stop is ended at once."""
_SECONDS_BETWEEN_EVENTS = 0.1
_LOCK = ".running.lock"


class _Events:
    """Writes events to the server."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last, self._step = 0.0, ""

    def progress(self, step: str, n_done: int, n_total: int, /) -> None:
        """Report how far the job is, not too often."""
        now = time.monotonic()
        if step != self._step or n_done == n_total or now - self._last >= _SECONDS_BETWEEN_EVENTS:
            self._last, self._step = now, step
            self.write({"progress": [step, n_done, n_total]})

    def log(self, line: str, /) -> None:
        """Hand on a note."""
        self.write({"log": line})

    def epoch(self, epoch: Epoch) -> None:
        """Hand on the scores of an epoch."""
        self.write({"epoch": asdict(epoch)})

    def seconds_left(self, seconds: float) -> None:
        """Hand on how long the job still takes."""
        self.write({"seconds_left": seconds})

    def write(self, event: dict[str, Any]) -> None:
        """Write an event. Losses that are not finite become None, as pages can't read them."""
        from spectag.scoring.bootstrap import as_json  # slow to import, and the server imports this module

        self._out.write(json.dumps(as_json(event)) + "\n")
        self._out.flush()


def run_job() -> int:
    """Run a job; the exit status is 0 if it succeeds."""
    folder, job_folder, function = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    events = _Events(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # what libraries print must not be taken for events
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a server in the background ignores it
    try:
        query = json.loads(sys.stdin.readline() or "{}")
        threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()
        with FileLock(job_folder.parent / _LOCK):  # a job whose server was killed may not have ended yet
            context = JobContext(folder, events.progress, events.log, job_folder, events.epoch, events.seconds_left)
            result = imported_function(function)(context, query)
    except SpectagError as error:
        events.write({"problem": str(error)})
        return 1
    except OSError as error:
        traceback.print_exc()  # into the log of the job
        with suppress(OSError):  # the server may be gone
            events.write({"problem": f"{_place_of(error)}{reason_of(error)}; see whether the disk is full"})
        return 1
    except MemoryError:
        events.write({"problem": "there is not enough memory; close other programs, or use a smaller recipe"})
        return 1
    except KeyboardInterrupt:
        with suppress(OSError):  # the server may be gone
            events.write({"problem": "stopped"})
        return 1
    events.write({"result": result})
    return 0


def _place_of(error: OSError) -> str:
    return "" if error.filename is None else f"{error.filename}: "


def _stop_at_end_of_stdin() -> None:
    sys.stdin.read()
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)  # also ends waiting in the C library
    else:
        interrupt_main()
    time.sleep(SECONDS_TO_STOP)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(run_job())
