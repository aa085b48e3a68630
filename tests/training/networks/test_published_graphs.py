"""The graphs in the package are those of the current networks."""

import numpy as np
import pytest
import torch

from helpers.filled_weights import fill_weights
from spectag.models.published_graph import open_with_weights, published_graph
from spectag.training.networks.backbones import dymn, mobilenet
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.published_graphs import graph_without_weights

SHAPES = [(1, 1, 128, 1), (3, 1, 128, 201)]


@pytest.fixture(params=["mn05_audioset", "dymn04_audioset"])
def name(request):
    return request.param


def check_probabilities(graph, network, rng):
    tensors = {key: values.numpy() for key, values in network.state_dict().items() if values.ndim}
    session = open_with_weights(graph, tensors)
    for shape in SHAPES:
        inputs = rng.normal(size=shape).astype(np.float32)
        with torch.inference_mode():
            expected = torch.sigmoid(network(torch.from_numpy(inputs))).numpy()
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(session.run(["probabilities"], {"inputs": inputs})[0], expected, atol=1e-5)


def test_packaged_graph_gives_the_probabilities_of_torch(name, rng):
    check_probabilities(published_graph(name), fill_weights(build_backbone(name, pretrained=False).network), rng)


@pytest.mark.slow
def test_new_graph_gives_the_probabilities_of_torch(name, monkeypatch, rng):
    """Of four blocks, which differ in all that blocks can differ in; tracing all of DyMN takes a minute."""
    blocks = tuple(mobilenet.MOBILENET_BLOCKS[number] for number in (0, 1, 2, 12))
    for module in (mobilenet, dymn):
        monkeypatch.setattr(module, "MOBILENET_BLOCKS", blocks)
    network = fill_weights(build_backbone(name, pretrained=False).network)
    check_probabilities(graph_without_weights(name).SerializeToString(), network, rng)
