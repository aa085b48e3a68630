"""What every backbone offers."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn


class FeatureMaps(NamedTuple):
    """What a network made of a batch.

    `stages` are feature maps (batch, channels, height, width), shallow first; `embedding` (batch, n) is the layer
    before the network's own labels, where it has one of its own.
    """

    stages: tuple[Tensor, ...]
    embedding: Tensor | None = None


class Backbone(nn.Module):
    """A network that shows all its stages."""

    network: nn.Module

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        """Feature maps of inputs (batch, channels, height, width)."""
        raise TypeError(f"{type(self).__name__} has no feature_maps")

    def forward(self, inputs: Tensor) -> FeatureMaps:
        """Same as `feature_maps`."""
        return self.feature_maps(inputs)

    def local_file(self) -> Path | None:
        """Published weights that are here already in a place of the network's own."""
        return None

    def load_published(self, path: Path) -> None:
        """Load a published file strictly; whatever does not fit is an error of torch's."""
        raise TypeError(f"{type(self).__name__} has no published weights")

    def fetch_published(self) -> None:
        """Load the weights by the own download of the library that publishes them."""
        raise TypeError(f"{type(self).__name__} has no download of its own")


def first_line(error: Exception) -> str:
    """The first line of an error's text, for a message of one line."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
