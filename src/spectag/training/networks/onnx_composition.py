"""The ONNX file of a whole network: a features graph, the nodes of a head, windows, calibration and novelty."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spectag.models.clip_windows import FrameWindows
from spectag.models.novelty import SMALLEST_NORM, NoveltyModel
from spectag.models.onnx_calibration import with_calibration
from spectag.scoring.calibration import Calibration
from spectag.training.heads.head_weights import LAYER_NORM_EPSILON, HeadWeights
from spectag.training.networks.onnx_windows import loop_over_windows

PRODUCER = "spectag"
OUTPUTS = ("probabilities", "features", "logits")
_HEAD, _NOVELTY = "head", "novelty"
"""Prefixes of the nodes. Novelty is a fourth output."""


def write_network(
    features: onnx.ModelProto,
    head: HeadWeights,
    path: Path,
    *,
    windows: FrameWindows | None = None,
    calibration: Calibration | None = None,
    novelty: NoveltyModel | None = None,
) -> None:
    """Write an ONNX file of a features graph and a head: `inputs` to `probabilities`, `features` and `logits`.

    With a novelty model, `novelty` (batch,) is a fourth output. With windows, the logits contain their maximum.

    Parameters
    ----------
    features : onnx.ModelProto
        `inputs` (batch, channels, height, width) to `features` (batch, n_features).
    head : HeadWeights
    path : Path
    windows, calibration, novelty
        Without them, none.
    """
    network = _with_head(features, head)
    if windows is not None:
        network = loop_over_windows(network, windows)
    if novelty is not None:
        _add_novelty(network.graph, novelty, head.weight.shape[1])
    network = with_calibration(network, calibration)
    strip_notes(network)
    onnx.save(network, path)


def _with_head(features: onnx.ModelProto, head: HeadWeights) -> onnx.ModelProto:
    """A copy of a features graph with the nodes of a head, and named axes."""
    model = onnx.ModelProto()
    model.CopyFrom(features)
    model.producer_name, model.producer_version = PRODUCER, ""
    opset = next(opset.version for opset in model.opset_import if opset.domain == "")
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    del model.graph.value_info[:]
    shape = model.graph.input[0].type.tensor_type.shape
    if not shape.dim[0].HasField("dim_value"):  # some networks take only one sound at once
        shape.dim[0].dim_param = "batch"
    if not shape.dim[3].HasField("dim_value"):
        shape.dim[3].dim_param = "width"
    _add_head(model.graph, head)
    n_labels, n_features = head.weight.shape
    sizes = {"probabilities": n_labels, "features": n_features, "logits": n_labels}
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", sizes[name]]) for name in OUTPUTS
    )
    return model


def _add_head(graph: onnx.GraphProto, head: HeadWeights) -> None:
    """Add the nodes from `features` to `logits` and `probabilities`, as `HeadWeights.logits` computes them."""
    constants = {"weight": head.weight, "bias": head.bias}
    if head.kind == "linear":
        constants |= {name: head.arrays[name] for name in ("center", "scale")}
        _add_node(graph, _HEAD, "Sub", "features", "center", "centred")
        _add_node(graph, _HEAD, "Mul", "centred", "scale", "normalised")
    else:
        constants |= {"scale": head.arrays["layers.0.weight"], "offset": head.arrays["layers.0.bias"]}
        settings = {"axis": 1, "epsilon": LAYER_NORM_EPSILON}
        _add_node(graph, _HEAD, "LayerNormalization", "features", "scale", "offset", "normalised", **settings)
    _add_node(graph, _HEAD, "Gemm", "normalised", "weight", "bias", "logits", transB=1)
    _add_node(graph, _HEAD, "Sigmoid", "logits", "probabilities")
    _add_constants(graph, _HEAD, constants)


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
    keeps: dict[str, dict[str, Any]] = {"ReduceL2": {"keepdims": 1}, "ReduceMax": {"keepdims": 0}}
    for kind, *names in steps:
        _add_node(graph, _NOVELTY, kind, *names, **keeps.get(kind, {}))
    _add_constants(graph, _NOVELTY, constants)
    graph.output.append(helper.make_tensor_value_info(_NOVELTY, TensorProto.FLOAT, ["batch"]))


def _add_node(graph: onnx.GraphProto, prefix: str, kind: str, *names: str, **attributes: Any) -> None:
    """Add a node whose output is the last of these names. Names that are not those of outputs get the prefix."""
    prefixed = [name if name in (*OUTPUTS, _NOVELTY) else f"{prefix}/{name}" for name in names]
    graph.node.append(
        helper.make_node(kind, prefixed[:-1], prefixed[-1:], f"{prefix}/{kind}_{names[-1]}", **attributes)
    )


def _add_constants(graph: onnx.GraphProto, prefix: str, constants: dict[str, NDArray[Any]]) -> None:
    for name, values in constants.items():
        values = values if values.dtype == np.int64 else values.astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, f"{prefix}/{name}"))


def strip_notes(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, for example source code paths of this machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
