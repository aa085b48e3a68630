"""Corrections of labels, kept in a table beside the manifest.

A row contains who gave new labels to a clip, when, the old and the new labels, and a comment. Corrections are applied
when a manifest is read; the manifest file itself is never changed. A row whose labels are the same before and after
records that somebody reviewed the clip and confirmed its labels.
"""

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from spectag.data.clips import Clip, Manifest
from spectag.data.labels import MISSING_VALUES, NO_LABEL, LabelSet, split_labels
from spectag.data.readers.columns import find_delimiter
from spectag.data.readers.delimited_text import Table, abbreviate, open_table, parse_times, read_text
from spectag.data.readers.rows import clip_name, format_times
from spectag.errors import DataError, did_you_mean
from spectag.system.output import escape_formula, open_binary_output

CORRECTION_COLUMNS = ("reviewer", "time", "fname", "start", "end", "old_labels", "new_labels", "comment")
_REQUIRED = ("reviewer", "time", "fname", "old_labels", "new_labels")

ClipKey = tuple[str, float, float | None]
"""Identifies a clip in a table of corrections: file name, start and end in seconds."""


@dataclass(frozen=True)
class Correction:
    """A reviewer's decision about the labels of a clip."""

    reviewer: str
    time: datetime
    """With a time zone."""
    fname: str
    old_labels: tuple[str, ...]
    new_labels: tuple[str, ...]
    start_seconds: float = 0.0
    end_seconds: float | None = None
    comment: str = ""
    line: int | None = None
    """Line in the table."""

    @property
    def key(self) -> ClipKey:
        """Identifies the clip."""
        return correction_key(self)

    @property
    def changes(self) -> bool:
        """Whether the new labels differ from the old ones; if not, the reviewer confirmed them."""
        return set(self.old_labels) != set(self.new_labels)

    @property
    def name(self) -> str:
        """The file name, followed by the times if the clip is only a part of the file."""
        return clip_name(self.fname, self.start_seconds, self.end_seconds)

    def fields(self) -> dict[str, str]:
        """The row of a table of corrections, by column."""
        time, times = self.time.isoformat(timespec="seconds"), format_times(self.start_seconds, self.end_seconds)
        labels = map(join_labels, (self.old_labels, self.new_labels))
        values = (self.reviewer, time, self.fname, *times, *labels, self.comment)
        return dict(zip(CORRECTION_COLUMNS, values, strict=True))


@dataclass(frozen=True)
class Corrections:
    """A table of corrections, in the order of their times."""

    source: Path
    rows: tuple[Correction, ...]

    def last(self) -> dict[ClipKey, Correction]:
        """The last correction of each clip, which is the valid one, by the clip's key."""
        return {row.key: row for row in self.rows}

    def summary(self) -> str:
        """How many clips get other labels, and how many were confirmed, in one line."""
        n_changed = sum(row.changes for row in self.last().values())
        n_confirmed = len(self.last()) - n_changed
        confirmed = f"; {n_confirmed} more were reviewed and confirmed" if n_confirmed else ""
        return f"corrections: {n_changed} {'clip has' if n_changed == 1 else 'clips have'} new labels{confirmed}"


def correction_key(clip: Clip | Correction) -> ClipKey:
    """The key that identifies a clip in a table of corrections."""
    name = unicodedata.normalize("NFC", clip.fname.replace("\\", "/"))
    return name, round(clip.start_seconds, 3), None if clip.end_seconds is None else round(clip.end_seconds, 3)


def join_labels(labels: Iterable[str], *, separator: str = ",") -> str:
    """The labels in one field, separated by commas or another character.

    A label that contains the separator, or would be read as no label, is quoted.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="", delimiter=separator).writerow(labels)
    text = out.getvalue()
    if text in NO_LABEL | MISSING_VALUES:
        return f'"{text}"' if text else ""
    return "" if text == '""' else text


def read_corrections(path: str | Path) -> Corrections:
    """Read a table of corrections.

    Parameters
    ----------
    path : str or Path
        A CSV with the columns reviewer, time, fname, old_labels and new_labels and, optionally, start, end and
        comment. Semicolons, byte order marks and cp1252 are accepted, as in manifests.

    Raises
    ------
    DataError
        If the file can't be read, a column is missing, or a row is incomplete (the message gives its line).
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path}: no such file; save corrections.csv from the page that spectag review writes, or create it with "
            "spectag review --accept-above"
        )
    text = read_text(path)
    table = open_table(path, text, find_delimiter(text))
    positions = {name: position for name in CORRECTION_COLUMNS if (position := table.position(name)) is not None}
    missing = [name for name in _REQUIRED if name not in positions]
    if missing:
        raise DataError(
            f"{path}: no column {abbreviate(missing)}; expected {', '.join(CORRECTION_COLUMNS)}. The columns are "
            f"{abbreviate(list(table.columns), 12)}"
        )
    rows = [_parse_row(table, line, fields, positions) for line, fields in table.records]
    return Corrections(path, tuple(sorted(rows, key=lambda row: row.time)))


def _parse_row(table: Table, line: int, record: list[str], positions: dict[str, int]) -> Correction:
    where = f"{table.path}, line {line}"
    fields = {name: record[position] for name, position in positions.items()}
    for name, expected in (("reviewer", "the reviewer's name"), ("fname", "a file name, as in the manifest")):
        if not fields[name]:
            raise DataError(f"{where}: {name} is empty; expected {expected}")
    time, times = _parse_time(fields["time"], where), parse_times(fields, where)
    labels = split_labels(fields["old_labels"]), split_labels(fields["new_labels"])
    return Correction(fields["reviewer"], time, fields["fname"], *labels, *times, fields.get("comment", ""), line)


