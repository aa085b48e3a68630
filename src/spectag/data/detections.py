"""Tables of detections: of spectag, Raven, Audacity, BirdNET-Analyzer, Kaleidoscope and OpenSoundscape."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from spectag.data.manifest import read_rows
from spectag.data.readers.annotations import is_label_track, read_detection_folder
from spectag.data.readers.columns import find_delimiter, open_manifest_table, time_role
from spectag.data.readers.delimited_text import Record, Table, abbreviate, normal_name, parse_time_field
from spectag.data.readers.file_finder import FileFinder
from spectag.data.readers.rows import TableOptions
from spectag.data.readers.text_files import read_text, shorten, split_lines
from spectag.data.sites import RecordingPlace, place_in_table
from spectag.errors import DataError
from spectag.system.output import unescape_formula
from spectag.system.parquet import load_pyarrow

_N_PEEKED = 200  # records, to see whether a table has a column for each label
_PROBABILITIES = ("probability", "confidence", "score", "conf", "detection_confidence", "prob")
_DISTANCE = "top1dist"  # Kaleidoscope: 1 minus the probability
_FILES = ("file", "filename", "fname", "path", "file_path", "filepath", "audio_file")
TAG_COLUMNS = ("file", "start", "end", "label", "probability")
"""Of the tables of `spectag tag`."""
PLACE_COLUMNS = ("recorded", "site")
"""Also of these tables, if wanted: when the sound starts (ISO 8601), and where it was recorded."""


@dataclass(frozen=True, slots=True)
class DetectedSound:
    """A label that was detected in a recording, or annotated there."""

    path: Path
    """The recording; the same path however the table spells it."""
    file: str
    """Its name in the table."""
    start_seconds: float
    end_seconds: float | None
    """None: the end of the recording."""
    label: str
    probability: float | None = None
    """None: the table has none."""

    @property
    def span(self) -> tuple[float, float | None]:
        """Start and end in seconds."""
        return self.start_seconds, self.end_seconds


@dataclass(frozen=True)
class DetectionTable:
    """The detections of a table, and the recordings that it names."""

    source: Path
    detections: tuple[DetectedSound, ...]
    recordings: tuple[Path, ...]
    """Also those without a detection."""
    places: Mapping[Path, RecordingPlace] = field(default_factory=dict)
    """Sites and starts of recordings, as far as the table has `PLACE_COLUMNS`."""


class _Row(NamedTuple):
    """A detection before its recording is found."""

    source: Path
    file: str
    start_seconds: float
    end_seconds: float | None
    label: str | None
    """None: a line without a label, which names only its recording."""
    probability: float | None
    recorded: str | None = None
    """None: the table has no `PLACE_COLUMNS`."""
    site: str | None = None


class _WindowMinimum(NamedTuple):
    """The least probability of a detection in a table of windows, and the option that sets it."""

    probability: float
    option: str | None


def read_detections(
    table: str | Path,
    *,
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    min_probability: float = 0.0,
    max_probability: float = math.inf,
    min_in_windows: float | None = None,
    min_option: str | None = "--min",
    missing_ok: bool = False,
) -> DetectionTable:
    """Read a table of detections, and find the recordings that it names.

    Parameters
    ----------
    table : path
        A file that `spectag tag` wrote (csv, tsv, json, jsonl, parquet, wide, wide-parquet), a selection table, a label
        track, results of BirdNET-Analyzer, Kaleidoscope or OpenSoundscape, or a folder of selection tables or label
        tracks.
    audio_dir : path, optional
        Folder of the recordings, if they are not beside the table.
    label_column, label_separator : str, optional
        As for `read_manifest`.
    min_probability, max_probability : float
        Detections below the first, or at or above the second, are left out. Those without a probability are kept.
    min_in_windows : float, optional
        The least probability of a detection in a table with a probability for each label in each window. By default
        `min_probability`; such a table needs one of them.
    min_option : str, optional
        The option of the command line that sets this minimum, for messages; None: there is none.
    missing_ok : bool
        Keep detections in recordings that are not found; their path is the name in the table. The table may be empty.

    Raises
    ------
    DataError
        If the table is not understood, is a folder of recordings, has no detections, or names recordings that are not
        found; or if a line has no label, an impossible time, or a probability outside of 0 to 1.
    """
    source = Path(table)
    finder = FileFinder(None if audio_dir is None else Path(audio_dir))
    minimum = _WindowMinimum(min_probability if min_in_windows is None else min_in_windows, min_option)
    detections, recordings, missing = list[DetectedSound](), dict[Path, Path](), dict[str, Path]()
    places: dict[Path, RecordingPlace] = {}
    for row in _rows(source, finder, TableOptions(None, label_column, label_separator), minimum):
        found = finder.find(row.file, row.source) or (Path(row.file) if missing_ok else None)
        if found is None:
            missing[row.file] = row.source
            continue
        if found not in recordings:
            recordings[found] = found.resolve()
            if row.recorded is not None and row.site:
                message = f"{row.source}, {shorten(row.file)}"
                places[recordings[found]] = place_in_table(row.site, row.recorded, row.start_seconds, message)
        if row.label is None:
            continue
        if row.probability is None or min_probability <= row.probability < max_probability:
            detections.append(DetectedSound(recordings[found], *row[1:4], row.label, row.probability))
    if missing:
        name, where = next(iter(missing.items()))
        folders = abbreviate(str(folder) for folder in finder.folders(where))
        raise DataError(
            f"{source}: {len(missing)} recordings are not found, such as {name}. Searched in {folders}; name the "
            "folder that contains them with --audio-dir"
        )
    if not recordings and not missing_ok:
        raise DataError(f"{source}: the table has no detections; expected a line for each detected sound")
    return DetectionTable(source, tuple(detections), tuple(dict.fromkeys(recordings.values())), places)


def _rows(source: Path, finder: FileFinder, options: TableOptions, minimum: _WindowMinimum) -> Iterator[_Row]:
    suffix = source.suffix.lower()
    if suffix == ".parquet" and source.is_file():
        return _parquet_rows(source, minimum)
    if suffix in (".json", ".jsonl", ".ndjson") and source.is_file():
        return _json_rows(source)
    if source.is_file() and options.label_column is None:
        text = read_text(source)
        if not is_label_track(text):
            table, first = open_manifest_table(source, text).peek(_N_PEEKED)
            if tuple(table.columns[: len(TAG_COLUMNS)]) == TAG_COLUMNS and options.label_separator is None:
                return _tag_rows(table, is_escaped=find_delimiter(text) == "\t")  # `open_table` unescaped others
            if labels := _columns_of_labels(table, first):
                return _wide_rows(table, labels, minimum)
    return _annotation_rows(source, finder, options)


def _tag_rows(table: Table, *, is_escaped: bool) -> Iterator[_Row]:
    """A row for each line of a CSV of `spectag tag`, with one label, which may contain commas."""
    columns = [table.position(name) for name in PLACE_COLUMNS]
    for line, fields in table.records:
        if is_escaped:
            fields = [unescape_formula(field) for field in fields]
        file, start, end, label, probability = fields[: len(TAG_COLUMNS)]
        where = f"{table.path}, line {line}"
        begin = parse_time_field(start, "the start", where)
        stop = parse_time_field(end, "the end", where) if end else None
        place = [None if column is None else fields[column] for column in columns]
        yield _checked(_Row(table.path, file, begin, stop, label, _number(probability, where), *place), where)


def _checked(row: _Row, where: str, *, needs_label: bool = True) -> _Row:
    """The row, or a DataError if one of its fields, which may have any type, cannot be true."""
    file, start, end, label, probability, *place = row[1:]
    if not _is_text(file):
        raise DataError(f"{where}: the file name is {_shown(file)}; expected the name of a recording")
    for value in place:
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: recorded or site is {_shown(value)}; expected a text")
    if needs_label and not _is_text(label):
        raise DataError(f"{where}: the label is {_shown(label)}; expected the name of a sound")
    for name, seconds in (("start", start), ("end", start if end is None else end)):
        if not _is_number_up_to(seconds, sys.float_info.max):
            raise DataError(f"{where}: the {name} is {_shown(seconds)}; expected seconds, 0 or more")
    if end is not None and end <= start:
        times = f"ends at {end:g} s but starts at {start:g} s"
        raise DataError(f"{where}: the sound {times}; expected an end after the start")
    if probability is not None and not _is_number_up_to(probability, 1):
        raise DataError(f"{where}: the probability is {_shown(probability)}; expected a number from 0 to 1")
    return row


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number_up_to(value: Any, most: float) -> bool:
    """Whether a value is a number from 0 to `most`. NaN is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _shown(value: Any) -> str:
    """A value of any type in a message."""
    return "missing" if value is None else shorten(repr(value))


