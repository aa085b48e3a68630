"""The Start view, in a server without a model: open a project, create one, or open a model without a project."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.config.backbones import PUBLISHED
from spectag.config.base import Config
from spectag.errors import SpectagError
from spectag.models.bundle import INFO_FILE, read_info
from spectag.models.pretrained import published_taggers, tagger_folder
from spectag.serving.browsing import AllowedFolders
from spectag.serving.folder_routes import allowed_folders
from spectag.serving.json_body import read_body
from spectag.serving.problems import ProblemError
from spectag.serving.project.database import DATABASE
from spectag.serving.project.recent import recent_projects
from spectag.serving.project.versions import MODELS
from spectag.serving.view import PageContext, View

_NO_NAME = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]|^[.\s]|[.\s]$')  # Windows allows none of these
_MAX_NAME_BYTES = 200


class OpenRequest(Config):
    """What to open: a project, a new project, or a model without a project."""

    project: str | None = Field(None, max_length=4096)
    """Its folder. With a name, the folder in which a new one is created."""
    name: str | None = Field(None, max_length=200)
    """Of a new project."""
    model: str | None = Field(None, max_length=4096)
    """The name of a published one, or its folder. For a project, its next version."""


@dataclass
class Opening:
    """How far the opening of a model or project is."""

    state: Literal["idle", "opening", "open", "failed", "stopped"] = "idle"
    step: str = ""
    n_done: int = 0
    n_total: int = 0
    """0: not known."""
    problem: str = ""
    """Why it failed, and what to do."""
    needs_model: bool = False
    """Whether it failed because the project has no model yet."""


class _OpeningStoppedError(Exception):
    """Somebody does not want to wait for a download."""


class _StartView:
    """The requests of the view, and what is being opened."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._opening = Opening()
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def choices(self, _: Request) -> Response:
        """Recent projects, published models, and the folder for new projects."""
        return JSONResponse(await run_in_threadpool(self._choices))

    def _choices(self) -> dict[str, Any]:
        allowed = allowed_folders(self._context)
        try:
            models = published_taggers()
        except SpectagError as error:  # SPECTAG_WEIGHTS names no folder
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        return {
            "recent": [
                {"name": Path(project.folder).name, "folder": project.folder, "opened": project.opened}
                for project in recent_projects()
                if self._may_open(allowed, project.folder)
            ],
            "models": [
                {
                    "name": model.name,
                    "labels": model.n_labels,
                    "bytes": model.n_bytes,
                    "score": model.mean_average_precision,
                    "ready": model.state != "not downloaded",
                }
                for model in models
            ],
            "folder": str(allowed.roots[0]) if allowed.roots else None,
        }

    def _may_open(self, allowed: AllowedFolders, folder: str) -> bool:
        """Recent projects of this user may be anywhere, unless other computers can reach the server."""
        if self._context.settings.is_local:
            return True
        try:
            allowed.resolve(folder)
        except ProblemError:
            return False
        return True

    async def open(self, request: Request) -> Response:
        """Begin to open something; `opening` tells how far it is."""
        wanted = await read_body(request, OpenRequest)
        project, model = await run_in_threadpool(self._checked, wanted)
        if self._task is not None and not self._task.done():
            raise ProblemError(HTTPStatus.CONFLICT, "something is being opened already; wait, or cancel it")
        self._opening, self._is_stopped = Opening("opening"), False
        self._task = asyncio.create_task(self._open(project, model))
        return JSONResponse(asdict(self._opening), HTTPStatus.ACCEPTED)

    async def opening(self, _: Request) -> Response:
        """How far the opening is. When it has succeeded, the server has other views, and this one is not found."""
        return JSONResponse(asdict(self._opening))

    async def stop(self, _: Request) -> Response:
        """Stop the download of a model; what was loaded is kept for the next try."""
        self._is_stopped = True
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _checked(self, wanted: OpenRequest) -> tuple[Path | None, str | Path | None]:
        """The project and the model; a ProblemError if there is no such thing, or it may not be opened."""
        allowed = allowed_folders(self._context)
        model = wanted.model
        if wanted.project is None and model is None:
            raise _wrong("choose a project or a model")
        folder = None if model is None or model in PUBLISHED else _model_folder(allowed.resolve(model))
        if wanted.project is None:
            return None, folder or model
        if wanted.name is None:
            return self._project_folder(allowed, wanted.project), folder or model
        if model is None:
            raise _wrong("choose the first model of the project")
        return _new_project_folder(allowed, wanted.project, wanted.name), folder or model

    def _project_folder(self, allowed: AllowedFolders, text: str) -> Path:
        is_recent = self._context.settings.is_local and any(text == recent.folder for recent in recent_projects())
        path = Path(text) if is_recent else allowed.resolve(text)
        if not (path / DATABASE).is_file():
            raise _wrong(f"{path}: there is no project in this folder; choose another one, or create a project")
        return path

    async def _open(self, project: Path | None, model: str | Path | None) -> None:
        opening = self._opening
        try:
            if model is not None:
                model = await asyncio.to_thread(self._fetched, model)
            await self._context.open(model=model, project=project)
        except _OpeningStoppedError:
            opening.state = "stopped"
        except (SpectagError, OSError) as error:
            opening.problem = str(error)
            opening.needs_model = project is not None and model is None and not _has_model(project)
            opening.state = "failed"
        except BaseException:
            self._is_stopped = True  # a server that ends does not wait for a download
            opening.problem, opening.state = "an error of the server; its log has the details", "failed"
            raise
        else:
            opening.state = "open"

    def _fetched(self, model: str | Path) -> Path:
        """The folder of a model, downloaded if it is not here yet."""
        opening = self._opening

        def progress(step: str, n_done: int, n_total: int, /) -> None:
            if self._is_stopped:
                raise _OpeningStoppedError
            opening.step, opening.n_done, opening.n_total = step, n_done, n_total

        folder = tagger_folder(model, progress=progress)
        if self._is_stopped:
            raise _OpeningStoppedError
        opening.step, opening.n_done, opening.n_total = "", 0, 0
        return folder


def _new_project_folder(allowed: AllowedFolders, parent: str, name: str) -> Path:
    """Where a project is to be created. A ProblemError if the name is not one, or something has it."""
    name = name.strip()
    if not name or _NO_NAME.search(name) or len(name.encode(errors="replace")) > _MAX_NAME_BYTES:
        raise _wrong('no folder can have this name: leave out < > : " / \\ | ? * and dots at its start and end')
    folder = allowed.resolve_new(str(Path(allowed.resolve(parent), name)))
    if (folder / DATABASE).exists():
        raise _wrong(f"{folder}: there is a project with this name already; open it, or choose another name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise _wrong(f"{folder}: there is something with this name already; choose another name")
    return folder


def _model_folder(path: Path) -> Path:
    try:
        read_info(path)
    except SpectagError as error:
        raise _wrong(str(error)) from error
    return path


def _has_model(project: Path) -> bool:
    return any((project / MODELS).glob(f"*/{INFO_FILE}"))


def _wrong(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def routes(context: PageContext) -> Sequence[BaseRoute]:
    """The routes of the view, which needs no model."""
    view = _StartView(context)
    return [
        Route("/choices", view.choices),
        Route("/open", view.open, methods=["POST"]),
        Route("/opening", view.opening),
        Route("/stop", view.stop, methods=["POST"]),
    ]


VIEW = View("start", routes)
