"""The Train view: train a version of the model, refit it after corrections, compare versions, and go back."""

import asyncio
import json
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.config.base import Config
from spectag.config.recipe import Folds
from spectag.errors import ConfigError, DataError, SpectagError
from spectag.models.bundle import RECIPE_FILE
from spectag.serving import train_answers
from spectag.serving.answers import Question
from spectag.serving.folder_routes import allowed_folders
from spectag.serving.json_body import read_body
from spectag.serving.problems import ProblemError
from spectag.serving.project.jobs import ENDED
from spectag.serving.project.project import Project
from spectag.serving.project.versions import ModelVersion, utc_now
from spectag.serving.train_answers import ClipQuery, ManifestQuery
from spectag.serving.train_recipes import TrainQuery, described_recipes, is_fast, missing_packages, recipe_of
from spectag.serving.view import View, ViewContext

KIND = "train"
_NO_LABELS: dict[str, Any] = {
    "path": None,
    "n_changes": 0,
    "up_to_date": None,
    "problem": "",
    "fast": False,
    "has_trained": False,
}
_SUMMARY = ("metric", "scores", "n_scored", "n_clips", "seconds", "query")
_PLAYED = {"cache-control": "no-store", "content-security-policy": "default-src 'none'; sandbox"}


class SourceRequest(Config):
    """Which clips: a table or folder, or those of the project."""

    manifest: str | None = Field(None, max_length=10_000)
    group_column: str | None = Field(None, max_length=1_000)


class TrainRequest(SourceRequest):
    """What to train."""

    recipe: str = Field(max_length=100)
    folds: Folds | None = None
    seed: int | None = Field(None, ge=0, lt=2**32)
    budget_minutes: float | None = Field(None, gt=0, le=60 * 24 * 30)


class _TrainView:
    """The requests of the view."""

    def __init__(self, context: ViewContext, project: Project) -> None:
        self._context, self._project = context, project
        self._stored: dict[int, dict[str, Any]] = {}  # results in the models of versions that were not trained here

    async def state(self, _: Request) -> Response:
        """The recipes, versions and labels of the project, and the last training."""
        state = await run_in_threadpool(self._state)
        for summary in state["versions"]:
            if summary["scores"] is None:
                version = await run_in_threadpool(self._project.versions.get, summary["number"])
                stored = await self._stored_results(version)
                summary.update({name: stored.get(name) for name in ("metric", "scores", "n_scored", "n_clips")})
        return JSONResponse(state)

    async def _stored_results(self, version: ModelVersion | None) -> dict[str, Any]:
        """What the spectag.json of a version says about its scores; empty if it says nothing, or can't be read."""
        if version is None:
            return {}
        if version.number not in self._stored:
            question = Question(train_answers.stored_results, version.folder, version.folder.name, Config())
            try:
                with self._context.drawing.place():
                    self._stored[version.number] = json.loads(await self._context.drawing.ask(question))
            except ProblemError:
                return {}
        return self._stored[version.number]

    def _state(self) -> dict[str, Any]:
        versions, current, job = self._project.versions, self._project.versions.current, self._project.jobs.last(KIND)
        return {
            "now": utc_now(),
            "recipes": described_recipes(),
            "versions": [_summary(version) for version in versions],
            "current": None if current is None else current.number,
            "labels": self._labels(current),
            "job": None if job is None else job.number,
        }

    def _labels(self, current: ModelVersion | None) -> dict[str, Any]:
        """Whether the project has labels, and how many were corrected since the version in use was begun."""
        try:
            path = self._project.labels.manifest_path()
        except DataError as error:
            return _NO_LABELS | {"problem": str(error)}
        if path is None:
            return _NO_LABELS
        n_changes, newest = self._project.labels.n_changes_since(current), self._newest_of_labels()
        has_all = newest is not None and self._project.labels.n_changes_since(newest) == 0
        return {
            "path": str(path),
            "n_changes": n_changes,
            "up_to_date": newest.number if newest is not None and has_all else None,
            "problem": "",
            "fast": _refits_fast(current),
            "has_trained": current is not None and (current.folder / RECIPE_FILE).is_file(),
        }

    def _newest_of_labels(self) -> ModelVersion | None:
        """The newest version that was trained on the labels of the project."""
        trained = [version for version in self._project.versions if _is_of_project(version)]
        return trained[-1] if trained else None

    async def preview(self, request: Request) -> Response:
        """What is in a manifest."""
        wanted = await read_body(request, SourceRequest)
        path = await run_in_threadpool(self._source, wanted)
        query = ManifestQuery(group_column=wanted.group_column)
        return await self._asked(Question(train_answers.manifest_content, path, path.name, query), request)

    async def start(self, request: Request) -> Response:
        """Train a new version."""
        wanted = await read_body(request, TrainRequest)
        return JSONResponse({"number": await asyncio.to_thread(self._start, wanted)}, HTTPStatus.CREATED)

    def _start(self, wanted: TrainRequest) -> int:
        path = self._source(wanted)
        manifest = None if wanted.manifest is None else str(path)
        query = TrainQuery(**wanted.model_dump(exclude={"manifest"}), manifest=manifest, parent=self._current_number)
        return self._start_job(query, f"{wanted.recipe}: {path.name}")

    async def refit(self, _: Request) -> Response:
        """Train again with the recipe of the version in use, on the labels of the project as they are now."""
        return JSONResponse({"number": await asyncio.to_thread(self._refit)}, HTTPStatus.CREATED)

    def _refit(self) -> int:
        self._source(SourceRequest())
        current = self._project.versions.current
        before = {} if current is None else current.results.get("query", {})
        column = before.get("group_column") if isinstance(before, dict) and before.get("manifest") is None else None
        query = TrainQuery(
            parent=self._current_number, origin="refitted", group_column=column if isinstance(column, str) else None
        )
        return self._start_job(query, "refit")

    def _start_job(self, query: TrainQuery, title: str) -> int:
        """Start a training, after a look at what would only fail later."""
        last, parent = self._project.jobs.last(KIND), self._project.versions.current
        if last is not None and last.state not in ENDED:
            raise ProblemError(HTTPStatus.CONFLICT, "a training runs already; wait for it, or stop it")
        try:
            recipe = recipe_of(query, None if parent is None else parent.folder)
        except ConfigError as error:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        if (missing := missing_packages(recipe)) is not None:
            raise ProblemError(HTTPStatus.CONFLICT, missing)
        return self._project.jobs.start(KIND, query.model_dump(mode="json"), title)

    def _source(self, wanted: SourceRequest) -> Path:
        """The manifest. A ProblemError if the page may not read it, or the project has no labels."""
        if wanted.manifest is not None:
            return allowed_folders(self._context).resolve(wanted.manifest)
        try:
            path = self._project.labels.manifest_path()
        except DataError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        if path is None:
            raise ProblemError(HTTPStatus.CONFLICT, "no clip of the project is labelled yet; label clips first")
        return path

    @property
    def _current_number(self) -> int | None:
        current = self._project.versions.current
        return None if current is None else current.number

    async def version(self, request: Request) -> Response:
        """All results of a version: scores, labels, changed clips, skipped files."""
        version = await run_in_threadpool(self._version, request)
        results = {name: value for name, value in version.results.items() if value is not None}
        if "scores" not in results:
            results = await self._stored_results(version) | results
        return JSONResponse(_summary(version) | {"results": results})

    async def card(self, request: Request) -> Response:
        """The card of a version."""
        version = await run_in_threadpool(self._version, request)
        return await self._asked(Question(train_answers.model_card, version.folder, version.folder.name, Config()))

    async def use(self, request: Request) -> Response:
        """Tag with this version from now on."""
        version = await run_in_threadpool(self._version, request)
        try:
            await self._context.use_version(version.number)
        except SpectagError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def delete(self, request: Request) -> Response:
        """Delete a version that is not in use."""
        version = await run_in_threadpool(self._version, request)
        try:
            await run_in_threadpool(self._project.versions.delete, version.number)
        except SpectagError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def clip(self, request: Request) -> Response:
        """A clip that changed between a version and its parent, as wav."""
        version = await run_in_threadpool(self._version, request)
        clip = _changed_clip(version, request.path_params["row"])
        path = await run_in_threadpool(allowed_folders(self._context).resolve, str(clip["path"]))
        query = ClipQuery(start_seconds=clip["start_seconds"], end_seconds=clip["end_seconds"])
        question = Question(train_answers.clip_wav, path, path.name, query)
        with self._context.drawing.place():
            content = await self._context.drawing.ask(question, request.is_disconnected)
        return Response(content, media_type="audio/wav", headers=_PLAYED)

    def _version(self, request: Request) -> ModelVersion:
        version = self._project.versions.get(request.path_params["number"])
        if version is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such version any more")
        return version

    async def _asked(self, question: Question, request: Request | None = None) -> Response:
        """The answer of a worker."""
        has_left = None if request is None else request.is_disconnected
        with self._context.drawing.place():
            answer = await self._context.drawing.ask(question, has_left)
        return JSONResponse(json.loads(answer))


