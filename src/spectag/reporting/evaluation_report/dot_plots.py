"""Scores and their intervals as dots and whiskers beside the numbers: a table that reads without its picture."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from spectag.evaluation.results import Estimate
from spectag.reporting.evaluation_report.formatting import difference, difference_interval, interval, score
from spectag.reporting.evaluation_report.svg import Scale, round_numbers

_FLOOR_STEP = 0.1
_LOWEST_FLOOR = 0.5  # where the axis of scores begins at 0 instead
_PERCENT = 100.0


@dataclass(frozen=True)
class Row:
    """A line of the table; its words are HTML."""

    words: tuple[str, ...]
    estimate: Estimate
    has_dot: bool = True  # False: a number that does not lie on the axis
    n_rows: int = 1  # that the first word stands for; 0: it stands before an earlier row
    is_other: bool = False  # drawn hollow: of another model than the one evaluated


def score_scale(estimates: Iterable[Estimate]) -> Scale:
    """An axis for scores up to 1, in percent of its length: from 0, or from below the lowest where that is high."""
    lowest = min((value for one in estimates for value in (one.value, one.low) if math.isfinite(value)), default=0.0)
    floor = math.floor(lowest / _FLOOR_STEP + 1e-9) * _FLOOR_STEP
    floor = min(floor, 1 - _FLOOR_STEP) if floor >= _LOWEST_FLOOR else 0.0
    return Scale(round(floor, 1), 1.0, 0.0, _PERCENT)


def difference_scale(estimates: Iterable[Estimate]) -> Scale:
    """An axis for differences, as far to the left of 0 as to the right."""
    reach = max((abs(x) for one in estimates for x in (one.value, one.low, one.high) if math.isfinite(x)), default=0.0)
    reach = max(reach * 1.1, 0.005)
    return Scale(-reach, reach, 0.0, _PERCENT)


def dot_table(
    heads: Sequence[str],
    rows: Sequence[Row],
    scale: Scale,
    *,
    name: str,
    reference: float | None = None,
    are_differences: bool = False,
) -> str:
    """A table whose last two columns are the score with its interval, and both drawn.

    Parameters
    ----------
    heads : sequence of str
        Names of the columns of words; plain text.
    rows : sequence of Row
    scale : Scale
        In percent of the drawing's width.
    name : str
        What is on the axis.
    reference : float, optional
        Where a line is drawn through all rows.
    are_differences : bool
        Whether the numbers have a sign.
    """
    ticks = list(round_numbers(scale.low, scale.high, 5))
    labels = "".join(f'<span style="left:{scale(tick):.2f}%">{_tick(tick)}</span>' for tick in ticks)
    lines = "".join(f'<i class="tick" style="left:{scale(tick):.2f}%"></i>' for tick in ticks)
    if reference is not None and math.isfinite(reference):
        lines += f'<i class="reference" style="left:{scale(reference):.2f}%"></i>'
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    written = (difference, difference_interval) if are_differences else (score, interval)
    body = "".join(_row(row, written[0](row.estimate.value), written[1](row.estimate), scale, lines) for row in rows)
    return (
        f'<div class="scrolls"><table class="dots"><thead><tr>{head}<th scope="col" class="figure">{escape(name)}</th>'
        f'<th class="drawing" aria-hidden="true"><div class="ticks">{labels}</div></th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: Row, value: str, between: str, scale: Scale, lines: str) -> str:
    first, *others = row.words
    span = f' rowspan="{row.n_rows}"' if row.n_rows > 1 else ""
    head = f'<th scope="row"{span}>{first}</th>' if row.n_rows else ""
    cells = "".join(f"<td>{words}</td>" for words in others)
    drawing = f"{lines}{_whisker(row.estimate, scale) if row.has_dot else ''}"
    kind = ' class="other"' if row.is_other else ""
    return (
        f'<tr{kind}>{head}{cells}<td class="figure">{value} <small>{between}</small></td>'
        f'<td class="drawing" aria-hidden="true"><div>{drawing}</div></td></tr>'
    )


def _whisker(estimate: Estimate, scale: Scale) -> str:
    if not math.isfinite(estimate.value):
        return ""
    dot = f'<i class="dot" style="left:{scale(estimate.value):.2f}%"></i>'
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return dot
    low, high = scale(estimate.low), scale(estimate.high)
    return f'<i class="whisker" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>{dot}'


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")
