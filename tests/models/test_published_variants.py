"""Published models other than the first six: with weights of the right shapes they tag and train, without PyTorch."""

import numpy as np
import pytest
import torch

from helpers.command import run_without, write_manifest
from helpers.filled_weights import fill_weights
from spectag.audio.mel import compute_log_mel, n_frames
from spectag.config.backbones import BACKBONES, PUBLISHED
from spectag.errors import WeightsError
from spectag.models.bundle import ONNX_FILE, read_info
from spectag.models.network_session import open_session
from spectag.models.onnx_file import check_onnx_file
from spectag.models.pretrained import load, tagger_folder
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.backbones.mobilenet import MobileNet
from spectag.training.networks.network import FeatureExtractor
from spectag.training.networks.published_network import PublishedNetwork

NAMES = ("audioset-dymn04", "audioset-mn10-hop25", "audioset-mn10-mels40")


@pytest.fixture(scope="module")
def backbones():
    """Networks in PyTorch by the names of their models."""
    names = {name: PUBLISHED[name].backbone for name in NAMES}
    backbones = {name: build_backbone(backbone, pretrained=False) for name, backbone in names.items()}
    for backbone in backbones.values():
        fill_weights(backbone.network)
    return backbones


@pytest.fixture(scope="module")
def weights(backbones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name, backbone in backbones.items():
        file_name = BACKBONES[PUBLISHED[name].backbone].weights.file_name
        torch.save(backbone.network.state_dict(), folder / file_name)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def places(monkeypatch, cache, weights):
    """One cache for all tests of the module: a model is built once."""
    monkeypatch.setenv("SPECTAG_CACHE", str(cache))
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(weights))


@pytest.mark.parametrize("width", [1, 40, 201])
@pytest.mark.parametrize("name", NAMES)
def test_model_has_the_outputs_of_the_torch_network_at_any_clip_length(name, width, backbones, rng):
    n_mels = BACKBONES[PUBLISHED[name].backbone].mel.n_mels
    inputs = rng.normal(0, 0.5, (3, 1, n_mels, width)).astype(np.float32)
    path = tagger_folder(name) / ONNX_FILE
    check_onnx_file(path)
    features, logits = open_session(path, n_threads=1).run(["features", "logits"], {"inputs": inputs})
    with torch.inference_mode():
        expected = FeatureExtractor(backbones[name], "all").eval()(torch.from_numpy(inputs))
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(logits, backbones[name].network(torch.from_numpy(inputs)), atol=1e-4)


@pytest.mark.parametrize("kind", ["all", "last"])
@pytest.mark.parametrize("name", NAMES)
def test_features_for_a_head_are_those_of_torch(name, kind, backbones, tmp_path, rng):
    backbone = PUBLISHED[name].backbone
    network, extractor = PublishedNetwork(backbone, kind), FeatureExtractor(backbones[name], kind).eval()
    inputs = rng.normal(0, 0.5, (3, 1, BACKBONES[backbone].mel.n_mels, 77)).astype(np.float32)
    network.write_onnx(tmp_path / "features.onnx", inputs[0], network.weights)
    [features] = open_session(tmp_path / "features.onnx", n_threads=1).run(["features"], {"inputs": inputs})
    with torch.inference_mode():
        groups = extractor.groups(torch.from_numpy(inputs))
    np.testing.assert_allclose(features, torch.cat(groups, dim=1), rtol=1e-4, atol=1e-4)
    assert network.group_sizes(inputs[0]) == [group.shape[1] for group in groups]
    assert set(network.weights) == set(extractor.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_tagger_computes_the_spectrogram_of_its_network(name, backbones, rng):
    tagger, mel = load(name), BACKBONES[PUBLISHED[name].backbone].mel
    waveform = (0.1 * rng.normal(size=2 * mel.sample_rate)).astype(np.float32)
    log_mel = compute_log_mel(waveform, mel)
    assert log_mel.shape == (mel.n_mels, n_frames(len(waveform), mel))
    with torch.inference_mode():
        expected = torch.sigmoid(backbones[name].network(torch.from_numpy(log_mel[None, None])))[0]
    np.testing.assert_allclose(tagger.probabilities(waveform, mel.sample_rate), expected, atol=1e-4)


def test_each_family_cites_its_paper():
    assert "TASLP 2024" in read_info(tagger_folder("audioset-dymn04")).metrics["source"]
    assert "ICASSP 2023" in read_info(tagger_folder("audioset-mn10-hop25")).metrics["source"]


@pytest.mark.parametrize("name", ["audioset-dymn04", "audioset-mn10-hop25"])
def test_weights_of_another_network_are_refused_in_one_line(name, tmp_path, monkeypatch):
    backbone = PUBLISHED[name].backbone
    file_name = BACKBONES[backbone].weights.file_name
    torch.save(MobileNet(0.4).state_dict(), tmp_path / file_name)
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    for open_network in (lambda: tagger_folder(name), lambda: PublishedNetwork(backbone, "all")):
        with pytest.raises(WeightsError, match=rf"{file_name}: not the published weights of .*download it") as caught:
            open_network()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["audioset-dymn04", pytest.param("audioset-mn10-mels40", marks=pytest.mark.slow)])
def test_head_is_trained_and_tags_without_torch(name, tmp_path):
    manifest, model = write_manifest(tmp_path / "sounds", n_clips=12), tmp_path / "model"
    options = ("--backbone", PUBLISHED[name].backbone, "--folds", 2, "--workers", 1)
    done = run_without({"torch", "timm", "torchvision"}, "train", manifest, "-o", model, *options)
    assert done.status == 0, done.err
    info = read_info(model)
    assert info.front_end.mel == BACKBONES[PUBLISHED[name].backbone].mel
    [sound, *_] = sorted((tmp_path / "sounds").rglob("*.wav"))
    done = run_without({"torch", "timm", "torchvision"}, "tag", model, sound)
    assert done.status == 0, done.err
