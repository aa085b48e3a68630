"""Worker processes: results, errors, crashes and interrupts."""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from spectag.errors import MissingExtraError
from spectag.system.worker_pool import (
    Worker,
    WorkerDiedError,
    WorkerStartError,
    map_surviving_crashes,
    map_unordered,
    n_usable_cores,
)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_item_comes_back_once_with_its_result(n_workers):
    assert sorted(map_unordered(abs, range(-40, 0), n_workers=n_workers)) == [(item, -item) for item in range(-40, 0)]


def test_one_worker_is_this_process_and_more_are_others():
    own, others = ({process for _, process in map_unordered(_process_id, range(20), n_workers=n)} for n in (1, 2))
    assert own == {os.getpid()}
    assert len(others) == 2
    assert os.getpid() not in others


def _process_id(item):
    time.sleep(0.02)  # long enough for both workers to get items
    return os.getpid()


def test_process_that_the_system_does_not_start_is_an_error_that_names_the_limits(monkeypatch):
    def refuse(_process):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("spectag.system.worker_pool._start_undisturbed", refuse)
    with pytest.raises(WorkerStartError, match=r"Resource temporarily unavailable; use fewer --workers, .*ulimit -u"):
        list(map_unordered(abs, [1, 2], n_workers=2))


def test_no_items_give_no_results():
    assert list(map_unordered(abs, [], n_workers=2)) == []


@pytest.mark.parametrize("n_workers", [1, 2])
def test_items_are_read_only_when_they_are_needed(n_workers):
    read = []
    endless = (read.append(item) or item for item in iter(int, 1))
    with closing(map_unordered(abs, endless, n_workers=n_workers)) as results:
        for _ in range(5):
            next(results)
    assert len(read) <= 5 + 2 * n_workers


@pytest.mark.parametrize("n_workers", [1, 2])
def test_exception_of_the_function_is_raised_here(n_workers):
    with pytest.raises(ValueError, match=r"invalid literal.*'x'"):
        list(map_unordered(int, ["1", "x"], n_workers=n_workers))


def test_exception_from_a_worker_contains_its_traceback():
    with pytest.raises(ValueError) as caught:
        list(map_unordered(int, ["x"], n_workers=2))
    assert "In a worker process" in caught.value.__notes__[0]


def test_killed_worker_raises_an_error_with_its_item_and_the_signal():
    with pytest.raises(WorkerDiedError, match=r"died \(SIGKILL\) while it worked on 9.*fewer workers"):
        list(map_unordered(signal.raise_signal, [int(signal.SIGKILL)], n_workers=2))


def test_dead_workers_are_replaced_and_only_their_items_are_lost():
    items = [0, 0, int(signal.SIGKILL), 0, int(signal.SIGTERM), 0, 0, 0]
    results = list(map_surviving_crashes(_raise_unless_0, items, n_workers=2))
    assert sorted(item for item, _ in results) == sorted(items)
    causes = {item: result.cause for item, result in results if isinstance(result, WorkerDiedError)}
    assert causes == {signal.SIGKILL: "SIGKILL", signal.SIGTERM: "SIGTERM"}
    assert [result for item, result in results if not item] == ["alive"] * 6


def _raise_unless_0(number):
    if number:
        signal.raise_signal(number)
    return "alive"


def test_workers_that_die_on_every_item_are_not_replaced_forever():
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        list(map_surviving_crashes(signal.raise_signal, [int(signal.SIGKILL)] * 50, n_workers=2))


def test_worker_that_dies_while_it_sends_a_result_raises_an_error():
    with closing(Worker(signal.raise_signal)) as worker:
        worker.send([int(signal.SIGKILL)])
        worker.process.join()
        worker.connection = _TruncatedConnection()
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            worker.receive()


class _TruncatedConnection:
    def recv(self):
        raise OSError("got end of file during message")  # as multiprocessing raises it

    def close(self):
        pass


def test_workers_use_one_thread_each():
    assert dict(map_unordered(os.getenv, ["OMP_NUM_THREADS"], n_workers=2)) == {"OMP_NUM_THREADS": "1"}


def test_closing_the_generator_stops_busy_workers():
    results = map_unordered(time.sleep, [0, 600, 600], n_workers=2)
    started = time.monotonic()
    next(results)
    results.close()
    assert time.monotonic() - started < 60


def test_workers_do_not_run_a_script_without_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from spectag.system.worker_pool import map_unordered\n"
        "print('start')\nprint(sorted(map_unordered(abs, [-1, -2], n_workers=2)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("start\n[(-2, 2), (-1, 1)]\n", "")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_their_parent_is_killed_or_interrupted(signal_number):
    script = (
        "from spectag.system.worker_pool import map_unordered\n"
        "for _ in map_unordered(int, range(10**9), n_workers=2): print('ready', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        parent.stdout.readline()
        parent.send_signal(signal_number)
        parent.stdout.read()  # returns when all processes that hold the pipe have ended
    assert parent.returncode != 0


def test_at_least_one_core_is_usable():
    assert n_usable_cores() >= 1


def test_missing_extra_error_is_raised_from_a_worker():
    with pytest.raises(MissingExtraError, match=r"reading needs the package av: pip install 'spectag\[av\]'"):
        list(map_unordered(_needs_av, [0], n_workers=2))


def _needs_av(_):
    raise MissingExtraError("av", "av", "reading")
