"""What a person sees on stderr while a command works."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from spectag.system.epoch_log import Epoch, OnEpoch, is_epoch_step
from spectag.system.progress import Log, Progress, no_log, silent

_SECONDS_BETWEEN_ROWS = 0.1  # at least: on frozen features an epoch takes milliseconds, and showing it as many
_SECONDS_BETWEEN_LINES = 60.0  # about the same epoch, where there is no terminal
_EPOCH_COLUMNS = {
    "epoch": 7,
    "train\nloss": 7,
    "train\nlwlrap": 6,
    "valid\nloss": 7,
    "valid\nlwlrap": 6,
    "learning\nrate": 8,
    "clips/s": 7,
    "time\nleft": 8,
    "": 11,
}


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s")


@contextmanager
def shown_work(*, results_to_stdout: bool = False) -> Iterator[tuple[Progress, Log]]:
    """Bars with rate and time left on a terminal; elsewhere a line at every tenth of a step.

    Nothing where results go to a terminal meanwhile: they show how far the work is.
    """
    if results_to_stdout and sys.stdout.isatty():
        yield silent, no_log
        return
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield line_by_line(), _print_line
        return
    with _bars(console) as bars:
        board = _Board(bars)
        yield board.progress, board.log


@contextmanager
def shown_training() -> Iterator[tuple[Progress, Log, OnEpoch]]:
    """The same, and epochs: on a terminal rows of a table that grows above the bars; elsewhere a line each."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        heading = _Heading(_print_line)

        def print_epoch(epoch: Epoch) -> None:
            heading.begins(epoch)
            _print_line(epoch_line(epoch))

        yield line_by_line(), heading.log, print_epoch
        return
    with _bars(console) as bars:
        table = EpochTable(_Board(bars))
        yield table.progress, table.log, table.add
        table.flush()


def _bars(console: Console) -> Bars:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Bars(*columns, console=console, redirect_stdout=False)  # or results would go to stderr


class _Board:
    """The bars of the work under way; what is said or done with scrolls away above them."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, Task] = {}

    def progress(self, step: str, n_done: int, n_total: int) -> None:
        name = "epoch" if is_epoch_step(step) else step  # epochs share a bar
        task = self._tasks.get(name)
        if task is None:
            self._clear_away()
            self._bars.add_task(step, total=n_total)
            task = self._tasks[name] = self._bars.tasks[-1]
        elif (task.description, task.total) != (step, n_total):
            self._bars.reset(task.id, description=step, total=n_total)
        self._bars.update(task.id, completed=n_done)

    def _clear_away(self) -> None:
        finished = {name: task for name, task in self._tasks.items() if task.finished}
        shown = [task for name, task in finished.items() if name != "epoch"]
        if shown:
            self.show(self._bars.make_tasks_table(shown))
        for name, task in finished.items():
            self._bars.remove_task(task.id)
            del self._tasks[name]

    def log(self, line: str) -> None:
        self._bars.console.print(line, markup=False, soft_wrap=True)

    def show(self, table: Table) -> None:
        self._bars.console.print(table)


class _Heading:
    """Names each training that epochs belong to, where that was not just said."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last_line = ""
        self._part: str | None = None

    def log(self, line: str) -> None:
        self._last_line = line
        self._log(line)

    def begins(self, epoch: Epoch) -> bool:
        """Whether an epoch is the first that is told of its training."""
        if epoch.part == self._part:
            return False
        self._part = epoch.part
        if epoch.part not in ("", self._last_line):
            self.log(epoch.part)
        return True