def _parse_time(field: str, where: str) -> datetime:
    with suppress(ValueError):
        time = datetime.fromisoformat(field)
        if time.tzinfo is not None:
            return time
    raise DataError(
        f"{where}: time is {field!r}; expected a time with its time zone, such as 2026-05-01T14:30:00+02:00"
    )


def apply_corrections(manifest: Manifest, corrections: Corrections) -> Manifest:
    """A copy of the manifest with the corrected labels.

    If a clip has several corrections, the old labels of each must be the new labels of the one before; the last one is
    valid. A label that loses its last clip is removed from the manifest's labels. Unknown labels that the clip does not
    get stay unknown.

    Raises
    ------
    DataError
        If a clip is not in the manifest, a new label is not one of the manifest's labels, or the old labels are not
        those of the clip. The message gives the line.
    """
    indexes_of_key: dict[ClipKey, list[int]] = {}
    for index, clip in enumerate(manifest.clips):
        indexes_of_key.setdefault(correction_key(clip), []).append(index)
    labels = [clip.labels for clip in manifest.clips]
    previous: dict[int, Correction] = {}
    for row in corrections.rows:
        where = f"{corrections.source}, line {row.line}"
        index = _find_clip(row, indexes_of_key, manifest, where)
        for label in row.new_labels:
            if label not in manifest.labels.names:
                raise DataError(
                    f"{where}: the new label {label!r} of {row.name} is none of the {len(manifest.labels)} labels of "
                    f"{manifest.source}{did_you_mean(label, manifest.labels.names)}. Add it to the manifest first"
                )
        if set(labels[index]) != set(row.old_labels):
            raise DataError(f"{where}: {_describe_conflict(row, labels[index], previous.get(index), manifest)}")
        labels[index] = row.new_labels
        previous[index] = row
    clips = [
        clip if set(clip.labels) == set(corrected) else clip.with_labels(corrected, clip.unknown)
        for clip, corrected in zip(manifest.clips, labels, strict=True)
    ]
    return replace(manifest, clips=tuple(clips), labels=_remaining_labels(manifest, clips))


def _find_clip(row: Correction, indexes_of_key: dict[ClipKey, list[int]], manifest: Manifest, where: str) -> int:
    matches = indexes_of_key.get(row.key, [])
    if len(matches) > 1:
        raise DataError(
            f"{where}: {row.name} matches {len(matches)} clips of {manifest.source}; give the clips unique names"
        )
    if not matches:
        hint = did_you_mean(row.fname, [clip.fname for clip in manifest.clips]) or "."
        if same_file := [clip.name for clip in manifest.clips if correction_key(clip)[0] == row.key[0]]:
            hint = f"; its clips of this file are {abbreviate(same_file)}."
        raise DataError(f"{where}: {manifest.source} has no clip {row.name}{hint} Change or delete the row")
    return matches[0]


def _describe_conflict(row: Correction, current: Sequence[str], previous: Correction | None, manifest: Manifest) -> str:
    correction = f"{row.name} is corrected from {_quoted(row.old_labels)} to {_quoted(row.new_labels)}"
    if previous is not None:
        return (
            f"{correction}, but the earlier row in line {previous.line} changed it to {_quoted(current)}. Delete one "
            f"of the two rows, or change old_labels to {_quoted(current)}"
        )
    if set(current) == set(row.new_labels):
        return f"{correction}, but {manifest.source} already has these labels. Delete the row"
    return (
        f"{correction}, but its labels in {manifest.source} are {_quoted(current)}. Review the clip again; then delete "
        f"the row, or change old_labels to {_quoted(current)}"
    )


def _quoted(labels: Sequence[str]) -> str:
    return repr(join_labels(labels)) if labels else "no label"


def _remaining_labels(manifest: Manifest, clips: Sequence[Clip]) -> LabelSet:
    """The manifest's labels without those that had clips before the corrections and have none now."""
    had_clips = {label for clip in manifest.clips for label in clip.labels}
    lost = had_clips - {label for clip in clips for label in clip.labels}
    return LabelSet(tuple(label for label in manifest.labels.names if label not in lost)) if lost else manifest.labels


def append_corrections(path: str | Path, rows: Sequence[Correction]) -> None:
    """Add corrections to a table, or create it. Rows and columns in the table are kept; the write is atomic.

    Raises
    ------
    DataError
        If the file exists and is not a table of corrections, or it can't be written.
    """
    path = Path(path)
    text, delimiter = "", ","
    columns: tuple[str, ...] = CORRECTION_COLUMNS
    if path.exists():
        read_corrections(path)
        text = read_text(path)
        delimiter = find_delimiter(text)
        columns = tuple(map(str.lower, open_table(path, text, delimiter).columns))
        missing = [name for name in CORRECTION_COLUMNS if name not in columns]
        if missing:
            raise DataError(f"{path}: no column {abbreviate(missing)}; add it to the first line")
    out = io.StringIO()
    line_end = "\r\n" if "\r\n" in text else "\n"
    writer = csv.DictWriter(out, columns, delimiter=delimiter, lineterminator=line_end)
    if not text:
        writer.writeheader()
    writer.writerows({name: escape_formula(field) for name, field in row.fields().items()} for row in rows)
    gap = line_end if text and not text.endswith(("\n", "\r")) else ""
    with open_binary_output(path) as file:
        file.write(f"{text}{gap}{out.getvalue()}".encode())
