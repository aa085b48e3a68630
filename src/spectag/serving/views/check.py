"""The Check view: draw samples of detections, decide by ear, see the precision, and use thresholds that reach it."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.config.base import Config, parse_config
from spectag.config.findings import CheckSettings
from spectag.data.checked_detections import CHECK_FILE, DECISIONS_FILE
from spectag.errors import ConfigError
from spectag.findings.check_protocol import protocol_text
from spectag.findings.check_server import DecisionRequest
from spectag.findings.checked_sample import presence_unit
from spectag.findings.decision_store import ChangedRowError
from spectag.reporting.check_page import card_facts, decision_state
from spectag.serving import check_answers
from spectag.serving.answers import Question
from spectag.serving.check_answers import (
    CardQuery,
    CheckedVersionQuery,
    CurveQuery,
    DetectionTableQuery,
    DrawQuery,
    GoalQuery,
    RecordingsQuery,
)
from spectag.serving.check_folders import OpenCheck, ProjectChecks, names_of_recordings
from spectag.serving.check_labels import add_cut_clips, start_cutting
from spectag.serving.check_tables import received_table, tables_of_runs
from spectag.serving.field_types import RowNumber
from spectag.serving.folder_routes import allowed_folders
from spectag.serving.json_body import read_body
from spectag.serving.problems import MEDIA_TYPE, Problem, ProblemError
from spectag.serving.view import View, ViewContext
from spectag.serving.workers import AnswerWorkers

_MAX_PATH = 4_096
_MAX_PER_LABEL = 10_000
_MAX_LABELS = 100_000

ConfigT = TypeVar("ConfigT", bound=Config)


class NewCheck(Config):
    """A check that is to be made."""

    name: str = Field(max_length=100)
    table: str = Field(max_length=_MAX_PATH)
    recordings: str = Field("", max_length=_MAX_PATH)
    """Folder of the recordings; empty: they are beside the table."""
    per_label: int = Field(96, ge=1, le=_MAX_PER_LABEL)
    across: tuple[str, ...] = Field(("scores", "sites", "hours"), max_length=3)
    presence: bool = False
    min_probability: float | None = Field(None, ge=0, le=1)
    seed: int = Field(0, ge=0, lt=2**32)
    labels: tuple[str, ...] | None = Field(None, min_length=1, max_length=_MAX_LABELS)
    """None: all of the table."""


class PageDecision(DecisionRequest):
    """A decision, and what the page has seen before it."""

    session: str = Field(max_length=100)


class CutJob(Config):
    """The job that has cut the clips of a check."""

    job: RowNumber


class FolderChoice(Config):
    """The folder of a check's recordings."""

    recordings: str = Field(max_length=_MAX_PATH)


