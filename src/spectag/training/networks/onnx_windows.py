"""The windows of a clip in an ONNX graph: a loop that runs the network on the whole clip, then on each window."""

from typing import Any

import onnx
from onnx import GraphProto, ModelProto, helper, parser

from spectag.models.clip_windows import FrameWindows

_CLIP = """
clip (float[batch, channels, height, width] inputs)
    => (float[batch, {n_labels}] probabilities, float[batch, {n_features}] features, float[batch, {n_labels}] logits)
<int64 zero = {{0}}, int64 one = {{1}}, int64[1] excerpts = {{0}}, int64 hop = {{{hop}}}, int64 length = {{{length}}},
    float{shape} weight = {{{weight}}}, float{shape} other_weight = {{{other_weight}}}>
{{
    size = Shape <start = 3, end = 4> (inputs)
    width = Squeeze (size)
    last_start = Sub (width, length)
    rounded_up = Add (last_start, hop)
    almost_next = Sub (rounded_up, one)
    n_starts = Div (almost_next, hop)
    n_windows = Add (n_starts, one)
    has_windows = GreaterOrEqual (last_start, hop)
    n_used = Where (has_windows, n_windows, zero)
    n_excerpts = Add (n_used, one)
    features = Gather <axis = 0> (all_features, zero)
    whole = Gather <axis = 0> (all_logits, zero)
    largest = ReduceMax <keepdims = 0> (all_logits, excerpts)
    of_whole = Mul (whole, other_weight)
    of_largest = Mul (largest, weight)
    logits = Add (of_whole, of_largest)
    probabilities = Sigmoid (logits)
}}
"""
_N_BEFORE_LOOP = 10  # nodes
_EXCERPT = """
excerpt (int64 number, bool goes_on) => (bool still_goes_on, float[batch, {n_features}] features_of_excerpt,
    float[batch, {n_labels}] logits_of_excerpt)
<int64[1] width_axis = {{3}}, int64[1] as_vector = {{1}}>
{{
    still_goes_on = Identity (goes_on)
    is_window = Greater (number, zero)
    window_number = Sub (number, one)
    regular_start = Mul (window_number, hop)
    window_start = Min (regular_start, last_start)
    window_end = Add (window_start, length)
    start = Where (is_window, window_start, zero)
    end = Where (is_window, window_end, width)
    starts = Reshape (start, as_vector)
    ends = Reshape (end, as_vector)
    excerpt_inputs = Slice (inputs, starts, ends, width_axis)
}}
"""
_NAMES_IN_LOOP = {
    "inputs": "excerpt_inputs",
    "features": "features_of_excerpt",
    "logits": "logits_of_excerpt",
    "probabilities": "probabilities_of_excerpt",
}


def loop_over_windows(network: ModelProto, windows: FrameWindows) -> ModelProto:
    """A network whose logits also contain the maximum over windows, as `FrameWindows.pool` computes them.

    Parameters
    ----------
    network : onnx.ModelProto
        inputs (batch, channels, height, width) to probabilities and logits (batch, n_labels), and features (batch,
        n_features).
    windows : FrameWindows

    Returns
    -------
    onnx.ModelProto
        With the same inputs and outputs. The features are those of the whole clip.
    """
    sizes = {
        f"n_{what}": output.type.tensor_type.shape.dim[1].dim_value
        for what, name in (("features", "features"), ("labels", "logits"))
        for output in network.graph.output
        if output.name == name
    }
    body = parser.parse_graph(_EXCERPT.format(**sizes))
    in_loop = _with_other_names(network.graph, _NAMES_IN_LOOP)
    body.node.extend(in_loop.node)
    body.initializer.extend(in_loop.initializer)  # in the loop, so that onnxruntime can rearrange them for speed
    loop = helper.make_node("Loop", ["n_excerpts", ""], ["all_features", "all_logits"], name="over_windows", body=body)
    values = {"hop": windows.hop, "length": windows.length}
    weights: dict[str, Any] = {"shape": "", "weight": windows.weight, "other_weight": 1 - windows.weight}
    if windows.n_labels is not None:
        of_labels = windows.weights_of(sizes["n_labels"])
        values_of_labels = (", ".join(map(str, values.tolist())) for values in (of_labels, 1 - of_labels))
        weights = dict(zip(weights, (f"[{len(of_labels)}]", *values_of_labels), strict=True))
    graph = parser.parse_graph(_CLIP.format(**sizes, **values, **weights))
    graph.node.insert(_N_BEFORE_LOOP, loop)
    return onnx.helper.make_model(
        graph,
        opset_imports=network.opset_import,
        ir_version=network.ir_version,
        producer_name=network.producer_name,
    )


def _with_other_names(graph: GraphProto, names: dict[str, str]) -> GraphProto:
    """A copy of a graph in which some values have other names."""
    renamed = GraphProto()
    renamed.CopyFrom(graph)
    for node in renamed.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    return renamed
