"""spectag models: the list of published models, and their download."""

import io
import json
import re

import pytest
import torch
from rich.console import Console

from helpers.card_networks import InThisProcess, waveform_card
from helpers.file_server import FileServer
from spectag.cli.terminal import new_table
from spectag.config import backbones as catalogue
from spectag.config.backbones import BACKBONES, PUBLISHED
from spectag.models import card_library
from spectag.models.backbone_figures import measured_backbones
from spectag.system import download as download_module
from spectag.training.networks.backbones.mobilenet import MobileNet

NAME, FILE_NAME = "audioset-mn05", "mn05_as_mAP_443.pt"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download_module, "_PAUSE_SECONDS", 0.0)
    return tmp_path / "cäche"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / FILE_NAME
    torch.save(MobileNet(0.5).state_dict(), path)
    return path.read_bytes()


@pytest.fixture
def server(content, monkeypatch):
    """A server of the weights of mn05, at the URL in the catalogue."""
    server = FileServer(content)
    spec = BACKBONES["mn05_audioset"]
    source = catalogue.WeightsSource(FILE_NAME, server.url, None, spec.weights.n_bytes)
    changed = catalogue.BackboneSpec(spec.name, spec.mel, True, spec.pretrained_on, spec.licence, source)
    monkeypatch.setitem(BACKBONES, spec.name, changed)
    yield server
    server.close()


def test_table_has_size_licence_score_and_status_of_all_models(run, cache):
    done = run("models")
    assert (done.status, done.err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.startswith("audioset-")}
    assert list(rows) == list(PUBLISHED)
    assert rows["audioset-mn04"] == ["527", "32", "0.432", "4.1", "MIT", "not", "downloaded"]
    assert rows["audioset-mn10"] == ["527", "32", "0.471", "19.7", "MIT", "not", "downloaded"]
    assert rows["audioset-mn20"] == ["527", "32", "0.478", "about", "71.8", "MIT", "not", "downloaded"]
    assert rows["audioset-dymn10"] == ["527", "32", "0.477", "about", "42.3", "MIT", "not", "downloaded"]
    assert rows["audioset-mn10-hop15"] == ["527", "32", "0.463", "about", "19.6", "MIT", "not", "downloaded"]
    assert rows["audioset-mn40-ext"] == ["527", "32", "0.487", "about", "274.1", "MIT", "not", "downloaded"]
    assert f"folder: {cache / 'models'}" in done.out
    assert not cache.exists()


