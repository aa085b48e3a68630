"""Sound files: read as mono float32, whole or block by block; write, resample, and find in folders."""

import os
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from spectag.array_types import Waveform
from spectag.audio.audio_info import AudioInfo
from spectag.audio.av_decoder import AV_SUFFIXES
from spectag.audio.decoding import OpenSound, check_samples, open_sound
from spectag.audio.sound_faults import SoundFaults, SoundLevels
from spectag.config.base import Channel
from spectag.errors import AudioError, EndOfSoundError
from spectag.system.atomic_files import unfinished_file
from spectag.system.file_errors import similar_file
from spectag.system.progress import Log, no_log

_WRITABLE = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aif": "AIFF", ".aiff": "AIFF"}
_READABLE = {".oga", ".opus", ".au", ".snd", ".mp2", ".caf", ".w64", ".rf64", ".aifc", ".wave", ".bwf"}
AUDIO_SUFFIXES = AV_SUFFIXES | frozenset(_WRITABLE) | _READABLE
_BLOCK = 1 << 18  # samples written at once


def audio_info(path: str | Path) -> AudioInfo:
    """Sample rate, channels and length of a sound file, without decoding it.

    `n_samples` comes from the header. It is exact for wav, flac, aiff and ogg, also for a truncated wav or aiff. For
    mp3, m4a, aac and webm it may differ by some thousand samples from the decoded length, and it is too large for a
    truncated mp3. It is 0 for a file without samples. If a file does not contain its length (aac, webm recorded by a
    browser, flac from a pipe), all packets are read, but not decoded.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty (0 bytes), or not a sound.
    MissingExtraError
        If only PyAV could read the file, and PyAV is not installed.
    """
    with open_sound(path) as sound:
        return sound.info()


def read_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    channel: Channel = "mix",
) -> tuple[Waveform, int]:
    """Read a sound file, or the excerpt from `start_seconds` to `end_seconds`, as mono.

    Parameters
    ----------
    path : str or Path
        The format is recognised by the content, not by the suffix.
    sample_rate : int, optional
        Rate to resample to, in Hz. By default, the rate of the file.
    start_seconds, end_seconds : float
        The excerpt to read; the rest is not decoded. An end after the end of the file means the end of the file.
        Adjacent excerpts share no sample and miss none, and they equal the same part of the whole. But near the end of
        an ogg they may be shifted by up to 25 ms, and in a webm by 1 ms.
    channel : "mix", "loudest" or int
        How several channels become one: their mean, the one with the most energy in the first ten minutes of the file,
        or one by its number, counted from 1.

    Returns
    -------
    waveform : float32 array of shape (n_samples,)
        Integer formats are in [-1, 1]; float formats may exceed it and are not clipped.
    sample_rate : int
        In Hz.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty (0 bytes), not a sound, damaged at its start, or without samples; if it
        has less than 100 or more than 2,000,000 samples per second, more than 1,024 channels, or more samples than fit
        into its bytes; if it does not have the channel; if a sample of the excerpt is NaN or beyond 1e10; if the
        excerpt is empty, starts before 0, or starts after the end of the sound.
    MissingExtraError
        If only PyAV could read the file, and PyAV is not installed.

    Notes
    -----
    A truncated or damaged file gives the samples before the damage, but a truncated m4a or mp4 raises an AudioError,
    because its decoder refuses it. A wav whose size was never written, because the recorder lost its power, is read to
    the end of the file. All links of a chained Ogg file are read. The length of an mp3 differs between versions of
    libsndfile by up to some thousand samples.
    """
    sound = read_sound(
        path, sample_rate=sample_rate, start_seconds=start_seconds, end_seconds=end_seconds, channel=channel
    )
    return sound.waveform, sound.sample_rate


class ReadSound(NamedTuple):
    """The result of `read_sound`."""

    waveform: Waveform
    sample_rate: int
    """In Hz."""
    is_truncated: bool
    """Whether the end of the file is missing, or it is damaged. Of an excerpt, only damage is known."""


def read_sound(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    channel: Channel = "mix",
) -> ReadSound:
    """The waveform of `read_audio`, and whether the file is truncated.

    Raises
    ------
    AudioError, MissingExtraError
        As `read_audio`.
    """
    with open_sound(path, channel=channel) as sound:
        end = np.inf if end_seconds is None else end_seconds
        if not 0 <= start_seconds < end:
            raise AudioError(f"{path}: need 0 <= start < end, got {start_seconds:g} s and {end:g} s")
        waveform, file_rate = sound.read(start_seconds, end_seconds), sound.sample_rate
        is_whole = (start_seconds, end_seconds) == (0.0, None)
        is_truncated = sound.is_damaged or (is_whole and sound.missing_end(len(waveform)) is not None)
    if waveform.size == 0:
        error = EndOfSoundError if start_seconds else AudioError
        from_start = f" from {start_seconds:g} s on" if start_seconds else ""
        excerpt = from_start if end_seconds is None else f" between {start_seconds:g} s and {end_seconds:g} s"
        raise error(f"{path}: the file has no samples{excerpt}")
    check_samples(Path(path), waveform, start_seconds, file_rate)
    if sample_rate is None:
        return ReadSound(waveform, file_rate, is_truncated)
    return ReadSound(resample(waveform, file_rate, sample_rate), sample_rate, is_truncated)


