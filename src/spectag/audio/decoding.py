"""Sound files: opened by soundfile, or by PyAV where soundfile refuses, and decoded to mono float32.

soundfile (libsndfile) reads wav, flac, ogg, opus, mp3 and aiff. PyAV (FFmpeg; the extra `av`) reads m4a, aac, webm and
mp4, and is asked for whatever soundfile refuses to open.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from spectag.array_types import Float32Array, Waveform
from spectag.errors import AudioError, MissingExtraError

AV_SUFFIXES = frozenset({".m4a", ".aac", ".webm", ".mp4"})
PREROLL_SECONDS = 0.5  # after a seek, mp3, aac and opus need some frames before the first that comes out right


# FFmpeg also opens playlists, which name other files and addresses; a sound given to us must not make us read those.
_AV_FORMATS = "mov,matroska,ogg,aac,mp3,flac,wav,w64,aiff,caf,asf,amr,ac3"
_SOUNDFILE_REASONS = (1, 3, 4)  # unrecognised, malformed, unsupported; other codes say "File does not exist" of text
_UNKNOWN_LENGTH = 1 << 62  # libsndfile gives 2^63 - 1 for a flac that does not tell its length


class RefusedError(Exception):
    """soundfile can't open a file, or not rightly."""


class UnknownLengthError(RefusedError):
    """A sound that soundfile knows, but whose length it would have to guess."""

    def __init__(self) -> None:
        super().__init__("its header does not tell its length")


def existing_file(path: str | Path) -> Path:
    """The path of a file that is there, can be opened and is not empty; else an AudioError."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise AudioError(f"{path}: need a sound file, got {'a folder' if path.is_dir() else 'something else'}")
        path.open("rb").close()
    except (OSError, ValueError) as error:  # ValueError: no name for a file
        raise AudioError(f"{path}: can't read the sound: {getattr(error, 'strerror', error)}") from error
    if size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes)")
    return path


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound that is read from its beginning to its end.

    soundfile seeks after each read of a file in which it can; a compressed one is then decoded anew from some frame
    before, and an mp3 goes on with zeros.
    """

    def seekable(self) -> bool:
        return False


def open_with_soundfile(path: Path, *, forward: bool = False) -> soundfile.SoundFile:
    """Open a sound, perhaps to be read block by block from its beginning; a RefusedError says why it can't be."""
    try:
        file = _ForwardFile(os.fsencode(path)) if forward else soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        known = error.code in _SOUNDFILE_REASONS
        raise RefusedError(error.error_string.removesuffix(".") if known else "Format not recognised") from error
    if file.frames >= _UNKNOWN_LENGTH or (file.format == "MP3" and _is_mp3_of_unknown_length(path)):
        file.close()
        raise UnknownLengthError
    return file


