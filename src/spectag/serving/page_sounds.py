"""The sounds that people drop on the page: kept in the temporary folder of the server, within limits."""

import os
import secrets
import shutil
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from spectag.serving.problems import ProblemError

_SHARE_BETWEEN_CHECKS = 0.02  # of the disk space


def timeline_file(model: Path) -> str:
    """The file with the probabilities of a sound, in its folder. A model does not find those of another one."""
    return f"timeline-{zlib.crc32(str(model).encode()):08x}.npz"


@dataclass
class PageSound:
    """A sound, in a folder with what was computed from it."""

    id: str
    name: str
    """The file name that the browser gave."""
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "sound"


class PageSounds:
    """The sounds of all open pages. The one that was used least recently makes room for a new one.

    Parameters
    ----------
    folder : callable
        The folder for them, which exists when the first one comes.
    max_sounds : int
    max_bytes : float
        With all that is computed from them.
    """

    def __init__(self, folder: Callable[[], Path], *, max_sounds: int, max_bytes: float) -> None:
        self._folder, self._max_sounds, self._max_bytes = folder, max_sounds, max_bytes
        self._sounds: OrderedDict[str, PageSound] = OrderedDict()
        self._lock = threading.Lock()
        self._n_new_bytes = 0  # since the last check of the size

    def add(self, upload: Path, name: str) -> PageSound:
        """Move an uploaded file here."""
        key = secrets.token_urlsafe(12)  # only the page that sent it knows it
        sound = PageSound(key, name, self._folder() / f"page-{key}")
        sound.folder.mkdir()
        upload.replace(sound.path)
        with self._lock:
            self._sounds[key] = sound
        self.make_room()
        return sound

    def get(self, key: str) -> PageSound:
        """A sound. A ProblemError (410) if it is not here any more."""
        with self._lock:
            if key not in self._sounds:
                raise ProblemError(HTTPStatus.GONE, "this sound is not on the server any more; drop it again")
            self._sounds.move_to_end(key)
            return self._sounds[key]

    def remove(self, key: str) -> None:
        """Delete a sound, if it is here. What a worker still computes from it, it deletes itself."""
        with self._lock:
            sound = self._sounds.pop(key, None)
        if sound is not None:
            shutil.rmtree(sound.folder, ignore_errors=True)

    def has_grown(self, n_bytes: int) -> bool:
        """Whether so much was computed from sounds, with these bytes, that it is time to make room."""
        with self._lock:
            self._n_new_bytes += n_bytes
            return self._n_new_bytes > _SHARE_BETWEEN_CHECKS * self._max_bytes

    def make_room(self) -> None:
        """Delete the sounds that were used least recently, until the others are within the limits."""
        with self._lock:
            sounds = list(self._sounds.values())
            self._n_new_bytes = 0
        sizes = [_size(sound.folder) for sound in sounds]  # may take a while: others must not wait for the lock
        n_bytes, n_sounds = sum(sizes), len(sounds)
        for sound, size in zip(sounds[:-1], sizes[:-1], strict=True):  # the newest stays
            if n_bytes <= self._max_bytes and n_sounds <= self._max_sounds:
                return
            self.remove(sound.id)
            n_bytes, n_sounds = n_bytes - size, n_sounds - 1


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 if it is gone."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0
