import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from spectag.errors import MissingExtraError
from spectag.system.worker_pool import (
    WorkerDiedError,
    _started_worker,
    map_surviving_crashes,
    map_unordered,
    n_usable_cores,
)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_item_comes_back_once_with_its_result(n_workers):
    assert sorted(map_unordered(abs, range(-40, 0), n_workers=n_workers)) == [(item, -item) for item in range(-40, 0)]


def test_workers_are_other_processes_and_one_worker_is_this_one():
    here, there = ({process for _, process in map_unordered(_process_id, range(20), n_workers=n)} for n in (1, 2))
    assert here == {os.getpid()}
    assert len(there) == 2
    assert os.getpid() not in there


def _process_id(item):
    time.sleep(0.02)  # long enough for both workers to get some
    return os.getpid()


def test_no_items_are_no_results():
    assert list(map_unordered(abs, [], n_workers=2)) == []


@pytest.mark.parametrize("n_workers", [1, 2])
def test_items_are_drawn_only_as_they_are_needed(n_workers):
    drawn = []
    endless = (drawn.append(item) or item for item in iter(int, 1))
    with closing(map_unordered(abs, endless, n_workers=n_workers)) as results:
        for _ in range(5):
            next(results)
    assert len(drawn) <= 5 + 2 * n_workers


@pytest.mark.parametrize("n_workers", [1, 2])
def test_what_the_function_raises_is_raised_here(n_workers):
    with pytest.raises(ValueError, match=r"invalid literal.*'x'"):
        list(map_unordered(int, ["1", "x"], n_workers=n_workers))


def test_an_error_in_a_worker_tells_where_it_was_raised():
    with pytest.raises(ValueError) as caught:
        list(map_unordered(int, ["x"], n_workers=2))
    assert "In a worker process" in caught.value.__notes__[0]


def test_a_killed_worker_is_an_error_that_names_its_item_and_the_signal():
    with pytest.raises(WorkerDiedError, match=r"died \(SIGKILL\) while it worked on 9.*fewer workers"):
        list(map_unordered(signal.raise_signal, [int(signal.SIGKILL)], n_workers=2))


def test_others_take_the_place_of_workers_that_die_and_only_their_items_are_lost():
    items = [0, 0, int(signal.SIGKILL), 0, int(signal.SIGTERM), 0, 0, 0]
    answers = list(map_surviving_crashes(_raise_unless_0, items, n_workers=2))
    assert sorted(item for item, _ in answers) == sorted(items)
    how = {item: answer.how for item, answer in answers if isinstance(answer, WorkerDiedError)}
    assert how == {signal.SIGKILL: "SIGKILL", signal.SIGTERM: "SIGTERM"}
    assert [answer for item, answer in answers if not item] == ["lives"] * 6


def _raise_unless_0(number):
    if number:
        signal.raise_signal(number)
    return "lives"


def test_workers_that_die_on_everything_are_not_replaced_for_ever():
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        list(map_surviving_crashes(signal.raise_signal, [int(signal.SIGKILL)] * 50, n_workers=2))


def test_worker_that_dies_in_the_midst_of_its_answer_has_died():
    with _started_worker(signal.raise_signal) as worker:
        worker.give([int(signal.SIGKILL)])
        worker.process.join()
        worker.connection = _Torn()
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            worker.answer()


class _Torn:
    def recv(self):
        raise OSError("got end of file during message")  # as multiprocessing has it

    def close(self):
        pass


def test_workers_run_with_one_thread_each():
    assert dict(map_unordered(os.getenv, ["OMP_NUM_THREADS"], n_workers=2)) == {"OMP_NUM_THREADS": "1"}


def test_closing_early_ends_the_workers_in_the_middle_of_their_work():
    results = map_unordered(time.sleep, [0, 600, 600], n_workers=2)
    started = time.monotonic()
    next(results)
    results.close()
    assert time.monotonic() - started < 60


def test_a_script_without_main_guard_is_not_run_again_by_the_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from spectag.system.worker_pool import spread\n"
        "print('begin')\nprint(sorted(spread(abs, [-1, -2], n_workers=2)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("begin\n[(-2, 2), (-1, 1)]\n", "")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent_however_it_ends(signal_number):
    script = (
        "from spectag.system.worker_pool import spread\n"
        "for _ in spread(int, range(10**9), n_workers=2): print('ready', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        parent.stdout.readline()
        parent.send_signal(signal_number)
        parent.stdout.read()  # comes back when no process holds the pipe any more, so when all have ended
    assert parent.returncode != 0


def test_there_is_at_least_one_core():
    assert n_usable_cores() >= 1


def test_missing_package_is_told_from_a_worker_too():
    with pytest.raises(MissingExtraError, match=r"reading needs the package av: pip install 'spectag\[av\]'"):
        list(map_unordered(_needs_av, [0], n_workers=2))


def _needs_av(_):
    raise MissingExtraError("av", "av", "reading")
