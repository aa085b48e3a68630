"""Waveform to log_mel: the one front end, for preparing, training, tagging and serving.

One `MelConfig` covers librosa's family (`melspectrogram`, then `power_to_db`) and Kaldi's (pre-emphasis, natural
logarithm). The work is done in float32, in blocks of frames that fit the processor's cache. Frames where the rounding
of a float32 Fourier transform could be seen in the result are done again in float64, as librosa does all of them.
"""

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.sparse import csr_array

from spectag.array_types import BoolArray, Float32Array
from spectag.config.base import MelConfig

FRONT_END_VERSION = 1  # to be raised whenever a log_mel changes by more than rounding: banks are keyed by it

_BLOCK_SAMPLES = 2**18  # windowed samples per block of frames: 1 MB in float32
# A float32 transform adds noise of about -140 dB of the frame's mean power to every bin. A bin above -42 dB of the mean
# power is right within 8e-4 dB, as measured on recordings, tones, chirps and sounds with a large offset; a band of n
# bins averages the noise away and may lie n times lower.
_LEAST_SHARE = 6e-5

FloatArray = NDArray[np.floating[Any]]


def compute_log_mel(waveform: FloatArray, config: MelConfig) -> Float32Array:
    """Log-mel spectrogram of a waveform: frame t is centred on sample t * hop_length.

    Parameters
    ----------
    waveform : float array of shape (n_samples,)
        Mono, in [-1, 1], already at `config.sample_rate`.
    config : MelConfig

    Returns
    -------
    float32 array of shape (n_mels, n_frames)
        Lowest band first; decibels, or nepers when `config.log` is "ln", less `config.mean`, divided by `config.std`.

    Raises
    ------
    ValueError
        If the waveform is empty, not one-dimensional, not of floats, or holds NaN or infinity.

    Warns
    -----
    UserWarning
        As librosa does, of bands so narrow that they hold no frequency of the FFT.

    Notes
    -----
    Any length will do. `pad_mode="reflect"` reflects a clip shorter than half a window as often as it takes, as NumPy
    and librosa do, and repeats a single sample. Pre-emphasis drops the first sample; a single sample is then taken to
    be followed by silence.

    `top_db` and `ref` mean the same for both logarithms: decibels below the clip's loudest, and the power that gives 0.
    """
    _check_waveform(waveform)
    _warn_of_empty_bands(config)
    frames = _frames(_pre_emphasised(waveform, config), config)
    return _logarithm(_mel_power(frames, config), config)


def n_frames(n_samples: int, config: MelConfig) -> int:
    """Number of frames in the log_mel of a waveform of `n_samples` samples (at least 1)."""
    if n_samples < 1:
        raise ValueError(f"need at least 1 sample, got {n_samples}")
    if config.pre_emphasis:
        n_samples = max(n_samples - 1, 1)
    return 1 + (n_samples - config.n_fft % 2) // config.hop_length


def mel_filter_bank(config: MelConfig) -> Float32Array:
    """Weight of each FFT bin in each mel band, of shape (n_mels, n_fft // 2 + 1), read-only.

    librosa's triangles are straight over Hz, Kaldi's over mel.

    Warns
    -----
    UserWarning
        As librosa does, of bands so narrow that they hold no frequency of the FFT.
    """
    _warn_of_empty_bands(config)
    return _filter_bank(config)


def band_centers(config: MelConfig) -> FloatArray:
    """Frequency in Hz at which each mel band weighs most, of shape (n_mels,)."""
    return _band_edges(config)[1:-1]


def hz_to_mel(frequencies: FloatArray | float, config: MelConfig) -> FloatArray:
    """Frequencies in Hz on the config's mel scale."""
    frequencies = np.asarray(frequencies, np.float64)
    if config.mel_scale == "slaney":  # straight up to 1000 Hz, which is 15 mel, then logarithmic
        octaves = np.log(np.maximum(frequencies, 1000.0) / 1000.0) / math.log(6.4)
        return np.where(frequencies < 1000.0, frequencies * 3 / 200, 15.0 + 27.0 * octaves)
    mels: FloatArray = 2595.0 * np.log10(1.0 + frequencies / 700.0)
    return mels


