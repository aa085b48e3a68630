"""Log-mel spectrograms: the computation that preparation, training and inference share.

waveform        float samples in [-1, 1] at sample_rate
pre-emphasis    subtract pre_emphasis times the previous sample (Kaldi only)
padding         add n_fft // 2 samples at both ends: zeros or the mirrored sound
frames          excerpts of n_fft samples, one every hop_length samples
window          multiply by a Hann window of win_length samples
spectrum        |FFT|^2 in float32: n_fft // 2 + 1 bins per frame
mel bands       weighted sums of the bins: n_mels triangles between f_min and f_max
precision       frames with visible float32 noise are computed again in float64
logarithm       10 log10(max(power, amin) / ref), or ln(power + amin) for Kaldi
range           raise values that are more than top_db below the maximum
normalisation   subtract mean, divide by std
log_mel         float32 of shape (n_mels, n_frames), lowest band first

The defaults of `MelConfig` equal librosa (`melspectrogram`, then `power_to_db`). The work is done in blocks of frames
that fit into the cache of the processor.
"""

import math
import warnings
from functools import lru_cache

import numpy as np
import scipy.fft
from scipy.sparse import csr_array

from spectag.array_types import AnyFloatArray, BoolArray, Float32Array
from spectag.config.base import MelConfig

FRONT_END_VERSION = 1  # raise it when a log_mel changes by more than rounding: it is part of the cache keys

_BLOCK_SAMPLES = 2**18  # windowed samples per block of frames: 1 MB in float32
# A float32 FFT adds noise of about -140 dB of the frame's mean power to every bin. A bin above -42 dB of the mean power
# is right within 8e-4 dB, as measured on recordings, tones, chirps and sounds with a large offset. In a band of n bins,
# the noise averages out, so the band may be n times lower. Networks with ln(power + amin) were trained on float32
# spectrograms: for them, -57 dB is enough, which is right within 5e-4.
_MIN_POWER_RATIO = {"db": 6e-5, "ln": 2e-6}


def compute_log_mel(waveform: AnyFloatArray, config: MelConfig) -> Float32Array:
    """Log-mel spectrogram of a waveform: frame t is centred on sample t * hop_length.

    Parameters
    ----------
    waveform : float array of shape (n_samples,)
        Mono, in [-1, 1], already at `config.sample_rate`.
    config : MelConfig

    Returns
    -------
    float32 array of shape (n_mels, n_frames)
        Lowest band first. In decibels, or natural logarithms if `config.log` is "ln"; normalised by `config.mean` and
        `config.std`.

    Raises
    ------
    ValueError
        If the waveform is empty, not one-dimensional or not of floats, or contains NaN or infinity.

    Warns
    -----
    UserWarning
        If a band is so narrow that it contains no frequency of the FFT, as in librosa.

    Notes
    -----
    The waveform may have any length. `pad_mode="reflect"` mirrors a clip that is shorter than half a window several
    times, like NumPy and librosa, and repeats a single sample. Pre-emphasis drops the first sample; a single sample is
    followed by silence.

    `top_db` and `ref` mean the same for both logarithms: decibels below the maximum of the clip, and the power of 0.
    """
    _check_waveform(waveform)
    _warn_of_empty_bands(config)
    return _logarithm(_mel_power(_frames(waveform, config), config), config)


def n_frames(n_samples: int, config: MelConfig) -> int:
    """Number of frames in the log_mel of a waveform of `n_samples` samples (at least 1)."""
    if n_samples < 1:
        raise ValueError(f"need at least 1 sample, got {n_samples}")
    if config.pre_emphasis:
        n_samples = max(n_samples - 1, 1)
    return 1 + (n_samples - config.n_fft % 2) // config.hop_length


def mel_filter_bank(config: MelConfig) -> Float32Array:
    """Weight of each FFT bin in each mel band, of shape (n_mels, n_fft // 2 + 1), read-only.

    The sides of librosa's triangles are linear in Hz, those of Kaldi's in mel.

    Warns
    -----
    UserWarning
        If a band is so narrow that it contains no frequency of the FFT, as in librosa.
    """
    _warn_of_empty_bands(config)
    return _filter_bank(config)


