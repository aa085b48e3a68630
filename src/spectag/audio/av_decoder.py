"""PyAV (FFmpeg, the extra `av`) as a decoder: m4a, aac, webm, mp4, wma, mkv, amr and others."""

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from spectag.array_types import Float32Array
from spectag.audio.audio_info import AudioInfo
from spectag.audio.file_ends import caf_present_fraction
from spectag.audio.soundfile_decoder import RefusedError, UnknownLengthError
from spectag.errors import AudioError, MissingExtraError

_CONTAINERS = {".m4a", ".mp4", ".mov", ".3gp", ".webm", ".mkv", ".mka"}
AV_SUFFIXES = frozenset(_CONTAINERS | {".aac", ".ac3", ".eac3", ".wma", ".amr"})

# FFmpeg also opens playlists, which name other files and URLs. An input file must not make us read those.
_AV_FORMATS = "mov,matroska,ogg,aac,mp3,flac,wav,w64,aiff,caf,asf,amr,ac3,eac3,au"
_MAX_BYTES_WITHOUT_SOUND = 1 << 27  # the index of a film of a day has 85 MB; the pictures between two packets less
_PREROLL_SECONDS = 0.5  # after a seek, the first frames of mp3, aac and opus are wrong


def open_with_av(path: Path, refusal: RefusedError) -> "AvDecoder":
    """Open a sound that soundfile refused.

    Raises
    ------
    AudioError
        If FFmpeg cannot open the file, or it has no sound.
    MissingExtraError
        If PyAV is not installed, and could read the file.
    """
    try:
        import av
    except ImportError as error:
        if path.suffix.lower() in AV_SUFFIXES or isinstance(refusal, UnknownLengthError):
            raise MissingExtraError("av", "av", f"{path}: reading this file ({refusal})") from error
        raise AudioError(f"{path}: not a sound that soundfile can read: {refusal}") from error
    stack = ExitStack()
    try:
        file = _AvFile(stack.enter_context(path.open("rb")))
        container = stack.enter_context(av.open(file, options={"format_whitelist": _AV_FORMATS}))
        return AvDecoder(path, file, container, stack)
    except BaseException as error:
        stack.close()
        if not isinstance(error, av.FFmpegError | OSError | ValueError):
            raise
        reasons = f"{refusal} (soundfile); {getattr(error, 'strerror', None) or error} (FFmpeg)"
        raise AudioError(f"{path}: not a sound, or a damaged one: {reasons}") from error


