"""The labels of a project: clips, every edit of their labels with its author, and the table for the command line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spectag.errors import ConfigError, DataError
from spectag.serving.project.label_clips import ClipChange, ClipState, LabelledClip, checked_label
from spectag.serving.project.label_file import LabelFile
from spectag.serving.project.label_rows import (
    FoundClip,
    LabelStep,
    change_clip,
    check_same,
    clip_numbers,
    insert_clip,
    new_step,
    step_of_row,
    step_to_undo,
    stored_clip,
    write_edit,
)

if TYPE_CHECKING:
    from spectag.serving.project.project import Project
    from spectag.serving.project.versions import ModelVersion

MAX_CLIPS_AT_ONCE = 10_000
"""Of an edit."""
_ROWS_AT_ONCE = 500  # of a query with a list of numbers


class ChangedClipsError(Exception):
    """Somebody else has changed the clips of an edit meanwhile; nothing was changed.

    Parameters
    ----------
    clips : sequence of LabelledClip
        As they are now.
    """

    def __init__(self, clips: Sequence[LabelledClip]) -> None:
        super().__init__(f"{len(clips)} clips were changed meanwhile")
        self.clips = tuple(clips)


@dataclass(frozen=True)
class ImportCounts:
    """What an import has done, in numbers of clips."""

    n_added: int
    n_changed: int
    """Clips that were there already and got other labels."""
    n_same: int


class ProjectLabels:
    """The labels of a project. Every edit is on disk when its method returns.

    labels.csv in the folder of the project follows about a second later. If another program has changed that table,
    its changes are taken over as an edit.

    Parameters
    ----------
    project : Project
        Or anything else with its `database` and `folder`.
    """

    def __init__(self, project: "Project") -> None:
        self._database = project.database
        self._file = LabelFile(project.database, project.folder, self)

    @property
    def file(self) -> LabelFile:
        """The table for the command line."""
        return self._file

    def manifest_path(self) -> Path | None:
        """The table of all labelled clips, as it is now; None if there is none.

        Raises
        ------
        DataError
            If it can't be written, or another program has changed it so that it can't be read.
        """
        self._file.update()
        if self._file.problem:
            raise DataError(self._file.problem)
        [row] = self._database.rows("SELECT EXISTS (SELECT 1 FROM clip WHERE is_labelled AND NOT is_dropped) AS has")
        return self._file.path if row["has"] else None

    def n_changes_since(self, version: "ModelVersion | None") -> int:
        """The number of clips that are other for training than when a version was begun; None: since the beginning."""
        since = "" if version is None else version.created
        first = """SELECT clip, min(label_edit.number) AS number FROM label_edit
            JOIN label_step ON label_step.number = step WHERE time >= ? GROUP BY clip"""
        rows = self._database.rows(
            f"SELECT clip.*, before FROM ({first}) AS first JOIN label_edit ON label_edit.number = first.number "  # nosec B608
            "JOIN clip ON clip.number = first.clip",
            since,
        )
        n_changed = 0
        for row in rows:
            is_new = row["before"] is None or row["added"] >= since
            before = () if is_new else ClipState.of_json(row["before"]).in_training
            n_changed += before != ClipState.of_row(row).in_training
        [added] = self._database.rows(
            f"SELECT count(*) AS n FROM clip WHERE added >= ? AND is_labelled AND NOT is_dropped "  # nosec B608
            f"AND number NOT IN (SELECT clip FROM ({first}))",
            since,
            since,
        )
        return n_changed + int(added["n"])

    def clips(self, numbers: Sequence[int]) -> list[LabelledClip]:
        """Clips by their numbers, in this order; numbers that are not in use are left out."""
        found: dict[int, LabelledClip] = {}
        for start in range(0, len(numbers), _ROWS_AT_ONCE):
            part = numbers[start : start + _ROWS_AT_ONCE]
            places = ",".join("?" * len(part))
            for row in self._database.rows(f"SELECT * FROM clip WHERE number IN ({places})", *part):  # nosec B608
                found[row["number"]] = LabelledClip.of_row(row)
        return [found[number] for number in numbers if number in found]

    def clip(self, number: int) -> LabelledClip | None:
        """A clip by its number; None if there is none."""
        return next(iter(self.clips([number])), None)

    def training_clips(self) -> list[LabelledClip]:
        """The clips of the table: labelled and not dropped."""
        return self._all("is_labelled AND NOT is_dropped")

    def unlabelled_clips(self) -> list[LabelledClip]:
        """The clips that nobody has labelled or dropped."""
        return self._all("NOT is_labelled AND NOT is_dropped")

    def all_clips(self) -> list[LabelledClip]:
        """All clips, also those that are dropped."""
        return self._all("1")

    def _all(self, condition: str) -> list[LabelledClip]:
        rows = self._database.rows(f"SELECT * FROM clip WHERE {condition} ORDER BY number")  # nosec B608
        return [LabelledClip.of_row(row) for row in rows]

    def label_counts(self) -> dict[str, int]:
        """The number of clips of each label, by name; 0 for a label that no clip has."""
        rows = self._database.rows(
            """SELECT name, (SELECT count(*) FROM clip_label JOIN clip ON clip.number = clip_label.clip
                WHERE label = name AND NOT is_unknown AND NOT is_dropped) AS n FROM known_label ORDER BY name"""
        )
        return {row["name"]: row["n"] for row in rows}

    def add_label(self, name: str) -> str:
        """Add a label that no clip has yet, and return it without spaces around it. A ConfigError if it can't be."""
        try:
            name = checked_label(name)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO known_label VALUES (?)", (name,))
        return name

    def add_clips(
        self, found: Sequence[FoundClip], labels: Iterable[str], *, reviewer: str, action: str = "import"
    ) -> ImportCounts:
        """Add clips. One that is there already gets the new labels, weight, fold and group if it has any.

        Parameters
        ----------
        found : sequence of FoundClip
        labels : iterable of str
            All that clips can have.
        reviewer : str
            Who imports them, for the history.
        action : str
            For the history.

        Raises
        ------
        ConfigError
            If two of them are the same sound, by links, with different labels.
        """
        with self._database.transaction() as connection:
            step = new_step(connection, reviewer, action)
            connection.executemany("INSERT OR IGNORE INTO known_label VALUES (?)", [(name,) for name in labels])
            numbers = clip_numbers(connection)
            n_added = n_changed = 0
            new: dict[tuple[str, float, float | None], FoundClip] = {}
            for clip in found:
                key = clip.path, clip.start_seconds, clip.end_seconds
                number = numbers.get(key)
                if key in new:
                    check_same(new[key], clip)
                elif number is None:
                    insert_clip(connection, clip)
                    new[key] = clip
                    n_added += 1
                elif clip.state.is_labelled:
                    now = stored_clip(connection, number)
                    kept = now.state
                    after = replace(clip.state, is_confirmed=kept.is_confirmed, comment=kept.comment)
                    after = replace(after, is_dropped=kept.is_dropped)
                    n_changed += change_clip(connection, step, now, after)
        self._file.changed()
        return ImportCounts(n_added, n_changed, len(found) - n_added - n_changed)

    def edit(self, seen: Sequence[tuple[int, int]], change: ClipChange, *, reviewer: str) -> list[LabelledClip]:
        """Change clips, all or none of them.

        Parameters
        ----------
        seen : sequence of (int, int)
            Number of each clip, and the revision that the reviewer has seen.
        change : ClipChange
        reviewer : str

        Returns
        -------
        list of LabelledClip
            As they are now.

        Raises
        ------
        ChangedClipsError
            If somebody has changed some of them since, and the change would change them again.
        ConfigError
            If there is no such clip.
        """
        with self._database.transaction() as connection:
            step = new_step(connection, reviewer, change.action)
            connection.executemany(
                "INSERT OR IGNORE INTO known_label VALUES (?)", [(name,) for name in change.used_labels]
            )
            changed = []
            for number, revision in seen:
                now = stored_clip(connection, number)
                after = change.applied(now.state)
                if now.revision != revision and after != now.state:
                    changed.append(now)
                change_clip(connection, step, now, after)
            if changed:
                raise ChangedClipsError(changed)
        self._file.changed()
        return self.clips([number for number, _ in seen])

    def add_part(
        self, whole: int, start_seconds: float, end_seconds: float, labels: Sequence[str] | None, *, reviewer: str
    ) -> LabelledClip:
        """Make a clip of a part of another one's recording; it stays in its fold and group.

        Parameters
        ----------
        whole : int
            The number of the clip.
        start_seconds, end_seconds : float
            In the recording.
        labels : sequence of str, optional
            None: it is not labelled yet.
        reviewer : str

        Raises
        ------
        ConfigError
            If there is such a clip already, or the times are outside the clip.
        """
        with self._database.transaction() as connection:
            clip = stored_clip(connection, whole)
            start, end = round(start_seconds, 3), round(end_seconds, 3)
            if not clip.start_seconds <= start < end or end > (clip.end_seconds or float("inf")):
                raise ConfigError(f"{clip.name}: a part from {start:g} s to {end:g} s is not within it")
            state = replace(ClipState(), fold=clip.state.fold, recording_group=clip.state.recording_group)
            state = replace(state, labels=tuple(labels or ()), is_labelled=labels is not None)
            found = FoundClip(str(clip.path), clip.fname, start, end, state)
            if (found.path, start, end) in clip_numbers(connection, found.path):
                raise ConfigError(f"{clip.fname} from {start:g} s to {end:g} s is a clip already")
            step = new_step(connection, reviewer, "part")
            connection.executemany("INSERT OR IGNORE INTO known_label VALUES (?)", [(name,) for name in state.labels])
            number = insert_clip(connection, found)
            write_edit(connection, step, number, None, state, 1)
        self._file.changed()
        [added] = self.clips([number])
        return added

    def undo(self, step: int | None = None, *, reviewer: str) -> list[LabelledClip]:
        """Undo a step; undoing an undo brings it back. What was new is dropped.

        Parameters
        ----------
        step : int, optional
            Its number; by default the last one of this reviewer that is not undone.
        reviewer : str

        Returns
        -------
        list of LabelledClip
            The clips of the step, as they are now.

        Raises
        ------
        ChangedClipsError
            If some of its clips were changed after it.
        ConfigError
            If there is nothing to undo.
        """
        with self._database.transaction() as connection:
            undone = step_to_undo(connection, step, reviewer)
            edits = connection.execute("SELECT * FROM label_edit WHERE step = ?", (undone["number"],)).fetchall()
            action = "undo" if undone["undoes"] is None else "redo"
            number = new_step(connection, reviewer, action, undoes=undone["number"])
            changed = []
            for edit in edits:
                now, after = stored_clip(connection, edit["clip"]), ClipState.of_json(edit["after"])
                before = replace(after, is_dropped=True) if edit["before"] is None else None
                if now.state != after:
                    changed.append(now)
                change_clip(connection, number, now, before or ClipState.of_json(edit["before"]))
            if changed:
                raise ChangedClipsError(changed)
            mark = "UPDATE label_step SET undone_by = ? WHERE number = ?"
            connection.execute(mark, (number, undone["number"]))
            connection.execute(mark, (None, undone["undoes"]))
        self._file.changed()
        return self.clips([edit["clip"] for edit in edits])

    def history(self, *, limit: int = 100, clip: int | None = None) -> list[LabelStep]:
        """The last steps, newest first; those of one clip if it is given."""
        of_clip = "" if clip is None else "WHERE label_edit.clip = ?"
        rows = self._database.rows(
            f"""SELECT label_step.*, count(*) AS n_clips, min(label_edit.number), label_edit.clip, before, after, fname,
                start, end FROM label_step JOIN label_edit ON step = label_step.number
                JOIN clip ON clip.number = label_edit.clip {of_clip}
                GROUP BY label_step.number ORDER BY label_step.number DESC LIMIT ?""",  # nosec B608
            *([] if clip is None else [clip]),
            limit,
        )
        return [step_of_row(row) for row in rows]

    def close(self) -> None:
        """Write what labels.csv lacks."""
        self._file.close()
