"""Decisions of a check as labels of the project: a job cuts the training clips, which then are added as an import."""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from spectag.serving.answers import Question
from spectag.serving.check_folders import OpenCheck
from spectag.serving.problems import ProblemError
from spectag.serving.project.checked_clips import KIND, manifest_of
from spectag.serving.project.label_clips import ClipState
from spectag.serving.project.label_rows import FoundClip
from spectag.serving.project.project import Project
from spectag.serving.review_answers import ClipTableQuery, read_clips

_REVIEWER = "check"

Ask = Callable[[Question], Awaitable[bytes]]


def start_cutting(project: Project, check: OpenCheck, recordings: dict[str, str], audio_dir: Path | None) -> int:
    """Start the job that cuts the clips of a check, and return its number.

    Raises
    ------
    ProblemError
        If nothing is decided yes or no (422).
    """
    if not any(row.decision in ("yes", "no") for row in check.store.rows):
        detail = "no detection has the decision yes or no yet; decide about some first"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    query = {
        "check": check.name,
        "recordings": recordings,
        "audio_dir": None if audio_dir is None else str(audio_dir),
    }
    return project.jobs.start(KIND, query, f"check {check.name}")


async def add_cut_clips(project: Project, check: OpenCheck, job_number: int, ask: Ask) -> dict[str, Any]:
    """Add the clips that a job has cut to the labels of the project; how many, for JSON.

    Raises
    ------
    ProblemError
        If it is not a job of this check (404), or it has not succeeded (409).
    """
    job = await run_in_threadpool(project.jobs.get, job_number)
    if job is None or job.kind != KIND or job.query.get("check") != check.name:
        raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such job of this check")
    if job.state != "done":
        reason = job.problem or job.state
        raise ProblemError(HTTPStatus.CONFLICT, f"the clips are not cut: {reason}")
    manifest = manifest_of(check.folder)
    found = json.loads(await ask(Question(read_clips, manifest, manifest.name, ClipTableQuery())))
    clips = [_found_clip(*row) for row in found["clips"]]
    counts = await run_in_threadpool(project.labels.add_clips, clips, found["labels"], reviewer=_REVIEWER)
    skipped = (job.result or {}).get("skipped", 0)
    return {"added": counts.n_added, "changed": counts.n_changed, "same": counts.n_same, "skipped": skipped}


def _found_clip(path: str, fname: str, start: float, end: float | None, state: list[Any]) -> FoundClip:
    labels, unknown, weight, fold, group = state
    return FoundClip(path, fname, start, end, ClipState(tuple(labels), tuple(unknown), weight, fold, group))