class _AvFile:
    """A file for PyAV. A damaged container may ask for a place before its start; PyAV would print an exception.

    It ends where FFmpeg has read many bytes without a packet of sound. FFmpeg would search for one up to the end of the
    file, through a hundred gigabytes of zeros.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._n_bytes = 0
        self._has_ended = False
        self.tell = file.tell

    def read(self, n_bytes: int) -> bytes:
        """The next bytes; none if there was no packet for long."""
        if self._n_bytes > _MAX_BYTES_WITHOUT_SOUND:
            self._has_ended = True  # also if FFmpeg makes a packet of what it has read
        data = b"" if self._has_ended else self._file.read(n_bytes)
        self._n_bytes += len(data)
        return data

    def start_to_count(self) -> None:
        """Expect a packet of sound within the next bytes."""
        self._n_bytes = 0

    def do_not_count(self) -> None:
        """Let FFmpeg read as much as it likes, as it does when it seeks in a file without an index."""
        self._n_bytes = -sys.maxsize

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The new position, or -1 if there is no such place."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


class AvDecoder:
    """The first audio stream of a container, decoded by PyAV. The methods are those of `SoundfileDecoder`."""

    is_exact = False

    def __init__(self, path: Path, file: _AvFile, container: Any, stack: ExitStack) -> None:
        self._file = file
        self._stack = stack  # closes the container and the file
        if not container.streams.audio:
            raise AudioError(f"{path}: the file has no sound, only pictures or text")
        self._container = container
        self._stream = container.streams.audio[0]
        self._codec = self._stream.codec_context
        if self._codec is None:
            raise AudioError(f"{path}: the file has a codec that is not known")
        self._origin_seconds = float((self._stream.start_time or 0) * self._stream.time_base)  # of the first sample
        self.sample_rate: int = self._codec.sample_rate
        if not self.sample_rate:
            raise AudioError(f"{path}: the file has no samples")
        self.n_channels: int = self._codec.channels
        seconds = self._declared_seconds()
        self.expected_samples = None if seconds is None else round(seconds * self.sample_rate)
        self.format: str = container.format.name
        if self.format == "caf" and self.expected_samples is not None:
            self.expected_samples = round(self.expected_samples / (caf_present_fraction(path) or 1.0))
        self.damage: str | None = None

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def info(self) -> AudioInfo:
        """Sample rate, channels and length; the packets are read if the container does not say its length."""
        n_samples = self.expected_samples
        if n_samples is None:
            n_samples = round(self._seconds_of_packets() * self.sample_rate)
        name = self._codec.codec.canonical_name.upper()
        return AudioInfo(self.sample_rate, self.n_channels, n_samples, name, self.expected_samples)

    def read(self, start_seconds: float, end_seconds: float | None) -> Float32Array:
        """The samples of an excerpt, of shape (n_samples, n_channels)."""
        start = round(start_seconds * self.sample_rate)
        end = sys.maxsize if end_seconds is None else round(end_seconds * self.sample_rate)
        if start > 0:
            seek_seconds = max(start_seconds - _PREROLL_SECONDS, 0) + self._origin_seconds
            self._file.do_not_count()
            self._container.seek(int(seek_seconds / self._stream.time_base), stream=self._stream)
        return np.concatenate([np.empty((0, self.n_channels), np.float32), *self.blocks(start, end)])

    def _declared_seconds(self) -> float | None:
        """The length in the container; None if there is none, or it is an estimate from the bit rate."""
        stream, container = self._stream, self._container
        if container.format.name in ("aac", "mp3", "amr", "ac3", "eac3"):
            return None
        if stream.duration is not None:
            return max(0.0, float(stream.duration * stream.time_base))
        if container.duration is not None:
            return max(0.0, float(container.duration / 1_000_000) - self._origin_seconds)
        return None

    def _seconds_of_packets(self) -> float:
        """The end of the last packet."""
        stream = self._stream
        packets = self._packets()
        ends = [packet.pts + (packet.duration or 0) for packet in packets if packet.pts is not None]
        return max(0.0, float(max(ends, default=0) * stream.time_base) - self._origin_seconds)

    def _packets(self) -> Iterator[Any]:
        """The packets of the sound."""
        self._file.start_to_count()
        for packet in self._container.demux(self._stream):
            yield packet
            self._file.start_to_count()

    def _frames(self) -> Iterator[Any]:
        """The decoded frames. What is no sound in an mp3, such as the tag of a joined file, is left out."""
        from av.error import InvalidDataError

        is_mp3 = self._container.format.name == "mp3"
        for packet in self._packets():
            try:
                frames = packet.decode()
            except InvalidDataError:
                if not is_mp3:
                    raise
            else:
                yield from frames

    def blocks(self, start: int = 0, end: int = sys.maxsize) -> Iterator[Float32Array]:
        """The samples from `start` to `end`; the stream must be at or before `start`."""
        from av import AudioResampler, FFmpegError

        # packed: PyAV crashes on planar samples of more than 8 channels
        to_float = AudioResampler(format="flt", layout=self._codec.layout, rate=self.sample_rate)
        frames = self._frames()
        position = None
        while True:
            try:
                frame = next(frames, None)
                blocks = [] if frame is None else to_float.resample(frame)
            except FFmpegError as error:
                if position is None:
                    raise
                self.damage = error.strerror or str(error)
                return
            if frame is None:
                return
            if position is None:  # after a seek; from here on, count samples, because webm rounds the times
                seconds = float((frame.pts or 0) * frame.time_base) - self._origin_seconds
                position = round(seconds * frame.sample_rate)
            for block in blocks:
                samples = np.asarray(block.to_ndarray(), np.float32).reshape(-1, block.layout.nb_channels)
                yield samples[max(start - position, 0) : max(end - position, 0)]
                position += len(samples)
            if position >= end:
                return
