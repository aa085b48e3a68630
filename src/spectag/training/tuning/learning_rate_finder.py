"""Find a learning rate for fine-tuning: the rate rises in every step, and the loss falls fastest at a good one."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.signal import lfilter

from spectag.array_types import FloatArray
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.manifest import ManifestInput
from spectag.errors import ConfigError
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.training.pipeline import first_fine_tuning, read_training_data
from spectag.training.setup.callbacks import Callbacks

LOWEST_RATE, HIGHEST_RATE = 1e-6, 1.0
N_STEPS = 100
STEP_NAME = "learning rates"

_SMOOTHING = 0.9  # weight of the earlier losses in the moving average
_DIVERGENCE = 4.0  # the search ends when the average is this many times its minimum


@dataclass(frozen=True)
class RateCurve:
    """The loss at each learning rate.

    `losses` are those of single batches, `smoothed` their moving average, both of shape (n_rates,). `suggestion` is the
    learning rate to train with; see `suggest_rate`.
    """

    rates: FloatArray
    losses: FloatArray
    smoothed: FloatArray
    suggestion: float | None

    def to_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return {name: value if name == "suggestion" else value.tolist() for name, value in asdict(self).items()}


@shows_progress
def find_learning_rate(
    manifest: ManifestInput,
    recipe: Recipe,
    *,
    data: DataOptions | None = None,
    n_steps: int = N_STEPS,
    progress: Progress = silent,
    log: Log = no_log,
) -> RateCurve:
    """Fine-tune for some steps with a learning rate that rises from 1e-6 to 1, and suggest a rate to train with.

    Network, head, clips and augmentation are those of the first run of `train` with the same arguments. Nothing is
    written except the cache.

    Parameters
    ----------
    manifest, data, progress, log
        As in `train`.
    recipe : Recipe
        How to fine-tune. With several members, the first fine-tuned one is used. Its learning rate has no effect.
    n_steps : int
        Number of learning rates, evenly spaced on a logarithmic scale. The search ends early if the loss diverges.

    Raises
    ------
    ConfigError
        If the recipe fine-tunes no network, or the loss is not finite from the start.
    ValueError
        If `n_steps` is below 20.

    References
    ----------
    Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """
    if n_steps < 20:
        raise ValueError(f"n_steps must be 20 or more, got {n_steps}")
    data = data or DataOptions()
    manifest, noisy = read_training_data(manifest, data, log)
    training = first_fine_tuning(manifest, noisy, recipe, Callbacks(progress, log), data)
    rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, n_steps)

    def losses_with_progress() -> Iterator[float]:
        for n_done, loss in enumerate(training.losses_at(rates.tolist()), start=1):
            progress(STEP_NAME, n_done, n_steps)
            yield loss

    losses = until_divergence(losses_with_progress())
    if not len(losses):
        raise ConfigError(
            f"the loss is not finite even at a learning rate of {LOWEST_RATE:g}; check the clips with spectag inspect"
        )
    smoothed = smooth(losses)
    has_ended, rates = len(losses) < n_steps, rates[: len(losses)]
    suggestion, possible = suggest_rate(rates, smoothed), _possible_suggestions(rates)
    if suggestion is not None and suggestion in (possible[0], np.inf if has_ended else possible[-1]):
        log(
            f"the loss falls fastest at an end of the learning rates that were tried, from {rates[0]:g} to "
            f"{rates[-1]:g}: a better one may lie beyond it; look at the figure"
        )
    return RateCurve(rates, losses, smoothed, suggestion)


def smooth(losses: FloatArray) -> FloatArray:
    """The exponential moving average of losses (n_steps,), with bias correction as in Adam."""
    n_losses = np.arange(1, len(losses) + 1)
    averages = lfilter([1 - _SMOOTHING], [1, -_SMOOTHING], losses)
    return np.asarray(averages / (1 - _SMOOTHING**n_losses))


def until_divergence(losses: Iterable[float]) -> FloatArray:
    """The losses until their moving average is above 4 times its minimum, or a loss is not finite."""
    kept: list[float] = []
    average, lowest = 0.0, math.inf
    for n_losses, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            break
        kept.append(loss)
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed = average / (1 - _SMOOTHING**n_losses)
        lowest = min(lowest, smoothed)
        if smoothed > _DIVERGENCE * lowest:
            break
    return np.array(kept)


def suggest_rate(rates: FloatArray, smoothed: FloatArray) -> float | None:
    """The learning rate around which the loss falls fastest; None if it falls nowhere.

    A line is fitted to the losses of every range in which the rate rises tenfold, on a logarithmic scale. The
    suggestion is the middle of the range with the steepest descent. Slopes between single steps would be mostly noise,
    because the batches differ more than the rates.

    Parameters
    ----------
    rates, smoothed : float arrays of shape (n_rates,)
        Rates evenly spaced on a logarithmic scale, and the moving average of the loss.
    """
    possible = _possible_suggestions(rates)
    if not len(possible):
        return None
    half = (len(rates) - len(possible)) // 2
    slopes = np.correlate(smoothed, np.arange(-half, half + 1), mode="valid")  # least squares, up to a constant factor
    steepest = int(np.argmin(slopes))
    return float(possible[steepest]) if slopes[steepest] < 0 else None


def _possible_suggestions(rates: FloatArray) -> FloatArray:
    """The rates in the middle of a tenfold range."""
    if len(rates) < 2:
        return rates[:0]
    half = max(1, int(math.log(10.0) / 2 / math.log(rates[1] / rates[0])))
    return rates[half : len(rates) - half] if len(rates) > 2 * half else rates[:0]
