"""The Review view: look at clips and listen to them, correct their labels, and find those that need it."""

import asyncio
import hashlib
import json
import mimetypes
import os
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.config.base import Config
from spectag.errors import ConfigError
from spectag.serving import review_answers
from spectag.serving.answers import Question
from spectag.serving.check_tables import received_table
from spectag.serving.field_types import RowNumber, Seconds
from spectag.serving.folder_routes import allowed_folders
from spectag.serving.json_body import read_body
from spectag.serving.problems import MEDIA_TYPE, ProblemError
from spectag.serving.project.label_clips import ClipChange, ClipState, LabelledClip
from spectag.serving.project.label_review_tables import ReviewResults
from spectag.serving.project.label_rows import FoundClip
from spectag.serving.project.labels import MAX_CLIPS_AT_ONCE, ChangedClipsError
from spectag.serving.review_answers import ClipTableQuery, ExcerptQuery
from spectag.serving.review_filters import ClipFilter, matching_clips
from spectag.serving.review_state import REVIEW_JOB, SUGGEST_JOB, results_version, review_state, step_record
from spectag.serving.sound_answers import TileQuery
from spectag.serving.view import View, ViewContext
from spectag.serving.workers import AnswerWorkers

_MAX_DETAILS = 200
_MAX_SIMILAR = 500
_MAX_KEPT_WAVS = 20
_JOB_TITLES = {REVIEW_JOB: "Check the labels of all clips", SUGGEST_JOB: "Suggest what to label next"}
_SOUND_HEADERS = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox"}
_PICTURE_HEADERS = {"cache-control": "private, no-cache"}  # another project has other clips at the same addresses


