"""Calibration in an ONNX file: nodes from its output `logits` to its output `probabilities`, and shifts of frames."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from spectag.array_types import Float32Array, FloatArray, IntArray
from spectag.errors import BundleError
from spectag.models.frames_info import FRAMES_OFFSET
from spectag.models.standalone.graph_builder import keep_nodes_for
from spectag.scoring.calibration import Calibration

PREFIX = "calibration/"

Constants = Mapping[str, Float32Array | IntArray]


def with_calibration(model: onnx.ModelProto, calibration: Calibration | None) -> onnx.ModelProto:
    """A copy of a network with calibrated probabilities, or with the plain sigmoid of its logits for None.

    The nodes from logits to probabilities are replaced; the other nodes and the weights do not change.

    Parameters
    ----------
    model : onnx.ModelProto
        With the outputs `logits` and `probabilities`, both (batch, n_labels).
    calibration : Calibration, optional

    Raises
    ------
    BundleError
        If it does not have these outputs, or another number of labels than the calibration.
    """
    outputs = {output.name: output for output in model.graph.output}
    if not {"logits", "probabilities"} <= outputs.keys():
        raise BundleError(
            f"the network has the outputs {', '.join(outputs)}, not logits and probabilities; train the tagger again"
        )
    if calibration is not None:
        n_logits = outputs["logits"].type.tensor_type.shape.dim[-1].dim_value  # 0 if unknown
        if n_logits not in (0, len(calibration.curves)):
            raise BundleError(f"the network has {n_logits} labels, but the calibration has {len(calibration.curves)}")
    calibrated = onnx.ModelProto()
    calibrated.CopyFrom(model)
    graph = calibrated.graph
    keep_nodes_for(graph, [name for name in outputs if name != "probabilities"])
    del graph.output[:]
    graph.output.extend(model.graph.output)
    nodes, constants = _nodes(calibration)
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(values, PREFIX + name) for name, values in constants.items())
    return calibrated


def with_shifted_frames(model: onnx.ModelProto, shift: FloatArray) -> onnx.ModelProto:
    """A copy of a network of frames whose logits are shifted, (n_labels,).

    Raises
    ------
    BundleError
        If its logits have no constant to which the shift can be added.
    """
    shifted = onnx.ModelProto()
    shifted.CopyFrom(model)
    offset = next((tensor for tensor in shifted.graph.initializer if tensor.name == FRAMES_OFFSET), None)
    if offset is None or list(offset.dims) != [1, len(shift), 1, 1]:
        raise BundleError(
            f"the network of frames has no {FRAMES_OFFSET} for {len(shift)} labels; train the tagger again"
        )
    values = numpy_helper.to_array(offset) + shift[None, :, None, None]
    offset.CopyFrom(numpy_helper.from_array(values.astype(np.float32), FRAMES_OFFSET))
    return shifted


def _nodes(calibration: Calibration | None) -> tuple[list[NodeProto], Constants]:
    """The nodes from logits to probabilities, and their constants."""
    if calibration is None:
        return [_node("Sigmoid", "logits", "probabilities")], {}
    pieces = calibration.pieces
    if not len(pieces.starts) and (pieces.slopes_below == pieces.slopes_above).all():  # the curves are lines
        return [
            _node("Mul", "logits", "scales", "scaled"),
            _node("Add", "scaled", "offsets", "calibrated"),
            _node("Sigmoid", "calibrated", "probabilities"),
        ], _as_float32(scales=pieces.slopes_below, offsets=pieces.heights - pieces.slopes_below * pieces.lefts)
    nodes = [
        _node("Sub", "logits", "lefts", "from_left"),
        _node("Min", "from_left", "zero", "below"),
        _node("Mul", "below", "slopes_below", "rise_below"),
        _node("Sub", "logits", "rights", "from_right"),
        _node("Max", "from_right", "zero", "above"),
        _node("Mul", "above", "slopes_above", "rise_above"),
        _node("Unsqueeze", "logits", "piece_axis", "columns"),
        _node("Sub", "columns", "starts", "from_starts"),
        _node("Max", "from_starts", "zero", "after_starts"),
        _node("Min", "after_starts", "widths", "within"),
        _node("Mul", "within", "slopes", "rises"),
        _node("ReduceSum", "rises", "piece_axis", "rise_within", keepdims=0),
        _node("Sum", "heights", "rise_below", "rise_above", "rise_within", "calibrated"),
        _node("Sigmoid", "calibrated", "probabilities"),
    ]
    return nodes, {**_as_float32(zero=np.zeros(1), **vars(pieces)), "piece_axis": np.array([1])}


def _as_float32(**constants: FloatArray) -> dict[str, Float32Array]:
    return {name: values.astype(np.float32) for name, values in constants.items()}


def _node(kind: str, *names: str, **attributes: Any) -> NodeProto:
    """A node whose output is the last of these names. Names between logits and probabilities get our prefix."""
    prefixed = [name if name in ("logits", "probabilities") else PREFIX + name for name in names]
    return helper.make_node(kind, prefixed[:-1], prefixed[-1:], name=f"{PREFIX}{kind}_{names[-1]}", **attributes)
