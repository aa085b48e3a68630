"""Spectrograms of sounds of any length as tiles of bytes, so that a page draws only what it shows."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array, FloatArray
from spectag.audio.files import read_audio
from spectag.audio.mel import compute_log_mel, image_mel_limits, mel_to_hz
from spectag.config.base import MelConfig
from spectag.errors import EndOfSoundError

TILE_COLUMNS = 256
LOWEST_DB, DB_PER_STEP = -100.0, 0.625
"""A byte b stands for LOWEST_DB + b * DB_PER_STEP, up to 59 dB."""

_N_BANDS = 128
_FFT_SECONDS, _HOP_SECONDS = 0.05, 0.005
_COARSEST_HOP = 2  # level from which several frames share a column: their hop of 20 ms is less than half an FFT
_MAX_LEVEL = 9
_BLOCK_SAMPLES = 1 << 22  # read at once


@dataclass(frozen=True)
class TileScheme:
    """How a sound of a sample rate is divided into tiles, at each level of zoom.

    Level 0 has a column for each frame, about 5 ms apart. Each further level has columns twice as long. From level 3
    on, a column is the maximum of several frames, so that short sounds stay visible.
    """

    sample_rate: int
    """In Hz."""

    def mel(self, level: int) -> MelConfig:
        """The spectrogram of which the columns of a level are made: 128 bands up to half the sample rate."""
        hop_length = max(1, round(self.sample_rate * _HOP_SECONDS))
        return MelConfig(
            sample_rate=self.sample_rate,
            n_fft=max(256, 2 ** round(math.log2(self.sample_rate * _FFT_SECONDS))),
            hop_length=hop_length * 2 ** min(level, _COARSEST_HOP),
            n_mels=_N_BANDS,
            f_min=min(20.0, self.sample_rate / 8),
            f_max=self.sample_rate / 2,
            top_db=None,
        )

    def frames_per_column(self, level: int) -> int:
        """How many frames share a column."""
        return 1 << max(0, level - _COARSEST_HOP)

    def column_seconds(self, level: int) -> float:
        """The length of a column."""
        return self.frames_per_column(level) * self.mel(level).hop_length / self.sample_rate

    def offset_seconds(self, level: int) -> float:
        """Where the first column begins: half a frame before the sound, because frame 0 is centred on its start."""
        return -self.mel(level).hop_length / self.sample_rate / 2

    @property
    def band_edges(self) -> FloatArray:
        """Frequencies in Hz between the rows of a tile, of shape (129,), evenly spaced in mel."""
        mel = self.mel(0)
        return np.asarray(mel_to_hz(np.linspace(*image_mel_limits(mel), _N_BANDS + 1), mel), np.float64)

    def n_levels(self, duration_seconds: float) -> int:
        """Levels that are useful: the last one shows the sound in few tiles."""
        columns = max(duration_seconds / self.column_seconds(0) / TILE_COLUMNS, 1.0)
        return 1 + min(_MAX_LEVEL, math.ceil(math.log2(columns)))


def draw_tile(path: Path, scheme: TileScheme, level: int, index: int) -> NDArray[np.uint8]:
    """A tile of a spectrogram. Only its part of the sound is read.

    Parameters
    ----------
    path : Path
    scheme : TileScheme
        For the sample rate of the file.
    level, index : int
        The tile `index` starts with column `index * TILE_COLUMNS`.

    Returns
    -------
    uint8 array of shape (128, n_columns)
        Decibels as bytes (`LOWEST_DB`), the lowest band first. Less than TILE_COLUMNS columns at the end of the sound.

    Raises
    ------
    AudioError
        As `read_audio`.
    """
    n_frames = scheme.frames_per_column(level)
    mel = scheme.mel(level)
    in_block = max(1, min(TILE_COLUMNS, _BLOCK_SAMPLES // (n_frames * mel.hop_length)))  # columns
    first, end = index * TILE_COLUMNS, (index + 1) * TILE_COLUMNS
    columns: list[NDArray[np.uint8]] = [np.empty((_N_BANDS, 0), np.uint8)]
    for begin in range(first, end, in_block):
        stop = min(begin + in_block, end)
        decibels = _frames_of(path, mel, begin * n_frames, stop * n_frames)
        if decibels.shape[1] == 0:
            break
        pooled = np.maximum.reduceat(decibels, np.arange(0, decibels.shape[1], n_frames), axis=1)
        columns.append(_as_bytes(pooled))
    return np.concatenate(columns, axis=1)


def _frames_of(path: Path, mel: MelConfig, first: int, end: int) -> Float32Array:
    """The frames from `first` to `end` of the log_mel of a file; fewer at its end."""
    before = min(first, math.ceil(mel.n_fft / 2 / mel.hop_length))  # frames of which only the samples are needed
    start = (first - before) * mel.hop_length
    stop = (end - 1) * mel.hop_length + mel.n_fft // 2
    rate = mel.sample_rate
    try:
        waveform, _ = read_audio(path, start_seconds=start / rate, end_seconds=stop / rate)
    except EndOfSoundError:
        return np.empty((mel.n_mels, 0), np.float32)
    return compute_log_mel(waveform, mel)[:, before : before + end - first]


def _as_bytes(decibels: Float32Array) -> NDArray[np.uint8]:
    steps = np.rint((decibels - LOWEST_DB) / DB_PER_STEP)
    return np.asarray(np.clip(steps, 0, 255), np.uint8)
