import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.file_server import FileServer
from spectag.config.backbones import BACKBONES, WeightsSource
from spectag.errors import WeightsError
from spectag.models.weights import find_weights, local_weights
from spectag.system import download as download_module
from spectag.system.cache import cache_folder

CONTENT = b"not really weights" * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ALTERNATIVES = (
    r"Alternatives: put net\.pt into a folder and set SPECTAG_WEIGHTS to it; or use --backbone efficientnet_lite0, "
    "whose weights are part of the package$"
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
    """Without the lock and the SHA-256 of the first copy, which stay."""
    return sorted(path.name for path in folder.rglob("[!.]*") if path.suffix != ".sha256")


@pytest.mark.parametrize("sha256", [SHA256, None], ids=["checksum known", "checksum unknown"])
def test_weights_are_downloaded_only_once(server, cache, sha256):
    source = WeightsSource("net.pt", server.url, sha256)
    path = find_weights(source, backbone="net")
    assert path == cache / "net.pt"
    assert path.read_bytes() == CONTENT
    assert find_weights(source, backbone="net") == path
    assert server.n_requests == 1
    assert files_in(cache) == ["net.pt"]


def test_weights_with_a_wrong_checksum_are_refused_and_not_stored(server, cache):
    source = WeightsSource("net.pt", server.url, "0" * 64)
    message = f"cannot download the weights of net from .*net.pt: the SHA-256 of the download is .* {ALTERNATIVES}"
    with pytest.raises(WeightsError, match=message):
        find_weights(source, backbone="net")
    assert files_in(cache) == []


@pytest.mark.parametrize("sha256", [SHA256, None], ids=["checksum known", "checksum unknown"])
def test_interrupted_download_is_resumed_by_the_next_call(server, cache, sha256):
    source = WeightsSource("net.pt", server.url, sha256)
    server.max_bytes, server.statuses = 100_000, [200, *[503] * 4]
    with pytest.raises(WeightsError, match=rf"run it again to continue after 0\.1 MB\. {ALTERNATIVES}"):
        find_weights(source, backbone="net")
    assert files_in(cache) == ["net.pt.part", "net.pt.part-version"]
    server.max_bytes = None
    assert find_weights(source, backbone="net").read_bytes() == CONTENT
    assert server.ranges[-1] is not None
    assert files_in(cache) == ["net.pt"]


def test_parallel_calls_download_the_file_once(server, cache):
    source = WeightsSource("net.pt", server.url, None)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: find_weights(source, backbone="net"), range(4)))
    assert paths == {cache / "net.pt"}
    assert server.n_requests == 1


def test_progress_of_the_download_is_reported(server, cache):
    steps = []
    find_weights(WeightsSource("net.pt", server.url, None), backbone="net", progress=lambda *step: steps.append(step))
    assert steps[-1] == ("downloading net.pt, kB", 180, 180)


def test_missing_file_on_the_server_is_an_error_with_alternatives(server, cache):
    source = WeightsSource("net.pt", f"{server.url}/elsewhere/net.pt", None)
    with pytest.raises(
        WeightsError, match=f"cannot download the weights of net from .*elsewhere/net.pt: 404 .*{ALTERNATIVES}"
    ):
        find_weights(source, backbone="net")
    assert files_in(cache) == []


def test_caller_can_name_other_alternatives(server, cache):
    server.statuses = [404]
    source = WeightsSource("net.pt", server.url, None)
    with pytest.raises(WeightsError, match=r"Alternatives: put net\.pt into .* set SPECTAG_WEIGHTS to it; or whistle$"):
        find_weights(source, backbone="net", alternatives="or whistle")


def test_unreachable_server_is_an_error_of_one_line_with_alternatives(cache):
    url = "http://127.0.0.1:1/net.pt"
    with pytest.raises(
        WeightsError, match=rf"cannot download the weights of net from {url}: no connection\. {ALTERNATIVES}"
    ) as error:
        find_weights(WeightsSource("net.pt", url, SHA256), backbone="net")
    assert "\n" not in str(error.value)
    assert files_in(cache) == []