def mean_of_channels(samples: Float32Array) -> Waveform:
    """Mono (n_samples,) of samples (n_samples, n_channels)."""
    n_channels = samples.shape[1]
    if n_channels == 1:
        return samples[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # the caller looks for NaN
        mean: Waveform = samples @ np.full(n_channels, 1 / n_channels, np.float32)  # six times as fast as mean(axis=1)
    return mean


# MPEG layer 3: kbit/s by index, for version 1 and for versions 2 and 2.5; samples per second by version and index.
_MP3_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MP3_LONGEST_FRAME = 1441  # bytes
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _is_mp3_of_unknown_length(path: Path) -> bool:
    """Whether an mp3 varies its bit rate in the first megabyte and has no Xing or VBRI header.

    libsndfile then takes the first frame's bit rate for all, and gives a part of the sound as if it were the whole.
    """
    with path.open("rb") as file:
        head = file.read(10)
        tag_bytes = 0
        if head[:3] == b"ID3":
            tag_bytes = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(tag_bytes)
        data = file.read(1 << 20)
    if any(tag in data[:256] for tag in (b"Xing", b"Info", b"VBRI")):
        return False
    for start in range(min(len(data), _MP3_LONGEST_FRAME)):  # the beginning may be cut off in the midst of a frame
        bit_rates = list(_mp3_bit_rates(data, start))
        if len(bit_rates) > 2:
            return len(set(bit_rates)) > 1
    return False


def _mp3_bit_rates(data: bytes, position: int) -> Iterator[int]:
    """The bit rate of frame after frame, up to the first bytes that begin no frame of layer 3."""
    while position + 4 <= len(data):
        header = int.from_bytes(data[position : position + 4], "big")
        sync, version, layer = header >> 21, header >> 19 & 3, header >> 17 & 3
        bit_rate_index, rate_index, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
        if sync != 0x7FF or version == 1 or layer != 1 or bit_rate_index in (0, 15) or rate_index == 3:
            return
        bit_rate = 1000 * _MP3_KBITS[version != 3][bit_rate_index]
        yield bit_rate
        position += (144 if version == 3 else 72) * bit_rate // _MP3_RATES[version][rate_index] + padding


def _check_av(path: Path, refusal: RefusedError) -> None:
    try:
        import av  # noqa: F401
    except ImportError as error:
        if path.suffix.lower() in AV_SUFFIXES or isinstance(refusal, UnknownLengthError):
            raise MissingExtraError("av", "av", f"{path}: reading this file ({refusal})") from error
        raise AudioError(f"{path}: not a sound that soundfile can read: {refusal}") from error


@contextmanager
def open_with_av(path: Path, refusal: RefusedError) -> Iterator[tuple[Any, Any]]:
    """The container and its first audio stream; what FFmpeg finds wrong inside the `with` is an AudioError."""
    _check_av(path, refusal)
    import av

    try:
        with path.open("rb") as file, av.open(file, options={"format_whitelist": _AV_FORMATS}) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: the file holds no sound, only pictures or text")
            stream = container.streams.audio[0]
            if not stream.codec_context.sample_rate:
                raise AudioError(f"{path}: the file holds no samples")
            yield container, stream
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path}: not a sound, or a damaged one: {refusal} (soundfile); {reason} (FFmpeg)") from error


def av_duration_seconds(container: Any, stream: Any) -> float:
    """Length as the container tells it; where it tells none, or guesses, as its packets do."""
    guessed = container.format.name in ("aac", "mp3")  # from the bit rate
    if stream.duration is not None and not guessed:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and not guessed:
        return float(container.duration / 1_000_000) - av_origin_seconds(stream)
    ends = [packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
    return float(max(ends, default=0) * stream.time_base) - av_origin_seconds(stream)


def av_origin_seconds(stream: Any) -> float:
    """The time that the container gives to the first sample."""
    return float((stream.start_time or 0) * stream.time_base)


def av_blocks(container: Any, stream: Any, start: int, end: int) -> Iterator[Waveform]:
    """The samples from `start` to `end` of a stream that was opened, or moved to a place before `start`, mono."""
    from av import AudioResampler

    to_float = AudioResampler(format="fltp")
    position = None
    for frame in container.decode(stream):
        if position is None:  # the seek lands where it can; from here on samples are counted, for webm rounds times
            position = round(
                (float((frame.pts or 0) * frame.time_base) - av_origin_seconds(stream)) * frame.sample_rate
            )
        for block in to_float.resample(frame):
            waveform = mean_of_channels(np.asarray(block.to_ndarray(), np.float32).T)
            yield waveform[max(start - position, 0) : max(end - position, 0)]
            position += len(waveform)
        if position >= end:
            return


def not_finite(path: Path, waveform: Waveform, start_seconds: float, sample_rate: int) -> AudioError:
    """The error that names the first sample of a stretch that is NaN or infinite."""
    at = start_seconds + int(np.argmin(np.isfinite(waveform))) / sample_rate
    return AudioError(f"{path}: the sample at {at:.6g} s is NaN or infinite; write the file anew from its source")
