"""The Explore view: a map of all clips of the project, to listen to what is near, and to label many clips at once."""

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.config.base import Config, parse_config
from spectag.errors import ConfigError, DataError
from spectag.models.bundle import read_info
from spectag.serving import check_answers
from spectag.serving.answers import Question
from spectag.serving.check_answers import CardQuery
from spectag.serving.field_types import RowNumber
from spectag.serving.folder_routes import allowed_folders
from spectag.serving.json_body import read_body
from spectag.serving.problems import ProblemError
from spectag.serving.project.clip_map import KIND, ClipMap, Disagreement, MapQuery, disagreements, map_path
from spectag.serving.project.jobs import ENDED, Job
from spectag.serving.project.label_clips import ClipChange, LabelledClip
from spectag.serving.project.labels import MAX_CLIPS_AT_ONCE, ChangedClipsError
from spectag.serving.project.project import Project
from spectag.serving.view import View, ViewContext
from spectag.system.environment import PURPOSES, Extra, installed_version

_DIGITS = 5  # of a place
_EXTRA = "explore"


class LabelEdit(Config):
    """A label that many clips get or lose."""

    clips: tuple[tuple[RowNumber, RowNumber], ...] = Field(min_length=1, max_length=MAX_CLIPS_AT_ONCE)
    """Number of each, and the revision that the page has seen."""
    label: str = Field(max_length=1_000)
    action: Literal["add", "remove"]
    reviewer: str = Field("", max_length=100)


class LastEdit(Config):
    """The last edit of a reviewer, which is to be undone."""

    reviewer: str = Field("", max_length=100)


class _ExploreView:
    """The requests of the view."""

    def __init__(self, context: ViewContext, project: Project) -> None:
        self._context, self._project = context, project
        self._kept: tuple[tuple[int, Path, int], ClipMap] | None = None

    async def map(self, _: Request) -> Response:
        """The map of the version in use, or why there is none yet."""
        return JSONResponse(await run_in_threadpool(self._map))

    def _map(self) -> dict[str, Any]:
        project = self._project
        clips = {one.number: one for one in project.labels.all_clips() if not one.state.is_dropped}
        job = _last_job(project)
        answer: dict[str, Any] = {
            "n_clips": len(clips),
            "job": None if job is None else {"number": job.number, "state": job.state, "problem": job.problem},
            "missing": _command_to_install(),
            "map": None,
        }
        try:
            drawn = self._read()
            answer["map"] = None if drawn is None else _drawn(drawn, clips, self._used_labels())
        except DataError as error:
            answer["problem"] = str(error)
        return answer

    def _read(self) -> ClipMap | None:
        """The map of the version in use, which is kept until it changes; None if there is none.

        That of an ancestor counts if only the thresholds differ.
        """
        current = self._version()
        for number in self._project.versions.with_same_networks(current):
            path = map_path(self._project.folder, number)
            try:
                key = current, path, path.stat().st_mtime_ns
            except OSError:
                continue
            if self._kept is None or self._kept[0] != key:
                drawn = ClipMap.read(path)
                self._kept = key, drawn if number == current else self._with_thresholds(drawn, number, current)
            return self._kept[1]
        return None

    def _with_thresholds(self, drawn: ClipMap, source: int, current: int) -> ClipMap:
        old, new = (self._project.versions.get(number) for number in (source, current))
        assert old is not None
        assert new is not None
        return drawn.with_thresholds(read_info(old.folder).thresholds, read_info(new.folder).thresholds)

    def _version(self) -> int:
        version = self._project.versions.current
        return 0 if version is None else version.number

    def _used_labels(self) -> list[str]:
        return [name for name, count in self._project.labels.label_counts().items() if count]

    async def draw(self, _: Request) -> Response:
        """Draw the map again, unless that is being done."""
        return JSONResponse(await run_in_threadpool(self._draw), HTTPStatus.ACCEPTED)

    def _draw(self) -> dict[str, Any]:
        version, job = self._version(), _last_job(self._project)
        if job is not None and job.state not in ENDED and job.query.get("version") == version:
            return {"number": job.number}
        query = MapQuery(version=version).model_dump(mode="json")
        return {"number": self._project.jobs.start(KIND, query, f"version {version}")}

    async def card(self, request: Request) -> Response:
        """The spectrogram and the sound of a clip, or why they can't be shown."""
        clip = await run_in_threadpool(self._project.labels.clip, request.path_params["number"])
        if clip is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such clip")
        path = await run_in_threadpool(allowed_folders(self._context).resolve, str(clip.path))
        query = CardQuery(start_seconds=clip.start_seconds, end_seconds=clip.end_seconds, context=0.0)
        with self._context.drawing.place():
            question = Question(check_answers.card, path, clip.name, query)
            content = await self._context.drawing.ask(question, request.is_disconnected)
        return Response(content, media_type="application/json")

    async def edit(self, request: Request) -> Response:
        """Give a label to clips, or take it away: all or none of them."""
        wanted = await read_body(request, LabelEdit)
        try:
            change = parse_config({wanted.action: (wanted.label,)}, ClipChange, source="the edit")
            labels = self._project.labels
            changed = await run_in_threadpool(labels.edit, wanted.clips, change, reviewer=wanted.reviewer.strip())
        except ConfigError as error:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        except ChangedClipsError as error:
            raise _changed(error) from error
        return JSONResponse(await run_in_threadpool(self._edited, changed))

    async def undo(self, request: Request) -> Response:
        """Undo the last edit of a reviewer."""
        wanted = await read_body(request, LastEdit)
        try:
            changed = await run_in_threadpool(self._project.labels.undo, reviewer=wanted.reviewer.strip())
        except ConfigError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        except ChangedClipsError as error:
            raise _changed(error) from error
        return JSONResponse(await run_in_threadpool(self._edited, changed))

    def _edited(self, changed: Sequence[LabelledClip]) -> dict[str, Any]:
        """What has changed on the map."""
        clips = {clip.number: clip for clip in changed}
        errors: dict[int, list[Any]] = {}
        if (drawn := self._read()) is not None:
            drawn = drawn.select(clips)
            found = disagreements(clips, drawn, self._used_labels())
            errors = dict(zip(drawn.numbers.tolist(), map(_error, found), strict=True))
        return {"clips": [_edited_clip(clip) | {"error": errors.get(clip.number)} for clip in changed]}


