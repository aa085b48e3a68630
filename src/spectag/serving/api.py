"""The HTTP API of a model: /v1/tag, /v1/segments, /v1/embed, /v1/search, /v1/labels, /v1/model, /v1/listen."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, WebSocket
from starlette.responses import PlainTextResponse, Response

from spectag.config.base import Config, parse_config
from spectag.config.serving import ServeSettings
from spectag.config.tagging import TagSettings
from spectag.errors import ConfigError
from spectag.models.model_labels import model_labels
from spectag.models.tagger import Tagger
from spectag.serving.answers import AnswerLimits, Kind, Question
from spectag.serving.live import LiveStreams
from spectag.serving.page import page_routes
from spectag.serving.problems import ProblemError, add_problem_handlers, declared, describe_problems
from spectag.serving.project.project import Project
from spectag.serving.schemas import (
    EmbeddingsAnswer,
    EmbedQuery,
    LabelAnswer,
    ModelAnswer,
    SearchAnswer,
    SearchQuery,
    SegmentQuery,
    StatusAnswer,
    TagQuery,
    TagsAnswer,
)
from spectag.serving.uploads import received_sound
from spectag.serving.view import PageContext, ViewContext
from spectag.serving.workers import AnswerWorkers

_BINARY = {"type": "string", "format": "binary"}
_SOUND_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": _BINARY}, "required": ["file"]}
            },
        },
    }
}
_REFUSED = declared(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.INSUFFICIENT_STORAGE,
)


class ModelService:
    """A model, the worker processes that use it, and the application with its HTTP API and page.

    Parameters
    ----------
    tagger : Tagger
    settings : ServeSettings
    n_workers : int
    shared : PageContext
        What all models of a server share.
    metrics : callable
        The numbers for Prometheus, as text.
    project : Project, optional

    Raises
    ------
    SpectagError
        If the index can't be opened, or the folder of kept sounds can't be made.
    """

    def __init__(
        self,
        tagger: Tagger,
        settings: ServeSettings,
        n_workers: int,
        shared: PageContext,
        metrics: Callable[[], bytes],
        project: Project | None = None,
    ) -> None:
        self._tagger, self._settings, self._shared, self._metrics_text = tagger, settings, shared, metrics
        limits = AnswerLimits(tagger.folder, settings.index, 60 * settings.max_minutes, settings.device)
        _check_folders(settings, tagger)
        self.workers, self._drawing = (
            AnswerWorkers(
                limits,
                n_workers=n,
                seconds=settings.max_seconds,
                gigabytes=settings.max_gigabytes,
                max_waiting=settings.max_waiting,
                opens_model=opens_model,
            )
            for n, opens_model in ((n_workers, True), (1, False))
        )
        self.live = LiveStreams(tagger, settings.max_live, settings.max_live_minutes)
        self._labels = [
            LabelAnswer(label=label.label, threshold=round(label.threshold, 6), clips=label.n_clips)
            for label in model_labels(tagger.folder)
        ]
        self.app = self._routes()
        context = ViewContext(
            **vars(shared), tagger=tagger, workers=self.workers, drawing=self._drawing, project=project
        )
        self.app.router.routes += page_routes(context)

    def start(self) -> None:
        """Start the worker processes."""
        self.workers.start()
        self._drawing.start()

    def numbers(self) -> dict[str, int]:
        """How much it has to do, for Prometheus."""
        n_lost = self.workers.n_lost + self._drawing.n_lost
        return {"n_questions": self.workers.n_questions, "n_lost": n_lost, "n_live": self.live.n_live}

    def close(self) -> None:
        """End the worker processes."""
        self.workers.close()
        self._drawing.close()

    async def _answer(self, request: Request, kind: Kind, query: Config) -> Response:
        self._shared.rate_limit.check(request.client.host if request.client else "")
        with self.workers.place():
            async with received_sound(request, self._settings, self._shared.folder()) as upload:
                question = Question(kind, upload.path, upload.name, query)
                answer = await self.workers.ask(question, request.is_disconnected)
                if self._settings.keep is not None:
                    await asyncio.to_thread(upload.keep, self._settings.keep)
                return Response(answer, media_type="application/json")

    def _routes(self) -> FastAPI:
        app = FastAPI(
            title="spectag",
            summary="Tags of sounds: several labels may be true at once.",
            version=self._tagger.info.versions.get("spectag", ""),
            docs_url=None,  # its page loads scripts from elsewhere
            redoc_url=None,
            openapi_url="/openapi.json",
        )
        add_problem_handlers(app)
        describe_problems(app)
        if self._settings.token is not None:
            _describe_token(app)
        self._add_questions(app)
        self._add_descriptions(app)
        app.websocket("/v1/listen")(self._listen)
        return app

    async def _listen(self, socket: WebSocket) -> None:
        await self.live.serve(socket)

    def _add_questions(self, app: FastAPI) -> None:
        described: dict[str, Any] = {
            "responses": _REFUSED,
            "openapi_extra": _SOUND_BODY,
            "response_model_exclude_unset": True,
        }

        @app.post("/v1/tag", response_model=TagsAnswer, **described)
        async def tag(request: Request, query: Annotated[TagQuery, Query()]) -> Any:  # type: ignore[valid-type]
            """The tags of a sound, as `spectag tag` reports them: segments of a long one, one set of a short one."""
            return await self._answer(request, "tag", _tag_settings(query))

        @app.post("/v1/segments", response_model=TagsAnswer, **described)
        async def segments(request: Request, query: Annotated[SegmentQuery, Query()]) -> Any:  # type: ignore[valid-type]
            """The segments of a sound in which labels are on, as `spectag tag --segments` reports them."""
            return await self._answer(request, "segments", _tag_settings(query, segments=True))

        @app.post("/v1/embed", response_model=EmbeddingsAnswer, **described)
        async def embed(request: Request, query: Annotated[EmbedQuery, Query()]) -> Any:
            """What the network has found in a sound: a list of numbers, to compare sounds or to train on."""
            return await self._answer(request, "embed", query)

        @app.post("/v1/search", response_model=SearchAnswer, **described)
        async def search(request: Request, query: Annotated[SearchQuery, Query()]) -> Any:
            """Similar sounds in the index that the server was started with."""
            if self._settings.index is None:
                detail = "this server has no index; start it with spectag serve MODEL --index FOLDER"
                raise ProblemError(HTTPStatus.NOT_FOUND, detail)
            return await self._answer(request, "search", query)

    def _add_descriptions(self, app: FastAPI) -> None:
        info = self._tagger.info
        described = ModelAnswer(
            name=self._tagger.folder.name,
            version=info.versions.get("spectag", ""),
            backbone=info.backbone.name,
            n_labels=len(info.labels),
            sample_rate=self._tagger.sample_rate,
            has_novelty=self._tagger.has_novelty,
            has_index=self._settings.index is not None,
            card=self._tagger.card,
        )
        refused = declared(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST)

        @app.get("/v1/labels", responses=refused)
        async def labels() -> list[LabelAnswer]:
            """The labels of the model, with the probabilities from which they are reported."""
            return self._labels

        @app.get("/v1/model", responses=refused)
        async def model() -> ModelAnswer:
            """The model of this server."""
            return described

        @app.get("/healthz", responses=refused)
        async def healthz() -> StatusAnswer:
            """Whether the server runs."""
            return StatusAnswer(status="ok")

        @app.get("/readyz", responses=refused | declared(HTTPStatus.SERVICE_UNAVAILABLE))
        async def readyz() -> StatusAnswer:
            """Whether the server takes requests now."""
            self.workers.check_ready()
            return StatusAnswer(status="ready")

        @app.get("/metrics", response_class=PlainTextResponse, responses=refused)
        async def metrics() -> Response:
            """Numbers for Prometheus."""
            return Response(self._metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _describe_token(app: FastAPI) -> None:
    """Say in the OpenAPI description that requests need the token."""
    describe = app.openapi

    def with_token() -> dict[str, Any]:
        description = describe()
        description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"token": []}]
        return description

    app.openapi = with_token  # type: ignore[method-assign] # FastAPI's own way


def _check_folders(settings: ServeSettings, tagger: Tagger) -> None:
    """Raise a SpectagError now, and not at the first request, if the index or the folder of kept sounds is wrong."""
    if settings.index is not None:
        from spectag.curation.sound_index.searching import SoundIndex

        SoundIndex(settings.index, model=tagger.folder).close()
    if settings.keep is not None:
        try:
            settings.keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{settings.keep}: can't be made: {error.strerror}; choose another --keep") from error


def _tag_settings(query: Config, *, segments: bool | None = None) -> TagSettings:
    """The settings that a request asks for. A ProblemError (422) if they do not go together."""
    options = query.model_dump(exclude_none=True, exclude_unset=True)
    try:
        return parse_config({"format": "json", "segments": segments, **options}, TagSettings, source="the parameters")
    except ConfigError as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
