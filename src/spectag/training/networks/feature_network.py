"""The network that computes features: its weights, and its ONNX graph."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from numpy.typing import NDArray

from spectag.array_types import Float32Array
from spectag.errors import ConfigError, first_line
from spectag.system.cache import cache_folder, writable_cache_folder
from spectag.system.work_folder import abandoned_work, work_folder

if TYPE_CHECKING:
    from spectag.training.networks.network import FeatureExtractor

FEATURES_VERSION = 2
"""Increased when the features of a backbone change."""

FeaturesKind = Literal["all", "last"]
"""all: mean and standard deviation over frequency and time of every stage, then the embedding if there is one.
last: the mean of the last stage."""

Weights = Mapping[str, NDArray[Any]]
"""Arrays by their names in the state dict of a `FeatureExtractor`."""


class LinearClassifier(NamedTuple):
    """The layer from the embedding to the labels of the pretraining task: weight (n_labels, n_in), bias (n_labels,)."""

    weight: Float32Array
    bias: Float32Array


class FeatureNetwork(ABC):
    """A network from inputs (batch, channels, height, width) to features (batch, n_features).

    Attributes
    ----------
    name : str
        Of the backbone.
    kind : "all" or "last"
    weights : mapping of str to arrays
    extractor : FeatureExtractor
        The network in PyTorch, for fine-tuning.
    """

    name: str
    kind: FeaturesKind
    weights: Weights
    is_ours: bool = True
    """Whether the network is one that spectag knows; the memory of others is limited."""
    settings: str = ""
    """What the features depend on, besides the weights and the kind."""
    version: str
    """What the ONNX file depends on, besides the weights, the kind and the size of the inputs."""

    @property
    @abstractmethod
    def extractor(self) -> "FeatureExtractor": ...

    @abstractmethod
    def group_sizes(self, example: Float32Array) -> list[int]:
        """The number of features of each stage, first stage first, for an example (channels, height, width).

        Raises
        ------
        ConfigError
            If the network does not accept inputs of this size.
        """

    @abstractmethod
    def write_onnx(self, path: Path, example: Float32Array, weights: Weights) -> None:
        """Write an ONNX file of this architecture: `inputs` (batch, channels, height, width) to `features` (batch, n).

        Parameters
        ----------
        path : Path
        example : float array of shape (channels, height, width)
            Any input. The width is dynamic unless the network accepts only one size.
        weights : mapping of str to arrays
            Those of the network, or those after fine-tuning.
        """

    def classifier(self) -> LinearClassifier | None:
        """The layer from the embedding to the labels of the pretraining task; None if there is none."""
        return None

    def text_classifier(self, texts: Sequence[str]) -> LinearClassifier | None:
        """The layer from the embedding to the similarity with each text; None if the network knows no texts."""
        return None

    @property
    def file_name(self) -> str:
        """The name with only what every file system allows in the name of a file."""
        return re.sub(r"[^\w.-]", "_", self.name)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights, the settings and the features version."""
        digest = hashlib.sha256(f"{FEATURES_VERSION}{self.settings}".encode())
        for name, values in self.weights.items():
            digest.update(name.encode())
            digest.update(values.tobytes())
        return digest.hexdigest()


def size_error(backbone: str, example: Float32Array, error: Exception) -> ConfigError:
    """The error for an input (channels, height, width) of a size that a network does not accept."""
    _, height, width = example.shape
    return ConfigError(
        f"backbone {backbone} does not accept inputs of {height} rows and {width} columns: {first_line(error)}; "
        "set image.height and image.width to a size that it accepts"
    )


def cached_onnx(name: str, write: Callable[[Path], None]) -> Path:
    """The path of a file in the cache of ONNX files; `write` writes it if it does not exist."""
    path = cache_folder() / "onnx" / name
    if not path.exists():
        folder = writable_cache_folder() / "onnx"
        path = folder / name
        with cleared_work_folder(folder) as work:
            write(work / name)
            (work / name).replace(path)
    return path


@contextmanager
def cleared_work_folder(parent: Path) -> Iterator[Path]:
    """A work folder that is removed after the `with` block, together with those of killed runs."""
    try:
        with work_folder(parent) as work:
            yield work
    finally:
        with abandoned_work(parent):
            pass
