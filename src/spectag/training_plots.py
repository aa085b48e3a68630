"""Figures of training: learning curves, the loss over the learning rate, and the trials of a search."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectag.history import Epoch
from spectag.plots import LINE_COLOR, TITLE_LENGTH, middle_cut, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spectag.rate_finder import RateCurve

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


def draw_rate_curve(curve: "RateCurve", *, title: str = "") -> "Figure":
    """The loss over the learning rate, and the rate that is suggested."""
    figure = new_figure(7, 4.2)
    ax = figure.subplots()
    ax.plot(curve.rates, curve.losses, ".", color="0.7", markersize=4, label="of a batch")
    ax.plot(curve.rates, curve.smoothed, color=_PART_COLORS[0], label="moving average")
    if curve.suggestion is not None:
        ax.axvline(curve.suggestion, color=_PART_COLORS[1], linestyle="--", label=f"steepest: {curve.suggestion:.1e}")
    falling = curve.smoothed[: int(np.argmin(curve.smoothed)) + 1]
    ax.set(xscale="log", xlabel="Learning rate", ylabel="Loss", ylim=(0, 2 * float(falling.max())))  # then it explodes
    ax.grid(alpha=0.3)
    ax.legend()
    ax.set_title(middle_cut(title, 70), fontsize=11, parse_math=False)
    return figure


def study_figure(scores: Sequence[float], settings: Mapping[str, Sequence[str | float | None]]) -> "Figure":
    """A search's held-out lwlrap: trial by trial with the best so far, and over each setting that was searched over.

    Parameters
    ----------
    scores : floats, n_trials of them
        NaN for trials without a score, which are only counted. The first is that of the recipe as it was given.
    settings : mapping of names to n_trials values
        Numbers that go over more than a decade are drawn over their logarithm, words side by side. A number that is
        None, such as a weight decay that is chosen in training, has no place in its panel.
    """
    values = np.asarray(scores, float)
    n_columns = max(1, min(3, len(settings)))
    n_rows = max(1, -(-len(settings) // n_columns))
    figure = new_figure(5 + 2.6 * n_columns, max(4.0, 2.2 * n_rows))
    left, right = np.ravel(figure.subfigures(1, 2, width_ratios=[5, 2.6 * n_columns]))  # type: ignore[arg-type]
    _show_trials(values, left.subplots())
    axes = right.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    for ax in axes.flat[len(settings) :]:
        ax.set_axis_off()
    for ax, (name, tried) in zip(axes.flat, settings.items(), strict=False):
        _show_setting(values, name, tried, ax)
    right.supylabel("Held-out lwlrap", fontsize=10)
    return figure


def _show_trials(scores: NDArray[np.float64], ax: "Axes") -> None:
    numbers = np.arange(len(scores))
    best = np.maximum.accumulate(np.where(np.isnan(scores), -np.inf, scores))
    ax.axhline(scores[0], color="grey", linestyle="--", linewidth=1, label="the recipe as given")
    ax.step(numbers, best, where="post", color=LINE_COLOR, label="best so far")
    ax.scatter(numbers, scores, s=14, color=LINE_COLOR, alpha=0.6)
    ax.set(xlabel="Trial, in their order", ylabel="Held-out lwlrap")
    ax.locator_params(axis="x", integer=True)
    n_without = int(np.isnan(scores).sum())
    title = f"{len(scores)} trials" + (f", {n_without} without a score" if n_without else "")
    ax.set_title(title, fontsize=11)
    ax.legend(fontsize=8, loc="lower right")


def _show_setting(scores: NDArray[np.float64], name: str, tried: Sequence[str | float | None], ax: "Axes") -> None:
    if any(isinstance(value, str) for value in tried):
        words = ["none" if value is None else f"{value}" for value in tried]
        kinds = sorted(set(words))
        positions = np.array([kinds.index(word) for word in words], float)
        ax.set_xticks(range(len(kinds)), kinds)
        ax.set_xlim(-0.5, len(kinds) - 0.5)
    else:
        positions = np.array([np.nan if value is None else value for value in tried], float)
        known = positions[~np.isnan(positions)]
        if len(known) and known.min() > 0 and known.max() > 10 * known.min():
            ax.set_xscale("log")
    ax.axhline(scores[0], color="grey", linestyle="--", linewidth=1)
    ax.scatter(positions, scores, s=10, color=LINE_COLOR, alpha=0.6)
    ax.set_title(name, fontsize=9)
    ax.tick_params(labelsize=8)
