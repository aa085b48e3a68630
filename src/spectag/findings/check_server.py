"""The local server of the page to check detections: only this computer reaches it, and only with its secret address."""

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from pydantic import Field, ValidationError, field_validator
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config as ServerConfig
from uvicorn import Server

from spectag.config.base import Config, plain_reason
from spectag.data.checked_detections import Decision
from spectag.errors import ConfigError
from spectag.findings.decision_store import DecisionStore
from spectag.reporting.check_page import decision_state
from spectag.system.output import text_problem

_ADDRESS, _HTTP_PORT = "127.0.0.1", 80
_MAX_BODY_BYTES = 64_000
_MAX_LABEL, _MAX_NAME, _MAX_COMMENT = 200, 100, 2_000  # characters
_N_DRAWN_AT_ONCE = 2
_SECONDS_TO_END = 2
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'none'",  # the page contains the rest of its policy
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_FRAGMENT = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}


class DecisionRequest(Config):
    """What the page sends for a decision."""

    index: int = Field(ge=0, le=10**9)
    decision: Decision
    reviewer: str = Field("", max_length=_MAX_NAME)
    other_labels: tuple[str, ...] = Field((), max_length=50)
    comment: str = Field("", max_length=_MAX_COMMENT)
    since: int = Field(0, ge=0, le=10**12)

    @field_validator("reviewer", "comment", "other_labels")
    @classmethod
    def _check_texts(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for text in (value,) if isinstance(value, str) else value:
            if problem := text_problem(text):
                raise ValueError(f"the text contains {problem}")
            if not isinstance(value, str) and not 0 < len(text.strip()) <= _MAX_LABEL:
                raise ValueError(f"a label has 1 to {_MAX_LABEL} characters")
        return value


def make_check_app(
    store: DecisionStore,
    render_page: Callable[[], str],
    render_card: Callable[[int], str],
    *,
    token: str,
    port: int,
) -> ASGIApp:
    """The application below the path /TOKEN/: the page, its cards, and the decisions.

    Parameters
    ----------
    store : DecisionStore
    render_page : callable
        Makes the HTML of the page.
    render_card : callable
        Makes the HTML of a card from its number.
    token : str
        A secret. Requests without it are refused.
    port : int
        Requests for another host or port, or from pages of another origin, are refused.
    """
    n_rows, is_drawing = len(store.rows), threading.Semaphore(_N_DRAWN_AT_ONCE)

    def page(_: Request) -> Response:
        return HTMLResponse(render_page())

    def card(request: Request) -> Response:
        index = request.path_params["index"]
        if index >= n_rows:
            return PlainTextResponse("there is no such detection", HTTPStatus.NOT_FOUND)
        with is_drawing:
            return HTMLResponse(render_card(index), headers=_FRAGMENT)

    async def decisions(request: Request) -> Response:
        if request.method == "GET":
            since = request.query_params.get("since", "0")
            return _changes(store, int(since) if since.isascii() and since.isdecimal() and len(since) < 16 else 0)
        wanted = await _read_decision(request)
        if isinstance(wanted, Response):
            return wanted
        if wanted.index >= n_rows:
            return PlainTextResponse("there is no such detection", HTTPStatus.NOT_FOUND)
        return await run_in_threadpool(_decide, store, wanted)

    routes = [
        Route("/", page),
        Route("/cards/{index:int}", card),
        Route("/decisions", decisions, methods=["GET", "POST"]),
    ]
    return _Guard(Starlette(routes=[Mount(f"/{token}", routes=routes)]), token, port)


def _decide(store: DecisionStore, wanted: DecisionRequest) -> Response:
    labels = [label.strip() for label in wanted.other_labels]
    try:
        store.decide(
            wanted.index,
            wanted.decision,
            other_labels=labels,
            reviewer=wanted.reviewer.strip(),
            comment=wanted.comment.strip(),
        )
    except OSError as error:
        reason = f"the decision can't be written: {error.strerror or error}"
        return PlainTextResponse(reason, HTTPStatus.INSUFFICIENT_STORAGE)
    return _changes(store, wanted.since)


def _changes(store: DecisionStore, since: int) -> Response:
    revision, changes = store.changes_since(since)
    return JSONResponse(
        {"revision": revision, "changes": {index: decision_state(row) for index, row in changes.items()}}
    )


async def _read_decision(request: Request) -> DecisionRequest | Response:
    """The decision in the body of a request, or what is wrong with it."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return PlainTextResponse("expected JSON", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY_BYTES:
            return PlainTextResponse("the decision is too long", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    try:
        return DecisionRequest.model_validate(json.loads(body.decode("utf-8")))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        return PlainTextResponse(f"{where}: {plain_reason(problem)}"[:500], HTTPStatus.BAD_REQUEST)
    except (ValueError, RecursionError):
        return PlainTextResponse("expected JSON", HTTPStatus.BAD_REQUEST)


class _Guard:
    """Refuses requests without the token, for another host (DNS rebinding) or from a page of another origin."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        end = "" if port == _HTTP_PORT else f":{port}"  # which browsers leave out
        self._hosts = {f"{name}{end}" for name in (_ADDRESS, "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"no {scope['type']} here")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in given)]
            await send(message)

        reason = self._refusal(scope)
        app = self._app if reason is None else PlainTextResponse(reason, HTTPStatus.FORBIDDEN)
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        """Why a request is refused; None if it is not."""
        headers = Headers(scope=scope)
        if headers.get("host") not in self._hosts:
            return "wrong host"
        origin = headers.get("origin")
        if origin not in self._origins and (origin is not None or scope["method"] not in ("GET", "HEAD")):
            return "wrong origin"
        token = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self._token):
            return "wrong address: open the one that spectag check printed last"
        return None


@contextmanager
def serve_check(make_app: Callable[[str, int], ASGIApp], port: int | None) -> Iterator[tuple[str, threading.Event]]:
    """Run the server in a thread within the `with` block. Gives its address, and an event for its end.

    Parameters
    ----------
    make_app : callable
        Makes the application from the token and the port.
    port : int, optional
        By default one that is free.

    Raises
    ------
    ConfigError
        If the port cannot be used.
    """
    token = secrets.token_urlsafe(24)
    with _listening(port) as listener:
        used_port = listener.getsockname()[1]
        settings: dict[str, Any] = {"http": "h11", "ws": "none", "lifespan": "off", "loop": "asyncio"}
        server = Server(
            ServerConfig(
                make_app(token, used_port),
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_SECONDS_TO_END,
                **settings,
            )
        )
        has_ended = threading.Event()  # a `Thread.join` that Ctrl-C interrupts takes the thread for ended

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                has_ended.set()

        threading.Thread(target=run, name="spectag check", daemon=True).start()
        try:
            yield f"http://{_ADDRESS}:{used_port}/{token}/", has_ended
        finally:
            server.should_exit = True
            has_ended.wait(2 * _SECONDS_TO_END)


def _listening(port: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows, it would let two programs use one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_ADDRESS, port or 0))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"port {port} can't be used: {reason}; choose another one, or leave --port out") from error
    return listener
