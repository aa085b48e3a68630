"""How long a training still takes, from its plan, its budget, its epochs, or the speed of its first steps."""

import re
import time
from collections.abc import Callable

from spectag.config.recipe import Recipe
from spectag.system.epoch_log import Epoch, OnEpoch
from spectag.system.progress import Log, Progress

_SECONDS_PER_CLIP = {
    "log-mels": 6e-3,
    "fingerprints": 10e-3,
    "shared audio": 4e-3,
    "features by": 4e-3,
    "windows by": 5e-3,
    "heads": 1e-3,
    "heads on windows": 1e-3,
    "writing": 3e-3,
}
"""Of clips of 5 s on two cores, in the order of the steps of a frozen network. Only their relations matter."""
_STEPS = tuple(_SECONDS_PER_CLIP)
_COUNTED_BY_FOLD = ("heads", "heads on windows")
_FEWEST_SECONDS = 1.0  # between items of a step, before they say how fast the computer is
_REPEATED_SECONDS = 0.02
"""Shorter epochs are repeated by a training that is resumed."""
_PLAN = re.compile(r"plan: about (\d+(?:\.\d+)?) (s|min|h)\b.* in all")
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


class TimeLeft:
    """Estimates from the progress of a training how long all of it still takes, as soon as that is known.

    Parameters
    ----------
    recipe : Recipe
    report : callable
        Called with seconds.
    clock : callable
    """

    def __init__(
        self, recipe: Recipe, report: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report, self._clock = report, clock
        self._started = clock()
        self._planned = recipe.budget
        self._is_frozen = len(recipe.member_recipes()) == 1 and recipe.mode == "frozen"
        self._n_clips = 0
        self._step, self._first = "", (0.0, 0)  # time and number of the first items of the step that are done
        self._slowness: float | None = None
        self._trainings: tuple[int, int] | None = None  # number of this one, of all
        self._base, self._last_epoch = (0.0, 0.0), 0.0  # time and part of all trainings that was done then

    def log(self, log: Log) -> Log:
        """A log that is listened to."""

        def listen(line: str, /) -> None:
            log(line)
            if (match := _PLAN.match(line)) is not None:
                self._planned = float(match[1]) * _UNITS[match[2]]
                self._report_planned()

        return listen

    def progress(self, progress: Progress) -> Progress:
        """A progress that is listened to."""

        def listen(step: str, n_done: int, n_total: int, /) -> None:
            progress(step, n_done, n_total)
            if (match := re.fullmatch(r"(?:.* )?training (\d+) of (\d+)", step)) is not None:
                number, n_trainings = int(match[1]) - 1, int(match[2])
                if self._trainings is None:
                    self._base = self._clock(), number / n_trainings
                self._trainings = number, n_trainings
            elif self._planned is not None:
                self._report_planned()
            elif self._is_frozen:
                self._listen_to_step(step, n_done, n_total)

        return listen

    def on_epoch(self, on_epoch: OnEpoch) -> OnEpoch:
        """A function for epochs that is listened to."""

        def listen(epoch: Epoch) -> None:
            on_epoch(epoch)
            if self._planned is None and self._trainings is not None and epoch.n_epochs:
                number, n_trainings = self._trainings
                self._listen_to_epoch((number + epoch.epoch / epoch.n_epochs) / n_trainings)

        return listen

    def _listen_to_epoch(self, done: float) -> None:
        """The rest by the speed so far. A resumed training first repeats its earlier epochs, which takes no time."""
        now = self._clock()
        is_repeated, self._last_epoch = now - max(self._last_epoch, self._base[0]) < _REPEATED_SECONDS, now
        if is_repeated:
            self._base = now, done
        else:
            self._report((now - self._base[0]) * (1 - done) / (done - self._base[1]))

    def _report_planned(self) -> None:
        assert self._planned is not None
        self._report(max(0.0, self._planned - (self._clock() - self._started)))

    def _listen_to_step(self, name: str, n_done: int, n_total: int) -> None:
        """The rest of this step by its own speed, and those that follow by that of this one."""
        step = next((step for step in reversed(_STEPS) if name.startswith(step)), None)
        if step is None or n_total == 0:
            return
        if step in _COUNTED_BY_FOLD:
            n_done, n_total = self._n_clips * n_done // n_total, self._n_clips
        self._n_clips = max(self._n_clips, n_total)
        now = self._clock()
        if step != self._step or not self._first[1]:  # its processes start before the first items are done
            self._step, self._first = step, (now, n_done)
        seconds, n_clips = now - self._first[0], n_done - self._first[1]
        if seconds >= _FEWEST_SECONDS and n_clips:
            self._slowness = seconds / (n_clips * _SECONDS_PER_CLIP[step])
        if self._slowness is not None:
            later = sum(_SECONDS_PER_CLIP[one] for one in _STEPS[_STEPS.index(step) + 1 :])
            left = (n_total - n_done) * _SECONDS_PER_CLIP[step] + self._n_clips * later
            self._report(self._slowness * left)
