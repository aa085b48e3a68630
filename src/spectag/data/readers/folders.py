"""Manifests that are folders: one sub-folder per label."""

from pathlib import Path

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.data.labels import split_labels
from spectag.data.readers.delimited_text import abbreviate
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.readers.rows import ManifestRow
from spectag.errors import DataError


def read_folder(folder: Path, files: list[Path]) -> list[ManifestRow]:
    """A row for each sound, labelled with the name of its sub-folder. A comma in that name separates labels.

    If the folder contains no sounds, its images are read; otherwise images are ignored.
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
    if unlabelled:
        raise DataError(
            f"{folder}: files beside the sub-folders have no label: {abbreviate([path.name for path in unlabelled])}; "
            "move each into the sub-folder of its label, or out of the folder"
        )
    return [ManifestRow(folder, None, path.as_posix(), split_labels(path.parts[0])) for path in labelled]


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
    tables = [path.relative_to(folder) for path in files if path.suffix.lower() == ".csv"]
    label_tables = [
        path for path in tables if path.stem in sub_folders or path.parts[0] not in {*sub_folders, path.name}
    ]
    if label_tables:
        raise DataError(
            f"{folder}: the labels of this data set are in tables, not in the names of the sub-folders; "
            f"use the table: {abbreviate([str(folder / path) for path in label_tables])}"
        )
