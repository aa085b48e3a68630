"""Signals that stop the process: they all raise the same exception once, so that files can be removed."""

import os
import signal
import threading

import pytest

from spectag.system.stop_signals import Stopped, is_one_of_several, stop_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends signals to itself")


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signal_raises_a_keyboard_interrupt_with_the_exit_status_of_shells(name, status):
    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(KeyboardInterrupt) as caught, stop_signals():
        send(name)
    assert isinstance(caught.value, Stopped)
    assert caught.value.exit_status == status
    assert signal.getsignal(getattr(signal, name)) is before


def test_second_signal_does_not_interrupt_the_removal_of_files():
    removed = []

    def work():
        try:
            send("SIGTERM")
        finally:
            send("SIGHUP")
            removed.append("file")

    with pytest.raises(Stopped, match="SIGTERM"), stop_signals():
        work()
    assert removed == ["file"]


def test_ignored_signal_stays_ignored_as_after_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            send("SIGHUP")
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("value", "expected"), [("4", True), ("1", False), ("", False), ("two", False)])
def test_variable_of_launchers_may_have_any_value(monkeypatch, value, expected):
    monkeypatch.setenv("WORLD_SIZE", value)
    assert is_one_of_several() == expected


def test_other_threads_and_processes_of_a_launcher_keep_their_handlers(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def look():
        with stop_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    monkeypatch.setenv("WORLD_SIZE", "2")
    look()
    assert seen == [before, before]
