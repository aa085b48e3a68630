"""Downloads from a server on this machine that breaks off, forgets, changes its file or has none."""

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
def no_waiting(monkeypatch):
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


def files_beside(path):
    return sorted(file.name for file in path.parent.iterdir()) if path.parent.exists() else []


def broken_off(server, path, n_bytes=100_000):
    """A first call in which the server breaks off and is then too busy; what has come is left beside the place."""
    server.longest, server.statuses = n_bytes, [200, *[503] * 4]
    with pytest.raises(DownloadError):
        download(server.url, path)
    server.longest, server.ranges = None, []
    n_kept = (path.parent / "net.pt.part").stat().st_size
    assert 0 < n_kept <= n_bytes
    return n_kept


def test_file_comes_whole_and_nothing_else_stays(server, path):
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert files_beside(path) == ["net.pt"]
    assert server.ranges == [None]


def test_download_goes_on_where_the_connection_broke_off(server, path):
    server.longest = 70_000
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert files_beside(path) == ["net.pt"]
    starts = [int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) for wanted in server.ranges[1:]]
    assert server.n_requests > download_module._N_TRIES  # no limit as long as each brings something
    assert starts == sorted(set(starts))


def test_connection_that_breaks_off_time_after_time_is_told_with_what_has_come(server, path):
    server.longest, server.statuses = 123_456, [200, *[503] * 4]
    with pytest.raises(
        DownloadError, match=r"^the server answers 503 Service Unavailable; running again goes on from 0\.1 MB$"
    ):
        download(server.url, path)
    assert files_beside(path) == ["net.pt.part", "net.pt.part-version"]
    server.longest = 0
    with pytest.raises(DownloadError, match=r"^the connection broke off; running again goes on from 0\.1 MB$"):
        download(server.url, path)


def test_next_call_asks_for_the_rest_only(server, path):
    n_kept = broken_off(server, path)
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={n_kept}-"]
    assert files_beside(path) == ["net.pt"]


@pytest.mark.parametrize("marks", [{"ETag": '"first"'}, {"Last-Modified": "Tue, 02 Jan 2024 03:04:05 GMT"}])
def test_either_mark_of_the_version_is_enough_to_go_on(server, path, marks):
    server.marks = marks
    broken_off(server, path)
    download(server.url, path, sha256=SHA256)
    assert server.ranges != [None]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("marks", [{}, {"ETag": 'W/"first"'}])
def test_server_that_marks_no_version_is_asked_for_the_whole_file(server, path, marks):
    server.marks, server.longest, server.statuses = marks, 100_000, [200, *[503] * 4]
    with pytest.raises(DownloadError, match=r"503 Service Unavailable$"):
        download(server.url, path)
    assert files_beside(path) == []
    server.longest, server.statuses, server.ranges = None, [], []
    download(server.url, path)
    assert server.ranges == [None]
    assert path.read_bytes() == CONTENT


def test_server_that_ignores_the_range_starts_anew(server, path):
    broken_off(server, path)
    server.takes_ranges = False
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_server_that_ignores_the_range_and_always_breaks_off_is_given_up(server, path):
    server.takes_ranges, server.longest = False, 100_000
    with pytest.raises(DownloadError, match=r"the connection broke off; running again goes on from 0\.1 MB"):
        download(server.url, path)
    assert server.n_requests <= 1 + download_module._N_TRIES


@pytest.mark.parametrize("sha256", [None, hashlib.sha256(OTHER).hexdigest()])
def test_file_that_has_changed_meanwhile_comes_anew(server, path, sha256):
    broken_off(server, path)
    server.content, server.marks = OTHER, {"ETag": '"second"'}
    download(server.url, path, sha256=sha256)
    assert path.read_bytes() == OTHER


def test_file_of_which_all_had_come_is_only_put_in_its_place(server, path):
    broken_off(server, path)
    (path.parent / "net.pt.part").write_bytes(CONTENT)
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_part_that_is_longer_than_the_file_is_thrown_away(server, path):
    broken_off(server, path)
    (path.parent / "net.pt.part").write_bytes(CONTENT + b"more")
    download(server.url, path)
    assert path.read_bytes() == CONTENT


def test_part_that_begins_elsewhere_than_asked_for_is_not_taken(server, path):
    broken_off(server, path)
    server.shift = 7
    download(server.url, path)
    assert path.read_bytes() == CONTENT
    assert server.n_requests == 2


def test_damaged_part_is_noticed_by_the_checksum_and_comes_anew(server, path):
    n_kept = broken_off(server, path)
    (path.parent / "net.pt.part").write_bytes(bytes(n_kept))
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={n_kept}-", None]


def test_other_bytes_than_published_are_refused_and_not_kept(server, path):
    with pytest.raises(
        DownloadError, match=rf"SHA-256 of what came is {SHA256}, which does not match the published 000"
    ):
        download(server.url, path, sha256="0" * 64)
    assert files_beside(path) == []
    assert server.n_requests == 1


def test_earlier_file_stays_until_the_new_one_is_whole(server, path):
    path.parent.mkdir()
    path.write_bytes(OTHER)
    broken_off(server, path)
    assert path.read_bytes() == OTHER
    download(server.url, path)
    assert path.read_bytes() == CONTENT


def test_file_that_is_not_there_is_told_at_once_and_what_had_come_is_kept(server, path):
    n_kept = broken_off(server, path)
    server.statuses = [404]
    with pytest.raises(DownloadError, match=r"^404 Client Error"):
        download(server.url, path)
    assert server.n_requests == 1
    assert (path.parent / "net.pt.part").stat().st_size == n_kept


@pytest.mark.parametrize("status", [500, 503, 429])
def test_busy_server_is_asked_again(server, path, status):
    server.statuses = [status, status]
    download(server.url, path)
    assert path.read_bytes() == CONTENT


def test_no_connection_is_told_at_once_and_what_had_come_is_kept(server, path, monkeypatch):
    broken_off(server, path)
    monkeypatch.setattr(download_module.time, "sleep", lambda _: pytest.fail("waits"))
    with pytest.raises(DownloadError, match=r"^no connection; running again goes on from 0\.1 MB$"):
        download("http://127.0.0.1:1/net.pt", path)
    assert "net.pt.part" in files_beside(path)


def test_progress_goes_from_what_had_come_to_the_whole(server, path):
    n_kept = broken_off(server, path)
    told = []
    download(server.url, path, progress=lambda *step: told.append(step))
    assert {(step, n_total) for step, _, n_total in told} == {("fetching net.pt, kB", 300)}
    done = [n_done for _, n_done, _ in told]
    assert n_kept // 1000 < done[0] <= done[-1] == 300
    assert done == sorted(done)


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_disk_without_room_is_told_and_what_had_come_is_gone_on_with(server, path):
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


def test_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example in FIPS 180-4
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
