"""Decoders for sound files. `open_sound` chooses soundfile, or PyAV if soundfile refuses the file.

soundfile (libsndfile) reads wav, flac, ogg, opus, mp3 and aiff. PyAV (FFmpeg, the extra `av`) also reads m4a, aac, webm
and mp4. Both decoders return mono float32.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from spectag.array_types import Float32Array, Waveform
from spectag.errors import AudioError, MissingExtraError

AV_SUFFIXES = frozenset({".m4a", ".aac", ".webm", ".mp4"})

# FFmpeg also opens playlists, which name other files and URLs. An input file must not make us read those.
_AV_FORMATS = "mov,matroska,ogg,aac,mp3,flac,wav,w64,aiff,caf,asf,amr,ac3"
_BLOCK_SAMPLES = 1 << 17  # per channel: about 3 s
_BLOCK_SECONDS = 60  # limit for very low sample rates, where a resampled block would fill the memory
_PREROLL_SECONDS = 0.5  # after a seek, the first frames of mp3, aac and opus are wrong
# unrecognised, malformed, unsupported; for text, others report "File does not exist"
_SOUNDFILE_REASONS = (1, 3, 4)
MAX_SAMPLE = 1e10
"""Largest accepted absolute value of a sample. Float files with 32-bit integers (up to 2.1e9) exist and can be tagged;
the power of samples beyond 1e16 is infinite in float32."""
_UNKNOWN_LENGTH = 1 << 62  # libsndfile reports 2^63 - 1 for a flac without a length


@dataclass(frozen=True)
class AudioInfo:
    """The properties of a sound file."""

    sample_rate: int  # Hz
    n_channels: int
    n_samples: int  # per channel
    format: str  # the container by libsndfile, such as WAV, or the codec by FFmpeg, such as AAC

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate


class _RefusedError(Exception):
    """soundfile can't open a file, or would read it wrongly."""


class _UnknownLengthError(_RefusedError):
    """soundfile would have to guess the length of a sound."""


@contextmanager
def open_sound(path: str | Path, *, sequential: bool = False) -> Iterator["_SoundfileSound | _AvSound"]:
    """Open a sound file with soundfile, or with PyAV if soundfile refuses it.

    Parameters
    ----------
    path : str or Path
    sequential : bool
        Whether to read `blocks`; otherwise, call `read` once.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty (0 bytes), not a sound or damaged.
    MissingExtraError
        If only PyAV could read the file, and PyAV is not installed.
    """
    path = _existing_file(Path(path))
    try:
        file = _open_with_soundfile(path, sequential=sequential)
    except _RefusedError as refusal:
        with _open_with_av(path, refusal) as sound:
            yield sound
        return
    with file:
        yield _SoundfileSound(path, file)


