"""The interface of all backbones."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn


class FeatureMaps(NamedTuple):
    """Outputs of a backbone for a batch.

    `stages` are feature maps (batch, channels, height, width), first stage first. `embedding` (batch, n) is the layer
    before the labels of the pretraining task, if the network has such a layer.
    """

    stages: tuple[Tensor, ...]
    embedding: Tensor | None = None


class Backbone(nn.Module):
    """A network that returns the feature maps of all its stages."""

    network: nn.Module
    embedding_is_last: bool = False
    """Whether features of kind "last" are the embedding, if there is one."""

    @property
    def settings(self) -> str:
        """Settings of the network on which its features depend, besides its name and weights."""
        return ""

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        """Feature maps of inputs (batch, channels, height, width)."""
        raise TypeError(f"{type(self).__name__} has no feature_maps")

    def forward(self, inputs: Tensor) -> FeatureMaps:
        """Same as `feature_maps`."""
        return self.feature_maps(inputs)

    def classifier(self) -> nn.Linear | None:
        """The layer from the embedding to the labels of the pretraining task; None if there is none."""
        return None

    def text_classifier(self, texts: Sequence[str]) -> nn.Linear | None:
        """The layer from the embedding to the similarity with each text; None if the network knows no texts.

        Raises
        ------
        WeightsError
            If its part for texts cannot be opened.
        """
        return None

    def local_file(self) -> Path | None:
        """A file of published weights in a place that only this network uses; None if there is none."""
        return None

    def load_published(self, path: Path) -> None:
        """Load a published file strictly; torch raises an error if it does not match."""
        raise TypeError(f"{type(self).__name__} has no published weights")

    def fetch_published(self) -> None:
        """Load the weights with the download function of the library that publishes them."""
        raise TypeError(f"{type(self).__name__} has no download function")
