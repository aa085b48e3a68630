"""Figures of tuning: the loss over the learning rate, and the trials of a study."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spectag.array_types import FloatArray
from spectag.system.figures import LINE_COLOR, new_figure, shorten_middle
from spectag.training.curves import TRAINING_COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spectag.training.tuning.learning_rate_finder import RateCurve


def draw_rate_curve(curve: "RateCurve", *, title: str = "") -> "Figure":
    """The loss over the learning rate, and the suggested learning rate."""
    figure = new_figure(7, 4.2)
    ax = figure.subplots()
    ax.plot(curve.rates, curve.losses, ".", color="0.7", markersize=4, label="single batches")
    ax.plot(curve.rates, curve.smoothed, color=TRAINING_COLORS[0], label="moving average")
    if curve.suggestion is not None:
        label = f"steepest descent: {curve.suggestion:.1e}"
        ax.axvline(curve.suggestion, color=TRAINING_COLORS[1], linestyle="--", label=label)
    falling = curve.smoothed[: int(np.argmin(curve.smoothed)) + 1]
    highest = 2 * float(falling.max())  # without the divergence
    ax.set(xscale="log", xlabel="Learning rate", ylabel="Loss", ylim=(0, highest))
    ax.grid(alpha=0.3)
    ax.legend()
    ax.set_title(shorten_middle(title, 70), fontsize=11, parse_math=False)
    return figure


def study_figure(
    scores: Sequence[float], settings: Mapping[str, Sequence[str | float | None]], metric: str = "lwlrap"
) -> "Figure":
    """Held-out score of a study: by trial, with the best so far, and by the value of each searched setting.

    Parameters
    ----------
    scores : floats, n_trials of them
        NaN for trials without a score, which are only counted. The first is that of the unchanged recipe.
    settings : mapping of names to n_trials values
        Numbers that span more than a factor of ten are on a logarithmic scale; words are categories. A number that is
        None, such as a weight decay that is chosen in training, is not drawn.
    metric : str
        The name of the score.
    """
    values = np.asarray(scores, float)
    n_columns = max(1, min(3, len(settings)))
    n_rows = max(1, -(-len(settings) // n_columns))
    figure = new_figure(5 + 2.6 * n_columns, max(4.0, 2.2 * n_rows))
    left, right = np.ravel(figure.subfigures(1, 2, width_ratios=[5, 2.6 * n_columns]))  # type: ignore[arg-type]
    _show_trials(values, left.subplots(), metric)
    axes = right.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    for ax in axes.flat[len(settings) :]:
        ax.set_axis_off()
    for ax, (name, tried) in zip(axes.flat, settings.items(), strict=False):
        _show_setting(values, name, tried, ax)
    right.supylabel(f"Held-out {metric}", fontsize=10)
    return figure


def _show_trials(scores: FloatArray, ax: "Axes", metric: str) -> None:
    numbers = np.arange(len(scores))
    best = np.maximum.accumulate(np.where(np.isnan(scores), -np.inf, scores))
    ax.axhline(scores[0], color="grey", linestyle="--", linewidth=1, label="unchanged recipe")
    ax.step(numbers, best, where="post", color=LINE_COLOR, label="best so far")
    ax.scatter(numbers, scores, s=14, color=LINE_COLOR, alpha=0.6)
    ax.set(xlabel="Trial", ylabel=f"Held-out {metric}")
    ax.locator_params(axis="x", integer=True)
    n_unscored = int(np.isnan(scores).sum())
    title = f"{len(scores)} trials" + (f", {n_unscored} without a score" if n_unscored else "")
    ax.set_title(title, fontsize=11)
    ax.legend(fontsize=8, loc="lower right")


def _show_setting(scores: FloatArray, name: str, tried: Sequence[str | float | None], ax: "Axes") -> None:
    if any(isinstance(value, str) for value in tried):
        names = ["none" if value is None else f"{value}" for value in tried]
        categories = sorted(set(names))
        positions = np.array([categories.index(name) for name in names], float)
        ax.set_xticks(range(len(categories)), categories)
        ax.set_xlim(-0.5, len(categories) - 0.5)
    else:
        positions = np.array([np.nan if value is None else value for value in tried], float)
        numbers = positions[~np.isnan(positions)]
        if len(numbers) and numbers.min() > 0 and numbers.max() > 10 * numbers.min():
            ax.set_xscale("log")
    ax.axhline(scores[0], color="grey", linestyle="--", linewidth=1)
    ax.scatter(positions, scores, s=10, color=LINE_COLOR, alpha=0.6)
    ax.set_title(name, fontsize=9)
    ax.tick_params(labelsize=8)
