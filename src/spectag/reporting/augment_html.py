"""Pictures and sounds in one HTML file, side by side: without scripts, and with no need of a network."""

import io
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from string import Template

import numpy as np
from PIL import Image

from spectag.array_types import Pixels, Waveform
from spectag.config.base import MelConfig
from spectag.reporting.svg_parts import data_uri, frequency_ticks

_FIGURE_WIDTH, _FIGURE_HEIGHT = 320, 176
_PLOT = 36, 16, 280, 132  # left, top, width, height of the picture in it
_SECOND_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MOST_STEPS = 5
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1c1b22; --faint: #62606b; --line: #d9d8de; }
@media (prefers-color-scheme: dark) { :root { --back: #16151b; --ink: #eceaf1; --faint: #a3a1ad; --line: #3a3843; } }
body { margin: 1.5rem; background: var(--back); color: var(--ink); font: 15px/1.4 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .4rem; }
.about { max-width: 60rem; margin: 0 0 1rem; }
table { border-collapse: separate; border-spacing: 0; }
th, td { padding: .6rem .5rem; vertical-align: top; border-bottom: 1px solid var(--line); text-align: left; }
th { width: 13rem; min-width: 10rem; font-weight: normal; }
td { width: 18rem; min-width: 15rem; max-width: 24rem; }
thead th, thead td { position: sticky; top: 0; z-index: 1; background: var(--back); }
h2 { font-size: 1rem; margin: 0; }
p { margin: .15rem 0; }
td p { overflow-wrap: anywhere; }
th p, code, .notes { color: var(--faint); font-size: .85rem; }
svg { display: block; width: 100%; }
svg text { fill: currentColor; font-size: 11px; text-anchor: middle; }
svg text.end { text-anchor: end; }
svg path { stroke: currentColor; }
audio { display: block; width: 100%; height: 2rem; }
"""
_PAGE = Template("""<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
<h1>$title</h1>
<p class=about>$about</p>
<table>
<thead>$first</thead>
<tbody>
$others
</tbody>
</table>
</html>
""")


@dataclass(frozen=True)
class Axes:
    """What the rows and columns of the pictures mean."""

    mel: MelConfig
    n_frames: int


@dataclass(frozen=True)
class Cell:
    """A picture (height, width) or (height, width, 3), its sound if there is one, and what is to be read below."""

    picture: Pixels
    alt: str
    waveform: Waveform | None
    labels: str
    notes: str


@dataclass(frozen=True)
class Heading:
    """What stands before a row."""

    title: str
    about: str = ""
    setting: str = ""


def page_of_rows(
    title: str,
    about: str,
    rows: Sequence[tuple[Heading, Sequence[Cell]]],
    *,
    axes: Axes | None,
    sample_rate: int,
) -> str:
    """A page with a table of cells, whose first row stays in sight.

    Parameters
    ----------
    title, about : str
        Plain text, as all that is given.
    rows : sequence of (Heading, cells)
    axes : Axes, optional
        Of all pictures; None where they are unknown.
    sample_rate : int
        Of all sounds, in Hz.
    """
    first, *others = (
        f"<tr><th scope=row>{_heading(heading)}</th>{''.join(_cell(cell, axes, sample_rate) for cell in cells)}</tr>"
        for heading, cells in rows
    )
    return _PAGE.substitute(
        title=escape(title), style=_STYLE, about=escape(about), first=first, others="\n".join(others)
    )


def _heading(heading: Heading) -> str:
    about = f"<p>{escape(heading.about)}</p>" if heading.about else ""
    setting = f"<code>{escape(heading.setting)}</code>" if heading.setting else ""
    return f"<h2>{escape(heading.title)}</h2>{about}{setting}"


def _cell(cell: Cell, axes: Axes | None, sample_rate: int) -> str:
    player = "" if cell.waveform is None else _player(cell.waveform, sample_rate, cell.alt)
    notes = f"<p class=notes>{escape(cell.notes)}</p>" if cell.notes else ""
    return f"<td>{_figure(cell, axes)}{player}<p>{escape(cell.labels)}</p>{notes}</td>"


def _player(waveform: Waveform, sample_rate: int, alt: str) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(sample_rate)
        sound.writeframes(np.rint(32767 * waveform.clip(-1, 1)).astype("<i2").tobytes())
    source = data_uri("audio/wav", file.getvalue())
    return f'<audio controls preload=metadata aria-label="{escape(alt)}" src="{source}"></audio>'


def _figure(cell: Cell, axes: Axes | None) -> str:
    """A picture with its axes, as SVG, whose words take the colour of the page's text."""
    file = io.BytesIO()
    Image.fromarray(cell.picture).save(file, "JPEG", quality=88, subsampling=0)
    left, top, width, height = _PLOT
    return (
        f'<svg viewBox="0 0 {_FIGURE_WIDTH} {_FIGURE_HEIGHT}" role=img aria-label="{escape(cell.alt)}">'
        f'<image x="{left}" y="{top}" width="{width}" height="{height}" preserveAspectRatio=none '
        f'href="{data_uri("image/jpeg", file.getvalue())}"/>{_ticks(axes) if axes else ""}</svg>'
    )


def _ticks(axes: Axes) -> str:
    """Hz and seconds beside the picture."""
    left, top, width, height = _PLOT
    right, bottom = left + width, top + height
    parts = [
        f'<text x="{left - 6}" y="{top - 4}" class=end>Hz</text>',
        f'<text x="{right}" y="{bottom + 26}" class=end>seconds</text>',
    ]
    for name, share in frequency_ticks(axes.mel):
        y = bottom - height * share
        parts.append(f'<path d="M{left} {y:.1f}h-4"/><text x="{left - 6}" y="{y + 3.5:.1f}" class=end>{name}</text>')
    for seconds, share in _time_ticks(axes):
        x = left + width * share
        parts.append(f'<path d="M{x:.1f} {bottom}v4"/><text x="{x:.1f}" y="{bottom + 14}">{seconds:g}</text>')
    return "".join(parts)


def _time_ticks(axes: Axes) -> Iterator[tuple[float, float]]:
    """Round seconds, each with its place in the picture from 0 to 1."""
    frames_a_second = axes.mel.sample_rate / axes.mel.hop_length
    duration = axes.n_frames / frames_a_second
    step = next((step for step in _SECOND_STEPS if duration / step <= _MOST_STEPS), _SECOND_STEPS[-1])
    for i in range(int(duration / step + 1e-6) + 1):
        share = (i * step * frames_a_second + 0.5) / axes.n_frames  # frame 0 has its middle at 0 s
        yield i * step, min(share, 1.0)
