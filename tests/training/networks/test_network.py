"""Pooling and heads, compared with NumPy and torchvision."""

import numpy as np
import pytest
import torch
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from spectag.training.networks.backbones.base import Backbone, FeatureMaps
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import (
    FeatureExtractor,
    LayerNormHead,
    StandardizedLinear,
    TaggerNetwork,
    build_head,
)


class GivenMaps(Backbone):
    """A backbone that returns the given maps."""

    def __init__(self, stages, embedding=None):
        super().__init__()
        self.maps = FeatureMaps(tuple(map(torch.from_numpy, stages)), embedding)

    def feature_maps(self, inputs):
        return self.maps


@pytest.fixture
def stages(rng):
    """Two stages of two clips: (batch, channels, height, width)."""
    return [rng.normal(3, 2, (2, *shape)).astype(np.float32) for shape in [(4, 6, 5), (3, 2, 7)]]


def test_all_features_are_mean_and_deviation_of_each_stage_in_order(stages):
    features = FeatureExtractor(GivenMaps(stages), "all")(torch.zeros(2, 1, 1, 1)).numpy()
    pooled = [pool(stage, axis=(2, 3)) for stage in stages for pool in (np.mean, np.std)]
    np.testing.assert_allclose(features, np.concatenate(pooled, axis=1), rtol=1e-5)


def test_embedding_of_the_network_comes_last(stages):
    embedding = torch.arange(6.0).reshape(2, 3)
    groups = FeatureExtractor(GivenMaps(stages, embedding), "all").groups(torch.zeros(2, 1, 1, 1))
    assert [group.shape for group in groups] == [(2, 8), (2, 6), (2, 3)]
    torch.testing.assert_close(groups[-1], embedding)


def test_last_features_are_the_mean_of_the_last_stage(stages):
    extractor = FeatureExtractor(GivenMaps(stages, torch.ones(2, 3)), "last")
    np.testing.assert_allclose(extractor(torch.zeros(2, 1, 1, 1)), stages[-1].mean(axis=(2, 3)), rtol=1e-5)


def test_constant_map_has_almost_no_deviation_and_a_finite_gradient():
    maps = torch.full((1, 2, 3, 4), 0.5, requires_grad=True)
    backbone = GivenMaps([])
    backbone.maps = FeatureMaps((maps,))
    features = FeatureExtractor(backbone, "all")(torch.zeros(1, 1, 1, 1))
    features.sum().backward()
    torch.testing.assert_close(features, torch.tensor([[0.5, 0.5, 1e-5, 1e-5]]))
    torch.testing.assert_close(maps.grad, torch.full((1, 2, 3, 4), 1 / 12))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pooled_maps_on_a_cpu_equal_those_of_the_exporter_and_have_exact_gradients(rng, monkeypatch, memory_format):
    maps = torch.from_numpy(rng.normal(3, 2, (2, 3, 4, 5))).to(memory_format=memory_format).requires_grad_()
    backbone = GivenMaps([])

    def features(maps):
        backbone.maps = FeatureMaps((maps,))
        return FeatureExtractor(backbone, "all")(maps)

    assert torch.autograd.gradcheck(features, maps)
    on_cpu = features(maps)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    torch.testing.assert_close(on_cpu, features(maps))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mn04_audioset", (1, 128, 75)), ("efficientnet_lite0", (3, 64, 75)), ("scratch", (1, 40, 75))],
)
@pytest.mark.parametrize("kind", ["all", "last"])
def test_batch_of_three_equals_three_single_clips(rng, name, shape, kind):
    torch.manual_seed(0)
    extractor = FeatureExtractor(build_backbone(name, pretrained=False), kind).eval()
    inputs = torch.from_numpy(rng.random((3, *shape), np.float32))
    with torch.inference_mode():
        singles = torch.cat([extractor(single[None]) for single in inputs])
        torch.testing.assert_close(extractor(inputs), singles, rtol=1e-4, atol=1e-5)


def test_linear_head_standardises_features_first(rng):
    features = rng.normal(5, 3, (7, 4)).astype(np.float32)
    head = StandardizedLinear(4, 2)
    head.center.copy_(torch.from_numpy(features.mean(axis=0)))
    head.scale.copy_(torch.from_numpy(1 / features.std(axis=0)))
    weight, bias = (values.detach().numpy() for values in (head.linear.weight, head.linear.bias))
    standardized = (features - features.mean(axis=0)) / features.std(axis=0)
    logits = head(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(logits, standardized @ weight.T + bias, rtol=1e-4, atol=1e-5)
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]


def test_layer_norm_head_is_torchvisions_classifier_of_convnext(rng):
    torchvisions = ConvNeXt([CNBlockConfig(24, None, 2)], num_classes=5).classifier
    head = build_head("layer_norm", 24, 5)
    assert isinstance(head, LayerNormHead)
    for own, theirs in zip(head.parameters(), torchvisions.parameters(), strict=True):
        own.data.copy_(theirs.data + 0.1 * torch.randn_like(theirs))
        theirs.data.copy_(own.data)
    pooled = torch.from_numpy(rng.normal(2, 3, (6, 24, 1, 1)).astype(np.float32))
    torch.testing.assert_close(head(pooled[:, :, 0, 0]), torchvisions(pooled), rtol=0, atol=0)


def test_network_is_its_head_on_its_features(stages):
    extractor = FeatureExtractor(GivenMaps(stages), "all")
    head = build_head("linear", 14, 3)
    inputs = torch.zeros(2, 1, 1, 1)
    torch.testing.assert_close(TaggerNetwork(extractor, head)(inputs), head(extractor(inputs)))
