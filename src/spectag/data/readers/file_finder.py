"""Finding the sound and image files that a manifest names."""

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.errors import DataError

# What Raven (with its detectors) and BirdNET-Analyzer add to the name of the sound to form the name of the table.
_TABLE_SUFFIX = re.compile(r"\.(Table\.\d+|Band\.Limited|BirdNET|selections?)(\..*)?$", re.IGNORECASE)
IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


class FileFinder:
    """Finds sounds and images by the names in tables. Each folder is listed at most once."""

    def __init__(self, audio_dir: Path | None) -> None:
        if audio_dir is not None and not audio_dir.is_dir():
            raise DataError(f"{audio_dir}: no such folder; expected the folder that contains the sounds")
        self._audio_dir = audio_dir
        self._folders: dict[Path, list[Path]] = {}
        self._listings: dict[Path, dict[str, list[Path]]] = {}
        self._stems: dict[Path, dict[str, list[Path]]] = {}

    def folders(self, source: Path) -> list[Path]:
        """The folders that are searched for the sounds of a manifest (a table or a folder), in this order."""
        if source not in self._folders:
            last = [] if self._audio_dir is None else [self._audio_dir]
            self._folders[source] = [source] if source.is_dir() else [*_folders_of_table(source), *last]
        return self._folders[source]

    def find(self, fname: str, source: Path) -> Path | None:
        """The file with a name from a table, or None.

        The name may lack the suffix, contain backslashes, use another Unicode normalisation, or differ in case.
        """
        name = fname.replace("\\", "/")
        for folder in self.folders(source):
            is_file = os.path.isfile(folder / name)  # noqa: PTH113 unlike Path.is_file, False if the name is too long
            if path := folder / name if is_file else self._find_in_listing(folder, name):
                return path
        return None

    def sound_of(self, table: Path) -> str:
        """The name of the sound that belongs to a table: x.wav for x.txt or x.Table.1.selections.txt."""
        sound = _TABLE_SUFFIX.sub("", table.stem)
        path = self.find(table.stem, table) or self.find(sound, table)
        return sound if path is None else path.name

    def _find_in_listing(self, folder: Path, name: str) -> Path | None:
        *parents, last = PurePosixPath(_folded(name)).parts or ("",)
        for parent in parents:
            below = self._listing(folder).get(parent)
            if below is None:
                return None
            folder = below[0]
        matches = [path for path in self._listing(folder).get(last, []) if path.is_file()]
        if not matches and PurePosixPath(last).suffix not in AUDIO_SUFFIXES | IMAGE_SUFFIXES:
            matches = self._with_any_suffix(folder, last)
        if len(matches) > 1:
            names = " or ".join(sorted(path.name for path in matches))
            raise DataError(
                f"{folder}: {name} may be {names}; use the full name in the table, or keep one of the files"
            )
        return matches[0] if matches else None

    def _with_any_suffix(self, folder: Path, stem: str) -> list[Path]:
        if folder not in self._stems:
            self._stems[folder] = {}
            for name, paths in self._listing(folder).items():
                if PurePosixPath(name).suffix in AUDIO_SUFFIXES | IMAGE_SUFFIXES:
                    self._stems[folder].setdefault(PurePosixPath(name).stem, []).extend(paths)
        matches = self._stems[folder].get(stem, [])
        return [path for path in matches if path.suffix.lower() in AUDIO_SUFFIXES] or matches

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listings:
            self._listings[folder] = {}
            try:
                for path in folder.iterdir() if folder.is_dir() else ():
                    self._listings[folder].setdefault(_folded(path.name), []).append(path)
            except OSError as error:
                raise DataError(f"{folder}: the folder can't be read: {error.strerror}") from error
        return self._listings[folder]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _folders_of_table(table: Path) -> list[Path]:
    """The folder of the table, the folder with the table's name, and the audio folders of published data sets."""
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
