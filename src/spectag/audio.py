"""Sound files: read as mono float32, written, resampled, found in folders.

soundfile (libsndfile) reads wav, flac, ogg, opus, mp3 and aiff. PyAV (FFmpeg; the extra `av`) reads m4a, aac, webm and
mp4, and is asked for whatever soundfile refuses to open.
"""

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spectag.errors import AudioError, EndOfSoundError, MissingExtraError
from spectag.files import unfinished_file

Waveform = NDArray[np.float32]

_AV_SUFFIXES = frozenset({".m4a", ".aac", ".webm", ".mp4"})
_WRITABLE = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aif": "AIFF", ".aiff": "AIFF"}
AUDIO_SUFFIXES = _AV_SUFFIXES | frozenset(_WRITABLE) | {".oga", ".opus", ".au", ".caf", ".w64"}

# FFmpeg also opens playlists, which name other files and addresses; a sound given to us must not make us read those.
_AV_FORMATS = "mov,matroska,ogg,aac,mp3,flac,wav,w64,aiff,caf,asf,amr,ac3"
_PREROLL_SECONDS = 0.5  # after a seek, mp3, aac and opus need some frames before the first that comes out right
_BLOCK = 1 << 18  # samples written at once
_SOUNDFILE_REASONS = (1, 3, 4)  # unrecognised, malformed, unsupported; other codes say "File does not exist" of text
_UNKNOWN_LENGTH = 1 << 62  # libsndfile gives 2^63 - 1 for a flac that does not tell its length


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file says of itself."""

    sample_rate: int  # Hz
    n_channels: int
    n_samples: int  # per channel
    format: str  # libsndfile's name of the container, such as WAV, or FFmpeg's of the codec, such as AAC

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate


class _RefusedError(Exception):
    """soundfile can't open a file, or not rightly."""


class _UnknownLengthError(_RefusedError):
    """A sound that soundfile knows, but whose length it would have to guess."""

    def __init__(self) -> None:
        super().__init__("its header does not tell its length")


def audio_info(path: str | Path) -> AudioInfo:
    """Sample rate, channels and length of a sound file, without decoding it.

    `n_samples` is what the header says. It is exact for wav, flac, aiff and ogg, also for a truncated wav or aiff. For
    mp3, m4a, aac and webm it can be off by some thousand samples from what is decoded, and it is too large for a
    truncated mp3. A file without samples is no error here: it has 0. A file that tells no length (an aac, a webm
    recorded by a browser, a flac from a pipe) is read through, packet by packet, still undecoded.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty (0 bytes), or not a sound.
    MissingExtraError
        If only PyAV could read it, and PyAV is not installed.
    """
    path = _existing_file(path)
    try:
        with _open_with_soundfile(path) as file:
            return AudioInfo(file.samplerate, file.channels, file.frames, file.format)
    except _RefusedError as refusal:
        with _open_with_av(path, refusal) as (container, stream):
            codec = stream.codec_context
            n_samples = round(_av_duration_seconds(container, stream) * codec.sample_rate)
            return AudioInfo(codec.sample_rate, codec.channels, n_samples, codec.codec.canonical_name.upper())


