"""Corrections: what people decided about labels that were doubted, kept in a table of its own beside the manifest.

A row says who gave a clip which labels in place of which, when and why. It is laid over the manifest, which itself is
never changed: without the row, the manifest is what it was. A row that changes nothing says that somebody looked, and
that the labels are right.
"""

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from spectag.data.labels import LabelSet, split_labels
from spectag.data.readers.csv_table import delimiter_of
from spectag.data.readers.delimited_text import Table, open_table, parse_seconds, read_text, some_of
from spectag.data.readers.rows import clip_name
from spectag.errors import DataError, did_you_mean
from spectag.system.atomic_files import unfinished_file

if TYPE_CHECKING:
    from spectag.data.clips import Clip, Manifest

COLUMNS = ("who", "when", "fname", "start", "end", "before", "after", "why")
_NEEDED = ("who", "when", "fname", "before", "after")

Key = tuple[str, float, float | None]


@dataclass(frozen=True)
class Correction:
    """Somebody's decision about a clip: `before` were its labels, `after` they are."""

    who: str
    when: datetime  # with its zone
    fname: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    start_seconds: float = 0.0
    end_seconds: float | None = None
    why: str = ""
    line: int | None = None  # in the table

    @property
    def key(self) -> Key:
        """What the clip is known by."""
        return _key(self.fname, self.start_seconds, self.end_seconds)

    @property
    def changes(self) -> bool:
        """Whether the labels are others than before; if not, the clip was looked at and left as it was."""
        return set(self.before) != set(self.after)

    @property
    def name(self) -> str:
        """The file name, with the times where the clip is only a part."""
        return clip_name(self.fname, self.start_seconds, self.end_seconds)

    def fields(self) -> dict[str, str]:
        """What a table holds of it, by column."""
        return {
            "who": self.who,
            "when": self.when.isoformat(timespec="seconds"),
            "fname": self.fname,
            "start": f"{self.start_seconds!r}" if self.start_seconds else "",
            "end": "" if self.end_seconds is None else f"{self.end_seconds!r}",
            "before": join_labels(self.before),
            "after": join_labels(self.after),
            "why": self.why,
        }


@dataclass(frozen=True)
class Corrections:
    """A table of corrections, in the order in which they were made."""

    source: Path
    rows: tuple[Correction, ...]

    def last(self) -> dict[Key, Correction]:
        """The correction that counts for each clip, by the clip's key."""
        return {row.key: row for row in self.rows}

    def in_words(self) -> str:
        """How many clips have other labels by it."""
        n_changed = sum(row.changes for row in self.last().values())
        n_kept = len(self.last()) - n_changed
        kept = f"; {n_kept} more were looked at and left as they were" if n_kept else ""
        return f"corrections: {n_changed} {'clip has' if n_changed == 1 else 'clips have'} other labels{kept}"


def key_of(clip: "Clip") -> Key:
    """What corrections know a clip by."""
    return _key(clip.fname, clip.start_seconds, clip.end_seconds)


def _key(fname: str, start_seconds: float, end_seconds: float | None) -> Key:
    name = unicodedata.normalize("NFC", fname.replace("\\", "/"))
    return name, round(start_seconds, 3), None if end_seconds is None else round(end_seconds, 3)


def join_labels(labels: Iterable[str]) -> str:
    """Labels in one field, with commas between them; one that holds a comma has quotes around it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(labels)
    return "" if out.getvalue() == '""' else out.getvalue()


def read_corrections(path: str | Path) -> Corrections:
    """Read a table of corrections.

    Parameters
    ----------
    path : str or Path
        A CSV with the columns who, when, fname, before and after, and start, end and why where they are wanted. As
        with manifests, semicolons, byte order marks and cp1252 are understood.

    Raises
    ------
    DataError
        If it can't be read, a column is missing, or a row is not complete, with its line.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path}: no such file; decide on the page that spectag review makes and save its corrections.csv there, "
            "or let spectag review --accept write it"
        )
    text = read_text(path)
    table = open_table(path, text, delimiter_of(text))
    places = {name: table.position(name) for name in COLUMNS}
    missing = [name for name in _NEEDED if places[name] is None]
    if missing:
        raise DataError(
            f"{path}: no column {some_of(missing)}; expected {', '.join(COLUMNS)}. The columns are "
            f"{some_of(list(table.columns), 12)}"
        )
    known = {name: place for name, place in places.items() if place is not None}
    rows = [_row(table, line, {name: fields[place] for name, place in known.items()}) for line, fields in table.records]
    return Corrections(path, tuple(sorted(rows, key=lambda row: row.when)))


def _row(table: Table, line: int, fields: dict[str, str]) -> Correction:
    where = f"{table.path}, line {line}"
    for name in ("who", "fname"):
        if not fields[name]:
            raise DataError(f"{where}: {name} is empty; expected {_EXPECTED[name]}")
    start, end = fields.get("start"), fields.get("end")
    return Correction(
        who=fields["who"],
        when=_time(fields["when"], where),
        fname=fields["fname"],
        before=split_labels(fields["before"]),
        after=split_labels(fields["after"]),
        start_seconds=parse_seconds(start, "start", where) if start else 0.0,
        end_seconds=parse_seconds(end, "end", where) if end else None,
        why=fields.get("why", ""),
        line=line,
    )


