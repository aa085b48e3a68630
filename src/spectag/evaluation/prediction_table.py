"""Tables of predictions, whoever made them, laid beside a manifest: what training wrote, a submission, what we tagged.

A table is a CSV, TSV or Parquet file with a row for each clip, a column for its file and one for each label. It may
have columns for times, too (`spectag tag --format wide` gives them).
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from scipy.special import expit

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.audio.files import audio_info
from spectag.data.clips import Clip, Manifest
from spectag.data.folds import stratified_folds
from spectag.data.labels import LabelSet
from spectag.data.readers.csv_table import COLUMNS
from spectag.data.readers.delimited_text import first_lines, open_table, read_text, some_of
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import AudioError, DataError, MissingExtraError
from spectag.evaluation.predictions import Origin, Predictions
from spectag.models.out_of_fold import CLIP_COLUMNS, LABEL_MARK
from spectag.scoring.calibration import DEFAULT_THRESHOLD
from spectag.scoring.thresholds import fit_thresholds
from spectag.system.progress import Log, no_log

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".parquet"})

_STARTS = (*COLUMNS["start"], "start_time")
_ENDS = (*COLUMNS["end"], "end_time")
_SAME_TIME = 0.05  # seconds that two tables may differ about a start or an end
_GIVEN: Origin = "given"
_N_PARTS = 5
_LEAST_FOLDS = 3  # of a manifest, to fit thresholds on by turns


@dataclass(frozen=True, eq=False)
class _Rows:
    """A table: names (n_rows,), starts and ends in seconds (NaN: not told), scores (n_rows, n_labels), NaN if empty."""

    path: Path
    names: list[str]
    starts: FloatArray
    ends: FloatArray
    labels: LabelSet
    scores: FloatArray


_SPREADSHEETS = {".xlsx", ".xls", ".ods"}


def is_table(location: str | Path) -> bool:
    """Whether this is a table of predictions, and not a tagger."""
    path = Path(location)
    if path.suffix.lower() in _SPREADSHEETS and path.is_file():
        raise DataError(f"{path}: a spreadsheet program's own file; save the table as CSV")
    return path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir()


def read_predictions(
    path: str | Path,
    manifest: Manifest,
    *,
    log: Log = no_log,
) -> Predictions:
    """What a table says of a manifest's clips.

    Parameters
    ----------
    path : str or Path
        A CSV, TSV or Parquet file. Its columns are the file (`fname` or `file`; else the first), `start` and `end`
        where there are stretches, and a probability for each label. Columns that training and evaluation add (`fold`,
        `group`, `labels`, `key`, `duration`, `origin`) are no labels. Rows without any value do not count: training
        leaves those clips empty that it never held out.
    manifest : Manifest
        Labels that the table does not have are left out of `y_true`.
    say : Say
        Told how the table was understood.

    Returns
    -------
    Predictions
        Of the clips that have values, `origins` "given". Thresholds are those of the best F1 on the other parts: the
        manifest's folds, or five of our own; clips of a recording are in one of them. Skipped are clips without a row.

    Raises
    ------
    DataError
        If the table can't be understood, or has no clip of the manifest.
    MissingExtraError
        If it is Parquet and pyarrow is not installed.
    """
    path = Path(path)
    table = _read(path)
    durations = _durations(manifest.clips)
    rows = _rows_of_clips(table, manifest, durations)
    has_values = (rows >= 0) & ~np.isnan(table.scores[rows]).any(axis=1)
    skipped = tuple(
        (clip, f"{clip.name}: {path.name} has no row for it")
        for clip, row in zip(manifest.clips, rows, strict=True)
        if row < 0
    )
    if not has_values.any():
        raise DataError(_nothing_in_common(table, manifest, n_skipped=len(skipped)))
    n_empty = len(rows) - len(skipped) - int(has_values.sum())
    if n_empty:
        log(f"{path.name}: {n_empty} clips have no values and do not count")
    n_others = len(table.names) - len(set(rows[rows >= 0]))
    if n_others:
        log(f"{path.name}: {n_others} rows are of clips that {manifest.source.name} does not have")
    probabilities = _as_probabilities(table.scores[rows[has_values]], path, log).astype(np.float32)
    judged = replace(manifest, clips=tuple(np.array(manifest.clips, object)[has_values]))
    y_true = _truth(judged, table.labels)
    return Predictions(
        clips=judged.clips,
        labels=table.labels,
        y_true=y_true,
        probabilities=probabilities,
        uncalibrated=probabilities,
        thresholds=_thresholds(y_true, probabilities, _parts(judged, y_true)),
        origins=tuple(_GIVEN for _ in judged.clips),
        durations=durations[has_values],
        features=None,
        skipped=skipped,
    )


def _nothing_in_common(table: _Rows, manifest: Manifest, *, n_skipped: int) -> str:
    if n_skipped < len(manifest.clips):
        return f"{table.path}: none of the clips of {manifest.source} has values in it"
    return (
        f"{table.path}: none of the {len(manifest.clips)} clips of {manifest.source} is in it; it names "
        f"{some_of(table.names, 2)}, the manifest {some_of([clip.name for clip in manifest.clips], 2)}"
    )


def _as_probabilities(scores: FloatArray, path: Path, log: Log) -> FloatArray:
    if ((scores >= 0) & (scores <= 1)).all():
        return scores
    if scores.min() >= 0:
        raise DataError(
            f"{path}: values from {scores.min():g} to {scores.max():g} are neither probabilities, from 0 to 1, nor "
            "logits, which are negative where a label is unlikely; divide percents by 100"
        )
    log(f"{path.name}: the values are not from 0 to 1, so they are taken for logits")
    probabilities: FloatArray = expit(scores)
    return probabilities


def _truth(manifest: Manifest, labels: LabelSet) -> BoolArray:
    known = set(labels.names)
    clips = (replace(clip, labels=tuple(filter(known.__contains__, clip.labels))) for clip in manifest.clips)
    return replace(manifest, clips=tuple(clips), labels=labels).multi_hot()


def _durations(clips: Sequence[Clip]) -> FloatArray:
    """The length of each clip in seconds, (n_clips,); NaN of images and of sounds that can't be read."""
    lengths: dict[Path, float] = {}
    durations = np.empty(len(clips))
    for number, clip in enumerate(clips):
        if clip.path not in lengths:
            lengths[clip.path] = _length(clip.path)
        durations[number] = (clip.end_seconds or lengths[clip.path]) - clip.start_seconds
    return durations


