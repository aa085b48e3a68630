"""The Tag view: drop sounds, see and hear where labels are, set thresholds, download tables."""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from pydantic import Base64Bytes, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.config.base import Config
from spectag.serving import sound_answers
from spectag.serving.answers import Question
from spectag.serving.json_body import read_body
from spectag.serving.page_sounds import PageSound, timeline_file
from spectag.serving.problems import ProblemError
from spectag.serving.sound_answers import (
    FORMATS_OF_ONE,
    WAV_FILE,
    ExplainQuery,
    SegmentChoice,
    TableQuery,
    TileQuery,
)
from spectag.serving.uploads import Upload, received_sound
from spectag.serving.view import View, ViewContext
from spectag.serving.workers import AnswerWorkers
from spectag.tagging.formats.dispatch import FORMATS

_MAX_TABLE_SOUNDS = 10_000
_MAX_DIGITS = 9  # of the number of a tile
_SOUND_HEADERS = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox"}


class TableRequest(SegmentChoice):
    """Which sounds a table is about, beside the settings."""

    sounds: tuple[str, ...] = Field(min_length=1, max_length=_MAX_TABLE_SOUNDS)
    template: Base64Bytes = b""
    """The sample_submission.csv of a competition, for the format submission."""


class ForgetRequest(Config):
    """Sounds that are not needed any more."""

    sounds: tuple[str, ...] = Field(max_length=_MAX_TABLE_SOUNDS)


