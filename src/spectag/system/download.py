"""Files from the net: fetched whole or not at all, and gone on with where the connection broke off."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from spectag.system.atomic_files import sha256_of
from spectag.system.progress import Progress, silent

_N_TRIES = 4  # in a row that bring nothing new
_PAUSE_SECONDS = 1.0  # before the next try; twice as long after each that brought nothing
_TIMEOUT_SECONDS = 30.0  # without a byte
_CHUNK_BYTES = 1 << 16


class DownloadError(OSError):
    """A file that the net does not give."""


class _BrokenOffError(DownloadError):
    """A connection that broke off, or a server that is busy: worth another try."""


def download(url: str, path: Path, *, sha256: str | None = None, progress: Progress = silent) -> None:
    """Fetch a file and put it in its place once it is whole.

    Until then what has come lies beside it as NAME.part. The next call goes on from there, if the server can give a
    part and its file is still the same. One process at a time may fetch to a place; the caller sees to that.

    Parameters
    ----------
    url, path
    sha256 : str, optional
        What the file must have; without it, only its length is checked.
    progress : Progress
        Told the kilobytes that have come, and how many there are.

    Raises
    ------
    DownloadError
        If the server can't be reached, does not have the file, breaks off time after time, or has another file.
    OSError
        If the file can't be written.
    """
    part = _Part(path)
    was_begun = part.n_kept > 0
    _fetch_patiently(url, part, progress)
    if sha256 is not None and was_begun and sha256_of(part.file) != sha256:  # the part was damaged, or another file's
        part.clear()
        _fetch_patiently(url, part, progress)
    if sha256 is not None and (found := sha256_of(part.file)) != sha256:
        part.clear()
        raise DownloadError(f"SHA-256 of what came is {found}, which does not match the published {sha256}")
    part.file.replace(path)
    part.clear()


@dataclass(frozen=True)
class _Part:
    """What has come of a file, and the server's mark of the version that it is of."""

    path: Path

    @property
    def file(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def _version_file(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part-version")

    @property
    def version(self) -> str:
        """Empty where the server gives none: then nobody can tell whether its file has changed meanwhile."""
        return self._version_file.read_text(encoding="utf-8") if self._version_file.is_file() else ""

    @property
    def n_kept(self) -> int:
        """The bytes that needn't come again."""
        return self.file.stat().st_size if self.version and self.file.is_file() else 0

    def begin(self, version: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        self._version_file.write_text(version, encoding="utf-8")

    def clear(self) -> None:
        self.file.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)


def _fetch_patiently(url: str, part: _Part, progress: Progress) -> None:
    """Fetch what is missing, in several tries where the connection breaks off."""
    n_idle, most, was_reached = 0, part.n_kept, False
    while True:
        try:
            _fetch(url, part, progress)
        except (requests.ConnectionError, requests.Timeout, _BrokenOffError) as error:
            was_reached = was_reached or isinstance(error, _BrokenOffError)
            n_idle, most = (0, part.n_kept) if part.n_kept > most else (n_idle + 1, most)
            if n_idle == _N_TRIES or not was_reached:
                reason = str(error) if isinstance(error, _BrokenOffError) else "no connection"
                raise DownloadError(reason + _goes_on_from(part)) from error
        except requests.RequestException as error:
            raise DownloadError(str(error).splitlines()[0]) from error
        else:
            return
        time.sleep(_PAUSE_SECONDS * 2**n_idle)


def _goes_on_from(part: _Part) -> str:
    if not part.n_kept:
        part.clear()
        return ""
    return f"; running again goes on from {part.n_kept / 1e6:.1f} MB"


def _fetch(url: str, part: _Part, progress: Progress) -> None:
    start = part.n_kept
    headers = {"Accept-Encoding": "identity"}  # or the lengths would be those of what is packed
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": part.version}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
        status, n_total = response.status_code, _n_total(response)
        if status == requests.codes.requested_range_not_satisfiable and n_total == start:
            return  # all had come before
        if status == requests.codes.too_many_requests or status >= 500:
            raise _BrokenOffError(f"the server answers {status} {response.reason}")
        if status == requests.codes.requested_range_not_satisfiable or not _begins_at(response, start):
            part.clear()
            raise _BrokenOffError("the server has another file than before")
        response.raise_for_status()
        if status == requests.codes.ok:  # from the start, asked for or not
            part.begin(_version(response))
        _write(response, part, n_total, progress)


def _begins_at(response: requests.Response, start: int) -> bool:
    """Whether a part of a file is the one that was asked for."""
    is_part = response.status_code == requests.codes.partial_content
    return not is_part or response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _n_total(response: requests.Response) -> int | None:
    """The bytes of the whole file, where the server tells."""
    if response.status_code == requests.codes.ok:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes .*/(\d+)", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _version(response: requests.Response) -> str:
    etag = response.headers.get("ETag", "")
    is_strong = etag and not etag.startswith("W/")  # equal byte for byte, where the mark is equal
    return etag if is_strong else response.headers.get("Last-Modified", "")


def _write(response: requests.Response, part: _Part, n_total: int | None, progress: Progress) -> None:
    step = f"fetching {part.path.name}, kB"
    with part.file.open("ab") as file:
        try:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                if n_total is not None:
                    progress(step, file.tell() // 1000, n_total // 1000)
        except requests.RequestException as error:
            raise _BrokenOffError("the connection broke off") from error
        if n_total is not None and file.tell() != n_total:
            raise _BrokenOffError("the connection broke off")
