"""Interfaces for progress and messages, so that long work does not depend on a terminal."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result", covariant=True)


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


class ShowsProgress(Protocol[Parameters, Result]):
    """A function whose argument `progress` is a `Progress`, or True for progress bars, or False for none."""

    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result: ...
    @overload
    def __call__(self, *args: Any, progress: bool | None, **kwargs: Any) -> Result: ...


def shows_progress(function: Callable[Parameters, Result]) -> ShowsProgress[Parameters, Result]:
    """Let a function accept `progress=True` for progress bars, which end with the function, also by an error.

    The bars of a generator end when it does. A `Progress` is passed on as it is; False and None show nothing.
    """

    call: Callable[..., Any] = function

    @wraps(function)
    def with_bars(*args: Any, progress: Progress | bool | None = None, **kwargs: Any) -> Any:
        with shown_progress(progress) as reported:
            return call(*args, progress=reported, **kwargs)

    @wraps(function)
    def generator_with_bars(*args: Any, progress: Progress | bool | None = None, **kwargs: Any) -> Any:
        with shown_progress(progress) as reported:
            yield from call(*args, progress=reported, **kwargs)

    is_generator = inspect.isgeneratorfunction(function)
    return cast("ShowsProgress[Parameters, Result]", generator_with_bars if is_generator else with_bars)


@contextmanager
def shown_progress(progress: Progress | bool | None) -> Iterator[Progress]:
    """For True, progress bars that end with the `with` block. A `Progress` is itself; False and None show nothing."""
    if progress is True:
        from spectag.system.progress_bars import show_progress_bars

        with show_progress_bars() as bars:
            yield bars
    else:
        yield progress or silent


def training_step(name: str, number: int, n_total: int) -> tuple[str, int, int]:
    """The arguments of `Progress` when training `number` of several begins, counted from 0."""
    return f"{name}training {number + 1} of {n_total}", number, n_total


def is_training_step(step: str) -> bool:
    """Whether a step counts the trainings of a command, each of which has steps of its own."""
    return re.fullmatch(r"(.* )?training \d+ of \d+", step) is not None


def format_clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds, such as 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def format_speed(per_second: float) -> str:
    """A rate such as 1,234 or 3.1."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"
