import gzip
import json
import math
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from filelock import FileLock
from scipy.special import logit

import spectag
from helpers.bundles import make_bundle, tone
from helpers.command import run_without
from helpers.paths import SHARED
from spectag.audio.files import read_audio, resample, write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.config.backbones import AUDIOSET_MEL, BACKBONES, PUBLISHED
from spectag.errors import BundleError, ConfigError, WeightsError
from spectag.models import pretrained
from spectag.models import published_graph as published_graph_module
from spectag.models.bundle import INFO_FILE, ONNX_FILE, read_info
from spectag.models.network_session import open_session
from spectag.models.pretrained import (
    THRESHOLD,
    audioset_labels,
    check_published_name,
    fetch,
    load,
    published_taggers,
    tagger_folder,
)
from spectag.models.published_graph import published_graph
from spectag.models.timeline import pool_logits
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.backbones.mobilenet import MobileNet, MobileNetBackbone
from spectag.training.networks.network import FeatureExtractor

ESC10 = SHARED / "data" / "esc10"
needs_mn04 = pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
needs_reference = pytest.mark.skipif(not (SHARED / "reference").exists(), reason="needs ../shared/reference")
needs_esc10 = pytest.mark.skipif(not ESC10.exists(), reason="needs ../shared/data/esc10")
NAME, FILE_NAME = "audioset-mn05", "mn05_as_mAP_443.pt"  # has no known checksum, so the tests can use another file
OUTPUTS = ["probabilities", "features", "logits"]
INPUTS = np.random.default_rng(0).normal(0, 0.5, (3, 1, 128, 201)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    """A network with random weights and random batch normalisation."""
    torch.manual_seed(0)
    network = MobileNet(0.5).eval()
    for name, values in network.named_buffers():
        if name.endswith("running_mean"):
            values.normal_(0, 0.1)
        if name.endswith("running_var"):
            values.uniform_(0.5, 2)
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("Gewichte")
    torch.save(network.state_dict(), folder / FILE_NAME)
    return folder


@pytest.fixture
def models(tmp_path, monkeypatch, weights):
    """The folder of bundles in a new cache, with local weights."""
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cäche" / "models"


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def outputs_of(bundle, inputs=INPUTS):
    return open_session(bundle / ONNX_FILE, n_threads=1).run(OUTPUTS, {"inputs": inputs})


def torch_outputs(network, inputs=INPUTS):
    backbone = MobileNetBackbone(network)
    with torch.inference_mode():
        logits = network(torch.from_numpy(inputs))
        features = FeatureExtractor(backbone, "all").eval()(torch.from_numpy(inputs))
    return torch.sigmoid(logits).numpy(), features.numpy(), logits.numpy()


# ------------------------------------------------------------------------------------------------ the graphs


def tensors_of(tagger):
    """The tensors of a published network, without values."""
    with torch.device("meta"):
        return build_backbone(tagger.backbone, pretrained=False).network.state_dict()


@pytest.mark.parametrize("tagger", PUBLISHED.values(), ids=lambda tagger: tagger.name)
def test_packaged_graph_has_the_weights_of_its_network(tagger):
    graph = onnx.load_from_string(published_graph(tagger.backbone)).graph
    expected = {name: tuple(values.shape) for name, values in tensors_of(tagger).items() if values.ndim}
    empty = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert {tensor.name: tuple(tensor.dims) for tensor in empty} == expected


@pytest.mark.parametrize("tagger", PUBLISHED.values(), ids=lambda tagger: tagger.name)
def test_packaged_graph_takes_the_mel_bands_of_its_network(tagger):
    [inputs] = onnx.load_from_string(published_graph(tagger.backbone)).graph.input
    assert inputs.type.tensor_type.shape.dim[2].dim_value == BACKBONES[tagger.backbone].mel.n_mels


@pytest.mark.parametrize("tagger", PUBLISHED.values(), ids=lambda tagger: tagger.name)
def test_size_of_unverified_weights_is_that_of_their_tensors(tagger):
    source = BACKBONES[tagger.backbone].weights
    n_bytes = sum(values.numel() * values.element_size() for values in tensors_of(tagger).values())
    assert source.n_bytes == n_bytes if source.sha256 is None else n_bytes < source.n_bytes < 1.03 * n_bytes


def steps_of(graph):
    """The operators of a graph with their weights. The exporter chooses the order of branches and the other names."""
    weights = {tensor.name for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL}
    return sorted((node.op_type, *(name for name in node.input if name in weights)) for node in graph.node)


@pytest.mark.parametrize("family", ["audioset-mn", "audioset-dymn"])
def test_graphs_of_all_networks_of_a_family_have_the_same_nodes(family):
    taggers = [tagger for tagger in PUBLISHED.values() if tagger.name.startswith(family)]
    steps = [steps_of(onnx.load_from_string(published_graph(tagger.backbone)).graph) for tagger in taggers]
    assert len(steps) >= 3
    assert all(nodes == steps[0] for nodes in steps)


def test_graphs_are_small_and_contain_no_paths_or_times():
    for tagger in PUBLISHED.values():
        packed = published_graph_module._file(tagger.backbone).read_bytes()
        assert len(packed) < 30_000
        assert packed[4:8] == bytes(4)  # no time
        assert not any(text in gzip.decompress(packed) for text in (b"torch", b".py", b"spectag/"))


# ------------------------------------------------------------------------------------------------ the bundle


def test_bundle_has_the_outputs_of_the_torch_network(models, network):
    bundle = tagger_folder(NAME)
    assert bundle == models / NAME
    probabilities, features, logits = outputs_of(bundle)
    expected = torch_outputs(network)
    np.testing.assert_allclose(probabilities, expected[0], atol=1e-6)
    np.testing.assert_allclose(features, expected[1], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(logits, expected[2], atol=1e-5)
    assert probabilities.shape == (3, 527)


def test_batch_normalisation_is_folded_into_the_convolutions(models):
    steps = [node.op_type for node in onnx.load(tagger_folder(NAME) / ONNX_FILE).graph.node]
    assert "Conv" in steps
    assert "BatchNormalization" not in steps


def test_bundle_describes_the_published_tagger(models):
    info = read_info(tagger_folder(NAME))
    assert info.labels == audioset_labels()
    assert info.front_end == FrontEnd(mel=AUDIOSET_MEL)
    assert (info.backbone.name, info.backbone.licence) == ("mn05_audioset", "MIT")
    assert set(info.thresholds) == {THRESHOLD}
    assert not any(info.thresholds_fitted)
    assert info.metrics["mean_average_precision"] == 0.443
    assert (info.data.n_clips, info.data.n_clips_per_label, info.onnx_difference) == (None, None, None)


def test_long_recording_is_tagged_in_parts_of_ten_seconds(models, tmp_path):
    tagger = load(NAME)
    path, rate = tmp_path / "a.wav", tagger.front_end.sample_rate
    write_audio(path, np.random.default_rng(0).normal(0, 0.1, 15 * rate).astype(np.float32), rate)
    waveform = read_audio(path)[0]
    parts = [tagger.outputs(part, rate).logits for part in (waveform[: 10 * rate], waveform[5 * rate :])]
    np.testing.assert_allclose(logit(tagger.tag(path).probabilities), pool_logits(parts, [1.0, 1.0]), atol=1e-3)


def test_card_contains_source_licence_data_and_citation(models):
    card = (tagger_folder(NAME) / "README.md").read_text(encoding="utf-8")
    for text in ("license: mit", f"v0.0.1/{FILE_NAME}", "AudioSet", "CC BY 4.0", "ICASSP 2023", "precision 0.443"):
        assert text in card
    assert "Male speech, man speaking; Female speech" in card


def test_load_opens_a_published_tagger_by_name_and_any_other_by_its_folder(models, tmp_path):
    assert spectag.load is load
    probabilities = spectag.load(NAME).probabilities(tone("low", 1.0, 32_000), 32_000)
    log_mel = compute_log_mel(tone("low", 1.0, 32_000), AUDIOSET_MEL)
    assert np.array_equal(probabilities, outputs_of(models / NAME, log_mel[None, None])[0][0])
    own = make_bundle(tmp_path / "own")
    assert tagger_folder(own) == own
    assert load(own).folder == own


def test_folder_takes_precedence_over_a_published_name(models, tmp_path):
    make_bundle(tmp_path / NAME)
    assert tagger_folder(NAME) == Path(NAME)
    assert not models.exists()


def test_tagger_is_built_without_torch_and_other_heavy_packages(models):
    packages = {"torch", "onnx", "onnxscript", "safetensors", "timm", "matplotlib"}
    done = run_without(packages, "models", "download", NAME)
    assert (done.status, done.out) == (0, f"{models / NAME}\n"), done.err


# ------------------------------------------------------------------------------------------------ building


def test_tagger_is_built_once_and_then_needs_neither_weights_nor_a_writable_cache(models, monkeypatch):
    messages = []
    bundle = tagger_folder(NAME, log=messages.append)
    modified = (bundle / ONNX_FILE).stat().st_mtime_ns
    monkeypatch.delenv("SPECTAG_WEIGHTS")
    monkeypatch.setattr(pretrained, "FileLock", None)
    assert tagger_folder(NAME, log=messages.append) == bundle
    assert (bundle / ONNX_FILE).stat().st_mtime_ns == modified
    assert len(messages) == 1
    assert files_in(models) == [NAME]


@pytest.mark.parametrize("version", ["FRONT_END_VERSION", "FORMAT_VERSION", "BUILD_VERSION", "THRESHOLD"])
def test_tagger_is_built_again_if_a_version_or_setting_changes(models, monkeypatch, version):
    bundle = tagger_folder(NAME)
    (bundle / "old").touch()
    monkeypatch.setattr(pretrained, version, 0.125)
    tagger_folder(NAME)
    assert not (bundle / "old").exists()
    (bundle / "old").touch()
    tagger_folder(NAME)
    assert (bundle / "old").exists()


def test_tagger_is_built_again_if_its_graph_changes(models, monkeypatch):
    probabilities, _, logits = outputs_of(tagger_folder(NAME))
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)
    model = onnx.load_from_string(published_graph(PUBLISHED[NAME].backbone))
    [node] = [node for node in model.graph.node if "probabilities" in node.output]
    assert node.op_type == "Sigmoid"
    node.op_type = "Tanh"
    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "published_graph", lambda _: model.SerializeToString())
        np.testing.assert_allclose(outputs_of(tagger_folder(NAME))[0], np.tanh(logits), atol=1e-6)
    np.testing.assert_array_equal(outputs_of(tagger_folder(NAME))[0], probabilities)


