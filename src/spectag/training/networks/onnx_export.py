"""ONNX files of a feature extractor and of a whole network."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

from spectag.models.clip_windows import FrameWindows
from spectag.models.novelty import SMALLEST_NORM, NoveltyModel
from spectag.models.onnx_calibration import with_calibration
from spectag.scoring.calibration import Calibration
from spectag.training.networks.network import FeatureExtractor
from spectag.training.networks.onnx_windows import loop_over_windows

Dynamic = torch.export.Dim.DYNAMIC
PRODUCER = "spectag"
OUTPUTS = ("probabilities", "features", "logits")
_NOVELTY = "novelty"
"""A fourth output, and the prefix of its nodes."""


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


def with_weights(graph: onnx.ModelProto, extractor: FeatureExtractor) -> onnx.ModelProto:
    """A traced graph with the weights of an extractor of the same architecture, optimized for speed."""
    weights = extractor.state_dict()
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    for initializer in model.graph.initializer:
        if initializer.name in weights:
            values = weights[initializer.name].numpy()
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    optimized: onnx.ModelProto = optimizer.optimize(model)
    return optimized


def save_features(graph: onnx.ModelProto, extractor: FeatureExtractor, path: Path) -> None:
    """Write a traced graph with an extractor's weights: inputs (batch, channels, height, width) to features (batch, n).

    Parameters
    ----------
    graph : onnx.ModelProto
        By `trace_features`, of an extractor of the same architecture.
    extractor : FeatureExtractor
    path : Path
    """
    _save(with_weights(graph, extractor), path)


def export_network(
    features: onnx.ModelProto,
    head: nn.Module,
    n_features: int,
    path: Path,
    *,
    windows: FrameWindows | None = None,
    calibration: Calibration | None = None,
    novelty: NoveltyModel | None = None,
) -> None:
    """Write an ONNX file of a features graph and a head: inputs to `probabilities`, `features` and `logits`.

    With a novelty model, `novelty` (batch,) is a fourth output. With windows, the logits contain their maximum.
    """
    model = trace(
        _HeadOutputs(head).eval(), torch.zeros(2, n_features), "pooled", ["probabilities", "logits"], {0: Dynamic}
    )
    head_graph = compose.add_prefix(model, "head/", rename_inputs=False, rename_outputs=False)
    head_graph.ir_version = features.ir_version
    merged = compose.merge_models(
        features, head_graph, io_map=[("features", "pooled")], outputs=list(OUTPUTS), producer_name=PRODUCER
    )
    if windows is not None:
        merged = loop_over_windows(merged, windows)
    versions = {opset.domain: opset for opset in merged.opset_import}  # without duplicates, which some tools refuse
    del merged.opset_import[:]
    merged.opset_import.extend(versions.values())
    merged.graph.output.sort(key=lambda output: OUTPUTS.index(output.name))
    if novelty is not None:
        _add_novelty(merged.graph, novelty, n_features)
    _save(with_calibration(merged, calibration), path)


def _add_novelty(graph: onnx.GraphProto, novelty: NoveltyModel, n_features: int) -> None:
    """Add the nodes from `features` to `novelty`, as `NoveltyModel` computes it."""
    constants = {
        "first": np.array([n_features - len(novelty.center)]),
        "end": np.array([n_features]),
        "axis": np.array([1]),
        "center": novelty.center,
        "scale": novelty.scale,
        "smallest": np.array([SMALLEST_NORM]),
        "directions": novelty.directions,
        "combinations": novelty.combinations,
        "one": np.ones(1),
        "zero": np.zeros(1),
        "level": np.array([novelty.level]),
    }
    steps = (
        ("Slice", "features", "first", "end", "axis", "used"),
        ("Sub", "used", "center", "centred"),
        ("Mul", "centred", "scale", "scaled"),
        ("ReduceL2", "scaled", "axis", "length"),
        ("Max", "length", "smallest", "divisor"),
        ("Div", "scaled", "divisor", "unit"),
        ("MatMul", "unit", "directions", "of_labels"),
        ("MatMul", "of_labels", "combinations", "cosines"),
        ("ReduceMax", "cosines", "axis", "closest"),
        ("Sub", "one", "closest", "distance"),
        ("Max", "distance", "zero", "positive"),
        ("Div", "positive", "level", "novelty"),
    )
    for kind, *names in steps:
        prefixed = [name if name in ("features", _NOVELTY) else f"{_NOVELTY}/{name}" for name in names]
        keeps: dict[str, Any] = {"ReduceL2": {"keepdims": 1}, "ReduceMax": {"keepdims": 0}}.get(kind, {})
        graph.node.append(
            helper.make_node(kind, prefixed[:-1], prefixed[-1:], f"{_NOVELTY}/{kind}_{names[-1]}", **keeps)
        )
    for name, values in constants.items():
        values = values if values.dtype == np.int64 else values.astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, f"{_NOVELTY}/{name}"))
    batch = next(output for output in graph.output if output.name == "features").type.tensor_type.shape.dim[0]
    graph.output.append(helper.make_tensor_value_info(_NOVELTY, TensorProto.FLOAT, [batch.dim_param or "batch"]))


class _HeadOutputs(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.head(features)
        return torch.sigmoid(logits), logits


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


def strip_notes(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, for example source code paths of this machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


def _save(model: onnx.ModelProto, path: Path) -> None:
    strip_notes(model)
    onnx.save(model, path)
