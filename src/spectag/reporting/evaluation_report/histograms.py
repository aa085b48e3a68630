"""Distributions as figures: how well probabilities come true, how long clips are, how many a label has."""

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from spectag.array_types import FloatArray, IntArray
from spectag.evaluation.results import CalibrationCheck, ModelEvaluation
from spectag.reporting.evaluation_report.curves import FEW_LABELS
from spectag.reporting.evaluation_report.formatting import count, lead, percent
from spectag.reporting.evaluation_report.svg import Scale, figure, x_axis, y_axis
from spectag.reporting.label_colors import color_of
from spectag.scoring.reliability_diagram import Reliability

_N_BINS = 24
_WIDE = 20.0  # times the shortest: durations from which on their axis is logarithmic
_MOST_NAMED = 26  # labels whose names stand below their bars


def calibration_section(check: CalibrationCheck) -> str:
    """Reliability before and after calibration, as HTML."""
    pairs = [("As given", check.reliability_after, check.ece_after)]
    if check.is_calibrated:
        pairs = [
            ("Before calibration", check.reliability_before, check.ece_before),
            ("After calibration", check.reliability_after, check.ece_after),
        ]
    figures = "".join(
        f"<figure><figcaption>{name}: expected calibration error <b>{percent(error)}</b></figcaption>"
        f"{_reliability(bins, name)}</figure>"
        for name, bins, error in pairs
    )
    without = "" if check.is_calibrated else " These probabilities were not calibrated."
    return (
        lead(
            "Of all decisions, clip by clip and label by label, that were said with a probability, the share that were "
            "so: on the diagonal, probabilities can be taken at their word. Whiskers are 95 % intervals (Wilson's), "
            "bars below the number of decisions. The expected calibration error is the mean distance from the "
            f"diagonal, each decision counting alike (Guo et al., 2017).{without}"
        )
        + f'<div class="figures">{figures}</div>'
    )


def _reliability(bins: Reliability, name: str) -> str:
    across, up = Scale(0, 1, 44, 344), Scale(0, 1, 272, 12)
    most = max(10.0, float(bins.n.max(initial=0)))
    tall = Scale(1, most, 366, 300, is_logarithmic=True)
    parts = [*y_axis(up, 44, "Share that were so", far=344)]
    parts.append(f'<path class="diagonal" d="M{across(0):g} {up(0):g}L{across(1):g} {up(1):g}"/>')
    parts += _reliability_marks(bins, across, up)
    parts += y_axis(tall, 44, "Decisions", ticks=[tick for tick in tall.ticks if math.log10(tick) % 1 == 0][::2])
    parts += _bars(bins.edges, bins.n, across, tall)
    parts += x_axis(across, 366, "Probability that was said")
    return figure(356, 404, f"Reliability diagram: {name}", parts)


def _reliability_marks(bins: Reliability, across: Scale, up: Scale) -> Iterator[str]:
    shown = np.flatnonzero(bins.n)
    points = " ".join(f"{across(bins.mean_probability[i]):.1f},{up(bins.share_true[i]):.1f}" for i in shown)
    yield f'<polyline class="line joint" points="{points}"/>'
    for i in shown:
        x = across(bins.mean_probability[i])
        words = (
            f"said {bins.mean_probability[i]:.2f}, so in {bins.share_true[i]:.2f} "
            f"of {count(int(bins.n[i]), 'decision')}"
        )
        yield f'<path class="line" d="M{x:.1f} {up(bins.share_low[i]):.1f}V{up(bins.share_high[i]):.1f}"/>'
        y = up(bins.share_true[i])
        yield f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{words}</title></circle>'


def _bars(edges: FloatArray, heights: IntArray, across: Scale, up: Scale) -> Iterator[str]:
    for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
        if height:
            x, top = across(left), min(up(max(float(height), up.low)), up.start - 1.5)
            yield (
                f'<rect class="mark" x="{x + 0.5:.1f}" y="{top:.1f}" width="{max(across(right) - x - 1, 0.5):.1f}" '
                f'height="{up.start - top:.1f}"><title>{left:.3g} to {right:.3g}: {height:,}</title></rect>'
            )


def durations_figure(durations: FloatArray) -> str:
    """How long the clips are, as HTML: a histogram, or a sentence where all are equally long."""
    known = durations[np.isfinite(durations)]
    if not known.size:
        return "<p>Images do not tell how long they last.</p>"
    shortest, longest = float(known.min()), float(known.max())
    if longest - shortest <= 0.02 * longest:
        return f"<p>All clips last {longest:.3g} s.</p>"
    is_wide = longest > _WIDE * max(shortest, 1e-3)
    low, high = (max(shortest, 1e-3), longest) if is_wide else (0.0, longest)
    edges = (np.geomspace if is_wide else np.linspace)(low, high, _N_BINS + 1)
    heights = np.histogram(known.clip(low, high), edges)[0]
    across = Scale(low, high, 52, 404, is_logarithmic=is_wide)
    up = Scale(0, float(heights.max()), 200, 12)
    parts = [
        *y_axis(up, 52, "Clips", far=404),
        *_bars(edges, heights, across, up),
        *x_axis(across, 200, "Duration (s)"),
    ]
    alt = f"Histogram of durations from {shortest:.3g} to {longest:.3g} seconds, median {np.median(known):.3g}"
    caption = f"From {shortest:.3g} s to {longest:.3g} s; half are shorter than {np.median(known):.3g} s."
    return f"<figure><figcaption>{caption}</figcaption>{figure(416, 238, alt, parts)}</figure>"


def clips_per_label_figure(model: ModelEvaluation, colored: Sequence[str]) -> str:
    """How many clips each label has, most first, as HTML."""
    counts, names = model.n_clips_per_label, model.labels.names
    order = np.argsort(-counts, kind="stable")
    named = len(order) <= _MOST_NAMED
    width = 404.0
    across = Scale(0, len(order), 52, width)
    up = Scale(0, max(1.0, float(counts.max())), 200, 12)
    kind = "labelled lit" if len(order) <= FEW_LABELS else "labelled"
    parts = [*y_axis(up, 52, "Clips", far=width, ticks=[tick for tick in up.ticks if tick == round(tick)])]
    for place, label in enumerate(order):
        x, wide = across(place), across(place + 1) - across(place)
        top = up(float(counts[label]))
        parts.append(
            f'<rect class="{kind}" data-label="{label}" style="--label:{color_of(names[label], colored)}" '
            f'x="{x + 0.1 * wide:.1f}" y="{top:.1f}" width="{0.8 * wide:.1f}" height="{up.start - top:.1f}">'
            f"<title>{escape(names[label])}: {counts[label]:,}</title></rect>"
        )
        if named:
            parts.append(
                f'<text class="end" transform="translate({x + wide / 2 + 4:.1f} 210) rotate(-60)">'
                f"{escape(_short(names[label]))}</text>"
            )
    parts.append(f'<path class="axis" d="M52 200H{width:g}"/>')
    if not named:
        parts.append(
            f'<text class="name" x="{(52 + width) / 2:g}" y="222">{len(order)} labels, most clips first</text>'
        )
    few, many = int(counts.min()), int(counts.max())
    caption = f"Each label has {f'{few:,} to ' if few < many else ''}{count(many, 'clip')}."
    alt = f"Clips of each label: {few:,} to {many:,}"
    drawing = figure(width + 12, 318 if named else 232, alt, parts)
    return f'<figure><figcaption>{caption}</figcaption><div class="scrolls">{drawing}</div></figure>'


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
