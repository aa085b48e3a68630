"""Made-up models that find segments from frames."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from helpers.bundles import MEL, make_info, write_network
from spectag.audio.front_end import FrontEnd
from spectag.models.bundle import ONNX_FILE, BundleInfo, write_info
from spectag.models.frames_info import FRAMES_FILE, FramesInfo

FRAMES = FramesInfo()
FRAMES_MEL = MEL.model_copy(update={"top_db": None, "ref": 1.0, "hop_length": 160})
MEDIAN, UNITS_PER_LOGIT = 1.0, 0.2  # of the normalised log_mel, in units of 20 dB


def make_frames_info(**changes: object) -> BundleInfo:
    """The metadata of a bundle with frames."""
    return make_info(**({"front_end": FrontEnd(mel=FRAMES_MEL), "frames": FRAMES} | changes))


def write_frames_network(path: Path, *, n_mels: int = MEL.n_mels, n_labels: int = 3) -> None:
    """A network whose logit of a frame is the level of the loudest band of a label's part of the bands.

    A frame sees 24 frames of the log_mel, of which it gets the mean: its own eight, and eight on both sides.
    """
    nodes = [
        helper.make_node("AveragePool", ["inputs"], ["means"], kernel_shape=[1, 24], strides=[1, 8], pads=[0, 8, 0, 8]),
        helper.make_node(
            "MaxPool", ["means"], ["loudest"], kernel_shape=[n_mels // n_labels, 1], strides=[n_mels // n_labels, 1]
        ),
        helper.make_node("Squeeze", ["loudest", "channel"], ["levels"]),
        helper.make_node("Transpose", ["levels"], ["by_frame"], perm=[0, 2, 1]),
        helper.make_node("Sub", ["by_frame", "median"], ["above"]),
        helper.make_node("Div", ["above", "scale"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    constants = {"channel": np.array([1]), "median": np.float32(MEDIAN), "scale": np.float32(UNITS_PER_LOGIT)}
    graph = helper.make_graph(
        nodes,
        "frames",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [1, 1, n_mels, "n"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, "frames", n_labels])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make_frames_bundle(folder: Path, info: BundleInfo | None = None) -> Path:
    """A bundle that tags clips with a network, and finds segments with another one."""
    info = info or make_frames_info()
    assert info.front_end.mel is not None
    n_mels = info.front_end.mel.n_mels
    folder.mkdir(parents=True)
    write_network(folder / ONNX_FILE, n_mels=n_mels, top_is_low=True, with_novelty=info.novelty is not None)
    write_frames_network(folder / FRAMES_FILE, n_mels=n_mels, n_labels=len(info.labels))
    write_info(folder, info)
    return folder
