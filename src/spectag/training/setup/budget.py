"""The time budget of a training, measured by one clock."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from spectag.array_types import FloatArray
from spectag.training.setup.distributed import Processes

MIN_EPOCHS = 3
"""With fewer epochs, the learning rate has no time to rise and fall."""
ENOUGH_EPOCHS = 8
"""If the time is too short for all trainings with this number of epochs, trainings are left out rather than epochs."""
_MINUTE, _HOUR = 60.0, 3600.0
_IN_HOURS, _IN_TENTHS = 2 * _HOUR, 10 * _MINUTE  # budgets from, and below which


@dataclass
class Budget:
    """The seconds that a training may take from now on; None: no limit.

    All processes use the clock of the main process.
    """

    seconds: float | None
    processes: Processes
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.processes.broadcast(self.clock() - self.started)

    @property
    def left(self) -> float | None:
        """Seconds that are left, below 0 after the end; None without a limit."""
        return None if self.seconds is None else self.seconds - self.elapsed

    def note(self) -> str:
        """What is left, such as ", 12 min left of 30"; "" without a limit."""
        left = self.left
        if left is None or self.seconds is None:
            return ""
        unit, per_unit = ("h", _HOUR) if self.seconds >= _IN_HOURS else ("min", _MINUTE)
        n_decimals = 1 if unit == "h" or self.seconds < _IN_TENTHS else 0
        return f", {max(left, 0) / per_unit:.{n_decimals}f} {unit} left of {self.seconds / per_unit:.3g}"


def affordable(
    seconds: float, seconds_per_epoch: Sequence[float] | FloatArray, n_epochs: int, min_trainings: int = 1
) -> tuple[int, int]:
    """The number of epochs of each training and of trainings for which there is time, both 0 if it is too short.

    Parameters
    ----------
    seconds : float
        For all trainings together.
    seconds_per_epoch : sequence of float
        Of each training that is wanted, in their order; the last ones are left out first.
    n_epochs : int
        The most that are wanted.
    min_trainings : int
        Fewest trainings that are of use.
    """
    total_per_epoch = np.maximum(np.cumsum(seconds_per_epoch), 1e-9)  # of the first, the first two, ...
    n_enough = int((min(ENOUGH_EPOCHS, n_epochs) * total_per_epoch <= seconds).sum())
    n_trainings = max(min_trainings, n_enough)
    n_affordable = min(n_epochs, math.floor(seconds / total_per_epoch[n_trainings - 1]))
    return (n_affordable, n_trainings) if n_affordable >= min(MIN_EPOCHS, n_epochs) else (0, 0)
