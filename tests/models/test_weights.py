"""Weights from a folder, the cache or a server on this machine; nothing half-written stays, and there is a way out."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.file_server import FileServer
from spectag.config.backbones import WeightsSource
from spectag.errors import WeightsError
from spectag.models.weights import find_weights, local_weights
from spectag.system import download as download_module
from spectag.system.cache import cache_folder

CONTENT = b"not really weights" * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WAYS_OUT = (
    r"Ways out: put net\.pt into a folder and set SPECTAG_WEIGHTS to it; take --backbone efficientnet_lite0, "
    "whose weights come with the package; or train without them by --no-pretrained"
)


@pytest.fixture
def server():
    server = FileServer(CONTENT)
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download_module, "_PAUSE_SECONDS", 0.0)
    return tmp_path / "cäche" / "weights"


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("[!.]*"))  # the lock stays


@pytest.mark.parametrize("sha256", [SHA256, None], ids=["checksum known", "checksum unknown"])
def test_weights_are_fetched_once_and_found_from_then_on(server, cache, sha256):
    source = WeightsSource("net.pt", server.url, sha256)
    path = find_weights(source, backbone="net")
    assert path == cache / "net.pt"
    assert path.read_bytes() == CONTENT
    assert find_weights(source, backbone="net") == path
    assert server.n_requests == 1
    assert files_in(cache) == ["net.pt"]


def test_weights_of_another_checksum_are_refused_and_not_kept(server, cache):
    source = WeightsSource("net.pt", server.url, "0" * 64)
    with pytest.raises(WeightsError, match=f"weights of net can't be had from .*net.pt: .*does not match.* {WAYS_OUT}"):
        find_weights(source, backbone="net")
    assert files_in(cache) == []


@pytest.mark.parametrize("sha256", [SHA256, None], ids=["checksum known", "checksum unknown"])
def test_download_that_breaks_off_is_gone_on_with_by_the_next_call(server, cache, sha256):
    source = WeightsSource("net.pt", server.url, sha256)
    server.longest, server.statuses = 100_000, [200, *[503] * 4]
    with pytest.raises(WeightsError, match=rf"running again goes on from 0\.1 MB\. {WAYS_OUT}"):
        find_weights(source, backbone="net")
    assert files_in(cache) == ["net.pt.part", "net.pt.part-version"]
    server.longest = None
    assert find_weights(source, backbone="net").read_bytes() == CONTENT
    assert server.ranges[-1] is not None
    assert files_in(cache) == ["net.pt"]


def test_several_that_look_at_once_fetch_it_once(server, cache):
    source = WeightsSource("net.pt", server.url, None)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: find_weights(source, backbone="net"), range(4)))
    assert paths == {cache / "net.pt"}
    assert server.n_requests == 1


def test_progress_of_the_download_is_told(server, cache):
    told = []
    find_weights(WeightsSource("net.pt", server.url, None), backbone="net", progress=lambda *step: told.append(step))
    assert told[-1] == ("fetching net.pt, kB", 180, 180)


def test_address_without_the_file_is_told_with_the_ways_out(server, cache):
    source = WeightsSource("net.pt", f"{server.url}/elsewhere", None)
    with pytest.raises(WeightsError, match=f"weights of net can't be had from .*net.pt/elsewhere: 404 .*{WAYS_OUT}"):
        find_weights(source, backbone="net")
    assert files_in(cache) == []


def test_who_does_not_train_is_told_other_ways_out(server, cache):
    server.statuses = [404]
    source = WeightsSource("net.pt", server.url, None)
    with pytest.raises(WeightsError, match=r"Ways out: put net\.pt into .* set SPECTAG_WEIGHTS to it; or whistle$"):
        find_weights(source, backbone="net", other_ways="or whistle")


def test_server_that_does_not_answer_is_told_with_the_ways_out_in_one_line(cache):
    url = "http://127.0.0.1:1/net.pt"
    with pytest.raises(
        WeightsError, match=rf"weights of net can't be had from {url}: no connection\. {WAYS_OUT}"
    ) as error:
        find_weights(WeightsSource("net.pt", url, SHA256), backbone="net")
    assert "\n" not in str(error.value)
    assert files_in(cache) == []


def test_damaged_file_in_the_cache_is_fetched_anew(server, cache):
    cache.mkdir(parents=True)
    (cache / "net.pt").write_bytes(CONTENT[:10])
    path = find_weights(WeightsSource("net.pt", server.url, SHA256), backbone="net")
    assert path.read_bytes() == CONTENT


def test_cache_that_is_a_file_is_told_with_the_ways_out(server, cache):
    cache.parent.write_text("in the way")
    with pytest.raises(WeightsError, match=WAYS_OUT):
        find_weights(WeightsSource("net.pt", server.url, SHA256), backbone="net")


def test_file_in_the_users_folder_goes_before_any_download(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    (tmp_path / "net.pt").write_bytes(CONTENT)
    source = WeightsSource("net.pt", server.url, SHA256)
    assert find_weights(source, backbone="net") == tmp_path / "net.pt"
    assert server.n_requests == 0
    assert not cache.exists()


def test_wrong_file_in_the_users_folder_is_named_and_left_alone(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    (tmp_path / "net.pt").write_bytes(b"something else")
    source = WeightsSource("net.pt", server.url, SHA256)
    with pytest.raises(WeightsError, match=rf"net\.pt: not the published weights of net: .*expected {SHA256}"):
        find_weights(source, backbone="net")
    assert (tmp_path / "net.pt").read_bytes() == b"something else"


def test_users_folder_without_the_file_leads_to_the_download(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    assert local_weights("net.pt") is None
    source = WeightsSource("net.pt", server.url, SHA256)
    assert find_weights(source, backbone="net") == cache / "net.pt"


def test_users_folder_that_does_not_exist_is_told(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(WeightsError, match=r"SPECTAG_WEIGHTS names .*gone, which is not a folder; mend or unset it"):
        find_weights(WeightsSource("net.pt", "http://127.0.0.1:1/net.pt", None), backbone="net")


def test_home_is_meant_by_a_tilde_in_both_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPECTAG_CACHE", "~/cache")
    monkeypatch.setenv("SPECTAG_WEIGHTS", "~")
    (tmp_path / "net.pt").touch()
    assert cache_folder() == tmp_path / "cache"
    assert local_weights("net.pt") == tmp_path / "net.pt"


def test_cache_is_the_users_own_where_none_is_named(monkeypatch):
    monkeypatch.delenv("SPECTAG_CACHE")
    assert cache_folder().is_absolute()
    assert "spectag" in cache_folder().parts
