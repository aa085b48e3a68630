"""The job that tags a folder of recordings: `spectag tag -o PROJECT/runs/NAME/`. It resumes from its journal."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from spectag.config.base import Config, parse_config
from spectag.config.tagging import TagSettings
from spectag.errors import ConfigError, DataError
from spectag.models.tagger import Tagger
from spectag.serving.field_types import Probability, RowNumber, Seconds
from spectag.serving.project.database import ProjectDatabase
from spectag.serving.project.job_kinds import JobContext
from spectag.serving.project.tagging_runs import RUNS, check_run_name, counts_per_label, run_folder
from spectag.serving.project.versions import VERSION_SCHEMA, ModelVersions
from spectag.system.output import open_output
from spectag.system.storage import is_url
from spectag.tagging.batch import TaggingReport, tag_to_tables

KIND = "tag"
LABELS_FILE = "labels.txt"
TAGS_FORMAT = "csv"
"""With which other views and commands go on."""
_MAX_NOTES = 20  # in the log; status.csv has all of them


class RunSettings(Config):
    """The settings of `TagSettings` that a run can have: none of them names a file."""

    format: str = TAGS_FORMAT
    segments: bool | None = None
    min_duration_seconds: Seconds | None = None
    window: Seconds | None = None
    overlap: Seconds | None = None
    clip_level: Literal["mean"] | None = None
    min_confidence: Probability | None = None
    recorded: bool | None = None
    site_from: str | None = None

    def tag_settings(self, labels: Path | None = None) -> TagSettings:
        """The settings of `spectag tag`. A ConfigError if they contradict each other."""
        values: dict[str, Any] = self.model_dump(exclude_none=True)
        return parse_config(values | ({} if labels is None else {"labels": labels}), TagSettings, source="the run")


class BulkQuery(Config):
    """What a run is about."""

    name: str
    version: RowNumber
    """Of the model."""
    recordings: str
    """A folder."""
    settings: RunSettings
    labels: tuple[str, ...] = ()
    """The only ones to report; by default all."""


def tag_recordings(context: JobContext, query: Mapping[str, Any]) -> dict[str, Any]:
    """Tag the recordings of a `BulkQuery`; what an earlier process of this run has tagged is not tagged again.

    Returns
    -------
    dict
        The counts of the run, and those of each label.

    Raises
    ------
    SpectagError
        As `tag_to_tables`.
    """
    run = parse_config(dict(query), BulkQuery, source="the job")
    folder = _folder(context.folder, run.name)
    if is_url(run.recordings):  # only a stranger's project has one
        raise ConfigError(f"{run.recordings}: expected a folder of this computer")
    settings = _settings(run, folder)
    begin = time.monotonic()
    report = tag_to_tables(
        Tagger(_model(context.folder, run.version), channel=settings.channel),
        [run.recordings],
        settings,
        output=f"{folder}/",
        progress=context.progress,
        log=context.log,
    )
    seconds = time.monotonic() - begin
    _log_notes(report, context)
    return {
        "run": run.name,
        "n_files": report.n_files,
        "n_tagged": report.n_tagged,
        "n_resumed": report.n_resumed,
        "n_skipped": len(report.skip_reasons),
        "n_without_labels": report.n_without_labels,
        "sound_seconds": round(report.sound_seconds, 3),
        "seconds": round(seconds, 3),
        "differences": [] if report.shift_check is None else [str(one) for one in report.shift_check.differences()],
        "labels": [[label, one.n_rows, one.n_recordings] for label, one in counts_per_label(folder).items()],
    }


def _folder(project: Path, name: str) -> Path:
    """The folder of the run, within the project also if a stranger has made the project."""
    check_run_name(name)
    (project / RUNS / name).mkdir(parents=True, exist_ok=True)
    folder = run_folder(project, name)
    if folder is None:
        raise DataError(f"{project / RUNS / name}: is a link; delete it, and start a new run")
    return folder


def _settings(run: BulkQuery, folder: Path) -> TagSettings:
    if not run.labels:
        return run.settings.tag_settings()
    with open_output(folder / LABELS_FILE) as out:
        out.writelines(f"{label}\n" for label in run.labels)
    return run.settings.tag_settings(folder / LABELS_FILE)


def _model(project: Path, number: int) -> Path:
    database = ProjectDatabase(project, VERSION_SCHEMA)
    try:
        version = ModelVersions(database, project).get(number)
    finally:
        database.close()
    if version is None:
        raise DataError(f"{project}: there is no version {number} of the model any more; start a new run")
    return version.folder


def _log_notes(report: TaggingReport, context: JobContext) -> None:
    """Say in the log why files were skipped, and what is wrong with others."""
    lines = [*(f"skipped: {reason}" for reason in report.skip_reasons), *(f"note: {note}" for note in report.notes)]
    for line in lines[:_MAX_NOTES]:
        context.log(line)
    if len(lines) > _MAX_NOTES:
        context.log(f"{len(lines) - _MAX_NOTES:,} more such lines are in status.csv")