def _is_of_project(version: ModelVersion) -> bool:
    query = version.results.get("query")
    return isinstance(query, dict) and query.get("manifest") is None


def _refits_fast(version: ModelVersion | None) -> bool:
    """Whether the recipe of a version only fits heads on features that are in the cache."""
    try:
        return is_fast(recipe_of(TrainQuery(), None if version is None else version.folder))
    except SpectagError:  # of another version of spectag; starting it gives the reason
        return False


def _summary(version: ModelVersion) -> dict[str, Any]:
    """A version in the table of versions."""
    results = version.results
    comparison = results.get("comparison")
    differences = None
    if isinstance(comparison, dict):
        differences = {name: comparison.get(name) for name in ("metric", "n_clips", "differences")}
    return {
        "number": version.number,
        "created": version.created,
        "origin": version.origin,
        "parent": version.parent,
        **{name: results.get(name) for name in _SUMMARY},
        "comparison": differences,
    }


def _changed_clip(version: ModelVersion, row: int) -> dict[str, Any]:
    """A clip in the results of a version; a ProblemError if there is no such one."""
    comparison = version.results.get("comparison")
    changed = comparison.get("changed") if isinstance(comparison, dict) else None
    clip = changed[row] if isinstance(changed, list) and row < len(changed) else None
    if not isinstance(clip, dict) or not isinstance(clip.get("path"), str):
        raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such clip any more")
    return clip


def _routes(context: ViewContext) -> Sequence[BaseRoute]:
    assert context.project is not None
    view = _TrainView(context, context.project)
    version = "/versions/{number:int}"
    return [
        Route("/state", view.state),
        Route("/preview", view.preview, methods=["POST"]),
        Route("/start", view.start, methods=["POST"]),
        Route("/refit", view.refit, methods=["POST"]),
        Route(version, view.version),
        Route(version, view.delete, methods=["DELETE"]),
        Route(f"{version}/card", view.card),
        Route(f"{version}/use", view.use, methods=["POST"]),
        Route(f"{version}/clips/{{row:int}}/wav", view.clip),
    ]


VIEW = View("train", _routes, needs_project=True)
