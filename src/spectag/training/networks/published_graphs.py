"""Write the ONNX graphs of published networks without their weights, which are part of the package.

With such a graph and the published weights, a model is trained and runs without torch: see
`spectag.training.networks.published_network`. After a change of a network, run
`python -m spectag.training.networks.published_graphs src/spectag/models/graphs`, which takes minutes.
"""

import gzip
import sys
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from onnxscript import optimizer
from torch import Tensor, nn

from spectag.config.backbones import BACKBONES, PUBLISHED
from spectag.training.networks.backbones.base import Backbone
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import FeatureExtractor
from spectag.training.networks.onnx_composition import OUTPUTS, PRODUCER, strip_notes
from spectag.training.networks.onnx_export import Dynamic, trace
from spectag.training.networks.published_network import EXTRACTOR, NAMES, NETWORK

_PREFIX = EXTRACTOR + NETWORK
_N_FRAMES = 500  # 5 s; the number does not matter
_IMAGE_NETWORK = "efficientnet_lite0"  # takes images of any height, in grey or in colours


class _Outputs(nn.Module):
    """Inputs (batch, channels, height, width) to features; of a tagger, to probabilities, features and logits."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(backbone, "all")

    def forward(self, inputs: Tensor) -> Any:
        groups = self.extractor.groups(inputs)
        features, classifier = torch.cat(groups, dim=1), self.extractor.backbone.classifier()
        if classifier is None:
            return features
        logits = classifier.forward(groups[-1])  # the last group is the embedding
        return torch.sigmoid(logits), features, logits


def graph_without_weights(name: str) -> onnx.ModelProto:
    """The graph of a published network.

    Its weights are external initializers with the names of the published state dict: only their shapes are stored. The
    weights of EfficientNet-Lite0 have the names of timm's network, which are listed in the order of the published file.
    """
    network, is_image_network = _Outputs(build_backbone(name, pretrained=False)).eval(), name == _IMAGE_NETWORK
    axes = {0: Dynamic, 2: Dynamic, 3: Dynamic} if is_image_network else {0: Dynamic, 3: Dynamic}
    example = torch.zeros(2, 1, BACKBONES[name].mel.n_mels, _N_FRAMES)
    names = ["features"] if is_image_network else list(OUTPUTS)
    model = trace(network, example, "inputs", names, axes, optimize=False)
    weights = {initializer.name: initializer for initializer in model.graph.initializer if _is_weight(initializer)}
    model = _simplified(model, weights)
    for weight_name, weight in weights.items():
        model.graph.initializer.append(_without_values(weight, weight_name.removeprefix(_PREFIX)))
    for node in model.graph.node:
        node.input[:] = [value.removeprefix(_PREFIX) for value in node.input]
    strip_notes(model)
    if is_image_network:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
        model.metadata_props.add(key=NAMES, value=" ".join(network.extractor.backbone.network.state_dict()))
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = PRODUCER, ""
    return model


def _is_weight(initializer: onnx.TensorProto) -> bool:
    return initializer.name.startswith(_PREFIX)


def _simplified(model: onnx.ModelProto, weights: dict[str, onnx.TensorProto]) -> onnx.ModelProto:
    """The graph without its weights, and with everything that does not depend on them folded."""
    own_inputs = list(model.graph.input)
    others = [initializer for initializer in model.graph.initializer if not _is_weight(initializer)]
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    for name, weight in weights.items():  # as inputs, so that the optimizer does not fold them
        model.graph.input.append(helper.make_tensor_value_info(name, weight.data_type, list(weight.dims)))
    simplified: onnx.ModelProto = optimizer.optimize(model)
    del simplified.graph.input[:]
    simplified.graph.input.extend(own_inputs)
    return simplified


def _without_values(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    empty = TensorProto(name=name, data_type=weight.data_type, dims=weight.dims, data_location=TensorProto.EXTERNAL)
    location: dict[str, Any] = {"location": "weights", "offset": 0, "length": len(weight.raw_data)}
    for key, value in location.items():
        empty.external_data.add(key=key, value=str(value))
    return empty


def write_graphs(folder: Path) -> None:
    """Write the graphs of all published networks. Networks that differ only by their hop have the same."""
    names = dict.fromkeys(BACKBONES[model.backbone].graph for model in PUBLISHED.values())
    for name in (*names, _IMAGE_NETWORK):
        content = graph_without_weights(name).SerializeToString(deterministic=True)
        (folder / f"{name}.onnx.gz").write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    write_graphs(Path(sys.argv[1]))