class _TagView:
    """The requests of the view, and the sounds of its pages."""

    def __init__(self, context: ViewContext) -> None:
        self._context = context
        self._sounds = context.page_sounds

    async def formats(self, _: Request) -> Response:
        """The formats of tables, and which of them hold one recording."""
        return JSONResponse([{"name": name, "one": name in FORMATS_OF_ONE} for name in FORMATS])

    async def add(self, request: Request) -> Response:
        """Take a sound; the answer has its id, length and sample rate, and how to ask for its spectrogram."""
        context = self._context
        self._check_rate(request)
        with context.drawing.place():  # from the first byte on
            async with received_sound(request, context.settings, context.folder()) as upload:
                sound = await run_in_threadpool(self._sounds.add, upload.path, upload.name)
            try:
                question = _question(sound_answers.describe, sound)
                sound.facts = json.loads(await context.drawing.ask(question, request.is_disconnected))
                if context.settings.keep is not None:
                    await run_in_threadpool(Upload(sound.path, sound.name).keep, context.settings.keep)
            except BaseException:  # nobody knows its id
                self._sounds.remove(sound.id)
                raise
        return _facts(sound)

    async def facts(self, request: Request) -> Response:
        """What is known of a sound. 410 if it is not here any more, or not tagged by the model of now."""
        sound = self._sound(request)
        if not (sound.folder / timeline_file(self._context.tagger.folder)).exists():
            raise ProblemError(HTTPStatus.GONE, "this sound is not tagged")
        return _facts(sound)

    async def remove(self, request: Request) -> Response:
        """Delete a sound."""
        await run_in_threadpool(self._sounds.remove, request.path_params["id"])
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def forget(self, request: Request) -> Response:
        """Delete the sounds of a page that is closed."""
        for key in (await read_body(request, ForgetRequest)).sounds:
            await run_in_threadpool(self._sounds.remove, key)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def probabilities(self, request: Request) -> Response:
        """Tag a sound: the probabilities of its windows."""
        self._check_rate(request)
        content = await self._ask(self._context.workers, request, self._sound(request), sound_answers.probabilities)
        await run_in_threadpool(self._sounds.make_room)
        return _json(content)

    async def tile(self, request: Request) -> Response:
        """A tile of the spectrogram, as bytes."""
        sound = self._sound(request)
        level, index = (_number(request.path_params[name]) for name in ("level", "index"))
        levels = sound.facts["tiles"]["levels"]
        tile_seconds = levels[level]["seconds"] * sound.facts["tiles"]["columns"] if level < len(levels) else 0.0
        if not tile_seconds or index * tile_seconds > sound.facts["duration"] + tile_seconds:
            raise _no_tile()
        query = TileQuery(sample_rate=sound.facts["sample_rate"], level=level, index=index)
        content = await self._ask(self._context.drawing, request, sound, sound_answers.tile, query)
        if self._sounds.has_grown(len(content)):
            await run_in_threadpool(self._sounds.make_room)
        return Response(content, media_type="application/octet-stream")

    async def wav(self, request: Request) -> Response:
        """The sound for a browser that can't play its format; ranges of it can be asked for."""
        sound = self._sound(request)
        path = sound.folder / WAV_FILE
        if not path.exists():
            await self._ask(self._context.drawing, request, sound, sound_answers.playable)
            await run_in_threadpool(self._sounds.make_room)
            self._sounds.get(sound.id)  # it may have had to make room for others
        return FileResponse(path, media_type="audio/wav", headers=_SOUND_HEADERS)

    async def explanation(self, request: Request) -> Response:
        """Where the model looks in an excerpt."""
        self._check_rate(request)
        sound = self._sound(request)
        query = await read_body(request, ExplainQuery)
        if query.label not in self._context.tagger.labels.names:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "the model does not have this label")
        return _json(await self._ask(self._context.workers, request, sound, sound_answers.explanation, query))

    async def table(self, request: Request) -> Response:
        """A table of what is in sounds, in a format of `spectag tag`."""
        self._check_rate(request)
        wanted = await read_body(request, TableRequest)
        if wanted.format not in FORMATS:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"unknown format; expected one of {', '.join(FORMATS)}")
        if wanted.format == "submission" and not wanted.template:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "a submission needs the competition's sample_submission.csv"
            )
        if len(wanted.sounds) > 1 and wanted.format in FORMATS_OF_ONE:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{wanted.format} holds one recording")
        choice = SegmentChoice(**wanted.model_dump(exclude={"sounds", "template"}))
        try:
            choice.tag_settings()
        except ValueError as error:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "these settings can't be used") from error
        sounds = [self._sounds.get(key) for key in wanted.sounds]
        places = tuple((str(sound.folder), sound.name) for sound in sounds)
        query = TableQuery(choice=choice, sounds=places, template=wanted.template)
        content = await self._ask(self._context.workers, request, sounds[0], sound_answers.table, query)
        stem = re.sub(r"\.[^.]*$", "", sounds[0].name) if len(sounds) == 1 else FORMATS[wanted.format].stem
        name = f"{stem}{FORMATS[wanted.format].suffix}"
        disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        return Response(content, media_type="application/octet-stream", headers={"content-disposition": disposition})

    def _sound(self, request: Request) -> PageSound:
        return self._sounds.get(request.path_params["id"])

    async def _ask(
        self, workers: AnswerWorkers, request: Request, sound: PageSound, function: Any, query: Config | None = None
    ) -> bytes:
        """The answer of a worker; 503 if too many wait. One whose client has left meanwhile is not computed."""
        try:
            with workers.place():
                return await workers.ask(_question(function, sound, query), request.is_disconnected)
        except ProblemError:
            self._sounds.get(sound.id)  # 410 if it was removed meanwhile
            raise

    def _check_rate(self, request: Request) -> None:
        self._context.rate_limit.check(request.client.host if request.client else "")


def _facts(sound: PageSound) -> Response:
    return JSONResponse({"id": sound.id, "name": sound.name, **sound.facts})


def _question(function: Any, sound: PageSound, query: Config | None = None) -> Question:
    return Question(function, sound.path, sound.name, query or Config())


def _number(text: str) -> int:
    """A number in a path. Python reads no very long ones, and can't compare them with seconds."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise _no_tile()
    return int(text)


def _no_tile() -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, "there is no such tile")


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _routes(context: ViewContext) -> Sequence[BaseRoute]:
    view = _TagView(context)
    sound = "/sounds/{id}"
    return [
        Route("/formats", view.formats),
        Route("/sounds", view.add, methods=["POST"]),
        Route("/forget", view.forget, methods=["POST"]),
        Route(sound, view.facts),
        Route(sound, view.remove, methods=["DELETE"]),
        Route(f"{sound}/probabilities", view.probabilities, methods=["POST"]),
        Route(f"{sound}/tiles/{{level}}/{{index}}", view.tile),
        Route(f"{sound}/wav", view.wav),
        Route(f"{sound}/explanation", view.explanation, methods=["POST"]),
        Route("/table", view.table, methods=["POST"]),
    ]


VIEW = View("tag", _routes)