def _length(path: Path) -> float:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return math.nan
    try:
        return audio_info(path).duration_seconds
    except (AudioError, MissingExtraError):  # the table has heard it all the same
        return math.nan


def _parts(manifest: Manifest, y_true: BoolArray) -> IntArray:
    """Numbers of the parts that thresholds are fitted on by turns."""
    folds = manifest.folds
    if None not in folds and len(set(folds)) >= _LEAST_FOLDS:
        numbers = {fold: number for number, fold in enumerate(dict.fromkeys(folds))}
        return np.array([numbers[fold] for fold in folds])
    n_parts = min(_N_PARTS, len(set(manifest.groups)))
    return stratified_folds(y_true, n_parts, groups=manifest.groups) if n_parts > 1 else np.zeros(len(y_true), int)


def _thresholds(y_true: BoolArray, probabilities: Float32Array, parts: IntArray) -> Float32Array:
    """For each clip the thresholds (n_clips, n_labels) that the other parts like best."""
    thresholds = np.full(y_true.shape, DEFAULT_THRESHOLD, np.float32)
    for part in np.unique(parts):
        others = parts != part
        if others.any():
            fitted = fit_thresholds(y_true[others], probabilities[others])
            thresholds[~others] = np.where(np.isnan(fitted), DEFAULT_THRESHOLD, fitted)
    return thresholds


def _rows_of_clips(table: _Rows, manifest: Manifest, durations: FloatArray) -> IntArray:
    """The row of each clip, (n_clips,), by its whole name or else by a part of it; -1 where there is none."""
    of_clips = {name for clip in manifest.clips for name in _whole_names(clip)}
    by_whole_name: dict[str, list[int]] = defaultdict(list)
    by_part: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(table.names):
        if _whole_name(name) in of_clips:  # so it is no other's: a/1.wav is not b/1.wav
            by_whole_name[_whole_name(name)].append(row)
        else:
            for part in _parts_of(name):
                by_part[part].append(row)
    rows = np.full(len(manifest.clips), -1, np.int64)
    clip_of: dict[int, Clip] = {}
    for number, (clip, duration) in enumerate(zip(manifest.clips, durations, strict=True)):
        candidates = [by_whole_name.get(name) for name in _whole_names(clip)]
        candidates += [by_part.get(part) for part in _parts_of(clip.fname)]
        named = next(filter(None, candidates), [])
        fitting = [row for row in named if _is_stretch(table, row, clip, duration)]
        if len(fitting) > 1:
            raise DataError(f"{table.path}: has {len(fitting)} rows for {clip.name}; each clip needs one")
        for row in fitting:
            if row in clip_of:
                raise DataError(
                    f"{table.path}: {table.names[row]} may be {clip_of[row].name} or {clip.name}; name its folder, too"
                )
            clip_of[row], rows[number] = clip, row
    return rows


