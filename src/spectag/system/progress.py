"""How long work tells how far it is, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """Called with the name of the step, the number of items done, and the number there are."""

    def __call__(self, step: str, n_done: int, n_total: int, /) -> None: ...


class Log(Protocol):
    """Called with a line of news for a person."""

    def __call__(self, line: str, /) -> None: ...


def silent(step: str, n_done: int, n_total: int) -> None:
    """Show no progress."""


def no_log(line: str) -> None:
    """Keep the news to ourselves."""