def mel_to_hz(mels: FloatArray | float, config: MelConfig) -> FloatArray:
    """Points on the config's mel scale as frequencies in Hz."""
    mels = np.asarray(mels, np.float64)
    if config.mel_scale == "slaney":
        return np.where(mels < 15.0, mels * 200 / 3, 1000.0 * np.exp((mels - 15.0) / 27.0 * math.log(6.4)))
    frequencies: FloatArray = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    return frequencies


def picture_limits(config: MelConfig) -> tuple[float, float]:
    """The mels at the bottom and at the top of a picture of a log_mel, which has a row for each band."""
    lowest, highest = (float(hz_to_mel(limit, config)) for limit in (config.f_min, config.f_max))
    half_band = (highest - lowest) / (config.n_mels + 1) / 2
    return lowest + half_band, highest - half_band


def _check_waveform(waveform: FloatArray) -> None:
    if waveform.ndim != 1:
        raise ValueError(f"expected a mono waveform of shape (n_samples,), got shape {waveform.shape}")
    if not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(f"expected a waveform of floats in [-1, 1], got {waveform.dtype}")
    if waveform.size == 0:
        raise ValueError("expected a waveform of at least 1 sample, got an empty one")
    if not np.isfinite(waveform).all():
        first = int(np.argmin(np.isfinite(waveform)))
        raise ValueError(f"expected finite samples, got {waveform[first]} at sample {first}")


def _warn_of_empty_bands(config: MelConfig) -> None:
    n_empty = _n_empty_bands(config)
    if n_empty:
        warnings.warn(
            f"{n_empty} of {config.n_mels} mel bands are empty: narrower than the FFT's "
            f"{config.sample_rate / config.n_fft:.4g} Hz. Raise n_fft or f_max, or lower n_mels.",
            stacklevel=3,
        )


@lru_cache(maxsize=16)
def _n_empty_bands(config: MelConfig) -> int:
    if config.mel_scale == "kaldi":  # Kaldi's banks have empty low bands as a rule, and nobody is told
        return 0
    empty = ~_filter_bank(config).any(axis=1)
    return int((empty & (_band_edges(config)[:-2] > 0)).sum())


def _pre_emphasised(waveform: FloatArray, config: MelConfig) -> FloatArray:
    if not config.pre_emphasis:
        return waveform
    if waveform.size == 1:
        waveform = np.pad(waveform, (0, 1))
    return waveform[1:] - waveform.dtype.type(config.pre_emphasis) * waveform[:-1]


def _frames(waveform: FloatArray, config: MelConfig) -> FloatArray:
    """Frames as a view of the padded waveform, of shape (n_frames, n_fft)."""
    padded = np.pad(waveform, config.n_fft // 2, mode=config.pad_mode)
    return np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)[:: config.hop_length]


