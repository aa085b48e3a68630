"""Threads: work on several items at once, and machines that allow only a few threads."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from spectag.system.worker_pool import n_usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def use_few_threads_if_needed() -> None:
    """Let NumPy and others use one thread if the system does not allow one per core. Call it before they are imported.

    OpenBLAS starts its threads at the import of NumPy. If it cannot, it interrupts the process as Ctrl-C does.
    """
    finish = threading.Event()
    threads = []
    try:
        for _ in range(n_usable_cores()):
            thread = threading.Thread(target=finish.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        for variable in _VARIABLES:
            os.environ.setdefault(variable, "1")
    finally:
        finish.set()
        for thread in threads:
            thread.join()


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, n_threads: int, n_ahead: int = 3
) -> Generator[Result]:
    """The results of a function for each item, in order, computed by threads ahead of their use.

    Items are taken from the iterable in the thread of the caller, at most `n_ahead` per thread before they are needed.
    An error of an item is raised in its place. Work that has not begun is dropped if the generator is closed.
    """
    pool = ThreadPoolExecutor(n_threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > n_ahead * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