class _CheckView:
    """The requests of the view, and the checks of its project."""

    def __init__(self, context: ViewContext, resolve: Callable[[str], Path]) -> None:
        assert context.project is not None
        self._context, self._project, self._resolve = context, context.project, resolve
        self._checks = ProjectChecks(context.project.folder)

    async def all(self, _: Request) -> Response:
        """All checks with their progress."""
        return JSONResponse(await run_in_threadpool(self._checks.summaries))

    async def tables(self, _: Request) -> Response:
        """Tables of the project's jobs."""
        return JSONResponse(await run_in_threadpool(tables_of_runs, self._project.folder))

    async def table_labels(self, request: Request) -> Response:
        """The labels of a table, with their numbers of detections."""
        table = await run_in_threadpool(self._resolve, request.query_params.get("path", ""))
        query = _parsed({"min_probability": request.query_params.get("min_probability", "0")}, DetectionTableQuery)
        question = Question(check_answers.table_labels, table, table.name, query)
        return _json(await self._ask(self._context.workers, request, question))

    async def upload(self, request: Request) -> Response:
        """Take a table."""
        path = await received_table(request, self._context.settings, self._project.folder)
        return JSONResponse({"path": str(path), "name": path.name})

    async def create(self, request: Request) -> Response:
        """Draw a sample."""
        wanted = await read_body(request, NewCheck)
        table = await run_in_threadpool(self._resolve, wanted.table)
        audio_dir = await run_in_threadpool(self._resolve, wanted.recordings) if wanted.recordings else None
        output = self._checks.folder_of(wanted.name.strip())
        if any((output / name).exists() for name in (CHECK_FILE, DECISIONS_FILE)):
            raise ProblemError(HTTPStatus.CONFLICT, f"there is a check {output.name} already; choose another name")
        values = wanted.model_dump(include={"per_label", "across", "presence", "min_probability", "seed", "labels"})
        query = _parsed(values | {"output": output, "audio_dir": audio_dir}, DrawQuery)
        await self._ask(self._context.workers, request, Question(check_answers.draw_check, table, table.name, query))
        await run_in_threadpool(self._store_recordings, output.name, audio_dir)
        return JSONResponse((await run_in_threadpool(self._checks.get, output.name)).summary())

    async def show(self, request: Request) -> Response:
        """A check with all its cards and decisions."""
        check = await self._check(request)
        revision, rows = check.store.revision, check.store.rows
        units = ["\n".join(presence_unit(row)) if check.info.presence else None for row in rows]
        return JSONResponse(
            check.summary()
            | {
                "session": check.session,
                "revision": revision,
                "cards": [card_facts(row, unit) for row, unit in zip(rows, units, strict=True)],
                "states": [decision_state(row) for row in rows],
                "model_labels": list(self._context.tagger.labels.names),
                "recordings": await run_in_threadpool(self._recordings_folder, check),
            }
        )

    async def changes(self, request: Request) -> Response:
        """The decisions since a revision. Of another session, the page has to load the check again."""
        check, since = await self._check(request), request.query_params.get("since", "0")
        revision = int(since) if since.isascii() and since.isdecimal() and len(since) < 16 else 0
        return JSONResponse(_changes(check, revision))

    async def decide(self, request: Request) -> Response:
        """Store a decision, which is then on disk. If the row has changed meanwhile: 409, with the row as it is."""
        wanted = await read_body(request, PageDecision)
        check = await self._check(request)
        if wanted.session != check.session:
            return _changed(check, wanted.index, "the server has started again meanwhile")
        try:
            await run_in_threadpool(
                check.decide,
                wanted.index,
                wanted.decision,
                since=wanted.since,
                other_labels=[label.strip() for label in wanted.other_labels],
                reviewer=wanted.reviewer.strip(),
                comment=wanted.comment.strip(),
            )
        except ChangedRowError as error:
            return _changed(check, wanted.index, str(error))
        return JSONResponse(_changes(check, wanted.since))

    async def card(self, request: Request) -> Response:
        """The spectrogram and the sound of a detection, or why they can't be shown."""
        check = await self._check(request)
        row = check.row(request.path_params["index"])
        paths = await self._recordings(request, check)
        path = await run_in_threadpool(self._resolve, paths.get(row.file.strip(), row.file))
        query = CardQuery(start_seconds=row.start_seconds, end_seconds=row.end_seconds, context=CheckSettings().context)
        return _json(
            await self._ask(self._context.drawing, request, Question(check_answers.card, path, row.file, query))
        )

    async def choose_recordings(self, request: Request) -> Response:
        """Look for the recordings of a check in another folder."""
        wanted = await read_body(request, FolderChoice)
        check = await self._check(request)
        folder = await run_in_threadpool(self._resolve, wanted.recordings)
        await run_in_threadpool(self._store_recordings, check.name, folder)
        check.recordings = None
        return JSONResponse({"recordings": str(folder)})

    async def curve(self, request: Request) -> Response:
        """Precision against threshold of a label."""
        return await self._fitted(request, check_answers.label_curve, CurveQuery)

    async def thresholds(self, request: Request) -> Response:
        """The thresholds of all labels with decisions."""
        return await self._fitted(request, check_answers.all_thresholds, GoalQuery)

    async def make_version(self, request: Request) -> Response:
        """Make a version of the model with the thresholds, and use it."""
        goal = await read_body(request, GoalQuery)
        check = await self._check(request)
        fitted = json.loads(await self._ask_about(request, check, check_answers.all_thresholds, goal))
        known = [label for label in fitted["labels"] if label["old_threshold"] is not None]
        if not known:
            detail = "the checked labels are not those of the model in use; use the version that detected them"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        if all(label["problem"] for label in known):
            detail = "no label reaches this precision yet; check more detections, or choose a lower precision"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        labels: list[dict[str, Any]] = []

        async def write(folder: Path) -> dict[str, Any]:
            query = CheckedVersionQuery(**goal.model_dump(), output=folder)
            answer = await self._ask_about(request, check, check_answers.write_version, query)
            labels.extend(json.loads(answer)["labels"])
            return {"checked": {"check": check.name, **goal.model_dump(), "labels": labels}}

        number = await self._context.make_version("thresholds", write)
        return JSONResponse({"version": number, "labels": labels})

    async def cut_clips(self, request: Request) -> Response:
        """Start the job that cuts training clips out of the decided detections."""
        check = await self._check(request)
        paths = await self._recordings(request, check)
        recordings = await run_in_threadpool(self._allowed, names_of_recordings(check.store.rows), paths)
        folder = await run_in_threadpool(self._recordings_folder, check)
        audio_dir = Path(folder) if folder else None
        number = await run_in_threadpool(start_cutting, self._project, check, recordings, audio_dir)
        return JSONResponse({"job": number})

    async def add_labels(self, request: Request) -> Response:
        """Add the clips that a job has cut to the labels of the project."""
        wanted = await read_body(request, CutJob)
        check = await self._check(request)
        ask = partial(self._ask, self._context.workers, request)
        return JSONResponse(await add_cut_clips(self._project, check, wanted.job, ask))

    def _allowed(self, names: Sequence[str], paths: dict[str, str]) -> dict[str, str]:
        """The paths of recordings. A ProblemError if one is outside the folders that the page may read."""
        found = {name: paths.get(name.strip(), name) for name in names}
        for path in found.values():
            self._resolve(path)
        return found

    async def protocol(self, request: Request) -> Response:
        """What the methods section of a paper says about the check."""
        check = await self._check(request)
        text = await run_in_threadpool(protocol_text, check.store.rows, check.info, CheckSettings())
        return Response(text, media_type="text/markdown; charset=utf-8", headers=_attachment("protocol.md"))

    async def table(self, request: Request) -> Response:
        """The table of the decisions."""
        check = await self._check(request)
        return FileResponse(check.decisions, media_type="text/csv", headers=_attachment("decisions.csv"))

    async def _check(self, request: Request) -> OpenCheck:
        return await run_in_threadpool(self._checks.get, request.path_params["name"])

    async def _fitted(self, request: Request, function: Any, kind: type[GoalQuery]) -> Response:
        query = _parsed(dict(request.query_params), kind)
        return _json(await self._ask_about(request, await self._check(request), function, query))

    async def _ask_about(self, request: Request, check: OpenCheck, function: Any, query: Config) -> bytes:
        pool = self._context.workers if function is check_answers.write_version else self._context.drawing
        return await self._ask(pool, request, Question(function, check.decisions, check.decisions.name, query))

    async def _ask(self, pool: AnswerWorkers, request: Request, question: Question) -> bytes:
        with pool.place():
            return await pool.ask(question, request.is_disconnected)

    async def _recordings(self, request: Request, check: OpenCheck) -> dict[str, str]:
        """The paths of the recordings. The table of detections is read for the first card only."""
        if check.recordings is None:
            table = await run_in_threadpool(self._resolve, str(Path(check.info.table).absolute()))
            folder = await run_in_threadpool(self._recordings_folder, check)
            query = RecordingsQuery(
                files=names_of_recordings(check.store.rows),
                audio_dir=Path(folder) if folder else None,
                min_probability=check.info.min_probability,
            )
            question = Question(check_answers.recordings, table, table.name, query)
            check.recordings = json.loads(await self._ask(self._context.drawing, request, question))
        return dict(check.recordings)

    def _recordings_folder(self, check: OpenCheck) -> str:
        return self._project.setting(_folder_setting(check.name)) or ""

    def _store_recordings(self, name: str, folder: Path | None) -> None:
        self._project.store_setting(_folder_setting(name), "" if folder is None else str(folder))


