"""Interfaces for progress and messages, so that long work does not depend on a terminal."""

from typing import Protocol


class Progress(Protocol):
    """A function that is called with the name of a step, the number of finished items and their total number."""

    def __call__(self, step: str, n_done: int, n_total: int, /) -> None: ...


class Log(Protocol):
    """A function that is called with one line of text for the user."""

    def __call__(self, line: str, /) -> None: ...


def silent(step: str, n_done: int, n_total: int) -> None:
    """Show no progress."""


def no_log(line: str) -> None:
    """Show no messages."""
