"""Reading and writing manifests: tables of clips and their labels.

A manifest is a CSV with the columns `fname` and `labels` (comma-separated in one field) and, optionally, `fold`,
`group`, `start` and `end` (seconds), `unknown` (labels) and `weight`. Other formats are recognised by their content: a
multi-hot CSV, a table with a row per annotated sound, a folder with a sub-folder per label, the tables of published
data sets, Raven selection tables and Audacity label tracks. See docs/reference/manifests.md.
"""

import csv
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spectag.data.clips import Clip, Manifest, unknown_labels
from spectag.data.corrections import apply_corrections, read_corrections
from spectag.data.labels import LabelSet, similar_labels
from spectag.data.readers.annotations import is_label_track, read_annotation_folder, read_label_track
from spectag.data.readers.columns import is_label_column
from spectag.data.readers.csv_table import read_csv
from spectag.data.readers.delimited_text import abbreviate, read_text
from spectag.data.readers.file_finder import FileFinder
from spectag.data.readers.folders import read_folder, visible_files
from spectag.data.readers.rows import ManifestRow, TableOptions
from spectag.data.strong_labels import clips_between, join_annotations
from spectag.errors import DataError, DataWarning, did_you_mean
from spectag.system.output import escape_formula, open_output, text_problem


def read_manifest(
    path: str | Path,
    *,
    audio_dir: str | Path | None = None,
    labels: LabelSet | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: str | Path | None = None,
    complete_annotations: bool = False,
) -> Manifest:
    """Read a manifest in any supported format, and find the files of its clips.

    Parameters
    ----------
    path : str or Path
        A table, a folder with a sub-folder per label, or a folder of selection tables or label tracks.
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
        If labels differ only by case, spaces or Unicode form, or contain a character that may separate labels; if
        annotations have no label; if columns of 0 and 1 are not read as labels; if texts such as NA are read as no
        label; or if sub-folders are read as backgrounds, dates or places, or have no effect.

    Notes
    -----
    A clip without labels is kept, as an example in which none of the labels is true. A CSV must list each clip once.
    Selection tables, label tracks and CSVs of annotations have a line per sound. Each annotated segment becomes a clip
    with the labels of all annotations that overlap it, see `strong_labels.join_annotations`.
    """
    source = Path(path)
    finder = FileFinder(None if audio_dir is None else Path(audio_dir))
    options = TableOptions(group_column, label_column, label_separator)
    rows, names = _read_rows(source, finder, options)
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
    manifest = Manifest(source, tuple(clips), used_labels if labels is None else labels, label_column)
    if corrections is not None:
        manifest = apply_corrections(manifest, read_corrections(corrections))
    return manifest if labels is None else replace(manifest, labels=labels)


def as_manifest(
    source: "str | Path | Manifest",
    *,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: str | Path | None = None,
    complete_annotations: bool = False,
) -> Manifest:
    """Read a path with `read_manifest`; a `Manifest` is returned as it is, with the corrections applied."""
    if not isinstance(source, Manifest):
        return read_manifest(
            source,
            audio_dir=audio_dir,
            group_column=group_column,
            label_column=label_column,
            label_separator=label_separator,
            corrections=corrections,
            complete_annotations=complete_annotations,
        )
    return source if corrections is None else apply_corrections(source, read_corrections(corrections))


def _read_rows(
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
        siblings = [path.name for path in source.parent.glob("*") if path.exists()]
        raise DataError(f"{source}: no such file or folder{did_you_mean(source.name, siblings)}")
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
