"""Where the time goes: seconds that each stage of the work takes, over all threads."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

ItemT = TypeVar("ItemT")


class Stopwatch:
    """Adds up seconds by stage. What is timed within a stage counts for the inner stage alone."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._within = threading.local()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time of the `with` block for a stage."""
        outer: float = getattr(self._within, "seconds", 0.0)
        self._within.seconds = 0.0
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begin
            with self._lock:
                self._seconds[stage] += seconds - self._within.seconds
            self._within.seconds = outer + seconds

    def draws(self, stage: str, items: Iterable[ItemT]) -> Iterator[ItemT]:
        """The same items; the time that making them takes counts for a stage."""
        iterator = iter(items)
        while True:
            with self.timed(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def taken(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        with self._lock:
            seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds
