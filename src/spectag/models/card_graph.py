"""The graph of a network card's network between an input and outputs as spectag has them.

inputs     (batch, 1, n_mels, n_frames) or (batch, 1, 1, n_samples)
             → normalised, axes in the order of the network → the network
features   (batch, n_features): mean and deviation of the embeddings over time, then the embedding
logits     (batch, n_labels), whose sigmoid is the probability

This module needs the package onnx.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, defs, helper, version_converter

from spectag.array_types import Float32Array
from spectag.config.network_cards import Axis, NetworkCard, OutputName
from spectag.errors import BundleError, first_line
from spectag.models.card_files import front_end_of
from spectag.models.card_input_graph import LOG_MEL_START, WAVEFORM_AXES, add_card_input
from spectag.models.limits import MAX_LABELS
from spectag.models.network_session import open_session
from spectag.models.onnx_file import MAX_ONNX_BYTES, check_onnx_file
from spectag.models.standalone.exporting import MIN_OPSET
from spectag.models.standalone.graph_builder import (
    GraphBuilder,
    drop_newer_attributes,
    keep_nodes_for,
    n_weight_bytes,
    rename,
)

MAX_FEATURES = 100_000
_NETWORK, _INPUT, _OUTPUT = "network/", "input/", "output/"  # prefixes of the names of tensors
_SMALLEST_VARIANCE = 1e-10
_SMALLEST_PROBABILITY = 1e-7
_NEVER = 16.0  # minus the logit of a label that is never detected
_PROBED_SECONDS = 1.0  # of a network that takes any length
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}


@dataclass(frozen=True)
class CardGraph:
    """A network with the outputs `features` and, if the card has them, `logits` and `probabilities`."""

    model: ModelProto
    group_sizes: tuple[int, ...]
    """The number of features of each group."""
    n_labels: int | None
    shapes: dict[str, tuple[int, ...]]
    """Of the input and the outputs of the network itself, for one sound of the least length or 1 s."""
    label_scores: Float32Array | None
    """The network's own output for labels, for noise."""

    def with_a_constant_label(self) -> ModelProto:
        """A copy for embeddings alone: a model needs a label, so it has one that is never detected."""
        graph = GraphBuilder("label/")
        zero = graph("Mul", graph("ReduceMean", "features", [1], keepdims=1), np.float32(0))
        return self.with_labels(graph, graph("Sub", zero, np.float32(_NEVER)), 1)

    def with_labels(self, graph: GraphBuilder, logits: str, n_labels: int) -> ModelProto:
        """A copy with nodes from `features` to logits (batch, n_labels), and with their sigmoid, as its labels."""
        model = self.with_outputs("features")
        graph.name_output(logits, "logits")
        graph.nodes.append(helper.make_node("Sigmoid", ["logits"], ["probabilities"], "probabilities"))
        model.graph.node.extend(graph.nodes)
        model.graph.initializer.extend(graph.initializers)
        batch = model.graph.input[0].type.tensor_type.shape.dim[0]
        size = batch.dim_value or batch.dim_param
        model.graph.output.extend(_float_info(name, [size, n_labels]) for name in ("logits", "probabilities"))
        return model

    def with_outputs(self, *names: str) -> ModelProto:
        """A copy that has only these outputs."""
        model = ModelProto()
        model.CopyFrom(self.model)
        keep_nodes_for(model.graph, names)
        return model


def build_card_graph(card: NetworkCard, path: Path, *, kind: Literal["all", "last"] = "all") -> CardGraph:
    """Compose the graph of a card's network. The network is run once on noise, to know the shapes of its outputs.

    Parameters
    ----------
    card : NetworkCard
    path : Path
        Of its network.
    kind : "all" or "last"
        all: all features. last: the embedding alone, or the mean over time if there is none.

    Raises
    ------
    BundleError
        If the file is no network that spectag opens, or its inputs and outputs are not those of the card.
    """
    network = _Network(card, path)
    probed = network.probe()
    graph = GraphBuilder(_OUTPUT)
    groups = _feature_groups(graph, network, probed, kind)
    n_labels = _add_labels(graph, network, probed)
    names = [name for name, _ in groups]
    graph.name_output(names[0] if len(names) == 1 else graph("Concat", *names, axis=1), "features")
    sizes = tuple(size for _, size in groups)
    if sum(sizes) > MAX_FEATURES:
        raise network.error(f"it has {sum(sizes):,} features, expected at most {MAX_FEATURES:,}")
    widths = {"features": sum(sizes)} | ({} if n_labels is None else {"logits": n_labels, "probabilities": n_labels})
    outputs = [_float_info(name, [network.batch, width]) for name, width in widths.items()]
    model = network.model_with(graph, outputs)
    keep_nodes_for(model.graph, list(widths))
    shapes = {"input": network.input_shape} | {str(value): array.shape for value, array in probed.items()}
    return CardGraph(model, sizes, n_labels, shapes, None if n_labels is None else probed[_label_output(card)])


