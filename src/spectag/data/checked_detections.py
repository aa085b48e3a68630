"""A sample of detections that people check by ear: decisions.csv with their decisions, check.json about the sample.

Each row of the table is a sampled detection. Its weight says how many detections of the whole table it stands for, so
that weighted counts of the sample estimate those of the table.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from pydantic import Field

from spectag.config.base import Config, parse_config
from spectag.data.corrections import join_labels
from spectag.data.labels import split_labels
from spectag.data.readers.columns import find_delimiter
from spectag.data.readers.delimited_text import Table, abbreviate, open_table, parse_times
from spectag.data.readers.text_files import read_text, shorten
from spectag.errors import ConfigError, DataError
from spectag.system.output import csv_writer, one_line, open_output
from spectag.system.regular_files import read_regular_file

SAMPLE_FILE, DECISIONS_FILE, CHECK_FILE = "sample.csv", "decisions.csv", "check.json"
SAMPLE_COLUMNS = (
    *("file", "start", "end", "label", "probability", "site", "recorded"),
    *("stratum", "n_in_stratum", "weight"),
)
DECISION_COLUMNS = (*SAMPLE_COLUMNS, "decision", "other_labels", "reviewer", "time", "comment")
Decision = Literal["yes", "no", "unsure", ""]
"""Whether the label is true; empty: nobody has decided yet."""

_REQUIRED = ("file", "label", "probability", "stratum", "n_in_stratum", "weight", "decision")
_MAX_COUNT = 10**12
_MAX_JSON_BYTES = 64_000_000
_SCORE_BAND = re.compile(r"score [01]\.\d+ to ([01]\.\d+)")  # a part of the name of a stratum
_TOLERANCE = 1e-3  # of weights that a spreadsheet rounded, relative


class DetectionKey(NamedTuple):
    """Identifies a detection of a table."""

    file: str
    start: float
    end: float | None
    label: str


@dataclass(frozen=True)
class CheckedDetection:
    """A sampled detection, and what somebody decided about it."""

    file: str
    """The recording, as in the table of detections."""
    start_seconds: float
    end_seconds: float | None
    """None: the end of the recording."""
    label: str
    probability: float | None
    """None: the table has none."""
    site: str
    recorded: datetime | None
    """When the detection starts, by the clock of the recorder; None: unknown."""
    stratum: str
    """The part of the label's detections that it was drawn from."""
    n_in_stratum: int
    """Detections of the table in the stratum."""
    weight: float
    """How many detections of the table it stands for: `n_in_stratum`, divided by those of the stratum in the sample."""
    decision: Decision = ""
    other_labels: tuple[str, ...] = ()
    """Other labels that the reviewer heard."""
    reviewer: str = ""
    time: datetime | None = None
    """Of the decision, with a time zone."""
    comment: str = ""
    line: int | None = field(default=None, compare=False)
    """Line in the table."""

    @property
    def key(self) -> DetectionKey:
        """Identifies the detection."""
        return DetectionKey(self.file, self.start_seconds, self.end_seconds, self.label)

    @property
    def others_below(self) -> float:
        """The upper end of the score band that its stratum is made of, infinite if the others may have any score."""
        ends = [float(match[1]) for part in self.stratum.split("; ") if (match := _SCORE_BAND.fullmatch(part))]
        return ends[0] if len(ends) == 1 and ends[0] < 1 else math.inf

    def fields(self) -> list[str]:
        """The row of decisions.csv; its first fields are the row of sample.csv."""
        return [
            self.file,
            _number_text(self.start_seconds),
            _number_text(self.end_seconds),
            self.label,
            _number_text(self.probability),
            self.site,
            "" if self.recorded is None else self.recorded.isoformat(timespec="milliseconds"),
            self.stratum,
            str(self.n_in_stratum),
            _number_text(self.weight),
            self.decision,
            join_labels(self.other_labels),
            one_line(self.reviewer),
            "" if self.time is None else self.time.isoformat(timespec="seconds"),
            one_line(self.comment),
        ]


