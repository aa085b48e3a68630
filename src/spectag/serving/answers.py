"""What a worker process computes for a request: the same results as those of the command line, for one file."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from spectag.audio.files import audio_info
from spectag.config.base import Config, window_config
from spectag.config.devices import Device
from spectag.config.tagging import TagSettings
from spectag.errors import AudioError, ConfigError, DataError, MissingExtraError, SpectagError
from spectag.models.tagger import Tagger
from spectag.serving.problems import DISK_IS_FULL, FULL_DISK
from spectag.serving.schemas import EmbedQuery, SearchQuery
from spectag.tagging.events import detected_events, windows_to_tag
from spectag.tagging.formats.csv_and_jsonl import tag_records
from spectag.tagging.parallel import Chunk, tag_chunk

if TYPE_CHECKING:
    from spectag.curation.sound_index.searching import SoundIndex

_DIGITS = 6  # of probabilities, as in the tables
_MAX_ANSWER_BYTES = 64_000_000
_logger = logging.getLogger("spectag")

Kind = Literal["tag", "segments", "embed", "search"]


class Question(NamedTuple):
    """A sound, and what to compute from it."""

    kind: "Kind | Callable[[AnswerLimits, Question], dict[str, Any] | bytes | Refusal]"
    """A view of the page asks with a function of a module, which the worker imports. Bytes are sent as they are."""
    path: Path
    name: str
    """The file name that the client gave."""
    query: Config
    """TagSettings for tags and segments, otherwise the parameters of the request."""


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer."""

    status: HTTPStatus
    detail: str


@dataclass(frozen=True)
class AnswerLimits:
    """What a worker needs to know of the server."""

    model: Path
    index: Path | None
    max_seconds_of_sound: float
    device: Device = "auto"


def prepare_worker(limits: AnswerLimits) -> None:
    """Open the model and the index. A SpectagError if they can't be opened."""
    opened_tagger(limits)
    if limits.index is not None:
        _opened_index(limits.index, limits.model)


def answer(limits: AnswerLimits, question: Question) -> bytes | Refusal:
    """The answer to a question, as JSON; or why there is none. Never raises, so that the worker lives on."""
    try:
        found = _checked_answer(limits, question)
        if isinstance(found, Refusal):
            return found
        return _not_too_large(found if isinstance(found, bytes) else _as_json(found), question)
    except Exception as error:
        return _refusal(error, question)


def _refusal(error: Exception, question: Question) -> Refusal:
    """What a client gets of an error. What the server can't foresee is in its log."""
    if isinstance(error, MemoryError):
        return _too_large(question, "needs more memory than the server allows")
    if isinstance(error, AudioError | DataError | MissingExtraError | ConfigError):
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, _named(str(error), question))
    if isinstance(error, SpectagError) and "memory" in str(error):
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _named(str(error), question))
    if isinstance(error, SpectagError):
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, _named(str(error), question))
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return Refusal(HTTPStatus.INSUFFICIENT_STORAGE, DISK_IS_FULL)
    if not question.path.exists():
        return Refusal(HTTPStatus.GONE, f"{question.name}: it was removed meanwhile")
    _logger.error("no answer for %s", question.name, exc_info=error)
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "an error of the server; its log has the details")


def _too_large(question: Question, why: str) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{question.name}: {why}")


def _as_json(found: dict[str, Any]) -> bytes:
    """The answer as the client gets it, so that the server only hands it on."""
    return json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _not_too_large(content: bytes, question: Question) -> bytes | Refusal:
    """The answer, if the server can hold it in memory."""
    if len(content) <= _MAX_ANSWER_BYTES:
        return content
    size = f"the answer has {len(content) / 1e6:,.0f} MB, more than {_MAX_ANSWER_BYTES / 1e6:g}"
    what = "choose fewer sounds or another format" if callable(question.kind) else "ask for longer windows"
    return _too_large(question, f"{size}; {what}, or use the command line")


def _named(text: str, question: Question) -> str:
    """A message with the name that the client knows."""
    return text.replace(str(question.path), question.name)


def _checked_answer(limits: AnswerLimits, question: Question) -> dict[str, Any] | bytes | Refusal:
    if callable(question.kind):
        return question.kind(limits, question)
    if refusal := too_long(limits, question, audio_info(question.path).duration_seconds):
        return refusal
    if question.kind == "search":
        return _found(limits, question)
    tagger = opened_tagger(limits)
    if question.kind == "embed":
        return _embedding(tagger, question)
    return _tags(tagger, question)


def too_long(limits: AnswerLimits, question: Question, seconds: float) -> Refusal | None:
    """Why a sound of this length is not answered; None if it is."""
    if seconds <= limits.max_seconds_of_sound:
        return None
    most = limits.max_seconds_of_sound / 60
    return _too_large(question, f"{seconds / 60:,.1f} minutes long; this server takes up to {most:g} minutes")


@lru_cache(maxsize=1)
def opened_tagger(limits: AnswerLimits) -> Tagger:
    """The model, which a worker opens once."""
    return Tagger(limits.model, device=limits.device).open()


@lru_cache(maxsize=1)
def _opened_index(index: Path, model: Path) -> "SoundIndex":
    from spectag.curation.sound_index.searching import SoundIndex

    return SoundIndex(index, model=model)


def _tags(tagger: Tagger, question: Question) -> dict[str, Any] | Refusal:
    settings = question.query
    assert isinstance(settings, TagSettings)
    tagger = tagger.with_channel(settings.channel)
    chunk = Chunk(0, (str(question.path),))
    tagged = tag_chunk(tagger, windows_to_tag(tagger, settings), 1, chunk).files[0]
    if tagged.timeline is None:
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, _named(tagged.reason or "it can't be read", question))
    file = detected_events(tagged, tagged.timeline, tagger, settings)
    results = [
        {name: value for name, value in record.items() if name != "file"}
        for record in tag_records([file], tagger.has_novelty, has_places=False)
    ]
    notes = "; ".join(tagged.faults.descriptions())
    duration = None if tagged.duration_seconds is None else round(tagged.duration_seconds, 3)  # as in status.csv
    return {"file": question.name, "duration": duration, "notes": notes, "results": results}


def _embedding(tagger: Tagger, question: Question) -> dict[str, Any]:
    assert isinstance(question.query, EmbedQuery)
    windows = None if question.query.window is None else window_config(question.query.window)
    embeddings = tagger.embed(question.path, window=windows)
    rows = embeddings[None] if windows is None else embeddings
    return {"file": question.name, "embeddings": [[float(value) for value in row] for row in rows.tolist()]}


def _found(limits: AnswerLimits, question: Question) -> dict[str, Any]:
    assert limits.index is not None
    assert isinstance(question.query, SearchQuery)
    found = _opened_index(limits.index, limits.model).search(question.path, **question.query.model_dump())
    return {
        "file": question.name,
        "results": [
            {
                "file": result.file,
                "start": round(result.start_seconds, 3),
                "end": None if result.end_seconds is None else round(result.end_seconds, 3),
                "similarity": round(result.similarity, _DIGITS),
                "tags": [
                    {"label": label, "probability": round(float(probability), _DIGITS)}
                    for label, probability in result.labels
                ],
            }
            for result in found
        ],
    }