class EpochTable:
    """A table of epochs for each training, which grows row by row and so scrolls, however long it gets."""

    def __init__(self, board: _Board) -> None:
        self._board = board
        self._heading = _Heading(self._log_below)
        self._needs_header = False
        self._waiting: list[tuple[Epoch, bool]] = []
        self._best_lwlrap = 0.0
        self._shown_at = -_SECONDS_BETWEEN_ROWS

    def add(self, epoch: Epoch) -> None:
        """Show an epoch, at once or with those that follow within a moment."""
        if self._heading.begins(epoch):
            self._needs_header, self._best_lwlrap = True, 0.0
        is_best = epoch.valid_lwlrap is not None and epoch.valid_lwlrap > self._best_lwlrap
        if epoch.valid_lwlrap is not None and is_best:
            self._best_lwlrap = epoch.valid_lwlrap
        self._waiting.append((epoch, is_best))
        if time.monotonic() - self._shown_at >= _SECONDS_BETWEEN_ROWS:
            self.flush()

    def flush(self) -> None:
        """Show what waits."""
        if not self._waiting:
            return
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=self._needs_header)
        for name, width in _EPOCH_COLUMNS.items():
            table.add_column(name, justify="right" if name else "left", width=width, no_wrap=True)
        for epoch, is_best in self._waiting:
            table.add_row(*_cells(epoch), "best so far" if is_best else "", style="bold" if is_best else "")
        self._board.show(table)
        self._waiting, self._needs_header, self._shown_at = [], False, time.monotonic()

    def log(self, line: str) -> None:
        self._heading.log(line)

    def _log_below(self, line: str) -> None:
        self.flush()
        self._board.log(line)

    def progress(self, step: str, n_done: int, n_total: int) -> None:
        self.flush()
        self._board.progress(step, n_done, n_total)


def _cells(epoch: Epoch) -> list[str]:
    scores = (epoch.train_loss, epoch.train_lwlrap, epoch.valid_loss, epoch.valid_lwlrap)
    return [
        str(epoch.epoch) if epoch.n_epochs is None else f"{epoch.epoch}/{epoch.n_epochs}",
        *("" if score is None else f"{score:.4f}" if score < 100 else f"{score:.2g}" for score in scores),
        "" if epoch.learning_rate is None else f"{epoch.learning_rate:.2g}",
        "" if epoch.clips_per_second is None else _speed(epoch.clips_per_second),
        "" if epoch.seconds_left is None else _clock(epoch.seconds_left),
    ]


def epoch_line(epoch: Epoch) -> str:
    """An epoch in a line of a log."""
    words = [str(epoch)]
    if epoch.learning_rate is not None:
        words.append(f"rate {epoch.learning_rate:.2g}")
    if epoch.clips_per_second is not None:
        words.append(f"{_speed(epoch.clips_per_second)} clips/s")
    if epoch.seconds_left is not None:
        words.append(f"{_clock(epoch.seconds_left)} left")
    return "   ".join(words)


def _speed(clips_per_second: float) -> str:
    return f"{clips_per_second:,.0f}" if clips_per_second >= 10 else f"{clips_per_second:.1f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def line_by_line(clock: Callable[[], float] = time.monotonic) -> Progress:
    """A line at every tenth of a step; about an epoch, which gets a line in the end, once a minute at most."""
    tenths: dict[str, int] = {}
    told_at: dict[str, float] = {}

    def progress(step: str, n_done: int, n_total: int) -> None:
        tenth = 10 * n_done // max(n_total, 1)
        if n_done > 0 and tenth <= tenths.get(step, -1):
            return
        if is_epoch_step(step) and clock() - told_at.setdefault(step, clock()) < _SECONDS_BETWEEN_LINES:
            return
        tenths[step], told_at[step] = tenth, clock()
        _print_line(f"{step}: {n_done}/{n_total}")

    return progress


def name_skipped(skipped: Sequence[str]) -> None:
    """Name the files that were skipped, a line each."""
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)


def duration(seconds: float) -> str:
    """A length of time for a person: 0.8 s, 12 s, 3 min 20 s, 24 h 0 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def print_profile(stage_seconds: Mapping[str, float], sound_seconds: float) -> None:
    """What the time of tagging went into, stage by stage, and how many times real time each would be alone."""
    table = Table("stage", "seconds", "share", "times real time, one core", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    total = sum(stage_seconds.values())
    for stage, seconds in sorted(stage_seconds.items(), key=lambda item: -item[1]):
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / total:.0%}", f"{sound_seconds / max(seconds, 1e-9):,.0f}")
    table.add_row("all", f"{total:.2f}", "100%", f"{sound_seconds / max(total, 1e-9):,.0f}")
    Console(stderr=True, highlight=False).print(table)
