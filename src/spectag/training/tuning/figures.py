"""Figures of a search: the loss over the learning rate, and the trials of a study."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spectag.array_types import FloatArray
from spectag.system.figures import LINE_COLOR, middle_cut, new_figure
from spectag.training.curves import _PART_COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spectag.training.tuning.learning_rate_finder import RateCurve


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


def _show_trials(scores: FloatArray, ax: "Axes") -> None:
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


def _show_setting(scores: FloatArray, name: str, tried: Sequence[str | float | None], ax: "Axes") -> None:
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