class _Network:
    """The network of a card, with the nodes from `inputs` to its own input."""

    def __init__(self, card: NetworkCard, path: Path) -> None:
        self.card, self.path = card, path
        check_onnx_file(path, is_ours=False)
        model = self._loaded()
        self._own_outputs = [value.name for value in model.graph.output]
        self._input = self._own_input(model.graph)
        self._tensors = {name for node in model.graph.node for name in node.output}
        self._is_quantized_dynamically = any(node.op_type == "DynamicQuantizeLinear" for node in model.graph.node)
        self.axes = self._axes()
        self.input_shape = tuple(_size(dim) or 0 for dim in self._input.type.tensor_type.shape.dim)
        self._check_sizes()
        self.batch: int | str = 1 if self._has_single_batch() else "batch"
        del model.graph.input[:], model.graph.output[:]
        rename(model.graph, lambda name: _NETWORK + name)
        self._model = model

    def error(self, reason: str) -> BundleError:
        """Why the network and the card do not fit."""
        return BundleError(f"{self.path.name}: {reason}; compare the network with its card, {self.card.name}")

    def _loaded(self) -> ModelProto:
        """The network at an opset that the nodes around it have."""
        try:
            model = onnx.load(self.path, load_external_data=False)
            n_bytes = n_weight_bytes(model.graph, self.path.parent)
        except Exception as error:  # the parser of protocol buffers raises errors of any class
            raise self.error(f"cannot be read: {first_line(error)}") from error
        if n_bytes > MAX_ONNX_BYTES:
            raise self.error(f"it has more than {MAX_ONNX_BYTES / 1e9:g} GB with its weights")
        opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
        if opset > defs.onnx_opset_version():
            raise self.error(f"it has opset {opset}, but the package onnx knows only {defs.onnx_opset_version()}")
        if any(node.op_type == "Loop" for node in model.graph.node):
            raise self.error("it contains a loop; export it for sounds of one length")
        if not all(node.output for node in model.graph.node):
            raise self.error("it contains a node without outputs")
        try:
            onnx.load_external_data_for_model(model, str(self.path.parent))
            if opset < MIN_OPSET:
                model = version_converter.convert_version(model, MIN_OPSET)
                drop_newer_attributes(model.graph, MIN_OPSET)
        except Exception as error:  # onnx and its converter raise errors of any class
            raise self.error(f"cannot be read or converted to opset {MIN_OPSET}: {first_line(error)}") from error
        return model

    def _own_input(self, graph: GraphProto) -> onnx.ValueInfoProto:
        constants = {tensor.name for tensor in graph.initializer}
        inputs = {value.name: value for value in graph.input if value.name not in constants}
        wanted = self.card.input.name
        if wanted is not None and wanted not in inputs:
            raise self.error(f"it has no input {wanted!r}, but {_listed(inputs)}")
        if len(inputs) != 1:
            raise self.error(f"it has the inputs {_listed(inputs)}, but networks of one input are needed")
        value: onnx.ValueInfoProto = next(iter(inputs.values()))
        if value.type.tensor_type.elem_type not in _FLOATS:
            raise self.error(f"its input {value.name!r} has no floating-point numbers")
        return value

    def _axes(self) -> tuple[Axis, ...]:
        """The axes of the network's input: those of the card, or those that its shape shows."""
        rank = len(self._input.type.tensor_type.shape.dim)
        given, is_waveform = self.card.input.axes, self.card.input.kind == "waveform"
        if given is not None:
            if len(given) != rank:
                raise self.error(f"its input has {rank} axes, but the card says {', '.join(given)}")
            return given
        axes = WAVEFORM_AXES.get(rank) if is_waveform else self._log_mel_axes(rank)
        if axes is None:
            raise self.error(f"the axes of its input of {rank} axes are not clear; give input.axes")
        return axes

    def _log_mel_axes(self, rank: int) -> tuple[Axis, ...] | None:
        """(batch,) (channel,) and then the axis of the mel bands, by its size, first or last; None if unclear."""
        assert self.card.input.mel is not None
        if rank not in LOG_MEL_START:
            return None
        n_mels, sizes = self.card.input.mel.n_mels, [_size(dim) for dim in self._input.type.tensor_type.shape.dim[-2:]]
        if (sizes[0] == n_mels) == (sizes[1] == n_mels):
            return None
        order: tuple[Axis, Axis] = ("bands", "frames") if sizes[0] == n_mels else ("frames", "bands")
        return (*LOG_MEL_START[rank], *order)

    def _check_sizes(self) -> None:
        """Compare the fixed sizes of the network's input with the card."""
        settings, sizes = self.card.input, dict(zip(self.axes, self.input_shape, strict=True))
        shortest, longest = settings.sample_limits
        needed: dict[Axis, int] = {"channel": 1, "bands": settings.mel.n_mels if settings.mel else 0}
        for axis, size in needed.items():
            if sizes.get(axis) and sizes[axis] != size:
                raise self.error(f"its axis {axis} has the size {sizes[axis]}, but {size} is needed")
        if (sizes.get("batch") or 1) != 1:
            raise self.error(f"it takes only {sizes['batch']} sounds at once; one or any number is needed")
        time: Axis = "samples" if settings.kind == "waveform" else "frames"
        length = longest if time == "samples" else settings.n_frames
        if sizes[time] and (shortest is None or shortest != longest or length != sizes[time]):
            setting = f"n_frames = {sizes[time]}"
            if time == "samples":
                setting = f"window_seconds = {sizes[time] / settings.rate:.12g}"
            raise self.error(f"it takes only sounds of {sizes[time]} {time}: set {setting} in [input]")

    def _has_single_batch(self) -> bool:
        """Whether it takes one sound at once, or its results depend on the other sounds: they share a scale of int8."""
        sizes = dict(zip(self.axes, self.input_shape, strict=True))
        return "batch" not in sizes or sizes["batch"] == 1 or self._is_quantized_dynamically

    def name_of(self, output: OutputName) -> str:
        """The name of a tensor in the composed graph."""
        if isinstance(output, int):
            if output >= len(self._own_outputs):
                raise self.error(f"it has {len(self._own_outputs)} outputs, so none has the position {output}")
            return f"{_NETWORK}{self._own_outputs[output]}"
        if output not in self._tensors:
            raise self.error(f"it has no output {output!r}, but {_listed(self._own_outputs)}")
        return _NETWORK + output

    def model_with(self, graph: GraphBuilder, outputs: Sequence[onnx.ValueInfoProto]) -> ModelProto:
        """The network between `inputs` and the nodes of a graph."""
        before = GraphBuilder(_INPUT)
        add_card_input(
            before, self.card.input, self.axes, _NETWORK + self._input.name, self._input.type.tensor_type.elem_type
        )
        height = 1 if self.card.input.kind == "waveform" else self.card.input.view.n_mels
        nodes = [*before.nodes, *self._model.graph.node, *graph.nodes]
        constants = [*before.initializers, *self._model.graph.initializer, *graph.initializers]
        inputs = [_float_info("inputs", [self.batch, 1, height, "width"])]
        opset = max(MIN_OPSET, *(each.version for each in self._model.opset_import if each.domain in ("", "ai.onnx")))
        operators = [helper.make_opsetid("", opset)]
        return helper.make_model(
            helper.make_graph(nodes, "spectag", inputs, list(outputs), constants),
            opset_imports=operators,
            ir_version=max(self._model.ir_version, helper.find_min_ir_version_for(operators)),
            producer_name="spectag",
        )

    def probe(self) -> dict[OutputName, Float32Array]:
        """The network's outputs that the card names, for noise."""
        outputs = self.card.outputs
        wanted = [outputs.embedding, outputs.frames, outputs.logits, outputs.probabilities]
        names = {value: self.name_of(value) for value in wanted if value is not None}
        graph = GraphBuilder("probe/")
        infos = []
        for number, name in enumerate(names.values()):
            graph.nodes.append(helper.make_node("Cast", [name], [f"probe{number}"], to=TensorProto.FLOAT))
            infos.append(_float_info(f"probe{number}"))
        model = self.model_with(graph, infos)
        keep_nodes_for(model.graph, [info.name for info in infos])
        return dict(zip(names, run_once(model, self.card, [info.name for info in infos]), strict=True))


