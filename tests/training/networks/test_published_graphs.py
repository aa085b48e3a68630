"""The graphs in the package are those of the current networks."""

import numpy as np
import pytest
import torch

from spectag.models.published_graph import open_with_weights, published_graph
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.published_graphs import graph_without_weights


@pytest.fixture(scope="module", params=["mn05_audioset", "dymn04_audioset"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def traced(name):
    return graph_without_weights(name).SerializeToString()  # takes seconds, or a minute for DyMN


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 128, 1), (3, 1, 128, 201)])
def test_new_graph_packaged_graph_and_torch_give_the_same_probabilities(traced, name, shape, rng):
    torch.manual_seed(0)
    network = build_backbone(name, pretrained=False).network
    tensors = {key: values.numpy() for key, values in network.state_dict().items() if values.ndim}
    inputs = rng.normal(size=shape).astype(np.float32)
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(inputs))).numpy()
    for graph in (traced, published_graph(name)):
        found = open_with_weights(graph, tensors).run(["probabilities"], {"inputs": inputs})[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)
