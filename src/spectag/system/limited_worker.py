"""A worker process with limits of time and memory, for files of strangers."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from spectag.errors import SpectagError
from spectag.system.worker_pool import Worker

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_START_SECONDS = 60.0  # for the imports of a new process, on a busy machine


class WorkerTimeoutError(SpectagError):
    """The work on an item took too long; its worker process was ended."""


class LimitedWorker(Generic[ItemT, ResultT]):
    """Applies a function to one item after another in a process of its own, which is replaced when it dies.

    Parameters
    ----------
    function
        A function that the process can import, or a `functools.partial` of one. Its exceptions are raised here.
    seconds : float
        Longest time for an item.
    gigabytes : float
        Memory that the process may use beyond that of its start; on Linux.
    prepare
        Called once in each new process, without limits: it loads what all items need.
    """

    def __init__(
        self,
        function: Callable[[ItemT], ResultT],
        *,
        seconds: float,
        gigabytes: float,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._function = partial(_with_limited_memory, function, prepare, round(gigabytes * 2**30))
        self._seconds = seconds
        self._worker: Worker[ItemT | None, ResultT | None] | None = None

    def warm_up(self) -> None:
        """Start and prepare the process, if there is none. Errors are those of `ask`, and of `prepare`."""
        self._started()

    def ask(self, item: ItemT) -> ResultT:
        """The result for an item.

        Raises
        ------
        WorkerTimeoutError
            If it takes longer than the limit.
        WorkerDiedError
            If the process dies.
        WorkerStartError
            If the system does not start a process.
        """
        result = self._result(self._started(), item, self._seconds)
        assert result is not None
        return result

    def _started(self) -> Worker[ItemT | None, ResultT | None]:
        """A prepared process. The time of its start is not that of its first item."""
        worker = self._worker
        if worker is None:
            worker = self._worker = Worker(self._function)
            self._result(worker, None, self._seconds + _START_SECONDS)
        return worker

    def _result(
        self, worker: Worker[ItemT | None, ResultT | None], item: ItemT | None, seconds: float
    ) -> ResultT | None:
        try:
            worker.send([item])
            if worker.connection.poll(seconds):
                return worker.receive()[1]
        except BaseException:
            self.close()
            raise
        self.close()
        raise WorkerTimeoutError(f"it took longer than {seconds:g} s")

    def close(self) -> None:
        """End the process; the next item starts another one. Another thread may be asking."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.process.kill()
            worker.close()


_is_prepared = False


def _with_limited_memory(
    function: Callable[[ItemT], ResultT], prepare: Callable[[], object] | None, n_bytes: int, item: ItemT | None
) -> ResultT | None:
    global _is_prepared
    if not _is_prepared:
        if prepare is not None:
            prepare()
        _limit_memory(n_bytes)
    _is_prepared = True
    return None if item is None else function(item)


def _limit_memory(n_bytes: int) -> None:
    """Let this process use so much memory beyond that of now."""
    if sys.platform == "linux":
        import resource

        with suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            limit = pages * resource.getpagesize() + n_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
