"""Microphones, heard through PortAudio by sounddevice (the extra `listen`), which is loaded when one is asked for."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from queue import Empty, Full, Queue
from typing import Any

import numpy as np

from spectag.array_types import Waveform
from spectag.audio.decoding import mean_of_channels
from spectag.audio.live_stream import Block, LiveSound
from spectag.errors import AudioError, MissingExtraError
from spectag.system.progress import Log, no_log

_LONGEST_SILENCE = 5.0  # seconds without a block: of a microphone that is there, several come each second
_MOST_WAITING = 4096  # blocks, a minute or more: they wait while nobody reads what we print


@dataclass(frozen=True)
class Microphone:
    """A device that hears."""

    number: int
    name: str
    n_channels: int
    sample_rate: int  # Hz, its own
    is_default: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def microphones() -> list[Microphone]:
    """All that are here.

    Raises
    ------
    MissingExtraError, AudioError
        If sounddevice, or PortAudio, is not installed.
    """
    sounddevice = _sounddevice()
    try:
        default = sounddevice.query_devices(kind="input")["index"]
    except (ValueError, sounddevice.PortAudioError):  # there is none
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
    device: str | None = None, *, sample_rate: int | None = None, n_channels: int = 1, log: Log = no_log
) -> Generator[LiveSound, None, None]:
    """Listen to a microphone until the `with` block ends.

    What comes while nobody draws is one block, so a slow listener gets long ones, and loses nothing.

    Parameters
    ----------
    device : str, optional
        A number, or a part of a name; by default the one that the system has chosen.
    sample_rate : int, optional
        Hz; by default the microphone's own.
    n_channels : int
        Whose mean is heard.
    say
        Told when sound is lost.

    Raises
    ------
    MissingExtraError
        If sounddevice is not installed.
    AudioError
        If there is no such microphone, or it can't be opened; when blocks are drawn, if it gives no sound any more.
    """
    sounddevice = _sounddevice()
    waiting: Queue[tuple[Waveform, float, bool]] = Queue(_MOST_WAITING)
    is_lost = False  # a block, for want of room

    def take(samples: Waveform, _n_frames: int, _times: Any, status: Any) -> None:
        nonlocal is_lost
        try:
            waiting.put_nowait((samples.copy(), time.monotonic(), is_lost or bool(status.input_overflow)))
            is_lost = False
        except Full:
            is_lost = True

    name = "the microphone"
    try:
        found = sounddevice.query_devices(int(device) if device and device.isdecimal() else device, "input")
        name, rate = found["name"], sample_rate or round(found["default_samplerate"])
        stream = sounddevice.InputStream(
            device=found["index"], samplerate=rate, channels=n_channels, dtype="float32", callback=take
        )
        stream.start()
    except (ValueError, sounddevice.PortAudioError) as error:
        reason = str(error).splitlines()[0]
        raise AudioError(
            f"{name} can't be heard: {reason}; `spectag listen --list-devices` shows what is here, and --device, "
            "--rate and --channels choose"
        ) from error
    try:
        yield LiveSound(name, rate, _blocks(waiting, name, log), waits=False)
    finally:
        stream.close()


def _blocks(waiting: Queue[tuple[Waveform, float, bool]], name: str, log: Log) -> Iterator[Block]:
    is_told = False
    while True:
        try:
            parts = [waiting.get(timeout=_LONGEST_SILENCE)]
            while not waiting.empty():
                parts.append(waiting.get_nowait())
        except Empty as error:
            raise AudioError(f"{name} has given no sound for {_LONGEST_SILENCE:g} s; is it still there?") from error
        samples, heard_at, is_lost = zip(*parts, strict=True)
        if any(is_lost) and not is_told:
            log(f"{name}: sound was lost, as this machine is too busy to take it; later times are too early by that")
            is_told = True
        yield Block(mean_of_channels(np.concatenate(samples)), heard_at[-1])


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("sounddevice", "listen", "a microphone") from error
    except OSError as error:
        raise AudioError(
            f"a microphone needs the library PortAudio, which can't be loaded: {error}; install it, on Debian and "
            "Ubuntu by `apt install libportaudio2`"
        ) from error
    return sounddevice