_EXPECTED = {"who": "the name of the person who decided", "fname": "the name of the sound, as in the manifest"}


def _time(field: str, where: str) -> datetime:
    try:
        when = datetime.fromisoformat(field)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise DataError(f"{where}: when is {field!r}; expected a time with its zone, such as 2026-05-01T14:30:00+02:00")
    return when


def apply_corrections(manifest: "Manifest", corrections: Corrections) -> "Manifest":
    """The manifest with the labels that corrections give its clips; the one given stays as it is.

    Of several corrections of a clip, each begins where the one before it ended, and the last one counts. A label that
    loses its last clip is no longer a label.

    Raises
    ------
    DataError
        With the line: if a clip is not in the manifest, a label is not among the manifest's, or a correction is of
        other labels than the clip has.
    """
    places: dict[Key, list[int]] = {}
    for place, clip in enumerate(manifest.clips):
        places.setdefault(key_of(clip), []).append(place)
    labels = [clip.labels for clip in manifest.clips]
    earlier: dict[int, Correction] = {}
    for row in corrections.rows:
        where = f"{corrections.source}, line {row.line}"
        place = _place(row, places, manifest, where)
        _check_labels(row, manifest, where)
        if set(labels[place]) != set(row.before):
            raise DataError(f"{where}: {_clash(row, labels[place], earlier.get(place), manifest)}")
        labels[place] = row.after
        earlier[place] = row
    clips = [
        clip if set(clip.labels) == set(now) else replace(clip, labels=now)
        for clip, now in zip(manifest.clips, labels, strict=True)
    ]
    return replace(manifest, clips=tuple(clips), labels=_left(manifest, clips))


def _place(row: Correction, places: dict[Key, list[int]], manifest: "Manifest", where: str) -> int:
    found = places.get(row.key, [])
    if len(found) > 1:
        raise DataError(f"{where}: {row.name} may be any of {len(found)} clips of {manifest.source}; give them names")
    if not found:
        same_file = [clip.name for clip in manifest.clips if key_of(clip)[0] == row.key[0]]
        hint = (
            f"; it has {some_of(same_file)}."
            if same_file
            else did_you_mean(row.fname, [clip.fname for clip in manifest.clips]) or "."
        )
        raise DataError(f"{where}: {manifest.source} has no clip {row.name}{hint} Change the row, or take it out")
    return found[0]


def _check_labels(row: Correction, manifest: "Manifest", where: str) -> None:
    for label in row.after:
        if label not in manifest.labels.names:
            raise DataError(
                f"{where}: {row.name} gets the label {label!r}, which is none of the {len(manifest.labels)} in "
                f"{manifest.source}{did_you_mean(label, manifest.labels.names)}. A new label has to be in the manifest "
                "first"
            )


def _clash(row: Correction, now: Sequence[str], earlier: Correction | None, manifest: "Manifest") -> str:
    told = f"{row.name} is corrected from {_told(row.before)} to {_told(row.after)}"
    if earlier is not None:
        return (
            f"{told}, but line {earlier.line}, which is earlier, made it {_told(now)}. Take one of the two rows out, "
            f"or write {_told(now)} into before"
        )
    if set(now) == set(row.after):
        return f"{told}, but {manifest.source} says so already. Take the row out"
    return (
        f"{told}, but {manifest.source} now says {_told(now)}. Look at the clip again; then take the row out, or write "
        f"{_told(now)} into before"
    )


def _told(labels: Sequence[str]) -> str:
    return repr(join_labels(labels)) if labels else "no label"


def _left(manifest: "Manifest", clips: Sequence["Clip"]) -> LabelSet:
    """The labels without those that had clips and have none now."""
    had = {label for clip in manifest.clips for label in clip.labels}
    lost = had - {label for clip in clips for label in clip.labels}
    return LabelSet(tuple(label for label in manifest.labels.names if label not in lost)) if lost else manifest.labels


def append_corrections(path: str | Path, rows: Sequence[Correction]) -> None:
    """Add corrections to a table, or begin one; written whole or not at all, and no row or column there is lost.

    Raises
    ------
    DataError
        If there is a file that is no such table, or it can't be written.
    """
    path = Path(path)
    text, delimiter = "", ","
    columns: tuple[str, ...] = COLUMNS
    if path.exists():
        read_corrections(path)
        text = read_text(path)
        delimiter = delimiter_of(text)
        columns = open_table(path, text, delimiter).columns
        missing = [name for name in COLUMNS if name not in {column.lower() for column in columns}]
        if missing:
            raise DataError(f"{path}: no column {some_of(missing)}; add it to the first line")
    out = io.StringIO()
    end = "\r\n" if "\r\n" in text else "\n"
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    if not text:
        writer.writerow(columns)
    for row in rows:
        fields = row.fields()
        writer.writerow([fields.get(column.lower(), "") for column in columns])
    gap = end if text and not text.endswith(("\n", "\r")) else ""
    try:
        with unfinished_file(path) as unfinished:
            unfinished.write_bytes(f"{text}{gap}{out.getvalue()}".encode())
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error.strerror or error}") from error
