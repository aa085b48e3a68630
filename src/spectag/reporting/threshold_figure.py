"""A figure of precision against threshold, from detections that people checked by ear."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from spectag.evaluation.checked_thresholds import CheckedLabel, CheckedThresholds
from spectag.scoring.checked_precision import CheckedPrecision
from spectag.system.figures import LINE_COLOR, TITLE_LENGTH, check_figure_path, new_figure, save_figure, shorten_middle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_N_COLUMNS = 4
_MAX_LABELS = 60  # in a figure, the first ones of the table
_PANEL_INCHES = 2.6, 2.1
_RECALL_COLOR = "#8a8a8a"


def draw_checked_thresholds(checked: CheckedThresholds, path: str | Path) -> None:
    """Draw precision and recall against the threshold, with a panel for each label.

    The band is the interval of the precision. The dotted line is the wished precision; the vertical one is the new
    threshold, if the label reaches it.

    Parameters
    ----------
    checked : CheckedThresholds
        `Recalibration.checked`.
    path : str or Path
        .png, .jpg, .pdf or .svg.

    Raises
    ------
    ConfigError, MissingExtraError, DataError
        If the suffix is another one, matplotlib is not installed, or the figure can't be written.
    """
    path = Path(path)
    check_figure_path(path)
    rows = [row for row in checked.labels if row.label in checked.curves][:_MAX_LABELS]
    n_columns = min(_N_COLUMNS, max(len(rows), 1))
    n_rows = max(1, math.ceil(len(rows) / n_columns))
    figure = new_figure(_PANEL_INCHES[0] * n_columns, _PANEL_INCHES[1] * n_rows)
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes, row in zip(panels, rows, strict=False):
        _draw_label(axes, row, checked.curves[row.label], checked.precision)
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("threshold", fontsize="medium")
    if rows:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize="small")
    save_figure(figure, path)


def _draw_label(axes: "Axes", row: CheckedLabel, curve: CheckedPrecision, goal: float) -> None:
    axes.fill_between(curve.thresholds, curve.lower, curve.upper, color=LINE_COLOR, alpha=0.2, linewidth=0)
    axes.plot(curve.thresholds, curve.precision, color=LINE_COLOR, label="precision and its interval")
    axes.plot(curve.thresholds, curve.recall, color=_RECALL_COLOR, linewidth=1, label="recall")
    axes.axhline(goal, color="black", linestyle=":", linewidth=1, label=f"precision {goal:g}")
    if row.reaches_goal:
        axes.axvline(row.threshold, color="black", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(shorten_middle(row.label, TITLE_LENGTH), fontsize="small", parse_math=False)