def example_inputs(card: NetworkCard) -> Float32Array:
    """Noise, as an input (1, 1, height, width) of a card's network."""
    front_end, rate = front_end_of(card), card.input.rate
    n_samples = front_end.min_samples or min(round(_PROBED_SECONDS * rate), front_end.max_samples or 2**62)
    noise = 0.1 * np.random.default_rng(0).standard_normal(n_samples)
    return front_end.input_of_waveform(noise.astype(np.float32))[None]


def run_once(model: ModelProto, card: NetworkCard, outputs: list[str]) -> list[Float32Array]:
    """The outputs of a composed network for noise."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        onnx.save(model, path)
        try:
            session = open_session(path, n_threads=1)
            results: list[Float32Array] = session.run(outputs, {"inputs": example_inputs(card)})
        except Exception as error:  # onnxruntime's errors have no common class
            raise BundleError(
                f"{card.name}: the network cannot process an input as its card describes it: "
                f"{first_line(error).removeprefix(f'{path}: ')}"
            ) from error
    return results


def _feature_groups(
    graph: GraphBuilder, network: _Network, probed: dict[OutputName, Float32Array], kind: str
) -> list[tuple[str, int]]:
    """The names of the features (batch, n) of each group, and their numbers."""
    outputs, groups = network.card.outputs, []
    if outputs.frames is not None and (kind == "all" or outputs.embedding is None):
        groups.append(_add_frame_features(graph, network, probed, outputs.frames, kind))
    if outputs.embedding is not None:
        name, shape = _as_batch(graph, network, probed, outputs.embedding, most_axes=1)
        if len(shape) != 2:
            raise network.error(
                f"the embedding {outputs.embedding!r} has the shape {shape}, expected (1, n_features); "
                "embeddings over time are outputs.frames"
            )
        groups.append((name, shape[1]))
    if groups:
        return groups
    name, shape = _as_batch(graph, network, probed, _label_output(network.card))
    if outputs.probabilities is not None:
        name = _add_logit(graph, name)
    return [(graph("ReduceMean", name, [1], keepdims=0) if len(shape) == 3 else name, shape[-1])]


def _add_frame_features(
    graph: GraphBuilder, network: _Network, probed: dict[OutputName, Float32Array], value: OutputName, kind: str
) -> tuple[str, int]:
    name, shape = _as_batch(graph, network, probed, value)
    if len(shape) != 3:
        raise network.error(f"the frames {value!r} have the shape {shape}, expected (1, n_frames, n_features)")
    mean = graph("ReduceMean", name, [1], keepdims=1)
    flat = graph("Squeeze", mean, [1])
    if kind == "last":
        return flat, shape[2]
    centred = graph("Sub", name, mean)
    variance = graph("ReduceMean", graph("Mul", centred, centred), [1], keepdims=0)
    deviation = graph("Sqrt", graph("Max", variance, np.float32(_SMALLEST_VARIANCE)))
    return graph("Concat", flat, deviation, axis=1), 2 * shape[2]


def _as_batch(
    graph: GraphBuilder,
    network: _Network,
    probed: dict[OutputName, Float32Array],
    value: OutputName,
    *,
    most_axes: int = 2,
) -> tuple[str, tuple[int, ...]]:
    """An output as float32 with a first axis for the batch, and its shape for one sound.

    A network without a batch has no such axis in its outputs of up to `most_axes` axes.
    """
    name, shape = graph("Cast", network.name_of(value), to=TensorProto.FLOAT), probed[value].shape
    if "batch" not in network.axes and len(shape) <= most_axes:
        name, shape = graph("Unsqueeze", name, [0]), (1, *shape)
    if not shape or shape[0] != 1 or prod(shape) < 1:
        raise network.error(f"its output {value!r} has the shape {shape} for one sound, expected (1, ...)")
    return name, shape


def _add_labels(graph: GraphBuilder, network: _Network, probed: dict[OutputName, Float32Array]) -> int | None:
    """Add `logits` and `probabilities`; the number of labels, None if the network has no output for labels."""
    outputs = network.card.outputs
    if not outputs.has_labels:
        return None
    name, shape = _as_batch(graph, network, probed, _label_output(network.card))
    if len(shape) not in (2, 3) or not 1 <= shape[-1] <= MAX_LABELS:
        raise network.error(f"its output for labels has the shape {shape}, expected (1, n_labels)")
    if outputs.activation == "softmax":
        name = graph("Softmax", name, axis=len(shape) - 1)
    if outputs.probabilities is not None or outputs.activation == "softmax":
        name = _add_logit(graph, name)
    if len(shape) == 3:  # log-mean-exp, as for the parts of a clip
        n_frames = graph("Cast", graph("Shape", name, start=1, end=2), to=TensorProto.FLOAT)
        name = graph("Sub", graph("ReduceLogSumExp", name, [1], keepdims=0), graph("Log", n_frames))
    graph.name_output(name, "logits")
    graph.nodes.append(helper.make_node("Sigmoid", ["logits"], ["probabilities"], "probabilities"))
    return int(shape[-1])


def _add_logit(graph: GraphBuilder, probabilities: str) -> str:
    """The logits of probabilities."""
    smallest = np.float32(_SMALLEST_PROBABILITY)
    clipped = graph("Clip", probabilities, smallest, np.float32(1) - smallest)
    return graph("Sub", graph("Log", clipped), graph("Log", graph("Sub", np.float32(1), clipped)))


def _label_output(card: NetworkCard) -> OutputName:
    value = card.outputs.logits if card.outputs.logits is not None else card.outputs.probabilities
    assert value is not None
    return value


def _float_info(name: str, shape: Sequence[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _size(dim: Any) -> int | None:
    """A fixed size; None if it is dynamic."""
    return int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None


def _listed(names: Any) -> str:
    return ", ".join(repr(name[:60]) for name in list(names)[:10]) or "none"