@pytest.mark.parametrize("damage", ["no network", "no info", "damaged info", "no folder", "another format"])
def test_damaged_bundle_is_built_again(models, damage):
    bundle = tagger_folder(NAME)
    expected = outputs_of(bundle)[0]
    if damage == "no folder":
        shutil.rmtree(bundle)
    elif damage == "another format":
        values = json.loads((bundle / INFO_FILE).read_text(encoding="utf-8"))
        (bundle / INFO_FILE).write_text(json.dumps(values | {"format_version": 0}), encoding="utf-8")
    elif damage == "damaged info":
        (bundle / INFO_FILE).write_text("{", encoding="utf-8")
    else:
        (bundle / (ONNX_FILE if damage == "no network" else INFO_FILE)).unlink()
    assert np.array_equal(outputs_of(tagger_folder(NAME))[0], expected)


def test_leftovers_of_a_killed_process_do_no_harm(models):
    (models / f".{NAME}").mkdir(parents=True)
    (models / f".{NAME}" / ONNX_FILE).write_bytes(b"incomplete")
    outputs_of(tagger_folder(NAME))
    assert files_in(models) == [NAME]


@pytest.mark.parametrize("step", ["_write_network", "write_info", "render_card"])
def test_failed_build_leaves_nothing_behind(models, monkeypatch, step):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained, step, fail)
    message = f"{NAME}: cannot write the tagger: No space left on device; set SPECTAG_CACHE to a writable folder"
    with pytest.raises(BundleError, match=message):
        tagger_folder(NAME)
    assert files_in(models) == []
    monkeypatch.undo()


