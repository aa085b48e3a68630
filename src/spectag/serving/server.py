"""Run the server: uvicorn on an address, until it is stopped."""

import logging
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import uvicorn
from starlette.types import ASGIApp

from spectag.config.backbones import PUBLISHED
from spectag.config.base import parse_config
from spectag.config.devices import Device
from spectag.config.serving import ServeSettings
from spectag.errors import ConfigError
from spectag.serving.application import Application
from spectag.serving.protocol import LimitedProtocol
from spectag.system.browser import open_in_browser
from spectag.system.progress import Log, no_log
from spectag.system.stop_signals import Stopped

if TYPE_CHECKING:
    from spectag.models.tagger import Tagger

TOKEN_VARIABLE = "SPECTAG_TOKEN"  # nosec B105 - the name of a variable, not a secret
"""Environment variable with the token: unlike an option, other users of the computer do not see it."""

_SECONDS_TO_END = 10
_ANY_HOST = ("0.0.0.0", "::")  # nosec B104 - compared, not listened on
_LIMITS: dict[str, Any] = {
    "http": LimitedProtocol,
    "h11_max_incomplete_event_size": 1 << 15,  # bytes of the head of a request
    "timeout_keep_alive": 5,
    "timeout_graceful_shutdown": _SECONDS_TO_END,
    "ws_max_size": 1 << 22,
    "ws_per_message_deflate": False,  # sound does not shrink, and a small message could become a large one
}
_LOG: dict[str, Any] = {"log_level": "error", "access_log": False, "server_header": False}


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    listener: socket.socket
    host: str

    @property
    def port(self) -> int:
        """The port, also of a free one."""
        return int(self.listener.getsockname()[1])

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def of_page(self, token: str | None) -> str:
        """The address of the page for a browser, with the token."""
        is_any = self.host in _ANY_HOST
        address = f"http://{socket.gethostname()}:{self.port}" if is_any else str(self)
        return f"{address}/" if token is None else f"{address}/?token={quote(token)}"


def serve(
    model: "str | Path | Tagger | None" = None,
    settings: ServeSettings | None = None,
    *,
    project: str | Path | None = None,
    workers: int | None = None,
    browser: bool = False,
    log: Log = no_log,
) -> None:
    """Serve a model, as a page and over HTTP, until Ctrl-C or SIGTERM; requests that are being answered are finished.

    Parameters
    ----------
    model : str, Path or Tagger, optional
        As for `create_app`.
    settings : ServeSettings, optional
    project : path, optional
        As for `create_app`.
    workers : int, optional
        Processes that compute answers; by default one per core.
    browser : bool
        Open the page in the browser.
    log : Log
        Called with the address, and with the token if it is new.

    Raises
    ------
    ConfigError
        If the address can't be used.
    SpectagError
        If the model or the index can't be opened.
    """
    settings, is_new_token = _with_token(settings or ServeSettings())
    if isinstance(model, str | Path):
        _check_model(model, settings.device)
    address = listening_address(settings)
    with address.listener:
        application = Application(settings, workers, address.port)
        server = http_server(application.guarded)
        application.open_at_start(model, project, on_failure=lambda: setattr(server, "should_exit", True), log=log)
        log(f"serving {_what(model, project)} on {address}; press Ctrl-C to stop")
        if is_new_token:
            log(f"clients need the header Authorization: Bearer {settings.token}")
            log(f"the page: {address.of_page(settings.token)}")
        if browser:
            open_in_browser(address.of_page(settings.token))
        with suppress(KeyboardInterrupt, Stopped):  # uvicorn raises the signal again after it has ended in good order
            server.run(sockets=[address.listener])
        if application.problem is not None:
            raise application.problem
        log("stopped")


def _check_model(model: str | Path, device: Device) -> None:
    """Raise a SpectagError if a model is not there, before the address is announced. It is opened later."""
    is_known = str(model) in PUBLISHED or Path(model).exists()
    if is_known and device in ("auto", "cpu"):
        return
    from spectag.models.pretrained import check_model_exists  # slow to import: the page is there before

    check_model_exists(model, device)


def http_server(app: ASGIApp) -> uvicorn.Server:
    """The server of an application, with limits for slow and large requests."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of broken forms, which get their answer
    return uvicorn.Server(uvicorn.Config(app, **_LIMITS, **_LOG))


def _what(model: "str | Path | Tagger | None", project: str | Path | None) -> str:
    given = [str(name) for name in (model, project) if name is not None]
    return " with ".join(given) or "the page"


def _with_token(settings: ServeSettings) -> tuple[ServeSettings, bool]:
    """The settings with the token of the environment, or a new one if one is needed; and whether it is new."""
    if settings.token is not None:
        return settings, False
    if token := os.environ.get(TOKEN_VARIABLE):
        return parse_config({**settings.model_dump(), "token": token}, ServeSettings, source=TOKEN_VARIABLE), False
    if settings.is_local:
        return settings, False
    return settings.model_copy(update={"token": secrets.token_urlsafe(24)}), True


def listening_address(settings: ServeSettings) -> Address:
    """Listen on the host and port. A ConfigError if they can't be used."""
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, settings.port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{settings.host}:{settings.port} can't be used: {error.strerror}; choose another --port, or 0 for a free "
            "one"
        ) from error
    return Address(listener, settings.host)
