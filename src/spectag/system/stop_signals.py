"""Ctrl-C, SIGTERM and SIGHUP: all stop the process in the same way, so that unfinished files are removed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last does not exist on Windows
_SECONDS_TO_CLEAN_UP = 1.0  # in which another signal is ignored: a closed terminal sends SIGHUP twice


class Stopped(KeyboardInterrupt):
    """The process was asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number
        """What shells report for this signal, such as 130 for Ctrl-C."""


def is_one_of_several() -> bool:
    """Whether a launcher has started this process as one of several that train together."""
    n_processes = os.environ.get("WORLD_SIZE", "")
    return n_processes.isdecimal() and int(n_processes) > 1


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within the `with` block, the first signal raises `Stopped`. One that comes later than a second ends the process.

    Signals that are ignored, such as SIGHUP after `nohup`, stay ignored. Has no effect outside the main thread, or in
    one of several training processes, whose launcher has its own rules.
    """
    if threading.current_thread() is not threading.main_thread() or is_one_of_several():
        yield
        return
    stopped_at: float | None = None

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped_at
        if stopped_at is None:
            stopped_at = time.monotonic()
            raise Stopped(number)
        if time.monotonic() - stopped_at > _SECONDS_TO_CLEAN_UP:
            os._exit(128 + number)

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    handled = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


def die_silently() -> None:
    """Let further signals end the process at once, while Python ends it: no handler would print a traceback."""
    for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