def _whole_name(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


def _whole_names(clip: Clip) -> tuple[str, str]:
    return _whole_name(str(clip.path)), _whole_name(clip.fname)


def _parts_of(name: str) -> dict[str, None]:
    """A file's name without its folders, and without its suffix, too."""
    path = PurePosixPath(_whole_name(name))
    return dict.fromkeys((path.name, path.stem))


def _is_stretch(table: _Rows, row: int, clip: Clip, duration: float) -> bool:
    """Whether a row is of the stretch that a clip is; a row without an end goes as far as the recording."""
    start, end = np.nan_to_num(table.starts[row]), table.ends[row]
    if abs(start - clip.start_seconds) > _SAME_TIME:
        return False
    if math.isnan(end):
        return clip.end_seconds is None
    return math.isnan(duration) or abs(end - clip.start_seconds - duration) <= _SAME_TIME


def _read(path: Path) -> _Rows:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a table of predictions")
    rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not rows.names:
        raise DataError(f"{path}: the table has no rows; expected one for each clip")
    return rows


def _read_csv(path: Path) -> _Rows:
    text = read_text(path)
    table = open_table(path, text, _delimiter(text))
    columns = _Columns.of(path, table.columns)
    numbered = [place for place in (columns.start, columns.end) if place is not None]
    names, numbers = [], []
    for line, fields in table.records:
        names.append(fields[columns.name])
        try:
            numbers.append([_number(fields[place]) for place in (*numbered, *columns.labels)])
        except ValueError as error:
            wrong = next(place for place in (*numbered, *columns.labels) if not _is_number(fields[place]))
            raise DataError(
                f"{path}, line {line}: the column {table.columns[wrong]!r} holds {fields[wrong]!r}; expected a number, "
                "for every column but those of files and times is a label's"
            ) from error
    values = np.array(numbers, np.float64).reshape(len(names), len(numbered) + len(columns.labels))
    return _rows(path, names, table.columns, columns, dict(zip((*numbered, *columns.labels), values.T, strict=True)))


def _delimiter(text: str) -> str:
    """The mark that parts the header into the most columns: labels may hold the others."""
    header = first_lines(text, 1)
    return max(",;\t", key=lambda mark: max((len(names) for names in csv.reader(header, delimiter=mark)), default=0))


def _number(field: str) -> float:
    """NaN where there is none; a decimal comma will do, as spreadsheets write it in many countries."""
    return float(field.replace(",", ".") or "nan")


def _is_number(field: str) -> bool:
    try:
        _number(field)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> _Rows:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "evaluate", f"{path}: reading Parquet") from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: can't be read as Parquet: {error}") from error

    def is_number(place: int) -> bool:
        kind = table.schema.field(place).type
        return bool(pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind))

    columns = _Columns.of(path, tuple(table.column_names), is_number)
    numbered = [place for place in (columns.start, columns.end, *columns.labels) if place is not None]
    values = {place: _floats(table.column(place)) for place in numbered}
    names = [str(name) for name in table.column(columns.name).to_pylist()]
    return _rows(path, names, tuple(table.column_names), columns, values)


def _floats(column: Any) -> FloatArray:
    """A column of numbers, NaN where it is null."""
    values: FloatArray = column.cast("float64").to_numpy()
    return values


@dataclass(frozen=True)
class _Columns:
    """Where the columns of a table are."""

    name: int
    start: int | None
    end: int | None
    labels: tuple[int, ...]

    @classmethod
    def of(
        cls, path: Path, columns: Sequence[str], is_number: Callable[[int], bool] = lambda place: True
    ) -> "_Columns":
        lower = [column.lower() for column in columns]

        def place_of(names: Sequence[str]) -> int | None:
            return next((lower.index(name.lower()) for name in names if name.lower() in lower), None)

        name = place_of(COLUMNS["fname"])
        name, start, end = 0 if name is None else name, place_of(_STARTS), place_of(_ENDS)
        labels = tuple(
            place
            for place, column in enumerate(lower)
            if column not in CLIP_COLUMNS and place not in (name, start, end) and is_number(place)
        )
        if not labels:
            raise DataError(
                f"{path}: no columns of probabilities; expected fname and a column for each label. "
                f"The columns are {some_of(list(columns))}"
            )
        return cls(name, start, end, labels)


def _label_of(column: str) -> str:
    """The label of a column; see `spectag.models.out_of_fold.label_columns`."""
    name = column.removesuffix(LABEL_MARK)
    return name if name.lower() in CLIP_COLUMNS else column


def _rows(
    path: Path, names: list[str], header: Sequence[str], columns: _Columns, values: dict[int, FloatArray]
) -> _Rows:
    scores = np.stack([values[place] for place in columns.labels], axis=1)
    unknown = np.full(len(names), np.nan)
    rows = _Rows(
        path,
        names,
        unknown if columns.start is None else values[columns.start],
        unknown if columns.end is None else values[columns.end],
        LabelSet(tuple(_label_of(header[place]) for place in columns.labels)),
        scores,
    )
    missing = np.isnan(scores)
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any() or np.isinf(scores).any():
        row = int((partly | np.isinf(scores).any(axis=1)).argmax())
        place = int((missing[row] | np.isinf(scores[row])).argmax())
        raise DataError(
            f"{path}: {names[row]} has {'no value' if missing[row, place] else 'infinity'} for "
            f"{rows.labels.names[place]!r}; expected a number for each label, or for none"
        )
    return rows
