"""Cut excerpts out of recordings, sample by sample, without decoding the rest."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from spectag.audio.decoding import open_sound
from spectag.audio.files import audio_info, resample
from spectag.config.findings import ClipFormat
from spectag.errors import AudioError
from spectag.system.atomic_files import unfinished_file

_MAX_IN_MEMORY = 20_000_000  # samples that are encoded in memory
_LOSSLESS = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC"}
_BYTES = {"wav": 2.0, "flac": 1.2, "ogg": 0.25}
"""About how many bytes a sample of 16 bits takes."""
_DTYPES = {
    **dict.fromkeys(("PCM_U8", "PCM_S8", "PCM_16"), "int16"),
    **dict.fromkeys(("PCM_24", "PCM_32"), "int32"),
    **dict.fromkeys(("FLOAT", "ULAW", "ALAW"), "float32"),
    "DOUBLE": "float64",
}
"""How samples are read so that none changes; other sample formats become PCM_16."""
_SUBTYPES = {
    "wav": {"PCM_S8": "PCM_U8"},
    "flac": {"PCM_U8": "PCM_S8", "PCM_32": "PCM_24", "FLOAT": "PCM_24", "DOUBLE": "PCM_24"},
}
"""What a format has instead of a sample format that it does not know."""


@dataclass(frozen=True)
class WrittenClip:
    """A part of a recording as a file of its own."""

    start_seconds: float
    end_seconds: float
    n_bytes: int


class OpenRecording:
    """A recording whose excerpts are copied with all channels, the sample rate and the bit depth that it has.

    Formats that only PyAV reads, and those that cannot seek, are copied as mono with 16 bits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        with suppress(soundfile.LibsndfileError, OSError):
            file = soundfile.SoundFile(path)
            if file.seekable() and file.frames > 0:
                self._file = file
            else:
                file.close()
        info = audio_info(path)
        self.sample_rate, self.n_samples = info.sample_rate, info.n_samples

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    @property
    def format(self) -> ClipFormat:
        """The format of its clips: flac for flac, otherwise wav."""
        return "flac" if self._file is not None and self._file.format == "FLAC" else "wav"

    def bytes_per_sample(self, clip_format: ClipFormat) -> float:
        """About how many bytes of a clip a sample of all channels takes."""
        if self._file is None:
            return 2.0
        if self._file.format in _LOSSLESS and (clip_format == "flac") == (self._file.format == "FLAC"):
            return self.path.stat().st_size / self.n_samples
        return float(_BYTES[clip_format] * self._file.channels)

    def limits(self, start: float, end: float | None, pad: float) -> tuple[int, int]:
        """First sample, and the sample after the last, of a sound with `pad` seconds on both sides of it."""
        last = self.n_samples if end is None else min(self.n_samples, round((end + pad) * self.sample_rate))
        first = max(0, round((start - pad) * self.sample_rate))
        if first >= last:
            raise AudioError(
                f"{self.path}: the detection starts at {start:g} s, but the recording has {self.seconds:.3f} s"
            )
        return first, last

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.n_samples / self.sample_rate

    def write(
        self, output: Path, first: int, last: int, clip_format: ClipFormat, sample_rate: int | None
    ) -> WrittenClip:
        """Write the samples from `first` to before `last` to a file, which appears complete or not at all."""
        samples, subtype = self._read(first, last)
        if not len(samples):
            raise AudioError(f"{self.path}: no sample can be read at {first / self.sample_rate:g} s")
        rate = sample_rate or self.sample_rate
        if rate != self.sample_rate:
            samples = _resampled(samples, self.sample_rate, rate)
        container = clip_format.upper()
        own = _SUBTYPES.get(clip_format, {}).get(subtype, subtype)
        chosen = own if soundfile.check_format(container, own) and clip_format != "ogg" else None
        with unfinished_file(output) as unfinished:
            if samples.size > _MAX_IN_MEMORY:
                soundfile.write(unfinished, samples, rate, subtype=chosen, format=container)
            else:  # libsndfile waits for the disk when it closes a file, which takes longer than all the rest
                encoded = io.BytesIO()
                soundfile.write(encoded, samples, rate, subtype=chosen, format=container)
                unfinished.write_bytes(encoded.getbuffer())
        end = first + round(len(samples) * self.sample_rate / rate)
        return WrittenClip(first / self.sample_rate, end / self.sample_rate, output.stat().st_size)

    def _read(self, first: int, last: int) -> tuple[Any, str]:
        """Samples (n_samples, n_channels), and their format in the file."""
        if self._file is None:
            with open_sound(self.path) as sound:
                return sound.read(first / self.sample_rate, last / self.sample_rate)[:, None], "PCM_16"
        subtype = self._file.subtype
        is_exact = self._file.format in _LOSSLESS and subtype in _DTYPES
        try:
            self._file.seek(first)
            samples = self._file.read(last - first, dtype=_DTYPES[subtype] if is_exact else "float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{self.path}: the sound is damaged: {error.error_string}") from error
        return (samples, subtype) if is_exact else (np.clip(samples, -1, 1), "PCM_16")


def _resampled(samples: Any, from_rate: int, to_rate: int) -> Any:
    """Samples (n_samples, n_channels) at another rate, as floats."""
    scale = -float(np.iinfo(samples.dtype).min) if np.issubdtype(samples.dtype, np.integer) else 1.0
    channels = (samples / scale).astype(np.float32).T
    return np.stack([resample(np.ascontiguousarray(channel), from_rate, to_rate) for channel in channels], axis=1)


@contextmanager
def open_recording(path: Path) -> Iterator[OpenRecording]:
    """Open a recording to copy parts of it.

    Raises
    ------
    AudioError, MissingExtraError
        If it cannot be read.
    """
    recording = OpenRecording(path)
    try:
        yield recording
    finally:
        recording.close()
