"""A published network whose features come frame by frame, and the ONNX file of frames that a linear head makes of it.

Features of clips are the mean and the standard deviation of each stage over frequency and time. Those of frames are the
same, but over frequency alone. Stages with a step of fewer than four frames of the log_mel are not used.
"""

import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from spectag.array_types import Float32Array, FloatArray
from spectag.models.frames_info import FRAMES_OFFSET, FramesInfo
from spectag.models.network_session import open_session
from spectag.models.standalone.graph_builder import GraphBuilder, keep_nodes_for
from spectag.training.heads.logistic import LinearHead
from spectag.training.networks.feature_network import FeatureNetwork, Weights
from spectag.training.networks.onnx_composition import PRODUCER, strip_notes
from spectag.training.networks.published_network import PublishedNetwork

_MIN_STRIDE = 4  # of a stage, in frames of the log_mel
_FREQUENCY, _TIME = 2, 3  # axes of a stage (1, n_channels, n_bands, n)


class FrameGraph:
    """The features of frames of a published AudioSet network.

    Parameters
    ----------
    name : str
        Of a backbone whose graph has a stage for each group of features, such as mn04_audioset.
    weights : mapping of str to arrays
        Those of a `PublishedNetwork`.
    n_mels : int
    info : FramesInfo, optional
        The step between frames, and the blocks in which a log_mel is processed.
    """

    def __init__(self, name: str, weights: Weights, n_mels: int, info: FramesInfo | None = None) -> None:
        self.info, self._n_mels = info or FramesInfo(), n_mels
        self._model, self._stages, strides, sizes = _with_stages(name, weights, n_mels, self.info.block)
        used = [index for index, stride in enumerate(strides) if stride >= _MIN_STRIDE]
        self._stages = [self._stages[index] for index in used]
        self.strides = [strides[index] for index in used]
        self.group_sizes = [sizes[index] for index in used]

    def features(self, log_mel: Float32Array) -> Float32Array:
        """Features (n // hop_length, n_features) of a normalised log_mel (1, n_mels, n)."""
        parts = []
        for excerpt, used in _blocks(log_mel.shape[-1], self.info):
            [block] = self._session.run(["features"], {"inputs": np.ascontiguousarray(log_mel[None, :, :, excerpt])})
            parts.append(block[0, :, 0].T[used])
        return np.concatenate(parts)

    @cached_property
    def _session(self) -> Any:
        builder = self._builder()
        stages = [self._on_grid(builder, stage, stride) for stage, stride in self._stages_with_strides]
        builder.name_output(builder("Concat", *stages, axis=1), "features")
        return _open(self._finished(builder, "features", ["batch", None, 1, "frames"]))

    def with_head(self, head: LinearHead, scale: FloatArray, offset: FloatArray) -> onnx.ModelProto:
        """The network of frames: `inputs` (1, 1, n_mels, n) to `probabilities` (1, n // hop_length, n_labels).

        Parameters
        ----------
        head : LinearHead
            On the features of `features`.
        scale, offset : float arrays of shape (n_labels,)
            The probabilities are the sigmoid of scale * logits + offset.
        """
        slopes = head.standardization.scale[:, None] * head.weights
        bias = head.bias - head.standardization.center @ slopes
        of_stages = np.split(
            (slopes * scale).T[:, :, None, None].astype(np.float32), np.cumsum(self.group_sizes)[:-1], 1
        )
        builder = self._builder()
        logits = [
            self._on_grid(builder, builder("Conv", stage, kernel), stride)  # less work than after the interpolation
            for (stage, stride), kernel in zip(self._stages_with_strides, of_stages, strict=True)
        ]
        builder.initializers.append(
            onnx.numpy_helper.from_array((bias * scale + offset)[None, :, None, None].astype(np.float32), FRAMES_OFFSET)
        )
        by_label = builder("Squeeze", builder("Add", builder("Sum", *logits), FRAMES_OFFSET), [_FREQUENCY])
        builder.name_output(builder("Sigmoid", builder("Transpose", by_label, perm=[0, 2, 1])), "probabilities")
        return self._finished(builder, "probabilities", ["batch", "frames", len(head.bias)])

    @property
    def _stages_with_strides(self) -> list[tuple[str, int]]:
        return list(zip(self._stages, self.strides, strict=True))

    def _builder(self) -> GraphBuilder:
        """A builder with the number of frames, and the features of each stage."""
        builder = GraphBuilder("frames/")
        n_input = builder("Gather", builder("Shape", "inputs"), [_TIME])
        self._n_frames = builder("Div", n_input, [self.info.hop_length])
        return builder

    def _on_grid(self, builder: GraphBuilder, values: str, stride: int) -> str:
        """A stage's values (1, n, 1, width) at each frame, by linear interpolation."""
        hop = self.info.hop_length
        if stride < hop:
            return builder("Slice", values, [0], [np.iinfo(np.int64).max], [_TIME], [hop // stride])
        if stride > hop:
            scales = np.array([1, 1, 1, stride / hop], np.float32)
            settings = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
            values = builder("Resize", values, "", scales, **settings)
        return builder("Slice", values, [0], self._n_frames, [_TIME])

    def _finished(self, builder: GraphBuilder, output: str, shape: list[Any]) -> onnx.ModelProto:
        """The network with the nodes of a builder, and their result as its only output."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        model.graph.node.extend(builder.nodes)
        model.graph.initializer.extend(builder.initializers)
        del model.graph.output[:], model.graph.value_info[:]
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
        keep_nodes_for(model.graph, [output])
        return model


def has_stages(network: FeatureNetwork) -> bool:
    """Whether a network gives frames: a published one of EfficientAT whose kernels do not change."""
    return isinstance(network, PublishedNetwork) and network.name.startswith("mn")


def _blocks(n_log_mel: int, info: FramesInfo) -> Iterator[tuple[slice, slice]]:
    """The excerpts of a log_mel that the network gets, and the frames of its output that are used.

    An excerpt is a block long, or the whole log_mel if this is shorter, as a rest without a whole frame is left out.
    """
    n_whole, begin, end = n_log_mel - n_log_mel % info.hop_length, 0, 0
    while end < n_whole:
        last = min(max(begin - info.context, 0) + info.block, n_whole)
        first = max(last - info.block, 0)
        end = last if last == n_whole else last - info.context
        yield slice(first, last), slice((begin - first) // info.hop_length, (end - first) // info.hop_length)
        begin = end


def _with_stages(
    name: str, weights: Weights, n_mels: int, n_frames: int
) -> tuple[onnx.ModelProto, list[str], list[int], list[int]]:
    """A network with the features of each stage over frequency, (1, n_features, 1, width).

    The names of the stages, their strides in frames of the log_mel, and their numbers of features.
    """
    network = PublishedNetwork(name, "all", weights)
    example = np.zeros((1, n_mels, n_frames), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "features.onnx")
        network.write_onnx(path, example, weights)
        model = onnx.load(path)
    model.producer_name, model.producer_version = PRODUCER, ""
    strip_notes(model)
    builder = GraphBuilder("stages/")
    stages = [_mean_and_deviation(builder, stage) for stage in _maps(model.graph)]
    model.graph.node.extend(builder.nodes)
    model.graph.initializer.extend(builder.initializers)
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.extend(helper.make_tensor_value_info(stage, TensorProto.FLOAT, None) for stage in stages)
    keep_nodes_for(model.graph, stages)
    shapes = [output.shape for output in _open(model).run(stages, {"inputs": example[None]})]
    return model, stages, [round(n_frames / shape[_TIME]) for shape in shapes], [shape[1] for shape in shapes]


def _open(model: onnx.ModelProto) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        onnx.save(model, path)
        return open_session(path, n_threads=1)


def _maps(graph: onnx.GraphProto) -> list[str]:
    """The names of the maps (1, n_channels, n_bands, n) whose mean and deviation are features of clips."""
    producers = {name: node for node in graph.node for name in node.output}
    groups = [producers[name] for name in producers["features"].input]
    means = [producers[node.input[0]] for node in groups if node.op_type == "Concat"]  # an embedding is none
    return [producers[mean.input[0]].input[0] for mean in means]


def _mean_and_deviation(builder: GraphBuilder, stage: str) -> str:
    """Add the mean and the standard deviation of a map over frequency."""
    mean = builder("ReduceMean", stage, [_FREQUENCY])
    mean_square = builder("ReduceMean", builder("Mul", stage, stage), [_FREQUENCY])
    variance = builder("Sub", mean_square, builder("Mul", mean, mean))
    return builder("Concat", mean, builder("Sqrt", builder("Relu", variance)), axis=1)
