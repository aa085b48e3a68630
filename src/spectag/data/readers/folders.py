"""Manifests that are folders: one sub-folder per label."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.audio.recorder_names import info_in_name
from spectag.data.labels import split_labels
from spectag.data.readers.delimited_text import abbreviate, normal_name
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.readers.rows import ManifestRow
from spectag.errors import DataError, DataWarning

_TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
_FOLD = re.compile(
    r"(train(ing)?|valid(ation)?|val|dev(elopment)?|test(ing)?|eval(uation)?|holdout|(fold|split)[ _-]?\d+)"
    r"([ _-]?(set|data|audio|split|clips))?",
    re.IGNORECASE,
)
_TIME_OR_PLACE = re.compile(
    r"(19|20)\d\d([ ._-]?\d\d([ ._-]?\d\d)?)?|\d\d?[._-]\d\d?[._-](\d\d)?\d\d"
    r"|(site|station|plot|location|loc|place|region|point|transect|recorder|sensor|deployment|visit|session|day|night"
    r"|week|month|year)[ _-]?(\d+|[a-z])",
    re.IGNORECASE,
)
_DATED_FRACTION = 0.9
_BACKGROUND = frozenset({
    *("noise", "background", "backgrounds", "background_noise", "silence", "other", "others", "negative", "negatives"),
    *("ambient", "ambient_noise", "ambience", "nocall", "no_call", "no_event", "none", "empty"),
})  # fmt: skip


@dataclass(frozen=True)
class _FolderClip:
    path: Path
    """Relative to the folder."""
    levels: tuple[str, ...]
    """The sub-folders, without those that are not labels."""
    fold: str | None = None


def read_folder(folder: Path, files: list[Path], *, separator: str | None = None) -> list[ManifestRow]:
    """A row for each sound, labelled with the name of its sub-folder. A comma in that name separates labels, except
    in the names of AudioSet.

    Sub-folders called train, valid, test or fold1 above the labels are folds; sub-folders that are dates or places are
    passed over. A label with a leading minus, and folders such as noise and background, are no labels: their sounds are
    examples in which none of the labels is true. If the folder contains no sounds, its images are read; otherwise
    images are ignored.
    """
    sounds = [path.relative_to(folder) for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    images = [path.relative_to(folder) for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    labelled = [path for path in sounds or images if len(path.parts) > 1]
    unlabelled = [path for path in sounds or images if len(path.parts) == 1]
    _check_no_label_table(folder, files, {path.parts[0] for path in labelled})
    if not labelled:
        raise DataError(
            f"{folder}: no sounds in sub-folders; expected one sub-folder per label, or use the table of labels itself"
        )
    clips = _without_other_levels(folder, [_FolderClip(path, path.parts[:-1]) for path in labelled])
    unlabelled += [clip.path for clip in clips if not clip.levels]
    _warn_of_folders_below(folder, clips)
    if unlabelled:
        raise DataError(
            f"{folder}: files beside the sub-folders have no label: {abbreviate(map(str, unlabelled))}; "
            "move each into the sub-folder of its label, or out of the folder"
        )
    _warn_of_recordings(folder, clips)
    return list(_rows(folder, clips, separator))


def _without_other_levels(folder: Path, clips: list[_FolderClip]) -> list[_FolderClip]:
    """The clips without the levels of sub-folders that are folds, dates or places."""
    while True:
        names = sorted({clip.levels[0] for clip in clips if clip.levels})
        above = {clip.levels[0] for clip in clips if len(clip.levels) > 1}  # sub-folders with sub-folders
        folds = [name for name in names if _FOLD.fullmatch(name)]
        others = [name for name in names if _TIME_OR_PLACE.fullmatch(name)]
        if others == names and names:
            if not above:
                raise DataError(
                    f"{folder}: the sub-folders {abbreviate(names)} look like dates or places, not like labels; "
                    "expected one sub-folder per label, or a table with the columns fname and labels"
                )
            warnings.warn(
                f"{folder}: the sub-folders {abbreviate(names)} are read as dates or places, those in them as labels",
                DataWarning,
                stacklevel=2,
            )
            clips = [_FolderClip(clip.path, clip.levels[1:], clip.fold) for clip in clips]
        elif folds == names and above:
            clips = [_FolderClip(clip.path, clip.levels[1:], clip.fold or clip.levels[0]) for clip in clips]
        elif mixed := sorted({*folds, *others} & above):
            raise DataError(
                f"{folder}: the sub-folders {abbreviate(mixed)} look like folds, dates or places, but "
                f"{abbreviate([name for name in names if name not in mixed])} do not; expected one sub-folder per "
                "label, or one per fold with sub-folders for the labels"
            )
        else:
            break
    if all(len(clip.levels) > 1 and _FOLD.fullmatch(clip.levels[1]) for clip in clips):  # Bark/train/a.wav
        return [_FolderClip(clip.path, clip.levels, clip.fold or clip.levels[1]) for clip in clips]
    return clips


def _warn_of_folders_below(folder: Path, clips: list[_FolderClip]) -> None:
    """Warn if folders below that of one label have names without digits, which may be labels too."""
    pairs = {(clip.levels[0], name) for clip in clips for name in clip.levels[1:]}
    n_above = Counter(name for _, name in pairs)
    below = sorted(
        f"{label}/{name}"
        for label, name in pairs
        if n_above[name] == 1 and not re.search(r"\d", name) and not _is_other_level(name)
    )
    if below:
        warnings.warn(
            f"{folder}: the labels are the names of the upper sub-folders; those in them have no effect, such as "
            f"{abbreviate(below, 3)}. If they are the labels, use their folders without the upper ones, or a table",
            DataWarning,
            stacklevel=2,
        )


def _warn_of_recordings(folder: Path, clips: list[_FolderClip]) -> None:
    """Warn if nearly all files have a date and a time in their names, as recorders give them, so that the sub-folders
    may be sites."""
    n_dated = sum(info_in_name(clip.path.stem).start is not None for clip in clips)
    if n_dated >= _DATED_FRACTION * len(clips):
        names = abbreviate(sorted({clip.levels[0] for clip in clips}), 3)
        warnings.warn(
            f"{folder}: the files have names of recorders, such as {clips[0].path.name}. Expected a sub-folder for "
            f"each label; if the sub-folders ({names}) are sites or recorders, give a table of labels instead",
            DataWarning,
            stacklevel=2,
        )


def _is_other_level(name: str) -> bool:
    return bool(_FOLD.fullmatch(name) or _TIME_OR_PLACE.fullmatch(name))


def _rows(folder: Path, clips: list[_FolderClip], separator: str | None) -> Iterator[ManifestRow]:
    background = {clip.levels[0] for clip in clips if normal_name(clip.levels[0]) in _BACKGROUND}
    if background == {clip.levels[0] for clip in clips}:  # then these are the labels
        background = set()
    if background:
        n_clips = sum(clip.levels[0] in background for clip in clips)
        warnings.warn(
            f"{folder}: {n_clips} clips in {abbreviate(sorted(background))} are read as clips without labels; if this "
            "is a label, rename the folder or use a table",
            DataWarning,
            stacklevel=2,
        )
    for clip in clips:
        name = clip.levels[0]
        labels = () if name in background else split_labels(name, separator=separator)
        present = tuple(label for label in labels if not label.startswith("-"))
        yield ManifestRow(folder, None, clip.path.as_posix(), present, clip.fold)


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden files and the __MACOSX folders of archives."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)
    )


def _check_no_label_table(folder: Path, files: list[Path], sub_folders: set[str]) -> None:
    """Raise a DataError for the root folder of a data set with tables of labels, such as FSDKaggle2019 and ESC-50."""
    tables = [path.relative_to(folder) for path in files if path.suffix.lower() in _TABLE_SUFFIXES]
    label_tables = [
        path for path in tables if path.stem in sub_folders or path.parts[0] not in {*sub_folders, path.name}
    ]
    if label_tables:
        raise DataError(
            f"{folder}: the labels of this data set are in tables, not in the names of the sub-folders; "
            f"use the table: {abbreviate([str(folder / path) for path in label_tables])}"
        )
