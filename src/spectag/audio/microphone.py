"""Microphones, recorded by sounddevice and PortAudio (the extra `listen`), which are loaded only when needed."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any

import numpy as np

from spectag.array_types import Waveform
from spectag.audio.channels import one_channel
from spectag.audio.live_stream import Block, LiveStream
from spectag.errors import AudioError, MissingExtraError, first_line
from spectag.system.progress import Log, no_log

_TIMEOUT_SECONDS = 5.0  # without a block; a working microphone gives several per second
_MAX_WAITING_BLOCKS = 4096  # a minute or more


@dataclass(frozen=True)
class Microphone:
    """An input device."""

    number: int
    name: str
    n_channels: int
    sample_rate: int  # Hz, its default
    is_default: bool


def microphones() -> list[Microphone]:
    """All microphones of this machine.

    Raises
    ------
    MissingExtraError, AudioError
        If sounddevice or PortAudio is not installed.
    """
    sounddevice = _sounddevice()
    try:
        default = sounddevice.query_devices(kind="input")["index"]
    except (ValueError, sounddevice.PortAudioError):  # no microphone
        default = None
    return [
        Microphone(
            device["index"],
            device["name"],
            device["max_input_channels"],
            round(device["default_samplerate"]),
            device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


@contextmanager
def open_microphone(
    device: str | None = None,
    *,
    sample_rate: int | None = None,
    n_channels: int = 1,
    channel: int | None = None,
    log: Log = no_log,
) -> Generator[LiveStream, None, None]:
    """Record from a microphone until the `with` block ends.

    All samples that arrive between two reads are one block. So a slow reader gets long blocks, but loses nothing.

    Parameters
    ----------
    device : str, optional
        Its number, or a part of its name. By default, the default device of the system.
    sample_rate : int, optional
        In Hz. By default, the default rate of the microphone.
    n_channels : int
        Number of channels.
    channel : int, optional
        The channel to use, counted from 1. By default the mean of all.
    log : Log
        Reports lost sound.

    Raises
    ------
    MissingExtraError
        If sounddevice is not installed.
    AudioError
        If the microphone does not exist or can't be opened; when blocks are read, if it gives no more sound.
    """
    sounddevice = _sounddevice()
    waiting: Queue[tuple[Waveform, float, bool]] = Queue(_MAX_WAITING_BLOCKS)
    was_block_lost = False  # because the queue was full

    def on_block(samples: Waveform, _n_frames: int, _times: Any, status: Any) -> None:
        nonlocal was_block_lost
        try:
            waiting.put_nowait((samples.copy(), time.monotonic(), was_block_lost or bool(status.input_overflow)))
            was_block_lost = False
        except Full:
            was_block_lost = True

    name = "the microphone"
    try:
        info = sounddevice.query_devices(int(device) if device and device.isdecimal() else device, "input")
        name, rate = info["name"], sample_rate or round(info["default_samplerate"])
        stream = sounddevice.InputStream(
            device=info["index"], samplerate=rate, channels=n_channels, dtype="float32", callback=on_block
        )
        stream.start()
    except (ValueError, sounddevice.PortAudioError) as error:
        reason = first_line(error)
        raise AudioError(
            f"{name} can't be opened: {reason}; `spectag listen --list-microphones` shows the microphones; "
            "choose with --microphone, --rate and --channels"
        ) from error
    try:
        yield LiveStream(name, rate, _blocks(waiting, channel, name, log), waits=False)
    finally:
        stream.close()


def _blocks(waiting: Queue[tuple[Waveform, float, bool]], channel: int | None, name: str, log: Log) -> Iterator[Block]:
    index = None if channel is None else channel - 1
    was_loss_reported = False
    while True:
        try:
            received = [waiting.get(timeout=_TIMEOUT_SECONDS)]
            while not waiting.empty():
                received.append(waiting.get_nowait())
        except Empty as error:
            raise AudioError(f"{name} has given no sound for {_TIMEOUT_SECONDS:g} s; is it still there?") from error
        samples, captured_at, has_loss = zip(*received, strict=True)
        if any(has_loss) and not was_loss_reported:
            log(f"{name}: sound was lost because this machine is too busy; later times are too early by the lost time")
            was_loss_reported = True
        yield Block(one_channel(np.concatenate(samples), index), captured_at[-1])


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("sounddevice", "listen", "a microphone") from error
    except OSError as error:
        raise AudioError(
            f"a microphone needs the library PortAudio, which can't be loaded: {error}; install it (on Debian and "
            "Ubuntu: `apt install libportaudio2`)"
        ) from error
    return sounddevice
