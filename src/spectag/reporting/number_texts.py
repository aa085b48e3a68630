"""How pages print numbers. Templates use these functions as filters."""

import math

from spectag.evaluation.results import METRIC_NAMES
from spectag.scoring.bootstrap import Estimate

NOT_DEFINED = "–"


def score_text(value: float, n_digits: int = 3) -> str:
    """A score with this many digits; a dash if it is not defined."""
    if math.isnan(value):
        return NOT_DEFINED
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{n_digits}f}".replace("-", "−")


def interval_text(estimate: Estimate, n_digits: int = 3) -> str:
    """An interval, such as 0.812–0.853 or −∞ to 0.174; empty if there is none."""
    if not _has_interval(estimate):
        return ""
    separator = " to " if estimate.low < 0 else "–"
    return f"{score_text(estimate.low, n_digits)}{separator}{score_text(estimate.high, n_digits)}"


def difference_text(value: float) -> str:
    """A difference of two scores with its sign; a dash if it is not defined."""
    return score_text(value) if not math.isfinite(value) else f"{value:+.3f}".replace("-", "−")


def difference_interval_text(estimate: Estimate) -> str:
    """The interval of a difference, such as −0.012 to +0.003; empty if there is none."""
    if not _has_interval(estimate):
        return ""
    return f"{difference_text(estimate.low)} to {difference_text(estimate.high)}"


def _has_interval(estimate: Estimate) -> bool:
    return not (math.isnan(estimate.low) or math.isnan(estimate.high))


def percent(fraction: float) -> str:
    """A fraction as a percentage with two or three digits."""
    if math.isnan(fraction):
        return NOT_DEFINED
    digits = 1 if 0 < fraction < 0.0995 else 0
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def quantity(number: int, noun: str) -> str:
    """A number with its noun: 1 clip, 2,000 clips."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def metric_name(metric: str) -> str:
    """The name of a metric in tables and figures."""
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def p_value_text(p_value: float) -> str:
    """A p-value with three digits; a dash if it is not defined."""
    if math.isnan(p_value):
        return NOT_DEFINED
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def tick_text(value: float) -> str:
    """The number at a tick: short, with a comma between thousands."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def percent_of(count: int, total: int) -> str:
    """A fraction as a whole number of percent, without the sign; empty for 0."""
    if not count:
        return ""
    percentage = 100 * count / total
    return "<1" if percentage < 0.5 else f"{percentage:.0f}"


def px(length: float) -> str:
    """A coordinate or length in a figure, to a tenth of a pixel."""
    return f"{length:.1f}"