@lru_cache(maxsize=16)
def analysis_window(config: MelConfig) -> AnyFloatArray:
    """Hann window of win_length samples in the middle of n_fft samples, float64."""
    length = config.window_samples
    period = length if config.window == "hann" else length - 1
    before = (config.n_fft - length) // 2
    window = np.zeros(config.n_fft)
    window[before : before + length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / period)
    return window


def band_centers(config: MelConfig) -> AnyFloatArray:
    """Frequency in Hz at the peak of each mel band, of shape (n_mels,)."""
    return _band_edges(config)[1:-1]


def hz_to_mel(frequencies: AnyFloatArray | float, config: MelConfig) -> AnyFloatArray:
    """Frequencies in Hz on the config's mel scale."""
    frequencies = np.asarray(frequencies, np.float64)
    if config.mel_scale == "slaney":  # linear up to 1000 Hz, which is 15 mel, then logarithmic
        octaves = np.log(np.maximum(frequencies, 1000.0) / 1000.0) / math.log(6.4)
        return np.where(frequencies < 1000.0, frequencies * 3 / 200, 15.0 + 27.0 * octaves)
    return np.asarray(2595.0 * np.log10(1.0 + frequencies / 700.0))


def mel_to_hz(mels: AnyFloatArray | float, config: MelConfig) -> AnyFloatArray:
    """Points of the config's mel scale in Hz."""
    mels = np.asarray(mels, np.float64)
    if config.mel_scale == "slaney":
        return np.where(mels < 15.0, mels * 200 / 3, 1000.0 * np.exp((mels - 15.0) / 27.0 * math.log(6.4)))
    return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))


def image_mel_limits(config: MelConfig) -> tuple[float, float]:
    """The mels at the bottom and the top of an image of a log_mel with one row per band."""
    lowest, highest = (float(hz_to_mel(limit, config)) for limit in (config.f_min, config.f_max))
    half_band = (highest - lowest) / (config.n_mels + 1) / 2
    return lowest + half_band, highest - half_band


