"""ONNX files of the parts of a tagger."""

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from spectag.tagger import FeatureExtractor

Dynamic = torch.export.Dim.DYNAMIC
PRODUCER = "spectag"


def export_features(extractor: FeatureExtractor, example: Tensor, path: Path) -> None:
    """Write an ONNX file: inputs (batch, channels, height, width) to features (batch, n_features).

    Parameters
    ----------
    extractor : FeatureExtractor
    example : float tensor of shape (2, channels, height, width)
        Any input. Width may differ later on, but for networks that take one size only; height may not.
    path : Path
    """
    for free in ({0: Dynamic, 3: Dynamic}, {0: Dynamic}):  # vision transformers take one width only
        try:
            model = _export(extractor.eval(), example, "inputs", "features", free)
        except Exception:
            if 3 not in free:
                raise
        else:
            _save(model, path)
            return


def export_tagger(features: Path, head: nn.Module, n_features: int, path: Path) -> None:
    """Write an ONNX file from that of the features and a head: inputs to `probabilities` and `features`."""
    model = _export(_Probabilities(head).eval(), torch.zeros(2, n_features), "pooled", "probabilities", {0: Dynamic})
    below = onnx.load(features)
    above = compose.add_prefix(model, "head/", rename_inputs=False, rename_outputs=False)
    above.ir_version = below.ir_version
    merged = compose.merge_models(
        below, above, io_map=[("features", "pooled")], outputs=["probabilities", "features"], producer_name=PRODUCER
    )
    merged.graph.output.sort(key=lambda output: output.name, reverse=True)  # probabilities first
    _save(merged, path)


class _Probabilities(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.head(features))


def _export(network: nn.Module, example: Tensor, source: str, result: str, free: dict[int, Any]) -> onnx.ModelProto:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter warns of its own workings
        program: Any = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[source],
            output_names=[result],
            dynamic_shapes=(free,),
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