def read_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
) -> tuple[Waveform, int]:
    """Read a sound file, or the stretch of it from `start_seconds` to `end_seconds`, as mono.

    Parameters
    ----------
    path : str or Path
        The file. What it holds counts, not its suffix.
    sample_rate : int, optional
        Rate to resample to, in Hz; the file's own rate when left out.
    start_seconds, end_seconds : float
        The stretch to read; the rest is not decoded. An end beyond the end of the file means the end of the file.
        Stretches that touch share no sample and leave none out, and equal the same stretch of the whole; but near the
        end of an ogg they may be shifted by up to 25 ms, and in a webm by 1 ms.

    Returns
    -------
    waveform : float32 array of shape (n_samples,)
        The mean of the channels. Integer formats lie in [-1, 1]; a float file may go beyond and is given as it is.
    sample_rate : int
        Its rate in Hz.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty (0 bytes), not a sound, damaged, or without samples; if a sample in
        the stretch is NaN or infinite; if the stretch is empty, begins before 0, or begins where the sound has ended.
    MissingExtraError
        If only PyAV could read it, and PyAV is not installed.

    Notes
    -----
    A truncated wav, aiff, ogg, mp3 or webm gives the samples that are there. A truncated flac, aac, m4a or mp4 is an
    AudioError: its decoder refuses it, though a stretch before the cut of a flac can be read. An mp3 has the length
    that its decoder gives it, which differs between versions of libsndfile by up to some thousand samples.
    """
    path = _existing_file(path)
    _check_stretch(path, start_seconds, end_seconds)
    try:
        waveform, file_rate = _read_with_soundfile(path, start_seconds, end_seconds)
    except _RefusedError as refusal:
        waveform, file_rate = _read_with_av(path, start_seconds, end_seconds, refusal)
    if waveform.size == 0:
        error = EndOfSoundError if start_seconds else AudioError
        raise error(f"{path}: the file holds no samples{_where(start_seconds, end_seconds)}")
    if not np.isfinite(waveform).all():
        at = start_seconds + int(np.argmin(np.isfinite(waveform))) / file_rate
        raise AudioError(f"{path}: the sample at {at:.6g} s is NaN or infinite; write the file anew from its source")
    if sample_rate is None:
        return waveform, file_rate
    return resample(waveform, file_rate, sample_rate), sample_rate


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """A waveform of shape (n_samples,) at another rate, by soxr at its quality HQ; the same array for an equal rate.

    Some samples stay some: what is shorter than a sample at the new rate becomes one.

    Raises
    ------
    ValueError
        If a rate is not positive, or the waveform has more than one dimension.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"need sample rates above 0 Hz, got {from_rate} and {to_rate}")
    if waveform.ndim != 1:
        raise ValueError(f"need a mono waveform of shape (n_samples,), got {waveform.shape}")
    if from_rate == to_rate:
        return waveform
    resampled: Waveform = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    return resampled if resampled.size else waveform[:1]


def write_audio(path: str | Path, waveform: Waveform, sample_rate: int) -> None:
    """Write a mono waveform, clipped to [-1, 1], in the format that the suffix names, whole or not at all.

    wav, flac and aiff get 16-bit samples; ogg (Vorbis) and mp3 are lossy.

    Raises
    ------
    ValueError
        If the waveform has more than one dimension, or a NaN or infinite value.
    AudioError
        If the suffix is none of .wav .flac .ogg .mp3 .aif .aiff, or the file can't be written.
    """
    path = Path(path)
    if waveform.ndim != 1 or not np.isfinite(waveform).all():
        raise ValueError(f"need a waveform of shape (n_samples,) without NaN or infinity, got {waveform.shape}")
    if path.suffix.lower() not in _WRITABLE:
        raise AudioError(f"{path}: can't write {path.suffix or 'a file without suffix'}; use {' '.join(_WRITABLE)}")
    container = _WRITABLE[path.suffix.lower()]
    try:
        with (
            unfinished_file(path) as unfinished,
            soundfile.SoundFile(unfinished, "w", samplerate=sample_rate, channels=1, format=container) as file,
        ):
            for start in range(0, len(waveform), _BLOCK):  # libsndfile crashes on minutes of ogg written at once
                file.write(np.clip(waveform[start : start + _BLOCK], -1, 1))
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"{path}: can't write the sound: {error}") from error


def find_audio(paths: Iterable[str | Path], *, suffixes: Collection[str] = AUDIO_SUFFIXES) -> list[Path]:
    """The sound files among files and folders, each once.

    A file is taken as it is given, whatever its suffix. A folder gives the files in it, and in the folders in it,
    that have one of the suffixes in any case of letters, sorted by path. Names that begin with a dot are left out,
    and links to folders are not followed.

    Raises
    ------
    AudioError
        If a path does not exist, a folder can't be read, or folders were given and no sound is in any of them.
    """
    given = [Path(path) for path in paths]
    found: dict[Path, None] = {}
    for path in given:
        if path.is_dir():
            found.update(dict.fromkeys(sorted(_sounds_in(path, suffixes))))
        elif path.exists():
            found[path] = None
        else:
            raise AudioError(f"{path}: no such file or folder")
    if given and not found:
        folders = ", ".join(map(str, given))
        raise AudioError(f"{folders}: no sound found; looked for files that end in {' '.join(sorted(suffixes))}")
    return list(found)


def _sounds_in(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise_unreadable_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(parent, name)


def _raise_unreadable_folder(error: OSError) -> None:
    raise AudioError(f"{error.filename}: can't read the folder: {error.strerror}") from error


def _existing_file(path: str | Path) -> Path:
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


def _check_stretch(path: Path, start_seconds: float, end_seconds: float | None) -> None:
    end = np.inf if end_seconds is None else end_seconds
    if not 0 <= start_seconds < end:
        raise AudioError(f"{path}: need 0 <= start < end, got {start_seconds:g} s and {end:g} s")


def _where(start_seconds: float, end_seconds: float | None) -> str:
    if end_seconds is not None:
        return f" between {start_seconds:g} s and {end_seconds:g} s"
    return f" from {start_seconds:g} s on" if start_seconds else ""


def _open_with_soundfile(path: Path) -> soundfile.SoundFile:
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        known = error.code in _SOUNDFILE_REASONS
        raise _RefusedError(error.error_string.removesuffix(".") if known else "Format not recognised") from error
    if file.frames >= _UNKNOWN_LENGTH or (file.format == "MP3" and _is_mp3_of_unknown_length(path)):
        file.close()
        raise _UnknownLengthError
    return file


def _read_with_soundfile(path: Path, start_seconds: float, end_seconds: float | None) -> tuple[Waveform, int]:
    with _open_with_soundfile(path) as file:
        start = min(round(start_seconds * file.samplerate), file.frames)
        end = file.frames if end_seconds is None else min(round(end_seconds * file.samplerate), file.frames)
        n_preroll = min(round(_PREROLL_SECONDS * file.samplerate), start) if file.format == "MP3" else 0
        try:
            file.seek(start - n_preroll)
            # One read, for soundfile seeks anew before each, and an mp3 begins with zeros after that.
            samples = file.read(n_preroll + end - start, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: the sound is damaged: {error.error_string}") from error
        except MemoryError as error:
            size = f"{end - start} samples of {file.channels} channels"
            raise AudioError(f"{path}: {size} do not fit into memory; read it in stretches") from error
        return _mean_of_channels(samples[n_preroll:]), file.samplerate


def _mean_of_channels(samples: NDArray[np.float32]) -> Waveform:
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


def _check_av(path: Path, refusal: _RefusedError) -> None:
    try:
        import av  # noqa: F401
    except ImportError as error:
        if path.suffix.lower() in _AV_SUFFIXES or isinstance(refusal, _UnknownLengthError):
            raise MissingExtraError("av", "av", f"{path}: reading this file ({refusal})") from error
        raise AudioError(f"{path}: not a sound that soundfile can read: {refusal}") from error


@contextmanager
def _open_with_av(path: Path, refusal: _RefusedError) -> Iterator[tuple[Any, Any]]:
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


def _av_duration_seconds(container: Any, stream: Any) -> float:
    guessed = container.format.name in ("aac", "mp3")  # from the bit rate
    if stream.duration is not None and not guessed:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and not guessed:
        return float(container.duration / 1_000_000) - _av_origin_seconds(stream)
    ends = [packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
    return float(max(ends, default=0) * stream.time_base) - _av_origin_seconds(stream)


def _av_origin_seconds(stream: Any) -> float:
    """The time that the container gives to the first sample."""
    return float((stream.start_time or 0) * stream.time_base)


def _read_with_av(
    path: Path, start_seconds: float, end_seconds: float | None, refusal: _RefusedError
) -> tuple[Waveform, int]:
    with _open_with_av(path, refusal) as (container, stream):
        rate = stream.codec_context.sample_rate
        start = round(start_seconds * rate)
        end = sys.maxsize if end_seconds is None else round(end_seconds * rate)
        if start > 0:
            from_seconds = max(start_seconds - _PREROLL_SECONDS, 0) + _av_origin_seconds(stream)
            container.seek(int(from_seconds / stream.time_base), stream=stream)
        return np.concatenate([np.empty(0, np.float32), *_av_blocks(container, stream, start, end)]), rate


def _av_blocks(container: Any, stream: Any, start: int, end: int) -> Iterator[Waveform]:
    from av import AudioResampler

    to_float = AudioResampler(format="fltp")
    position = None
    for frame in container.decode(stream):
        if position is None:  # the seek lands where it can; from here on samples are counted, for webm rounds times
            position = round(
                (float((frame.pts or 0) * frame.time_base) - _av_origin_seconds(stream)) * frame.sample_rate
            )
        for block in to_float.resample(frame):
            waveform = _mean_of_channels(np.asarray(block.to_ndarray(), np.float32).T)
            yield waveform[max(start - position, 0) : max(end - position, 0)]
            position += len(waveform)
        if position >= end:
            return