def _annotation_rows(source: Path, finder: FileFinder, options: TableOptions) -> Iterator[_Row]:
    """A row for each label in each line of a table, or of a folder of tables."""
    is_folder = source.is_dir()
    rows = read_detection_folder(source, finder, options) if is_folder else read_rows(source, finder, options)[0]
    probabilities: dict[Path, dict[int, float]] = {}
    for row in rows:
        if row.source not in probabilities:
            probabilities[row.source] = _probabilities(row.source) if row.source.is_file() else {}
        probability = probabilities[row.source].get(row.line or 0)
        for label in row.labels or (None,):
            yield _Row(row.source, row.fname, row.start_seconds, row.end_seconds, label, probability)


def _probabilities(path: Path) -> dict[int, float]:
    """The probability in each line of a table; empty if it has no such column."""
    text = read_text(path)
    if is_label_track(text):
        return {}
    table = open_manifest_table(path, text)
    position, distance = table.position(*_PROBABILITIES), table.position(_DISTANCE)
    if position is None and distance is None:
        return {}
    column = distance if position is None else position
    values = ((line, _number(fields[column or 0], f"{path}, line {line}")) for line, fields in table.records)
    return {line: value if column == position else 1 - value for line, value in values if value is not None}


def _number(field: str, where: str) -> float | None:
    """A probability; None for an empty field."""
    if not field.strip():
        return None
    try:
        value = float(field.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: the probability is {field[:80]!r}; expected a number such as 0.83")
    return value


def _columns_of_labels(table: Table, first: Sequence[Record]) -> dict[int, str]:
    """The columns of probabilities, one for each label, of a table with a row for each window; otherwise none.

    OpenSoundscape's `predict` and `spectag tag --format wide` write such tables.
    """
    file = table.position(*_FILES)
    times = {position for position, name in enumerate(table.columns) if time_role(name) in ("start", "end")}
    labels = {position: name for position, name in enumerate(table.columns) if name and position not in (file, *times)}
    if (
        file is None
        or len(times) != 2
        or not labels
        or {normal_name(name) for name in labels.values()} & {*_PROBABILITIES}
    ):
        return {}
    values = {fields[position] for _, fields in first for position in labels}
    return labels if values and all(map(_is_number, values)) and not values <= {"0", "1"} else {}


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _check_minimum(source: Path, n_labels: int, minimum: _WindowMinimum) -> None:
    """Raise a DataError if nobody said which probabilities of windows are detections."""
    if minimum.probability:
        return
    option = minimum.option
    remedy = (
        "expected a start, an end and a label in each line"
        if option is None
        else f"say which probabilities are detections with {option}, such as {option} 0.5"
    )
    raise DataError(
        f"{source}: the table has a probability for each of {n_labels} labels in each window, not detections; {remedy}"
    )


def _wide_rows(table: Table, labels: dict[int, str], minimum: _WindowMinimum) -> Iterator[_Row]:
    _check_minimum(table.path, len(labels), minimum)
    roles = {time_role(name): position for position, name in reversed(list(enumerate(table.columns)))}
    file = table.position(*_FILES) or 0
    for line, fields in table.records:
        where = f"{table.path}, line {line}"
        start = parse_time_field(fields[roles["start"]], "the start", where)
        end = parse_time_field(fields[roles["end"]], "the end", where) if fields[roles["end"]] else None
        window = _Row(table.path, fields[file], start, end, None, None)
        yield _checked(window, where, needs_label=False)  # names the recording
        for position, label in labels.items():
            probability = _number(fields[position], where)
            if probability is not None:
                row = _checked(window._replace(label=label, probability=probability), where)
                if probability >= minimum.probability:
                    yield row


def _json_rows(source: Path) -> Iterator[_Row]:
    """A row for each tag in JSON or JSON Lines of `spectag tag`."""
    for where, text_or_record in _json_records(source):
        try:
            record = json.loads(text_or_record) if isinstance(text_or_record, str) else text_or_record
            file, start, end = (record[name] for name in ("file", "start", "end"))
            tags = [(tag["label"], tag["probability"]) for tag in record["tags"]]
            place = [record.get(name) for name in PLACE_COLUMNS]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{where}: expected an object with file, start, end and tags, as spectag tag writes it"
            ) from error
        for label, probability in tags or ((None, None),):
            row = _Row(source, file, start, end, label, probability, *place)
            yield _checked(row, where, needs_label=bool(tags))


