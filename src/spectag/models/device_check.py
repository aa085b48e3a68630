"""Which devices of onnxruntime work here, and how fast: a small network, compared with its results on the CPU."""

import json
import math
import subprocess  # nosec B404 - runs this Python only
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spectag.array_types import Float32Array
from spectag.config.devices import ACCELERATORS, Device
from spectag.errors import DeviceWarning
from spectag.models.network_session import SEE_DOCTOR, installed_accelerators, open_session

MAX_DIFFERENCE = 1e-3
"""Of probabilities, from those of the CPU."""
_CHANNELS = (1, 16, 32, 64, 128)
_N_LABELS, _N_MELS, _N_FRAMES = 10, 128, 1000  # of a window of 10 s, as the published networks take it
_MEASURED_SECONDS = 0.2
_MAX_SECONDS = 90.0  # to load the libraries of a GPU, also from a slow disk
_SCRIPT = "import sys; from spectag.models.device_check import print_check; print_check(sys.argv[1])"


@dataclass(frozen=True)
class DeviceCheck:
    """Whether a device runs a small network, and how fast."""

    device: str
    provider: str
    """What onnxruntime calls it."""
    runs: bool
    """Whether it ran, with probabilities within `MAX_DIFFERENCE` of those of the CPU."""
    windows_per_second: float | None = None
    """Windows of ten seconds; the CPU computes each on one core."""
    difference: float | None = None
    """Largest difference of a probability from that of the CPU."""
    note: str = ""
    """Why it does not run, or what it leaves to the CPU."""


def check_devices() -> list[DeviceCheck]:
    """Check the CPU and all accelerators of the installed onnxruntime, each of these in a process of its own."""
    return [check_device("cpu"), *(_check_elsewhere(each.name) for each in installed_accelerators())]


def check_device(device: Device) -> DeviceCheck:
    """Run the network on a device, in this process."""
    provider = ACCELERATORS[device].provider if device in ACCELERATORS else "CPUExecutionProvider"
    with tempfile.TemporaryDirectory(prefix="spectag-") as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeviceWarning)
        path = Path(folder, "network.onnx")
        path.write_bytes(_network())
        try:
            session = open_session(path, n_threads=1, device=device)
            probabilities, speed = _measured(session)
            expected = probabilities if device == "cpu" else _measured(open_session(path, n_threads=1))[0]
        except Exception as error:  # onnxruntime's errors have no common class
            reason = " ".join(str(error).replace(str(path), "a network").split())
            return DeviceCheck(device, provider, False, note=reason.removesuffix(SEE_DOCTOR))
    notes = " ".join(str(warning.message).replace(f"{path}: ", "") for warning in caught)
    difference = float(np.abs(probabilities - expected).max())
    if not difference <= MAX_DIFFERENCE:
        notes = f"a probability differs by {difference:.2g} from that of the CPU"
    return DeviceCheck(device, provider, difference <= MAX_DIFFERENCE, speed, difference, notes)


def print_check(device: Device) -> None:
    """Check a device and print the result as JSON. What libraries print goes to stderr."""
    printed, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(asdict(check_device(device))), file=printed)


def _check_elsewhere(device: Device) -> DeviceCheck:
    """The check in another process, which a broken driver may end."""
    failed = DeviceCheck(device, ACCELERATORS[device].provider, False)
    try:
        done = subprocess.run(  # nosec B603 - a constant and a name of ours
            [sys.executable, "-c", _SCRIPT, device], capture_output=True, text=True, timeout=_MAX_SECONDS, check=True
        )
        return DeviceCheck(**json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return DeviceCheck(**asdict(failed) | {"note": f"no answer within {_MAX_SECONDS:g} s"})
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        lines = (getattr(error, "stderr", None) or "").strip().splitlines() or [str(error)]
        return DeviceCheck(**asdict(failed) | {"note": f"its process died: {lines[-1]}"})


def _measured(session: Any) -> tuple[Float32Array, float]:
    """The probabilities of a made-up window, and the windows per second."""
    inputs = np.random.default_rng(0).standard_normal((1, _CHANNELS[0], _N_MELS, _N_FRAMES)).astype(np.float32)
    [probabilities] = session.run(["probabilities"], {"inputs": inputs})  # the first run allocates memory
    n_windows, begin = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < _MEASURED_SECONDS or not n_windows:
        session.run(["probabilities"], {"inputs": inputs})
        n_windows += 1
    return probabilities, n_windows / seconds


def _network() -> bytes:
    """An ONNX file with about as many multiplications for a window as mn04.

    Written by hand, because the package onnx is not installed where models only tag. The numbers of the fields are
    those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
    """
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    name = "inputs"
    for number, (n_inputs, n_outputs) in enumerate(pairwise(_CHANNELS)):
        shape = n_outputs, n_inputs, 3, 3
        values = rng.standard_normal(shape) * math.sqrt(2 / (9 * n_inputs))
        weights.append(_tensor(f"weights{number}", values.astype(np.float32)))
        nodes.append(_node("Conv", [name, f"weights{number}"], f"conv{number}", strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(_node("Relu", [f"conv{number}"], name := f"relu{number}"))
    head = rng.standard_normal((_CHANNELS[-1], _N_LABELS)) / math.sqrt(_CHANNELS[-1])
    weights.append(_tensor("head", head.astype(np.float32)))
    nodes += [_node("GlobalAveragePool", [name], "pooled"), _node("Flatten", ["pooled"], "features")]
    nodes += [_node("MatMul", ["features", "head"], "logits"), _node("Sigmoid", ["logits"], "probabilities")]
    inputs = _value("inputs", (1, _CHANNELS[0], _N_MELS, _N_FRAMES))
    outputs = _value("probabilities", (1, _N_LABELS))
    graph = b"".join([
        *(_field(1, node) for node in nodes),
        _field(2, b"check"),
        *(_field(5, tensor) for tensor in weights),
        _field(11, inputs),
        _field(12, outputs),
    ])  # fmt: skip
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 17))  # IR version 8, opset 17


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: a number, or the bytes of a text or of another message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low]) if not high else bytes([low | 0x80]) + _varint(high)


def _node(operator: str, inputs: Sequence[str], output: str, **attributes: Sequence[int]) -> bytes:
    integers = 7  # the type of an attribute
    return b"".join([
        *(_field(1, name.encode()) for name in inputs),
        _field(2, output.encode()),
        _field(4, operator.encode()),
        *(
            _field(5, _field(1, name.encode()) + b"".join(_field(8, each) for each in values) + _field(20, integers))
            for name, values in attributes.items()
        ),
    ])  # fmt: skip


def _tensor(name: str, values: Float32Array) -> bytes:
    float32 = 1
    dimensions = b"".join(_field(1, length) for length in values.shape)
    return dimensions + _field(2, float32) + _field(8, name.encode()) + _field(9, values.astype("<f4").tobytes())


def _value(name: str, shape: Sequence[int]) -> bytes:
    """The name, the type and the shape of an input or output."""
    float32 = 1
    dimensions = b"".join(_field(1, _field(1, length)) for length in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, float32) + _field(2, dimensions)))
