"""A stopwatch that adds up the time of each stage of the work."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

ItemT = TypeVar("ItemT")


class Stopwatch:
    """Seconds per stage, summed over all threads. Time in a nested stage counts for the nested stage only."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._nested = threading.local()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the `with` block to a stage."""
        earlier: float = getattr(self._nested, "seconds", 0.0)
        self._nested.seconds = 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self._seconds[stage] += seconds - self._nested.seconds
            self._nested.seconds = earlier + seconds

    def timed_items(self, stage: str, items: Iterable[ItemT]) -> Iterator[ItemT]:
        """The same items. The time that the iterable needs to produce them is added to a stage."""
        iterator = iter(items)
        while True:
            with self.timed(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def read_and_reset(self) -> dict[str, float]:
        """Seconds per stage since the last call."""
        with self._lock:
            seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds
