"""Finding the sound and image files that a manifest names."""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.data.readers.text_files import shorten
from spectag.errors import DataError

# What Raven (with its detectors) and BirdNET-Analyzer add to the name of the sound to form the name of the table.
TABLE_SUFFIX = re.compile(r"\.(Table\.\d+|Band\.Limited|BirdNET|selections?)(\..*)?$", re.IGNORECASE)
IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
_CLIP_SUFFIXES = AUDIO_SUFFIXES | IMAGE_SUFFIXES
_FOLDERS_OF_TABLES = re.compile(r"(meta|metadata|annotations?|labels?|csvs?|tables?)", re.IGNORECASE)
_DRIVE = re.compile(r"^[A-Za-z]:(?=/)")
_MAX_DEPTH = 6  # of the folders in which a file is searched by its name alone
_MAX_FILES = 3_000_000


class FileFinder:
    """Finds sounds and images by the names in tables. Each folder is listed at most once."""

    def __init__(self, audio_dir: Path | None) -> None:
        if audio_dir is not None and not audio_dir.is_dir():
            raise DataError(f"{audio_dir}: no such folder; expected the folder that contains the sounds")
        self._audio_dir = audio_dir
        self._folders: dict[Path, list[Path]] = {}
        self._listings: dict[Path, dict[str, list[Path]]] = {}
        self._stems: dict[Path, dict[str, list[Path]]] = {}
        self._trees: dict[Path, _Tree] = {}
        self._found: dict[tuple[Path, str], Path | None] = {}
        self._guessed: set[Path] = set()
        self._video_spelling = 0

    def folders(self, source: Path) -> list[Path]:
        """The folders that are searched for the sounds of a manifest (a table or a folder), in this order."""
        if source not in self._folders:
            last = [] if self._audio_dir is None else [self._audio_dir]
            self._folders[source] = [source] if source.is_dir() else [*_folders_of_table(source), *last]
        return self._folders[source]

    def find(self, fname: str, source: Path) -> Path | None:
        """The file with a name from a table, or None.

        The name may lack the suffix, contain backslashes, use another Unicode normalisation, or differ in case. If it
        is a path of another computer, or only the last part of one, the file is searched below the same folders: the
        one with the most folders in common.

        Raises
        ------
        DataError
            If several files could be meant.
        """
        key = source, fname
        if key not in self._found:
            name = fname.replace("\\", "/")
            self._found[key] = self._find_in_folders(name, source) or self._find_below(name, source)
        return self._found[key]

    def find_video(self, name: str, start: float, end: float | None, source: Path) -> str:
        """The name of the file of an excerpt of a YouTube video, as the usual programs save it, or `name` itself.

        `name` is the id of the video, or the id and the start in milliseconds. The times of the excerpt may be a part
        of the file name.
        """
        spellings = _video_spellings(name, start, end)
        order: list[int] = [self._video_spelling, *range(len(spellings))]  # first that of the video before
        for number in order:
            if self.find(spellings[number], source) is not None:
                self._video_spelling = number
                return spellings[number]
        return name

    def check_guesses(self) -> None:
        """Raise a DataError if files were found by a part of their path, and two different paths led to one file."""
        names: dict[Path, str] = {}
        for (_, fname), path in self._found.items() if self._guessed else ():
            if path in self._guessed:
                name = _folded(PurePosixPath(fname.replace("\\", "/")).as_posix())
                other = names.setdefault(path, name)
                if len(PurePosixPath(name).parts) > 1 < len(PurePosixPath(other).parts) and name != other:
                    raise DataError(
                        f"{path}: both {other} and {name} may be this file; name its folder as in the table"
                    )

    def sound_of(self, table: Path) -> str:
        """The name of the sound that belongs to a table: x.wav for x.txt or x.Table.1.selections.txt."""
        path = self.own_sound(table)
        return TABLE_SUFFIX.sub("", table.stem) if path is None else path.name

    def own_sound(self, table: Path) -> Path | None:
        """The sound that belongs to a table, or None."""
        return self.find(table.stem, table) or self.find(TABLE_SUFFIX.sub("", table.stem), table)

    def _find_in_folders(self, name: str, source: Path) -> Path | None:
        for folder in self.folders(source):
            path = os.path.join(folder, name)  # noqa: PTH118 a Path is slow to make
            try:
                is_file = os.path.isfile(path)  # noqa: PTH113 unlike Path.is_file, False if the name is too long
            except ValueError:  # a character that no file name can have
                return None
            if found := Path(path) if is_file else self._find_in_listing(folder, name):
                return found
        return None

    def _find_in_listing(self, folder: Path, name: str) -> Path | None:
        *parents, last = PurePosixPath(_folded(name)).parts or ("",)
        for parent in parents:
            below = self._listing(folder).get(parent)
            if below is None:
                return None
            folder = below[0]
        matches = [path for path in self._listing(folder).get(last, []) if path.is_file()]
        if not matches and PurePosixPath(last).suffix not in _CLIP_SUFFIXES:
            matches = self._with_any_suffix(folder, last)
        return _only(matches, name, folder)

    def _with_any_suffix(self, folder: Path, stem: str) -> list[Path]:
        if folder not in self._stems:
            self._stems[folder] = {}
            for name, paths in self._listing(folder).items():
                if PurePosixPath(name).suffix in _CLIP_SUFFIXES:
                    self._stems[folder].setdefault(PurePosixPath(name).stem, []).extend(paths)
        return _sounds_first(self._stems[folder].get(stem, []))

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listings:
            self._listings[folder] = {}
            try:
                for path in folder.iterdir() if folder.is_dir() else ():
                    self._listings[folder].setdefault(_folded(path.name), []).append(path)
            except OSError as error:
                raise DataError(f"{folder}: the folder can't be read: {error.strerror}") from error
        return self._listings[folder]

    def _find_below(self, name: str, source: Path) -> Path | None:
        """The file below the folders whose path has the most last parts in common with a name."""
        parts = _parts(name)
        if not parts:
            return None
        is_path_elsewhere = name.startswith("/") or bool(_DRIVE.match(name))
        candidates: dict[str, str] = {}  # the first spelling of each path
        for folder in [*self.folders(source), *_home_of_table(source)]:
            for path in self._tree(folder).named(parts[-1]):
                candidates.setdefault(os.path.abspath(path), path)  # noqa: PTH100 a Path is slow to make
        n_common = {path: _n_common(path, parts) for path in candidates.values()}
        most = max(n_common.values(), default=0)
        in_folders = {folder.absolute() for folder in self.folders(source)}
        matches = [
            Path(path)
            for path, n in n_common.items()
            if n == most and (is_path_elsewhere or n == len(parts) or Path(path).absolute().parent in in_folders)
        ]
        direct = [path for path in matches if path.absolute().parent in in_folders]
        found = _only(_sounds_first(direct or matches), name, source.parent)
        if found is not None and most < len(parts):
            self._guessed.add(found)
        return found

    def _tree(self, folder: Path) -> "_Tree":
        if folder not in self._trees:
            self._trees[folder] = _Tree(folder)
        return self._trees[folder]


class _Tree:
    """The sounds and images below a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for number, path in enumerate(_files_below(os.fspath(folder), _MAX_DEPTH)):
            name = _folded(os.path.basename(path))  # noqa: PTH119
            stem, suffix = os.path.splitext(name)  # noqa: PTH122
            if suffix in _CLIP_SUFFIXES:
                self._by_name.setdefault(name, []).append(path)
                self._by_stem.setdefault(stem, []).append(path)
            if number > _MAX_FILES:
                break

    def named(self, name: str) -> list[str]:
        """The files with a name, which may lack the suffix."""
        found = self._by_name.get(name, [])
        return found if found or PurePosixPath(name).suffix in _CLIP_SUFFIXES else self._by_stem.get(name, [])


def _files_below(folder: str, depth: int) -> Iterator[str]:
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    yield entry.path
    except OSError:  # a folder that is missing or may not be read
        return
    for below in sorted(folders) if depth > 1 else ():
        yield from _files_below(below, depth - 1)


def _video_spellings(name: str, start: float, end: float | None) -> list[str]:
    """How the usual programs name the file of an excerpt of a YouTube video, always in the same order."""
    video, _, milliseconds = name.rpartition("_")
    if video and milliseconds.isdecimal():  # AudioSet's strong labels: excerpts of 10 s
        start = int(milliseconds) / 1000
        end = start + 10
    else:
        video = name
    stop = start if end is None else end
    times = (
        *("", f"_{start:.3f}_{stop:.3f}", f"_{start * 1000:.0f}_{stop * 1000:.0f}", f"_{start * 1000:.0f}"),
        *(f"_{start:g}_{stop:g}", f"_{start:.1f}_{stop:.1f}", f"_{start:g}", f"-{start:g}-{stop:g}"),
    )
    return [f"{prefix}{video}{suffix}" for suffix in times for prefix in ("", "Y")]


def _only(matches: list[Path], name: str, folder: Path) -> Path | None:
    if len(matches) > 1:
        in_one_folder = len({path.parent for path in matches}) == 1
        names = sorted(path.name if in_one_folder else str(path) for path in matches)
        raise DataError(
            f"{folder}: {shorten(name)} may be {' or '.join(names[:3])}; use the full name in the table, or keep one "
            "of the files"
        )
    return matches[0] if matches else None


def _sounds_first(paths: list[Path]) -> list[Path]:
    """The sounds among paths, or all of them."""
    return [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES] or paths


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a path, without the drive and the parts that only say where to begin."""
    path = PurePosixPath(_folded(_DRIVE.sub("", name)))
    return tuple(part for part in path.parts if part not in ("/", "//", "..", "."))


