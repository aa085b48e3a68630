"""A figure of learning curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectag.errors import MissingExtraError
from spectag.system.epoch_log import Epoch
from spectag.system.figures import OKABE_ITO, TITLE_LENGTH, new_figure, save_figure, shorten_middle
from spectag.system.progress import Log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TRAINING_COLORS = (*OKABE_ITO, "#000000")
_MAX_MARKERS = 30  # with more epochs, their points are not marked


def save_learning_curves(path: Path, epochs: Sequence[Epoch], *, title: str, log: Log) -> None:
    """Write the figure of `draw_learning_curves` to a file. Without matplotlib, the log says that there is none."""
    try:
        save_figure(draw_learning_curves(epochs, title=title), path)
    except MissingExtraError as error:
        log(f"no picture of the learning curves: {error}")


def draw_learning_curves(epochs: Sequence[Epoch], *, title: str = "") -> "Figure":
    """Loss and lwlrap after each epoch: one colour per training; dashed for training clips, solid for held-out clips.

    A circle marks the highest held-out lwlrap.

    Raises
    ------
    ValueError
        If there are no epochs.
    """
    if not epochs:
        raise ValueError("need at least one epoch, got none")
    trainings = {epoch.part: [other for other in epochs if other.part == epoch.part] for epoch in epochs}
    figure = new_figure(10, 4.2)
    loss_ax, lwlrap_ax = figure.subplots(1, 2)
    colors = _training_colors(len(trainings))
    for training, color in zip(trainings.values(), colors, strict=True):
        _draw_curve(loss_ax, training, [epoch.train_loss for epoch in training], color, "--")
        _draw_curve(loss_ax, training, [epoch.valid_loss for epoch in training], color, "-")
        _draw_curve(lwlrap_ax, training, [epoch.train_lwlrap for epoch in training], color, "--")
        _draw_curve(lwlrap_ax, training, [epoch.valid_lwlrap for epoch in training], color, "-")
        _mark_best(lwlrap_ax, training, color)
    for ax, name in ((loss_ax, "Loss"), (lwlrap_ax, "lwlrap (best is 1)")):
        ax.set(xlabel="Epoch", ylabel=name)
        ax.locator_params(axis="x", integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    figure.suptitle(shorten_middle(title, 100), fontsize=11, parse_math=False)
    _add_legend(figure, list(trainings), colors)
    return figure


def _draw_curve(ax: "Axes", training: Sequence[Epoch], scores: Sequence[float | None], color: Any, style: str) -> None:
    values = [np.nan if score is None else score for score in scores]
    marker = "." if len(training) <= _MAX_MARKERS else ""
    ax.plot([epoch.epoch for epoch in training], values, style, color=color, marker=marker, linewidth=1.2)


def _mark_best(ax: "Axes", training: Sequence[Epoch], color: Any) -> None:
    scored = [(epoch.valid_lwlrap, epoch.epoch) for epoch in training if epoch.valid_lwlrap is not None]
    if scored:
        best, number = max(scored, key=lambda pair: pair[0])
        ax.plot([number], [best], "o", color=color, markersize=9, markerfacecolor="none")


def _add_legend(figure: "Figure", names: Sequence[str], colors: Sequence[Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linewidth=3, label=shorten_middle(name or "training", TITLE_LENGTH))
        for name, color in zip(names, colors, strict=True)
    ]
    handles += [Line2D([], [], color="0.3", linestyle="--", label="train"), Line2D([], [], color="0.3", label="valid")]
    legend = figure.legend(handles=handles, loc="outside right center", fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _training_colors(n_trainings: int) -> Sequence[Any]:
    """Colours for colour-blind readers; from dark to light if there are many trainings."""
    if n_trainings <= len(TRAINING_COLORS):
        return TRAINING_COLORS[:n_trainings]
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 0.9, n_trainings)))
