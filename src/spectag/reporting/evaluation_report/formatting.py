"""How numbers, labels and clips are written on the page."""

import math
from collections.abc import Sequence
from html import escape

from spectag.data.clips import Clip
from spectag.evaluation.results import METRIC_WORDS, Estimate
from spectag.reporting.label_colors import color_of, dash_of

NOTHING = "–"
_PERCENT = 100


def score(value: float, n_digits: int = 3) -> str:
    """A score with so many digits; a dash where it is not defined."""
    if math.isnan(value):
        return NOTHING
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{n_digits}f}".replace("-", "−")


def interval(estimate: Estimate, n_digits: int = 3) -> str:
    """An estimate's interval, such as 0.812–0.853 or −∞ to 0.174; nothing where it has none."""
    if not _has_interval(estimate):
        return ""
    between = " to " if estimate.low < 0 else "–"
    return f"{score(estimate.low, n_digits)}{between}{score(estimate.high, n_digits)}"


def difference(value: float) -> str:
    """A difference of scores with its sign; a dash where it is not defined."""
    return score(value) if not math.isfinite(value) else f"{value:+.3f}".replace("-", "−")


def difference_interval(estimate: Estimate) -> str:
    """The interval of a difference, such as −0.012 to +0.003; nothing where it has none."""
    if not _has_interval(estimate):
        return ""
    return f"{difference(estimate.low)} to {difference(estimate.high)}"


def _has_interval(estimate: Estimate) -> bool:
    return not (math.isnan(estimate.low) or math.isnan(estimate.high))


def percent(share: float) -> str:
    """A share as a percentage with two digits or three."""
    if math.isnan(share):
        return NOTHING
    digits = 1 if 0 < share < 0.0995 else 0
    return f"{_PERCENT * share:.{digits}f}\N{NO-BREAK SPACE}%"


def count(number: int, one: str) -> str:
    """A number and its thing: 1 clip, 2,000 clips."""
    return f"{number:,} {one if number == 1 else one + 's'}"


def metric_name(metric: str) -> str:
    """What a person calls a metric."""
    return METRIC_WORDS.get(metric, metric.replace("_", " "))


def without_folders(reason: str, clip: Clip) -> str:
    """Why a clip can't be read, with its name in place of its path: where it lay is nobody's business."""
    return reason.replace(str(clip.path), clip.fname)


def lead(text: str) -> str:
    """What is to be known of a section, as HTML; the text is HTML already."""
    return f'<p class="lead">{text}</p>'


def chip(label: str, labels: Sequence[str]) -> str:
    """A label with its colour, as HTML."""
    return f'<span class="chip">{swatch(label, labels)}{escape(label)}</span>'


def swatch(label: str, labels: Sequence[str]) -> str:
    """A short line in a label's colour and dashes, as HTML."""
    return f'<i class="swatch {dash_of(label, labels)}" style="--label:{color_of(label, labels)}"></i>'