def _json_records(source: Path) -> Iterator[tuple[str, Any]]:
    """The place and the content of each object: its text in JSON Lines, the object in a JSON list."""
    text = read_text(source)
    if source.suffix.lower() != ".json":
        yield from ((f"{source}, line {n}", line) for n, line in enumerate(split_lines(text), start=1) if line.strip())
        return
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not JSON: {error}") from error
    if not isinstance(records, list):
        raise DataError(f"{source}: expected a list of objects, as spectag tag writes it")
    yield from ((f"{source}, entry {number}", record) for number, record in enumerate(records, start=1))


def _parquet_rows(source: Path, minimum: _WindowMinimum) -> Iterator[_Row]:
    """The rows of a Parquet file of `spectag tag`, or of one with a column of probabilities for each label."""
    arrow, parquet = load_pyarrow(purpose="reading Parquet")
    try:
        file = parquet.ParquetFile(source)
        schema = file.schema_arrow
        if lacking := [name for name in TAG_COLUMNS if name not in schema.names]:
            if columns := _wide_parquet_columns(schema.names, [*map(arrow.types.is_floating, schema.types)]):
                yield from _wide_parquet_rows(source, file, columns, minimum)
                return
            raise DataError(f"{source}: there is no column {abbreviate(lacking)}; expected those of spectag tag")
        names = [*TAG_COLUMNS, *(name for name in PLACE_COLUMNS if name in schema.names)]
        records = (record for batch in file.iter_batches(columns=names) for record in batch.to_pylist())
        for number, record in enumerate(records, start=1):
            row = _Row(source, *map(record.get, (*TAG_COLUMNS, *PLACE_COLUMNS)))
            yield _checked(row, f"{source}, row {number}")
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: can't be read as Parquet: {error}") from error