class SampledLabel(Config):
    """The detections of a label in the table, and how many of them were sampled."""

    n_detections: int = Field(ge=0, le=_MAX_COUNT)
    n_sampled: int = Field(ge=0, le=_MAX_COUNT)
    lowest_probability: float | None = Field(ge=0, le=1)
    """Of its detections in the table; None: the table has no probabilities."""


class CheckInfo(Config):
    """How a sample was drawn; the content of check.json."""

    format_version: Literal[1] = 1
    table: str
    """The table of detections."""
    model: str
    seed: int = Field(ge=0, lt=2**32)
    n_per_label: int | None = Field(ge=1, le=10**9)
    """Detections of each label that were to be sampled; None: all."""
    across: tuple[Literal["scores", "sites", "hours"], ...]
    """What the strata are made of."""
    presence: bool = False
    """The most probable detections of each site and day instead of random ones. Such a sample says nothing about the
    other detections, so neither precision nor thresholds can be estimated from it."""
    site_from: str | None = None
    min_probability: float = Field(0.0, ge=0, le=1)
    """Detections below were left out."""
    max_probability: float | None = Field(None, ge=0, le=1)
    """Detections at or above were left out; None: none."""
    created: datetime
    spectag: str
    """The version that drew the sample."""
    fingerprint: str = ""
    """Of the detections in the table."""
    labels: dict[str, SampledLabel]


def read_decisions(path: str | Path) -> list[CheckedDetection]:
    """Read decisions.csv, in the order of its rows.

    Parameters
    ----------
    path : str or Path
        The table that `spectag check` writes. Spreadsheet programs may have saved it again.

    Returns
    -------
    list of CheckedDetection
        Also those that nobody has decided: their decision is empty.

    Raises
    ------
    DataError
        If it can't be read, a column is missing, a field is wrong (the message gives its line), a detection is listed
        twice, or rows of a stratum are missing, so that the weights would be wrong.
    """
    path = Path(path)
    if not path.is_file():
        problem = "this is not a file" if path.exists() else "no such file"
        raise DataError(f"{path}: {problem}; expected the decisions.csv that spectag check writes")
    text = read_text(path)
    table = open_table(path, text, find_delimiter(text))
    positions = {name: position for name in DECISION_COLUMNS if (position := table.position(name)) is not None}
    if missing := [name for name in _REQUIRED if name not in positions]:
        raise DataError(
            f"{path}: no column {abbreviate(missing)}; expected the decisions.csv that spectag check writes. The "
            f"columns are {abbreviate(list(table.columns), 12)}"
        )
    rows = [_parse_row(table, line, fields, positions) for line, fields in table.records]
    _check_rows(path, rows)
    return rows


def write_decisions(path: Path, rows: Iterable[CheckedDetection]) -> None:
    """Write decisions.csv, whole or not at all; a DataError if that fails."""
    _write(path, DECISION_COLUMNS, rows)


def write_sample(path: Path, rows: Iterable[CheckedDetection]) -> None:
    """Write sample.csv: the rows without the decisions."""
    _write(path, SAMPLE_COLUMNS, rows)


def read_check_info(path: str | Path) -> CheckInfo:
    """Read a check.json; of a table or a folder, the one in the same folder.

    Raises
    ------
    DataError
        If it can't be read, or its content is wrong.
    """
    path = Path(path)
    if path.name != CHECK_FILE:
        path = (path if path.is_dir() else path.parent) / CHECK_FILE
    try:
        content = read_regular_file(path, max_bytes=_MAX_JSON_BYTES)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected the check.json that spectag check writes") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON; expected the check.json that spectag check writes") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected an object, as spectag check writes it")
    try:
        return parse_config(values, CheckInfo, source=str(path))
    except ConfigError as error:
        raise DataError(str(error)) from error


def write_check_info(path: Path, info: CheckInfo) -> None:
    """Write check.json, whole or not at all; a DataError if that fails."""
    with open_output(path) as file:
        file.write(info.model_dump_json(indent=2) + "\n")


