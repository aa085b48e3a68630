"""The clips of a project: their rows in the database, and what people say about them."""

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from spectag.audio.recorder_names import info_in_name
from spectag.config.base import Config
from spectag.data.clips import Clip
from spectag.data.readers.rows import clip_name
from spectag.system.output import text_problem

LABEL_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS clip (
        number INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, fname TEXT NOT NULL, start REAL NOT NULL,
        end REAL, added TEXT NOT NULL, site TEXT NOT NULL, recorded TEXT NOT NULL, revision INTEGER NOT NULL DEFAULT 1,
        labels TEXT NOT NULL, unknown TEXT NOT NULL, weight REAL NOT NULL, fold TEXT, recording_group TEXT,
        is_labelled INTEGER NOT NULL, is_confirmed INTEGER NOT NULL, is_dropped INTEGER NOT NULL, comment TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS clip_part ON clip (path, start, ifnull(end, -1))",
    """CREATE TABLE IF NOT EXISTS clip_label (
        label TEXT NOT NULL, clip INTEGER NOT NULL, is_unknown INTEGER NOT NULL, PRIMARY KEY (label, clip)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS clip_label_clip ON clip_label (clip)",
    "CREATE TABLE IF NOT EXISTS known_label (name TEXT PRIMARY KEY)",
    """CREATE TABLE IF NOT EXISTS label_step (
        number INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, reviewer TEXT NOT NULL, action TEXT NOT NULL,
        undoes INTEGER, undone_by INTEGER
    )""",
    """CREATE TABLE IF NOT EXISTS label_edit (
        number INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER NOT NULL, clip INTEGER NOT NULL, before TEXT,
        after TEXT NOT NULL, revision INTEGER NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS label_edit_step ON label_edit (step)",
    "CREATE INDEX IF NOT EXISTS label_edit_clip ON label_edit (clip)",
)
"""clip: as it is now. label_step: what somebody did at once; label_edit: what it did to a clip. Both only grow."""

MAX_LABEL_CHARACTERS = 200
_MAX_LABELS = 1_000  # of a clip
STATE_COLUMNS = (
    *("labels", "unknown", "weight", "fold", "recording_group", "is_labelled", "is_confirmed", "is_dropped"),
    "comment",
)
"""The columns of the table `clip` with the state of a clip."""
_DATE = re.compile(r"[-_ .]*(?:19|20)\d\d[-_.]?\d\d[-_.]?\d\d")


@dataclass(frozen=True)
class ClipState:
    """What is known about a clip."""

    labels: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Labels of which nobody knows whether they are true."""
    weight: float = 1.0
    fold: str | None = None
    recording_group: str | None = None
    is_labelled: bool = True
    """Whether somebody has labelled it, perhaps with no label. Otherwise it is not used for training."""
    is_confirmed: bool = False
    """Whether somebody has confirmed the labels."""
    is_dropped: bool = False
    comment: str = ""

    @classmethod
    def of(cls, clip: Clip, *, is_labelled: bool = True) -> Self:
        """The state of a clip of a manifest."""
        return cls(clip.labels, clip.unknown, clip.weight, clip.fold, clip.group, is_labelled)

    @classmethod
    def of_row(cls, row: sqlite3.Row | Mapping[str, Any]) -> Self:
        """The state in a row of the table `clip`."""
        labels, unknown = (tuple(json.loads(row[name])) for name in ("labels", "unknown"))
        plain = row["weight"], row["fold"], row["recording_group"]
        flags = bool(row["is_labelled"]), bool(row["is_confirmed"]), bool(row["is_dropped"])
        return cls(labels, unknown, *plain, *flags, row["comment"])

    @classmethod
    def of_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**values | {name: tuple(values[name]) for name in ("labels", "unknown")})

    def to_json(self) -> str:
        """The state in the history."""
        return json.dumps(vars(self), ensure_ascii=False)

    def columns(self) -> dict[str, Any]:
        """The state in the columns of the table `clip`."""
        values = vars(self)  # asdict is slow
        return values | {name: json.dumps(values[name], ensure_ascii=False) for name in ("labels", "unknown")}

    @property
    def in_training(self) -> tuple[Any, ...]:
        """What training sees of it; empty for a clip that is dropped or not labelled."""
        if self.is_dropped or not self.is_labelled:
            return ()
        names = frozenset(self.labels), frozenset(self.unknown)
        return (*names, self.weight, self.fold, self.recording_group)


@dataclass(frozen=True)
class LabelledClip:
    """A clip, as it is now."""

    number: int
    """Of the clip in the project; it never changes."""
    revision: int
    """Grows with each change."""
    path: Path
    fname: str
    start_seconds: float
    end_seconds: float | None
    """None: the end of the recording."""
    added: str
    """Time in UTC, as ISO 8601."""
    site: str
    """Empty if it is not known."""
    recorded: str
    """When the recording began, by the clock of the recorder, as ISO 8601. Empty if it is not known."""
    state: ClipState

    @classmethod
    def of_row(cls, row: sqlite3.Row) -> Self:
        """The clip in a row of the table."""
        times, origin = (row["start"], row["end"]), (row["added"], row["site"], row["recorded"])
        state = ClipState.of_row(row)
        return cls(row["number"], row["revision"], Path(row["path"]), row["fname"], *times, *origin, state)

    @property
    def name(self) -> str:
        """The file name, followed by the times if the clip is only a part of the file."""
        return clip_name(self.fname, self.start_seconds, self.end_seconds)

    @property
    def clip(self) -> Clip:
        """The clip as manifests have it."""
        state = self.state
        times = self.start_seconds, self.end_seconds
        origin = state.fold, state.recording_group
        return Clip(self.path, self.fname, state.labels, *origin, *times, None, state.unknown, state.weight)

    def record(self) -> dict[str, Any]:
        """The clip for JSON, without its path: scripts know it by its number."""
        state = {name: value for name, value in vars(self.state).items() if name != "recording_group"}
        return {
            "number": self.number,
            "revision": self.revision,
            "name": self.name,
            "fname": self.fname,
            "start": self.start_seconds,
            "end": self.end_seconds,
            "site": self.site,
            "recorded": self.recorded,
            "group": self.state.recording_group,
            **state,
        }


class ClipChange(Config):
    """What to change about clips. Everything that is left out stays as it is."""

    labels: tuple[str, ...] | None = Field(None, max_length=_MAX_LABELS)
    """Instead of the present ones."""
    add: tuple[str, ...] = Field((), max_length=_MAX_LABELS)
    remove: tuple[str, ...] = Field((), max_length=_MAX_LABELS)
    """Labels that are false."""
    mark_unknown: tuple[str, ...] = Field((), max_length=_MAX_LABELS)
    """Labels of which nobody knows whether they are true."""
    confirmed: bool | None = None
    """True: the labels are right, also if there are none."""
    dropped: bool | None = None
    comment: str | None = Field(None, max_length=10_000)

    @field_validator("labels", "add", "remove", "mark_unknown")
    @classmethod
    def _check_labels(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if labels is None else tuple(dict.fromkeys(map(checked_label, labels)))

    @field_validator("comment")
    @classmethod
    def _check_comment(cls, comment: str | None) -> str | None:
        if comment is not None and (problem := text_problem(comment)):
            raise ValueError(f"the comment contains {problem}")
        return comment

    @model_validator(mode="after")
    def _check_sense(self) -> Self:
        twice = (set(self.add) | set(self.labels or ())) & (set(self.remove) | set(self.mark_unknown))
        if twice:
            raise ValueError(f"{min(twice)!r} can't be true and false or unknown")
        return self

    @property
    def used_labels(self) -> tuple[str, ...]:
        """All labels that clips get."""
        return (*(self.labels or ()), *self.add, *self.mark_unknown)

    def applied(self, state: ClipState) -> ClipState:
        """A clip's state after the change."""
        gone = {*self.remove, *self.mark_unknown}
        names = [*(state.labels if self.labels is None else self.labels), *self.add]
        labels = tuple(name for name in dict.fromkeys(names) if name not in gone)
        not_unknown = {*labels, *self.remove}
        unknown = dict.fromkeys([*state.unknown, *self.mark_unknown])
        gives_labels = self.labels is not None or bool(self.add or self.remove)
        return replace(
            state,
            labels=labels,
            unknown=tuple(name for name in unknown if name not in not_unknown),
            is_labelled=state.is_labelled or gives_labels or self.confirmed is True,
            is_confirmed=state.is_confirmed if self.confirmed is None else self.confirmed,
            is_dropped=state.is_dropped if self.dropped is None else self.dropped,
            comment=state.comment if self.comment is None else self.comment,
        )

    @property
    def action(self) -> str:
        """Its name in the history."""
        if self.dropped is not None:
            return "drop" if self.dropped else "bring back"
        if self.labels is not None or self.add or self.remove:
            return "labels"
        if self.mark_unknown:
            return "unknown"
        return "comment" if self.comment is not None else "confirm"


def checked_label(name: str) -> str:
    """A label without spaces around it. A ValueError if a table or a model could not store it."""
    name = name.strip()
    if not 0 < len(name) <= MAX_LABEL_CHARACTERS:
        raise ValueError(f"a label has 1 to {MAX_LABEL_CHARACTERS} characters, not {len(name):,}")
    if problem := text_problem(name) or ("a line break" if re.search(r"[\r\n\t]", name) else None):
        raise ValueError(f"the label {name!r} contains {problem}")
    return name


def origin_of(fname: str) -> tuple[str, str]:
    """The site and the start of a recording, from its file name; each is empty if it does not say."""
    path = PurePosixPath(fname.replace("\\", "/"))
    info = info_in_name(path.stem)
    if info.start is None:
        return "", ""
    before = _DATE.split(path.stem, maxsplit=1)[0].strip("-_ .")
    return before or path.parent.name, info.start.replace(tzinfo=None).isoformat(timespec="seconds")
