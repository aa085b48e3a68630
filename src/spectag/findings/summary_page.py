"""The page of a summary: when and where each label was detected, beside the hours that were recorded."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray, Pixels
from spectag.audio.embedded_media import png_uri
from spectag.findings.summary_results import Summary, clock_time
from spectag.findings.sun_times import BIN_MINUTES, SUN_BINS
from spectag.reporting.evaluation_report.summary import report_date, versions_text
from spectag.reporting.html_pages import render_page, write_page
from spectag.reporting.label_colors import LabelColors

MAX_HEATMAPS = 48
MAX_ROWS, MAX_COLUMNS = 60, 40
_MAX_BINS = 120  # of days in a heat map
_MAX_POINTS = 400  # of a curve
_MAX_SKIPPED = 20
_COLOR, _NO_EFFORT = (20, 130, 200), (128, 126, 138, 70)  # visible on white and on black
_MIN_OPACITY = 45  # of a cell with a detection


@dataclass(frozen=True)
class _HeatMap:
    """Hours of the day by days, as a picture with a pixel for each cell."""

    title: str
    image: str
    peak: str
    """The highest value, with its unit."""


@dataclass(frozen=True)
class _DayAxis:
    """The days of the heat maps, and where their axis has names."""

    edges: IntArray
    ticks: tuple[tuple[float, str], ...]
    """Fraction of the width, and the name of the day."""
    days_per_bin: int


@dataclass(frozen=True)
class _MatrixCell:
    """Detections of a label at a site."""

    count: int
    fraction: float
    """Of the highest rate of the label, from 0 to 1; NaN if nothing was recorded."""
    title: str


def write_summary_page(summary: Summary, path: Path, *, command: str | None = None) -> None:
    """Write a summary as a single HTML file; a DataError if that fails."""
    activity = summary.activity
    labels = [row.label for row in summary.labels]
    axis = _day_axis(activity.days)
    text = render_page(
        "summary.html",
        ("evaluation_report.js",),
        title=f"Detections in {summary.source.name}",
        summary=summary,
        labels=summary.labels,
        sites=summary.sites,
        colors=LabelColors(labels),
        axis=axis,
        effort_map=None if axis is None else _effort_map(summary, axis),
        heat_maps=() if axis is None else _heat_maps(summary, axis),
        accumulation=_accumulation(summary),
        matrix=_matrix(summary),
        max_rows=MAX_ROWS,
        max_columns=MAX_COLUMNS,
        strips=_sunrise_strips(summary),
        max_skipped=_MAX_SKIPPED,
        time_zone=_time_zone_text(summary),
        verification=_verification_text(summary),
        thresholds=_threshold_text(summary),
        time_text=_time_text,
        hours_text=_hours_text,
        period=_period(activity.days),
        command=command,
        versions=versions_text(),
        date=report_date(),
    )
    write_page(path, text)


def _day_axis(days: IntArray) -> _DayAxis | None:
    """Bins of days from the first day with recordings to the last; None without any."""
    if not len(days):
        return None
    first, last = int(days[0]), int(days[-1])
    per_bin = next((n for n in (1, 7, 30) if last - first < n * _MAX_BINS), (last - first) // _MAX_BINS + 1)
    edges = np.arange(first, last + per_bin + 1, per_bin)
    n_bins = len(edges) - 1
    shown = sorted({0, n_bins // 3, 2 * n_bins // 3, n_bins - 1}) if n_bins > 3 else range(n_bins)
    ticks = tuple(((index + 0.5) / n_bins, date.fromordinal(int(edges[index])).isoformat()) for index in shown)
    return _DayAxis(edges, ticks, per_bin)


def _effort_map(summary: Summary, axis: _DayAxis) -> _HeatMap:
    _, hours = summary.activity.by_hour_and_bin(axis.edges)
    return _HeatMap("Recorded hours", _picture(hours, hours > 0), f"{hours.max():.3g} h")


def _heat_maps(summary: Summary, axis: _DayAxis) -> tuple[_HeatMap, ...]:
    """Detections per recorded hour of the most frequent labels."""
    counts, hours = summary.activity.by_hour_and_bin(axis.edges)
    has_effort = hours > 0
    maps = []
    for row, count in list(zip(summary.labels, counts, strict=True))[:MAX_HEATMAPS]:
        rates = np.divide(count, hours, out=np.zeros_like(hours), where=has_effort)
        maps.append(_HeatMap(row.label, _picture(rates, has_effort), f"{rates.max():.3g} per hour"))
    return tuple(maps)


def _picture(values: FloatArray, has_effort: BoolArray) -> str:
    """A PNG with a pixel for each value: the higher, the less transparent; grey where nothing was recorded."""
    pixels: Pixels = np.zeros((*values.shape, 4), np.uint8)
    peak = values.max(initial=0.0)
    if peak > 0:
        opacity = _MIN_OPACITY + (255 - _MIN_OPACITY) * values / peak
        pixels[..., 3] = np.where(values > 0, np.round(opacity), 0)
    pixels[..., :3] = _COLOR
    pixels[~has_effort] = _NO_EFFORT
    return png_uri(pixels)


def _accumulation(summary: Summary) -> dict[str, Any] | None:
    """Points of the two curves; None without days of recording."""
    curves = summary.activity.accumulation()
    n_days = len(curves.in_order)
    if not n_days:
        return None
    shown = np.unique(np.linspace(0, n_days - 1, min(n_days, _MAX_POINTS)).round().astype(int))
    days = (shown + 1).tolist()
    return {
        "n_days": n_days,
        "n_labels": max(int(curves.in_order[-1]), 1),
        "in_order": [(0, 0), *zip(days, curves.in_order[shown].tolist(), strict=True)],
        "expected": [(0, 0), *zip(days, curves.expected[shown].tolist(), strict=True)],
    }


def _matrix(summary: Summary) -> list[list[_MatrixCell]]:
    """Detections of the most frequent labels at the first sites."""
    counts = summary.activity.label_by_site()[:MAX_ROWS, :MAX_COLUMNS]
    in_effort = summary.activity.label_by_site(in_effort=True)[:MAX_ROWS, :MAX_COLUMNS]
    hours = summary.activity.hours_by_site()[:MAX_COLUMNS]
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.where(hours > 0, in_effort / hours, np.nan)
    return [
        [
            _MatrixCell(
                int(count),
                float(rate / peak) if peak > 0 else float(rate),
                f"{row.label} at {site.site}: {count:,} detections in {_hours_text(site.hours)} recorded hours",
            )
            for count, rate, site in zip(counts[index], rates[index], summary.sites, strict=False)
        ]
        for index, (row, peak) in enumerate(
            zip(summary.labels, np.nan_to_num(rates).max(axis=1, initial=0), strict=False)
        )
    ]


def _sunrise_strips(summary: Summary) -> list[tuple[str, str, str]]:
    """Label, picture and summary in words of the most frequent labels by the time after sunrise."""
    if summary.sunrise is None:
        return []
    hours, strips = summary.sunrise.hours, []
    has_effort = hours > 0
    for row, count in list(zip(summary.labels, summary.sunrise.counts, strict=True))[:MAX_ROWS]:
        rates = np.divide(count, hours, out=np.zeros_like(hours), where=has_effort)
        best = int(rates.argmax())
        low, high = int(SUN_BINS[best]), int(SUN_BINS[best]) + BIN_MINUTES
        peak = f"most from {_minutes(low)} to {_minutes(high)}: {rates[best]:.3g} per hour" if rates.any() else ""
        strips.append((row.label, _picture(rates[None], has_effort[None]), peak))
    return strips


def _minutes(minutes: int) -> str:
    sign = "−" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60}:{abs(minutes) % 60:02d}"


def _time_text(moment: datetime | None) -> str:
    return "" if moment is None else clock_time(moment).isoformat(" ", "minutes")


def _hours_text(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2f}"


def _period(days: IntArray) -> str:
    if not len(days):
        return ""
    first, last = (date.fromordinal(int(day)).isoformat() for day in (days[0], days[-1]))
    return first if first == last else f"{first} to {last}"


def _time_zone_text(summary: Summary) -> str:
    settings = summary.settings
    if settings.timezone is None and settings.recorder_timezone is None:
        return "by the clocks of the recorders"
    local = settings.timezone or settings.recorder_timezone
    if settings.recorder_timezone in (None, local):
        return f"{local}; times without a zone are taken to be in it"
    return f"{local}; times without a zone are taken to be {settings.recorder_timezone}"


def _threshold_text(summary: Summary) -> str:
    """From which probability on a detection counts."""
    parts = [f"all with a probability of at least {summary.min_probability:g}"] if summary.min_probability else []
    if summary.model is not None:
        known = sum(row.threshold is not None for row in summary.labels)
        kind = summary.applied_thresholds
        if kind is not None:
            return "; ".join([*parts, f"only those that reach the thresholds of {summary.model} for {kind}"])
        parts = parts or ["all detections of the table"]
        parts.append(
            f"the thresholds of {summary.model} are stated in the table of labels ({known:,} of "
            f"{len(summary.labels):,} labels), but not applied (--apply-thresholds applies them)"
        )
    elif not parts:
        parts.append("all detections of the table; its thresholds are unknown (--model states them)")
    return "; ".join(parts)


def _verification_text(summary: Summary) -> str:
    """Whether somebody checked the detections."""
    if summary.checked is None:
        return "Detections are not verified: nobody has checked how many of them are true."
    counts = Counter(summary.decisions.values())
    n_checked = counts["yes"] + counts["no"] + counts["unsure"]
    n_labels = sum(row.precision is not None for row in summary.labels)
    unsure = f", {counts['unsure']:,} unsure, which count as wrong" if counts["unsure"] else ""
    decisions = f"{counts['yes']:,} true, {counts['no']:,} false{unsure}"
    text = f"{n_checked:,} detections were checked by ear ({summary.checked.name}): {decisions}."
    if not n_labels:
        return f"{text} Their sample does not represent all detections, so the precision is unknown."
    return (
        f"{text} The precision of {n_labels:,} of {len(summary.labels):,} labels is estimated from them, with 95 % "
        "intervals. All other detections are not verified."
    )