def _folder_setting(name: str) -> str:
    return f"recordings of check {name}"


def _changes(check: OpenCheck, since: int) -> dict[str, Any]:
    revision, rows = check.store.changes_since(since)
    changes = {index: decision_state(row) for index, row in rows.items()}
    return {"session": check.session, "revision": revision, "changes": changes}


def _changed(check: OpenCheck, index: int, detail: str) -> Response:
    """The answer to a decision about a row that is not as the page has seen it."""
    status = HTTPStatus.CONFLICT
    problem = Problem(title=status.phrase, status=status, detail=detail).model_dump()
    row = decision_state(check.row(index))
    return JSONResponse({**problem, "row": row, **_changes(check, 0)}, status, media_type=MEDIA_TYPE)


def _parsed(values: dict[str, Any], kind: type[ConfigT]) -> ConfigT:
    try:
        return parse_config(values, kind, source="the request")
    except ConfigError as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _routes(context: ViewContext) -> Sequence[BaseRoute]:
    view = _CheckView(context, lambda path: allowed_folders(context).resolve(path))
    check = "/checks/{name}"
    return [
        Route("/checks", view.all),
        Route("/checks", view.create, methods=["POST"]),
        Route("/tables", view.tables),
        Route("/tables", view.upload, methods=["POST"]),
        Route("/tables/labels", view.table_labels),
        Route(check, view.show),
        Route(f"{check}/decisions", view.changes),
        Route(f"{check}/decisions", view.decide, methods=["POST"]),
        Route(f"{check}/cards/{{index:int}}", view.card),
        Route(f"{check}/recordings", view.choose_recordings, methods=["POST"]),
        Route(f"{check}/curve", view.curve),
        Route(f"{check}/thresholds", view.thresholds),
        Route(f"{check}/version", view.make_version, methods=["POST"]),
        Route(f"{check}/clips", view.cut_clips, methods=["POST"]),
        Route(f"{check}/labels", view.add_labels, methods=["POST"]),
        Route(f"{check}/protocol.md", view.protocol),
        Route(f"{check}/decisions.csv", view.table),
    ]


VIEW = View("check", _routes, needs_project=True)
