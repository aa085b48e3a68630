"""Downloads that appear complete or not at all, and that continue after a broken connection."""

import re
import time
from pathlib import Path

import requests

from spectag.errors import first_line
from spectag.system.atomic_files import sha256_of
from spectag.system.progress import Progress, silent

_N_TRIES = 4  # consecutive tries without new bytes
_PAUSE_SECONDS = 1.0  # before the next try; doubled after each try without new bytes
_TIMEOUT_SECONDS = 30.0  # without a byte
_CHUNK_BYTES = 1 << 16


class DownloadError(OSError):
    """The server does not deliver the file."""


class _ConnectionLostError(DownloadError):
    """The connection was lost, or the server is busy. Another try may help."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    max_bytes: int | None = None,
    progress: Progress = silent,
) -> None:
    """Download a file to `path`.

    An incomplete download stays beside it as NAME.part. The next call continues it, if the server supports ranges and
    still has the same version of the file. The caller makes sure that only one process downloads to a path.

    Parameters
    ----------
    url, path
    sha256 : str, optional
        The expected checksum. Without it, only the length is checked.
    max_bytes : int, optional
        Refuse a larger file.
    progress : Progress
        Called with the number of kilobytes so far and in total.

    Raises
    ------
    DownloadError
        If the server is not reachable, does not have the file, loses the connection repeatedly, or sends other content.
    OSError
        If the file can't be written.
    """
    partial = _PartialFile(path)
    was_started = partial.n_bytes > 0
    _fetch_with_retries(url, partial, progress, max_bytes)
    if sha256 is not None and was_started and sha256_of(partial.file) != sha256:  # the old part may be damaged
        partial.clear()
        _fetch_with_retries(url, partial, progress, max_bytes)
    if sha256 is not None and (actual := sha256_of(partial.file)) != sha256:
        partial.clear()
        raise DownloadError(f"the SHA-256 of the download is {actual}, but the published one is {sha256}")
    partial.file.replace(path)
    partial.clear()


class _PartialFile:
    """The bytes downloaded so far, and the version of the file that they belong to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.with_name(f"{path.name}.part")
        self._version_file = path.with_name(f"{path.name}.part-version")

    @property
    def version(self) -> str:
        """The server's ETag or modification time. Empty if it sends neither: then a change would go unnoticed."""
        return self._version_file.read_text(encoding="utf-8") if self._version_file.is_file() else ""

    @property
    def n_bytes(self) -> int:
        """The number of bytes that can be kept."""
        return self.file.stat().st_size if self.version and self.file.is_file() else 0

    def start(self, version: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        self._version_file.write_text(version, encoding="utf-8")

    def clear(self) -> None:
        self.file.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)


def _fetch_with_retries(url: str, partial: _PartialFile, progress: Progress, max_bytes: int | None) -> None:
    n_failures, most_bytes, was_reached = 0, partial.n_bytes, False
    while True:
        try:
            _fetch(url, partial, progress, max_bytes)
        except (requests.ConnectionError, requests.Timeout, _ConnectionLostError) as error:
            was_reached = was_reached or isinstance(error, _ConnectionLostError)
            n_failures = 0 if partial.n_bytes > most_bytes else n_failures + 1
            most_bytes = max(most_bytes, partial.n_bytes)
            if n_failures == _N_TRIES or not was_reached:
                reason = str(error) if isinstance(error, _ConnectionLostError) else "no connection"
                raise DownloadError(reason + _how_to_continue(partial)) from error
        except requests.RequestException as error:
            raise DownloadError(first_line(error)) from error
        else:
            return
        time.sleep(_PAUSE_SECONDS * 2**n_failures)


def _how_to_continue(partial: _PartialFile) -> str:
    if not partial.n_bytes:
        partial.clear()
        return ""
    return f"; run it again to continue after {partial.n_bytes / 1e6:.1f} MB"


def _fetch(url: str, partial: _PartialFile, progress: Progress, max_bytes: int | None) -> None:
    start = partial.n_bytes
    headers = {"Accept-Encoding": "identity"}  # else Content-Length would count compressed bytes
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": partial.version}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise DownloadError("the server redirects to an address without https, where anybody can change the file")
        status, n_total = response.status_code, _n_total(response)
        if status == requests.codes.requested_range_not_satisfiable and n_total == start:
            return  # the file was complete already
        if status == requests.codes.too_many_requests or status >= 500:
            raise _ConnectionLostError(f"the server answers {status} {response.reason}")
        content_range = response.headers.get("Content-Range", "")
        is_other_range = status == requests.codes.partial_content and not content_range.startswith(f"bytes {start}-")
        if status == requests.codes.requested_range_not_satisfiable or is_other_range:
            partial.clear()
            raise _ConnectionLostError("the file on the server has changed")
        response.raise_for_status()
        if status == requests.codes.ok:  # the server sends the file from its start
            partial.start(_version(response))
        _append(response, partial, n_total, progress, max_bytes)


def _n_total(response: requests.Response) -> int | None:
    """The number of bytes of the whole file, if the server sends it."""
    if response.status_code == requests.codes.ok:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    match = re.fullmatch(r"bytes .*/(\d+)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _version(response: requests.Response) -> str:
    etag = response.headers.get("ETag", "")
    is_strong = etag and not etag.startswith("W/")  # equal strong tags mean equal bytes
    return etag if is_strong else response.headers.get("Last-Modified", "")


def _append(
    response: requests.Response,
    partial: _PartialFile,
    n_total: int | None,
    progress: Progress,
    max_bytes: int | None,
) -> None:
    _check_size(n_total or 0, partial, max_bytes)
    step = f"downloading {partial.path.name}, kB"
    with partial.file.open("ab") as file:
        try:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                _check_size(file.tell(), partial, max_bytes)
                if n_total is not None:
                    progress(step, file.tell() // 1000, n_total // 1000)
        except requests.RequestException as error:
            raise _ConnectionLostError("the connection was lost") from error
        if n_total is not None and file.tell() != n_total:
            raise _ConnectionLostError("the connection was lost")


def _check_size(n_bytes: int, partial: _PartialFile, max_bytes: int | None) -> None:
    if max_bytes is not None and n_bytes > max_bytes:
        partial.clear()
        raise DownloadError(f"the file is too large: {n_bytes / 1e6:.0f} MB, expected at most {max_bytes / 1e6:.0f} MB")
