"""Tables of predictions, from any program, matched with the clips of a manifest.

A table is a CSV, TSV or Parquet file with a row for each clip, a column of file names and a column for each label. It
may have columns with start and end times (as `spectag tag --format wide` writes them).
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.special import expit

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.audio.files import audio_info
from spectag.data.clips import Clip, Manifest, label_matrix, unknown_labels
from spectag.data.labels import LabelSet
from spectag.data.readers.columns import MANIFEST_COLUMNS
from spectag.data.readers.csv_table import is_annotation_table
from spectag.data.readers.delimited_text import abbreviate, first_lines, open_table, read_text
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import AudioError, DataError, MissingExtraError
from spectag.evaluation.predictions import PredictionOrigin, Predictions
from spectag.models.out_of_fold import CLIP_COLUMNS, LABEL_SUFFIX, cross_fitting_folds
from spectag.scoring.calibration import DEFAULT_THRESHOLD
from spectag.scoring.thresholds import fill_thresholds, fit_thresholds
from spectag.system.parquet import load_pyarrow
from spectag.system.progress import Log, no_log

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".parquet"})

_SPREADSHEETS = {".xlsx", ".xls", ".ods"}
_TIME_TOLERANCE = 0.05  # seconds by which the times of a table and of the manifest may differ


@dataclass(frozen=True, eq=False)
class _PredictionTable:
    """Names (n_rows,), starts and ends in seconds (NaN if unknown), scores (n_rows, n_labels), NaN if empty."""

    path: Path
    names: list[str]
    starts: FloatArray
    ends: FloatArray
    labels: LabelSet
    scores: FloatArray


def is_table(location: str | Path) -> bool:
    """Whether this is a table of predictions, and not a tagger."""
    path = Path(location)
    if path.suffix.lower() in _SPREADSHEETS and path.is_file():
        raise DataError(f"{path}: cannot read the file format of a spreadsheet program; save the table as CSV")
    return path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir()


def read_predictions(path: str | Path, manifest: Manifest, *, log: Log = no_log) -> Predictions:
    """The predictions of a table for the clips of a manifest.

    Parameters
    ----------
    path : str or Path
        A CSV, TSV or Parquet file. Its columns are the file name (`fname` or `file`, else the first column), optional
        `start` and `end` times, and a probability for each label. Columns that training and evaluation write (`fold`,
        `group`, `labels`, `key`, `duration`, `origin`) are not labels. Rows without any value are ignored: training
        writes them for clips without a prediction.
    manifest : Manifest
        Labels that the table does not have are left out of `y_true`.
    log : Log
        Called with messages about how the table was understood.

    Returns
    -------
    Predictions
        For the clips with values, with the origin "table". The thresholds of each fold give the best F1 on the other
        folds: those of the manifest, or five stratified ones, which keep recordings together. Clips without a row are
        skipped.

    Raises
    ------
    DataError
        If the table cannot be understood, or has no clip of the manifest.
    MissingExtraError
        If it is Parquet and pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix.lower() != ".parquet" and path.is_file() and is_annotation_table(path, read_text(path)):
        raise DataError(
            f"{path}: each line has a start, an end and a label, so these are detections, not predictions of clips; "
            "to compare them with annotations, add --events"
        )
    table = _read_table(path)
    durations = _durations(manifest.clips)
    rows = _find_rows(table, manifest, durations)
    has_values = (rows >= 0) & ~np.isnan(table.scores[rows]).any(axis=1)
    skipped = tuple(
        (clip, f"{clip.name}: {path.name} has no row for it")
        for clip, row in zip(manifest.clips, rows, strict=True)
        if row < 0
    )
    if not has_values.any():
        raise DataError(_nothing_in_common(table, manifest, n_skipped=len(skipped)))
    _log_ignored_rows(table, manifest, rows, has_values, log)
    probabilities = _as_probabilities(table.scores[rows[has_values]], path, log).astype(np.float32)
    indices = np.flatnonzero(has_values)
    clips = tuple(manifest.clips[index] for index in indices)
    y_true = label_matrix([clip.labels for clip in clips], table.labels)
    folds = cross_fitting_folds([manifest.groups[index] for index in indices])
    return Predictions(
        clips=clips,
        labels=table.labels,
        y_true=y_true,
        probabilities=probabilities,
        uncalibrated=probabilities,
        thresholds=_cross_fit_thresholds(
            np.where(unknown_labels(clips, table.labels), np.nan, y_true), probabilities, folds
        ),
        origins=tuple[PredictionOrigin, ...](["table"] * len(clips)),
        durations=durations[has_values],
        features=None,
        skipped=skipped,
    )


