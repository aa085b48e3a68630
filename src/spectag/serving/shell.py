"""The page without its views: its HTML, its static files, and the exchange of the token for a cookie."""

from http import HTTPStatus
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from spectag.reporting.shared_style import shared_style
from spectag.serving.page_cookie import PageCookie
from spectag.serving.problems import ProblemError

OPEN_PATHS = ("/", "/session")
"""Of the page, without a token: there is nothing secret in it."""
STATIC = "/static/"

_PAGE, _STYLE = "page.html", "page.css"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def shell_routes(cookie: PageCookie | None) -> list[BaseRoute]:
    """The routes of the page before anything is opened."""
    html, static = _read(_PAGE), _static_files()

    def page(request: Request) -> Response:
        response = Response(html, media_type="text/html", headers={"content-security-policy": _POLICY})
        if cookie is not None and cookie.is_token(request.query_params.get("token", "")):
            cookie.add_to(response)  # the page then removes the token from the address
        return response

    def session(request: Request) -> Response:
        """Exchanges the token, as the header Authorization: Bearer TOKEN, for the cookie."""
        response = Response(status_code=HTTPStatus.NO_CONTENT)
        if cookie is not None:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not cookie.is_token(token.strip()):
                raise ProblemError(HTTPStatus.UNAUTHORIZED, "wrong token: use the one that spectag serve printed last")
            cookie.add_to(response)
        return response

    def static_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in static:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        content, media_type = static[name]
        return Response(content, media_type=media_type)

    return [
        Route("/", page),
        Route("/session", session, methods=["POST"]),
        Route(f"{STATIC}{{name}}", static_file),
    ]


def _static_files() -> dict[str, tuple[str, str]]:
    """Content and type of the files that the page loads, by name. No other file can be asked for."""
    folder = files("spectag.serving").joinpath("static")
    suffixes = {file.name: "." + file.name.rpartition(".")[2] for file in folder.iterdir()}
    static = {name: (_read(name), _TYPES[suffix]) for name, suffix in suffixes.items() if suffix in _TYPES}
    views = [_read(name) for name, suffix in sorted(suffixes.items()) if suffix == ".css" and name != _STYLE]
    return static | {_STYLE: ("\n".join([shared_style(), _read(_STYLE), *views]), "text/css")}


def _read(name: str) -> str:
    return files("spectag.serving").joinpath("static", name).read_text("utf-8")
