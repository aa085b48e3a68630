import hashlib
import os

import pytest

from helpers.card_networks import waveform_card, waveform_network, write_card
from helpers.file_server import FileServer
from spectag.config.network_cards import CardFile, open_card
from spectag.errors import BundleError, ConfigError, WeightsError
from spectag.models import card_files
from spectag.models.card_files import check_labels_fit, digest_of, label_names, network_file, url_of
from spectag.system import download as download_module

CONTENT = waveform_network().SerializeToString()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download_module, "_PAUSE_SECONDS", 0.0)
    server = FileServer(CONTENT)
    yield server
    server.close()


def web_card(folder, server, **network):
    return open_card(waveform_card(folder, network={"file": server.url} | network))


@pytest.mark.parametrize("sha256", [SHA256, None], ids=["hash known", "hash unknown"])
def test_network_is_downloaded_once_into_the_cache(tmp_path, server, sha256):
    stored = web_card(tmp_path / "a", server, **({"sha256": sha256} if sha256 else {}))
    path = network_file(stored)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cäche" / "weights")
    assert network_file(stored) == path
    assert server.n_requests == 1


def test_network_with_another_hash_than_the_card_says_is_refused(tmp_path, server):
    with pytest.raises(WeightsError, match=f"the SHA-256 of the download is {SHA256}, but the published one is 000"):
        network_file(web_card(tmp_path / "a", server, sha256="0" * 64))


def test_hash_of_the_first_download_is_kept_and_another_content_refused_later(tmp_path, server):
    stored = web_card(tmp_path / "a", server)
    path = network_file(stored)
    path.unlink()
    server.content = waveform_network(seed=1).SerializeToString()
    server.version_headers = {"ETag": '"second"'}
    with pytest.raises(WeightsError, match="the weights of my-net have changed"):
        network_file(stored)


def test_huge_download_is_stopped(tmp_path, server, monkeypatch):
    monkeypatch.setattr("spectag.models.card_files.MAX_ONNX_BYTES", 1_000)
    with pytest.raises(WeightsError, match="the file is too large"):
        network_file(web_card(tmp_path / "a", server))
    assert not list((tmp_path / "cäche" / "weights").glob("*.onnx"))


def test_download_without_a_length_is_stopped_at_the_limit(tmp_path, server):
    with pytest.raises(download_module.DownloadError, match="too large"):
        download_module.download(server.url, tmp_path / "net.onnx", max_bytes=100)


def test_file_on_the_hub_is_a_web_address_of_a_revision(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    source = CardFile(file="hf:user/name/onnx/net.onnx", revision="v1")
    assert url_of(source) == "https://huggingface.co/user/name/resolve/v1/onnx/net.onnx"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1/")
    assert url_of(source).startswith("http://127.0.0.1:1/user/")


def test_local_network_needs_the_hash_of_the_card(tmp_path):
    path = waveform_card(tmp_path, network={"file": "net.onnx", "sha256": "0" * 64})
    with pytest.raises(ConfigError, match="not the file of the card"):
        network_file(open_card(path))
    with pytest.raises(ConfigError, match="No such file"):
        network_file(open_card(waveform_card(tmp_path, network={"file": "other.onnx"})))


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_link_to_a_file_outside_of_the_folder_is_refused(tmp_path):
    path = waveform_card(tmp_path / "a", network={"file": "link.onnx"})
    (tmp_path / "secret").write_bytes(CONTENT)
    (tmp_path / "a" / "link.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match="a link to a file outside"):
        network_file(open_card(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipe_is_refused_instead_of_waiting_for_it(tmp_path):
    path = waveform_card(tmp_path, network={"file": "pipe.onnx"})
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ConfigError, match="not a regular file"):
        network_file(open_card(path))


def labels_card(folder, content, **labels):
    file = "labels.csv" if "column" in labels or "," in content.splitlines()[0] else "labels.txt"
    path = waveform_card(folder, labels={"source": {"file": file}} | labels)
    (folder / file).write_text(content, encoding="utf-8")
    return open_card(path)


def test_labels_are_the_lines_of_a_text_or_a_column_of_a_csv(tmp_path):
    assert label_names(labels_card(tmp_path, "low\nmiddle\nhigh\n\n")) == ("low", "middle", "high")
    table = 'index,mid,display_name\n0,/m/1,"low, deep"\n1,/m/2,high\n'
    assert label_names(labels_card(tmp_path, table)) == ("low, deep", "high")
    assert label_names(labels_card(tmp_path, table, column="mid")) == ("/m/1", "/m/2")
    path = waveform_card(tmp_path, labels={"names": "audioset"})
    assert len(label_names(open_card(path))) == 527


@pytest.mark.parametrize(
    ("content", "labels", "reason"),
    [
        ("low\nlow\n", {}, "label 2, 'low', occurs twice"),
        ("low\n\nhigh\n", {}, "label 2 is ''"),
        ("low\x1b[31m\nhigh\n", {}, "expected printable text"),
        ("\n", {}, "0 labels, expected 1 to"),
        ("a,b\n1,2\n", {}, "no column display_name or label or name, but a, b"),
        ("a,b\n1,2\n", {"column": "c"}, "no column c, but a, b"),
    ],
)
def test_wrong_labels_are_refused(tmp_path, content, labels, reason):
    with pytest.raises(ConfigError, match=reason):
        label_names(labels_card(tmp_path, content, **labels))


def test_number_of_labels_must_be_that_of_the_network(tmp_path):
    stored = open_card(waveform_card(tmp_path))
    with pytest.raises(BundleError, match="the network has 3 outputs for labels, but 2 labels"):
        check_labels_fit(stored, ("a", "b"), 3)


def test_digest_depends_on_weights_in_other_files(tmp_path):
    import onnx

    write_card(tmp_path, waveform_network(), input={"kind": "waveform", "sample_rate": 8_000}, outputs={"logits": 0})
    path = tmp_path / "net.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    before = digest_of(path)
    weights = bytearray((tmp_path / "net.data").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "net.data").write_bytes(weights)
    assert digest_of(path) != before


def test_huge_files_of_weights_are_refused_before_they_are_read(tmp_path, monkeypatch):
    import onnx

    write_card(tmp_path, waveform_network(), input={"kind": "waveform", "sample_rate": 8_000}, outputs={"logits": 0})
    path = tmp_path / "net.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    os.truncate(tmp_path / "net.data", 2_100_000_000)  # sparse
    monkeypatch.setattr(card_files, "sha256_of", lambda _: pytest.fail("read"))
    with pytest.raises(BundleError, match=r"the other files with its weights have more than 2 GB"):
        digest_of(path)
