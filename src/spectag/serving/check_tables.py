"""Tables of detections to check: those of the project's jobs, and those that are uploaded."""

import asyncio
import re
import tempfile
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from starlette.requests import ClientDisconnect, Request

from spectag.config.serving import ServeSettings
from spectag.serving.browsing import TABLE_SUFFIXES
from spectag.serving.problems import ProblemError

UPLOADS = "tables"
"""The folder of a project for uploaded tables."""

_RUNS = "runs"
_TABLE = "tags.csv"  # every run has it; its tables of other formats hold the same detections
_MAX_STEM = 80  # characters
_UNUSUAL = re.compile(r"[^\w.() -]+")


def tables_of_runs(project: Path) -> list[dict[str, Any]]:
    """The tables that jobs of a project wrote, the newest first, for JSON."""
    found = sorted(_tables(project), key=lambda path: path.stat().st_mtime, reverse=True)
    return [
        {"path": str(path), "run": path.parent.name, "name": path.name, "bytes": path.stat().st_size} for path in found
    ]


def _tables(project: Path) -> Iterator[Path]:
    for path in (project / _RUNS).glob(f"*/{_TABLE}"):
        if path.is_file() and not path.is_symlink():
            yield path


async def received_table(request: Request, settings: ServeSettings, project: Path) -> Path:
    """Store the table in the body of a request in the project; its name is the parameter `name`.

    Raises
    ------
    ProblemError
        If it is too large (413), of an unknown kind (415), too slow (408), empty (422), or the disk is full (507).
    """
    name = Path(request.query_params.get("name", "").replace("\\", "/")).name
    stem, suffix = _UNUSUAL.sub("_", Path(name).stem).strip(" .")[:_MAX_STEM], Path(name).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        known = " ".join(sorted(TABLE_SUFFIXES))
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{name[:100]}: no table; expected one of {known}")
    folder = project / UPLOADS
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=suffix, delete=False) as file:
            unfinished = Path(file.name)
            try:
                await _write(request, file.file, settings)
                file.close()
                return _renamed(unfinished, folder, stem or "table", suffix)
            except BaseException:
                file.close()
                unfinished.unlink(missing_ok=True)
                raise
    except OSError as error:
        detail = f"the table can't be stored: {error.strerror or error}"
        raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, detail) from error


async def _write(request: Request, file: IO[bytes], settings: ServeSettings) -> None:
    try:
        async with asyncio.timeout(settings.max_seconds):
            async for part in request.stream():
                if file.tell() + len(part) > 1e6 * settings.max_megabytes:
                    detail = f"the table is too large; this server takes up to {settings.max_megabytes:g} MB"
                    raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
                file.write(part)
    except TimeoutError:
        detail = f"the upload took longer than {settings.max_seconds:g} s"
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "the upload was broken off") from None
    if not file.tell():
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "the table is empty")


def _renamed(unfinished: Path, folder: Path, stem: str, suffix: str) -> Path:
    """Give a file a name that no other has."""
    number, path = 1, folder / f"{stem}{suffix}"
    while True:
        try:
            path.touch(exist_ok=False)  # reserves the name
        except FileExistsError:
            number += 1
            path = folder / f"{stem} {number}{suffix}"
            continue
        return unfinished.replace(path)
