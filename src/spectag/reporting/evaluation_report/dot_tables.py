"""Tables of scores in which the last column draws each score with its interval, as a dot with whiskers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spectag.reporting.scales import Scale, round_numbers
from spectag.scoring.bootstrap import Estimate

_FLOOR_STEP = 0.1
_MIN_FLOOR = 0.5  # below, an axis of scores starts at 0


@dataclass(frozen=True)
class DotRow:
    """A row of the table: text, a score, and whether and how it is drawn."""

    texts: tuple[str, ...]
    estimate: Estimate
    explanation: str = ""
    """Small print below the first text."""
    is_drawn: bool = True
    """False for a number that does not belong on the axis."""
    n_rows: int = 1
    """Rows that the first cell spans; 0 if it belongs to an earlier row."""
    is_secondary: bool = False
    """Drawn hollow: the score of a model that is compared."""


@dataclass(frozen=True)
class DotTable:
    """What the template `dot_table.html` draws."""

    headings: Sequence[str]
    rows: Sequence[DotRow]
    score_heading: str
    scale: Scale
    """Positions in percent of the drawing's width."""
    reference: float = math.nan
    """A line through all rows; NaN for none."""
    are_differences: bool = False
    """Whether scores are printed with their sign."""

    @property
    def ticks(self) -> list[float]:
        """Round numbers on the axis."""
        return list(round_numbers(self.scale.low, self.scale.high, 5))


def score_scale(estimates: Iterable[Estimate]) -> Scale:
    """An axis for scores up to 1. It starts at 0, or just below the lowest score if that is high."""
    values = [value for estimate in estimates for value in (estimate.value, estimate.low) if math.isfinite(value)]
    floor = math.floor(min(values, default=0.0) / _FLOOR_STEP + 1e-9) * _FLOOR_STEP
    floor = min(floor, 1 - _FLOOR_STEP) if floor >= _MIN_FLOOR else 0.0
    return Scale(round(floor, 1), 1.0, 0.0, 100.0)


def difference_scale(estimates: Iterable[Estimate]) -> Scale:
    """An axis for differences, with 0 in the middle."""
    values = (value for estimate in estimates for value in (estimate.value, estimate.low, estimate.high))
    reach = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    reach = max(reach * 1.1, 0.005)
    return Scale(-reach, reach, 0.0, 100.0)
