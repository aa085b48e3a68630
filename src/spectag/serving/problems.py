"""Errors as RFC 9457 problem details: a JSON object with type, title, status and detail."""

import errno
import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spectag.config.base import plain_reason
from spectag.errors import ConfigError, SpectagError

if TYPE_CHECKING:
    from fastapi import FastAPI

MEDIA_TYPE = "application/problem+json"
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK_IS_FULL = "the disk of the server is full; try again later, or tell who runs it"
_logger = logging.getLogger("spectag")

_MEANINGS = {
    HTTPStatus.BAD_REQUEST: ("The form is broken.", "the form can't be read: it ends too early"),
    HTTPStatus.UNAUTHORIZED: ("There is no token, or a wrong one.", "expected the header Authorization: Bearer TOKEN"),
    HTTPStatus.FORBIDDEN: ("A page of another site sent the request.", "wrong origin: start spectag ..."),
    HTTPStatus.NOT_FOUND: ("The server has no index.", "this server has no index; start it with ..."),
    HTTPStatus.REQUEST_TIMEOUT: ("The upload took too long.", "the upload took longer than 120 s"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "The sound is too large or too long, or it needs too much memory.",
        "a.wav: 300.0 minutes long; this server takes up to 120 minutes",
    ),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ("It is not a sound.", "the suffix of a.txt is not that of a sound"),
    HTTPStatus.MISDIRECTED_REQUEST: (
        "The header Host has another name.", "wrong host: use the address that spectag serve prints"
    ),
    HTTPStatus.UNPROCESSABLE_ENTITY: (
        "The sound is damaged, a parameter is wrong, or the answer took too long.",
        "top: expected a number greater than or equal to 1 (got 0)",
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        "The client has sent too many requests.", "more than 60 requests in a minute; try again in 1 s"
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "All workers are busy, or the model can't be opened.", "66 requests are waiting already; try again later"
    ),
    HTTPStatus.INSUFFICIENT_STORAGE: (
        "The disk of the server is full.", DISK_IS_FULL
    ),
}  # fmt: skip
"""What a status means, and an example of the detail."""


class Problem(BaseModel):
    """What is wrong with a request, as RFC 9457 describes it."""

    type: str = Field("about:blank", description="Always about:blank: the status says it all.")
    title: str = Field(description="The name of the status.", examples=["Unprocessable Content"])
    status: int = Field(description="The status of the answer.", examples=[422])
    detail: str = Field(description="What is wrong, and what to do.", examples=["a.wav: the file is empty"])


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer with a problem."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(problem.model_dump(), status, headers, media_type=MEDIA_TYPE)


async def _own(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error.status, error.detail, error.headers)


async def _of_starlette(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_response(error.status_code, str(error.detail), error.headers)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "an error of the server; its log has the details")


async def _of_spectag(_request: Request, error: Exception) -> Response:
    """Such as a project that can't be written: the message says what to do."""
    if isinstance(error, ConfigError):
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    _logger.error("no answer: %s", error)
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


async def _of_system(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if error.errno in FULL_DISK:
        return problem_response(HTTPStatus.INSUFFICIENT_STORAGE, DISK_IS_FULL)
    _logger.error("no answer", exc_info=error)
    name = "" if error.filename is None else f"{os.path.basename(os.fsdecode(error.filename))}: "  # noqa: PTH119
    detail = f"{name}{error.strerror or 'an error of the system'}; the log of the server has the details"
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


PROBLEM_HANDLERS = {
    ProblemError: _own,
    HTTPException: _of_starlette,
    SpectagError: _of_spectag,
    OSError: _of_system,
    Exception: _unexpected,
}
"""Make errors of a Starlette application problems."""


def add_problem_handlers(app: "FastAPI") -> None:
    """Make all errors of a FastAPI application problems."""
    from fastapi.exceptions import RequestValidationError

    async def of_parameters(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(_explanation, error.errors())))

    for kind, handler in (*PROBLEM_HANDLERS.items(), (RequestValidationError, of_parameters)):
        app.add_exception_handler(kind, handler)


def _explanation(problem: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in problem["loc"][1:])
    if problem["type"] == "extra_forbidden":
        return f"{name}: unknown parameter"
    return f"{name}: {plain_reason(problem)}" if name else plain_reason(problem)


def declared(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """These answers in an OpenAPI description."""
    return {int(status): _declared(status) for status in statuses}


def _declared(status: HTTPStatus) -> dict[str, Any]:
    description, detail = _MEANINGS[status]
    example = Problem(title=status.phrase, status=status, detail=detail).model_dump()
    answer = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        wait = {"description": "Seconds until the next try.", "schema": {"type": "integer"}, "example": 1}
        answer["headers"] = {"Retry-After": wait}
    return answer


def describe_problems(app: "FastAPI") -> None:
    """Add the schema of problems, which `declared` refers to, to the OpenAPI description."""
    describe = app.openapi

    def with_problem() -> dict[str, Any]:
        description = describe()
        description["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return description

    app.openapi = with_problem  # type: ignore[method-assign] # FastAPI's own way
