"""Sound that is still going on: blocks of samples as they come, from a microphone or as raw bytes from a pipe."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase

import numpy as np

from spectag.array_types import Waveform
from spectag.audio.decoding import mean_of_channels
from spectag.config.listening import Encoding
from spectag.errors import AudioError
from spectag.system.progress import Log, no_log

_BLOCK_SECONDS = 0.05  # read at once at most: by how much the time when a sample was heard may be wrong
_N_BYTES: dict[Encoding, int] = {"s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4}
_FILES = {b"RIFF": "a wav", b"RF64": "a wav", b"fLaC": "a flac", b"OggS": "an ogg"}
_LOUDEST = 1000.0  # 60 dB above full scale: no sound, but bytes that mean something else


@dataclass(frozen=True, eq=False)
class Block:
    """Samples (n_samples,) of a sound, mono, that came together."""

    waveform: Waveform
    heard_at: float
    """When the last of them was heard, in seconds of the clock; the others came before it, one after another."""


@dataclass(frozen=True, eq=False)
class LiveSound:
    """A sound under way."""

    name: str
    sample_rate: int
    """In Hz."""
    blocks: Iterator[Block]
    waits: bool
    """Whether it waits for whoever draws the blocks; a microphone does not."""


def read_raw(
    stream: BufferedIOBase,
    *,
    sample_rate: int,
    n_channels: int = 1,
    encoding: Encoding = "s16le",
    name: str = "stdin",
    log: Log = no_log,
    clock: Callable[[], float] = time.monotonic,
) -> LiveSound:
    """The sound that somebody writes to a stream of bytes, sample by sample without a header.

    Parameters
    ----------
    stream : binary file
        Its blocks are drawn as soon as they come.
    sample_rate : int
        Hz.
    n_channels : int
        Whose samples take turns; their mean is heard.
    encoding : str
        How a sample is written.
    name : str
        What to call the stream.
    say
        Told of bytes that are left over at the end.
    clock
        Gives the time in seconds.

    Raises
    ------
    AudioError
        When the blocks are drawn: if a file with a header comes, if nothing comes, or if what comes is no sound.
    """
    n_frame = _N_BYTES[encoding] * n_channels
    most = n_frame * max(1, round(_BLOCK_SECONDS * sample_rate))

    def blocks() -> Iterator[Block]:
        rest = stream.read(len(b"RIFF"))
        _refuse_files(rest, name, sample_rate)
        n_frames = 0
        while True:
            piece = stream.read1(most)
            rest += piece
            n_whole = len(rest) // n_frame
            if n_whole:
                samples = decoded(rest[: n_whole * n_frame], encoding).reshape(n_whole, n_channels)
                _check(samples, name, n_frames / sample_rate, encoding)
                yield Block(mean_of_channels(samples), clock())
                n_frames += n_whole
                rest = rest[n_whole * n_frame :]
            if not piece:
                break
        if n_frames == 0:
            raise AudioError(f"{name}: no sound came; does the program that should write it say why?")
        if rest:
            log(f"{name}: left out {len(rest)} bytes at the end, too few for a sample of {n_frame} bytes")

    return LiveSound(name, sample_rate, blocks(), waits=True)


def decoded(data: bytes, encoding: Encoding) -> Waveform:
    """Samples of raw bytes: whole numbers as shares of full scale, float32 as it is.

    Parameters
    ----------
    data : bytes
        Of whole samples.
    encoding : str
        How a sample is written.

    Returns
    -------
    float32 array of shape (n_samples,)

    Examples
    --------
    >>> decoded(bytes([0, 128, 0, 64]), "s16le")
    array([-1. ,  0.5], dtype=float32)
    """
    if encoding == "f32le":
        return np.frombuffer(data, "<f4").astype(np.float32)
    if encoding == "s16le":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(1 << 15)
    if encoding == "s24le":
        low_byte = np.zeros((len(data) // 3, 1), np.uint8)
        data = np.hstack([low_byte, np.frombuffer(data, np.uint8).reshape(-1, 3)]).tobytes()
    return np.frombuffer(data, "<i4").astype(np.float32) / np.float32(1 << 31)


def ffmpeg_line(sample_rate: int) -> str:
    """A command that decodes a file and hands it on."""
    return f"ffmpeg -i FILE -f s16le -ac 1 -ar {sample_rate} - | spectag listen MODEL - --rate {sample_rate}"


def _refuse_files(head: bytes, name: str, sample_rate: int) -> None:
    if head in _FILES:
        raise AudioError(
            f"{name}: {_FILES[head]} file comes, and raw samples without a header are expected; give the file to "
            f"`spectag tag`, or decode it: {ffmpeg_line(sample_rate)}"
        )


def _check(samples: Waveform, name: str, start_seconds: float, encoding: Encoding) -> None:
    """Refuse what is no sound; `samples` has shape (n_frames, n_channels)."""
    if encoding != "f32le":
        return
    fine = np.abs(samples) <= _LOUDEST
    if not fine.all():
        raise AudioError(
            f"{name}: a sample at {start_seconds:.3f} s or soon after is {samples[~fine][0]:g}, and full scale is 1; "
            f"is the sound {encoding}?"
        )
