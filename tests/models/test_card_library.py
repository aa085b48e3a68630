import numpy as np
import onnx
import pytest

from helpers.card_networks import (
    RATE,
    InThisProcess,
    batchless_network,
    waveform_card,
    waveform_network,
    write_card,
)
from helpers.file_server import FileServer
from spectag.config.network_cards import open_card
from spectag.errors import BundleError, ConfigError, WeightsError
from spectag.models import card_graph, card_library, card_run
from spectag.models.card_files import network_file
from spectag.models.card_library import add_card, card_statuses, check_card
from spectag.models.network_session import open_session
from spectag.models.pretrained import load
from spectag.system.atomic_files import sha256_of
from spectag.system.cache_content import cached_files
from spectag.system.worker_pool import WorkerDiedError

WAVEFORM = {"kind": "waveform", "sample_rate": RATE, "min_seconds": 0.1}
SOUND = (0.1 * np.random.default_rng(1).standard_normal(RATE)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cäche"


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    if "other_process" not in request.function.__name__:
        monkeypatch.setattr(card_library, "LimitedWorker", InThisProcess)
        monkeypatch.setattr(card_run, "_LEAST_MEASURED_SECONDS", 0.0)


@pytest.fixture
def server():
    server = FileServer(waveform_network().SerializeToString())
    yield server
    server.close()


def test_check_tells_shapes_speed_and_range_of_the_probabilities_by_an_other_process(tmp_path):
    check = check_card(waveform_card(tmp_path, fixed=True))
    assert check.shapes == {"input": (0, 4_800), "embedding": (1, 6), "logits": (1, 3)}
    assert (check.n_features, check.n_labels) == (6, 3)
    assert check.real_time_factor > 0
    assert check.memory_bytes is None or check.memory_bytes > 0
    assert check.sha256 == sha256_of(tmp_path / "net.onnx")
    assert check.probabilities is not None
    assert 0 <= check.probabilities[0] <= check.probabilities[1] <= 1
    assert check.mean_sum is not None
    assert not [note for note in check.notes if note.startswith("WARNING")]


@pytest.mark.parametrize(
    ("outputs", "note"),
    [
        ({"probabilities": "logits"}, "WARNING: these are no probabilities, but "),
        ({"logits": "probabilities"}, "WARNING: these logits are from 0"),
        ({"logits": "logits", "activation": "softmax"}, "sum to 1"),
        ({"embedding": "embedding"}, "it has no output for labels, so it is a backbone only"),
        ({"logits": "logits"}, "its card has no labels"),
    ],
)
def test_check_notes_what_looks_wrong(tmp_path, outputs, note):
    check = check_card(write_card(tmp_path, waveform_network(), input=WAVEFORM, outputs=outputs))
    assert any(note in line for line in check.notes)


def test_check_notes_a_network_that_ignores_its_input(tmp_path):
    model = waveform_network()
    filters = next(tensor for tensor in model.graph.initializer if tensor.name == "filters")
    filters.CopyFrom(onnx.numpy_helper.from_array(np.zeros((6, 1, 128), np.float32), "filters"))
    check = check_card(write_card(tmp_path, model, input=WAVEFORM, outputs={"logits": "logits"}))
    assert any("have the same outputs" in note for note in check.notes)


def test_added_card_works_by_its_name_without_the_original_files(tmp_path):
    path = waveform_card(tmp_path / "net", fixed=True)
    expected = load(path).probabilities(SOUND, RATE)
    added, _ = add_card(path)
    for file in (tmp_path / "net").iterdir():
        file.unlink()
    assert open_card("my-net").path == added
    np.testing.assert_array_equal(load("my-net").probabilities(SOUND, RATE), expected)
    [status] = card_statuses()
    assert (status.name, status.state, status.n_labels, status.is_model) == ("my-net", "added", 3, True)


def test_added_card_keeps_weights_in_other_files(tmp_path):
    path = waveform_card(tmp_path / "net")
    model = onnx.load(tmp_path / "net" / "net.onnx")
    onnx.save(model, tmp_path / "net" / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    add_card(path)
    assert load("my-net").probabilities(SOUND, RATE).shape == (3,)


def test_weights_cannot_replace_another_file_of_an_added_card(tmp_path, cache):
    path = waveform_card(tmp_path)
    network = tmp_path / "net.onnx"
    onnx.save(onnx.load(network), network, save_as_external_data=True, location="model.onnx", size_threshold=0)
    with pytest.raises(
        ConfigError, match=r"its weights are in model\.onnx, which is another file of a card; rename it"
    ):
        add_card(path)
    assert not (cache / "cards" / "my-net").exists()


def test_added_card_is_pinned_to_the_hash_of_its_first_download(tmp_path, cache, server):
    path = waveform_card(tmp_path / "net", network={"file": server.url})
    assert open_card(path).card.network.sha256 is None
    add_card(path)
    stored = open_card("my-net")
    assert stored.card.network.sha256 == sha256_of(network_file(stored))
    network_file(stored).write_bytes(waveform_network(seed=1).SerializeToString())
    server.content = waveform_network(seed=1).SerializeToString()
    server.version_headers = {"ETag": '"second"'}
    with pytest.raises(WeightsError, match="but the published one is"):
        load("my-net")
    assert {file.kind for file in cached_files()} >= {"weights"}


def test_nothing_is_kept_of_a_card_that_does_not_work(tmp_path, cache):
    path = write_card(tmp_path / "net", waveform_network(), input=WAVEFORM, outputs={"embedding": "nothing"})
    with pytest.raises(BundleError, match="no output 'nothing'"):
        add_card(path)
    assert not list((cache / "cards").glob("*"))


def test_card_cannot_have_the_name_of_a_published_model(tmp_path):
    path = write_card(
        tmp_path, waveform_network(), name="audioset-mn04", input=WAVEFORM, outputs={"embedding": "embedding"}
    )
    with pytest.raises(ConfigError, match="audioset-mn04 is a network of spectag"):
        add_card(path)


def test_unverified_cards_are_listed_on_request_only(tmp_path):
    assert card_statuses() == []
    states = {status.name: status.state for status in card_statuses(with_unverified=True)}
    assert states["perch-v2"] == "unverified"


def test_packaged_card_is_used_with_a_network_that_the_user_has_put_into_a_folder(tmp_path, monkeypatch):
    stored = open_card("yamnet")
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path / "weights"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(
            WeightsError, match=r"put yamnet\.onnx, renamed to card-yamnet-[0-9a-f]{16}\.onnx, into a "
        ) as error:
            network_file(stored)
        name = str(error.value).partition("renamed to ")[2].partition(", into")[0]
        onnx.save(batchless_network(), tmp_path / "weights" / name)
        assert network_file(stored) == tmp_path / "weights" / name


def test_network_that_takes_the_process_down_is_one_error(tmp_path, monkeypatch):
    class Died(InThisProcess):
        def __init__(self, function, **limits):
            def ask(request):
                raise WorkerDiedError(request, "SIGSEGV")

            self.ask = ask

    monkeypatch.setattr(card_library, "LimitedWorker", Died)
    with pytest.raises(BundleError, match=r"my-net: .* died \(SIGSEGV\) while it worked on the network\."):
        check_card(waveform_card(tmp_path))


def test_check_opens_no_network_in_this_process(tmp_path, monkeypatch):
    inside = []

    class Watched(InThisProcess):
        def __init__(self, function, **limits):
            def ask(request):
                inside.append(function)
                result = function(request)
                inside.clear()
                return result

            self.ask = ask

    def watched_session(*args, **settings):
        assert inside, "opened by the process of the command"
        return open_session(*args, **settings)

    monkeypatch.setattr(card_library, "LimitedWorker", Watched)
    for module in (card_graph, card_run):
        monkeypatch.setattr(module, "open_session", watched_session)
    check_card(waveform_card(tmp_path))
