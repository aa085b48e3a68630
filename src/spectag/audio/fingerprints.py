"""Landmark fingerprints: spectral peaks, and pairs of them, that survive other levels, other sounds and re-encoding.

Two sounds that contain the same part of one recording have many equal landmarks at one time offset.

References
----------
Wang, "An industrial-strength audio search algorithm", ISMIR 2003.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import rfft

from spectag.array_types import BoolArray, Float32Array, IntArray, Waveform
from spectag.audio.files import resample

FINGERPRINT_VERSION = 1
"""Stored with fingerprints; a change of the peaks must change it."""
SAMPLE_RATE = 16_000  # Hz
N_FFT = 1024  # samples
HOP_LENGTH = 128  # samples, 8 ms
FRAME_SECONDS = HOP_LENGTH / SAMPLE_RATE
HASH_BITS = 22

_NEIGHBOURHOOD = (17, 15)  # frames and frequencies in which a peak is the maximum
_QUANTILE = 0.3  # of the magnitudes; peaks are above it
_RANGE_DB = 70.0  # peaks are at most this far below the loudest one
_MIN_MAGNITUDE = 1e-5  # far below one bit of a 16-bit sound: rounding errors have no peaks

_FAN_OUT = 8  # later peaks that a peak is paired with
_LOOK_AHEAD = 64  # peaks among which these are found
_NEVER = 1 << 30  # time of the peaks after the last one
_PEAKS_AT_ONCE = 1 << 14  # bounds the memory
_FRAME_BITS, _DIFFERENCE_BITS, _BIN_BITS = 6, 7, 9  # of a hash
_MAX_FRAMES = (1 << _FRAME_BITS) - 1  # between the peaks of a pair
_MAX_BINS = (1 << _DIFFERENCE_BITS - 1) - 1  # near peaks are more often of the same sound
_TIME_BITS = 32  # beside a hash, to sort both at once
_REPEAT_FRAMES = round(1 / FRAME_SECONDS)  # a hash that comes again within 1 s is of a hum or a tone


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The peaks of a spectrogram, ordered by time."""

    frames: NDArray[np.int32]
    """Shape (n_peaks,): times, in frames of 8 ms."""
    bins: NDArray[np.int16]
    """Shape (n_peaks,): frequencies, in bins of 15.625 Hz."""

    def __len__(self) -> int:
        """The number of peaks."""
        return len(self.frames)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Pairs of peaks."""

    hashes: NDArray[np.uint64]
    """Shape (n_landmarks,), in ascending order: the frequencies of the two peaks, and the time between them."""
    frames: IntArray
    """Shape (n_landmarks,): the time of the first peak, in frames of 8 ms."""


def compute_fingerprint(waveform: Waveform, sample_rate: int) -> Fingerprint:
    """The fingerprint of a waveform.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
        A minute needs 150 MB of memory.
    sample_rate : int
        In Hz. Sounds with different rates can be compared.

    Returns
    -------
    Fingerprint
        Empty for silence and for constant samples.
    """
    waveform = np.asarray(waveform, np.float32)
    magnitudes = _spectrogram(resample(waveform - waveform.mean(), sample_rate, SAMPLE_RATE))
    floor = max(np.quantile(magnitudes[::4], _QUANTILE), magnitudes.max() * 10 ** (-_RANGE_DB / 20), _MIN_MAGNITUDE)
    is_peak: BoolArray = (magnitudes == _maximum_nearby(magnitudes)) & (magnitudes > floor)
    frames, bins = np.nonzero(is_peak)
    return Fingerprint(frames.astype(np.int32), (bins + 1).astype(np.int16))


def _maximum_nearby(magnitudes: Float32Array) -> Float32Array:
    """The maximum in the neighbourhood of each value, of the same shape; scipy's maximum_filter takes twice as long.

    The maxima of neighbours give those of areas of twice the size.
    """
    for axis, size in enumerate(_NEIGHBOURHOOD):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (size // 2, size // 2)
        magnitudes = np.moveaxis(np.pad(magnitudes, padding), axis, 0)
        n_joined = 1
        while n_joined < size:
            step = min(n_joined, size - n_joined)
            magnitudes = np.maximum(magnitudes[:-step], magnitudes[step:])
            n_joined += step
        magnitudes = np.moveaxis(magnitudes, 0, axis)
    return magnitudes


def landmarks(fingerprint: Fingerprint, *, speed: float = 1.0) -> Landmarks:
    """The landmarks of a fingerprint: each peak with the next ones that are close in time and frequency.

    Pairs that come again within a second are left out: a hum has them at every offset.

    Parameters
    ----------
    fingerprint : Fingerprint
    speed : float
        The landmarks that the sound would have if it were played at this speed.
    """
    frames = np.rint(fingerprint.frames / speed).astype(np.int64)
    bins = np.rint(fingerprint.bins * speed).astype(np.int64)
    frames, bins = frames[bins >> _BIN_BITS == 0], bins[bins >> _BIN_BITS == 0]
    first, second = _pairs(frames, bins)
    difference, apart = bins[second] - bins[first] + _MAX_BINS, frames[second] - frames[first]
    hashes = (bins[first] << _DIFFERENCE_BITS | difference) << _FRAME_BITS | apart
    ordered = np.sort(hashes << _TIME_BITS | frames[first])
    hashes, times = ordered >> _TIME_BITS, ordered & (1 << _TIME_BITS) - 1
    repeats = (np.diff(hashes) == 0) & (np.diff(times) <= _REPEAT_FRAMES)
    is_single = np.ones(len(hashes), bool)
    is_single[1:] &= ~repeats
    is_single[:-1] &= ~repeats
    return Landmarks(hashes[is_single].astype(np.uint64), times[is_single])


def _pairs(frames: IntArray, bins: IntArray) -> tuple[IntArray, IntArray]:
    """Pairs of peaks that are near each other, by index, the earlier one first."""
    n_columns = _LOOK_AHEAD + 1
    near = sliding_window_view(np.append(frames, np.full(n_columns, _NEVER)).astype(np.int32), n_columns)
    bins_of_near = sliding_window_view(np.append(bins, np.zeros(n_columns)).astype(np.int16), n_columns)
    pairs = [np.empty((2, 0), np.int64)]
    for begin in range(0, len(frames), _PEAKS_AT_ONCE):
        rows = slice(begin, min(begin + _PEAKS_AT_ONCE, len(frames)))
        apart = near[rows, 1:] - near[rows, :1]
        difference = bins_of_near[rows, 1:] - bins_of_near[rows, :1]
        is_near = (apart > 0) & (apart <= _MAX_FRAMES) & (np.abs(difference) <= _MAX_BINS)
        first, later = np.nonzero(is_near & (np.cumsum(is_near, axis=1, dtype=np.int8) <= _FAN_OUT))
        pairs.append(np.stack([begin + first, begin + first + 1 + later]))
    first, second = np.concatenate(pairs, axis=1)
    return first, second


def _spectrogram(waveform: Waveform) -> Float32Array:
    """Magnitudes of the short-time Fourier transform without the lowest and highest bin, shape (n_frames, n_bins)."""
    padded = np.pad(waveform, (0, max(0, N_FFT - len(waveform))))
    windows = sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    return np.asarray(np.abs(rfft(windows * np.hanning(N_FFT).astype(np.float32), axis=1)[:, 1:-1]))