def test_two_processes_can_build_at_the_same_time(models, weights):
    command = [sys.executable, "-m", "spectag", "models", "download", NAME]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert [(out, status) for out, _, status in results] == [(f"{models / NAME}\n", 0)] * 2, results
    assert sum(": built from " in err for _, err, _ in results) == 1
    assert files_in(models) == [NAME]


def test_waiting_for_another_process_is_logged(models):
    models.mkdir(parents=True)
    messages, is_logged = [], threading.Event()

    def log(line):
        messages.append(line)
        is_logged.set()

    with FileLock(models / f".{NAME}.lock"):
        waiting = threading.Thread(target=tagger_folder, args=(NAME,), kwargs={"log": log})
        waiting.start()
        assert is_logged.wait(30)
        assert messages == [f"waiting for another process that prepares {NAME}"]
    waiting.join()
    assert files_in(models) == [NAME]


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("audioset-mn4", r"; did you mean 'audioset-mn04'\?"),
        ("mn40", r"; did you mean 'audioset-mn40'\?"),
        ("AudioSet_MN10", r"; did you mean 'audioset-mn10'\?"),
        ("audioset", r"; did you mean 'audioset-mn04'\?"),
        ("audiosett-mn", r"; did you mean 'audioset-mn04'\?"),
        ("audioset-m05", r"audioset-m05: not a tagger: no such folder; did you mean 'audioset-mn05'\? Give a"),
        (
            "model",
            r"^model: not a tagger: no such folder\. Give a folder that `spectag train -o` wrote, hf:user/name, or one",
        ),
        ("models/audioset-mn05", "not a tagger: no such folder.*one of audioset-mn04, audioset-mn05, "),
    ],
)
def test_unknown_name_is_an_error_that_suggests_the_closest_and_lists_all(models, name, message):
    with pytest.raises(BundleError, match=message):
        load(name)


