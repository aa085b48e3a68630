"""Who may ask: only pages of this server and of allowed origins, and elsewhere than on this computer only with a token.

A page of another site can send requests to a local server (cross-site requests, WebSockets), or give its own name the
address 127.0.0.1 (DNS rebinding). So the headers Host and Origin are checked before anything else.
"""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spectag.config.serving import ServeSettings
from spectag.serving.page_cookie import PageCookie
from spectag.serving.problems import problem_response
from spectag.serving.shell import OPEN_PATHS, STATIC

_OPEN = frozenset({"/healthz", "/readyz", *OPEN_PATHS})  # without a token: for monitors, and the page that asks for it
_PAGE_ONLY = ("/views", "/folders", "/project")  # these see the disk and change projects
_HTTP_PORT = 80
_POLICY_VIOLATION = 1008  # of WebSockets
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Guard:
    """Refuses requests to another host, from a page of another origin, or without the token.

    Parameters
    ----------
    app : ASGI application
    settings : ServeSettings
        With a token, the host may have any name, because a page of another site does not know the token.
    port : int
        The port that the server listens on.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, port: int) -> None:
        self._app = app
        self._token = settings.token
        self._cookie = None if settings.token is None else PageCookie(settings.token, port)
        names = ("127.0.0.1", "localhost", "[::1]")
        self._hosts = {f"{name}:{port}" for name in names} | (set(names) if port == _HTTP_PORT else set())
        self._origins = frozenset(settings.allow_origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves out the content
        refusal = self._refusal(scope, Headers(scope=scope))
        if scope["type"] == "websocket":
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal[1]})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in given)]
            await send(message)

        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, reason = refusal
        headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
        await problem_response(status, reason, headers)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[HTTPStatus, str] | None:
        """The status and the reason why a request is refused; None if it is not."""
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if self._token is None and host not in self._hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, "wrong host: use the address that spectag serve prints"
        own = {f"http://{host}", f"https://{host}"}
        if origin is not None and origin not in own and origin not in self._origins:
            return HTTPStatus.FORBIDDEN, f"wrong origin: start spectag serve with --allow-origin {origin[:200]}"
        if origin not in (None, *own) and scope["path"].startswith(_PAGE_ONLY):
            return HTTPStatus.FORBIDDEN, "only the page of this server may ask this; pages of other sites may use /v1/"
        is_preflight = scope["type"] == "http" and scope["method"] == "OPTIONS" and origin in self._origins
        is_open = scope["path"] in _OPEN or scope["path"].startswith(STATIC)
        if self._token is None or is_open or is_preflight or self._has_token(headers):
            return None
        return HTTPStatus.UNAUTHORIZED, "expected the header Authorization: Bearer TOKEN"

    def _has_token(self, headers: Headers) -> bool:
        assert self._cookie is not None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._cookie.is_token(token.strip())
        is_own_page = headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        return is_own_page and self._cookie.is_in(headers.get("cookie", ""))
