"""Sound files as a stream of blocks: the memory does not grow with the length of the file."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spectag.array_types import Waveform
from spectag.audio.decoding import check_finite, open_sound
from spectag.audio.files import read_audio
from spectag.errors import AudioError


@dataclass(frozen=True)
class AudioStream:
    """The mono blocks of a sound, float32 of shape (n_samples,). They can be read once."""

    sample_rate: int
    """In Hz."""
    blocks: Iterator[Waveform]


@contextmanager
def open_stream(path: str | Path) -> Generator[AudioStream, None, None]:
    """Decode a sound file block by block. All blocks together equal the waveform from `read_audio`.

    Raises
    ------
    AudioError
        As `read_audio`: at once, or when the blocks reach the damage.
    MissingExtraError
        If only PyAV could read the file, and PyAV is not installed.
    """
    with open_sound(path, sequential=True) as sound:
        yield AudioStream(sound.sample_rate, _checked(sound.blocks(), Path(path), sound.sample_rate))


@contextmanager
def open_excerpt(
    path: str | Path, start_seconds: float = 0.0, end_seconds: float | None = None
) -> Generator[AudioStream, None, None]:
    """Decode an excerpt as a single block, or the whole file block by block if there are no limits.

    Raises
    ------
    AudioError
        As `open_stream`; also if the excerpt is empty or starts after the end of the sound.
    MissingExtraError
        If only PyAV could read the file, and PyAV is not installed.
    """
    if (start_seconds, end_seconds) == (0.0, None):
        with open_stream(path) as sound:
            yield sound
        return
    waveform, sample_rate = read_audio(path, start_seconds=start_seconds, end_seconds=end_seconds)
    yield AudioStream(sample_rate, iter((waveform,)))


def _checked(blocks: Iterator[Waveform], path: Path, sample_rate: int) -> Iterator[Waveform]:
    n_samples = 0
    for block in blocks:
        check_finite(path, block, n_samples / sample_rate, sample_rate)
        n_samples += len(block)
        if block.size:
            yield block
    if n_samples == 0:
        raise AudioError(f"{path}: the file has no samples")
