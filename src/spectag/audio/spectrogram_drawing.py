"""How spectrograms are drawn, in figures, on pages and in notebooks: decibels, colours and frequency ticks."""

import math
from collections.abc import Iterator

import numpy as np

from spectag.array_types import Float32Array, Pixels
from spectag.audio.mel import hz_to_mel, image_mel_limits
from spectag.audio.spectrogram_image import log_mel_to_image
from spectag.config.base import ImageConfig, MelConfig
from spectag.errors import MissingExtraError

SHOWN_DB = 80.0  # range of the colours, below the loudest
COLORMAP = "magma"

_FFT_SECONDS = 0.05  # for a sound without a MelConfig, to the nearest power of two samples
_MIN_FRAMES = 300  # of such a sound, however short it is
_MIN_TICK_DISTANCE = 0.08  # fraction of the frequency axis: the height of a number in a low panel
_MAX_COLUMNS, _MAX_ROWS = 480, 128  # pixels of a spectrogram on a page


def native_mel_config(sample_rate: int, n_samples: int) -> MelConfig:
    """Settings to draw a sound at its own rate: 128 bands up to half the rate, an FFT of about 50 ms."""
    n_fft = max(256, 2 ** round(np.log2(sample_rate * _FFT_SECONDS)))
    return MelConfig(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=max(1, min(n_fft // 4, n_samples // _MIN_FRAMES)),
        f_min=min(20.0, sample_rate / 8),
        f_max=sample_rate / 2,
        ref="max",
    )


def in_decibels(log_mel: Float32Array, config: MelConfig) -> tuple[Float32Array, MelConfig]:
    """A log_mel in decibels, without the scaling for a network, and the MelConfig that describes it."""
    power = log_mel * config.std + config.mean
    plain = config.model_copy(update={"log": "db", "mean": 0.0, "std": 1.0})
    return (power if config.log == "db" else power * np.float32(10 / np.log(10))), plain


def spectrogram_pixels(decibels: Float32Array, *, high: float | None = None) -> Pixels:
    """Picture of a log_mel in decibels, at most 480 x 128 pixels; grey if matplotlib is not installed.

    The brightest colour stands for `high`, by default the loudest value.
    """
    if high is None:
        high = float(decibels.max())
    if decibels.min() == high:
        high += SHOWN_DB  # so that silence is dark
    image = ImageConfig(
        colormap=COLORMAP,
        low=high - SHOWN_DB,
        high=high,
        height=min(decibels.shape[0], _MAX_ROWS),
        width=min(decibels.shape[1], _MAX_COLUMNS),
    )
    try:
        return log_mel_to_image(decibels, image)[0]
    except MissingExtraError:
        return log_mel_to_image(decibels, image.model_copy(update={"colormap": "grey"}))[0]


def frequency_ticks(mel: MelConfig) -> Iterator[tuple[str, float]]:
    """Octaves of 1 kHz, from the highest down while they do not touch, each with its height from 0 to 1."""
    bottom, top = image_mel_limits(mel)
    previous = math.inf
    for hertz in (1000 * 2.0**octave for octave in range(10, -10, -1)):
        height = (float(hz_to_mel(hertz, mel)) - bottom) / (top - bottom)
        if height < 0 or previous - height < _MIN_TICK_DISTANCE:
            break
        if height <= 1:
            yield f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz:g}", height
            previous = height