@dataclass(frozen=True)
class AudioStream:
    """The mono blocks of a sound, float32 of shape (n_samples,). They can be read once."""

    sample_rate: int
    """In Hz."""
    blocks: Iterator[Waveform]
    faults: SoundFaults = field(default_factory=SoundFaults)
    """What is wrong with the sound, when all blocks are read."""


@contextmanager
def open_stream(path: str | Path, *, channel: Channel = "mix") -> Generator[AudioStream, None, None]:
    """Decode a sound file block by block. All blocks together equal the waveform from `read_audio`.

    Parameters
    ----------
    path : str or Path
    channel : Channel
        As for `read_audio`.

    Raises
    ------
    AudioError
        As `read_audio`: at once, or when the blocks reach the damage.
    MissingExtraError
        If only PyAV could read the file, and PyAV is not installed.
    """
    with open_sound(path, sequential=True, channel=channel) as sound:
        faults = SoundFaults()
        yield AudioStream(sound.sample_rate, _checked(sound, Path(path), faults), faults)


@contextmanager
def open_excerpt(
    path: str | Path, start_seconds: float = 0.0, end_seconds: float | None = None, *, channel: Channel = "mix"
) -> Generator[AudioStream, None, None]:
    """Decode an excerpt as a single block, or the whole file block by block if there are no limits.

    Parameters
    ----------
    path, start_seconds, end_seconds, channel
        As for `read_audio`.

    Raises
    ------
    AudioError
        As `open_stream`; also if the excerpt is empty or starts after the end of the sound.
    MissingExtraError
        If only PyAV could read the file, and PyAV is not installed.
    """
    if (start_seconds, end_seconds) == (0.0, None):
        with open_stream(path, channel=channel) as sound:
            yield sound
        return
    waveform, sample_rate = read_audio(path, start_seconds=start_seconds, end_seconds=end_seconds, channel=channel)
    yield AudioStream(sample_rate, iter((waveform,)))


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """A waveform of shape (n_samples,) at another rate, by soxr with quality HQ; the same array for an equal rate.

    The result has at least one sample.

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
    """Write a mono waveform, clipped to [-1, 1], in the format of the suffix. The file appears complete or not at all.

    wav, flac and aiff have 16 bits; ogg (Vorbis) and mp3 are lossy.

    Raises
    ------
    ValueError
        If the waveform has more than one dimension, or a NaN or infinite value.
    AudioError
        If the suffix is not one of .wav .flac .ogg .mp3 .aif .aiff, or the file can't be written.
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


def find_audio(
    paths: Iterable[str | Path], *, suffixes: Collection[str] = AUDIO_SUFFIXES, log: Log = no_log
) -> list[Path]:
    """The sound files in files and folders, without duplicates.

    A file is returned whatever its suffix. A folder gives the files in it and its subfolders that have one of the
    suffixes, in upper or lower case, sorted by path. Names that start with a dot are ignored, and links to folders are
    not followed. The log gets the number of files in a folder that have other suffixes.

    Raises
    ------
    AudioError
        If a path does not exist, a folder can't be read, or none of the folders contains a sound.
    """
    inputs = [Path(path) for path in paths]
    found: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            passed_over = Counter[str]()
            found.update(dict.fromkeys(sorted(_sounds_in(path, suffixes, passed_over))))
            if passed_over:
                by_count = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
                counts = ", ".join(f"{count:,} {suffix or 'without'}" for suffix, count in by_count)
                log(f"{path}: passed over files with other suffixes: {counts}")
        elif path.exists():
            found[path] = None
        else:
            raise AudioError(f"{path}: no such file or folder{similar_file(path)}")
    if inputs and not found:
        folders = ", ".join(map(str, inputs))
        raise AudioError(f"{folders}: no sound found; looked for files that end in {' '.join(sorted(suffixes))}")
    return list(found)


def _checked(sound: OpenSound, path: Path, faults: SoundFaults) -> Iterator[Waveform]:
    """The blocks of a sound that are not empty; at the end, the faults are filled in."""
    levels = SoundLevels()
    for block in sound.blocks():
        check_samples(path, block, levels.n_samples / sound.sample_rate, sound.sample_rate)
        levels.add(block)
        if block.size:
            yield block
    if levels.n_samples == 0:
        raise AudioError(f"{path}: the file has no samples")
    faults.is_silent, faults.clipped_fraction = levels.is_silent, levels.clipped_fraction
    faults.channels_cancel = sound.channels_cancel
    missing_end = sound.missing_end(levels.n_samples)
    if missing_end is not None:
        faults.is_truncated, faults.expected_seconds = True, missing_end.expected_seconds


def _sounds_in(folder: Path, suffixes: Collection[str], passed_over: Counter[str]) -> Iterator[Path]:
    """The sounds in a folder; counts the suffixes of the other files."""
    for parent, folders, names in os.walk(folder, onerror=_raise_unreadable_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in suffixes:
                yield Path(parent, name)
            else:
                passed_over[suffix] += 1


def _raise_unreadable_folder(error: OSError) -> None:
    raise AudioError(f"{error.filename}: can't read the folder: {error.strerror}") from error
