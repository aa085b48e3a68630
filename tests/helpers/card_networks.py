"""Small ONNX networks with random weights, as somebody who does not know spectag publishes them, and their cards."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tomli_w
from onnx import TensorProto, helper, numpy_helper

N_CHANNELS = 6
LABELS = ("low", "middle", "high")
N_LABELS = len(LABELS)
RATE = 16_000
WINDOW = 4_800  # samples, 0.3 s
MEL = {"sample_rate": RATE, "n_fft": 512, "hop_length": 160, "n_mels": 24, "f_min": 50.0, "f_max": 8000.0}
ABOUT = {
    "trained_on": "made-up tones",
    "licence": "Apache-2.0",
    "homepage": "https://example.org/network",
    "citation": "Somebody, A Network, 2025",
}


def _model(nodes, inputs, outputs, weights, opset):
    constants = [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    operators = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=operators, ir_version=8)


def _info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _heads():
    """From `maps` (batch, channels, n_frames) to frames, embedding, logits and probabilities."""
    return [
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("Transpose", ["positive"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["frames"], ["embedding"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["embedding", "weight", "bias"], ["logits"], transB=1),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
        helper.make_node("MatMul", ["frames", "weight_of_frames"], ["frame_logits"]),
    ]


def _head_weights(rng):
    weight = rng.normal(0, 3, (N_LABELS, N_CHANNELS)).astype(np.float32)
    return {"weight": weight, "bias": rng.normal(size=N_LABELS).astype(np.float32), "weight_of_frames": weight.T.copy()}


def _outputs(batch):
    return [
        _info("frames", [batch, "time", N_CHANNELS]),
        _info("embedding", [batch, N_CHANNELS]),
        _info("logits", [batch, N_LABELS]),
        _info("probabilities", [batch, N_LABELS]),
        _info("frame_logits", [batch, "time", N_LABELS]),
    ]


def waveform_network(*, n_samples: int | str = "samples", batch: int | str = "batch", opset: int = 13, seed: int = 0):
    """From `sound` (batch, n_samples) to the outputs of `_heads`."""
    rng = np.random.default_rng(seed)
    weights = {
        "channel_axis": np.array([1]),
        "filters": rng.normal(0, 0.3, (N_CHANNELS, 1, 128)).astype(np.float32),
        **_head_weights(rng),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["sound", "channel_axis"], ["with_channel"]),
        helper.make_node("Conv", ["with_channel", "filters"], ["maps"], strides=[64]),
        *_heads(),
    ]
    return _model(nodes, [_info("sound", [batch, n_samples])], _outputs(batch), weights, opset)


def batchless_network(*, seed: int = 0):
    """From `sound` (n_samples,) to `scores` (n_frames, n_labels) and `frames` (n_frames, n_channels), as YAMNet."""
    rng = np.random.default_rng(seed)
    weights = {
        "axes": np.array([0, 1]),
        "first": np.array([0]),
        "filters": rng.normal(0, 0.3, (N_CHANNELS, 1, 128)).astype(np.float32),
        "weight": rng.normal(0, 3, (N_CHANNELS, N_LABELS)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["sound", "axes"], ["with_axes"]),
        helper.make_node("Conv", ["with_axes", "filters"], ["maps"], strides=[64]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("Squeeze", ["positive", "first"], ["one"]),
        helper.make_node("Transpose", ["one"], ["frames"], perm=[1, 0]),
        helper.make_node("MatMul", ["frames", "weight"], ["frame_logits"]),
        helper.make_node("Sigmoid", ["frame_logits"], ["scores"]),
    ]
    outputs = [_info("scores", ["time", N_LABELS]), _info("frames", ["time", N_CHANNELS])]
    return _model(nodes, [_info("sound", ["samples"])], outputs, weights, 13)


def log_mel_network(*, n_frames: int | str = "time", frames_first: bool = True, seed: int = 0):
    """From `features` (batch, n_frames, n_mels), or (batch, n_mels, n_frames), to the outputs of `_heads`."""
    rng = np.random.default_rng(seed)
    n_mels = MEL["n_mels"]
    shape = ["batch", n_frames, n_mels] if frames_first else ["batch", n_mels, n_frames]
    weights = {"filters": rng.normal(0, 0.02, (N_CHANNELS, n_mels, 1)).astype(np.float32), **_head_weights(rng)}
    turn = [helper.make_node("Transpose", ["features"], ["bands"], perm=[0, 2, 1])] if frames_first else []
    conv = helper.make_node("Conv", ["bands" if frames_first else "features", "filters"], ["maps"])
    return _model([*turn, conv, *_heads()], [_info("features", shape)], _outputs("batch"), weights, 13)


def write_card(folder: Path, model: onnx.ModelProto, *, name: str = "my-net", **tables) -> Path:
    """Write a network and its card into a folder; `tables` are those of the card, or single settings."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "net.onnx")
    card = {"name": name, "network": {"file": "net.onnx"}, **ABOUT, **tables}
    path = folder / "card.toml"
    path.write_text(tomli_w.dumps(card), encoding="utf-8")
    return path


def waveform_card(folder: Path, *, fixed: bool = False, has_labels: bool = True, **settings) -> Path:
    """The card of a waveform network with an embedding and logits."""
    length = {"window_seconds": WINDOW / RATE} if fixed else {"min_seconds": 0.05}
    tables = {
        "input": {"kind": "waveform", "sample_rate": RATE, **length},
        "outputs": {"embedding": "embedding", "logits": "logits"},
    }
    if has_labels:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "labels.txt").write_text("low\nmiddle\nhigh\n", encoding="utf-8")
        tables["labels"] = {"source": {"file": "labels.txt"}}
    return write_card(folder, waveform_network(n_samples=WINDOW if fixed else "samples"), **tables | settings)


def run_network(folder: Path, values, *outputs: str):
    """The outputs of a network for its own input, by onnxruntime alone."""
    session = onnxruntime.InferenceSession(folder / "net.onnx")
    return session.run(list(outputs), {session.get_inputs()[0].name: np.asarray(values, np.float32)})


class InThisProcess:
    """A LimitedWorker without a process, because that takes seconds to start."""

    def __init__(self, function, **limits):
        self.ask = function

    def close(self):
        pass
