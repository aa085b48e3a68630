"""The whole model as one ONNX graph: from a waveform to the probabilities, as `Tagger.tag` computes them.

waveform         (batch, n_samples), at the sample rate of the model
parts            of `max_clip_seconds`, one after the other in a loop; the last one ends with the waveform
front ends       waveform of a part → input of each network
networks         → logits, features, novelty of a part
pooling          logits: log-mean-exp over the parts; features: mean; novelty: minimum
ensemble         weighted sum of the networks' logits
calibration      → probabilities
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper

from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import n_frames
from spectag.models.bundle import BundleInfo
from spectag.models.clip_windows import ClipWindows
from spectag.models.onnx_calibration import with_calibration
from spectag.models.standalone.front_end_graph import add_front_end
from spectag.models.standalone.graph_builder import GraphBuilder
from spectag.models.standalone.network_graph import add_network, without_loop
from spectag.scoring.calibration import Calibration

NETWORK_PREFIX = "network"
"""Of the names of the networks' tensors."""


@dataclass(frozen=True)
class ClipNetwork:
    """A network of a model: its graph, the input that it needs, and the weight of its logits."""

    graph: GraphProto
    front_end: FrontEnd
    windows: ClipWindows | None
    weight: float
    has_novelty: bool

    @property
    def takes_one_sound(self) -> bool:
        """Whether the batch can only have one sound."""
        [inputs] = [value for value in self.graph.input if value.name == "inputs"]
        return bool(inputs.type.tensor_type.shape.dim[0].dim_value == 1)

    def at_length(self, n_samples: int) -> "ClipNetwork":
        """The same network for clips of exactly this length, without a loop."""
        windows = None if self.windows is None else self.windows.in_frames(self.front_end)
        if windows is None or self.front_end.mel is None:
            return self
        graph = without_loop(self.graph, windows, n_frames(n_samples, self.front_end.mel))
        return replace(self, graph=graph)


@dataclass(frozen=True)
class _PartOutputs:
    """Names of the tensors of a part: logits of each network, features of the first one, novelty."""

    logits: tuple[str, ...]
    features: str
    novelty: str | None

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.logits, self.features, *([] if self.novelty is None else [self.novelty]))


def clip_graph(networks: Sequence[ClipNetwork], info: BundleInfo, *, n_samples: int | None = None) -> GraphProto:
    """The graph from `waveform` to `probabilities`, `embedding` and, if a network has it, `novelty`.

    Parameters
    ----------
    networks : sequence of ClipNetwork
        In the order of the ensemble.
    info : BundleInfo
    n_samples : int, optional
        Fixed number of samples, at most those of `max_clip_seconds`: then the graph has no loop, and a batch of one.
    """
    graph = GraphBuilder()
    if n_samples is None:
        max_samples = round(info.window.max_clip_seconds * info.front_end.sample_rate)
        clip = _add_parts(graph, networks, max_samples)
    else:
        clip = _add_networks(graph, "waveform", [network.at_length(n_samples) for network in networks])
    _add_probabilities(graph, clip.logits, [network.weight for network in networks], info)
    graph.name_output(clip.features, "embedding")
    if clip.novelty is not None:
        graph.name_output(clip.novelty, "novelty")
    batch, length = ("batch", "samples") if n_samples is None else (1, n_samples)
    if any(network.takes_one_sound for network in networks):
        batch = 1
    n_features = _width(networks[0].graph, "features")
    shapes = {"probabilities": [batch, len(info.labels)], "embedding": [batch, n_features], "novelty": [batch]}
    outputs = [_float_info(name, shape) for name, shape in shapes.items() if name != "novelty" or clip.novelty]
    return helper.make_graph(
        graph.nodes, "spectag", [_float_info("waveform", [batch, length])], outputs, graph.initializers
    )


