"""A table of epochs that grows above the progress bars of a terminal."""

import time
from collections.abc import Callable

from rich.table import Table

from spectag.cli.terminal import TrainingHeading
from spectag.system.epoch_log import Epoch
from spectag.system.progress import format_clock, format_speed
from spectag.system.progress_bars import ProgressBoard

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
        if epoch.n_epochs:
            self._board.update_training(epoch.epoch / epoch.n_epochs)
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
