"""The job that cuts training clips out of the checked detections of a project, as `spectag check --training-clips`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spectag.config.base import Config, parse_config
from spectag.data.checked_detections import DECISIONS_FILE, read_check_info, read_decisions
from spectag.data.detections import DetectedSound, read_detections
from spectag.errors import DataError
from spectag.findings.check_session import CLIPS_FOLDER
from spectag.findings.checked_sample import unique_detections
from spectag.findings.training_clips import TRAINING_CLIPS_FILE, write_training_clips
from spectag.serving.project.job_kinds import JobContext
from spectag.serving.project.own_files import CHECKS

KIND = "clips"


class CheckedClipsQuery(Config):
    """The check, and its recordings, whose paths the server has allowed."""

    check: str
    recordings: dict[str, str]
    """Paths by their names in the decisions."""
    audio_dir: Path | None = None
    """Folder of the recordings, if they are not beside the table."""


def manifest_of(check: Path) -> Path:
    """The table of the training clips of a check."""
    return check / CLIPS_FOLDER / TRAINING_CLIPS_FILE


def cut_checked_clips(context: JobContext, query: Mapping[str, Any]) -> dict[str, Any]:
    """Cut the detections of a `CheckedClipsQuery` with the decision yes or no, and write a manifest of the clips.

    Returns
    -------
    dict
        The numbers of clips with a confirmed label, and of clips whose detection is wrong.

    Raises
    ------
    DataError
        If nothing is decided yes or no, or no clip can be cut.
    """
    wanted = parse_config(dict(query), CheckedClipsQuery, source="the job")
    folder = context.folder / CHECKS / wanted.check
    info, rows = read_check_info(folder), read_decisions(folder / DECISIONS_FILE)
    if not any(row.decision in ("yes", "no") for row in rows):
        raise DataError(f"{wanted.check}: no detection has the decision yes or no")
    paths = {row.file: Path(wanted.recordings.get(row.file, row.file)) for row in rows}
    context.progress("reading the detections", 0, 0)
    table = read_detections(
        info.table, audio_dir=wanted.audio_dir, min_in_windows=info.min_probability, missing_ok=True
    )
    sampled = [
        DetectedSound(paths[row.file], row.file, row.start_seconds, row.end_seconds, row.label, row.probability)
        for row in rows
    ]
    others = [
        replace(sound, path=paths.get(sound.file.strip(), sound.path)) for sound in unique_detections(table.detections)
    ]
    detections = [*sampled, *others]
    clips = write_training_clips(rows, paths, detections, folder / CLIPS_FOLDER, progress=context.progress)
    for reason in clips.skipped:
        context.log(f"skipped: {reason}")
    if clips.n_positives + clips.n_negatives == 0:
        raise DataError(f"{wanted.check}: no clip can be cut: {clips.skipped[0]}")
    return {"right": clips.n_positives, "wrong": clips.n_negatives, "skipped": len(clips.skipped)}
