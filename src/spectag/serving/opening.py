"""What a server has open: a model, alone or with a project, or the start page. Slow to import."""

import asyncio
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from spectag.config.devices import Device
from spectag.errors import ConfigError
from spectag.models.pretrained import open_tagger
from spectag.models.tagger import Tagger
from spectag.serving.api import ModelService
from spectag.serving.metrics import Metrics
from spectag.serving.page import start_page
from spectag.serving.problems import add_problem_handlers
from spectag.serving.project.project import Project, open_project
from spectag.serving.project.recent import remember_project
from spectag.serving.view import PageContext
from spectag.system.progress import Log
from spectag.system.worker_pool import n_usable_cores

_SECONDS_FOR_OLD_REQUESTS = 60.0  # to a model that has been replaced


class Opened:
    """A model or the start page, with the requests that it is answering."""

    def __init__(self, app: FastAPI, service: ModelService | None = None, project: Project | None = None) -> None:
        self.app, self.service, self.project = app, service, project
        self.closing = ExitStack()
        """Closes the project, unless what is opened next uses it."""
        self._n_active = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        self._n_active += 1
        self._is_idle.clear()
        try:
            await self.app(scope, receive, send)
        finally:
            self._n_active -= 1
            if not self._n_active:
                self._is_idle.set()

    def start(self) -> None:
        """Start its processes."""
        if self.service is not None:
            self.service.start()

    async def close_when_idle(self) -> None:
        """Close it when its requests are answered, or have taken long enough."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS_FOR_OLD_REQUESTS):
                    await self._is_idle.wait()
        finally:
            await asyncio.to_thread(self.close)  # a job takes up to 20 s to stop

    def close(self) -> None:
        """End its processes."""
        if self.service is not None:
            self.service.close()
        self.closing.close()


class ServerParts(NamedTuple):
    """What a server gives to all models that it opens."""

    context: PageContext
    n_workers: int | None
    """None: one per core, or one if the model runs on an accelerator."""
    metrics: Metrics

    @property
    def device(self) -> Device:
        """Where the networks run."""
        return self.context.settings.device


def open_first(model: str | Path | Tagger | None, folder: Path | None, parts: ServerParts, log: Log) -> Opened:
    """Open a model, the project in a folder, or both; without either, the start page.

    The log is called with what is downloaded and stored.

    Raises
    ------
    SpectagError
        If they can't be opened.
    """
    tagger = None if model is None else open_tagger(model, device=parts.device, log=log)
    return open_instead(None, tagger, folder, parts)


def open_instead(
    before: Opened | None,
    model: str | Path | Tagger | None,
    folder: Path | None,
    parts: ServerParts,
    version: int | None = None,
) -> Opened:
    """As `open_first`, instead of what is open: its project stays open if it is the same.

    A version of the project's model is put into use.

    Raises
    ------
    SpectagError
        If they can't be opened. Then what was open before stays as it is.
    """
    with ExitStack() as stack:
        if before is not None and _has_project(before, folder):
            opened = _open(model, before.project, parts, version)
            opened.closing = before.closing.pop_all()
        else:
            project = None if folder is None else stack.enter_context(open_project(folder))
            opened = _open(model, project, parts, version)
            opened.closing = stack.pop_all()
    if opened.project is not None:
        remember_project(opened.project.folder)
    return opened


def _has_project(opened: Opened, folder: Path | None) -> bool:
    return opened.project is not None and folder is not None and opened.project.folder == folder.resolve()


def _open(model: str | Path | Tagger | None, project: Project | None, parts: ServerParts, number: int | None) -> Opened:
    if project is None:
        return Opened(_start_app(parts.context)) if model is None else _served(model, None, parts)
    versions, before = project.versions, project.versions.current
    if model is not None:
        versions.add_copy(open_tagger(model).folder)
    if number is not None:
        versions.use(number)
    if (version := versions.current) is None:
        raise ConfigError(f"{project.folder}: the project has no model yet; give one, such as audioset-mn04")
    try:
        return _served(version.folder, project, parts)
    except BaseException:
        if before is not None and before.number != version.number:
            versions.use(before.number)  # otherwise the project could not be opened again
        raise


def _served(model: str | Path | Tagger, project: Project | None, parts: ServerParts) -> Opened:
    tagger = open_tagger(model, device=parts.device).open()
    n_workers = parts.n_workers or (n_usable_cores() if tagger.runs_on == "cpu" else 1)
    service = ModelService(tagger, parts.context.settings, n_workers, parts.context, parts.metrics.text, project)
    return Opened(service.app, service, project)


def _start_app(context: PageContext) -> FastAPI:
    """The application of a server without a model."""
    app = FastAPI(title="spectag", docs_url=None, redoc_url=None, openapi_url=None)
    add_problem_handlers(app)
    app.router.routes += start_page(context)

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        return {"status": "ok"}

    return app
