"""Reading and writing manifests: tables of clips and their labels.

A manifest is a CSV with the columns `fname` and `labels` (comma-separated in one field) and, optionally, `fold`,
`group`, `start` and `end` (seconds), `unknown` (labels) and `weight`. Other formats are recognised by their content: a
multi-hot CSV, a table with a row per annotated sound, a folder with a sub-folder per label, the tables of published
data sets, Raven selection tables and Audacity label tracks. See docs/reference/manifests.md.
"""

import csv
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spectag.data.clips import Clip, Manifest, unknown_labels
from spectag.data.corrections import apply_corrections, read_corrections
from spectag.data.hierarchy import close_upwards, read_hierarchy
from spectag.data.labels import LabelSet, similar_labels, split_up_names
from spectag.data.readers.annotations import is_label_track, read_annotation_folder, read_label_track
from spectag.data.readers.columns import is_label_column
from spectag.data.readers.csv_table import read_csv
from spectag.data.readers.dataframes import dataframe_as_csv
from spectag.data.readers.delimited_text import abbreviate, read_text
from spectag.data.readers.file_finder import FileFinder
from spectag.data.readers.folders import read_folder, visible_files
from spectag.data.readers.rows import ManifestRow, TableOptions
from spectag.data.strong_labels import clips_between, join_annotations
from spectag.errors import DataError, DataWarning
from spectag.system.dataframes import DataFrame, is_dataframe
from spectag.system.file_errors import similar_file
from spectag.system.output import escape_formula, open_output, text_problem

_DATAFRAME = "DataFrame"  # the source of a manifest that has no file


def read_manifest(
    path: str | Path | DataFrame,
    *,
    audio_dir: str | Path | None = None,
    labels: LabelSet | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: str | Path | None = None,
    hierarchy: str | Path | None = None,
    complete_annotations: bool = False,
) -> Manifest:
    """Read a manifest in any supported format, and find the files of its clips.

    Parameters
    ----------
    path : str, Path or DataFrame
        A table, a folder with a sub-folder per label, or a folder of selection tables or label tracks. A DataFrame of
        pandas, polars or pyarrow has the columns of a table; in messages, its header is line 1. A cell may be a list of
        labels. Files are searched relative to the working directory.
    audio_dir : str or Path, optional
        Folder of the sounds, if they are neither beside the table nor in the folder with the table's name.
    labels : LabelSet, optional
        The allowed labels. By default all labels that occur, sorted; for a multi-hot CSV, its columns in their order.
    group_column : str, optional
        The column that contains the groups, instead of `group`.
    label_column : str, optional
        The column that contains the labels, instead of those with a usual name.
    label_separator : str, optional
        What separates the labels in a field, instead of a comma.
    corrections : str or Path, optional
        A table of corrections, which are applied to the labels; see `corrections.read_corrections`.
    hierarchy : str or Path, optional
        A table of children and parents, or AudioSet's ontology.json, see `hierarchy.read_hierarchy`: a clip gets all
        labels above its own, of those that are allowed.
    complete_annotations : bool
        The annotations of a recording name all of its sounds: the time between them becomes clips without labels, see
        `strong_labels.clips_between`. By default, that time is not used.

    Raises
    ------
    DataError
        If the manifest can't be parsed (the message gives the line), files are missing (the message lists them), a
        label is not allowed, a correction does not match its clip, or there are no annotations that could be complete.

    Warns
    -----
    DataWarning
        If labels differ only by case, spaces or Unicode form, or contain a character that may separate labels; if a
        name of AudioSet with a comma is read as one label, and a part of it is a label too; if annotations have no
        label; if columns of 0 and 1 are not read as labels; if texts such as NA are read as no label; or if sub-folders
        are read as backgrounds, dates or places, or have no effect.

    Notes
    -----
    A clip without labels is kept, as an example in which none of the labels is true. A CSV must list each clip once.
    Selection tables, label tracks and CSVs of annotations have a line per sound. Each annotated segment becomes a clip
    with the labels of all annotations that overlap it, see `strong_labels.join_annotations`.
    """
    source, csv_text = (Path(_DATAFRAME), dataframe_as_csv(path)) if is_dataframe(path) else (_table_path(path), None)
    finder = FileFinder(None if audio_dir is None else Path(audio_dir))
    options = TableOptions(group_column, label_column, label_separator)
    rows, names = (
        read_rows(source, finder, options) if csv_text is None else read_csv(source, csv_text, finder, options)
    )
    clips, annotations = _find_clips(source, rows, finder, labels)
    if complete_annotations and not annotations:
        raise DataError(
            f"{source}: the clips are not annotations, so they cannot be complete; expected selection tables, label "
            "tracks, or a CSV with the columns start, end and event_label. Leave out complete_annotations"
        )
    segments = join_annotations(annotations)
    clips = [*segments, *clips, *(clips_between(segments) if complete_annotations else ())]
    if not any(clip.weight for clip in clips):
        raise DataError(f"{source}: the weight of every clip is 0; give a weight above 0 to the clips to train on")
    used_labels = LabelSet(names) if names else LabelSet.collect(clip.labels for clip in clips)
    if labels is None:
        _check_characters(source, used_labels)
        _warn_of_similar_labels(source, used_labels)
        if names is None and label_separator is None:
            _warn_of_split_up_names(source, used_labels)
    manifest = Manifest(source, tuple(clips), used_labels if labels is None else labels, label_column, csv_text)
    if corrections is not None:
        manifest = apply_corrections(manifest, read_corrections(corrections))
    if hierarchy is not None:
        manifest = close_upwards(manifest, read_hierarchy(hierarchy), labels=labels)
    return manifest if labels is None else replace(manifest, labels=labels)


