"""ONNX files of the parts of a tagger."""

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import compose, numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

from spectag.models.onnx_calibration import with_calibration
from spectag.scoring.calibration import Calibration
from spectag.training.networks.network import FeatureExtractor

Dynamic = torch.export.Dim.DYNAMIC
PRODUCER = "spectag"
OUTPUTS = ("probabilities", "features", "logits")


def trace_features(extractor: FeatureExtractor, example: Tensor) -> onnx.ModelProto:
    """An extractor's graph, inputs (batch, channels, height, width) to features (batch, n_features), as torch has it.

    Nothing is folded yet: each weight is an initializer by its name in the state dict. So the graph serves every
    extractor that is built alike, and the seconds that tracing takes are needed once; see `with_weights`.

    Parameters
    ----------
    extractor : FeatureExtractor
    example : float tensor of shape (2, channels, height, width)
        Any input. Width may differ later on, but for networks that take one size only; height may not.
    """
    extractor.eval()
    try:
        return trace(extractor, example, "inputs", ["features"], {0: Dynamic, 3: Dynamic}, optimize=False)
    except Exception:  # vision transformers take one width only
        return trace(extractor, example, "inputs", ["features"], {0: Dynamic}, optimize=False)


def with_weights(graph: onnx.ModelProto, extractor: FeatureExtractor) -> onnx.ModelProto:
    """A traced graph with the weights of an extractor that is built as the traced one, folded for speed."""
    weights = extractor.state_dict()
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    for initializer in model.graph.initializer:
        if initializer.name in weights:
            values = weights[initializer.name].numpy()
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    optimized: onnx.ModelProto = optimizer.optimize(model)
    return optimized


def export_features(extractor: FeatureExtractor, example: Tensor, path: Path) -> None:
    """Write an ONNX file: inputs (batch, channels, height, width) to features (batch, n_features).

    Parameters
    ----------
    extractor : FeatureExtractor
    example : float tensor of shape (2, channels, height, width)
        As for `trace_features`.
    path : Path
    """
    _save(with_weights(trace_features(extractor, example), extractor), path)


def export_tagger(
    features: onnx.ModelProto,
    head: nn.Module,
    n_features: int,
    path: Path,
    *,
    calibration: Calibration | None = None,
) -> None:
    """Write an ONNX file from that of the features and a head: inputs to `probabilities`, `features` and `logits`."""
    model = trace(
        _Answers(head).eval(), torch.zeros(2, n_features), "pooled", ["probabilities", "logits"], {0: Dynamic}
    )
    above = compose.add_prefix(model, "head/", rename_inputs=False, rename_outputs=False)
    above.ir_version = features.ir_version
    merged = compose.merge_models(
        features, above, io_map=[("features", "pooled")], outputs=list(OUTPUTS), producer_name=PRODUCER
    )
    versions = {opset.domain: opset for opset in merged.opset_import}  # named twice, which some tools refuse
    del merged.opset_import[:]
    merged.opset_import.extend(versions.values())
    merged.graph.output.sort(key=lambda output: OUTPUTS.index(output.name))
    _save(with_calibration(merged, calibration), path)


class _Answers(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.head(features)
        return torch.sigmoid(logits), logits


def trace(
    network: nn.Module,
    example: Tensor,
    source: str,
    results: list[str],
    free: dict[int, Any],
    *,
    optimize: bool = True,
) -> onnx.ModelProto:
    """The graph of a network with one input and some results, as torch's exporter makes it."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter warns of its own workings
        program: Any = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[source],
            output_names=results,
            dynamic_shapes=(free,),
            optimize=optimize,
            verbose=False,
        )
    model: onnx.ModelProto = program.model_proto
    return model


def _save(model: onnx.ModelProto, path: Path) -> None:
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # where in the source code each node comes from: paths of this machine
        node.doc_string = ""
    onnx.save(model, path)
