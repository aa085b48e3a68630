"""The networks of a model as ONNX nodes: read from its model.onnx, with weights in float32 or float16."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from spectag.models.clip_windows import FrameWindows
from spectag.models.standalone.graph_builder import GraphBuilder, all_graphs, keep_nodes_for, rename, subgraphs

_MIN_HALVED = 256
"""Values of a tensor that becomes float16; the others do not make a file smaller."""
_MAX_ROUNDING = 1e-3
"""Relative error of a tensor in float16. Weights that are too large or too small for it stay float32."""


def add_network(
    graph: GraphBuilder, network: GraphProto, inputs: str, outputs: Sequence[str], *, prefix: str
) -> dict[str, str]:
    """Add the nodes of a network that compute some of its outputs, and return the names of these by output.

    Parameters
    ----------
    graph : GraphBuilder
    network : onnx.GraphProto
        From `inputs` (batch, channels, height, width) to `logits`, `features` and maybe `novelty`.
    inputs : str
        The tensor that is the network's input.
    outputs : sequence of str
    prefix : str
        Of the names of its tensors.
    """
    needed = GraphProto()
    needed.CopyFrom(network)
    keep_nodes_for(needed, outputs)
    rename(needed, lambda name: inputs if name == "inputs" else prefix + name)
    graph.include(needed)
    return {output: prefix + output for output in outputs}


def without_loop(network: GraphProto, windows: FrameWindows, n_frames: int) -> GraphProto:
    """A network without the loop over the windows of a clip, for clips (1, channels, height, n_frames).

    All windows are one batch, so that every shape is known: devices such as phones' neural processors need this.
    """
    [loop] = [node for node in network.node if node.op_type == "Loop"]
    [body] = subgraphs(loop)
    excerpt, starts = _network_of_excerpt(body), windows.starts(n_frames)
    graph = GraphBuilder("windows/")
    graph.initializers.extend(excerpt.initializer)
    names = {"excerpt_inputs": "inputs", "features_of_excerpt": "features", "logits_of_excerpt": "whole"}
    _add_nodes(graph, excerpt, names, prefix="whole/")
    largest = "whole"
    if starts:
        slices = [graph("Slice", "inputs", [start], [start + windows.length], [3]) for start in starts]
        names = {"excerpt_inputs": graph("Concat", *slices, axis=0)}
        _add_nodes(graph, excerpt, names, prefix="windows/")
        of_windows = graph("ReduceMax", "windows/logits_of_excerpt", [0], keepdims=1)
        largest = graph("Max", "whole", of_windows)
    weight = np.asarray(windows.weight if windows.n_labels is None else windows.weights_of(_n_labels(network)))
    of_whole = graph("Mul", "whole", (1 - weight).astype(np.float32))
    graph.name_output(graph("Add", of_whole, graph("Mul", largest, weight.astype(np.float32))), "logits")
    graph.include(_novelty_of_features(network))
    return helper.make_graph(graph.nodes, network.name, network.input, network.output, graph.initializers)


def _n_labels(network: GraphProto) -> int:
    [logits] = [output for output in network.output if output.name == "logits"]
    return int(logits.type.tensor_type.shape.dim[-1].dim_value)


def _novelty_of_features(network: GraphProto) -> GraphProto:
    """The nodes from `features` to `novelty`; none if the network does not have it."""
    nodes = GraphProto()
    nodes.CopyFrom(network)
    [last] = [node for node in nodes.node if "features" in node.output]
    nodes.node.remove(last)
    keep_nodes_for(nodes, ["novelty"])
    return nodes


def _network_of_excerpt(body: GraphProto) -> GraphProto:
    """The network in the loop of `spectag.training.networks.onnx_windows`: from `excerpt_inputs` to its two outputs."""
    excerpt = GraphProto()
    excerpt.CopyFrom(body)
    [cut] = [node for node in excerpt.node if "excerpt_inputs" in node.output]
    excerpt.node.remove(cut)
    keep_nodes_for(excerpt, ["features_of_excerpt", "logits_of_excerpt"])
    return excerpt


def _add_nodes(graph: GraphBuilder, network: GraphProto, names: dict[str, str], *, prefix: str) -> None:
    """Add the nodes of a network, whose constants are in the graph already."""
    constants = {tensor.name for tensor in network.initializer}
    nodes = GraphProto(node=network.node)
    rename(nodes, lambda name: name if name in constants else names.get(name, prefix + name))
    graph.nodes.extend(nodes.node)


def store_weights_as_float16(model: ModelProto, prefix: str) -> None:
    """Store the weights with this prefix as float16. The first use converts them, so all arithmetic is in float32."""
    for graph in all_graphs(model.graph):
        conversions = []
        for tensor in graph.initializer:
            half = _as_float16(tensor) if tensor.name.startswith(prefix) else None
            if half is not None:
                conversions.append(
                    helper.make_node("Cast", [half.name], [tensor.name], half.name, to=TensorProto.FLOAT)
                )
                tensor.CopyFrom(half)
        nodes = [*conversions, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)


def _as_float16(tensor: TensorProto) -> TensorProto | None:
    """A tensor in float16; None if it is small, of another type, or its values do not fit."""
    if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _MIN_HALVED:
        return None
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
        error = np.linalg.norm(half.astype(np.float32) - values)
    is_close = error <= _MAX_ROUNDING * np.linalg.norm(values)  # not with infinity
    return numpy_helper.from_array(half, f"{tensor.name}/float16") if is_close else None
