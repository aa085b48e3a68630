"""Small figures as SVG text: words and axes take the colour of the page's text, so that they suit dark pages and paper.

A figure is drawn in units that are CSS pixels where it is shown at its full width. Nothing in it depends on time or
chance, so that equal numbers give equal bytes.
"""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from spectag.array_types import Pixels
from spectag.reporting.label_colors import Dash
from spectag.reporting.svg_parts import data_uri

DASH_ARRAYS: dict[Dash, str] = {"solid": "none", "dashed": "6 3", "dotted": "1.5 2.5", "dashdot": "7 3 1.5 3"}
_SPARE = 1e-9  # for rounding


@dataclass(frozen=True)
class Scale:
    """Where a number stands in a figure: `low` at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    is_logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a number; what lies beyond an end is put there."""
        low, high, value = (math.log(x) if self.is_logarithmic else x for x in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """About five round numbers; of a logarithmic scale, powers of ten, with their double and fivefold if few."""
        if not self.is_logarithmic:
            return list(round_numbers(self.low, self.high, 5))
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5)):
            ticks = [step * 10.0**decade for decade in decades for step in steps]
            ticks = [tick for tick in ticks if self.low * (1 - _SPARE) <= tick <= self.high * (1 + _SPARE)]
            if len(ticks) >= 3:
                break
        return ticks


def round_numbers(low: float, high: float, n_most: int) -> Iterator[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, as many as fit into `n_most` steps."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / n_most))
    step = next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= n_most + _SPARE)
    for i in range(math.ceil(low / step - _SPARE), math.floor(high / step + _SPARE) + 1):
        yield round(i * step, 12)


def figure(
    width: float, height: float, alt: str, parts: Iterable[str], *, classes: str = "", attributes: str = ""
) -> str:
    """An SVG element of this size, which becomes narrower with the page but never wider.

    Parameters
    ----------
    width, height : float
    alt : str
        What the figure shows, for those who don't see it; plain text.
    parts : iterable of str
        SVG.
    classes, attributes : str
        For the style sheet, and for the script: more attributes as HTML.
    """
    return (
        f'<svg class="plot {classes}" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img" '
        f'aria-label="{escape(alt)}" {attributes}>{"".join(parts)}</svg>'
    )


def x_axis(scale: Scale, y: float, name: str, *, ticks: Sequence[float] | None = None) -> Iterator[str]:
    """Ticks, their numbers and the axis' name below a figure whose bottom is at `y`."""
    yield f'<path class="axis" d="M{scale.start:g} {y:g}H{scale.end:g}"/>'
    for tick in scale.ticks if ticks is None else ticks:
        x = scale(tick)
        yield f'<path class="axis" d="M{x:.1f} {y:g}v4"/><text x="{x:.1f}" y="{y + 16:g}">{number(tick)}</text>'
    middle = (scale.start + scale.end) / 2
    yield f'<text class="name" x="{middle:g}" y="{y + 33:g}">{escape(name)}</text>'


def y_axis(scale: Scale, x: float, name: str, *, ticks: Sequence[float] | None = None, far: float = 0) -> Iterator[str]:
    """Ticks, their numbers and the axis' name left of a figure; faint lines as far as `far`."""
    for tick in scale.ticks if ticks is None else ticks:
        y = scale(tick)
        if far:
            yield f'<path class="grid" d="M{x:g} {y:.1f}H{far:g}"/>'
        yield f'<text class="end" x="{x - 6:g}" y="{y + 4:.1f}">{number(tick)}</text>'
    yield f'<path class="axis" d="M{x:g} {scale.start:g}V{scale.end:g}"/>'
    middle = (scale.start + scale.end) / 2
    yield f'<text class="name" transform="translate(11 {middle:g}) rotate(-90)">{escape(name)}</text>'


def number(value: float) -> str:
    """A tick's number: short, with thousands marked."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def jpeg(pixels: Pixels) -> str:
    """A picture (height, width) or (height, width, 3) as the address of itself."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=82, subsampling=0, optimize=True)
    return data_uri("image/jpeg", file.getvalue())


def png(pixels: Pixels) -> str:
    """A picture (height, width, 4), partly transparent, as the address of itself."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return data_uri("image/png", file.getvalue())