def test_damaged_file_in_the_cache_is_downloaded_again(server, cache):
    cache.mkdir(parents=True)
    (cache / "net.pt").write_bytes(CONTENT[:10])
    path = find_weights(WeightsSource("net.pt", server.url, SHA256), backbone="net")
    assert path.read_bytes() == CONTENT


def test_cache_that_is_a_file_is_an_error_with_alternatives_if_there_is_no_other_folder(server, cache, monkeypatch):
    cache.parent.write_text("in the way")
    monkeypatch.setattr("spectag.system.cache._temporary_folder", lambda: None)
    with pytest.raises(WeightsError, match=ALTERNATIVES):
        find_weights(WeightsSource("net.pt", server.url, SHA256), backbone="net")


def test_file_in_the_weights_folder_is_used_without_a_download(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    (tmp_path / "net.pt").write_bytes(CONTENT)
    source = WeightsSource("net.pt", server.url, SHA256)
    assert find_weights(source, backbone="net") == tmp_path / "net.pt"
    assert server.n_requests == 0
    assert not cache.exists()


def test_wrong_file_in_the_weights_folder_is_an_error_and_not_deleted(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    (tmp_path / "net.pt").write_bytes(b"something else")
    source = WeightsSource("net.pt", server.url, SHA256)
    with pytest.raises(WeightsError, match=rf"net\.pt: not the published weights of net: .*expected {SHA256}"):
        find_weights(source, backbone="net")
    assert (tmp_path / "net.pt").read_bytes() == b"something else"


def test_file_missing_from_the_weights_folder_is_downloaded(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    assert local_weights("net.pt") is None
    source = WeightsSource("net.pt", server.url, SHA256)
    assert find_weights(source, backbone="net") == cache / "net.pt"


def test_missing_weights_folder_is_an_error(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(WeightsError, match=r"SPECTAG_WEIGHTS: .*gone is not a folder; correct or unset the variable"):
        find_weights(WeightsSource("net.pt", "http://127.0.0.1:1/net.pt", None), backbone="net")


def test_tilde_means_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPECTAG_CACHE", "~/cache")
    monkeypatch.setenv("SPECTAG_WEIGHTS", "~")
    (tmp_path / "net.pt").touch()
    assert cache_folder() == tmp_path / "cache"
    assert local_weights("net.pt") == tmp_path / "net.pt"


def test_default_cache_belongs_to_the_user(monkeypatch):
    monkeypatch.delenv("SPECTAG_CACHE")
    assert cache_folder().is_absolute()
    assert "spectag" in cache_folder().parts


def test_file_without_a_known_checksum_must_not_change_after_its_first_use(server, cache):
    source = WeightsSource("net.pt", server.url, None)
    path = find_weights(source, backbone="net")
    assert (cache / "net.pt.sha256").read_text().strip() == SHA256
    assert find_weights(source, backbone="net") == path
    path.write_bytes(b"other weights")
    message = (
        rf"net\.pt: the weights of net have changed: .* was {SHA256} when they were first used\. .* delete .*sha256"
    )
    with pytest.raises(WeightsError, match=message):
        find_weights(source, backbone="net")
    (cache / "net.pt.sha256").unlink()  # as the message says
    assert find_weights(source, backbone="net") == path


def test_file_in_the_weights_folder_may_differ_from_the_first_download(server, cache, tmp_path, monkeypatch):
    source = WeightsSource("net.pt", server.url, None)
    find_weights(source, backbone="net")
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    (tmp_path / "net.pt").write_bytes(b"other weights")
    assert find_weights(source, backbone="net") == tmp_path / "net.pt"


def test_checksums_are_sha256():
    known = [source.sha256 for spec in BACKBONES.values() if (source := spec.weights) and source.sha256]
    assert len(known) >= 2
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in known)
