"""Where the sounds of a manifest are."""

import re
import unicodedata
from pathlib import Path, PurePosixPath

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.errors import DataError

# What Raven (with its detectors) and BirdNET-Analyzer put behind the name of the sound in the name of a table.
_ADDED_TO_SOUND = re.compile(r"\.(Table\.\d+|Band\.Limited|BirdNET|selections?)(\..*)?$", re.IGNORECASE)
IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


class Finder:
    """Finds sounds (and images) by the names that tables give them, listing each folder at most once."""

    def __init__(self, audio_dir: Path | None) -> None:
        if audio_dir is not None and not audio_dir.is_dir():
            raise DataError(f"{audio_dir}: no such folder; expected the one that holds the sounds")
        self._audio_dir = audio_dir
        self._folders: dict[Path, list[Path]] = {}
        self._listings: dict[Path, dict[str, list[Path]]] = {}
        self._stems: dict[Path, dict[str, list[Path]]] = {}

    def folders(self, source: Path) -> list[Path]:
        """Where the sounds of a table, or of a folder that is a manifest, are looked for, in this order."""
        if source not in self._folders:
            last = [] if self._audio_dir is None else [self._audio_dir]
            self._folders[source] = [source] if source.is_dir() else [*_folders_of_table(source), *last]
        return self._folders[source]

    def find(self, fname: str, source: Path) -> Path | None:
        """The file that a table means.

        Its name may lack the suffix, have backslashes, compose umlauts in the other way, or differ in case.
        """
        name = fname.replace("\\", "/")
        for folder in self.folders(source):
            path = folder / name if _is_file(folder / name) else self._find_in_listing(folder, name)
            if path is not None:
                return path
        return None

    def sound_of(self, table: Path) -> str:
        """The name of the sound that is named like a table: x.wav for x.txt or x.Table.1.selections.txt."""
        sound = _ADDED_TO_SOUND.sub("", table.stem)
        path = self.find(table.stem, table) or self.find(sound, table)
        return sound if path is None else path.name

    def _find_in_listing(self, folder: Path, name: str) -> Path | None:
        *parents, last = PurePosixPath(_folded(name)).parts or ("",)
        for parent in parents:
            below = self._listing(folder).get(parent)
            if below is None:
                return None
            folder = below[0]
        found = [path for path in self._listing(folder).get(last, []) if path.is_file()]
        if not found and PurePosixPath(last).suffix not in AUDIO_SUFFIXES | IMAGE_SUFFIXES:
            found = self._with_any_suffix(folder, last)
        if len(found) > 1:
            names = " or ".join(sorted(path.name for path in found))
            raise DataError(f"{folder}: {name} may be {names}; write the whole name in the table, or keep one of them")
        return found[0] if found else None

    def _with_any_suffix(self, folder: Path, stem: str) -> list[Path]:
        if folder not in self._stems:
            self._stems[folder] = {}
            for name, paths in self._listing(folder).items():
                if PurePosixPath(name).suffix in AUDIO_SUFFIXES | IMAGE_SUFFIXES:
                    self._stems[folder].setdefault(PurePosixPath(name).stem, []).extend(paths)
        found = self._stems[folder].get(stem, [])
        return [path for path in found if path.suffix.lower() in AUDIO_SUFFIXES] or found

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listings:
            self._listings[folder] = {}
            for path in _entries(folder):
                self._listings[folder].setdefault(_folded(path.name), []).append(path)
        return self._listings[folder]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{folder}: the folder can't be read: {error.strerror}") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _folders_of_table(table: Path) -> list[Path]:
    """Beside the table, the folder named like it, and where published data sets have their sounds."""
    stem = table.stem.removesuffix("_post_competition")
    folders = [table.parent, table.with_suffix(""), table.parent / stem]
    name, home = table.absolute().parent.name, table.absolute().parent.parent
    if name == "meta":  # ESC-50
        folders.append(home / "audio")
    elif name.endswith(".ground_truth"):  # FSD50K
        folders.append(home / f"{name.removesuffix('.ground_truth')}.{stem}_audio")
    elif name.endswith(".meta"):  # FSDKaggle2019 after the competition
        folders.append(home / f"{name.removesuffix('.meta')}.audio_{stem}")
    return list(dict.fromkeys(folders))
