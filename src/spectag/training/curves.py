"""Figures of training: learning curves, the loss over the learning rate, and the trials of a search."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spectag.system.epoch_log import Epoch
from spectag.system.figures import TITLE_LENGTH, middle_cut, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_PART_COLORS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"
"""Okabe and Ito's, which the colour-blind tell apart; without their yellow, which is too pale for a line."""
_FEW_EPOCHS = 30  # drawn with a point each


def draw_learning_curves(epochs: Sequence[Epoch], *, title: str = "") -> "Figure":
    """Loss and lwlrap after each epoch: a colour for each training, dashed for its clips, solid for those held out.

    A ring is around the highest lwlrap of held-out clips.

    Raises
    ------
    ValueError
        If there is no epoch.
    """
    if not epochs:
        raise ValueError("there is no epoch to draw")
    parts = {epoch.part: [other for other in epochs if other.part == epoch.part] for epoch in epochs}
    figure = new_figure(10, 4.2)
    loss_ax, lwlrap_ax = figure.subplots(1, 2)
    colors = _part_colors(len(parts))
    for course, color in zip(parts.values(), colors, strict=True):
        _draw_course(loss_ax, course, [epoch.train_loss for epoch in course], color, "--")
        _draw_course(loss_ax, course, [epoch.valid_loss for epoch in course], color, "-")
        _draw_course(lwlrap_ax, course, [epoch.train_lwlrap for epoch in course], color, "--")
        _draw_course(lwlrap_ax, course, [epoch.valid_lwlrap for epoch in course], color, "-")
        _ring_the_best(lwlrap_ax, course, color)
    for ax, name in ((loss_ax, "Loss"), (lwlrap_ax, "lwlrap (best is 1)")):
        ax.set(xlabel="Epoch", ylabel=name)
        ax.locator_params(axis="x", integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    figure.suptitle(middle_cut(title, 100), fontsize=11, parse_math=False)
    _name_parts(figure, list(parts), colors)
    return figure


def _draw_course(ax: "Axes", course: Sequence[Epoch], scores: Sequence[float | None], color: Any, style: str) -> None:
    known = [np.nan if score is None else score for score in scores]
    marker = "." if len(course) <= _FEW_EPOCHS else ""
    ax.plot([epoch.epoch for epoch in course], known, style, color=color, marker=marker, linewidth=1.2)


def _ring_the_best(ax: "Axes", course: Sequence[Epoch], color: Any) -> None:
    judged = [(epoch.valid_lwlrap, epoch.epoch) for epoch in course if epoch.valid_lwlrap is not None]
    if judged:
        best, number = max(judged, key=lambda pair: pair[0])
        ax.plot([number], [best], "o", color=color, markersize=9, markerfacecolor="none")


def _name_parts(figure: "Figure", parts: Sequence[str], colors: Sequence[Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linewidth=3, label=middle_cut(part or "training", TITLE_LENGTH))
        for part, color in zip(parts, colors, strict=True)
    ]
    handles += [Line2D([], [], color="0.3", linestyle="--", label="train"), Line2D([], [], color="0.3", label="valid")]
    legend = figure.legend(handles=handles, loc="outside right center", fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _part_colors(n_parts: int) -> Sequence[Any]:
    """Colours that the colour-blind tell apart; of many parts, in an order from dark to light."""
    if n_parts <= len(_PART_COLORS):
        return _PART_COLORS[:n_parts]
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 0.9, n_parts)))
