"""ONNX graphs of PyTorch networks, made by PyTorch's exporter."""

import warnings
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

from spectag.training.networks.feature_network import Weights
from spectag.training.networks.network import FeatureExtractor
from spectag.training.networks.onnx_composition import strip_notes

Dynamic = torch.export.Dim.DYNAMIC


def trace_features(extractor: FeatureExtractor, example: Tensor) -> onnx.ModelProto:
    """The graph of an extractor: inputs (batch, channels, height, width) to features (batch, n_features).

    It is not optimized: each weight is an initializer with its name in the state dict. Tracing takes seconds, so one
    graph is used for all extractors of one architecture; see `with_weights`.

    Parameters
    ----------
    extractor : FeatureExtractor
    example : float tensor of shape (2, channels, height, width)
        Any input. The width is dynamic unless the network accepts only one size; the height is fixed.
    """
    extractor.eval()
    try:
        return trace(extractor, example, "inputs", ["features"], {0: Dynamic, 3: Dynamic}, optimize=False)
    except Exception:  # vision transformers accept only one width
        return trace(extractor, example, "inputs", ["features"], {0: Dynamic}, optimize=False)


def with_weights(graph: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """A traced graph with the weights of an extractor of the same architecture, optimized for speed."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    for initializer in model.graph.initializer:
        if initializer.name in weights:
            initializer.CopyFrom(numpy_helper.from_array(weights[initializer.name], initializer.name))
    optimized: onnx.ModelProto = optimizer.optimize(model)
    strip_notes(optimized)
    return optimized


def trace(
    network: nn.Module,
    example: Tensor,
    input_name: str,
    output_names: list[str],
    dynamic_axes: dict[int, Any],
    *,
    optimize: bool = True,
) -> onnx.ModelProto:
    """The graph of a network with one input, made by torch's exporter. `dynamic_axes` are axes of the input."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter warns about its own implementation
        program: Any = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[input_name],
            output_names=output_names,
            dynamic_shapes=(dynamic_axes,),
            optimize=optimize,
            verbose=False,
        )
    model: onnx.ModelProto = program.model_proto
    strip_notes(model)  # they contain addresses in memory, so no two files would be equal
    return model