def mean_of_channels(samples: Float32Array) -> Waveform:
    """Mono samples (n_samples,) from samples (n_samples, n_channels)."""
    n_channels = samples.shape[1]
    if n_channels == 1:
        return samples[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # `check_samples` reports NaN
        # six times as fast as mean(axis=1)
        return np.asarray(samples @ np.full(n_channels, 1 / n_channels, np.float32))


def check_samples(path: Path, waveform: Waveform, start_seconds: float, sample_rate: int) -> None:
    """Raise an AudioError that names the first sample of an excerpt that is NaN, infinite or absurdly large."""
    if not waveform.size or (waveform.min() >= -MAX_SAMPLE and waveform.max() <= MAX_SAMPLE):  # False for NaN
        return
    first = int(np.argmin(np.abs(waveform) <= MAX_SAMPLE))
    raise AudioError(
        f"{path}: the sample at {start_seconds + first / sample_rate:.6g} s is {waveform[first]:.4g}; samples are "
        f"expected in [-1, 1], and none beyond {MAX_SAMPLE:.0e} is accepted; create the file again, or remove it"
    )


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


# soundfile


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound that is read from start to end.

    After each read of a seekable file, soundfile seeks. It then decodes a compressed file again from an earlier frame,
    and an mp3 continues with zeros.
    """

    def seekable(self) -> bool:
        return False


def _open_with_soundfile(path: Path, *, sequential: bool) -> soundfile.SoundFile:
    """Open a sound. A _RefusedError contains the reason if that is not possible."""
    file_class = _SequentialFile if sequential else soundfile.SoundFile
    try:
        file = file_class(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        is_known = error.code in _SOUNDFILE_REASONS
        raise _RefusedError(error.error_string.removesuffix(".") if is_known else "Format not recognised") from error
    if file.frames >= _UNKNOWN_LENGTH or (file.format == "MP3" and _is_mp3_of_unknown_length(path)):
        file.close()
        raise _UnknownLengthError("its header does not contain its length")
    return file


class _SoundfileSound:
    """A sound decoded by soundfile."""

    def __init__(self, path: Path, file: soundfile.SoundFile) -> None:
        self.sample_rate: int = file.samplerate
        self._path = path
        self._file = file

    def info(self) -> AudioInfo:
        """Sample rate, channels and length, without decoding."""
        return AudioInfo(self.sample_rate, self._file.channels, self._file.frames, self._file.format)

    def read(self, start_seconds: float, end_seconds: float | None) -> Waveform:
        """The samples of an excerpt, mono."""
        n_samples = self._file.frames
        start = min(round(start_seconds * self.sample_rate), n_samples)
        end = n_samples if end_seconds is None else min(round(end_seconds * self.sample_rate), n_samples)
        n_preroll = min(round(_PREROLL_SECONDS * self.sample_rate), start) if self._file.format == "MP3" else 0
        try:
            # A single read: soundfile seeks before each one, and an mp3 starts with zeros after that.
            return mean_of_channels(self._decode(n_preroll + end - start, seek_to=start - n_preroll)[n_preroll:])
        except MemoryError as error:
            size = f"{end - start} samples of {self._file.channels} channels"
            raise AudioError(f"{self._path}: {size} do not fit into memory; read it in excerpts") from error

    def blocks(self) -> Iterator[Waveform]:
        """All samples from the start, mono, in blocks of limited size."""
        n_block = min(_BLOCK_SAMPLES, _BLOCK_SECONDS * self.sample_rate)
        samples = self._decode(n_block, seek_to=0)  # like `read`: without the seek, an mp3 differs in the last bit
        while len(samples) == n_block:
            yield mean_of_channels(samples)
            samples = self._decode(n_block)
        yield mean_of_channels(samples)

    def _decode(self, n_samples: int, *, seek_to: int | None = None) -> Float32Array:
        """Samples of shape (n_samples, n_channels)."""
        try:
            if seek_to is not None:
                self._file.seek(seek_to)
            return np.asarray(self._file.read(n_samples, dtype="float32", always_2d=True))
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{self._path}: the sound is damaged: {error.error_string}") from error


# MPEG layer 3: kbit/s by index, for version 1 and for versions 2 and 2.5; samples per second by version and index.
_MP3_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MP3_MAX_FRAME = 1441  # bytes
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _is_mp3_of_unknown_length(path: Path) -> bool:
    """Whether the bit rate of an mp3 varies in the first megabyte, and it has no Xing or VBRI header.

    For such a file, libsndfile derives the length from the bit rate of the first frame, and so misses some samples.
    (mutagen does the same: it reads up to four frames, and does not report whether the bit rate varies.)
    """
    with path.open("rb") as file:
        head = file.read(10)
        tag_bytes = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(10 + tag_bytes if head[:3] == b"ID3" else 0)
        data = file.read(1 << 20)
    if any(tag in data[:256] for tag in (b"Xing", b"Info", b"VBRI")):
        return False
    for start in range(min(len(data), _MP3_MAX_FRAME)):  # the file may start in the middle of a frame
        bit_rates = list(_mp3_bit_rates(data, start))
        if len(bit_rates) > 2:
            return len(set(bit_rates)) > 1
    return False


def _mp3_bit_rates(data: bytes, position: int) -> Iterator[int]:
    """The bit rate of each frame, up to the first bytes that are not a frame of layer 3."""
    while position + 4 <= len(data):
        header = int.from_bytes(data[position : position + 4], "big")
        sync, version, layer = header >> 21, header >> 19 & 3, header >> 17 & 3
        bit_rate_index, rate_index, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
        if sync != 0x7FF or version == 1 or layer != 1 or bit_rate_index in (0, 15) or rate_index == 3:
            return
        bit_rate = 1000 * _MP3_KBITS[version != 3][bit_rate_index]
        yield bit_rate
        position += (144 if version == 3 else 72) * bit_rate // _MP3_RATES[version][rate_index] + padding


# PyAV


@contextmanager
def _open_with_av(path: Path, refusal: _RefusedError) -> Iterator["_AvSound"]:
    """Open a sound. What FFmpeg reports in the `with` block is an AudioError."""
    try:
        import av
    except ImportError as error:
        if path.suffix.lower() in AV_SUFFIXES or isinstance(refusal, _UnknownLengthError):
            raise MissingExtraError("av", "av", f"{path}: reading this file ({refusal})") from error
        raise AudioError(f"{path}: not a sound that soundfile can read: {refusal}") from error
    try:
        with path.open("rb") as file, av.open(file, options={"format_whitelist": _AV_FORMATS}) as container:
            yield _AvSound(path, container)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path}: not a sound, or a damaged one: {refusal} (soundfile); {reason} (FFmpeg)") from error


class _AvSound:
    """The first audio stream of a container, decoded by PyAV. The methods are those of `_SoundfileSound`."""

    def __init__(self, path: Path, container: Any) -> None:
        if not container.streams.audio:
            raise AudioError(f"{path}: the file has no sound, only pictures or text")
        self._container = container
        self._stream = container.streams.audio[0]
        self._origin_seconds = float((self._stream.start_time or 0) * self._stream.time_base)  # of the first sample
        self._codec = self._stream.codec_context
        self.sample_rate: int = self._codec.sample_rate
        if not self.sample_rate:
            raise AudioError(f"{path}: the file has no samples")

    def info(self) -> AudioInfo:
        n_samples = round(self._duration_seconds() * self.sample_rate)
        return AudioInfo(self.sample_rate, self._codec.channels, n_samples, self._codec.codec.canonical_name.upper())

    def read(self, start_seconds: float, end_seconds: float | None) -> Waveform:
        start = round(start_seconds * self.sample_rate)
        end = sys.maxsize if end_seconds is None else round(end_seconds * self.sample_rate)
        if start > 0:
            seek_seconds = max(start_seconds - _PREROLL_SECONDS, 0) + self._origin_seconds
            self._container.seek(int(seek_seconds / self._stream.time_base), stream=self._stream)
        return np.concatenate([np.empty(0, np.float32), *self.blocks(start, end)])

    def _duration_seconds(self) -> float:
        """The length in the container. If there is none, or it is an estimate, the end of the last packet."""
        stream, container = self._stream, self._container
        is_estimate = container.format.name in ("aac", "mp3")  # from the bit rate
        if stream.duration is not None and not is_estimate:
            return float(stream.duration * stream.time_base)
        if container.duration is not None and not is_estimate:
            return float(container.duration / 1_000_000) - self._origin_seconds
        ends = [packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        return float(max(ends, default=0) * stream.time_base) - self._origin_seconds

    def blocks(self, start: int = 0, end: int = sys.maxsize) -> Iterator[Waveform]:
        """The samples from `start` to `end`; the stream must be at or before `start`."""
        from av import AudioResampler

        to_float = AudioResampler(format="fltp")
        position = None
        for frame in self._container.decode(self._stream):
            if position is None:  # after a seek; from here on, count samples, because webm rounds the times
                seconds = float((frame.pts or 0) * frame.time_base) - self._origin_seconds
                position = round(seconds * frame.sample_rate)
            for block in to_float.resample(frame):
                waveform = mean_of_channels(np.asarray(block.to_ndarray(), np.float32).T)
                yield waveform[max(start - position, 0) : max(end - position, 0)]
                position += len(waveform)
            if position >= end:
                return
