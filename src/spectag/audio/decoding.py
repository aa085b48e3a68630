"""Open sound files. Whatever goes wrong in a decoder is an AudioError that names the file.

soundfile (libsndfile) reads wav, flac, ogg, opus, mp3, aiff, au, caf and w64. PyAV (FFmpeg, the extra `av`) is used for
what soundfile refuses: m4a, aac, webm, mp4, wma and others. Both return mono float32.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from spectag.array_types import Float32Array, Waveform
from spectag.audio.audio_info import AudioInfo
from spectag.audio.av_decoder import AvDecoder, open_with_av
from spectag.audio.channels import loudest_channel, one_channel
from spectag.audio.file_ends import end_is_missing
from spectag.audio.soundfile_decoder import ChainedDecoder, RefusedError, SoundfileDecoder, open_with_soundfile
from spectag.config.base import Channel
from spectag.errors import AudioError, SpectagError

MAX_SAMPLE = 1e10
"""Largest accepted absolute value of a sample. Float files with 32-bit integers (up to 2.1e9) exist and can be tagged;
the power of samples beyond 1e16 is infinite in float32."""
MIN_RATE, MAX_RATE = 100, 2_000_000  # Hz
MAX_CHANNELS = 1_024
_MAX_SAMPLES_PER_BYTE = 10_000
"""Silence needs at least a byte for 4,700 samples of flac, 4,100 of Vorbis and 2,900 of Opus."""
_CANCELLED_POWER = 0.01
"""Channels cancel if the power of their mean is below this fraction of their mean power, which is 20 dB."""
_LOSSY_TOLERANCE_SECONDS = 0.5
"""The decoded length of lossy formats differs by some frames from the announced one."""
_LAST_FRAMES_SECONDS = 0.1
"""Many mp3 files end within a frame: more than this must be missing of their announced length."""

_Decoder = SoundfileDecoder | ChainedDecoder | AvDecoder


@contextmanager
def open_sound(path: str | Path, *, sequential: bool = False, channel: Channel = "mix") -> Iterator["OpenSound"]:
    """Open a sound file with soundfile, or with PyAV if soundfile refuses it.

    Parameters
    ----------
    path : str or Path
    sequential : bool
        Whether to read `blocks`; otherwise, call `read` once.
    channel : Channel
        How several channels become one.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty (0 bytes), not a sound or damaged; if it has less than 100 or more than
        2,000,000 samples per second, more than 1,024 channels, or more samples than fit into its bytes; if it does not
        have the channel.
    MissingExtraError
        If only PyAV could read the file, and PyAV is not installed.
    """
    path = _existing_file(Path(path))
    stack = ExitStack()
    try:
        with _decoder_errors(path):
            decoder = _open_decoder(path, sequential=sequential)
            stack.callback(decoder.close)
            sound = OpenSound(path, decoder, channel)
        yield sound
    finally:
        with _decoder_errors(path):
            stack.close()


def check_samples(path: Path, waveform: Waveform, start_seconds: float, sample_rate: int) -> None:
    """Raise an AudioError that names the first sample of an excerpt that is NaN, infinite or absurdly large."""
    if not waveform.size or (waveform.min() >= -MAX_SAMPLE and waveform.max() <= MAX_SAMPLE):  # False for NaN
        return
    first = int(np.argmin(np.abs(waveform) <= MAX_SAMPLE))
    raise AudioError(
        f"{path}: the sample at {start_seconds + first / sample_rate:.6g} s is {waveform[first]:.4g}; samples are "
        f"expected in [-1, 1], and none beyond {MAX_SAMPLE:.0e} is accepted; create the file again, or remove it"
    )


class MissingEnd(NamedTuple):
    """The end of a file that is missing."""

    expected_seconds: float | None
    """The length that the header announces; None: unknown."""


class OpenSound:
    """A sound file that is open. Its methods raise an AudioError whatever the decoder raises."""

    def __init__(self, path: Path, decoder: _Decoder, channel: Channel = "mix") -> None:
        self._path = path
        self._decoder = decoder
        self._power_of_mean = self._power_of_channels = 0.0
        self.sample_rate = decoder.sample_rate
        _check_rate_and_channels(path, decoder.sample_rate, decoder.n_channels)
        if isinstance(decoder, SoundfileDecoder):
            _check_length(path, decoder.info())
        self._channel = _channel_index(path, decoder.n_channels, channel)

    def info(self) -> AudioInfo:
        """Sample rate, channels and length, without decoding."""
        with _decoder_errors(self._path):
            info = self._decoder.info()
        _check_length(self._path, info)
        return info

    def read(self, start_seconds: float, end_seconds: float | None) -> Waveform:
        """The samples of an excerpt, mono."""
        with _decoder_errors(self._path):
            return self._mono(self._decoder.read(start_seconds, end_seconds))

    def blocks(self) -> Iterator[Waveform]:
        """All samples from the start, mono, in blocks of limited size."""
        with _decoder_errors(self._path):
            blocks = self._decoder.blocks()
        while True:
            with _decoder_errors(self._path):
                block = next(blocks, None)
                waveform = None if block is None else self._mono(block)
            if waveform is None:
                return
            yield waveform

    @property
    def channels_cancel(self) -> bool:
        """Whether the channels mixed so far are inverse to each other, so that little is left of their mean."""
        return self._power_of_mean < _CANCELLED_POWER * self._power_of_channels

    @property
    def is_damaged(self) -> bool:
        """Whether the decoder stopped before the end of what was read."""
        return self._decoder.damage is not None

    def missing_end(self, n_samples: int) -> MissingEnd | None:
        """What is missing of a whole file from which `n_samples` per channel could be read; None: nothing."""
        decoder = self._decoder
        name, expected = decoder.format.lower(), decoder.expected_samples
        if name == "mp3" and expected is not None and n_samples >= expected - _LAST_FRAMES_SECONDS * self.sample_rate:
            return None
        tolerance = 0 if decoder.is_exact else _LOSSY_TOLERANCE_SECONDS * self.sample_rate
        if self.is_damaged or (expected is not None and n_samples < expected - tolerance):
            return MissingEnd(None if expected is None else expected / self.sample_rate)
        if name == "mp3" and expected is None:
            return None
        with _decoder_errors(self._path):
            is_cut = end_is_missing(self._path, name)
        if not is_cut:
            return None
        return MissingEnd(expected / self.sample_rate if expected is not None and name in ("caf", "mp3") else None)

    def _mono(self, samples: Float32Array) -> Waveform:
        waveform = one_channel(samples, self._channel)
        if samples.shape[1] > 1 and self._channel is None:
            with np.errstate(invalid="ignore", over="ignore"):
                self._power_of_mean += float(np.vdot(waveform, waveform))
                self._power_of_channels += float(np.vdot(samples, samples)) / samples.shape[1]
        return waveform


def _existing_file(path: Path) -> Path:
    """The path, if it is a readable file with at least one byte; otherwise an AudioError."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise AudioError(f"{path}: need a sound file, got {'a folder' if path.is_dir() else 'a special file'}")
        path.open("rb").close()
    except (OSError, ValueError) as error:  # ValueError: not a valid file name
        raise AudioError(f"{path}: can't read the sound: {getattr(error, 'strerror', error)}") from error
    if size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes)")
    return path


