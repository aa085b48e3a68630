"""What commands print for a person: progress on stderr, tables on stdout.

rich is imported inside functions: help pages do not need it, and importing it takes a tenth of a second.
"""

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from contextvars import ContextVar
from itertools import chain
from typing import TYPE_CHECKING, Any, TextIO, cast

from spectag.cli.app import SKIPPED_SOME
from spectag.system.epoch_log import Epoch, OnEpoch, is_epoch_step
from spectag.system.progress import Log, Progress, format_clock, format_speed, is_training_step, no_log, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from spectag.scoring.bootstrap import Estimate
    from spectag.system.progress_bars import CommandBars

FILE_WIDTH = 10_000
"""Width of a table that is not printed to a terminal, in characters: no line is broken."""

_SECONDS_BETWEEN_LINES = 60.0  # of progress without a terminal
_is_quiet = ContextVar("_is_quiet", default=False)


def set_quiet(is_quiet: bool) -> None:
    """Show neither progress nor messages from now on, or show them again. Errors and warnings are always shown."""
    _is_quiet.set(is_quiet)


def print_message(text: str) -> None:
    """Print a message about a finished command to stderr, unless the user wants none."""
    if not _is_quiet.get():
        print(text, file=sys.stderr)


@contextmanager
def progress_display(*, results_to_stdout: bool = False) -> Iterator[tuple[Progress, Log]]:
    """Progress bars with times on a terminal; otherwise few lines for each step; with --quiet nothing.

    Results that go to the same terminal meanwhile are printed above the bars.
    """
    if _is_quiet.get():
        yield silent, no_log
    elif sys.stderr.isatty():
        from spectag.system.progress_bars import ProgressBoard, progress_bars

        is_shared = results_to_stdout and sys.stdout.isatty()
        with progress_bars(on_stdout=is_shared) as bars, _results_above(bars) if is_shared else nullcontext():
            board = ProgressBoard(bars)
            yield board.progress, board.log
    else:
        yield line_by_line(), _print_line


@contextmanager
def _results_above(bars: "CommandBars") -> Iterator[None]:
    """Print what is written to stdout above the bars."""
    from spectag.system.progress_bars import ResultsAboveBars

    results = ResultsAboveBars(bars.console, sys.stdout)
    try:
        with redirect_stdout(cast("TextIO", results)):
            yield
    finally:
        results.close()


@contextmanager
def training_display() -> Iterator[tuple[Progress, Log, OnEpoch]]:
    """Like `progress_display`, with epochs: on a terminal a table above the bars; otherwise a line per epoch."""
    if _is_quiet.get():
        yield silent, no_log, lambda _: None
        return
    if sys.stderr.isatty():
        from spectag.cli.epoch_table import EpochTable
        from spectag.system.progress_bars import ProgressBoard, progress_bars

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


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def line_by_line(clock: Callable[[], float] = time.monotonic) -> Progress:
    """A line at the end of each step, and before it at every tenth, but at most one line a minute.

    Epochs have a line of their own at the end.
    """
    tenths: dict[str, int] = {}
    printed_at: dict[str, float] = {}

    def progress(step: str, n_done: int, n_total: int) -> None:
        if is_training_step(step) or n_total <= 0:  # a line of the log says which training begins
            return
        tenth, now = 10 * n_done // n_total, clock()
        if tenth < tenths.get(step, 11):  # the step begins, perhaps again
            tenths[step], printed_at[step] = tenth if n_done < n_total else -1, now
        is_end = n_done >= n_total and not is_epoch_step(step)
        if tenth == tenths[step] or not (is_end or now - printed_at[step] >= _SECONDS_BETWEEN_LINES):
            return
        tenths[step], printed_at[step] = tenth, now
        _print_line(f"{step}: {n_done:,}/{n_total:,}")

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


def print_next_steps(*commands: str) -> None:
    """Print to stderr what to do next: commands from `shell_command`."""
    print_message("next: " + "\n      ".join(commands))


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
    """A console that prints tables and plain text to stdout, by default as wide as the terminal.

    In a pipe or a file, no line is broken, unless the variable COLUMNS sets a width.
    """
    from rich.console import Console

    if width is None and not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        width = FILE_WIDTH
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)


def new_table(*columns: str, right: Sequence[str] = ()) -> "Table":
    """A table without borders. Columns in `right` are right-aligned; these, names and intervals stay on one line."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        is_right = column in right
        is_whole = is_right or column == "name" or column.endswith("interval")
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


def estimate_cells(estimate: "Estimate", sign: str = "") -> tuple[str, str]:
    """A score, and its interval."""
    low, high = score_cell(estimate.low, sign), score_cell(estimate.high, sign)
    return score_cell(estimate.value, sign), "" if math.isnan(estimate.low) else f"{low} to {high}"


def score_cell(value: float, sign: str = "") -> str:
    """A score with four digits; - for NaN."""
    if math.isinf(value):
        return "−∞" if value < 0 else f"{sign}∞"
    return "-" if math.isnan(value) else f"{value:{sign}.4f}"
