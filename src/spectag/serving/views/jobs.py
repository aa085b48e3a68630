"""The Jobs view: tag folders of recordings, and watch, stop and resume all jobs of the project."""

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.config.base import MAX_SECONDS, Config
from spectag.data.sites import check_site_pattern
from spectag.errors import ConfigError, DataError, MissingExtraError
from spectag.serving.folder_routes import allowed_folders
from spectag.serving.job_routes import job_record
from spectag.serving.json_body import read_body
from spectag.serving.problems import ProblemError
from spectag.serving.project.bulk_tagging import KIND, TAGS_FORMAT, BulkQuery, RunSettings
from spectag.serving.project.project import Project
from spectag.serving.project.tagging_runs import (
    TAGS,
    check_run_name,
    failures,
    free_run_name,
    make_run_folder,
    run_files,
    run_folder,
    write_zip,
)
from spectag.serving.view import View, ViewContext
from spectag.tagging.formats.dispatch import FORMATS, check_installed

_MAX_LABELS = 20_000
_FAILURES_ON_A_PAGE = 50
_OTHER_FORMATS = tuple(name for name in FORMATS if name not in (TAGS_FORMAT, "submission"))
_NOT_FOR_SEGMENTS = frozenset({"multi-hot"})


class RunRequest(Config):
    """A folder of recordings, and what to report of them."""

    recordings: str
    name: str = Field("", max_length=80)
    """By default that of the folder."""
    rows: Literal["segments", "windows", "recordings"] = "segments"
    window_seconds: float = Field(5.0, gt=0, le=MAX_SECONDS)
    overlap_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    min_confidence: float | None = Field(None, ge=0, le=1)
    """None: the thresholds of the model."""
    min_duration_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    formats: tuple[str, ...] = ()
    """Beside csv, with which other views and commands go on."""
    labels: tuple[str, ...] = Field((), max_length=_MAX_LABELS)
    """By default all."""
    has_places: bool = True
    """Whether tables have the columns recorded and site."""
    site_from: str = Field("", max_length=1_000)

    def settings(self) -> RunSettings:
        """The settings of the run."""
        values: dict[str, Any] = {"format": ",".join(dict.fromkeys((TAGS_FORMAT, *self.formats)))}
        if self.rows == "segments":
            values |= {"segments": True, "min_duration_seconds": self.min_duration_seconds}
        elif self.rows == "windows":
            values |= {"segments": False, "window": self.window_seconds, "overlap": self.overlap_seconds}
        else:
            values |= {"clip_level": "mean"}
        if self.min_confidence is not None:
            values["min_confidence"] = self.min_confidence
        if self.has_places:
            values["recorded"] = True
            if self.site_from:
                values["site_from"] = self.site_from
        return RunSettings(**values)


