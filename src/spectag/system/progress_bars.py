"""Progress bars on a terminal and in a notebook. Import this where bars are shown: it imports rich.

Below the bars of the current steps, a line with a spinner shows how long the whole command has run and, where this is
known, how long it will take. It moves also when nothing can be counted.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from spectag.system.epoch_log import is_epoch_step
from spectag.system.progress import Progress, format_clock, is_training_step

_LEAST_SECONDS_SHOWN = 2.0  # a step that is nearly done needs no forecast
_SECONDS_BETWEEN_RESULTS = 0.1


class _CountColumn(ProgressColumn):
    """How many items are done, such as 1,000/2,500."""

    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed):,}/{int(task.total or 0):,}")


class _TimeLeftColumn(ProgressColumn):
    """The expected time for the rest of the step."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = None if task.finished else task.time_remaining
        return Text("" if left is None or left < _LEAST_SECONDS_SHOWN else f"{format_clock(left)} left")


class CommandBars(Bars):
    """Bars of the current steps above a line about the whole command."""

    def __init__(
        self,
        *columns: ProgressColumn,
        console: Console,
        transient: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._started = clock()
        self._trainings: tuple[str, int, int, float] | None = None  # name, finished ones, all, start of the first
        self._seconds_left: tuple[float, float] | None = None  # forecast, and when it was made
        spinner = "dots" if console.encoding.startswith("utf") else "line"
        self._spinner = Spinner(spinner)
        self._is_stopped = False
        super().__init__(*columns, console=console, transient=transient, redirect_stdout=False, redirect_stderr=False)

    def stop(self) -> None:
        """Leave the bars as they are, and the whole time instead of the spinner."""
        self._is_stopped = True
        super().stop()

    def start_training(self, name: str, n_done: int, n_total: int) -> None:
        """Say that the next of several trainings begins, which all take about the same time."""
        first = self._clock() if self._trainings is None or n_done == 0 else self._trainings[3]
        self._trainings = name, n_done, n_total, first
        self.update_training(0.0)

    def update_training(self, fraction: float) -> None:
        """Say which fraction of the current training is done."""
        if self._trainings is None:
            return
        _, n_done, n_total, first = self._trainings
        done = (n_done + fraction) / max(n_total, 1)
        now = self._clock()
        self._seconds_left = ((now - first) * (1 - done) / done, now) if done > 0 else None

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars, and the line about the whole command."""
        yield self.make_tasks_table(self.tasks)
        words = [f"{format_clock(self._clock() - self._started)} elapsed"]
        if self._is_stopped:
            yield Text(words[0])
            return
        if self._trainings is not None:
            words.insert(0, self._trainings[0])
        if self._seconds_left is not None:
            seconds, made_at = self._seconds_left
            words.append(f"about {format_clock(max(0.0, seconds - (self._clock() - made_at)))} left in all trainings")
        self._spinner.update(text=Text(", ".join(words)))
        yield self._spinner


def progress_bars(console: Console | None = None, *, on_stdout: bool = False) -> CommandBars:
    """Bars on stderr or another console; or on stdout among the results, where they disappear at the end.

    Start them with `with`.
    """
    whole = Column(no_wrap=True)
    description = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (description, BarColumn(), _CountColumn(table_column=whole), _TimeLeftColumn(table_column=whole.copy()))
    stream = sys.stdout if on_stdout else sys.stderr
    return CommandBars(*columns, console=console or Console(file=stream, highlight=False), transient=on_stdout)


class ResultsAboveBars:
    """A text file for stdout, if it is the terminal of the bars: whole lines are printed above them.

    Lines that arrive within a tenth of a second are printed together, because each time the bars are redrawn.
    """

    def __init__(self, console: Console, stdout: TextIO) -> None:
        self._console, self._stdout = console, stdout
        self._waiting = ""
        self._printed_at = -_SECONDS_BETWEEN_RESULTS
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Add a text, and print the lines that are complete, now or soon."""
        with self._lock:
            self._waiting += text
            is_soon = time.monotonic() - self._printed_at < _SECONDS_BETWEEN_RESULTS
            if is_soon and self._timer is None:
                self._timer = threading.Timer(_SECONDS_BETWEEN_RESULTS, self.flush)
                self._timer.daemon = True
                self._timer.start()
        if not is_soon:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Print the lines that are complete."""
        with self._lock:
            self._timer = None
            lines, line_end, self._waiting = self._waiting.rpartition("\n")
            self._printed_at = time.monotonic()
            if line_end:
                self._console.print(Text(lines), soft_wrap=True)

    def close(self) -> None:
        """Print the rest, also an incomplete line."""
        if self._waiting and not self._waiting.endswith("\n"):
            self._waiting += "\n"
        self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


class ProgressBoard:
    """The bars of the current steps; lines, tables and finished steps scroll away above them."""

    def __init__(self, bars: CommandBars) -> None:
        self._bars = bars
        self._tasks: dict[str, Task] = {}

    def progress(self, step: str, n_done: int, n_total: int) -> None:
        if is_training_step(step):
            self._bars.start_training(step, n_done, n_total)
            return
        name = "epoch" if is_epoch_step(step) else step  # all epochs share one bar
        task = self._tasks.get(name)
        if task is None:
            self._remove_finished()
            self._bars.add_task(step, total=n_total)
            task = self._tasks[name] = self._bars.tasks[-1]
        elif task.description != step or n_done < task.completed:
            self._bars.reset(task.id, description=step, total=n_total)
        self._bars.update(task.id, completed=n_done, total=n_total)

    def _remove_finished(self) -> None:
        finished = {name: task for name, task in self._tasks.items() if task.finished}
        shown = [task for name, task in finished.items() if name != "epoch"]
        if shown:
            self.show(self._bars.make_tasks_table(shown))
        for name, task in finished.items():
            self._bars.remove_task(task.id)
            del self._tasks[name]

    def update_training(self, fraction: float) -> None:
        """Say which fraction of the current training is done."""
        self._bars.update_training(fraction)

    def log(self, line: str) -> None:
        self._bars.console.print(line, markup=False, soft_wrap=True)

    def show(self, table: Table) -> None:
        self._bars.console.print(table)


class _NotebookBars:
    """A bar for each step in the output of a notebook's cell. rich would need ipywidgets there.

    A bar is sent to the browser at most ten times per second: what arrives earlier waits, and only the latest is sent.
    """

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}
        self._waiting: dict[str, Any] = {}
        self._sent_at = -_SECONDS_BETWEEN_RESULTS
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __call__(self, step: str, n_done: int, n_total: int) -> None:
        if is_training_step(step):
            return
        ipython: Any = import_module("IPython.display")
        name = "epoch" if is_epoch_step(step) else step
        bar = f'<progress value="{n_done}" max="{max(n_total, 1)}"></progress>'
        html = ipython.HTML(f"<div>{escape(step)} {bar} {n_done:,}/{n_total:,}</div>")
        if name not in self._handles:
            self._handles[name] = ipython.display(html, display_id=True)
            return
        with self._lock:
            self._waiting[name] = html
            if self._timer is None:
                seconds = self._sent_at + _SECONDS_BETWEEN_RESULTS - time.monotonic()
                self._timer = threading.Timer(max(0.0, seconds), self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Send what waits."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            for name, html in self._waiting.items():
                self._handles[name].update(html)
            self._waiting.clear()
            self._sent_at = time.monotonic()


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


@contextmanager
def show_progress_bars() -> Iterator[Progress]:
    """Bars of the steps that are reported in the `with` block: in a notebook, or on stderr."""
    if _is_notebook():
        notebook_bars = _NotebookBars()
        try:
            yield notebook_bars
        finally:
            notebook_bars.flush()
        return
    with progress_bars() as bars:
        yield ProgressBoard(bars).progress
