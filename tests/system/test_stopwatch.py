"""Where the time goes."""

import time
from threading import Thread

import pytest

from spectag.system import stopwatch
from spectag.system.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """Time passes by one second whenever somebody looks at the clock."""
    ticks = iter(range(1_000))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(ticks)))
    return Stopwatch()


def test_inner_stage_is_taken_from_the_outer_one(clock):
    with clock.timed("outer"):  # 0 to 5
        with clock.timed("inner"):  # 1 to 2
            pass
        with clock.timed("inner"):  # 3 to 4
            pass
    assert clock.taken() == {"inner": 2.0, "outer": 3.0}


def test_drawing_counts_and_what_is_done_with_the_items_does_not(clock):
    assert [item for item in clock.draws("drawing", "ab") if time.perf_counter()] == ["a", "b"]
    assert clock.taken() == {"drawing": 3.0}  # two items, and the end


def test_what_was_told_is_not_told_again(clock):
    with clock.timed("a"):
        pass
    assert clock.taken() == {"a": 1.0}
    assert clock.taken() == {}


def test_stage_that_fails_counts_too(clock):
    with pytest.raises(ZeroDivisionError), clock.timed("a"):
        raise ZeroDivisionError
    assert clock.taken() == {"a": 1.0}


def test_threads_add_up():
    watch = Stopwatch()

    def work():
        with watch.timed("a"):
            time.sleep(0.02)

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watch.taken()["a"] >= 0.06