def _write(path: Path, columns: Sequence[str], rows: Iterable[CheckedDetection]) -> None:
    with open_output(path) as file:
        write_row = csv_writer(file)
        write_row(columns)
        for row in rows:
            write_row(row.fields()[: len(columns)])


def _number_text(value: float | None) -> str:
    return "" if value is None else f"{value!r}".removesuffix(".0")


def _parse_row(table: Table, line: int, record: list[str], positions: Mapping[str, int]) -> CheckedDetection:
    where = f"{table.path}, line {line}"
    values = {name: record[positions[name]] if name in positions else "" for name in DECISION_COLUMNS}
    for name, expected in (("file", "the name of a recording"), ("label", "the name of a sound")):
        if not values[name]:
            raise DataError(f"{where}: {name} is empty; expected {expected}")
    decision = values["decision"].lower()
    if decision not in get_args(Decision):
        raise DataError(f"{where}: decision is {_shown(values['decision'])}; expected yes, no, unsure or nothing")
    n_in_stratum = _number(values["n_in_stratum"], "n_in_stratum", 1, _MAX_COUNT, where)
    if n_in_stratum != round(n_in_stratum):
        raise DataError(f"{where}: n_in_stratum is {_shown(values['n_in_stratum'])}; expected a whole number")
    return CheckedDetection(
        values["file"],
        *parse_times(values, where),
        values["label"],
        _number(values["probability"], "probability", 0, 1, where) if values["probability"] else None,
        values["site"],
        _time(values["recorded"], "recorded", where) if values["recorded"] else None,
        values["stratum"],
        round(n_in_stratum),
        _number(values["weight"], "weight", 1 - _TOLERANCE, _MAX_COUNT, where),
        cast("Decision", decision),
        split_labels(values["other_labels"]),
        values["reviewer"],
        _time(values["time"], "time", where, needs_zone=True) if values["time"] else None,
        values["comment"],
        line,
    )


def _number(text: str, name: str, low: float, high: float, where: str) -> float:
    value = math.nan
    with suppress(ValueError):
        value = float(text.replace(",", "."))
    if low <= value <= high:  # not if it is NaN
        return value
    raise DataError(f"{where}: {name} is {_shown(text)}; expected a number from {low:g} to {high:g}")


def _time(text: str, name: str, where: str, *, needs_zone: bool = False) -> datetime:
    with suppress(ValueError):
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None or not needs_zone:
            return time
    zone, example = (" with its time zone", "2026-05-01T14:30:00+02:00") if needs_zone else ("", "2026-05-01T05:30:00")
    raise DataError(f"{where}: {name} is {_shown(text)}; expected a time{zone}, such as {example}")


def _shown(text: str) -> str:
    return f"'{shorten(text)}'"


def _check_rows(path: Path, rows: Sequence[CheckedDetection]) -> None:
    """Raise a DataError if a detection is listed twice, or if rows of a stratum do not fit together."""
    first_lines: dict[Any, int | None] = {}
    strata: dict[tuple[str, str], list[CheckedDetection]] = defaultdict(list)
    for row in rows:
        if row.key in first_lines:
            raise DataError(
                f"{path}, line {row.line}: the same detection as in line {first_lines[row.key]}; delete one of them"
            )
        first_lines[row.key] = row.line
        strata[row.label, row.stratum].append(row)
    for (label, stratum), members in strata.items():
        [(n_in_stratum, _), *others] = Counter(row.n_in_stratum for row in members).most_common()
        n_sampled = n_in_stratum / members[0].weight
        weights = [row.weight for row in members]
        if others or max(weights) - min(weights) > _TOLERANCE * max(weights):
            raise DataError(
                f"{path}: the rows of {shorten(label)} in the stratum {_shown(stratum)} have different weights or "
                "n_in_stratum; expected those of sample.csv"
            )
        if abs(n_sampled - len(members)) > _TOLERANCE * len(members):
            raise DataError(
                f"{path}: {len(members):,} rows of {shorten(label)} are in the stratum {_shown(stratum)}, but "
                f"{n_sampled:,.0f} were sampled, so the weights are wrong; expected all rows of sample.csv, also those "
                "without a decision"
            )
