"""Downloads from a local server that loses connections, ignores ranges, or changes its file."""

import hashlib
import os
import re

import numpy as np
import pytest

from helpers.file_server import FileServer
from spectag.system import download as download_module
from spectag.system.atomic_files import sha256_of
from spectag.system.download import DownloadError, download

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(250_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(download_module, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    server = FileServer(CONTENT)
    yield server
    server.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gewichte für töne" / "net.pt"


def files_in_folder_of(path):
    return sorted(file.name for file in path.parent.iterdir()) if path.parent.exists() else []


def start_download(server, path, n_bytes=100_000):
    """A first call that leaves a partial file, because the server loses the connection and is then busy."""
    server.max_bytes, server.statuses = n_bytes, [200, *[503] * 4]
    with pytest.raises(DownloadError):
        download(server.url, path)
    server.max_bytes, server.ranges = None, []
    n_kept = (path.parent / "net.pt.part").stat().st_size
    assert 0 < n_kept <= n_bytes
    return n_kept


def test_complete_download_leaves_no_other_file(server, path):
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert files_in_folder_of(path) == ["net.pt"]
    assert server.ranges == [None]


def test_download_continues_after_a_lost_connection(server, path):
    server.max_bytes = 70_000
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert files_in_folder_of(path) == ["net.pt"]
    starts = [int(re.fullmatch(r"bytes=(\d+)-", header)[1]) for header in server.ranges[1:]]
    assert server.n_requests > download_module._N_TRIES  # no limit while every try gets new bytes
    assert starts == sorted(set(starts))


def test_repeatedly_lost_connection_raises_an_error_with_the_bytes_so_far(server, path):
    server.max_bytes, server.statuses = 123_456, [200, *[503] * 4]
    with pytest.raises(
        DownloadError, match=r"^the server answers 503 Service Unavailable; run it again to continue after 0\.1 MB$"
    ):
        download(server.url, path)
    assert files_in_folder_of(path) == ["net.pt.part", "net.pt.part-version"]
    server.max_bytes = 0
    with pytest.raises(DownloadError, match=r"^the connection was lost; run it again to continue after 0\.1 MB$"):
        download(server.url, path)


def test_next_call_requests_only_the_rest(server, path):
    n_kept = start_download(server, path)
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={n_kept}-"]
    assert files_in_folder_of(path) == ["net.pt"]


@pytest.mark.parametrize("version_headers", [{"ETag": '"first"'}, {"Last-Modified": "Tue, 02 Jan 2024 03:04:05 GMT"}])
def test_etag_or_modification_time_is_enough_to_continue(server, path, version_headers):
    server.version_headers = version_headers
    start_download(server, path)
    download(server.url, path, sha256=SHA256)
    assert server.ranges != [None]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("version_headers", [{}, {"ETag": 'W/"first"'}])
def test_download_without_a_version_starts_again(server, path, version_headers):
    server.version_headers, server.max_bytes, server.statuses = version_headers, 100_000, [200, *[503] * 4]
    with pytest.raises(DownloadError, match=r"503 Service Unavailable$"):
        download(server.url, path)
    assert files_in_folder_of(path) == []
    server.max_bytes, server.statuses, server.ranges = None, [], []
    download(server.url, path)
    assert server.ranges == [None]
    assert path.read_bytes() == CONTENT


def test_download_starts_again_if_the_server_ignores_ranges(server, path):
    start_download(server, path)
    server.supports_ranges = False
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_download_stops_if_the_server_ignores_ranges_and_loses_every_connection(server, path):
    server.supports_ranges, server.max_bytes = False, 100_000
    with pytest.raises(DownloadError, match=r"the connection was lost; run it again to continue after 0\.1 MB"):
        download(server.url, path)
    assert server.n_requests <= 1 + download_module._N_TRIES


@pytest.mark.parametrize("sha256", [None, hashlib.sha256(OTHER).hexdigest()])
def test_changed_file_is_downloaded_again(server, path, sha256):
    start_download(server, path)
    server.content, server.version_headers = OTHER, {"ETag": '"second"'}
    download(server.url, path, sha256=sha256)
    assert path.read_bytes() == OTHER


def test_complete_partial_file_is_only_renamed(server, path):
    start_download(server, path)
    (path.parent / "net.pt.part").write_bytes(CONTENT)
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_partial_file_longer_than_the_file_is_deleted(server, path):
    start_download(server, path)
    (path.parent / "net.pt.part").write_bytes(CONTENT + b"more")
    download(server.url, path)
    assert path.read_bytes() == CONTENT


def test_range_with_a_wrong_start_is_rejected(server, path):
    start_download(server, path)
    server.offset = 7
    download(server.url, path)
    assert path.read_bytes() == CONTENT
    assert server.n_requests == 2


def test_damaged_partial_file_is_found_by_the_checksum(server, path):
    n_kept = start_download(server, path)
    (path.parent / "net.pt.part").write_bytes(bytes(n_kept))
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={n_kept}-", None]


def test_wrong_checksum_raises_an_error_and_deletes_the_file(server, path):
    with pytest.raises(DownloadError, match=rf"the SHA-256 of the download is {SHA256}, but the published one is 000"):
        download(server.url, path, sha256="0" * 64)
    assert files_in_folder_of(path) == []
    assert server.n_requests == 1


def test_old_file_stays_until_the_download_is_complete(server, path):
    path.parent.mkdir()
    path.write_bytes(OTHER)
    start_download(server, path)
    assert path.read_bytes() == OTHER
    download(server.url, path)
    assert path.read_bytes() == CONTENT


def test_missing_file_raises_an_error_at_once_and_keeps_the_partial_file(server, path):
    n_kept = start_download(server, path)
    server.statuses = [404]
    with pytest.raises(DownloadError, match=r"^404 Client Error"):
        download(server.url, path)
    assert server.n_requests == 1
    assert (path.parent / "net.pt.part").stat().st_size == n_kept


@pytest.mark.parametrize("status", [500, 503, 429])
def test_busy_server_gets_another_request(server, path, status):
    server.statuses = [status, status]
    download(server.url, path)
    assert path.read_bytes() == CONTENT


def test_no_connection_raises_an_error_at_once_and_keeps_the_partial_file(server, path, monkeypatch):
    start_download(server, path)
    monkeypatch.setattr(download_module.time, "sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(DownloadError, match=r"^no connection; run it again to continue after 0\.1 MB$"):
        download("http://127.0.0.1:1/net.pt", path)
    assert "net.pt.part" in files_in_folder_of(path)


def test_progress_starts_at_the_bytes_so_far_and_ends_at_the_total(server, path):
    n_kept = start_download(server, path)
    steps = []
    download(server.url, path, progress=lambda *step: steps.append(step))
    assert {(step, n_total) for step, _, n_total in steps} == {("downloading net.pt, kB", 300)}
    done = [n_done for _, n_done, _ in steps]
    assert n_kept // 1000 < done[0] <= done[-1] == 300
    assert done == sorted(done)


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
def test_full_disk_raises_an_error_and_the_next_call_continues(server, path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            download(server.url, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(error.value, DownloadError)
    assert not path.exists()
    download(server.url, path, sha256=SHA256)
    assert server.ranges[1] is not None
    assert path.read_bytes() == CONTENT


def test_sha256_of_the_example_in_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example in FIPS 180-4
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_redirect_from_https_to_http_is_refused(server, path, monkeypatch):
    get = download_module.requests.get
    monkeypatch.setattr(download_module.requests, "get", lambda url, **settings: get(server.url, **settings))
    with pytest.raises(DownloadError, match="redirects to an address without https"):
        download("https://example.org/weights.pt", path)
    assert not path.exists()
