"""Compose a card's network, run it, and measure its speed and memory: functions for processes of their own."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spectag.array_types import Float32Array
from spectag.config.network_cards import NetworkCard
from spectag.models.network_session import open_session

if TYPE_CHECKING:
    from spectag.models.card_graph import CardGraph

_LEAST_MEASURED_SECONDS = 0.5
_MAX_RUNS = 20


@dataclass(frozen=True, repr=False)
class CompositionRequest:
    """A card, its network, and where the composed network is written."""

    card: NetworkCard
    network: Path
    composed: Path

    def __repr__(self) -> str:
        """For the error of a process that died."""
        return "the network"


@dataclass(frozen=True, eq=False, repr=False)
class NetworkRunRequest:
    """A network, the output that is wanted, and inputs (1, channels, height, width)."""

    path: Path
    output: str
    inputs: tuple[Float32Array, ...]

    def __repr__(self) -> str:
        """For the error of a process that died."""
        return "the network"


@dataclass(frozen=True, eq=False)
class NetworkRun:
    """The output for each input, the seconds that the first input takes on one core, and the memory in bytes."""

    outputs: tuple[Float32Array, ...]
    seconds: float
    memory_bytes: int | None
    """None if the system does not report it."""


def compose_network(request: CompositionRequest) -> "CardGraph":
    """Compose the network of a card and write it into a file; the result is without it."""
    import onnx

    from spectag.models.card_graph import build_card_graph

    graph = build_card_graph(request.card, request.network)
    onnx.save(graph.model, request.composed)
    return replace(graph, model=onnx.ModelProto())


def run_network(request: NetworkRunRequest) -> NetworkRun:
    """Run a network. onnxruntime's errors have no common class."""
    import onnxruntime  # noqa: F401 - its own memory does not count

    before = peak_memory()
    session = open_session(request.path, n_threads=1)

    def run(inputs: Float32Array) -> Float32Array:
        output: Float32Array = session.run([request.output], {"inputs": inputs})[0]
        return output

    outputs = tuple(run(inputs) for inputs in request.inputs)  # the first runs are slower
    started, n_runs = time.perf_counter(), 0
    while n_runs == 0 or (n_runs < _MAX_RUNS and time.perf_counter() - started < _LEAST_MEASURED_SECONDS):
        run(request.inputs[0])
        n_runs += 1
    seconds = (time.perf_counter() - started) / n_runs
    after = peak_memory()
    return NetworkRun(outputs, seconds, None if before is None or after is None else after - before)


def peak_memory() -> int | None:
    """The largest memory of this process so far, in bytes; None if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):  # not Linux
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if kilobytes is None else 1024 * int(kilobytes)
