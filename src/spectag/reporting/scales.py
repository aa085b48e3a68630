"""Axes of the figures on pages: from numbers to positions, and round numbers for the ticks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TOLERANCE = 1e-9  # for rounding errors


@dataclass(frozen=True)
class Scale:
    """Maps numbers from `low` to `high` to positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Position of a number. Numbers beyond an end are put at that end."""
        low, high, value = (math.log(x) if self.is_logarithmic else x for x in (self.low, self.high, value))
        fraction = (value - low) / (high - low)
        return self.start + min(max(fraction, 0.0), 1.0) * (self.end - self.start)

    @property
    def middle(self) -> float:
        """Position in the middle of the axis."""
        return (self.start + self.end) / 2

    @property
    def ticks(self) -> list[float]:
        """About five round numbers; on a logarithmic scale powers of ten, or 1, 2 and 5 times those if they are few."""
        if not self.is_logarithmic:
            return list(round_numbers(self.low, self.high, 5))
        for steps in ((1,), (1, 3), (1, 2, 5)):
            ticks = self._steps_of_decades(steps)
            if len(ticks) >= 3:
                break
        return ticks

    @property
    def decades(self) -> list[float]:
        """Powers of ten on a logarithmic scale."""
        return self._steps_of_decades((1,))

    def _steps_of_decades(self, steps: Sequence[int]) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks = (step * 10.0**decade for decade in decades for step in steps)
        return [tick for tick in ticks if self.low * (1 - _TOLERANCE) <= tick <= self.high * (1 + _TOLERANCE)]


def round_numbers(low: float, high: float, max_steps: int) -> Iterator[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, in at most `max_steps` steps."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / max_steps))
    step = next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= max_steps + _TOLERANCE)
    for i in range(math.ceil(low / step - _TOLERANCE), math.floor(high / step + _TOLERANCE) + 1):
        yield round(i * step, 12)
