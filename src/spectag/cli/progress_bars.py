"""Progress bars on a terminal, and a table of epochs that grows above them."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from spectag.cli.terminal import TrainingHeading, format_clock, format_speed
from spectag.system.epoch_log import Epoch, is_epoch_step

_SECONDS_BETWEEN_ROWS = 0.1  # at least: an epoch on frozen features takes milliseconds, and drawing it as many
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


class _SpeedColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{format_speed(speed)}/s")


def progress_bars(console: Console | None = None) -> Bars:
    """Bars on stderr, or on another console. Start them with `with`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _SpeedColumn())
    console = console or Console(stderr=True, highlight=False)
    return Bars(*columns, TimeRemainingColumn(), console=console, redirect_stdout=False)  # results stay on stdout


class ProgressBoard:
    """The bars of the current steps; lines, tables and finished steps scroll away above them."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, Task] = {}

    def progress(self, step: str, n_done: int, n_total: int) -> None:
        name = "epoch" if is_epoch_step(step) else step  # all epochs share one bar
        task = self._tasks.get(name)
        if task is None:
            self._remove_finished()
            self._bars.add_task(step, total=n_total)
            task = self._tasks[name] = self._bars.tasks[-1]
        elif (task.description, task.total) != (step, n_total):
            self._bars.reset(task.id, description=step, total=n_total)
        self._bars.update(task.id, completed=n_done)

    def _remove_finished(self) -> None:
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


class EpochTable:
    """A table of epochs for each training, printed row by row so that it scrolls, however long it gets."""

    def __init__(self, board: ProgressBoard) -> None:
        self._board = board
        self._heading = TrainingHeading(self._log_below)
        self._needs_header = False
        self._waiting: list[tuple[Epoch, bool]] = []
        self._best_lwlrap = 0.0
        self._printed_at = -_SECONDS_BETWEEN_ROWS

    def add(self, epoch: Epoch) -> None:
        """Print an epoch, now or together with those of the next tenth of a second."""
        if self._heading.print_if_new(epoch):
            self._needs_header, self._best_lwlrap = True, 0.0
        lwlrap = epoch.valid_lwlrap or 0.0
        self._waiting.append((epoch, lwlrap > self._best_lwlrap))
        self._best_lwlrap = max(self._best_lwlrap, lwlrap)
        if time.monotonic() - self._printed_at >= _SECONDS_BETWEEN_ROWS:
            self.flush()

    def flush(self) -> None:
        """Print the epochs that wait."""
        if not self._waiting:
            return
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=self._needs_header)
        for name, width in _EPOCH_COLUMNS.items():
            table.add_column(name, justify="right" if name else "left", width=width, no_wrap=True)
        for epoch, is_best in self._waiting:
            table.add_row(*_cells(epoch), "best so far" if is_best else "", style="bold" if is_best else "")
        self._board.show(table)
        self._waiting, self._needs_header, self._printed_at = [], False, time.monotonic()

    def log(self, line: str) -> None:
        self._heading.log(line)

    def _log_below(self, line: str) -> None:
        self.flush()
        self._board.log(line)

    def progress(self, step: str, n_done: int, n_total: int) -> None:
        self.flush()
        self._board.progress(step, n_done, n_total)


def _cells(epoch: Epoch) -> list[str]:
    def cell(value: float | None, text: Callable[[float], str]) -> str:
        return "" if value is None else text(value)

    def loss_or_score(value: float) -> str:
        return f"{value:.4f}" if value < 100 else f"{value:.2g}"

    scores = (epoch.train_loss, epoch.train_lwlrap, epoch.valid_loss, epoch.valid_lwlrap)
    return [
        str(epoch.epoch) if epoch.n_epochs is None else f"{epoch.epoch}/{epoch.n_epochs}",
        *(cell(score, loss_or_score) for score in scores),
        cell(epoch.learning_rate, "{:.2g}".format),
        cell(epoch.clips_per_second, format_speed),
        cell(epoch.seconds_left, format_clock),
    ]
