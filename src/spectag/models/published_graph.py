"""ONNX graphs of published networks without their weights, which are part of the package.

`spectag.training.networks.published_graphs` writes them.
"""

import gzip
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spectag.config.backbones import BACKBONES

_FATAL = 4  # onnxruntime's log level; it raises its errors as well


def has_published_graph(backbone: str) -> bool:
    """Whether the package contains the graph of a backbone."""
    return "/" not in backbone and _file(backbone).is_file()


def published_graph(backbone: str) -> bytes:
    """The ONNX graph of a backbone. Its weights are external initializers: only their names and shapes are stored."""
    return gzip.decompress(_file(backbone).read_bytes())


def _file(backbone: str) -> Any:
    graph = BACKBONES[backbone].graph if backbone in BACKBONES else backbone
    return files("spectag.models") / "graphs" / f"{graph}.onnx.gz"


def open_with_weights(graph: bytes, tensors: Mapping[str, NDArray[Any]], *, save_to: Path | None = None) -> Any:
    """An onnxruntime session of a graph and its weights. Surplus, missing or misshaped tensors are an error.

    Batch normalisation is folded into convolutions. `save_to` becomes an ONNX file of the result.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # the same on any machine
    options.log_severity_level = _FATAL
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
    options.add_external_initializers(list(tensors), values)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
