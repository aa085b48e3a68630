"""Worker processes: one function over many items, on all cores, with memory that does not grow with the items."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Generic, TypeVar

from spectag.errors import SpectagError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_MOST_DEATHS = 5  # of workers, one after another
_ITEMS_AHEAD = 2  # one at work and one waiting, so that a worker never waits for us


class WorkerDiedError(SpectagError):
    """A worker process that ended before it answered, most often killed for lack of memory."""

    def __init__(self, item: object, how: str) -> None:
        super().__init__(
            f"a worker process died ({how}) while it worked on {item}. "
            f"SIGKILL mostly means that memory ran out: try again with fewer workers"
        )
        self.how = how
        """The signal that ended it, or its exit status."""


def n_usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_unordered(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, n_workers: int
) -> Generator[tuple[ItemT, ResultT], None, None]:
    """Give (item, function(item)) for all items, in the order in which they are done.

    Items are drawn as they are needed, and results are not gathered. One worker is this process itself. Closing the
    iterator stops the workers at once, in the middle of what they do; so does Ctrl-C. They also end when this process
    is killed.

    Parameters
    ----------
    function
        A function of a module of this package, or a `functools.partial` of one: the workers import it. What it raises
        is raised here.
    items
        Small things that can be pickled.

    Raises
    ------
    WorkerDiedError
        If a worker was killed.
    ValueError
        If `n_workers` is below 1.
    """
    with closing(map_surviving_crashes(function, items, n_workers=n_workers)) as answers:
        for item, result in answers:
            if isinstance(result, WorkerDiedError):
                raise result
            yield item, result


def map_surviving_crashes(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, n_workers: int
) -> Generator[tuple[ItemT, ResultT | WorkerDiedError], None, None]:
    """The same, but an item whose worker died has the error for its answer, and another worker takes its place.

    Raises
    ------
    WorkerDiedError
        If workers die one after another, and none has answered meanwhile: the fault is not in the items.
    """
    if n_workers < 1:
        raise ValueError(f"need at least 1 worker, got {n_workers}")
    keep_freed_memory()
    if n_workers == 1:
        for item in items:
            yield item, function(item)
        return
    waiting = iter(items)
    n_deaths = 0
    with ExitStack() as stack:
        workers = [stack.enter_context(_started_worker(function)) for _ in range(n_workers)]
        for worker in workers * _ITEMS_AHEAD:
            worker.give(islice(waiting, 1))
        while busy := {worker.connection: worker for worker in workers if worker.items}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                answer: tuple[ItemT, ResultT | WorkerDiedError]
                try:
                    answer = worker.answer()
                    n_deaths = 0
                except WorkerDiedError as error:
                    n_deaths += 1
                    if n_deaths > _MOST_DEATHS:
                        raise
                    answer = worker.items.popleft(), error
                    successor = stack.enter_context(_started_worker(function))
                    successor.give(worker.items)
                    workers[workers.index(worker)] = worker = successor
                worker.give(islice(waiting, 1))
                yield answer


class _Worker(Generic[ItemT, ResultT]):
    """A process, our end of the line to it, and the items that it has not answered yet."""

    def __init__(self, function: Callable[[ItemT], ResultT]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(far_end,), daemon=True)
        with _main_script_hidden(), _interrupts_held_back():
            self.process.start()
        far_end.close()
        self.connection.send(function)
        self.items: deque[ItemT] = deque()

    def give(self, items: Iterable[ItemT]) -> None:
        for item in items:
            self.items.append(item)
            with suppress(BrokenPipeError):  # a dead worker is told of when it does not answer
                self.connection.send(item)

    def answer(self) -> tuple[ItemT, ResultT]:
        try:
            result, error = self.connection.recv()
        except (EOFError, OSError):  # OSError: it ended in the midst of its answer
            raise WorkerDiedError(self.items[0], self._end()) from None
        if error is not None:
            raise error
        return self.items.popleft(), result

    def _end(self) -> str:
        self.process.join()
        status = self.process.exitcode or 0
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


@contextmanager
def _started_worker(function: Callable[[ItemT], ResultT]) -> Iterator[_Worker[ItemT, ResultT]]:
    worker = _Worker(function)
    try:
        yield worker
    finally:
        worker.process.terminate()
        worker.process.join()
        worker.connection.close()


def _serve(connection: Connection) -> None:
    """Answer items until nobody asks any more: a parent that dies hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    os.environ.update(_ONE_THREAD)  # before the function comes, and NumPy with it
    keep_freed_memory()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function = connection.recv()
        while True:
            connection.send(_result_or_error(function, connection.recv()))


def _result_or_error(function: Callable[[ItemT], ResultT], item: ItemT) -> tuple[ResultT | None, Exception | None]:
    try:
        return function(item), None
    except Exception as error:
        error.add_note(f"In a worker process, with {item}:\n{traceback.format_exc()}")
        return None, error


def keep_freed_memory() -> None:
    """Have the C library keep the memory of arrays that are freed for the next ones; half of the time is lost without.

    glibc gives freed memory back to the system only beyond twice the size of the largest block, up to 32 MB, that was
    freed before. Other libraries take no notice.
    """
    bytes(31 << 20)  # comes as untouched pages, so it costs nothing


@contextmanager
def _main_script_hidden() -> Iterator[None]:
    """Keep new processes from running the user's script again: it may import much, or start work at its top level."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Keep Ctrl-C from new processes for good, for it is the parent's to answer; the parent hears of it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which would let Ctrl-C through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
