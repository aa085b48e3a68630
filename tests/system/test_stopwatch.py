"""The stopwatch: seconds per stage."""

from threading import Barrier, Thread, local

import pytest

from spectag.system import stopwatch
from spectag.system.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A stopwatch whose clock advances by one second with every call."""
    ticks = iter(range(1_000))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(ticks)))
    return Stopwatch()


def test_time_of_a_nested_stage_does_not_count_for_the_outer_stage(clock):
    with clock.timed("outer"):  # 0 to 5
        with clock.timed("inner"):  # 1 to 2
            pass
        with clock.timed("inner"):  # 3 to 4
            pass
    assert clock.read_and_reset() == {"inner": 2.0, "outer": 3.0}


def test_only_the_time_to_produce_items_counts(clock):
    items = []
    for item in clock.timed_items("reading", "ab"):
        stopwatch.time.perf_counter()  # work of the caller: one second
        items.append(item)
    assert items == ["a", "b"]
    assert clock.read_and_reset() == {"reading": 3.0}  # two items, and the end


def test_reading_resets_the_seconds(clock):
    with clock.timed("a"):
        pass
    assert clock.read_and_reset() == {"a": 1.0}
    assert clock.read_and_reset() == {}


def test_failed_stage_counts(clock):
    with pytest.raises(ZeroDivisionError), clock.timed("a"):
        raise ZeroDivisionError
    assert clock.read_and_reset() == {"a": 1.0}


def test_times_of_threads_are_added(monkeypatch):
    """Both threads are in the stage at the same time; in each, its own clock advances by one second."""
    own_clock = local()

    def perf_counter():
        own_clock.seconds = getattr(own_clock, "seconds", 0.0) + 1.0
        return own_clock.seconds

    monkeypatch.setattr(stopwatch.time, "perf_counter", perf_counter)
    watch, both_started = Stopwatch(), Barrier(2)

    def work():
        with watch.timed("a"):
            both_started.wait(10)

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watch.read_and_reset() == {"a": 2.0}