class _Authored(Config):
    reviewer: str = Field("page", min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")
    """Who does it, for the history."""


class ImportRequest(_Authored):
    """Which clips to add."""

    path: str = Field(max_length=4_096)
    audio_dir: str | None = Field(None, max_length=4_096)
    empty_is_unlabelled: bool = False


class ClipsRequest(Config):
    """Clips by their numbers."""

    numbers: tuple[RowNumber, ...] = Field(max_length=_MAX_DETAILS)


class EditRequest(_Authored):
    """What to change."""

    clips: tuple[tuple[RowNumber, RowNumber], ...] = Field(min_length=1, max_length=MAX_CLIPS_AT_ONCE)
    """Number and revision of each clip, as the page has seen it."""
    change: ClipChange


class PartRequest(_Authored):
    """A part of a clip that becomes a clip."""

    clip: RowNumber
    start: Seconds
    end: Seconds
    labels: tuple[str, ...] | None = Field(None, max_length=100)


class UndoRequest(_Authored):
    """What to undo: a step of the history, or the last one of the reviewer."""

    step: RowNumber | None = None


class LabelRequest(Config):
    """A new label."""

    name: str = Field(max_length=1_000)


class JobRequest(Config):
    """A job to start."""

    kind: Literal["review", "suggest"]
    n: int = Field(50, ge=1, le=10_000)


class _ReviewView:
    """The requests of the view."""

    def __init__(self, context: ViewContext) -> None:
        assert context.project is not None
        self._context, self._project = context, context.project
        self._labels = context.project.labels
        self._results = ReviewResults(context.project.database)
        self._importing = asyncio.Lock()

    def state(self, _: Request) -> Response:
        """Counts, labels, queues and jobs."""
        return JSONResponse(review_state(self._project, self._results, self._context.tagger.labels.names))

    async def add(self, request: Request) -> Response:
        """Add the clips of a table or folder."""
        wanted = await read_body(request, ImportRequest)
        allowed = allowed_folders(self._context)
        path = await run_in_threadpool(allowed.resolve, wanted.path)
        audio_dir = None if wanted.audio_dir is None else await run_in_threadpool(allowed.resolve, wanted.audio_dir)
        query = ClipTableQuery(audio_dir=audio_dir, empty_is_unlabelled=wanted.empty_is_unlabelled)
        return await self._import(request, path, query, wanted.reviewer)

    async def add_table(self, request: Request) -> Response:
        """Add the clips of a table that was dropped on the page; it is kept in the project."""
        query = request.query_params
        wanted = _checked(
            ImportRequest,
            path=query.get("name", ""),
            audio_dir=query.get("audio_dir"),
            empty_is_unlabelled=query.get("empty_is_unlabelled") == "true",
            reviewer=query.get("reviewer", "page"),
        )
        folder = None
        if wanted.audio_dir is not None:
            folder = await run_in_threadpool(allowed_folders(self._context).resolve, wanted.audio_dir)
        table = await received_table(request, self._context.settings, self._project.folder)
        manifest = ClipTableQuery(audio_dir=folder, empty_is_unlabelled=wanted.empty_is_unlabelled)
        try:
            return await self._import(request, table, manifest, wanted.reviewer)
        except ProblemError:
            await run_in_threadpool(table.unlink, missing_ok=True)
            raise

    async def _import(self, request: Request, path: Path, query: ClipTableQuery, reviewer: str) -> Response:
        async with self._importing:
            question = Question(review_answers.read_clips, path, path.name, query)
            found = json.loads(await _ask(self._context.workers, request, question))
            return JSONResponse(await run_in_threadpool(self._store, found, reviewer))

    def _store(self, found: dict[str, Any], reviewer: str) -> dict[str, Any]:
        roots = allowed_folders(self._context).roots
        for folder in {os.path.dirname(row[0]) for row in found["clips"]}:  # noqa: PTH120 a Path is slow to make
            if not any(Path(folder).is_relative_to(root) for root in roots):
                detail = (
                    f"{folder}: the sounds are outside the folders that the page may read; start spectag with --folder"
                )
                raise ProblemError(HTTPStatus.FORBIDDEN, detail)
        clips = [FoundClip(row[0], row[1], row[2], row[3], _state(row[4])) for row in found["clips"]]
        try:
            counts = self._labels.add_clips(clips, found["labels"], reviewer=reviewer)
        except UnicodeEncodeError:
            raise _unprocessable("a file has a name that is not UTF-8; rename it") from None
        return {"added": counts.n_added, "changed": counts.n_changed, "same": counts.n_same, "notes": found["notes"]}

    async def query(self, request: Request) -> Response:
        """The numbers of the clips that match, in order."""
        chosen = await read_body(request, ClipFilter)
        return JSONResponse({"numbers": await run_in_threadpool(self._matching, chosen)})

    def _matching(self, chosen: ClipFilter) -> list[int]:
        version = self._version()
        numbers = matching_clips(self._project.database, chosen, version)
        if chosen.similar_to is None:
            return numbers
        vectors = self._results.vectors(version)
        if vectors is None:
            raise ProblemError(HTTPStatus.CONFLICT, "this version of the model has not looked at the clips yet")
        wanted = set(numbers)
        nearest = vectors.nearest(chosen.similar_to, len(vectors.numbers))
        return [number for number in nearest if number in wanted][:_MAX_SIMILAR]

    def _version(self) -> int:
        return results_version(self._project, self._results)

    async def clips(self, request: Request) -> Response:
        """Clips, with what the model says about them."""
        wanted = await read_body(request, ClipsRequest)
        return JSONResponse({"clips": await run_in_threadpool(self._records, wanted.numbers)})

    def _records(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        clips = self._labels.clips(numbers)
        details = self._results.details(self._version(), numbers)
        return [clip.record() | {"model": details[clip.number]} for clip in clips]

    async def edit(self, request: Request) -> Response:
        """Change clips. 409, with the clips as they are now, if somebody else has changed them."""
        wanted = await read_body(request, EditRequest)
        seen = list(dict(wanted.clips).items())
        return await self._changed(lambda: self._labels.edit(seen, wanted.change, reviewer=wanted.reviewer))

    async def undo(self, request: Request) -> Response:
        """Undo a step. 409, with the clips as they are now, if they were changed after it."""
        wanted = await read_body(request, UndoRequest)
        return await self._changed(lambda: self._labels.undo(wanted.step, reviewer=wanted.reviewer))

    async def add_part(self, request: Request) -> Response:
        """Make a clip of a part."""
        wanted = await read_body(request, PartRequest)
        labels = None if wanted.labels is None else _checked(ClipChange, add=wanted.labels).add
        times = wanted.clip, wanted.start, wanted.end
        return await self._changed(lambda: [self._labels.add_part(*times, labels, reviewer=wanted.reviewer)])

    async def _changed(self, function: Callable[[], list[LabelledClip]]) -> Response:
        try:
            clips = await run_in_threadpool(function)
        except ConfigError as error:
            raise _unprocessable(str(error)) from error
        except ChangedClipsError as error:
            numbers = [clip.number for clip in error.clips[:_MAX_DETAILS]]
            now = await run_in_threadpool(self._records, numbers)
            status = HTTPStatus.CONFLICT
            detail = f"somebody else has changed {len(error.clips)} of these clips meanwhile"
            problem = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail, "clips": now}
            return JSONResponse(problem, status, media_type=MEDIA_TYPE)
        numbers = [clip.number for clip in clips[:_MAX_DETAILS]]
        return JSONResponse({"clips": await run_in_threadpool(self._records, numbers), "n": len(clips)})

    def history(self, request: Request) -> Response:
        """The last steps; those of one clip with ?clip=NUMBER."""
        clip = request.query_params.get("clip", "")
        number = int(clip) if re.fullmatch(r"[0-9]{1,15}", clip) else None
        return JSONResponse([step_record(step) for step in self._labels.history(clip=number)])

    async def add_label(self, request: Request) -> Response:
        """Add a label that no clip has yet."""
        wanted = await read_body(request, LabelRequest)
        try:
            return JSONResponse({"label": await run_in_threadpool(self._labels.add_label, wanted.name)})
        except ConfigError as error:
            raise _unprocessable(str(error)) from error

    async def start_job(self, request: Request) -> Response:
        """Start a job of the model in use."""
        wanted = await read_body(request, JobRequest)
        query = {"version": await run_in_threadpool(self._version), "n": wanted.n}
        number = await run_in_threadpool(self._project.jobs.start, wanted.kind, query, _JOB_TITLES[wanted.kind])
        return JSONResponse({"job": number})

    def overwrite(self, _: Request) -> Response:
        """Write labels.csv although another program has changed it so that it can't be read."""
        self._labels.file.update(overwrite=True)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def thumbnail(self, request: Request) -> Response:
        """A small spectrogram."""
        clip, path = await run_in_threadpool(self._found, request)
        key = await run_in_threadpool(_key_of, clip, path)
        headers = _PICTURE_HEADERS | {"etag": f'"{key}"'}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        target = self._project.folder / ".cache" / "thumbnails" / key[:2] / f"{key[2:]}.jpg"
        if target.exists():
            return FileResponse(target, media_type="image/jpeg", headers=headers)
        query = ExcerptQuery(start=clip.start_seconds, end=clip.end_seconds, target=target)
        question = Question(review_answers.thumbnail, path, clip.fname, query)
        content = await _ask(self._context.drawing, request, question)
        return Response(content, media_type="image/jpeg", headers=headers)

    async def facts(self, request: Request) -> Response:
        """The length of the recording, and its tiles."""
        clip, path = await run_in_threadpool(self._found, request)
        question = Question(review_answers.facts, path, clip.fname, Config())
        content = await _ask(self._context.drawing, request, question)
        return Response(content, media_type="application/json")

    async def tile(self, request: Request) -> Response:
        """A tile of the spectrogram of the recording."""
        clip, path = await run_in_threadpool(self._found, request)
        rate, level, index = (request.path_params[name] for name in ("rate", "level", "index"))
        query = _checked(TileQuery, sample_rate=rate, level=level, index=index)
        key = await run_in_threadpool(_key_of, clip, path)
        headers = _PICTURE_HEADERS | {"etag": f'"{key}-{query.sample_rate}-{query.level}-{query.index}"'}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        question = Question(review_answers.recording_tile, path, clip.fname, query)
        content = await _ask(self._context.drawing, request, question)
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def sound(self, request: Request) -> Response:
        """The recording as it is; ranges of it can be asked for."""
        _, path = await run_in_threadpool(self._found, request)
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if not media_type.startswith(("audio/", "video/")):
            media_type = "application/octet-stream"
        return FileResponse(path, media_type=media_type, headers=_SOUND_HEADERS)

    async def wav(self, request: Request) -> Response:
        """The clip for a browser that can't play the format of its recording."""
        clip, path = await run_in_threadpool(self._found, request)
        folder = self._context.folder() / "review"
        target = folder / f"{await run_in_threadpool(_key_of, clip, path)}.wav"
        if not target.exists():
            query = ExcerptQuery(start=clip.start_seconds, end=clip.end_seconds, target=target)
            await _ask(self._context.drawing, request, Question(review_answers.wav_of_clip, path, clip.fname, query))
            await run_in_threadpool(_remove_oldest, folder)
        return FileResponse(target, media_type="audio/wav", headers=_SOUND_HEADERS)

    def _found(self, request: Request) -> tuple[LabelledClip, Path]:
        """A clip, and the path of its recording, which may be read."""
        clip = self._labels.clip(request.path_params["number"])
        if clip is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such clip")
        return clip, allowed_folders(self._context).resolve(str(clip.path))


def _state(values: list[Any] | None) -> ClipState:
    if values is None:
        return ClipState(is_labelled=False)
    labels, unknown, weight, fold, group = values
    return ClipState(tuple(labels), tuple(unknown), weight, fold, group)


def _checked(kind: Any, **values: Any) -> Any:
    """Settings from a request. A ProblemError (422) if they are wrong."""
    try:
        return kind(**values)
    except ValueError as error:
        raise _unprocessable(str(error).splitlines()[0]) from error


def _unprocessable(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _key_of(clip: LabelledClip, path: Path) -> str:
    """Differs for all clips of all projects, and if the recording has changed."""
    status = path.stat()
    key = f"{path}\0{clip.start_seconds}\0{clip.end_seconds}\0{status.st_mtime_ns}\0{status.st_size}"
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _remove_oldest(folder: Path) -> None:
    paths = sorted(folder.glob("*.wav"), key=lambda path: path.stat().st_mtime)
    for path in paths[:-_MAX_KEPT_WAVS]:
        path.unlink(missing_ok=True)


async def _ask(workers: AnswerWorkers, request: Request, question: Question) -> bytes:
    with workers.place():
        return await workers.ask(question, request.is_disconnected)


def _routes(context: ViewContext) -> Sequence[BaseRoute]:
    view = _ReviewView(context)
    clip = "/clips/{number:int}"
    posts = {
        "/import": view.add,
        "/table": view.add_table,
        "/query": view.query,
        "/clips": view.clips,
        "/edit": view.edit,
        "/undo": view.undo,
        "/parts": view.add_part,
        "/labels": view.add_label,
        "/jobs": view.start_job,
        "/overwrite": view.overwrite,
    }
    gets = {
        "/state": view.state,
        "/history": view.history,
        f"{clip}/thumbnail": view.thumbnail,
        f"{clip}/facts": view.facts,
        f"{clip}/sound": view.sound,
        f"{clip}/wav": view.wav,
        f"{clip}/tiles/{{rate}}/{{level}}/{{index}}": view.tile,
    }
    return [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
        *(Route(path, endpoint) for path, endpoint in gets.items()),
    ]


VIEW = View("review", _routes, needs_project=True)