class _JobsView:
    """The requests of the view."""

    def __init__(self, context: ViewContext, project: Project) -> None:
        self._context, self._project = context, project

    async def jobs(self, _: Request) -> Response:
        """All jobs, newest first, without their logs, queries and results, and the time of the server."""
        jobs = await run_in_threadpool(self._project.jobs.all)
        left_out = ("log", "query", "result")
        records = [{name: value for name, value in job_record(job).items() if name not in left_out} for job in jobs]
        return JSONResponse({"now": datetime.now(UTC).isoformat(timespec="seconds"), "jobs": records})

    async def formats(self, _: Request) -> Response:
        """The formats beside csv, and whether the packages that they need are installed."""
        return JSONResponse([
            {"name": name, "missing": _missing(name), "segments": name not in _NOT_FOR_SEGMENTS}
            for name in _OTHER_FORMATS
        ])  # fmt: skip

    async def start(self, request: Request) -> Response:
        """Start a run."""
        wanted = await read_body(request, RunRequest)
        number, name = await asyncio.to_thread(self._start, wanted)
        return JSONResponse({"number": number, "name": name}, HTTPStatus.CREATED)

    def _start(self, wanted: RunRequest) -> tuple[int, str]:
        recordings = allowed_folders(self._context).resolve(wanted.recordings)
        version = self._project.versions.current
        if not recordings.is_dir():
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{recordings}: expected a folder")
        if version is None:
            raise ProblemError(HTTPStatus.CONFLICT, "the project has no model yet")
        settings = self._checked_settings(wanted)
        name = wanted.name.strip() or free_run_name(self._project.folder, recordings)
        try:
            check_run_name(name)
        except ConfigError as error:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        try:
            make_run_folder(self._project.folder, name)
        except ConfigError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        except DataError as error:
            raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, str(error)) from error
        query = BulkQuery(
            name=name, version=version.number, recordings=str(recordings), settings=settings, labels=wanted.labels
        )
        return self._project.jobs.start(KIND, query.model_dump(mode="json"), name), name

    def _checked_settings(self, wanted: RunRequest) -> RunSettings:
        """The settings; a ProblemError (422) says what is wrong with them, before anything is written."""
        unknown = [label for label in wanted.labels if label not in set(self._context.tagger.labels.names)]
        if unknown:
            detail = f"the model does not have the label {unknown[0][:100]!r}"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        if wrong := [name for name in wanted.formats if name not in _OTHER_FORMATS]:
            detail = f"unknown format {wrong[0][:40]!r}; expected some of {', '.join(_OTHER_FORMATS)}"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        settings = wanted.settings()
        try:
            settings.tag_settings()
            check_site_pattern(wanted.site_from)
            check_installed(wanted.formats)
        except (ConfigError, MissingExtraError) as error:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return settings

    async def files(self, request: Request) -> Response:
        """The tables of a run."""
        folder = self._folder(request)
        found = await run_in_threadpool(run_files, folder)
        files = [{"name": file.name, "bytes": file.n_bytes, "folder": file.is_folder} for file in found]
        has_tags = any(file.name == TAGS for file in found)
        return JSONResponse({"folder": str(folder), "files": files, "tags": has_tags})

    async def file(self, request: Request) -> Response:
        """A table of a run, or a zip of a folder with a file for each recording."""
        folder, name = self._folder(request), request.path_params["file"]
        found = next((file for file in await run_in_threadpool(run_files, folder) if file.name == name), None)
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such file in this run")
        path, shown, background = folder / found.name, found.name, None
        if found.is_folder:
            path, shown = await run_in_threadpool(self._zipped, path), f"{found.name}.zip"
            background = BackgroundTask(path.unlink, missing_ok=True)
        disposition = f"attachment; filename*=UTF-8''{quote(shown, safe='')}"
        headers = {"content-disposition": disposition}
        return FileResponse(path, media_type="application/octet-stream", headers=headers, background=background)

    def _zipped(self, folder: Path) -> Path:
        with tempfile.NamedTemporaryFile(dir=self._context.folder(), suffix=".zip", delete=False) as file:
            target = Path(file.name)
        try:
            write_zip(folder, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return target

    async def failures(self, request: Request) -> Response:
        """The recordings that were skipped, or are truncated: a page of them."""
        folder, text = self._folder(request), request.query_params.get("first", "0")
        if not (text.isascii() and text.isdecimal() and len(text) <= 9):
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "first: expected a number")
        try:
            page, n_all = await run_in_threadpool(failures, folder, first=int(text), n_most=_FAILURES_ON_A_PAGE)
        except DataError as error:
            raise ProblemError(HTTPStatus.NOT_FOUND, str(error)) from error
        return JSONResponse({"failures": [row._asdict() for row in page], "count": n_all})

    def _folder(self, request: Request) -> Path:
        folder = run_folder(self._project.folder, request.path_params["name"])
        if folder is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such run")
        return folder


def _missing(name: str) -> str:
    """What to install for a format; "" if nothing is missing."""
    try:
        check_installed([name])
    except MissingExtraError as error:
        return str(error)
    return ""


def _routes(context: ViewContext) -> Sequence[BaseRoute]:
    assert context.project is not None
    view = _JobsView(context, context.project)
    return [
        Route("/jobs", view.jobs),
        Route("/formats", view.formats),
        Route("/runs", view.start, methods=["POST"]),
        Route("/runs/{name}/files", view.files),
        Route("/runs/{name}/files/{file}", view.file),
        Route("/runs/{name}/failures", view.failures),
    ]


VIEW = View("jobs", _routes, needs_project=True)
