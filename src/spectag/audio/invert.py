"""log_mel back to a waveform that sounds like it, for people to hear what a network hears."""

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.signal.windows import hann
from scipy.sparse import csr_array

from spectag.array_types import Float32Array
from spectag.audio.mel import mel_filter_bank
from spectag.config.base import MelConfig

_MOMENTUM = 0.99  # of the fast algorithm, as Perraudin et al. found it best
_PEAK = 0.5  # of a sound whose level is not known
_SPREADING_ROUNDS = 10  # leave the bands' power within 0.1 dB, as measured on recordings
_TINY = 1e-20


def waveform_of_log_mel(
    log_mel: Float32Array, config: MelConfig, *, rng: np.random.Generator, n_iterations: int = 32
) -> tuple[Float32Array, int]:
    """A waveform whose log_mel is near to the given one.

    Parameters
    ----------
    log_mel : float array of shape (n_mels, n_frames)
        As `compute_log_mel` makes it.
    config : MelConfig
        With which it was made.
    rng : np.random.Generator
        Draws the phases to begin with.
    n_iterations : int
        Rounds of finding phases that fit each other.

    Returns
    -------
    waveform : float32 array of shape ((n_frames - 1) * hop_length + 1,)
        With `ref="max"` the level is not known, and the peak is 0.5. Else it is that of the sound, and what is too
        loud for [-1, 1] is left so.
    sample_rate : int
        Hz.

    Raises
    ------
    ValueError
        If the log_mel is not of shape (n_mels, n_frames), has no frame, or holds NaN or infinity.

    Notes
    -----
    What all of the log_mel has in common, its least power, is taken for the floor of its logarithm, and left out.

    References
    ----------
    Griffin and Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984.
    Perraudin, Balazs and Søndergaard, "A fast Griffin-Lim algorithm", WASPAA 2013.
    Lee and Seung, "Algorithms for non-negative matrix factorization", NIPS 2000 (the bands' power as FFT bins).
    """
    if log_mel.ndim != 2 or log_mel.shape[0] != config.n_mels or log_mel.shape[1] == 0:
        raise ValueError(f"expected a log_mel of shape ({config.n_mels}, n_frames), got {log_mel.shape}")
    if not np.isfinite(log_mel).all():
        raise ValueError("expected a log_mel of finite values, got NaN or infinity")
    magnitudes = np.sqrt(_bin_power(_mel_power(log_mel, config), config))
    waveform = _with_magnitudes(magnitudes, config, rng, n_iterations)
    if config.pre_emphasis:
        waveform = lfilter([1.0], [1.0, -config.pre_emphasis], waveform)
    peak = float(np.abs(waveform).max())
    if config.ref == "max" and peak > 0:
        waveform = waveform * (_PEAK / peak)
    return waveform.astype(np.float32), config.sample_rate


def _mel_power(log_mel: Float32Array, config: MelConfig) -> Float32Array:
    """Power above the floor; with `ref="max"`, relative to the loudest."""
    level = log_mel * config.std + config.mean
    ref = 1.0 if config.ref == "max" else max(config.ref, config.amin)
    power = ref * (10 ** (level / 10) if config.log == "db" else np.exp(level))
    above: Float32Array = (power - power.min()).astype(np.float32)
    return above


def _bin_power(mel_power: Float32Array, config: MelConfig) -> Float32Array:
    """Power in each bin of the FFT, of shape (n_fft // 2 + 1, n_frames), that adds up to the bands'.

    Lee and Seung's rounds for the divergence: unlike least squares they are right in dark bands beside bright ones.
    """
    bank = csr_array(mel_filter_bank(config))
    bins = csr_array(bank.T)
    in_band, in_bin = (np.maximum(sums.sum(axis=1), _TINY)[:, None] for sums in (bank, bins))
    power: Float32Array = bins @ (mel_power / in_band)
    for _ in range(_SPREADING_ROUNDS):
        power *= (bins @ (mel_power / np.maximum(bank @ power, _TINY))) / in_bin
    return power


def _with_magnitudes(
    magnitudes: Float32Array, config: MelConfig, rng: np.random.Generator, n_iterations: int
) -> Float32Array:
    """A waveform whose spectra have nearly these magnitudes (n_fft // 2 + 1, n_frames), by the fast Griffin-Lim."""
    magnitudes = np.ascontiguousarray(magnitudes.T)
    n_frames = len(magnitudes)
    window = _window(config)
    overlap: Float32Array = np.maximum(_sum_of_frames(np.tile(window**2, (n_frames, 1)), config), np.float32(1e-6))

    def waveform_of(spectra: NDArray[np.complex64]) -> Float32Array:
        """The one whose spectra are nearest to these (Griffin and Lim's equation 6)."""
        frames = scipy.fft.irfft(spectra, config.n_fft, axis=1) * window
        return _sum_of_frames(frames, config) / overlap

    phases = 2j * np.pi * rng.random(magnitudes.shape)
    spectra = magnitudes * np.exp(phases).astype(np.complex64)
    consistent = np.zeros_like(spectra)
    for _ in range(n_iterations):
        earlier, consistent = consistent, _spectra(waveform_of(spectra), window, config)
        ahead = consistent + np.float32(_MOMENTUM) * (consistent - earlier)
        spectra = ahead * (magnitudes / np.maximum(np.abs(ahead), _TINY))
    start = config.n_fft // 2
    return waveform_of(spectra)[start : start + (n_frames - 1) * config.hop_length + 1]


def _spectra(padded: Float32Array, window: Float32Array, config: MelConfig) -> NDArray[np.complex64]:
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)[:: config.hop_length]
    spectra: NDArray[np.complex64] = scipy.fft.rfft(frames * window, axis=1)
    return spectra


def _sum_of_frames(frames: Float32Array, config: MelConfig) -> Float32Array:
    """Frames (n_frames, n_fft) laid over each other, one hop apart."""
    n_frames, hop = len(frames), config.hop_length
    n_hops = -(-config.n_fft // hop)
    parts = np.pad(frames, ((0, 0), (0, n_hops * hop - config.n_fft))).reshape(n_frames, n_hops, hop)
    total = np.zeros((n_frames + n_hops - 1, hop), np.float32)
    for i in range(n_hops):  # the same hop of all frames at once
        total[i : i + n_frames] += parts[:, i]
    return total.ravel()[: (n_frames - 1) * hop + config.n_fft]


def _window(config: MelConfig) -> Float32Array:
    """As in the front end: centred in n_fft samples."""
    length = config.window_samples
    window = np.zeros(config.n_fft, np.float32)
    start = (config.n_fft - length) // 2
    window[start : start + length] = hann(length, sym=config.window == "hann_symmetric")
    return window
