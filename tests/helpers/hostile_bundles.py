"""Bundles of a stranger who wants to crash, slow down or mislead spectag: kinds of attacks, each with a seed."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from helpers.bundles import make_bundle, make_info
from helpers.frames import make_frames_bundle
from spectag.models.bundle import INFO_FILE, ONNX_FILE, read_info, write_info
from spectag.models.frames_info import FRAMES_FILE

Rng = np.random.Generator


def make_hostile_bundle(kind: str, seed: int, folder: Path) -> Path:
    """A bundle of this kind."""
    bundle = make_bundle(folder)
    KINDS[kind](bundle, np.random.default_rng(seed))
    return bundle


def make_hostile_frames_bundle(kind: str, seed: int, folder: Path) -> Path:
    """A bundle whose frames.onnx is a network of this kind; all else is as it should be, also its SHA-256."""
    bundle, kept = make_frames_bundle(folder), folder.with_name(f"{folder.name} model.onnx")
    (bundle / ONNX_FILE).rename(kept)
    (bundle / FRAMES_FILE).rename(bundle / ONNX_FILE)
    KINDS[kind](bundle, np.random.default_rng(seed))
    (bundle / ONNX_FILE).rename(bundle / FRAMES_FILE)
    kept.rename(bundle / ONNX_FILE)
    write_info(bundle, read_info(bundle))
    return bundle


def _edit_info(bundle: Path, **changes: object) -> None:
    values = json.loads((bundle / INFO_FILE).read_text(encoding="utf-8"))
    (bundle / INFO_FILE).write_text(json.dumps(values | changes), encoding="utf-8")


def _edit_mel(bundle: Path, **changes: object) -> None:
    values = json.loads((bundle / INFO_FILE).read_text(encoding="utf-8"))
    values["front_end"]["mel"] |= changes
    (bundle / INFO_FILE).write_text(json.dumps(values), encoding="utf-8")


def _edit_network(bundle: Path, edit: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(bundle / ONNX_FILE, load_external_data=False)
    edit(model)
    (bundle / ONNX_FILE).write_bytes(model.SerializeToString())


# ------------------------------------------------------------------------------------------------ spectag.json


def nested_json(bundle: Path, rng: Rng) -> None:
    depth = int(rng.integers(100, 5_000_000))
    opening = str(rng.choice(["[", '{"a":']))
    (bundle / INFO_FILE).write_text(opening * depth)


def large_json(bundle: Path, rng: Rng) -> None:
    (bundle / INFO_FILE).write_text('{"labels": ["' + "a" * int(rng.integers(65e6, 200e6)) + '"]}')


def many_small_values(bundle: Path, rng: Rng) -> None:
    item = str(rng.choice(["[]", "{}", '{"":0}', "1.5", '""', "[[]]"]))
    n_items = 63_900_000 // (len(item) + 1) if rng.random() < 0.3 else 1_990_000 // sum(map((item + ",").count, ",[{"))
    content = ",".join([item] * n_items)
    (bundle / INFO_FILE).write_text(f'{{"format_version": 2, "metrics": [{content}]}}')


def odd_json(bundle: Path, rng: Rng) -> None:
    values = ["NaN", "-Infinity", "1e999", "9" * 100_000, r'"\ud800"', '{"a": 1, "a": 2}', '"\x00"', "1]"]
    text = (bundle / INFO_FILE).read_text(encoding="utf-8")
    (bundle / INFO_FILE).write_text(text.replace('"metrics": {}', f'"metrics": {{"a": {rng.choice(values)}}}'))


def damaged_json(bundle: Path, rng: Rng) -> None:
    content = bytearray((bundle / INFO_FILE).read_bytes())
    for position in rng.integers(len(content), size=30):
        content[position] = int(rng.integers(256))
    (bundle / INFO_FILE).write_bytes(content)


def huge_settings(bundle: Path, rng: Rng) -> None:
    bombs: list[dict[str, object]] = [
        {"n_fft": 2**40},
        {"n_mels": 10**9},
        {"hop_length": 1, "n_mels": 4_000},
        {"sample_rate": 10**12},
        {"std": 1e308},
        {"n_fft": 10**15},
    ]
    _edit_mel(bundle, **bombs[int(rng.integers(len(bombs)))])


def long_windows(bundle: Path, rng: Rng) -> None:
    seconds = float(10 ** rng.uniform(6.2, 300))
    _edit_info(bundle, window={"window_seconds": seconds, "overlap_seconds": 0.0, "max_clip_seconds": seconds})


def many_labels(bundle: Path, rng: Rng) -> None:
    n = int(rng.integers(100_001, 400_000))
    labels = [f"{number}" for number in range(n)]
    data = {"name": "a", "n_clips": None, "n_clips_per_label": None, "fingerprint": None}
    _edit_info(bundle, labels=labels, thresholds=[0.5] * n, thresholds_fitted=[False] * n, data=data)


def huge_calibration(bundle: Path, rng: Rng) -> None:
    n_labels = int(rng.integers(1_000, 3_000))
    line = {"points": [[0.0, 0.0]], "slope_below": 1.0, "slope_above": 1.0}
    long = line | {"points": [[float(x), float(x)] for x in range(20_000)]}
    data = {"name": "a", "n_clips": None, "n_clips_per_label": None, "fingerprint": None}
    _edit_info(
        bundle,
        labels=[f"{number}" for number in range(n_labels)],
        thresholds=[0.5] * n_labels,
        thresholds_fitted=[False] * n_labels,
        data=data,
        calibration={"method": "isotonic", "curves": [long, *[line] * (n_labels - 1)]},
    )


def other_labels(bundle: Path, rng: Rng) -> None:
    n = int(rng.choice([1, 2, 4, 500]))
    data = {"name": "a", "n_clips": None, "n_clips_per_label": None, "fingerprint": None}
    labels = [f"{number}" for number in range(n)]
    _edit_info(bundle, labels=labels, thresholds=[0.5] * n, thresholds_fitted=[False] * n, data=data)


def members_elsewhere(bundle: Path, rng: Rng) -> None:
    values = json.loads((bundle / INFO_FILE).read_text(encoding="utf-8"))
    folder = str(rng.choice(["../..", "/etc", "members/../../x", "members/1/..", "members/1\\..", "members/1"]))
    member = {"weight": 1.0, "front_end": values["front_end"], "backbone": values["backbone"]}
    _edit_info(bundle, members=[{"folder": folder, **member}, {"folder": "members/2", **member}])


# ------------------------------------------------------------------------------------------------ files


def not_a_regular_file(bundle: Path, rng: Rng) -> None:
    path = bundle / str(rng.choice([INFO_FILE, ONNX_FILE]))
    path.unlink()
    kind = int(rng.integers(4))
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.mkdir()
    else:
        path.symlink_to(path)  # a loop


def swapped_network(bundle: Path, rng: Rng) -> None:
    write_info(bundle, make_info())
    content = bytearray((bundle / ONNX_FILE).read_bytes())
    content[int(rng.integers(len(content)))] ^= 1
    (bundle / ONNX_FILE).write_bytes(content)


# ------------------------------------------------------------------------------------------------ model.onnx


def truncated_network(bundle: Path, rng: Rng) -> None:
    content = (bundle / ONNX_FILE).read_bytes()
    (bundle / ONNX_FILE).write_bytes(content[: int(rng.integers(len(content)))])


def damaged_network(bundle: Path, rng: Rng) -> None:
    content = bytearray((bundle / ONNX_FILE).read_bytes())
    for position in rng.integers(len(content), size=5):
        content[position] = int(rng.integers(256))
    (bundle / ONNX_FILE).write_bytes(content)


def random_network(bundle: Path, rng: Rng) -> None:
    n = int(rng.integers(1, 50_000_000))
    fields = b"\x08\x01" * (n // 2)  # valid fields of protocol buffers
    (bundle / ONNX_FILE).write_bytes(rng.bytes(n) if rng.random() < 0.5 else fields)


def weights_elsewhere(bundle: Path, rng: Rng) -> None:
    location = str(rng.choice(["/etc/passwd", "../../secret", "/dev/zero", "..", "a/../../b", "C:\\a", ""]))

    def edit(model: onnx.ModelProto) -> None:
        weights = model.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)

    _edit_network(bundle, edit)


def huge_tensor(bundle: Path, rng: Rng) -> None:
    def edit(model: onnx.ModelProto) -> None:
        weights = model.graph.initializer[0]
        del weights.dims[:]
        weights.dims.extend([2 ** int(rng.integers(10, 62)), int(rng.integers(1, 1_000))])

    _edit_network(bundle, edit)


def endless_loop(bundle: Path, rng: Rng) -> None:
    def edit(model: onnx.ModelProto) -> None:
        value = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
        carried = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
        number = helper.make_tensor_value_info("n", TensorProto.INT64, [])
        goes_on = helper.make_tensor_value_info("still", TensorProto.BOOL, [])
        nodes = [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Identity", ["features"], ["v"])]
        body = helper.make_graph(nodes, "body", [number, carried], [goes_on, value])
        model.graph.initializer.append(numpy_helper.from_array(np.array(2 ** int(rng.integers(40, 62))), "n_excerpts"))
        model.graph.node.append(helper.make_node("Loop", ["n_excerpts", ""], ["more"], body=body))

    _edit_network(bundle, edit)


def refused_operator(bundle: Path, rng: Rng) -> None:
    operator, domain = [
        ("PyOp", "com.stranger"),
        ("RandomNormalLike", ""),
        ("StringConcat", ""),
        ("SequenceConstruct", ""),
        ("Identity", "com.stranger"),
        ("Attention", "com.microsoft"),
    ][int(rng.integers(6))]
    _edit_network(
        bundle, lambda model: model.graph.node.append(helper.make_node(operator, ["features"], ["x"], domain=domain))
    )


def many_nodes(bundle: Path, rng: Rng) -> None:
    n = int(rng.integers(51_000, 200_000))

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node.extend(helper.make_node("Identity", ["features"], [f"{number}"]) for number in range(n))

    _edit_network(bundle, edit)


def huge_constant(bundle: Path, rng: Rng) -> None:
    def edit(model: onnx.ModelProto) -> None:
        graph = model.graph
        graph.node[-1].output[0] = "real"
        graph.initializer.append(numpy_helper.from_array(np.array([2 ** int(rng.integers(31, 60))]), "size"))
        graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["constant"]))
        graph.node.append(helper.make_node("ReduceMax", ["constant"], ["largest"], keepdims=0))
        graph.node.append(helper.make_node("Add", ["real", "largest"], ["probabilities"]))

    _edit_network(bundle, edit)


def terminal_codes(bundle: Path, rng: Rng) -> None:
    """A label that clears the screen and renames the window."""
    labels = ("\x1b[2J\x1b]0;owned\x07low", "=HYPERLINK(1)", "-" * int(rng.integers(1, 5)) + "high")
    _edit_info(bundle, labels=labels)


def weights_header(bundle: Path, rng: Rng) -> None:
    """Not read by tagging; here to show that it isn't."""
    (bundle / "weights.safetensors").write_bytes(struct.pack("<Q", 2**62) + rng.bytes(100))


NETWORK_KINDS = (
    *("truncated_network", "damaged_network", "random_network", "weights_elsewhere", "huge_tensor", "endless_loop"),
    *("refused_operator", "many_nodes", "huge_constant"),
)
"""Kinds that change only the network."""
HARMLESS = frozenset({"damaged_json", "damaged_network", "weights_header"})
"""Kinds that may also give a result: if the changed bytes do not matter."""
KINDS: dict[str, Callable[[Path, Rng], None]] = {
    kind.__name__: kind
    for kind in (
        nested_json,
        large_json,
        many_small_values,
        odd_json,
        damaged_json,
        huge_settings,
        long_windows,
        many_labels,
        huge_calibration,
        other_labels,
        members_elsewhere,
        not_a_regular_file,
        swapped_network,
        truncated_network,
        damaged_network,
        random_network,
        weights_elsewhere,
        huge_tensor,
        endless_loop,
        refused_operator,
        many_nodes,
        huge_constant,
        terminal_codes,
        weights_header,
    )
}
