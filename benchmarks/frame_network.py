"""A published network whose features come frame by frame, for benchmarks/frames.py.

The features are those of clips, the mean and standard deviation of each stage, but over frequency alone.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spectag.audio.front_end import FrontEnd
from spectag.models.network_session import open_session
from spectag.models.standalone.graph_builder import keep_nodes_for
from spectag.training.heads.logistic import LinearHead
from spectag.training.networks.published_network import PublishedNetwork

FRAME = 4  # of the log_mel, 40 ms
FRAME_SECONDS = 0.04
BLOCK, CONTEXT = 1024, 64  # frames of the log_mel that the network gets at once; of which these, at both ends, not used
MIN_STRIDE = 4  # of a stage, in frames of the log_mel


@dataclass(frozen=True)
class FrameNetwork:
    """A published network with an output for each stage: mean and standard deviation over frequency, frame by frame."""

    session: Any
    names: list[str]
    """Of the outputs: a stage each."""
    strides: tuple[int, ...]
    """Of each stage, in frames of the log_mel."""
    group_sizes: tuple[int, ...]
    front_end: FrontEnd

    def features(self, log_mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (n_frames, n_features) of a log_mel (1, n_mels, n), in frames of 40 ms."""
        return np.concatenate(
            [
                np.hstack([_at(stage, frames / stride) for stage, stride in zip(stages, self.strides, strict=True)])
                for stages, frames in self._blocks(log_mel)
            ]
        )

    def logits(self, log_mel: NDArray[np.float32], head: LinearHead) -> NDArray[np.float32]:
        """Logits (n_frames, n_labels) of a head. It is applied before the interpolation, which is much less work."""
        weights = head.standardization.scale[:, None] * head.weights
        bias = head.bias - head.standardization.center @ weights
        of_stages = np.split(weights.astype(np.float32), np.cumsum(self.group_sizes)[:-1])
        blocks = []
        for stages, frames in self._blocks(log_mel):
            parts = zip(stages, of_stages, self.strides, strict=True)
            blocks.append(np.sum([_at(stage @ slopes, frames / stride) for stage, slopes, stride in parts], axis=0))
        return np.asarray(np.concatenate(blocks) + bias, np.float32)

    def _blocks(self, log_mel: NDArray[np.float32]) -> Iterator[tuple[list[NDArray[np.float32]], NDArray[np.int64]]]:
        """The features of each stage (n, n_features) of each block, and its frames as positions in the log_mel."""
        n_frames, step = log_mel.shape[-1], BLOCK - 2 * CONTEXT
        for begin in range(0, n_frames, step):
            first, last = max(begin - CONTEXT, 0), min(begin + step + CONTEXT, n_frames)
            outputs = self.session.run(self.names, {"inputs": log_mel[None, :, :, first:last]})
            frames = np.arange(begin, min(begin + step, n_frames), FRAME) - first
            yield [output[0, :, 0].T for output in outputs], frames


def _at(values: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of an array (n, n_features) at fractional positions, by linear interpolation."""
    lower = np.minimum(positions.astype(int), len(values) - 1)
    upper = np.minimum(lower + 1, len(values) - 1)
    weight = (positions - lower)[:, None].astype(np.float32).clip(0, 1)
    return np.asarray((1 - weight) * values[lower] + weight * values[upper])


def open_frame_network(name: str, front_end: FrontEnd) -> FrameNetwork:
    """The network of a backbone with its published weights."""
    network, example = PublishedNetwork(name, "all"), np.zeros((1, 128, BLOCK), np.float32)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "frames.onnx")
        network.write_onnx(path, example, network.weights)
        model = onnx.load(path)
        maps = _stages(model.graph)
        model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "frequency axis"))
        for stage in maps:
            _add_frame_features(model.graph, stage)
        keep_nodes_for(model.graph, [f"{stage} frames" for stage in maps])
        onnx.save(model, path)
        session = open_session(path, n_threads=1)
    shapes = [out.shape for out in session.run(None, {"inputs": example[None]})]
    strides = [round(BLOCK / shape[-1]) for shape in shapes]
    used = [index for index, stride in enumerate(strides) if stride >= MIN_STRIDE]
    names = [f"{maps[index]} frames" for index in used]
    return FrameNetwork(session, names, tuple(strides[i] for i in used), tuple(shapes[i][1] for i in used), front_end)


def _stages(graph: onnx.GraphProto) -> list[str]:
    """The names of the maps (batch, channels, height, width) whose mean and deviation are features of clips."""
    producers = {name: node for node in graph.node for name in node.output}
    concatenations = [producers[name] for name in producers["features"].input]
    means = [producers[node.input[0]] for node in concatenations if node.op_type == "Concat"]
    return [producers[mean.input[0]].input[0] for mean in means]


def _add_frame_features(graph: onnx.GraphProto, stage: str) -> None:
    steps = (
        ("ReduceMean", (stage, "frequency axis"), "mean"),
        ("Mul", (stage, stage), "square"),
        ("ReduceMean", (f"{stage} square", "frequency axis"), "mean square"),
        ("Mul", (f"{stage} mean", f"{stage} mean"), "squared mean"),
        ("Sub", (f"{stage} mean square", f"{stage} squared mean"), "variance"),
        ("Relu", (f"{stage} variance",), "positive"),
        ("Sqrt", (f"{stage} positive",), "deviation"),
        ("Concat", (f"{stage} mean", f"{stage} deviation"), "frames"),
    )
    for kind, inputs, output in steps:
        attributes: dict[str, Any] = {"axis": 1} if kind == "Concat" else {}
        graph.node.append(helper.make_node(kind, inputs, [f"{stage} {output}"], **attributes))
    graph.output.append(helper.make_tensor_value_info(f"{stage} frames", TensorProto.FLOAT, None))