def test_model_nearby_is_suggested_for_a_misspelt_folder(tmp_path):
    for name in ("bird-model", "runs/2024", "runs/2025"):
        make_bundle(tmp_path / name)
    with pytest.raises(BundleError, match=rf"did you mean '{re.escape(str(tmp_path / 'bird-model'))}'\?"):
        load(tmp_path / "brid-model")
    with pytest.raises(BundleError, match=rf"this folder has one; did you mean '{tmp_path}/runs/2024'\?"):
        load(tmp_path / "runs")
    with pytest.raises(BundleError, match=r"no such folder\. Give a folder"):
        load(tmp_path / "owls")


@pytest.mark.parametrize("command", ["tag", "evaluate", "suggest", "review", "explain", "check"])
def test_swapped_arguments_are_named(tmp_path, run, command):
    model = make_bundle(tmp_path / "model")
    (tmp_path / "sounds").mkdir()
    output = ("-o", tmp_path / "out.png") if command in ("explain", "check") else ()
    done = run(command, tmp_path / "sounds", model, *output)
    assert done.status == 1
    expected = f"{tmp_path / 'sounds'} is not a model, but {model} is: the model comes first, as in spectag {command}"
    assert f"{expected} {model} {tmp_path / 'sounds'}" in done.err


@pytest.mark.parametrize(
    ("command", "remedy"),
    [("clips", "leave it out"), ("write-tags", "leave it out"), ("summary", "give it as --model audioset-mn04")],
)
def test_model_before_a_table_of_detections_is_named(run, command, remedy):
    done = run(command, "audioset-mn04", "tags.csv", "-o", "out")
    assert done.status == 2
    assert f"audioset-mn04 is a model, and spectag {command} has no argument for it: {remedy}" in done.err
    assert "is a model" not in run(command, "other.csv", "tags.csv", "-o", "out").err


def test_only_published_taggers_can_be_downloaded(models, tmp_path):
    make_bundle(tmp_path / "own")
    assert check_published_name(NAME) == NAME
    with pytest.raises(
        ConfigError, match=r"no published tagger has the name 'own'\. The published taggers are audioset-mn04, "
    ):
        fetch("own")


def test_unavailable_weights_are_an_error_with_alternatives(models, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(pretrained, "find_weights", lambda *args, **options: _fail(options["alternatives"]))
    with pytest.raises(WeightsError, match="on a machine with a connection"):
        tagger_folder(NAME)
    assert files_in(models) == []


def _fail(message):
    raise WeightsError(message)


def save_weights(folder, network=None, change=lambda tensors: tensors):
    torch.save(change((network or MobileNet(0.5)).state_dict()), folder / FILE_NAME)


def without(tensors, name):
    return {key: values for key, values in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: without(tensors, "features.0.0.weight"), "features.0.0.weight"),
        (lambda tensors: tensors | {"more": torch.zeros(1)}, "more"),
        (lambda tensors: tensors | {"classifier.5.bias": torch.zeros(10)}, "dimensions do not match"),
        (lambda tensors: tensors | {"classifier.5.bias": torch.zeros(527, dtype=torch.float64)}, "DoubleStorage"),
        (lambda tensors: tensors | {"features.0.0.weight": tensors["features.0.0.weight"] * math.nan}, "not finite"),
        (lambda tensors: {}, ".+"),
    ],
    ids=["one too few", "one too many", "another shape", "another type", "not finite", "none"],
)
def test_wrong_weights_are_an_error_and_nothing_is_built(models, network, tmp_path, monkeypatch, change, reason):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    save_weights(tmp_path, network, change)
    message = rf"{FILE_NAME}: not the published weights of {NAME}: .*{reason}.*; delete the file and download it again$"
    with pytest.raises(WeightsError, match=message) as error:
        tagger_folder(NAME)
    assert "\n" not in str(error.value)
    assert files_in(models) == []