class _WideColumns(NamedTuple):
    """Positions of the columns of a Parquet table with a row for each window."""

    file: int
    start: int
    end: int
    labels: dict[int, str]


def _wide_parquet_columns(names: Sequence[str], is_number: Sequence[bool]) -> _WideColumns | None:
    """The columns of a table of windows: a file, two times, and numbers for each label; None for another table."""
    files = [position for position, name in enumerate(names) if normal_name(name) in _FILES]
    roles = {time_role(name): position for position, name in reversed(list(enumerate(names)))}
    if not files or "start" not in roles or "end" not in roles:
        return None
    times = files[0], roles["start"], roles["end"]
    labels = {position: name for position, name in enumerate(names) if position not in times}
    is_wide = labels and all(is_number[position] for position in labels)
    return _WideColumns(*times, labels) if is_wide else None


def _wide_parquet_rows(source: Path, file: Any, columns: _WideColumns, minimum: _WindowMinimum) -> Iterator[_Row]:
    _check_minimum(source, len(columns.labels), minimum)
    windows = (window for batch in file.iter_batches() for window in zip(*map(_values, batch.columns), strict=True))
    for number, window in enumerate(windows, start=1):
        where = f"{source}, row {number}"
        row = _Row(source, window[columns.file], window[columns.start], window[columns.end], None, None)
        yield _checked(row, where, needs_label=False)  # names the recording
        for position, label in columns.labels.items():
            if window[position] is not None:
                detection = _checked(row._replace(label=label, probability=window[position]), where)
                if window[position] >= minimum.probability:
                    yield detection


def _values(column: Any) -> list[Any]:
    """A column of Arrow as a list."""
    values: list[Any] = column.to_pylist()
    return values