def _float_info(name: str, shape: Sequence[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _width(network: GraphProto, name: str) -> int | str:
    """The size of the last axis of an output."""
    [output] = [output for output in network.output if output.name == name]
    return output.type.tensor_type.shape.dim[-1].dim_value or "features"


def _add_networks(graph: GraphBuilder, waveform: str, networks: Sequence[ClipNetwork]) -> _PartOutputs:
    """The outputs of all networks for a waveform as a whole. Networks with the same front end share its nodes."""
    inputs = {
        front_end: add_front_end(graph, waveform, front_end)
        for front_end in dict.fromkeys(network.front_end for network in networks)
    }
    outputs = []
    for number, network in enumerate(networks, start=1):
        needed = ["logits", *(["features"] if number == 1 else []), *(["novelty"] if network.has_novelty else [])]
        prefix = f"{NETWORK_PREFIX}{number}/"
        outputs.append(add_network(graph, network.graph, inputs[network.front_end], needed, prefix=prefix))
    novelty = next((output["novelty"] for output in outputs if "novelty" in output), None)
    return _PartOutputs(tuple(output["logits"] for output in outputs), outputs[0]["features"], novelty)


def _add_parts(graph: GraphBuilder, networks: Sequence[ClipNetwork], max_samples: int) -> _PartOutputs:
    """The outputs of a waveform of any length: those of its parts of up to `max_samples`, pooled."""
    n_samples = graph("Squeeze", graph("Shape", "waveform", start=1, end=2))
    n_parts = graph("Div", graph("Add", n_samples, max_samples - 1), max_samples)
    last_start = graph("Max", graph("Sub", n_samples, max_samples), 0)

    part = GraphBuilder("part/")
    start = part("Min", part("Mul", "part/number", max_samples), last_start)
    begin, end = part("Unsqueeze", start, [0]), part("Unsqueeze", part("Add", start, max_samples), [0])
    outputs = _add_networks(part, part("Slice", "waveform", begin, end, [1]), networks)
    part.name_output("part/goes_on", "part/still_goes_on")
    body = helper.make_graph(
        part.nodes,
        "part",
        [
            helper.make_tensor_value_info("part/number", TensorProto.INT64, []),
            helper.make_tensor_value_info("part/goes_on", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("part/still_goes_on", TensorProto.BOOL, []),
            *(_float_info(name) for name in outputs.names),
        ],
        part.initializers,
    )
    of_parts = graph.add("Loop", n_parts, "", n_outputs=len(outputs.names), body=body)

    weights = _add_part_weights(graph, n_samples, n_parts, last_start, max_samples)
    log_weights = graph("Log", weights)
    logits = of_parts[: len(networks)]
    pooled = [graph("ReduceLogSumExp", graph("Add", of_part, log_weights), [0], keepdims=0) for of_part in logits]
    weighted = graph("Mul", of_parts[len(networks)], weights)
    features = graph("ReduceSum", weighted, [0], keepdims=0)
    novelty = None if outputs.novelty is None else graph("ReduceMin", of_parts[-1], [0], keepdims=0)
    return _PartOutputs(tuple(pooled), features, novelty)


def _add_part_weights(graph: GraphBuilder, n_samples: str, n_parts: str, last_start: str, max_samples: int) -> str:
    """The weight of each part, (n_parts, 1, 1): its share of the waveform, with overlaps divided in their middle."""
    starts = graph("Min", graph("Mul", graph("Range", 0, n_parts, 1), max_samples), last_start)
    later, earlier = graph("Slice", starts, [1], [np.iinfo(np.int64).max]), graph("Slice", starts, [0], [-1])
    ends_of_earlier = graph("Add", earlier, max_samples)
    middles_twice = graph("Add", later, ends_of_earlier)
    end_twice = graph("Unsqueeze", graph("Mul", n_samples, 2), [0])
    twice = graph("Sub", graph("Concat", middles_twice, end_twice, axis=0), graph("Concat", [0], middles_twice, axis=0))
    shares = graph("Div", graph("Cast", twice, to=TensorProto.FLOAT), graph("Cast", end_twice, to=TensorProto.FLOAT))
    return graph("Unsqueeze", shares, [1, 2])


def _add_probabilities(graph: GraphBuilder, logits: Sequence[str], weights: Sequence[float], info: BundleInfo) -> None:
    """Add the nodes from the logits of all networks to `probabilities`."""
    combined = logits[0]
    if info.members:
        used = [(name, weight) for name, weight in zip(logits, weights, strict=True) if weight]
        weighted = [graph("Mul", name, np.float32(weight)) for name, weight in used]
        combined = graph("Sum", *weighted, np.float32(info.bias))
    graph.name_output(combined, "logits")
    graph.include(_calibration_graph(len(info.labels), info.calibration))


def _calibration_graph(n_labels: int, calibration: Calibration | None) -> GraphProto:
    """The nodes from `logits` to `probabilities`."""
    outputs = [_float_info(name, ["batch", n_labels]) for name in ("logits", "probabilities")]
    sigmoid = helper.make_node("Sigmoid", ["logits"], ["probabilities"])
    plain = helper.make_graph([sigmoid], "calibration", [_float_info("logits", ["batch", n_labels])], outputs)
    return with_calibration(helper.make_model(plain), calibration).graph
