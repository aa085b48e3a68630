"""Nodes of an ONNX graph, written as calls, and changes of whole graphs."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

_OPSET_OF_SATURATE = 19
Value = str | int | Sequence[int] | np.generic | NDArray[Any]
"""An input of a node: the name of a tensor, or a constant. Python integers are int64."""


class GraphBuilder:
    """Collects the nodes and constants of a graph.

    Examples
    --------
    >>> graph = GraphBuilder("mel/")
    >>> graph("Add", "waveform", np.float32(1))
    'mel/Add_1'
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def __call__(self, operator: str, *inputs: Value, **attributes: Any) -> str:
        """Add a node with one output, and return the name of this output."""
        return self.add(operator, *inputs, n_outputs=1, **attributes)[0]

    def add(self, operator: str, *inputs: Value, n_outputs: int, **attributes: Any) -> list[str]:
        """Add a node, and return the names of its outputs."""
        name = f"{self.prefix}{operator}_{len(self.nodes) + 1}"
        outputs = [name] if n_outputs == 1 else [f"{name}_{number}" for number in range(1, n_outputs + 1)]
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, names, outputs, name, **attributes))
        return outputs

    def constant(self, value: Value) -> str:
        """Add a constant, and return its name."""
        values = np.asarray(value)
        name = f"{self.prefix}constant_{len(self.initializers) + 1}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def include(self, graph: GraphProto) -> None:
        """Add the nodes and constants of another graph."""
        self.nodes.extend(graph.node)
        self.initializers.extend(graph.initializer)

    def name_output(self, value: str, name: str) -> None:
        """Give a tensor the name of an output of the graph."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name))


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in a node, such as the body of a loop."""
    return (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all graphs in its nodes, outer ones first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def rename(graph: GraphProto, name_of: Callable[[str], str]) -> None:
    """Rename all tensors of a graph, also those in its loops, and its nodes after their first outputs.

    Missing inputs ("") stay missing.
    """
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name and name_of(name) for name in names]
        node.name = node.output[0]
        for inner in subgraphs(node):
            rename(inner, name_of)
    for tensor in (*graph.initializer, *graph.input, *graph.output):
        tensor.name = name_of(tensor.name)
    del graph.value_info[:]


def keep_nodes_for(graph: GraphProto, outputs: Sequence[str]) -> None:
    """Remove the nodes and constants that these outputs do not need, and all other outputs."""
    needed, kept = set(outputs), []
    for node in reversed(graph.node):  # nodes come after those that compute their inputs
        if needed.intersection(node.output):
            needed |= _used_names(node)
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    remaining = [output for output in graph.output if output.name in outputs]
    del graph.node[:], graph.initializer[:], graph.output[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
    graph.output.extend(remaining)


def n_weight_bytes(graph: GraphProto, folder: Path) -> int:
    """Size of a graph without loops and of all weights that onnx reads from other files in a folder."""
    n_bytes = int(graph.ByteSize())
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    in_nodes = [tensor for attribute in attributes for tensor in (attribute.t, *attribute.tensors)]
    for tensor in (*graph.initializer, *in_nodes):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if "location" in entries:  # without a length, onnx reads up to the end of the file
            rest = (folder / entries["location"]).stat().st_size - int(entries.get("offset", 0))
            n_bytes += int(entries.get("length", 0)) or rest
    return n_bytes


def drop_newer_attributes(graph: GraphProto, opset: int) -> None:
    """Remove an attribute that onnx leaves when it converts a graph to an opset that does not have it."""
    for inner in all_graphs(graph):
        for node in inner.node:
            if node.op_type == "Cast" and opset < _OPSET_OF_SATURATE:  # for float8, which networks of spectag never use
                kept = [attribute for attribute in node.attribute if attribute.name != "saturate"]
                del node.attribute[:]
                node.attribute.extend(kept)


def _used_names(node: NodeProto) -> set[str]:
    inner = (_used_names(child) for graph in subgraphs(node) for child in graph.node)
    return set(node.input).union(*inner)
