"""Manifests: which labels are true in which stretch of which sound.

A manifest is a CSV with the columns `fname` and `labels` (comma-separated in one field) and, where wanted, `fold`,
`group`, `start` and `end` (seconds). Also read, and recognised from the file itself: a multi-hot CSV, a folder with a
sub-folder per label, FSDKaggle2019, FSD50K, ESC-50, Raven selection tables and Audacity label tracks.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spectag.data.clips import Clip, Manifest
from spectag.data.corrections import apply_corrections, read_corrections
from spectag.data.labels import LabelSet
from spectag.data.readers.annotations import is_annotation, read_annotations
from spectag.data.readers.csv_table import COLUMN_NAMES, read_csv
from spectag.data.readers.delimited_text import read_text, some_of
from spectag.data.readers.file_finder import Finder
from spectag.data.readers.folders import read_folder, visible_files
from spectag.data.readers.rows import Row
from spectag.errors import DataError, did_you_mean
from spectag.system.atomic_files import unfinished_file


def read_manifest(
    path: str | Path,
    *,
    audio_dir: str | Path | None = None,
    labels: LabelSet | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
) -> Manifest:
    """Read a manifest in any of the forms that are known, and find its sounds.

    Parameters
    ----------
    path : str or Path
        A table, a folder with a sub-folder per label, or a folder of selection tables or label tracks.
    audio_dir : str or Path, optional
        Where sounds are looked for that lie neither beside the table nor in the folder named like it.
    labels : LabelSet, optional
        The labels that are known; any other is refused. By default all that occur, sorted, or the columns of a
        multi-hot CSV in their order.
    group_column : str, optional
        The column that holds the groups, in place of `group`.
    corrections : str or Path, optional
        A table of corrections to lay over the labels; see `corrections.read_corrections`.

    Raises
    ------
    DataError
        If the manifest can't be understood, with the line; if sounds are missing, all of them at once; if a correction
        does not fit.

    Notes
    -----
    A clip without labels is kept: it is an example of none of them. In a CSV a stretch of a sound stands once. In
    selection tables and label tracks, which give each label a line of its own, the labels of a stretch are united.
    """
    source = Path(path)
    finder = Finder(None if audio_dir is None else Path(audio_dir))
    rows, names = _read_rows(source, finder, group_column)
    if not rows:
        raise DataError(f"{source}: no clips; expected a line for each")
    if labels is not None:
        _check_labels(rows, labels)
    clips = _find_clips(rows, finder)
    _check_unique(clips, source)
    if labels is not None:
        known = labels
    else:
        known = LabelSet(names) if names else LabelSet.collect(clip.labels for clip in clips)
    manifest = Manifest(source, tuple(clips), known)
    if corrections is not None:
        manifest = apply_corrections(manifest, read_corrections(corrections))
    return manifest if labels is None else replace(manifest, labels=labels)


def manifest_of(
    source: "str | Path | Manifest",
    *,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
) -> Manifest:
    """A manifest, read by `read_manifest` where it is a path; one that is read already gets the corrections alone."""
    if not isinstance(source, Manifest):
        return read_manifest(source, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    return source if corrections is None else apply_corrections(source, read_corrections(corrections))


def _read_rows(source: Path, finder: Finder, group_column: str | None) -> tuple[list[Row], tuple[str, ...] | None]:
    if source.is_dir():
        files = visible_files(source)
        texts = {path: read_text(path) for path in files if path.suffix.lower() == ".txt"}
        if any(map(is_annotation, texts.values())):
            return read_annotations(texts, finder, group_column), None
        if group_column is not None:
            raise DataError(f"{source}: a folder has no column {group_column!r} to group by; give a table")
        return read_folder(source, files), None
    if not source.exists():
        siblings = [path.name for path in source.parent.glob("*") if path.exists()]
        raise DataError(f"{source}: no such file or folder{did_you_mean(source.name, siblings)}")
    text = read_text(source)
    if is_annotation(text):
        return read_annotations({source: text}, finder, group_column), None
    return read_csv(source, text, group_column)


def _check_labels(rows: list[Row], labels: LabelSet) -> None:
    for row in rows:
        for label in row.labels:
            labels.index(label, where=row.where)


def _find_clips(rows: list[Row], finder: Finder) -> list[Clip]:
    clips, missing = [], []
    for row in rows:
        path = finder.find(row.fname, row.source)
        if path is None:
            missing.append(row)
        else:
            clips.append(
                Clip(path, row.fname, row.labels, row.fold, row.group, row.start_seconds, row.end_seconds, row.line)
            )
    if missing:
        names = list(dict.fromkeys(row.fname for row in missing))
        folders = dict.fromkeys(str(folder) for row in missing for folder in finder.folders(row.source))
        raise DataError(
            f"{missing[0].where}: {len(names)} of {len({row.fname for row in rows})} files are missing: "
            f"{some_of(names)}. They were looked for in {some_of(list(folders))}; "
            "name the folder that holds them with --audio-dir"
        )
    return clips


def _check_unique(clips: list[Clip], source: Path) -> None:
    first: dict[tuple[Path, float, float | None], Clip] = {}
    twice = []
    for clip in clips:
        earlier = first.setdefault((clip.path, clip.start_seconds, clip.end_seconds), clip)
        if earlier is not clip:
            twice.append(f"{clip.name} in lines {earlier.line} and {clip.line}")
    if twice:
        raise DataError(
            f"{source}: clips are there more than once: {some_of(twice)}; keep one line of each, "
            "with all its labels in one field"
        )


def write_multi_hot(path: str | Path, manifest: Manifest, fnames: Sequence[str] | None = None) -> None:
    """Write a CSV with a column `fname` and one of 0 and 1 for each label; whole or not at all.

    Folds, and groups of several clips, are kept in columns of their own.

    Parameters
    ----------
    path : str or Path
        The CSV.
    manifest : Manifest
        The clips and their labels.
    fnames : sequence of str, optional
        Other names for the clips, such as those of their images, in the order of the clips.

    Raises
    ------
    DataError
        If two clips would have the same name (parts of one recording need names of their own), a label is called like
        a column that means something else (`group`, `end`), or the file can't be written.
    """
    path = Path(path)
    names = [clip.fname for clip in manifest.clips] if fnames is None else list(fnames)
    if len(names) != len(manifest.clips):
        raise ValueError(f"need a name for each of the {len(manifest.clips)} clips, got {len(names)}")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{path}: clips need names of their own in a multi-hot CSV, but several are {some_of(twice)}")
    unclear = [label for label in manifest.labels.names if label.lower() in COLUMN_NAMES]
    if unclear:
        raise DataError(f"{path}: a column called {some_of(unclear)} would not be read as a label; rename the label")
    together: dict[str, Sequence[str | None]] = {}
    if any(manifest.folds):
        together["fold"] = manifest.folds
    if len(set(manifest.groups)) < len(manifest.clips):
        together["group"] = _group_names(manifest)
    try:
        with unfinished_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["fname", *together, *manifest.labels.names])
            for name, *kept, hot in zip(names, *together.values(), manifest.multi_hot(), strict=True):
                writer.writerow([name, *kept, *hot.astype(int)])
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error.strerror}") from error


def _group_names(manifest: Manifest) -> list[str | None]:
    """What to call the group of each clip: as the manifest does or, where it has no name, like its first clip."""
    groups = manifest.groups
    sizes = Counter(groups)
    first: dict[str, Clip] = {}
    for group, clip in zip(groups, manifest.clips, strict=True):
        first.setdefault(group, clip)
    return [first[group].group or (first[group].fname if sizes[group] > 1 else None) for group in groups]
