"""From several channels to one: their mean, the loudest one, or one of them."""

from collections.abc import Iterable

import numpy as np

from spectag.array_types import Float32Array, Waveform

LOUDEST_SECONDS = 600.0
"""The loudest channel is that of the first ten minutes. So an excerpt gets the same channel as the whole recording, and
a day-long recording is not decoded twice."""


def mean_of_channels(samples: Float32Array) -> Waveform:
    """Mono samples (n_samples,) from samples (n_samples, n_channels)."""
    n_channels = samples.shape[1]
    if n_channels == 1:
        return samples[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # `check_samples` reports NaN
        # six times as fast as mean(axis=1)
        return np.asarray(samples @ np.full(n_channels, 1 / n_channels, np.float32))


def one_channel(samples: Float32Array, index: int | None) -> Waveform:
    """Samples (n_samples,) from (n_samples, n_channels): of the channel at an index, or the mean if it is None."""
    return mean_of_channels(samples) if index is None else np.ascontiguousarray(samples[:, index])


def loudest_channel(blocks: Iterable[Float32Array], sample_rate: int) -> int:
    """The index of the channel with the highest variance in the first ten minutes.

    A constant offset does not count. The first of several equal channels is chosen, and none with NaN or infinity.

    Parameters
    ----------
    blocks : iterable of arrays of shape (n_samples, n_channels)
    sample_rate : int
        In Hz.
    """
    n_missing = round(LOUDEST_SECONDS * sample_rate)
    n_samples, total, power = 0, np.zeros(1), np.zeros(1)
    with np.errstate(invalid="ignore", over="ignore"):
        for block in blocks:
            samples = block[:n_missing].astype(np.float64)
            n_samples += len(samples)
            n_missing -= len(samples)
            total = total + samples.sum(axis=0)
            power = power + np.square(samples).sum(axis=0)
            if n_missing <= 0:
                break
        variance = power / max(1, n_samples) - (total / max(1, n_samples)) ** 2
    return int(np.argmax(np.where(np.isfinite(variance), variance, -1)))
