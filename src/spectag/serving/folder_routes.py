"""`GET /folders`: what is in a folder that the page may read."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.serving.browsing import AllowedFolders, FolderEntry
from spectag.serving.problems import ProblemError
from spectag.serving.view import PageContext, ViewContext


def allowed_folders(context: PageContext) -> AllowedFolders:
    """The folders that the page may read now: that of the project, and those of --folder.

    Without --folder, the current folder is the second one. It is left out if other computers can reach the server, and
    if it is the root of the disk, as in a service.
    """
    project = context.project if isinstance(context, ViewContext) else None
    folders = [] if project is None else [project.folder]
    settings = context.settings
    here = Path.cwd()
    if settings.folder:
        folders += settings.folder
    elif settings.is_local and here != Path(here.anchor):
        folders.append(here)
    return AllowedFolders(folders)


def folder_routes(context: PageContext) -> list[BaseRoute]:
    """The routes for choosing files and folders."""

    async def folders(request: Request) -> Response:
        project = context.project if isinstance(context, ViewContext) else None
        own = None if project is None else project.folder
        listed = await run_in_threadpool(_listing, allowed_folders(context), request.query_params.get("path"), own)
        return JSONResponse(listed)

    return [Route("/folders", folders)]


def _listing(allowed: AllowedFolders, text: str | None, project: Path | None) -> Mapping[str, Any]:
    """A folder, by default the first one that is not the project, which has no recordings, as JSON."""
    if not allowed.roots:
        raise ProblemError(HTTPStatus.FORBIDDEN, "the page may not read any folder; start spectag with --folder FOLDER")
    own = None if project is None else project.resolve()
    first = next((root for root in allowed.roots if root != own), allowed.roots[0])
    listing = allowed.list(first if text is None else allowed.resolve(text))
    return {
        "path": str(listing.path),
        "parents": [_place(folder) for folder in listing.parents],
        "places": [{"name": str(folder), "path": str(folder)} for folder in allowed.roots],
        "entries": [_described(entry) for entry in listing.entries],
        "complete": listing.is_complete,
    }


def _described(entry: FolderEntry) -> dict[str, Any]:
    described = {"name": entry.name, "path": entry.path, "kind": entry.kind, "changed": entry.changed}
    return described if entry.n_bytes is None else described | {"bytes": entry.n_bytes}


def _place(folder: Path) -> dict[str, str]:
    return {"name": folder.name or str(folder), "path": str(folder)}
