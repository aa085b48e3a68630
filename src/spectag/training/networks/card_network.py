"""The network of a network card as a backbone: its features are those of the card's outputs. No PyTorch is needed."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from spectag.array_types import Float32Array
from spectag.config.network_cards import StoredCard
from spectag.errors import ConfigError
from spectag.models.card_files import GRAPH_VERSION, digest_of, network_file
from spectag.models.card_graph import CardGraph, build_card_graph
from spectag.training.networks.feature_network import FEATURES_VERSION, FeatureNetwork, FeaturesKind, Weights

if TYPE_CHECKING:
    from spectag.training.networks.network import FeatureExtractor


class CardNetwork(FeatureNetwork):
    """The network of a network card.

    Parameters
    ----------
    stored : StoredCard
    kind : "all" or "last"
        all: mean and deviation of the embeddings over time, then the embedding. last: the embedding, or that mean if
        there is none.

    Raises
    ------
    ConfigError, WeightsError
        If the network is not available, or not the one of the card.
    BundleError
        If it is no network that spectag opens.
    """

    is_ours = False

    def __init__(self, stored: StoredCard, kind: FeaturesKind) -> None:
        self.card, self.name, self.kind = stored.card, stored.card.name, kind
        self.weights: Weights = {}  # they stay in the graph
        self.version = f"card-{GRAPH_VERSION}"
        self._path = network_file(stored)
        self._digest = digest_of(self._path)

    @property
    def extractor(self) -> "FeatureExtractor":
        raise ConfigError(f"{self.name}: the network of a card cannot be fine-tuned; leave out --mode finetune")

    def group_sizes(self, example: Float32Array) -> list[int]:
        return list(self._graph.group_sizes)

    def write_onnx(self, path: Path, example: Float32Array, weights: Weights) -> None:
        onnx.save(self._graph.with_outputs("features"), path)

    @cached_property
    def weights_sha256(self) -> str:
        settings = self.card.input.model_dump_json() + self.card.outputs.model_dump_json()
        content = f"{FEATURES_VERSION} {GRAPH_VERSION} {self._digest} {settings}"
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def _graph(self) -> CardGraph:
        return build_card_graph(self.card, self._path, kind=self.kind)
