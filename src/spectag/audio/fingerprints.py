"""Landmark fingerprints: pairs of spectral peaks that survive other levels, other sounds on top, and re-encoding.

Two sounds that contain the same part of one recording have equal hashes at one time offset.

References
----------
Wang, "An industrial-strength audio search algorithm", ISMIR 2003.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft
from scipy.ndimage import maximum_filter

from spectag.array_types import BoolArray, Float32Array, IntArray, Waveform
from spectag.audio.files import resample

FINGERPRINT_VERSION = 1
"""Part of the key of stored fingerprints: a change of the algorithm must change it."""
SAMPLE_RATE = 16_000  # Hz
N_FFT = 1024
HOP_LENGTH = 256
FRAME_SECONDS = HOP_LENGTH / SAMPLE_RATE

_NEIGHBOURHOOD = (9, 15)  # frames and frequencies around a peak that are lower
_QUANTILE = 0.6  # of the magnitudes of a sound; peaks are above it
_RANGE_DB = 70.0  # peaks are at most this far below the loudest one
_FAN_OUT = 8  # later peaks that a peak is paired with
_MAX_FRAMES = 63  # between the two peaks of a pair


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The landmarks of a sound, ordered by time."""

    hashes: NDArray[np.uint32]
    """Shape (n,): the two frequencies of a pair of peaks, and the time between them."""
    frames: NDArray[np.int32]
    """Shape (n,): the time of the first peak of each pair, in frames of 16 ms."""

    def __len__(self) -> int:
        """The number of landmarks."""
        return len(self.hashes)


def fingerprint(waveform: Waveform, sample_rate: int) -> Fingerprint:
    """The landmark fingerprint of a waveform.

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        In Hz. Sounds with different rates can be compared: the fingerprint is made at 16 kHz.

    Returns
    -------
    Fingerprint
        Empty for silence, for constant samples, and for sounds that are too short to contain two peaks.
    """
    frames, bins = _peaks(_spectrogram(resample(np.asarray(waveform, np.float32), sample_rate, SAMPLE_RATE)))
    first, second = _pairs(frames)
    hashes = bins[first] << 16 | bins[second] << 6 | frames[second] - frames[first]
    return Fingerprint(hashes.astype(np.uint32), frames[first].astype(np.int32))


def _spectrogram(waveform: Waveform) -> Float32Array:
    """Magnitudes of the short-time Fourier transform, shape (n_frames, n_fft / 2 + 1)."""
    padded = np.pad(waveform, (0, max(0, N_FFT - len(waveform))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    return np.asarray(np.abs(rfft(windows * np.hanning(N_FFT).astype(np.float32), axis=1)))


def _peaks(magnitudes: Float32Array) -> tuple[IntArray, IntArray]:
    """Frames and frequency bins of the local maxima, ordered by time."""
    floor = max(np.quantile(magnitudes, _QUANTILE), magnitudes.max() * 10 ** (-_RANGE_DB / 20), 1e-9)
    is_peak: BoolArray = (magnitudes == maximum_filter(magnitudes, _NEIGHBOURHOOD)) & (magnitudes > floor)
    is_peak[:, 0] = False  # the mean of the samples says nothing
    frames, bins = np.nonzero(is_peak)
    return frames, bins


def _pairs(frames: IntArray) -> tuple[IntArray, IntArray]:
    """Pairs of peaks, by index: each peak with the next ones that are later and near enough."""
    first = np.repeat(np.arange(len(frames)), _FAN_OUT)
    second = first + np.tile(np.arange(1, _FAN_OUT + 1), len(frames))
    first, second = first[second < len(frames)], second[second < len(frames)]
    near = frames[second] - frames[first] <= _MAX_FRAMES
    return first[near], second[near]