def _open_decoder(path: Path, *, sequential: bool) -> _Decoder:
    try:
        return open_with_soundfile(path, sequential=sequential)
    except RefusedError as refusal:
        return open_with_av(path, refusal)


def _channel_index(path: Path, n_channels: int, channel: Channel) -> int | None:
    """The channel to read, counted from 0; None: the mean of all."""
    if isinstance(channel, int):
        if channel > n_channels:
            has = "1 channel" if n_channels == 1 else f"{n_channels} channels"
            raise AudioError(f"{path}: there is no channel {channel}, the file has {has}; use channel mix or loudest")
        return channel - 1
    if channel == "mix" or n_channels == 1:
        return None
    status = path.stat()
    return _loudest_channel(path.absolute(), (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1024)
def _loudest_channel(path: Path, _state: tuple[int, int]) -> int:
    """The loudest channel, counted from 0, decoded once for all excerpts of a file."""
    with closing(_open_decoder(path, sequential=True)) as decoder:
        return loudest_channel(decoder.blocks(), decoder.sample_rate)


@contextmanager
def _decoder_errors(path: Path) -> Iterator[None]:
    """Turn every exception of a decoder into an AudioError that names the file."""
    try:
        yield
    except SpectagError:
        raise
    except MemoryError as error:
        raise AudioError(f"{path}: the samples do not fit into memory; read it in excerpts") from error
    except Exception as error:
        raise AudioError(f"{path}: the sound is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What a decoder says about a file, in one line; with the class for other exceptions than its own."""
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string)
    lines = str(getattr(error, "strerror", None) or error).split("\n")
    return f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__


def _check_rate_and_channels(path: Path, sample_rate: int, n_channels: int) -> None:
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise AudioError(
            f"{path}: its header says {sample_rate:,} samples per second, need {MIN_RATE} to {MAX_RATE:,}; the "
            "header is damaged, or this is not a sound"
        )
    if not 1 <= n_channels <= MAX_CHANNELS:
        raise AudioError(
            f"{path}: its header says {n_channels:,} channels, need 1 to {MAX_CHANNELS:,}; the header is damaged, or "
            "this is not a sound"
        )


def _check_length(path: Path, info: AudioInfo) -> None:
    n_bytes = path.stat().st_size
    if info.n_samples > _MAX_SAMPLES_PER_BYTE * n_bytes:
        raise AudioError(
            f"{path}: its header says {info.n_samples:,} samples, but {n_bytes:,} bytes contain at most "
            f"{_MAX_SAMPLES_PER_BYTE * n_bytes:,}; the header is damaged"
        )
