"""What commands print for a person: progress on stderr, tables on stdout.

rich is imported inside functions: help pages do not need it, and importing it takes a tenth of a second.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from spectag.cli.app import SKIPPED_SOME
from spectag.system.epoch_log import Epoch, OnEpoch, is_epoch_step
from spectag.system.progress import Log, Progress, no_log, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SECONDS_BETWEEN_LINES = 60.0  # within an epoch


@contextmanager
def progress_display(*, results_to_stdout: bool = False) -> Iterator[tuple[Progress, Log]]:
    """Progress bars with rate and time left on a terminal; otherwise a line at every tenth of a step.

    Shows nothing if the results go to a terminal at the same time: they are progress enough.
    """
    if results_to_stdout and sys.stdout.isatty():
        yield silent, no_log
    elif sys.stderr.isatty():
        from spectag.cli.progress_bars import ProgressBoard, progress_bars

        with progress_bars() as bars:
            board = ProgressBoard(bars)
            yield board.progress, board.log
    else:
        yield line_by_line(), _print_line


@contextmanager
def training_display() -> Iterator[tuple[Progress, Log, OnEpoch]]:
    """Like `progress_display`, with epochs: on a terminal a table above the bars; otherwise a line per epoch."""
    if sys.stderr.isatty():
        from spectag.cli.progress_bars import EpochTable, ProgressBoard, progress_bars

        with progress_bars() as bars:
            table = EpochTable(ProgressBoard(bars))
            yield table.progress, table.log, table.add
            table.flush()
        return
    heading = TrainingHeading(_print_line)

    def print_epoch(epoch: Epoch) -> None:
        heading.print_if_new(epoch)
        _print_line(epoch_line(epoch))

    yield line_by_line(), heading.log, print_epoch


class TrainingHeading:
    """Prints the name of each training above its epochs, unless the last line started with this name."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last_line = ""
        self._part: str | None = None

    def log(self, line: str) -> None:
        self._last_line = line
        self._log(line)

    def print_if_new(self, epoch: Epoch) -> bool:
        """Print the heading if this is the first epoch of its training, and return whether it is."""
        if epoch.part == self._part:
            return False
        self._part = epoch.part
        if not self._last_line.startswith(epoch.part):
            self.log(epoch.part)
        return True


def epoch_line(epoch: Epoch) -> str:
    """An epoch as one line of a log."""
    words = [str(epoch)]
    if epoch.learning_rate is not None:
        words.append(f"rate {epoch.learning_rate:.2g}")
    if epoch.clips_per_second is not None:
        words.append(f"{format_speed(epoch.clips_per_second)} clips/s")
    if epoch.seconds_left is not None:
        words.append(f"{format_clock(epoch.seconds_left)} left")
    return "   ".join(words)


def format_speed(per_second: float) -> str:
    """A rate such as 1,234 or 3.1."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def format_clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds, such as 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def line_by_line(clock: Callable[[], float] = time.monotonic) -> Progress:
    """A line at every tenth of a step; within an epoch, at most one line a minute."""
    tenths: dict[str, int] = {}
    printed_at: dict[str, float] = {}

    def progress(step: str, n_done: int, n_total: int) -> None:
        tenth = 10 * n_done // max(n_total, 1)
        if n_done > 0 and tenth <= tenths.get(step, -1):
            return
        if is_epoch_step(step) and clock() - printed_at.setdefault(step, clock()) < _SECONDS_BETWEEN_LINES:
            return
        tenths[step], printed_at[step] = tenth, clock()
        _print_line(f"{step}: {n_done}/{n_total}")

    return progress


def print_skipped(reasons: Sequence[str]) -> int:
    """Print to stderr why files were skipped, a line each, and return the exit status of the command."""
    for reason in reasons:
        print(f"skipped: {reason}", file=sys.stderr)
    return SKIPPED_SOME if reasons else 0


def shell_command(*words: object, **options: object) -> str:
    """A command line, quoted for the shell. Options with the value None are left out."""
    given = ((f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None)
    return shlex.join(map(str, [*words, *chain.from_iterable(given)]))


def format_duration(seconds: float) -> str:
    """A duration in words: 0.8 s, 12 s, 3 min 20 s, 24 h 0 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def print_json(value: Any) -> None:
    """Print a value to stdout as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def stdout_console(width: int | None = None) -> "Console":
    """A console that prints tables and plain text to stdout, by default as wide as the terminal."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)


def new_table(*columns: str, right: Sequence[str] = ()) -> "Table":
    """A table without borders. The columns in `right` are right-aligned; these and intervals stay on one line."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        is_right = column in right
        is_whole = is_right or column.endswith("interval")
        table.add_column(column, justify="right" if is_right else "left", no_wrap=is_whole, overflow="fold")
    return table


def print_profile(stage_seconds: Mapping[str, float], sound_seconds: float) -> None:
    """Print to stderr how long each stage of tagging took, and its speed in multiples of real time."""
    from rich.console import Console

    columns = ("stage", "seconds", "fraction", "times real time, one core")
    table = new_table(*columns, right=columns[1:])
    total = sum(stage_seconds.values())
    rows = sorted(stage_seconds.items(), key=lambda item: -item[1])
    for stage, seconds in [*rows, ("all", total)]:
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / total:.0%}", f"{sound_seconds / max(seconds, 1e-9):,.0f}")
    Console(stderr=True, highlight=False).print(table)
