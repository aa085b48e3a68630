"""The sounds that a person gives to be tagged one after the other: paths, arrays, or a folder."""

import os
from collections.abc import Iterable, Iterator, Sized
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from spectag.audio.files import find_audio
from spectag.audio.sound_arrays import SoundInput
from spectag.errors import AudioError


class SoundItem(NamedTuple):
    """A path, a URL or an array."""

    sound: Any
    """As `SoundInput`."""
    sample_rate: float | None
    """Of an array, in Hz."""
    name: str
    """The sound in messages."""


def listed_sounds(
    sounds: str | Path | Iterable[SoundInput | tuple[ArrayLike, float]], sample_rate: float | None
) -> tuple[Iterator[SoundItem], int]:
    """Each of the sounds, and their number if it is known, otherwise 0.

    Raises
    ------
    AudioError
        If a folder does not exist or has no sounds, there is a single array instead of several sounds, or, when it is
        reached, an array has no sample rate.
    """
    if isinstance(sounds, str | os.PathLike):
        sounds = find_audio([sounds])
    if isinstance(sounds, np.ndarray) and sounds.ndim == 1 and sounds.dtype != object:
        raise AudioError(
            f"expected several sounds, got one array of shape {sounds.shape}; use tag for a single sound, or put it in "
            "a list: [array]"
        )
    try:
        iterator = iter(sounds)
    except TypeError as error:
        raise AudioError(f"expected paths or arrays, such as a list, got {type(sounds).__name__}") from error
    return _items(iterator, sample_rate), len(sounds) if isinstance(sounds, Sized) else 0


def _items(sounds: Iterable[SoundInput | tuple[ArrayLike, float]], sample_rate: float | None) -> Iterator[SoundItem]:
    for number, sound in enumerate(sounds):
        if isinstance(sound, str | os.PathLike):
            yield SoundItem(sound, None, os.fspath(sound))
            continue
        rate, name = sample_rate, f"sound {number}"
        if isinstance(sound, tuple) and len(sound) == 2 and [isinstance(part, Real) for part in sound] == [False, True]:
            sound, rate = sound
        if rate is None:
            raise AudioError(f"{name}: an array has no sample rate of its own; add it, such as sample_rate=48_000 (Hz)")
        yield SoundItem(sound, rate, name)
