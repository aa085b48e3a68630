"""Worker processes: apply one function to many items on all cores, with constant memory.

`map_unordered` stops at the first error. `map_surviving_crashes` goes on when a worker process is killed: only the item
of that worker is lost, and the error names it. Pools of other libraries fail with all pending items in that case.
"""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, suppress
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Generic, TypeVar

from spectag.errors import ConfigError, SpectagError
from spectag.system.garbage import GARBAGE_THRESHOLD

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_MAX_CONSECUTIVE_CRASHES = 5
_ITEMS_PER_WORKER = 2  # one in work and one waiting, so that a worker is never idle


class WorkerDiedError(SpectagError):
    """A worker process ended before it returned a result. The most frequent reason is a lack of memory."""

    def __init__(self, item: object, cause: str) -> None:
        super().__init__(
            f"a worker process died ({cause}) while it worked on {item}. "
            f"SIGKILL usually means that memory ran out: try again with fewer workers"
        )
        self.cause = cause
        """The name of the signal, or the exit status."""


class WorkerStartError(SpectagError):
    """The system does not start another process: too many processes or open files, or too little memory."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"can't start a worker process: {cause}; use fewer --workers, or raise the limits of the system "
            "(ulimit -u and -n)"
        )


def n_usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_n_workers(workers: int | None) -> None:
    """Raise a ConfigError if a number of workers is not 1 or more; None stands for the default."""
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be 1 or more, got {workers}; leave it out to use all cores")


def map_unordered(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, n_workers: int
) -> Generator[tuple[ItemT, ResultT], None, None]:
    """Yield (item, function(item)) for all items, in the order in which they are finished.

    Items are read only when a worker needs them, and results are not stored. With one worker, this process does the
    work. Workers stop at once when the generator is closed and on Ctrl-C. When this process is killed, each worker
    stops after its current item.

    Parameters
    ----------
    function
        A function that workers can import, or a `functools.partial` of one. Its exceptions are raised here.
    items
        Small objects that can be pickled.
    n_workers : int
        Number of processes.

    Raises
    ------
    WorkerDiedError
        If a worker process is killed.
    WorkerStartError
        If the system does not start the processes.
    ValueError
        If `n_workers` is below 1.
    """
    with closing(map_surviving_crashes(function, items, n_workers=n_workers)) as results:
        for item, result in results:
            if isinstance(result, WorkerDiedError):
                raise result
            yield item, result


def map_surviving_crashes(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, n_workers: int
) -> Generator[tuple[ItemT, ResultT | WorkerDiedError], None, None]:
    """Like `map_unordered`, but an item whose worker dies gets the error as its result, and a new worker goes on.

    Raises
    ------
    WorkerDiedError
        If several workers die one after another without any result: then the items are not the reason.
    ValueError
        If `n_workers` is below 1.
    """
    if n_workers < 1:
        raise ValueError(f"need at least 1 worker, got {n_workers}")
    keep_freed_memory()
    if n_workers == 1:
        for item in items:
            yield item, function(item)
        return
    remaining = iter(items)
    n_crashes = 0
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(function))) for _ in range(n_workers)]
        for worker in workers * _ITEMS_PER_WORKER:
            worker.send(islice(remaining, 1))
        while busy := {worker.connection: worker for worker in workers if worker.items}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                item_and_result: tuple[ItemT, ResultT | WorkerDiedError]
                try:
                    item_and_result = worker.receive()
                    n_crashes = 0
                except WorkerDiedError as error:
                    n_crashes += 1
                    if n_crashes > _MAX_CONSECUTIVE_CRASHES:
                        raise
                    item_and_result = worker.items.popleft(), error
                    successor = stack.enter_context(closing(Worker(function)))
                    successor.send(worker.items)
                    workers[workers.index(worker)] = worker = successor
                worker.send(islice(remaining, 1))
                yield item_and_result


class Worker(Generic[ItemT, ResultT]):
    """A process that applies a function to items, the connection to it, and the items without a result.

    Raises
    ------
    WorkerStartError
        If the system does not start the process.
    """

    def __init__(self, function: Callable[[ItemT], ResultT]) -> None:
        context = multiprocessing.get_context("spawn")
        try:
            self.connection, worker_end = context.Pipe()
            self.process = context.Process(target=_serve, args=(worker_end,), daemon=True)
            _start_undisturbed(self.process)
        except FileNotFoundError:  # the current folder was deleted
            raise
        except OSError as error:
            raise WorkerStartError(error.strerror or str(error)) from error
        worker_end.close()
        self.connection.send(function)
        self.items: deque[ItemT] = deque()

    def send(self, items: Iterable[ItemT]) -> None:
        """Send items; their results come in the same order."""
        for item in items:
            self.items.append(item)
            with suppress(BrokenPipeError):  # `receive` reports a dead worker
                self.connection.send(item)

    def receive(self) -> tuple[ItemT, ResultT]:
        """Wait for the next result. A WorkerDiedError if the process dies; errors of the function are raised."""
        try:
            result, error = self.connection.recv()
        except (EOFError, OSError):  # OSError: the worker died while it sent its result
            self.process.join()
            status = self.process.exitcode or 0
            cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            raise WorkerDiedError(self.items[0], cause) from None
        if error is not None:
            raise error
        return self.items.popleft(), result

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """Send back results until the parent process closes the connection or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.environ.update(_ONE_THREAD)  # before NumPy is imported with the function
    gc.set_threshold(GARBAGE_THRESHOLD)
    keep_freed_memory()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function = connection.recv()
        while True:
            item = connection.recv()
            result = failure = None
            try:
                result = function(item)
            except Exception as error:
                error.add_note(f"In a worker process, with {item}:\n{traceback.format_exc()}")
                failure = error
            connection.send((result, failure))


def keep_freed_memory() -> None:
    """Make the C library reuse the memory of freed arrays (glibc; no effect elsewhere).

    glibc returns freed memory to the system if it is more than twice the size of the largest block, up to 32 MB, that
    was freed before. The next array then costs new page faults: benchmarks/freed_memory.py measures the loss of time.
    """
    bytes(31 << 20)  # untouched pages cost nothing


def _start_undisturbed(process: BaseProcess) -> None:
    """Start a process with Ctrl-C blocked, and without the user's script, which may start work at its top level.

    This process receives Ctrl-C after the start.
    """
    with ExitStack() as stack:
        stack.callback(sys.modules.__setitem__, "__main__", sys.modules["__main__"])
        sys.modules["__main__"] = ModuleType("__main__")
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            resource_tracker.ensure_running()  # it would unblock Ctrl-C when it starts
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        process.start()
