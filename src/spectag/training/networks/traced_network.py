"""Networks of PyTorch, traced to an ONNX graph: those without a graph in the package, and those with random weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from spectag.array_types import Float32Array
from spectag.config.backbones import backbone_spec
from spectag.config.recipe import Recipe
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.feature_network import (
    FEATURES_VERSION,
    FeatureNetwork,
    LinearClassifier,
    Weights,
    cached_onnx,
    size_error,
)
from spectag.training.networks.network import FeatureExtractor, load_part
from spectag.training.networks.onnx_export import trace_features, with_weights


class TracedNetwork(FeatureNetwork):
    """The network of a recipe, built by PyTorch.

    Its weights are the published ones, those of the bundle `init`, or random ones, drawn with the seed.

    Parameters
    ----------
    recipe : Recipe
    has_one_width : bool
        Whether all inputs have the same width, as images do. The network may then accept only this width.
    """

    def __init__(self, recipe: Recipe, *, has_one_width: bool) -> None:
        torch.manual_seed(recipe.seed)
        backbone = build_backbone(recipe.backbone, pretrained=recipe.pretrained and recipe.init is None)
        self.name, self.kind = backbone_spec(recipe.backbone).name, recipe.features
        self.settings, self._has_one_width = backbone.settings, has_one_width
        self._extractor = FeatureExtractor(backbone, recipe.features).eval()
        if recipe.init is not None:
            load_part(self._extractor, "extractor", recipe.init)
        self.weights = {name: values.numpy() for name, values in self._extractor.state_dict().items()}
        self.version = f"torch{torch.__version__}"

    @property
    def extractor(self) -> FeatureExtractor:
        return self._extractor

    def group_sizes(self, example: Float32Array) -> list[int]:
        try:
            with torch.inference_mode():
                return [group.shape[1] for group in self._extractor.groups(torch.from_numpy(example[None].copy()))]
        except Exception as error:  # networks raise errors of any class for a size that they do not accept
            raise size_error(self.name, example, error) from error

    def write_onnx(self, path: Path, example: Float32Array, weights: Weights) -> None:
        self.group_sizes(example)  # its message about a wrong size is clearer than the exporter's
        onnx.save(with_weights(self.graph(example), weights), path)

    def text_classifier(self, texts: Sequence[str]) -> LinearClassifier | None:
        layer = self._extractor.backbone.text_classifier(texts)
        return None if layer is None else LinearClassifier(layer.weight.detach().numpy(), layer.bias.detach().numpy())

    def graph(self, example: Float32Array) -> onnx.ModelProto:
        """The traced graph of the architecture for `with_weights`, kept in the cache, because tracing takes seconds."""
        shapes = {name: values.shape for name, values in self.weights.items()}
        what = f"{FEATURES_VERSION} {shapes}{self.settings}"
        architecture = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
        size = "x".join(map(str, example.shape if self._has_one_width else example.shape[:2]))
        name = f"{self.file_name}-graph-{architecture}-{self.kind}-{size}-{self.version}.onnx"
        inputs = torch.from_numpy(np.stack([example, example]))
        return onnx.load(cached_onnx(name, lambda path: onnx.save(trace_features(self._extractor, inputs), path)))
