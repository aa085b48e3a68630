"""Jobs for tests, and projects whose server knows them."""

import errno
import math
import os
import time
from pathlib import Path

from spectag.errors import DataError
from spectag.system.epoch_log import Epoch

KINDS = {
    kind: f"helpers.project_jobs:{kind}"
    for kind in (
        "double",
        "wait",
        "fail",
        "crash",
        "half_a_line",
        "need_too_much_memory",
        "print_to_stdout",
        "diverge",
        "fill_disk",
    )
}
TESTS = Path(__file__).parents[1]


def double(context, query):
    """Twice a number, with all events."""
    context.progress("doubling", 0, 2)
    context.progress("doubling", 2, 2)
    context.log("doubled")
    context.on_epoch(Epoch(1, 0.5, 0.25, None, None))
    context.seconds_left(3.5)
    return {"number": 2 * query["number"]}


def wait(context, query):
    """Waits until the file `go` is there, and notes its process in the folder of the job."""
    count = len(list(context.job_folder.glob("pid-*")))
    (context.job_folder / f"pid-{count}").write_text(str(os.getpid()), encoding="ascii")
    context.log(f"run {count + 1}")
    context.progress("waiting", 1, 3)
    while not (context.folder / "go").exists():
        time.sleep(0.01)
    return {"runs": count + 1}


def fail(_context, _query):
    """Fails for a reason that people can understand."""
    raise DataError("clips.csv, line 3: no such file; correct the name")


def crash(_context, _query):
    """Ends the process without a word."""
    os._exit(7)


def half_a_line(context, _query):
    """Is killed while it writes an event."""
    write = context.log.__self__._out
    write.write('{"log": "this line is not comp')
    write.flush()
    os.kill(os.getpid(), 9)


def need_too_much_memory(_context, _query):
    """Needs more memory than there is."""
    raise MemoryError


def diverge(context, _query):
    """Has a loss that is no number."""
    context.on_epoch(Epoch(1, math.nan, None, math.inf, None))
    return {"loss": math.nan, "losses": [math.inf, 0.5]}


def fill_disk(_context, _query):
    """Finds the disk full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.onnx")


def print_to_stdout(_context, _query):
    """Does what careless libraries do."""
    print('{"result": "not mine"}', flush=True)
    return {"is": "mine"}


def wait_until(condition, seconds=20.0):
    """Wait for a condition; an AssertionError if it does not become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.01)