def _n_common(path: str, parts: tuple[str, ...]) -> int:
    """The number of last parts that a file has in common with a name, which may lack the suffix."""
    own = PurePosixPath(_folded(os.path.abspath(path).replace("\\", "/"))).parts  # noqa: PTH100
    n_common = 1
    for mine, other in zip(own[-2::-1], parts[-2::-1], strict=False):
        if mine != other:
            break
        n_common += 1
    return n_common


def _folded(name: str) -> str:
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name.casefold())


def _folders_of_table(table: Path) -> list[Path]:
    """The folder of the table, the folder with the table's name, and the audio folders of published data sets."""
    stem = table.stem.removesuffix("_post_competition")
    folders = [table.parent, table.with_suffix(""), table.parent / stem]
    name, home = table.absolute().parent.name, table.absolute().parent.parent
    for folder in _home_of_table(table):  # ESC-50, DESED: metadata/train/weak.tsv and audio/train/weak
        below = table.absolute().parent.relative_to(folder).parts[1:]
        folders += [folder.joinpath("audio", *below, stem), folder.joinpath("audio", *below)]
    if name.endswith(".ground_truth"):  # FSD50K
        folders.append(home / f"{name.removesuffix('.ground_truth')}.{stem}_audio")
    elif name.endswith(".meta"):  # FSDKaggle2018 and 2019 after the competition
        folders.append(home / f"{name.removesuffix('.meta')}.audio_{stem}")
    return list(dict.fromkeys(folders))


def _home_of_table(table: Path) -> list[Path]:
    """The folder of a data set, if the table is in its folder of tables, such as meta."""
    folder = table.absolute().parent
    for parent in (folder, *folder.parents[:2]):
        if _FOLDERS_OF_TABLES.fullmatch(parent.name) or parent.name.endswith((".meta", ".ground_truth")):
            return [parent.parent]
    return []
