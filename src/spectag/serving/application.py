"""The application of a server: a model and a project, which can change while it runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from spectag.config.serving import ServeSettings
from spectag.serving.guard import Guard
from spectag.serving.metrics import Metrics
from spectag.serving.page_cookie import PageCookie
from spectag.serving.page_sounds import PageSounds
from spectag.serving.problems import PROBLEM_HANDLERS, problem_response
from spectag.serving.rate_limit import RateLimit
from spectag.serving.shell import shell_routes
from spectag.serving.temporary_folder import temporary_folder
from spectag.serving.view import PageContext
from spectag.system.progress import Log, no_log

if TYPE_CHECKING:
    from spectag.models.tagger import Tagger
    from spectag.serving.opening import Opened, ServerParts

_OPENING = "the model is being opened; try again later"
_NOT_OPENED = "the model can't be opened; the server's log has the reason"


def create_app(
    model: "str | Path | Tagger | None",
    settings: ServeSettings | None = None,
    *,
    project: str | Path | None = None,
    workers: int | None = None,
    port: int = 8765,
) -> ASGIApp:
    """The application that serves a model, for uvicorn or another ASGI server.

    Parameters
    ----------
    model : str, Path or Tagger, optional
        Folder of a model, the name of a published one, hf:user/name, or an open one. By default the project's; without
        a project, the page asks what to open.
    settings : ServeSettings, optional
    project : path, optional
        Folder of the project; a new one is made if it does not exist. A model that is given becomes its current one.
    workers : int, optional
        Processes that compute answers; by default one per core, or one on an accelerator.
    port : int
        The port that the server listens on: requests for others are refused.

    Raises
    ------
    SpectagError
        If the model, the index or the project can't be opened.
    """
    application = Application(settings or ServeSettings(), workers, port)
    application.open_now(model, project)
    return application.guarded


class Application:
    """What is open, and how to open something else.

    Parameters
    ----------
    settings : ServeSettings
    workers : int, optional
        Processes that compute answers; by default one per core.
    port : int
        The port that the server listens on.
    """

    def __init__(self, settings: ServeSettings, workers: int | None, port: int) -> None:
        self.problem: Exception | None = None
        """Why what was to be opened at the start could not be opened."""
        self.opened: Opened | None = None
        """None while it is being opened."""
        self._n_workers = workers
        self._temporary: Path | None = None
        self._context = PageContext(
            settings=settings,
            rate_limit=RateLimit(settings.max_per_minute),
            folder=self._folder,
            page_sounds=PageSounds(
                self._folder, max_sounds=settings.max_page_sounds, max_bytes=1e9 * settings.max_page_gigabytes
            ),
            cookie=None if settings.token is None else PageCookie(settings.token, port),
            open=self.open,
        )
        self._metrics = Metrics({
            ("questions", "Requests that are waiting or being answered."): lambda: self._number("n_questions"),
            ("lost_workers_total", "Workers that a request ended."): lambda: self._number("n_lost"),
            ("live_streams", "Live streams that are being tagged."): lambda: self._number("n_live"),
        })  # fmt: skip
        self._open_first: Callable[[], Opened] | None = None
        self._on_failure: Callable[[], object] = lambda: None
        self._is_opened = asyncio.Event()
        self._lock = asyncio.Lock()
        self._tasks = set[asyncio.Task[None]]()
        self._closing = dict[Path, asyncio.Task[None]]()  # by the folder of the project
        self.guarded = self._guarded(settings, port)
        """The application, with its guard."""

    def open_now(self, model: "str | Path | Tagger | None", project: str | Path | None) -> None:
        """Open what the server shows first. A SpectagError if it can't be opened."""
        self.opened = self._opening(model, project)()

    def open_at_start(
        self,
        model: "str | Path | Tagger | None",
        project: str | Path | None,
        *,
        on_failure: Callable[[], object],
        log: Log = no_log,
    ) -> None:
        """Open what the server shows first when it starts, so that its page is there at once.

        Parameters
        ----------
        model, project
            As for `create_app`.
        on_failure : callable
            Called if it can't be opened. `problem` is the reason.
        log : Log
            Called with what is downloaded and stored.
        """
        self._open_first, self._on_failure = self._opening(model, project, log), on_failure

    def _opening(
        self, model: "str | Path | Tagger | None", project: str | Path | None, log: Log = no_log
    ) -> "Callable[[], Opened]":
        def open_it() -> "Opened":
            from spectag.serving.opening import open_first

            return open_first(model, None if project is None else Path(project), self._parts(), log)

        return open_it

    def _parts(self) -> "ServerParts":
        from spectag.serving.opening import ServerParts

        return ServerParts(self._context, self._n_workers, self._metrics)

    async def open(
        self, *, model: str | Path | None = None, project: Path | None = None, version: int | None = None
    ) -> None:
        """See `spectag.serving.view.Open`."""
        from spectag.serving.opening import open_instead

        async with self._lock:
            before = self.opened
            assert before is not None
            if project is not None and (closing := self._closing.get(project.resolve())) is not None:
                await asyncio.wait([closing])
            self.opened = await asyncio.to_thread(open_instead, before, model, project, self._parts(), version)
            self.opened.start()
            closing = self._run(before.close_when_idle())
            if before.project is not None and before.project is not self.opened.project:
                self._closing[before.project.folder] = closing

    def _guarded(self, settings: ServeSettings, port: int) -> ASGIApp:
        shell = Starlette(
            routes=shell_routes(self._context.cookie), lifespan=self._lifespan, exception_handlers=PROBLEM_HANDLERS
        )
        shell.router.default = self._answer
        app = self._metrics.around(shell)
        if settings.allow_origin:
            app = CORSMiddleware(
                app,
                allow_origins=settings.allow_origin,
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type"],
            )
        return Guard(app, settings, port)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        with temporary_folder() as self._temporary:
            if self.opened is not None:
                self.opened.start()
            elif self._open_first is not None:
                self._run(self._open_at_start(self._open_first))
            try:
                yield
            finally:
                for task in [*self._tasks]:
                    task.cancel()  # which closes what it waited for
                    with suppress(asyncio.CancelledError):
                        await task
                if self.opened is not None:
                    self.opened.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open_at_start(self, open_first: "Callable[[], Opened]") -> None:
        opening = asyncio.ensure_future(asyncio.to_thread(open_first))
        try:
            self.opened = await asyncio.shield(opening)
            self.opened.start()
        except asyncio.CancelledError:
            with suppress(Exception):
                (await opening).close()
            raise
        except Exception as error:
            self.problem = error
            self._on_failure()
        finally:
            self._is_opened.set()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.opened is None and scope["path"] != "/readyz":
            await self._is_opened.wait()
        if self.opened is not None:
            await self.opened.answer(scope, receive, send)
        elif scope["type"] == "http":
            detail = _OPENING if self.problem is None else _NOT_OPENED
            response = problem_response(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "1"})
            await response(scope, receive, send)

    def _folder(self) -> Path:
        assert self._temporary is not None, "the server has not started"
        return self._temporary

    def _number(self, name: str) -> float:
        """A number of the service, for metrics."""
        service = None if self.opened is None else self.opened.service
        return 0 if service is None else service.numbers()[name]