ManifestInput = str | Path | DataFrame | Manifest
"""A table or a folder by its path, a DataFrame, or a manifest that was read before."""


def as_manifest(
    source: ManifestInput,
    *,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: str | Path | None = None,
    hierarchy: str | Path | None = None,
    complete_annotations: bool = False,
) -> Manifest:
    """Read a path or a DataFrame with `read_manifest`.

    A `Manifest` is as it is, with the corrections and the hierarchy applied.
    """
    if not isinstance(source, Manifest):
        return read_manifest(
            source,
            audio_dir=audio_dir,
            group_column=group_column,
            label_column=label_column,
            label_separator=label_separator,
            corrections=corrections,
            hierarchy=hierarchy,
            complete_annotations=complete_annotations,
        )
    if corrections is not None:
        source = apply_corrections(source, read_corrections(corrections))
    return source if hierarchy is None else close_upwards(source, read_hierarchy(hierarchy))


def _table_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise DataError(f"expected the path of a table or a folder, or a DataFrame, got {type(path).__name__}")
    return Path(path)


def read_rows(
    source: Path, finder: FileFinder, options: TableOptions
) -> tuple[Iterable[ManifestRow], tuple[str, ...] | None]:
    """The rows of a manifest and, if it is a multi-hot CSV, its labels in the order of the columns."""
    if source.is_dir():
        files = visible_files(source)
        rows = read_annotation_folder(source, files, finder, options)
        if rows is not None:
            return rows, None
        for column, purpose in ((options.group_column, "groups"), (options.label_column, "labels")):
            if column is not None:
                raise DataError(f"{source}: a folder has no column {column!r} for {purpose}; use a table instead")
        return read_folder(source, files, separator=options.label_separator), None
    if not source.exists():
        raise DataError(f"{source}: no such file or folder{similar_file(source)}")
    text = read_text(source)
    if is_label_track(text):
        return read_label_track(source, text, finder, options), None
    return read_csv(source, text, finder, options)


def _find_clips(
    source: Path, rows: Iterable[ManifestRow], finder: FileFinder, labels: LabelSet | None
) -> tuple[list[Clip], list[Clip]]:
    """The clips of the rows, and the annotated sounds among them separately.

    Rows are taken one by one, so that a table of a million rows is not in memory twice.
    """
    clips, annotations, without_events, missing = list[Clip](), list[Clip](), list[Clip](), list[ManifestRow]()
    names, without_label = dict[str, None](), list[ManifestRow]()
    for row in rows:
        names[row.fname] = None
        if row.lacks_label:
            without_label.append(row)
        if labels is not None:
            _check_labels(row, labels)
        path = finder.find(row.fname, row.source)
        if path is None:
            missing.append(row)
            continue
        times = row.start_seconds, row.end_seconds
        clip = Clip(path, row.fname, row.labels, row.fold, row.group, *times, row.line, row.unknown, row.weight)
        if not row.is_annotation:
            clips.append(clip)
        elif clip.is_negative and clip.end_seconds is None:
            without_events.append(clip)
        else:
            annotations.append(clip)
    if not names:
        raise DataError(f"{source}: no clips; expected one line per clip")
    if missing:
        raise _missing_files(missing, len(names), finder)
    finder.check_guesses()
    _warn_of_missing_labels(source, without_label)
    _check_unique(clips, source)
    if without_events:
        annotated = {clip.path for clip in annotations}
        clips += {clip.path: clip for clip in without_events if clip.path not in annotated}.values()
    return clips, annotations


def _check_labels(row: ManifestRow, labels: LabelSet) -> None:
    for label in (*row.labels, *row.unknown):
        if label not in labels:
            labels.index(label, where=row.where)


def _missing_files(missing: Sequence[ManifestRow], n_files: int, finder: FileFinder) -> DataError:
    names = list(dict.fromkeys(row.fname for row in missing))
    folders = dict.fromkeys(str(folder) for row in missing[:100] for folder in finder.folders(row.source))
    return DataError(
        f"{missing[0].where}: {len(names)} of {n_files} files are missing: {abbreviate(names)}. "
        f"Searched in {abbreviate(folders)}; name the folder that contains them with --audio-dir"
    )