def _drawn(drawn: ClipMap, clips: dict[int, LabelledClip], labels: Sequence[str]) -> dict[str, Any]:
    """A map as columns: clips that were dropped since are left out."""
    differences = disagreements(clips, drawn, labels)
    rows = [row for row, number in enumerate(drawn.numbers.tolist()) if number in clips]
    shown = [clips[drawn.numbers[row]] for row in rows]
    names = sorted({*labels, *(name for clip in shown for name in clip.state.labels)})
    places = drawn.places[rows].astype(float).round(_DIGITS)
    columns = {name: column for column, name in enumerate(names)}
    return {
        "method": drawn.method,
        "n_new": len(clips) - len(shown),
        "label_names": names,
        "numbers": [clip.number for clip in shown],
        "revisions": [clip.revision for clip in shown],
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "names": [clip.name for clip in shown],
        "sites": [clip.site for clip in shown],
        "recorded": [clip.recorded for clip in shown],
        "starts": [clip.start_seconds for clip in shown],
        "labelled": [clip.state.is_labelled for clip in shown],
        "labels": [[columns[name] for name in clip.state.labels] for clip in shown],
        "errors": [_error(differences[row]) for row in rows],
    }


def _error(one: Disagreement) -> list[Any]:
    return [one.kind, one.label, one.probability]


def _edited_clip(clip: LabelledClip) -> dict[str, Any]:
    state = clip.state
    return {
        "number": clip.number,
        "revision": clip.revision,
        "labels": state.labels,
        "labelled": state.is_labelled,
        "dropped": state.is_dropped,
    }


def _changed(error: ChangedClipsError) -> ProblemError:
    n_clips = len(error.clips)
    clips = "1 clip was" if n_clips == 1 else f"{n_clips:,} clips were"
    return ProblemError(HTTPStatus.CONFLICT, f"{clips} changed by somebody else meanwhile, so nothing was changed")


def _last_job(project: Project) -> Job | None:
    return project.jobs.last(KIND)


def _command_to_install() -> str:
    """What installs the better method; empty if it is installed."""
    is_installed = installed_version("scikit-learn") is not None
    return "" if is_installed else Extra(_EXTRA, PURPOSES[_EXTRA], ("scikit-learn",)).command


def _routes(context: ViewContext) -> Sequence[BaseRoute]:
    assert context.project is not None
    view = _ExploreView(context, context.project)
    return [
        Route("/map", view.map),
        Route("/map", view.draw, methods=["POST"]),
        Route("/clips/{number:int}/card", view.card),
        Route("/edit", view.edit, methods=["POST"]),
        Route("/undo", view.undo, methods=["POST"]),
    ]


VIEW = View("explore", _routes, needs_project=True)
