"""The folders of bulk runs, PROJECT/runs/NAME: what `spectag tag` has written there."""

import csv
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from spectag.errors import ConfigError, DataError
from spectag.system.file_errors import reason_of
from spectag.system.output import unescape_formula

RUNS = "runs"
TAGS, STATUS = "tags.csv", "status.csv"

_NAME = re.compile(r"\w([\w .-]{0,78}\w)?")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself
_MAX_FIELD = 10_000_000  # characters of a field in a table


class RunFile(NamedTuple):
    """A table of a run, or a folder with a file for each recording."""

    name: str
    n_bytes: int
    is_folder: bool


class Failure(NamedTuple):
    """A recording that was not tagged, or only a part of it."""

    file: str
    status: str
    """skipped or truncated."""
    reason: str


@dataclass
class LabelCount:
    """How often a label was reported."""

    n_rows: int = 0
    n_recordings: int = 0
    _last: str | None = field(default=None, repr=False)

    def add(self, file: str) -> None:
        """Count a row. Those of a recording follow each other."""
        self.n_rows += 1
        self.n_recordings += file != self._last
        self._last = file


def check_run_name(name: str) -> None:
    """Raise a ConfigError if a name can't be that of a folder on every system."""
    if _NAME.fullmatch(name) is None or _DEVICES.fullmatch(name) is not None:
        raise ConfigError(
            f"name of the run: {name[:80]!r}; use up to 80 letters, digits, spaces, dots and hyphens, with a letter or "
            "digit at both ends"
        )


def free_run_name(project: Path, recordings: Path) -> str:
    """A name that no run has, from the name of the folder with the recordings."""
    stem = re.sub(r"[^\w.-]+", "-", recordings.name).strip(".-_ ")[:60] or "run"
    stem = stem if _DEVICES.fullmatch(stem) is None else f"run-{stem}"
    number, name = 1, stem
    while (project / RUNS / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name


def make_run_folder(project: Path, name: str) -> Path:
    """Make the folder of a new run.

    Raises
    ------
    ConfigError
        If a run has this name, or it is wrong.
    DataError
        If it can't be made.
    """
    check_run_name(name)
    folder = project / RUNS / name
    try:
        folder.parent.mkdir(exist_ok=True)
        folder.mkdir()
    except FileExistsError as error:
        raise ConfigError(f"{name}: there is a run of this name; choose another one") from error
    except OSError as error:
        raise DataError(f"{folder}: can't be made: {reason_of(error)}; see whether the disk is full") from error
    return folder


def run_folder(project: Path, name: str) -> Path | None:
    """The folder of a run; None if there is no run of this name."""
    if _NAME.fullmatch(name) is None:
        return None
    folder = project / RUNS / name
    return folder if folder.is_dir() and not folder.is_symlink() else None


def run_files(folder: Path) -> list[RunFile]:
    """The files and folders of a run, by name, without hidden ones and links."""
    found: list[RunFile] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            is_folder = stat.S_ISDIR(status.st_mode)
            if not entry.name.startswith(".") and (is_folder or stat.S_ISREG(status.st_mode)):
                found.append(RunFile(entry.name, 0 if is_folder else status.st_size, is_folder))
    return sorted(found)


def write_zip(folder: Path, target: Path) -> None:
    """Write a zip of the files in a folder and its sub-folders, without links."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = Path(parent, name)
                if path.is_file() and not path.is_symlink():
                    archive.write(path, path.relative_to(folder.parent).as_posix())


def failures(folder: Path, *, first: int, n_most: int) -> tuple[list[Failure], int]:
    """Recordings of a complete run that were skipped or are truncated.

    Parameters
    ----------
    folder : Path
        Of the run.
    first : int
        How many to leave out.
    n_most : int
        How many to return at most.

    Returns
    -------
    page : list of Failure
    n_all : int
        How many there are.

    Raises
    ------
    DataError
        If status.csv can't be read.
    """
    page: list[Failure] = []
    n_all = 0
    for row in _rows(folder / STATUS, ("file", "status", "reason", "notes")):
        if row["status"] == "done":
            continue
        if first <= n_all < first + n_most:
            reason = row["reason"] or row["notes"]
            page.append(Failure(unescape_formula(row["file"]), row["status"], unescape_formula(reason)))
        n_all += 1
    return page, n_all


def counts_per_label(folder: Path) -> dict[str, LabelCount]:
    """How many rows and recordings of tags.csv have each label, the most frequent label first.

    Raises
    ------
    DataError
        If the table can't be read.
    """
    counts: dict[str, LabelCount] = {}
    for row in _rows(folder / TAGS, ("file", "label")):
        if row["label"]:
            counts.setdefault(unescape_formula(row["label"]), LabelCount()).add(row["file"])
    return dict(sorted(counts.items(), key=lambda item: (-item[1].n_rows, item[0])))


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    csv.field_size_limit(_MAX_FIELD)
    try:
        with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file, restval="")
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise DataError(f"{table}: no column {missing[0]}; it is not a table of this run")
            yield from reader
    except OSError as error:
        raise DataError(f"{table}: {reason_of(error)}") from error
    except csv.Error as error:
        raise DataError(f"{table}: not a table: {error}") from error
