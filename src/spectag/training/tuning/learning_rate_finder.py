"""The learning rate to fine-tune with: try every one for a step, and see where the loss falls fastest."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter

from spectag.array_types import FloatArray
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.errors import ConfigError
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.training.pipeline import first_fine_tuning

LOWEST_RATE, HIGHEST_RATE = 1e-6, 1.0
N_STEPS = 100
STEP_NAME = "learning rates"

_TRUST = 0.9  # of the moving average in what it was, from step to step
_HOPELESS = 4.0  # times the lowest loss: from there it only gets worse


@dataclass(frozen=True)
class RateCurve:
    """Learning rates that were tried, and what came of them.

    `losses` are those of the batches as they came, `smoothed` their moving average, both of shape (n_rates,).
    `suggestion` is the rate to train with; see `suggest_rate`.
    """

    rates: FloatArray
    losses: FloatArray
    smoothed: FloatArray
    suggestion: float | None

    def to_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return {name: value if name == "suggestion" else value.tolist() for name, value in asdict(self).items()}


def find_learning_rate(
    manifest: str | Path | Manifest,
    recipe: Recipe,
    *,
    noisy: str | Path | Manifest | None = None,
    n_steps: int = N_STEPS,
    cache: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> RateCurve:
    """Fine-tune for some steps while the learning rate rises from 1e-6 to 1, and suggest one to train with.

    The network, its head, the clips and their augmentation are those of `train` with the same arguments, in the first
    of its trainings. Nothing is written but the bank.

    Parameters
    ----------
    manifest, noisy, bank, audio_dir, group_column, corrections, workers, progress, say
        As in `train`.
    recipe : Recipe
        How to fine-tune; of several members, the first that is fine-tuned is looked at. Its learning rate does not
        matter.
    n_steps : int
        Rates to try, evenly spaced in their logarithm. The last are left out if the loss explodes before.

    Raises
    ------
    ConfigError
        If nothing is fine-tuned, or the loss is not finite from the start.
    ValueError
        If there are fewer than 20 steps.

    References
    ----------
    Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """
    if n_steps < 20:
        raise ValueError(f"n_steps must be 20 or more, got {n_steps}")
    if all(member.mode == "frozen" for member in recipe.member_recipes()):
        raise ConfigError(
            "learning rates are tried in fine-tuning, and this recipe has none (optimizer lbfgs solves the head of a "
            "frozen network without any rate); give --mode finetune"
        )
    training = first_fine_tuning(
        manifest,
        recipe,
        noisy=noisy,
        cache=cache,
        audio_dir=audio_dir,
        group_column=group_column,
        corrections=corrections,
        workers=workers,
        progress=progress,
        log=log,
    )
    rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, n_steps)

    def told() -> Iterator[float]:
        for n_done, loss in enumerate(training.losses_at(rates.tolist()), start=1):
            progress(STEP_NAME, n_done, n_steps)
            yield loss

    losses = until_hopeless(told())
    if not len(losses):
        raise ConfigError(
            f"the loss is not finite even at a learning rate of {LOWEST_RATE:g}; look at the clips' sounds"
        )
    smoothed = smooth(losses)
    rates = rates[: len(losses)]
    return RateCurve(rates, losses, smoothed, suggest_rate(rates, smoothed))


def smooth(losses: FloatArray) -> FloatArray:
    """The moving average of losses (n_steps,), each step's as if the ones before it were all that there ever was."""
    n_seen = np.arange(1, len(losses) + 1)
    averages = lfilter([1 - _TRUST], [1, -_TRUST], losses)
    corrected: FloatArray = averages / (1 - _TRUST**n_seen)
    return corrected


def until_hopeless(losses: Iterable[float]) -> FloatArray:
    """The losses up to where their moving average is above 4 times its lowest, or no longer finite."""
    kept: list[float] = []
    average, lowest = 0.0, math.inf
    for n_seen, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            break
        kept.append(loss)
        average = _TRUST * average + (1 - _TRUST) * loss
        smoothed = average / (1 - _TRUST**n_seen)
        lowest = min(lowest, smoothed)
        if smoothed > _HOPELESS * lowest:
            break
    return np.array(kept)


def suggest_rate(rates: FloatArray, smoothed: FloatArray) -> float | None:
    """The learning rate around which the loss falls most steeply, None where it falls nowhere.

    Through the losses of every tenfold range of rates a straight line is laid, over the logarithm of the rate; the
    suggestion is the middle of the range whose line falls most steeply. From one step to the next the batches differ
    more than the rates do, so a slope between two steps would say nothing.

    Parameters
    ----------
    rates, smoothed : float arrays of shape (n_rates,)
        Rates that rise evenly in their logarithm, and the moving average of the loss.
    """
    if len(rates) < 2:
        return None
    half = max(1, int(math.log(10.0) / 2 / math.log(rates[1] / rates[0])))
    if len(rates) < 2 * half + 1:
        return None
    slopes = np.correlate(smoothed, np.arange(-half, half + 1), mode="valid")  # but for a factor, by least squares
    steepest = int(np.argmin(slopes))
    return float(rates[steepest + half]) if slopes[steepest] < 0 else None