def test_file_without_weights_is_an_error(models, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    (tmp_path / FILE_NAME).write_bytes(b"<html>not found</html>")
    with pytest.raises(WeightsError, match=f"{FILE_NAME}: not the published weights of {NAME}: not a state dict"):
        tagger_folder(NAME)


def test_unwritable_cache_is_an_error_if_there_is_no_other_folder(tmp_path, monkeypatch, models):
    models.parent.write_text("in the way")
    monkeypatch.setattr("spectag.system.cache._temporary_folder", lambda: None)
    with pytest.raises(BundleError, match=r"audioset-mn05: cannot write the tagger: .*; set SPECTAG_CACHE to"):
        tagger_folder(NAME)


def test_failed_writing_is_not_an_error_of_the_weights(models, weights):
    with pytest.raises(OSError, match=r"onnxruntime cannot write model\.onnx: "):
        pretrained._write_network(models / "gone" / ONNX_FILE, PUBLISHED[NAME], weights / FILE_NAME)


# ------------------------------------------------------------------------------------------------ list


def test_list_shows_what_is_available(models):
    def states():
        return {tagger.name: (tagger.state, tagger.path) for tagger in published_taggers()}

    before = states()
    assert list(before) == list(PUBLISHED)
    assert before[NAME][0] == "downloaded"
    assert before[NAME][1].name == FILE_NAME
    assert before["audioset-mn40"] == ("not downloaded", None)
    tagger_folder(NAME)
    assert states() == before | {NAME: ("ready", models / NAME)}


def test_listed_scores_are_those_in_the_file_names():
    sources = {tagger.name: BACKBONES[tagger.backbone].weights for tagger in PUBLISHED.values()}
    without = {name for name, source in sources.items() if "_mAP_" not in source.file_name}
    assert without == {"audioset-dymn04", "audioset-dymn10"}
    for name in PUBLISHED.keys() - without:
        score = round(1000 * PUBLISHED[name].mean_average_precision)
        assert sources[name].file_name.endswith(f"_mAP_{score}.pt")


def test_labels_are_those_of_audioset(models):
    labels = audioset_labels()
    assert len(set(labels)) == len(labels) == 527
    assert (labels[0], labels[1], labels[-1]) == ("Speech", "Male speech, man speaking", "Field recording")


# ------------------------------------------------------------------------------------------------ mn04


@pytest.fixture
def mn04(models, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(SHARED / "weights"))
    return load("audioset-mn04")


@needs_mn04
def test_labels_have_the_published_order():
    table = np.loadtxt(SHARED / "weights" / "audioset_class_labels_indices.csv", str, delimiter=",", quotechar='"')
    assert tuple(table[1:, 2]) == audioset_labels()
    assert table[1:, 0].tolist() == [f"{i}" for i in range(527)]


@needs_mn04
def test_size_of_mn04_is_that_of_the_published_file():
    source = BACKBONES["mn04_audioset"].weights
    assert (SHARED / "weights" / source.file_name).stat().st_size == source.n_bytes


@needs_mn04
@needs_reference
def test_mn04_gives_the_published_probabilities_of_a_waveform(mn04):
    reference = np.load(SHARED / "reference" / "mn04.npz")
    found = mn04.probabilities(reference["waveform"], 32_000)
    np.testing.assert_allclose(found, reference["probabilities_of_waveform"], atol=1e-4)


@needs_mn04
@needs_reference
@needs_esc10
def test_mn04_gives_the_published_probabilities_of_real_clips(mn04):
    reference = np.load(SHARED / "reference" / "mn04.npz")
    for name, expected in zip(reference["clips"][::4], reference["probabilities_of_clips"][::4], strict=True):
        waveform, sample_rate = read_audio(ESC10 / name)
        found = mn04.probabilities(resample(waveform, sample_rate, 32_000), 32_000)
        np.testing.assert_allclose(found, expected, atol=2e-3, err_msg=name)


@needs_mn04
@needs_esc10
def test_rooster_is_detected(mn04):
    tags = mn04.tag(next((ESC10 / "009 - Rooster").glob("*")))
    assert "Crowing, cock-a-doodle-doo" in [tag.label for tag in tags.above_threshold()[:3]]
