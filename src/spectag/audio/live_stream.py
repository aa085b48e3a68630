"""Live sound: blocks of samples as they arrive, from a microphone or as raw bytes from a pipe."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase

import numpy as np

from spectag.array_types import Waveform
from spectag.audio.channels import one_channel
from spectag.config.listening import Encoding
from spectag.errors import AudioError
from spectag.system.progress import Log, no_log

_BLOCK_SECONDS = 0.05  # limit of a block, and so of the error of `captured_at`
_N_BYTES: dict[Encoding, int] = {"s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4}
_FILE_FORMATS = {b"RIFF": "a wav", b"RF64": "a wav", b"fLaC": "a flac", b"OggS": "an ogg"}
_MAX_SAMPLE = 1000.0  # 60 dB above full scale: the encoding must be another one


@dataclass(frozen=True, eq=False)
class Block:
    """Mono samples (n_samples,) that arrived together."""

    waveform: Waveform
    captured_at: float
    """Time of the last sample, in seconds of the clock."""


@dataclass(frozen=True, eq=False)
class LiveStream:
    """A sound that is being recorded or received."""

    name: str
    sample_rate: int
    """In Hz."""
    blocks: Iterator[Block]
    waits: bool
    """Whether the source waits while no blocks are read. A microphone does not wait."""


def read_raw(
    stream: BufferedIOBase,
    *,
    sample_rate: int,
    n_channels: int = 1,
    channel: int | None = None,
    encoding: Encoding = "s16le",
    name: str = "stdin",
    log: Log = no_log,
    clock: Callable[[], float] = time.monotonic,
) -> LiveStream:
    """The sound that another program writes to a binary stream as raw samples, without a header.

    Parameters
    ----------
    stream : binary file
        It is read as soon as bytes arrive.
    sample_rate : int
        In Hz.
    n_channels : int
        Number of interleaved channels.
    channel : int, optional
        The channel to use, counted from 1. By default the mean of all.
    encoding : str
        Encoding of a sample.
    name : str
        Name of the stream in messages.
    log : Log
        Reports bytes that are left at the end.
    clock : callable
        Returns the time in seconds.

    Raises
    ------
    AudioError
        When the blocks are read: if the bytes are a file with a header, there are none, or they are not a sound.
    """
    n_frame_bytes = _N_BYTES[encoding] * n_channels
    max_bytes = n_frame_bytes * max(1, round(_BLOCK_SECONDS * sample_rate))

    def blocks() -> Iterator[Block]:
        rest = stream.read(len(b"RIFF"))
        if rest in _FILE_FORMATS:
            raise AudioError(
                f"{name}: expected raw samples without a header, got {_FILE_FORMATS[rest]} file; pass the file to "
                f"`spectag tag`, or decode it: {ffmpeg_command(sample_rate)}"
            )
        n_frames = 0
        new_bytes = rest
        while new_bytes:
            new_bytes = stream.read1(max_bytes)
            rest += new_bytes
            n_whole = len(rest) // n_frame_bytes
            if n_whole:
                samples = decode_pcm(rest[: n_whole * n_frame_bytes], encoding).reshape(n_whole, n_channels)
                _check(samples, name, n_frames / sample_rate, encoding)
                yield Block(one_channel(samples, None if channel is None else channel - 1), clock())
                n_frames += n_whole
                rest = rest[n_whole * n_frame_bytes :]
        if n_frames == 0:
            raise AudioError(f"{name}: no sound came; does the program that should write it report an error?")
        if rest:
            log(f"{name}: left out {len(rest)} bytes at the end, too few for a sample of {n_frame_bytes} bytes")

    return LiveStream(name, sample_rate, blocks(), waits=True)


def decode_pcm(data: bytes, encoding: Encoding) -> Waveform:
    """Samples from raw bytes. Integers are divided by full scale; float32 stays as it is.

    Parameters
    ----------
    data : bytes
        The bytes of complete samples.
    encoding : str
        Encoding of a sample.

    Returns
    -------
    float32 array of shape (n_samples,)

    Examples
    --------
    >>> decode_pcm(bytes([0, 128, 0, 64]), "s16le")
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


def ffmpeg_command(sample_rate: int) -> str:
    """A command line that decodes a file and sends it to `spectag listen`."""
    return f"ffmpeg -i FILE -f s16le -ac 1 -ar {sample_rate} - | spectag listen MODEL - --rate {sample_rate}"


def _check(samples: Waveform, name: str, start_seconds: float, encoding: Encoding) -> None:
    """Raise an AudioError if samples of shape (n_frames, n_channels) are much too loud, or NaN."""
    wrong = samples[~(np.abs(samples) <= _MAX_SAMPLE)]
    if wrong.size:
        where = f"a sample at {start_seconds:.3f} s or soon after"
        raise AudioError(f"{name}: {where} is {wrong[0]:g}, and full scale is 1; is the sound {encoding}?")
