"""A model bundle without training: its network detects which third of the mel bands is loud."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from spectag.audio.front_end import FrontEnd
from spectag.config.base import MelConfig
from spectag.models.bundle import ONNX_FILE, BackboneInfo, BundleInfo, DataInfo, MemberInfo, write_info

LABELS = ("low", "middle", "high")
MEL = MelConfig(
    sample_rate=16_000, n_fft=512, hop_length=256, n_mels=24, f_min=50.0, f_max=8000.0, mean=-40.0, std=20.0, ref="max"
)
MEL_32K = MelConfig(
    sample_rate=32_000, n_fft=1024, hop_length=320, n_mels=48, f_min=50.0, f_max=8000.0, mean=-40.0, std=20.0, ref="max"
)
PITCHES = {"low": 200.0, "middle": 1500.0, "high": 5000.0}  # Hz, in the middle of each third of the bands


def tone(label: str, seconds: float, sample_rate: int = 16_000) -> np.ndarray:
    """A sound of a label: five tones close to its pitch."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    pitches = PITCHES[label] * np.array([0.9, 0.95, 1, 1.05, 1.1])
    return (np.sin(2 * np.pi * np.outer(pitches, t)).sum(axis=0) / 10).astype(np.float32)


def make_info(**changes: object) -> BundleInfo:
    """The metadata of a bundle with one network."""
    values = {
        "labels": LABELS,
        "front_end": FrontEnd(mel=MEL),
        "backbone": BackboneInfo(
            name="by hand", features="all", head="linear", pretrained_on="nothing", licence="none", weights_sha256="0"
        ),
        "thresholds": (0.5, 0.4, 0.6),
        "thresholds_fitted": (True, True, False),
        "metrics": {},
        "data": DataInfo(name="none", n_clips=3, n_clips_per_label=(1, 1, 1), fingerprint="0"),
        "onnx_difference": 1e-6,
        "versions": {"spectag": "0.1.0"},
    }
    return BundleInfo(**(values | changes))


def write_network(
    path: Path,
    *,
    n_mels: int = MEL.n_mels,
    top_is_low: bool = False,
    with_logits: bool = True,
    with_novelty: bool = False,
) -> None:
    """A network with inputs (batch, 1, n_mels, n_frames), one feature per band and one logit per third of the bands.

    A feature is the mean of a band over time, and a logit is the sum of the features of its third. `top_is_low` is
    False for images, whose first row is the highest band. Old networks have no logits output. Novelty is the distance
    of the greatest feature from 2.
    """
    third = np.repeat(np.eye(3, dtype=np.float32), n_mels // 3, axis=0)
    weights = third if top_is_low else third[::-1]
    nodes = [
        helper.make_node("ReduceMean", ["inputs", "time"], ["means"], keepdims=0),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    constants = {"weights": weights, "time": np.array([3])}
    if with_novelty:
        constants |= {"band_axis": np.array([1]), "two": np.array([2], np.float32)}
        nodes += [
            helper.make_node("ReduceMax", ["features", "band_axis"], ["greatest"], keepdims=0),
            helper.make_node("Sub", ["greatest", "two"], ["difference"]),
            helper.make_node("Abs", ["difference"], ["novelty"]),
        ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    novelty = helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", 1, n_mels, "n"])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", n_mels]),
            *[logits][:with_logits],
            *[novelty][:with_novelty],
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make_bundle(folder: Path, info: BundleInfo | None = None) -> Path:
    """A bundle that can tag sounds."""
    info = info or make_info()
    folder.mkdir(parents=True)
    write_info(folder, info)
    write_network(folder / ONNX_FILE, top_is_low=info.front_end.image is None, with_novelty=info.novelty is not None)
    return folder


def make_ensemble_info(front_ends: Sequence[FrontEnd], weights: Sequence[float], bias: float = 0.0) -> BundleInfo:
    """The metadata of a bundle with several networks."""
    backbone = make_info().backbone
    members = tuple(
        MemberInfo(folder=f"members/{number}", weight=weight, front_end=front_end, backbone=backbone)
        for number, (front_end, weight) in enumerate(zip(front_ends, weights, strict=True), start=1)
    )
    return make_info(front_end=front_ends[0], members=members, bias=bias)


def make_ensemble(folder: Path, info: BundleInfo) -> Path:
    """A bundle of several networks that can tag sounds."""
    folder.mkdir(parents=True)
    write_info(folder, info)
    for index, member in enumerate(info.members):
        (folder / member.folder).mkdir(parents=True)
        mel, image = member.front_end.mel, member.front_end.image
        n_mels = image.height if image and image.height else mel.n_mels
        with_novelty = info.novelty is not None and info.novelty.network == index
        path = folder / member.folder / ONNX_FILE
        write_network(path, n_mels=n_mels, top_is_low=image is None, with_novelty=with_novelty)
    return folder
