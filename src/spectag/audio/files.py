"""Sound files: read as mono float32, written, resampled, found in folders."""

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from spectag.array_types import Waveform
from spectag.audio.decoding import (
    AV_SUFFIXES,
    PREROLL_SECONDS,
    RefusedError,
    av_blocks,
    av_duration_seconds,
    av_origin_seconds,
    existing_file,
    mean_of_channels,
    not_finite,
    open_with_av,
    open_with_soundfile,
)
from spectag.errors import AudioError, EndOfSoundError
from spectag.system.atomic_files import unfinished_file

_WRITABLE = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aif": "AIFF", ".aiff": "AIFF"}
AUDIO_SUFFIXES = AV_SUFFIXES | frozenset(_WRITABLE) | {".oga", ".opus", ".au", ".caf", ".w64"}
_BLOCK = 1 << 18  # samples written at once


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
    path = existing_file(path)
    try:
        with open_with_soundfile(path) as file:
            return AudioInfo(file.samplerate, file.channels, file.frames, file.format)
    except RefusedError as refusal:
        with open_with_av(path, refusal) as (container, stream):
            codec = stream.codec_context
            n_samples = round(av_duration_seconds(container, stream) * codec.sample_rate)
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
    path = existing_file(path)
    _check_stretch(path, start_seconds, end_seconds)
    try:
        waveform, file_rate = _read_with_soundfile(path, start_seconds, end_seconds)
    except RefusedError as refusal:
        waveform, file_rate = _read_with_av(path, start_seconds, end_seconds, refusal)
    if waveform.size == 0:
        error = EndOfSoundError if start_seconds else AudioError
        raise error(f"{path}: the file holds no samples{_where(start_seconds, end_seconds)}")
    if not np.isfinite(waveform).all():
        raise not_finite(path, waveform, start_seconds, file_rate)
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


def _check_stretch(path: Path, start_seconds: float, end_seconds: float | None) -> None:
    end = np.inf if end_seconds is None else end_seconds
    if not 0 <= start_seconds < end:
        raise AudioError(f"{path}: need 0 <= start < end, got {start_seconds:g} s and {end:g} s")


def _where(start_seconds: float, end_seconds: float | None) -> str:
    if end_seconds is not None:
        return f" between {start_seconds:g} s and {end_seconds:g} s"
    return f" from {start_seconds:g} s on" if start_seconds else ""


def _read_with_soundfile(path: Path, start_seconds: float, end_seconds: float | None) -> tuple[Waveform, int]:
    with open_with_soundfile(path) as file:
        start = min(round(start_seconds * file.samplerate), file.frames)
        end = file.frames if end_seconds is None else min(round(end_seconds * file.samplerate), file.frames)
        n_preroll = min(round(PREROLL_SECONDS * file.samplerate), start) if file.format == "MP3" else 0
        try:
            file.seek(start - n_preroll)
            # One read, for soundfile seeks anew before each, and an mp3 begins with zeros after that.
            samples = file.read(n_preroll + end - start, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: the sound is damaged: {error.error_string}") from error
        except MemoryError as error:
            size = f"{end - start} samples of {file.channels} channels"
            raise AudioError(f"{path}: {size} do not fit into memory; read it in stretches") from error
        return mean_of_channels(samples[n_preroll:]), file.samplerate


def _read_with_av(
    path: Path, start_seconds: float, end_seconds: float | None, refusal: RefusedError
) -> tuple[Waveform, int]:
    with open_with_av(path, refusal) as (container, stream):
        rate = stream.codec_context.sample_rate
        start = round(start_seconds * rate)
        end = sys.maxsize if end_seconds is None else round(end_seconds * rate)
        if start > 0:
            from_seconds = max(start_seconds - PREROLL_SECONDS, 0) + av_origin_seconds(stream)
            container.seek(int(from_seconds / stream.time_base), stream=stream)
        return np.concatenate([np.empty(0, np.float32), *av_blocks(container, stream, start, end)]), rate
