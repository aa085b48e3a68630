"""A folder with a sub-folder per label."""

from pathlib import Path

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.data.labels import split_labels
from spectag.data.readers.delimited_text import some_of
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.readers.rows import Row
from spectag.errors import DataError


def read_folder(folder: Path, files: list[Path]) -> list[Row]:
    """A row for each sound, labelled with the name of its sub-folder; a comma in it separates labels.

    A folder without any sound may hold images of spectrograms; among sounds, images are passed over.
    """
    sounds = [path.relative_to(folder) for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    images = [path.relative_to(folder) for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    labelled = [path for path in sounds or images if len(path.parts) > 1]
    loose = [path for path in sounds or images if len(path.parts) == 1]
    _refuse_data_set(folder, files, {inside.parts[0] for inside in labelled})
    if not labelled:
        raise DataError(
            f"{folder}: no sounds in sub-folders; expected a sub-folder per label, or give the table of labels itself"
        )
    if loose:
        raise DataError(
            f"{folder}: files beside the sub-folders have no label: {some_of([path.name for path in loose])}; "
            "move each into the sub-folder of its label, or elsewhere"
        )
    return [Row(folder, None, inside.as_posix(), split_labels(inside.parts[0])) for inside in labelled]


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden ones and what macOS leaves in archives."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)
    )


def _refuse_data_set(folder: Path, files: list[Path], sub_folders: set[str]) -> None:
    """A data set's own folder (train_curated.csv beside train_curated, meta/esc50.csv) has its labels in tables."""
    tables = [path.relative_to(folder) for path in files if path.suffix.lower() == ".csv"]
    naming = [path for path in tables if path.stem in sub_folders or path.parts[0] not in {*sub_folders, path.name}]
    if naming:
        raise DataError(
            f"{folder}: the labels are in tables here, not in the names of the sub-folders; give the table: "
            f"{some_of([str(folder / path) for path in naming])}"
        )
