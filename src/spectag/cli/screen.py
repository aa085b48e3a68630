"""What a person sees on stderr while a command works."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from spectag.progress import Progress, Say, silent, tell_nobody


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s")


@contextmanager
def shown_work(*, results_to_stdout: bool = False) -> Iterator[tuple[Progress, Say]]:
    """Bars with rate and time left on a terminal; elsewhere a line at every tenth of a step.

    Nothing where results go to a terminal meanwhile: they show how far the work is.
    """
    if results_to_stdout and sys.stdout.isatty():
        yield silent, tell_nobody
        return
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _line_by_line(), lambda line: print(line, file=sys.stderr, flush=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Bars(*columns, console=console, redirect_stdout=False) as bars:  # or results would go to stderr
        tasks: dict[str, Any] = {}

        def progress(step: str, n_done: int, n_total: int) -> None:
            if step not in tasks or bars.tasks[tasks[step]].total != n_total:
                tasks[step] = bars.add_task(step, total=n_total)
            bars.update(tasks[step], completed=n_done)

        yield progress, lambda line: bars.console.print(line, markup=False, soft_wrap=True)


def _line_by_line() -> Progress:
    tenths: dict[str, int] = {}

    def progress(step: str, n_done: int, n_total: int) -> None:
        tenth = 10 * n_done // max(n_total, 1)
        if n_done == 0 or tenth > tenths.get(step, -1):
            tenths[step] = tenth
            print(f"{step}: {n_done}/{n_total}", file=sys.stderr, flush=True)

    return progress


def name_skipped(skipped: Sequence[str]) -> None:
    """Name the files that were skipped, a line each."""
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
