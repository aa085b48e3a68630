"""The input of a network card's network as ONNX nodes: normalised, and its axes in the order of the network."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from spectag.config.network_cards import Axis, CardInput
from spectag.models.standalone.graph_builder import GraphBuilder

WAVEFORM_AXES: dict[int, tuple[Axis, ...]] = {
    1: ("samples",),
    2: ("batch", "samples"),
    3: ("batch", "channel", "samples"),
}
"""Of a waveform, by their number."""
LOG_MEL_START: dict[int, tuple[Axis, ...]] = {2: (), 3: ("batch",), 4: ("batch", "channel")}
"""Of a log-mel spectrogram, by the number of all: those before the bands and frames."""
_SMALLEST_PEAK, _SMALLEST_VARIANCE = 1e-8, 1e-10


def add_card_input(
    graph: GraphBuilder, settings: CardInput, axes: Sequence[Axis], name: str, element_type: int
) -> None:
    """Add the nodes from `inputs` (batch, 1, height, width) to the input of a network.

    Parameters
    ----------
    graph : GraphBuilder
    settings : CardInput
    axes : sequence of Axis
        Of the network's input, in its order.
    name : str
        Of the tensor that is the network's input.
    element_type : int
        Its type, as in onnx.TensorProto.
    """
    values = _add_scale(graph, settings)
    if settings.kind == "waveform":
        values = graph("Squeeze", values, [2])
        source: tuple[Axis, ...] = ("batch", "channel", "samples")
    else:
        source = ("batch", "channel", "bands", "frames")
    if unused := [number for number, axis in enumerate(source) if axis not in axes]:
        values = graph("Squeeze", values, unused)
    kept = [axis for axis in source if axis in axes]
    if list(axes) != kept:
        values = graph("Transpose", values, perm=[kept.index(axis) for axis in axes])
    if element_type != TensorProto.FLOAT:
        values = graph("Cast", values, to=element_type)
    graph.name_output(values, name)


def _add_scale(graph: GraphBuilder, settings: CardInput) -> str:
    values, axes = "inputs", [1, 2, 3]
    if settings.normalize == "peak":
        peak = graph("ReduceMax", graph("Abs", values), axes, keepdims=1)
        values = graph("Div", values, graph("Max", peak, np.float32(_SMALLEST_PEAK)))
    elif settings.normalize == "standard":
        centred = graph("Sub", values, graph("ReduceMean", values, axes, keepdims=1))
        variance = graph("ReduceMean", graph("Mul", centred, centred), axes, keepdims=1)
        values = graph("Div", centred, graph("Sqrt", graph("Max", variance, np.float32(_SMALLEST_VARIANCE))))
    return values if settings.scale == 1 else graph("Mul", values, np.float32(settings.scale))