def _check_characters(source: Path, labels: LabelSet) -> None:
    """Refuse labels that a model could not store."""
    for name in labels.names:
        if problem := text_problem(name):
            raise DataError(f"{source}: the label {name!r} contains {problem}; remove it from the table")


def _warn_of_missing_labels(source: Path, rows: Sequence[ManifestRow]) -> None:
    if rows:
        warnings.warn(
            f"{source}: {len(rows)} annotations have no label, such as that in {rows[0].where}. They become clips "
            "without labels, unless other annotations overlap them; fill in the labels, or delete the annotations",
            DataWarning,
            stacklevel=4,
        )


def _warn_of_similar_labels(source: Path, labels: LabelSet) -> None:
    groups = similar_labels(labels.names)
    if groups:
        examples = abbreviate([" and ".join(map(ascii, group)) for group in groups])
        warnings.warn(
            f"{source}: labels that differ only by case, spaces, hyphens or Unicode form: {examples}; if they mean the "
            "same, use one spelling",
            DataWarning,
            stacklevel=3,
        )


def _warn_of_split_up_names(source: Path, labels: LabelSet) -> None:
    if found := split_up_names(labels.names):
        name, part = found[0]
        warnings.warn(
            f"{source}: {name!r} is read as one label, as it is a name of AudioSet, but {part!r} is a label, too; if "
            "commas separate labels in this name, use --label-separator ','",
            DataWarning,
            stacklevel=3,
        )


def _check_unique(clips: list[Clip], source: Path) -> None:
    first: dict[tuple[Path, float, float | None], Clip] = {}
    duplicates = []
    for clip in clips:
        earlier = first.setdefault((clip.path, clip.start_seconds, clip.end_seconds), clip)
        if earlier is not clip:
            duplicates.append(f"{clip.name} in lines {earlier.line} and {clip.line}")
    if duplicates:
        raise DataError(
            f"{source}: some clips are listed more than once: {abbreviate(duplicates)}; keep one line per clip, "
            "with all its labels in one field"
        )


def write_multi_hot(path: str | Path, manifest: Manifest, fnames: Sequence[str] | None = None) -> None:
    """Write a CSV with the column `fname` and, for each label, a column of 0 and 1. The file is written atomically.

    Unknown labels are empty cells. Folds, groups of more than one clip, and weights other than 1 are written to the
    columns `fold`, `group` and `weight`.

    Parameters
    ----------
    path : str or Path
        The CSV.
    manifest : Manifest
        The clips and their labels.
    fnames : sequence of str, optional
        Other names for the clips, such as the names of their images, in the order of the clips.

    Raises
    ------
    DataError
        If two clips would have the same name (give names to parts of one recording), a label has the name of a column
        with another meaning (such as `group` or `end`), or the file can't be written.
    """
    path = Path(path)
    names = [clip.fname for clip in manifest.clips] if fnames is None else list(fnames)
    if len(names) != len(manifest.clips):
        raise ValueError(f"need a name for each of the {len(manifest.clips)} clips, got {len(names)}")
    if len(set(names)) < len(names):
        duplicates = [name for name, count in sorted(Counter(names).items()) if count > 1]
        raise DataError(f"{path}: a multi-hot CSV needs unique names, but several clips are {abbreviate(duplicates)}")
    reserved = [label for label in manifest.labels.names if not is_label_column(label)]
    if reserved:
        raise DataError(
            f"{path}: a column called {abbreviate(reserved)} would not be read as a label; rename the label"
        )
    extra: dict[str, Sequence[str | None]] = {}
    if any(manifest.folds):
        extra["fold"] = manifest.folds
    if len(set(manifest.groups)) < len(manifest.clips):
        extra["group"] = _group_names(manifest)
    if (manifest.weights != 1).any():
        extra["weight"] = [f"{clip.weight:g}" for clip in manifest.clips]
    with open_output(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["fname", *extra, *map(escape_formula, manifest.labels.names)])
        for name, *values, cells in zip(names, *extra.values(), multi_hot_cells(manifest), strict=True):
            texts = (value if value is None else escape_formula(value) for value in (name, *values))
            writer.writerow([*texts, *cells])


def multi_hot_cells(manifest: Manifest) -> list[list[str]]:
    """The cells of each clip in a multi-hot table, one for each label: "1", "0", or "" for an unknown label."""
    cells = np.where(unknown_labels(manifest.clips, manifest.labels), "", manifest.multi_hot().astype(int).astype(str))
    rows: list[list[str]] = cells.tolist()
    return rows


def _group_names(manifest: Manifest) -> list[str | None]:
    """The group name of each clip: from the manifest, or the name of the group's first clip. None for single clips."""
    groups = manifest.groups
    sizes = Counter(groups)
    first = dict(zip(groups[::-1], manifest.clips[::-1], strict=True))  # the first clip of each group
    return [first[group].group or (first[group].fname if sizes[group] > 1 else None) for group in groups]