def test_names_are_whole_in_a_pipe_and_unknown_numbers_of_labels_are_explained(run, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    done = run("models", "--all")
    words = done.out.split()
    assert {*PUBLISHED, "yamnet", "perch-v2"} <= set(words)
    assert "labels ?: their names are in a file" in done.out


@pytest.mark.parametrize("width", [80, 60])
def test_names_are_whole_in_a_narrow_terminal(width):
    console = Console(width=width, file=io.StringIO())
    table = new_table("name", "licence", "status")
    table.add_row("audioset-mn40-ext-of-a-long-name", "a licence of many words " * 2, "unverified, backbone only")
    console.print(table)
    assert "audioset-mn40-ext-of-a-long-name" in console.file.getvalue()


def test_json_has_the_same_information(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    (tmp_path / FILE_NAME).touch()
    done = run("models", "--json")
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert list(rows) == list(PUBLISHED)
    assert rows[NAME] == {
        "name": NAME,
        "n_labels": 527,
        "sample_rate": 32_000,
        "n_bytes": 5_774_732,
        "n_bytes_is_exact": False,
        "licence": "MIT",
        "mean_average_precision": 0.443,
        "state": "downloaded",
        "path": str(tmp_path / FILE_NAME),
        "measured": None,
    }
    assert rows["audioset-mn04"]["measured"]["backbone"] == "mn04_audioset"


def test_measured_backbones_are_listed_with_scores_and_costs(run):
    lines = [line.split() for line in run("models").out.splitlines()]
    [row] = [line for line in lines if line[:1] == ["mn04_audioset"]]
    assert len(row) == 9
    assert row[-1] == "MIT"
    for measured in measured_backbones():
        assert measured.backbone in BACKBONES
        assert all(0 < low <= mean <= high <= 1 for mean, low, high in measured.scores.values())
        assert min(measured.real_time_factor, measured.memory_mb, measured.model_mb) > 0


def test_download_makes_a_model_ready(run, server, cache):
    done = run("models", "download", NAME)
    assert (done.status, done.out) == (0, f"{cache / 'models' / NAME}\n")
    n_kb = len(server.content) // 1000
    assert f"downloading {FILE_NAME}, kB: {n_kb:,}/{n_kb:,}" in done.err
    assert f"{NAME}: built from {cache / 'weights' / FILE_NAME}, stored in {cache / 'models' / NAME}" in done.err
    assert "ready" in next(line for line in run("models").out.splitlines() if line.startswith(NAME))
    assert run("models", "download", NAME, NAME).out.splitlines() == [str(cache / "models" / NAME)] * 2
    assert server.n_requests == 1


def test_interrupted_download_can_be_continued(run, server):
    server.max_bytes, server.statuses = 3_210_000, [200, *[503] * 4]
    done = run("models", "download", NAME)
    assert done.status == 1
    assert f"cannot download the weights of {NAME} from {server.url}: " in done.err
    assert re.search(
        r"; run it again to continue after 3\.[12] MB\. Alternatives: put net\.pt, renamed to mn05_as_mAP_443\.pt, in",
        done.err,
    )
    assert "--no-pretrained" not in done.err
    server.max_bytes = None
    assert run("models", "download", NAME).status == 0
    assert server.ranges[-1] is not None


def test_misspelt_name_is_an_error_before_any_download(run, server, cache):
    done = run("models", "download", NAME, "audioset-mn50")
    assert (done.status, done.out) == (1, "")
    assert "no published tagger has the name 'audioset-mn50'; did you mean 'audioset-mn" in done.err
    assert server.n_requests == 0


@pytest.mark.parametrize(
    ("arguments", "message"), [(["download"], "needs NAME"), (["fetch"], "unexpected argument: 'fetch'")]
)
def test_wrong_usage_is_an_error(run, arguments, message):
    done = run("models", *arguments)
    assert done.status == 2
    assert message in done.err


def test_missing_weights_folder_is_an_error(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path / "gone"))
    done = run("models")
    assert done.status == 1
    assert "is not a folder; correct or unset the variable" in done.err


def test_every_parameter_of_download_is_explained(run):
    done = run("models", "download", "--help")
    assert "Names of published models, such as audioset-mn04." in done.out


def test_network_card_is_checked_added_and_listed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(card_library, "LimitedWorker", InThisProcess)
    card = waveform_card(tmp_path / "net", fixed=True)
    done = run("models", "check", card)
    assert done.status == 0
    assert "input: any x 4800\noutput embedding: 1 x 6\noutput logits: 1 x 3\nfeatures: 6, labels: 3\n" in done.out
    assert re.search(r"speed: [\d,]+ x real time on one core", done.out)
    assert "my-net" not in run("models").out
    assert "added: " in run("models", "add", card).out
    assert re.search(r"my-net +3 +16 .*added", run("models").out)
    assert json.loads(run("models", "check", "my-net", "--json").out)["n_labels"] == 3


def test_unverified_cards_are_shown_with_all(run):
    assert "perch-v2" not in run("models").out
    done = run("models", "--all")
    assert re.search(r"ced-tiny +527 +16 .*unverified", done.out)
    assert "nobody has compared the network with the original" in done.out
    names = [item["name"] for item in json.loads(run("models", "--all", "--json").out)]
    assert {"audioset-mn04", "perch-v2"} <= set(names)


def test_card_that_does_not_fit_is_one_line_and_status_1(run, tmp_path):
    card = waveform_card(tmp_path, outputs={"embedding": "nothing"})
    done = run("models", "check", card)
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert "it has no output 'nothing', but 'frames', 'embedding'" in done.err


def test_download_of_a_card_names_the_command_for_it(run):
    done = run("models", "download", "yamnet")
    assert done.status == 1
    assert "spectag models add yamnet" in done.err


def test_model_of_a_card_is_not_calibrated_in_place(run, tmp_path):
    done = run("calibrate", waveform_card(tmp_path), tmp_path / "labels.csv", "--in-place")
    assert done.status == 2
    assert "is a published model and is not changed" in done.err