def _mel_power(frames: FloatArray, config: MelConfig) -> Float32Array:
    """Power in each mel band, of shape (n_mels, n_frames)."""
    mel_power = np.empty((config.n_mels, len(frames)), np.float32)
    mean_power = np.empty(len(frames), np.float32)
    window = _window(config)
    block = 16 * max(1, _BLOCK_SAMPLES // (16 * config.n_fft))  # whole vectors of frames
    for start in range(0, len(frames), block):
        part = slice(start, start + block)
        power = _power(frames[part], window.astype(np.float32))
        mel_power[:, part] = _sparse_filter_bank(config) @ power
        mean_power[part] = power.mean(axis=0)

    doubtful = np.flatnonzero(_is_doubtful(mel_power, mean_power, config))
    for start in range(0, len(doubtful), block):
        chosen = doubtful[start : start + block]
        power = _power(frames[chosen], window).astype(np.float32)
        mel_power[:, chosen] = _sparse_filter_bank(config) @ power
    return mel_power


def _power(frames: FloatArray, window: FloatArray) -> FloatArray:
    """Power spectra in the precision of the window, of shape (n_fft // 2 + 1, n_frames)."""
    windowed = np.multiply(frames, window, dtype=window.dtype, casting="same_kind")
    squares = scipy.fft.rfft(windowed.T, axis=0).view(window.dtype)  # real and imaginary parts take turns
    np.square(squares, out=squares)
    power: FloatArray = squares[:, ::2] + squares[:, 1::2]
    return power


def _is_doubtful(mel_power: Float32Array, mean_power: Float32Array, config: MelConfig) -> BoolArray:
    """Whether a frame has a band that shows in the log_mel and lies near the rounding noise of its transform."""
    shown_from = config.amin
    if config.top_db is not None:
        shown_from = max(shown_from, float(mel_power.max()) * 10 ** (-config.top_db / 10))
    noisy_up_to = np.outer(_LEAST_SHARE * _noise_gain(config), mean_power)
    doubtful: BoolArray = np.any((mel_power < noisy_up_to) & (mel_power > shown_from / 2), axis=0)
    return doubtful


def _logarithm(mel_power: Float32Array, config: MelConfig) -> Float32Array:
    ref = float(mel_power.max()) if config.ref == "max" else config.ref
    if config.log == "db":
        log_mel = 10 * np.log10(np.maximum(mel_power, np.float32(config.amin)))
        log_mel -= 10 * math.log10(max(ref, config.amin))
        decibel = 1.0
    else:
        log_mel = np.log(mel_power + np.float32(config.amin))
        log_mel -= math.log(max(ref, config.amin))
        decibel = math.log(10) / 10
    if config.top_db is not None:
        np.maximum(log_mel, log_mel.max() - config.top_db * decibel, out=log_mel)
    if (config.mean, config.std) != (0.0, 1.0):
        log_mel -= config.mean
        log_mel /= config.std
    return log_mel


@lru_cache(maxsize=16)
def _window(config: MelConfig) -> FloatArray:
    """Hann window centred in n_fft samples."""
    length = config.window_samples
    period = length if config.window == "hann" else length - 1
    before = (config.n_fft - length) // 2
    window = np.zeros(config.n_fft)
    window[before : before + length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / period)
    return window


@lru_cache(maxsize=16)
def _filter_bank(config: MelConfig) -> Float32Array:
    bins = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    edges = _band_edges(config)
    if config.mel_scale == "kaldi":
        bins, edges = hz_to_mel(bins, config), hz_to_mel(edges, config)
    lower, center, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.maximum(0.0, np.minimum((bins - lower) / (center - lower), (upper - bins) / (upper - center)))
    if config.mel_norm == "slaney":
        weights *= 2 / (upper - lower)
    bank = weights.astype(np.float32)
    bank.flags.writeable = False
    return bank


@lru_cache(maxsize=16)
def _noise_gain(config: MelConfig) -> Float32Array:
    """Weight of a band, divided by the number of bins that average out its noise."""
    bank = _filter_bank(config)
    total = bank.sum(axis=1)
    gain: Float32Array = np.divide((bank**2).sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
    return gain


@lru_cache(maxsize=16)
def _sparse_filter_bank(config: MelConfig) -> csr_array:
    return csr_array(_filter_bank(config))


def _band_edges(config: MelConfig) -> FloatArray:
    """Frequencies in Hz, evenly spaced in mel, where band i rises from 0 [i], peaks [i + 1] and is 0 again [i + 2]."""
    lowest, highest = hz_to_mel(config.f_min, config), hz_to_mel(config.f_max, config)
    return mel_to_hz(np.linspace(lowest, highest, config.n_mels + 2), config)
