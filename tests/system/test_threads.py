"""NumPy's threads where the system allows only a few."""

import os
import threading

import pytest

from spectag.system.threads import use_few_threads_if_needed


@pytest.fixture
def variables(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the wish of the user
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    return os.environ


def test_environment_stays_as_it_is_where_threads_can_start(variables):
    before = threading.active_count()
    use_few_threads_if_needed()
    assert threading.active_count() == before
    assert "OPENBLAS_NUM_THREADS" not in variables


def test_numpy_gets_one_thread_where_no_thread_can_start(variables, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    use_few_threads_if_needed()
    assert variables["OPENBLAS_NUM_THREADS"] == "1"
    assert variables["OMP_NUM_THREADS"] == "2"