def _check_waveform(waveform: AnyFloatArray) -> None:
    if waveform.ndim != 1 or waveform.size == 0:
        raise ValueError(f"expected a waveform (n_samples,) of at least 1 sample, got shape {waveform.shape}")
    if not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(f"expected a waveform of floats in [-1, 1], got {waveform.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        energy = np.dot(waveform, waveform)  # faster than a look at each sample
    if not np.isfinite(energy) and not (is_finite := np.isfinite(waveform)).all():
        first = int(np.argmin(is_finite))
        raise ValueError(f"expected finite samples, got {waveform[first]} at sample {first}")


def _warn_of_empty_bands(config: MelConfig) -> None:
    if n_empty := _n_empty_bands(config):
        warnings.warn(
            f"{n_empty} of {config.n_mels} mel bands are empty: narrower than the FFT's "
            f"{config.sample_rate / config.n_fft:.4g} Hz. Raise n_fft or f_max, or lower n_mels.",
            stacklevel=3,
        )


@lru_cache(maxsize=16)
def _n_empty_bands(config: MelConfig) -> int:
    if config.mel_scale == "kaldi":  # Kaldi's filter banks often have empty low bands, and it does not warn
        return 0
    empty = ~_filter_bank(config).any(axis=1)
    return int((empty & (_band_edges(config)[:-2] > 0)).sum())


def _frames(waveform: AnyFloatArray, config: MelConfig) -> AnyFloatArray:
    """A view of the waveform after pre-emphasis and padding, of shape (n_frames, n_fft)."""
    if config.pre_emphasis:
        waveform = np.pad(waveform, (0, 1)) if waveform.size == 1 else waveform
        emphasised = waveform[:-1] * waveform.dtype.type(-config.pre_emphasis)
        emphasised += waveform[1:]
        waveform = emphasised
    padded = np.pad(waveform, config.n_fft // 2, mode=config.pad_mode)
    return np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)[:: config.hop_length]


def _mel_power(frames: AnyFloatArray, config: MelConfig) -> Float32Array:
    """Power in each mel band, of shape (n_mels, n_frames)."""
    mel_power = np.empty((config.n_mels, len(frames)), np.float32)
    mean_power = np.empty(len(frames), np.float32)
    window = analysis_window(config)
    block = 16 * max(1, _BLOCK_SAMPLES // (16 * config.n_fft))  # a multiple of the SIMD width
    for start in range(0, len(frames), block):
        rows = slice(start, start + block)
        power = _power(frames[rows], window.astype(np.float32))
        mel_power[:, rows] = _sparse_filter_bank(config) @ power
        mean_power[rows] = power.mean(axis=0)

    imprecise = np.flatnonzero(_is_imprecise(mel_power, mean_power, config))
    for start in range(0, len(imprecise), block):
        indices = imprecise[start : start + block]
        power = _power(frames[indices], window).astype(np.float32)
        mel_power[:, indices] = _sparse_filter_bank(config) @ power
    return mel_power


def _power(frames: AnyFloatArray, window: AnyFloatArray) -> AnyFloatArray:
    """Power spectra of shape (n_fft // 2 + 1, n_frames), in the precision of the window."""
    windowed = np.multiply(frames, window, dtype=window.dtype, casting="same_kind")
    squares = scipy.fft.rfft(windowed.T, axis=0).view(window.dtype)  # real and imaginary parts alternate
    np.square(squares, out=squares)
    return np.asarray(squares[:, ::2] + squares[:, 1::2])


def _is_imprecise(mel_power: Float32Array, mean_power: Float32Array, config: MelConfig) -> BoolArray:
    """Whether a frame has a band that is visible in the log_mel and close to the rounding noise of its FFT."""
    max_noisy = np.outer(_MIN_POWER_RATIO[config.log] * _noise_gain(config), mean_power)
    if config.log == "ln":
        max_noisy -= np.float32(config.amin)
    is_noisy = mel_power < max_noisy
    min_visible = config.amin if config.log == "db" else 0.0
    if config.top_db is not None:
        min_visible = max(min_visible, float(mel_power.max()) * 10 ** (-config.top_db / 10))
    return np.asarray(np.any(is_noisy & (mel_power > min_visible / 2), axis=0))


def _logarithm(mel_power: Float32Array, config: MelConfig) -> Float32Array:
    if config.log == "db":
        log_mel = np.maximum(mel_power, np.float32(config.amin))
        np.log(log_mel, out=log_mel)  # three times as fast as log10
        log_mel -= log_mel.max() if config.ref == "max" else math.log(max(config.ref, config.amin))
        log_mel *= 10 / math.log(10)
        decibel = 1.0
    else:
        log_mel = mel_power + np.float32(config.amin)
        np.log(log_mel, out=log_mel)
        ref = float(mel_power.max()) if config.ref == "max" else config.ref
        log_mel -= math.log(max(ref, config.amin))
        decibel = math.log(10) / 10
    if config.top_db is not None:
        np.maximum(log_mel, log_mel.max() - config.top_db * decibel, out=log_mel)
    if (config.mean, config.std) != (0.0, 1.0):
        log_mel -= config.mean
        log_mel /= config.std
    return log_mel


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
    """Weight of each band, divided by the number of bins over which its noise averages out."""
    bank = _filter_bank(config)
    total = bank.sum(axis=1)
    return np.asarray(np.divide((bank**2).sum(axis=1), total, out=np.zeros_like(total), where=total > 0))


@lru_cache(maxsize=16)
def _sparse_filter_bank(config: MelConfig) -> csr_array:
    return csr_array(_filter_bank(config))


def _band_edges(config: MelConfig) -> AnyFloatArray:
    """Frequencies in Hz, equally spaced in mel: band i starts at [i], peaks at [i + 1] and ends at [i + 2]."""
    lowest, highest = hz_to_mel(config.f_min, config), hz_to_mel(config.f_max, config)
    return mel_to_hz(np.linspace(lowest, highest, config.n_mels + 2), config)
