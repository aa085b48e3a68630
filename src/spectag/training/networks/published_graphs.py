"""The graphs of the published taggers without their weights, as they lie in the package.

Such a graph and a published file make a tagger without torch: see `spectag.models.pretrained`. When a network changes,
`python -m spectag.training.networks.published_graphs src/spectag/audioset` writes the graphs anew.
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
from spectag.training.networks.onnx_export import OUTPUTS, PRODUCER, Dynamic, trace

_NETWORK = "extractor.backbone.network."  # before the published names of the weights
_N_FRAMES = 500  # 5 s; any other number is as good


class PublishedNetwork(nn.Module):
    """Inputs (batch, 1, n_mels, n_frames) to the probabilities, features and logits that a bundle gives."""

    def __init__(self, backbone: MobileNetBackbone) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(backbone, "all")
        self.classify: Callable[[Tensor], Tensor] = backbone.network.classifier[-1].forward

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        groups = self.extractor.groups(inputs)
        logits = self.classify(groups[-1])  # the last group is the embedding
        return torch.sigmoid(logits), torch.cat(groups, dim=1), logits


def weightless_graph(width: float) -> onnx.ModelProto:
    """The graph of a published network of this width.

    Its weights are initializers by their names in the published state dict, of which there is nothing but the shape:
    onnxruntime takes them as external initializers.
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
    _strip(model)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Take off the exporter's notes, such as where in the source code each node comes from: paths of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    model.producer_name, model.producer_version = PRODUCER, ""


def _is_weight(initializer: onnx.TensorProto) -> bool:
    return initializer.name.startswith(_NETWORK)


def _simplified(model: onnx.ModelProto, weights: dict[str, onnx.TensorProto]) -> onnx.ModelProto:
    """The graph with all folded that does not depend on the weights; they are no longer in it."""
    own_inputs = list(model.graph.input)
    others = [initializer for initializer in model.graph.initializer if not _is_weight(initializer)]
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    for name, weight in weights.items():  # as inputs they are unknown to the optimizer
        model.graph.input.append(helper.make_tensor_value_info(name, weight.data_type, list(weight.dims)))
    simplified: onnx.ModelProto = optimizer.optimize(model)
    del simplified.graph.input[:]
    simplified.graph.input.extend(own_inputs)
    return simplified


def _without_values(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    empty = TensorProto(name=name, data_type=weight.data_type, dims=weight.dims, data_location=TensorProto.EXTERNAL)
    place: dict[str, Any] = {"location": "weights", "offset": 0, "length": len(weight.raw_data)}
    for key, value in place.items():
        empty.external_data.add(key=key, value=str(value))
    return empty


def write_graphs(folder: Path) -> None:
    """Write the graphs of all published taggers."""
    for tagger in PUBLISHED.values():
        width = int(tagger.backbone.removeprefix("mn")[:2]) / 10
        content = weightless_graph(width).SerializeToString(deterministic=True)
        (folder / f"{tagger.backbone}.onnx.gz").write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    write_graphs(Path(sys.argv[1]))
