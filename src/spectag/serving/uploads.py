"""The sound in the body of a request: written to a temporary file, within the limits of size and time."""

import asyncio
import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, NamedTuple

from starlette.requests import ClientDisconnect, Request

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.config.serving import ServeSettings
from spectag.serving.form_field import FormError, FormField
from spectag.serving.problems import ProblemError
from spectag.system.atomic_files import unfinished_file
from spectag.system.output import text_problem

_FIELD = "file"
_MULTIPART = "multipart/form-data"
_SOUND_TYPES = ("audio/", "video/", "application/ogg", "application/octet-stream")
_FORM_BYTES = 10_000  # boundaries and names around a sound
_MAX_NAME_BYTES = 150  # so that a name with a prefix is a file name in every system
_NOT_IN_NAMES = re.compile(r'[<>:"|?*\\/]')  # of files in Windows
_UNNAMED = "upload"


class Upload(NamedTuple):
    """An uploaded sound."""

    path: Path
    name: str
    """The file name that the client gave, without folders."""

    def keep(self, folder: Path) -> None:
        """Copy the sound into a folder, wholly or not at all. A ProblemError (507) if the disk is full."""
        target = folder / f"{uuid.uuid4().hex[:12]}_{_NOT_IN_NAMES.sub('_', self.name)}"
        with _storage_problems(), unfinished_file(target) as unfinished:
            shutil.copyfile(self.path, unfinished)


@asynccontextmanager
async def received_sound(request: Request, settings: ServeSettings, folder: Path) -> AsyncIterator[Upload]:
    """The sound that a request sends: as its body, or as the field `file` of a form. It is deleted afterwards.

    Raises
    ------
    ProblemError
        If it is too large (413), no sound (415), too slow (408), there is none (422), or the disk is full (507).
    """
    limit = round(settings.max_megabytes * 1e6)
    _check_length(request, limit)
    with _storage_problems():
        folder.mkdir(mode=0o700, exist_ok=True)  # systems clean their temporary folder from time to time
        descriptor, path = tempfile.mkstemp(dir=folder)
    try:
        with _storage_problems(), os.fdopen(descriptor, "wb") as file:
            name = await _received(request, file, limit, settings.max_seconds)
            size = file.tell()
        if size == 0:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "no sound: send the file as the body, or as the field file of a form, as curl -F file=@a.wav does",
            )
        yield Upload(Path(path), name)
    finally:
        with suppress(FileNotFoundError):
            Path(path).unlink()


@contextmanager
def _storage_problems() -> Iterator[None]:
    """Turn the error of a full disk into a ProblemError (507)."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        detail = "the disk of the server is full; try again later, or tell who runs it"
        raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, detail) from error


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and (len(length) > 18 or int(length) > limit + _FORM_BYTES):
        raise _too_large(limit)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the upload is too large; this server takes up to {limit / 1e6:g} MB"
    )


async def _received(request: Request, file: BinaryIO, limit: int, seconds: float) -> str:
    """Write the sound into a file; returns its name."""
    try:
        async with asyncio.timeout(seconds):
            return await _write(request, file, limit)
    except TimeoutError:
        detail = f"the upload took longer than {seconds:g} s"
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "the upload was broken off") from None


async def _write(request: Request, file: BinaryIO, limit: int) -> str:
    content_type = request.headers.get("content-type", "").strip() or "application/octet-stream"
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _MULTIPART:
        return await _write_field(request, content_type, file, limit)
    if not kind.startswith(_SOUND_TYPES):
        raise _unsupported(f"the type {kind[:100]}")
    async for part in request.stream():
        if file.tell() + len(part) > limit:
            raise _too_large(limit)
        file.write(part)
    return _UNNAMED


async def _write_field(request: Request, content_type: str, file: BinaryIO, limit: int) -> str:
    try:
        field = FormField(content_type, _FIELD, file, _check_suffix)
        n_bytes = 0
        async for part in request.stream():
            n_bytes += len(part)
            if n_bytes > limit + _FORM_BYTES:
                raise _too_large(limit)
            field.write(part)
        field.finish()
    except FormError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the form can't be read: {error}") from error
    if field.file_name is None:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"the form has no field {_FIELD}, as curl -F file=@a.wav sends it"
        )
    if file.tell() > limit:
        raise _too_large(limit)
    return _base_name(field.file_name)


def _check_suffix(file_name: str) -> None:
    """Refuse what is no sound before it is uploaded."""
    name = _base_name(file_name)
    if Path(name).suffix.lower() not in AUDIO_SUFFIXES:
        raise _unsupported(f"the suffix of {name}")


def _unsupported(what: str) -> ProblemError:
    known = " ".join(sorted(AUDIO_SUFFIXES))
    return ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{what} is not that of a sound; expected one of {known}")


def _base_name(name: str) -> str:
    """The name of a file without folders, for messages."""
    name = PureWindowsPath(PurePosixPath(name).name).name.strip()
    if not name or text_problem(name) is not None:
        suffix = Path(name).suffix
        return _UNNAMED + (suffix if suffix.lower() in AUDIO_SUFFIXES else "")
    stem, suffix = Path(name).stem, Path(name).suffix
    n_bytes = max(1, _MAX_NAME_BYTES - len(suffix.encode()))
    return (stem.encode()[:n_bytes].decode(errors="ignore") + suffix)[:_MAX_NAME_BYTES]
