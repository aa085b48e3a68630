"""ONNX graphs of the published AudioSet networks without their weights, which are part of the package.

With such a graph and the published weights, a model runs without torch: see `spectag.models.pretrained`. After a change
of a network, run `python -m spectag.training.networks.published_graphs src/spectag/models/audioset`.
"""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from onnxscript import optimizer
from torch import Tensor, nn

from spectag.config.backbones import AUDIOSET_MEL, PUBLISHED
from spectag.training.networks.backbones.mobilenet import MobileNetBackbone
from spectag.training.networks.network import FeatureExtractor
from spectag.training.networks.onnx_export import OUTPUTS, PRODUCER, Dynamic, strip_notes, trace

_NETWORK = "extractor.backbone.network."  # prefix of the published names of the weights
_N_FRAMES = 500  # 5 s; the number does not matter


class PublishedNetwork(nn.Module):
    """Inputs (batch, 1, n_mels, n_frames) to probabilities, features and logits, as in a bundle."""

    def __init__(self, backbone: MobileNetBackbone) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(backbone, "all")
        self.classify: Callable[[Tensor], Tensor] = backbone.network.classifier[-1].forward

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        groups = self.extractor.groups(inputs)
        logits = self.classify(groups[-1])  # the last group is the embedding
        return torch.sigmoid(logits), torch.cat(groups, dim=1), logits


def graph_without_weights(width: float) -> onnx.ModelProto:
    """The graph of the published network of this width.

    Its weights are external initializers with the names of the published state dict: only their shapes are stored.
    """
    network = PublishedNetwork(MobileNetBackbone(width)).eval()
    example = torch.zeros(2, 1, AUDIOSET_MEL.n_mels, _N_FRAMES)
    model = trace(network, example, "inputs", list(OUTPUTS), {0: Dynamic, 3: Dynamic}, optimize=False)
    weights = {initializer.name: initializer for initializer in model.graph.initializer if _is_weight(initializer)}
    model = _simplified(model, weights)
    for name, weight in weights.items():
        model.graph.initializer.append(_without_values(weight, name.removeprefix(_NETWORK)))
    for node in model.graph.node:
        node.input[:] = [name.removeprefix(_NETWORK) for name in node.input]
    strip_notes(model)
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = PRODUCER, ""
    return model


def _is_weight(initializer: onnx.TensorProto) -> bool:
    return initializer.name.startswith(_NETWORK)


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
    """Write the graphs of all published networks."""
    for model in PUBLISHED.values():
        width = int(model.backbone.removeprefix("mn")[:2]) / 10
        content = graph_without_weights(width).SerializeToString(deterministic=True)
        (folder / f"{model.backbone}.onnx.gz").write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    write_graphs(Path(sys.argv[1]))