def _log_ignored_rows(
    table: _PredictionTable, manifest: Manifest, rows: IntArray, has_values: BoolArray, log: Log
) -> None:
    if n_empty := int(((rows >= 0) & ~has_values).sum()):
        log(f"{table.path.name}: {n_empty} clips have no values and are ignored")
    if n_others := len(table.names) - len(set(rows[rows >= 0])):
        log(f"{table.path.name}: {n_others} rows are for clips that are not in {manifest.source.name}")


def _nothing_in_common(table: _PredictionTable, manifest: Manifest, *, n_skipped: int) -> str:
    if n_skipped < len(manifest.clips):
        return f"{table.path}: the table has no values for the clips of {manifest.source}"
    return (
        f"{table.path}: the table has none of the {len(manifest.clips)} clips of {manifest.source}; it contains "
        f"{abbreviate(table.names, 2)}, the manifest {abbreviate([clip.name for clip in manifest.clips], 2)}"
    )


def _as_probabilities(scores: FloatArray, path: Path, log: Log) -> FloatArray:
    if ((scores >= 0) & (scores <= 1)).all():
        return scores
    if scores.min() >= 0:
        raise DataError(
            f"{path}: values from {scores.min():g} to {scores.max():g} are neither probabilities, from 0 to 1, nor "
            "logits, which are negative for unlikely labels; divide percentages by 100"
        )
    log(f"{path.name}: the values are not from 0 to 1, so they are read as logits")
    return np.asarray(expit(scores))


def _durations(clips: Sequence[Clip]) -> FloatArray:
    """The length of each clip in seconds, (n_clips,); NaN for images and for sounds that cannot be read."""
    file_durations = {path: _file_duration(path) for path in dict.fromkeys(clip.path for clip in clips)}
    return np.array([(clip.end_seconds or file_durations[clip.path]) - clip.start_seconds for clip in clips])


def _file_duration(path: Path) -> float:
    with suppress(AudioError, MissingExtraError):  # the table has predictions for it all the same
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            return audio_info(path).duration_seconds
    return math.nan


def _cross_fit_thresholds(y_true: FloatArray, probabilities: Float32Array, folds: IntArray) -> Float32Array:
    """For each clip the thresholds (n_clips, n_labels) that are best on the other folds."""
    thresholds = np.full(y_true.shape, DEFAULT_THRESHOLD, np.float32)
    for fold in np.unique(folds):
        others = folds != fold
        if others.any():
            fitted = fit_thresholds(y_true[others], probabilities[others])
            thresholds[~others] = fill_thresholds(fitted, DEFAULT_THRESHOLD)
    return thresholds


def _find_rows(table: _PredictionTable, manifest: Manifest, durations: FloatArray) -> IntArray:
    """The row of each clip, (n_clips,), found by its path or else by its file name; -1 if there is none."""
    clip_paths = {path for clip in manifest.clips for path in _paths(clip)}
    rows_by_path: dict[str, list[int]] = defaultdict(list)
    rows_by_file_name: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(table.names):
        if _normalize(name) in clip_paths:  # then it is not the row of another clip: a/1.wav is not b/1.wav
            rows_by_path[_normalize(name)].append(row)
        else:
            for file_name in _file_names(name):
                rows_by_file_name[file_name].append(row)
    rows = np.full(len(manifest.clips), -1, np.int64)
    clip_of_row: dict[int, Clip] = {}
    for index, (clip, duration) in enumerate(zip(manifest.clips, durations, strict=True)):
        candidates = [rows_by_path.get(path) for path in _paths(clip)]
        candidates += [rows_by_file_name.get(file_name) for file_name in _file_names(clip.fname)]
        named_rows = next(filter(None, candidates), [])
        matching_rows = [row for row in named_rows if _has_same_times(table, row, clip, duration)]
        if len(matching_rows) > 1:
            raise DataError(f"{table.path}: {len(matching_rows)} rows for {clip.name}; each clip needs one")
        for row in matching_rows:
            if row in clip_of_row:
                raise DataError(
                    f"{table.path}: {table.names[row]} may be {clip_of_row[row].name} or {clip.name}; add its folder"
                )
            clip_of_row[row], rows[index] = clip, row
    return rows


