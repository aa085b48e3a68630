"""Worker processes with limits: a hostile file ends its worker, and nothing else."""

import asyncio
import os
import signal
import time

import pytest

from helpers.bundles import make_bundle, make_info
from spectag.config.base import Config
from spectag.serving.answers import AnswerLimits, Question
from spectag.serving.workers import AnswerWorkers
from spectag.system.limited_worker import LimitedWorker, WorkerTimeoutError
from spectag.system.worker_pool import WorkerDiedError


def work(item):
    if item == "sleep":
        time.sleep(60)
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "memory":
        return len(bytearray(3 << 30))
    if item == "raise":
        raise KeyError(item)
    return item * 2


@pytest.fixture
def worker():
    worker = LimitedWorker(work, seconds=2, gigabytes=1)
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("item", "error"),
    [("sleep", WorkerTimeoutError), ("die", WorkerDiedError), ("memory", MemoryError), ("raise", KeyError)],
)
def test_next_item_is_done_after_one_that_breaks_a_limit(worker, item, error):
    assert worker.ask("a") == "aa"
    with pytest.raises(error):
        worker.ask(item)
    assert worker.ask("b") == "bb"


def test_first_item_of_a_process_has_the_limit_of_all_others(worker):
    for _ in range(2):  # each in a new process
        start = time.monotonic()
        with pytest.raises(WorkerTimeoutError, match="it took longer than 2 s"):
            worker.ask("sleep")
        assert time.monotonic() - start < 40


def length_of(_limits, question):
    return {"bytes": question.path.stat().st_size}


def test_worker_is_free_again_if_its_request_is_cancelled(tmp_path):
    """A request that ends while the server asks whether its client has left keeps no worker."""
    limits = AnswerLimits(make_bundle(tmp_path / "model", make_info()), None, 60.0)
    (tmp_path / "a.wav").write_bytes(bytes(7))
    question = Question(length_of, tmp_path / "a.wav", "a.wav", Config())

    async def never():
        await asyncio.sleep(60)
        return False

    async def ask():
        workers = AnswerWorkers(limits, n_workers=1, seconds=10, gigabytes=2, max_waiting=1)
        workers.start()
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(workers.ask(question, never), 5)
            return await asyncio.wait_for(workers.ask(question), 30)
        finally:
            workers.close()

    assert asyncio.run(ask()) == b'{"bytes":7}'
