"""Reading and writing the tables of clips and of the history, within a transaction."""

import os
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from spectag.data.readers.rows import clip_name
from spectag.errors import ConfigError
from spectag.serving.project.label_clips import STATE_COLUMNS, ClipState, LabelledClip, origin_of

_SAVED = ", ".join(f"{name} = :{name}" for name in STATE_COLUMNS)


class FoundClip(NamedTuple):
    """A clip of a manifest that is imported."""

    path: str
    """Absolute, without links in it."""
    fname: str
    start_seconds: float
    end_seconds: float | None
    state: ClipState


@dataclass(frozen=True)
class LabelStep:
    """What somebody did at once."""

    number: int
    time: str
    """In UTC, as ISO 8601."""
    reviewer: str
    action: str
    """labels, unknown, confirm, drop, bring back, comment, part, import, table, undo or redo."""
    n_clips: int
    clip: int
    """The first clip."""
    clip_name: str
    before: ClipState | None
    """Of the first clip; None if it was new."""
    after: ClipState
    is_undone: bool


def new_step(connection: sqlite3.Connection, reviewer: str, action: str, *, undoes: int | None = None) -> int:
    """The number of a new step of the history."""
    number = connection.execute(
        "INSERT INTO label_step (time, reviewer, action, undoes) VALUES (?, ?, ?, ?)",
        (now_text(), reviewer, action, undoes),
    ).lastrowid
    assert number is not None
    return number


def insert_clip(connection: sqlite3.Connection, clip: FoundClip) -> int:
    """Add a clip and return its number."""
    site, recorded = origin_of(clip.fname)
    values = {
        "path": clip.path,
        "fname": clip.fname,
        "start": clip.start_seconds,
        "end": clip.end_seconds,
        "added": now_text(),
        "site": site or clip.state.recording_group or "",
        "recorded": recorded,
        **clip.state.columns(),
    }
    names = ", ".join(values)
    number = connection.execute(
        f"INSERT INTO clip ({names}) VALUES ({', '.join(f':{name}' for name in values)})",  # nosec B608
        values,
    ).lastrowid
    assert number is not None
    _save_labels(connection, number, clip.state)
    return number


def change_clip(connection: sqlite3.Connection, step: int, now: LabelledClip, after: ClipState) -> bool:
    """Give a clip another state, and note it in the history. False if it is the same."""
    if after == now.state:
        return False
    connection.execute(
        f"UPDATE clip SET {_SAVED}, revision = :revision WHERE number = :number",  # nosec B608
        {**after.columns(), "revision": now.revision + 1, "number": now.number},
    )
    connection.execute("DELETE FROM clip_label WHERE clip = ?", (now.number,))
    _save_labels(connection, now.number, after)
    write_edit(connection, step, now.number, now.state, after, now.revision + 1)
    return True


def write_edit(
    connection: sqlite3.Connection,
    step: int,
    clip: int,
    before: ClipState | None,
    after: ClipState,
    revision: int,
) -> None:
    """Note in the history what a step did to a clip; before is None if it is new."""
    connection.execute(
        "INSERT INTO label_edit (step, clip, before, after, revision) VALUES (?, ?, ?, ?, ?)",
        (step, clip, None if before is None else before.to_json(), after.to_json(), revision),
    )


def clip_numbers(connection: sqlite3.Connection, path: str | None = None) -> dict[tuple[str, float, float | None], int]:
    """The numbers of all clips, or those of one file, by path, start and end."""
    query, values = ("", ()) if path is None else (" WHERE path = ?", (path,))
    rows: Collection[Any] = connection.execute(f"SELECT path, start, end, number FROM clip{query}", values).fetchall()  # nosec B608
    return {(row["path"], row["start"], row["end"]): row["number"] for row in rows}


def move_clips(connection: sqlite3.Connection, before: Path, now: Path) -> None:
    """Give the clips below a folder their paths below another one, if their files are there."""
    start = f"{before}{os.sep}"
    rows = connection.execute("SELECT number, path FROM clip WHERE substr(path, 1, ?) = ?", (len(start), start))
    for row in rows.fetchall():
        path = now / row["path"][len(start) :]
        if path.is_file():
            connection.execute("UPDATE OR IGNORE clip SET path = ? WHERE number = ?", (str(path), row["number"]))


def check_same(first: FoundClip, second: FoundClip) -> None:
    """Raise a ConfigError if two names of a clip, of which one is a link, have different labels."""
    if first.state != second.state:
        raise ConfigError(
            f"{first.fname} and {second.fname} are the same sound, {first.path}, but differ in their labels; keep one"
        )


def now_text() -> str:
    """The time now in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def stored_clip(connection: sqlite3.Connection, number: int) -> LabelledClip:
    """A clip as it is now. A ConfigError if there is none with this number."""
    row = connection.execute("SELECT * FROM clip WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise ConfigError(f"there is no clip {number}")
    return LabelledClip.of_row(row)


def _save_labels(connection: sqlite3.Connection, number: int, state: ClipState) -> None:
    rows = [(name, number, False) for name in state.labels] + [(name, number, True) for name in state.unknown]
    connection.executemany("INSERT INTO clip_label VALUES (?, ?, ?)", rows)


def step_to_undo(connection: sqlite3.Connection, step: int | None, reviewer: str) -> sqlite3.Row:
    """The step with a number, or the last one of a reviewer. A ConfigError if it can't be undone."""
    has_edits = "undone_by IS NULL AND EXISTS (SELECT 1 FROM label_edit WHERE step = label_step.number)"
    if step is not None:
        found = connection.execute(f"SELECT * FROM label_step WHERE number = ? AND {has_edits}", (step,))  # nosec B608
    else:
        found = connection.execute(
            f"SELECT * FROM label_step WHERE reviewer = ? AND undoes IS NULL AND {has_edits} "  # nosec B608
            "ORDER BY number DESC LIMIT 1",
            (reviewer,),
        )
    row: sqlite3.Row | None = found.fetchone()
    if row is None:
        raise ConfigError("there is nothing to undo")
    return row


def step_of_row(row: sqlite3.Row) -> LabelStep:
    """The step in a row of the history."""
    before = None if row["before"] is None else ClipState.of_json(row["before"])
    name = clip_name(row["fname"], row["start"], row["end"])
    origin = row["number"], row["time"], row["reviewer"], row["action"], row["n_clips"], row["clip"]
    return LabelStep(*origin, name, before, ClipState.of_json(row["after"]), row["undone_by"] is not None)