def _normalize(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


def _paths(clip: Clip) -> tuple[str, str]:
    return _normalize(str(clip.path)), _normalize(clip.fname)


def _file_names(name: str) -> dict[str, None]:
    """The file name without its folders, with and without its suffix."""
    path = PurePosixPath(_normalize(name))
    return dict.fromkeys((path.name, path.stem))


def _has_same_times(table: _PredictionTable, row: int, clip: Clip, duration: float) -> bool:
    """Whether a row has the start and end of a clip. A row without an end reaches to the end of the recording."""
    start, end = np.nan_to_num(table.starts[row]), table.ends[row]
    if abs(start - clip.start_seconds) > _TIME_TOLERANCE:
        return False
    if math.isnan(end):
        return clip.end_seconds is None
    return math.isnan(duration) or abs(end - clip.start_seconds - duration) <= _TIME_TOLERANCE


def _read_table(path: Path) -> _PredictionTable:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a table of predictions")
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not table.names:
        raise DataError(f"{path}: the table has no rows; expected one for each clip")
    return table


def _read_csv(path: Path) -> _PredictionTable:
    text = read_text(path)
    table = open_table(path, text, _delimiter(text))
    name, times, labels = _find_columns(path, table.columns)
    names, numbers = [], []
    for line, fields in table.records:
        names.append(fields[name])
        where = f"{path}, line {line}"
        numbers.append([_number(fields, column, table.columns, where) for column in (*times, *labels)])
    values = np.array(numbers, np.float64).reshape(len(names), len(times) + len(labels))
    return _make_table(path, names, [table.columns[column] for column in labels], values)


def _delimiter(text: str) -> str:
    """The delimiter that gives the most columns, because labels may contain the others."""
    header = first_lines(text, 1)
    return max(",;\t", key=lambda delimiter: len(next(csv.reader(header, delimiter=delimiter), [])))


def _number(fields: Sequence[str], column: int | None, header: Sequence[str], where: str) -> float:
    """The number in a column, with a decimal point or comma; NaN if it is empty or the column is missing."""
    if column is None:
        return math.nan
    try:
        return float(fields[column].replace(",", ".") or "nan")
    except ValueError as error:
        raise DataError(
            f"{where}: {fields[column]!r} in column {header[column]!r} is not a number; every column other than files "
            "and times must contain the probabilities of a label"
        ) from error


def _read_parquet(path: Path) -> _PredictionTable:
    pyarrow, parquet = load_pyarrow(purpose=f"{path}: reading Parquet")
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error

    def is_number(column: int) -> bool:
        kind = table.schema.field(column).type
        return bool(pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind))

    header = tuple(table.column_names)
    name, times, labels = _find_columns(path, header, is_number)
    unknown = np.full(table.num_rows, np.nan)
    values = [
        unknown if column is None else table.column(column).cast("float64").to_numpy() for column in (*times, *labels)
    ]
    names = [str(text) for text in table.column(name).to_pylist()]
    return _make_table(path, names, [header[column] for column in labels], np.stack(values, axis=1))


def _find_columns(
    path: Path, header: Sequence[str], is_number: Callable[[int], bool] = lambda column: True
) -> tuple[int, list[int | None], list[int]]:
    """The column of file names, those of start and end times (None if missing), and those of the labels."""
    lower = [name.lower() for name in header]

    def position(aliases: Sequence[str]) -> int | None:
        return next((lower.index(alias.lower()) for alias in aliases if alias.lower() in lower), None)

    name = position(MANIFEST_COLUMNS["fname"]) or 0
    times = [position(MANIFEST_COLUMNS[column]) for column in ("start", "end")]
    labels = [
        column
        for column, column_name in enumerate(lower)
        if column_name not in CLIP_COLUMNS and column not in (name, *times) and is_number(column)
    ]
    if not labels:
        raise DataError(
            f"{path}: no columns of probabilities; expected fname and a column for each label. "
            f"The columns are {abbreviate(list(header))}"
        )
    return name, times, labels


def _label_of(column: str) -> str:
    """The label of a column; see `spectag.models.out_of_fold.label_columns`."""
    name = column.removesuffix(LABEL_SUFFIX)
    return name if name.lower() in CLIP_COLUMNS else column


def _make_table(path: Path, names: list[str], label_header: Sequence[str], values: FloatArray) -> _PredictionTable:
    """The table with these values (n_rows, 2 + n_labels): start and end times, then scores."""
    scores = values[:, 2:]
    labels = LabelSet(tuple(map(_label_of, label_header)))
    is_missing = np.isnan(scores)
    is_wrong = np.isinf(scores) | (is_missing & ~is_missing.all(axis=1, keepdims=True))
    if is_wrong.any():
        row, label = np.argwhere(is_wrong)[0]
        raise DataError(
            f"{path}: {names[row]} has {'no value' if is_missing[row, label] else 'infinity'} for "
            f"{labels.names[label]!r}; expected a number for every label, or for none"
        )
    return _PredictionTable(path, names, values[:, 0], values[:, 1], labels, scores)
