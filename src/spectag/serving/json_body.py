"""The JSON in the body of a request, checked by a model of pydantic."""

import asyncio
import json
from http import HTTPStatus
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from spectag.config.base import Config, parse_config
from spectag.errors import ConfigError
from spectag.serving.problems import ProblemError

_MAX_BYTES = 1_000_000
_MAX_SECONDS = 60.0

ConfigT = TypeVar("ConfigT", bound=Config)


async def read_body(request: Request, kind: type[ConfigT]) -> ConfigT:
    """The JSON object in the body of a request.

    Parameters
    ----------
    request : Request
        Its type is application/json, which a page of another site can't send without being asked.
    kind : type of Config
        What is expected.

    Raises
    ------
    ProblemError
        If it is not JSON (400, 415), too long (413), too slow (408), or not what was expected (422).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
    try:
        values = json.loads(await _content(request))
    except (ValueError, RecursionError):
        raise ProblemError(HTTPStatus.BAD_REQUEST, "expected JSON") from None
    if not isinstance(values, dict):
        raise ProblemError(HTTPStatus.BAD_REQUEST, "expected a JSON object")
    try:
        return parse_config(values, kind, source="the request")
    except ConfigError as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error


async def _content(request: Request) -> str:
    content = bytearray()
    try:
        async with asyncio.timeout(_MAX_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > _MAX_BYTES:
                    raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too long")
    except TimeoutError:
        detail = f"the request took longer than {_MAX_SECONDS:g} s"
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "the request was broken off") from None
    return content.decode("utf-8")
