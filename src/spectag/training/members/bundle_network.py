"""A trained network of a bundle: what is written of it, and its logits of training clips."""

from dataclasses import dataclass, replace
from typing import Protocol, Self

from spectag.array_types import FloatArray
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.models.clip_windows import FrameWindows
from spectag.training.heads.head_weights import HeadWeights
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.networks.feature_network import Weights


class BundleNetwork(Protocol):
    """A trained network: a `FrozenNetwork`, or a `FinetunedNetwork` of PyTorch."""

    @property
    def head(self) -> HeadWeights:
        """Its head."""

    @property
    def windows(self) -> FrameWindows | None:
        """The windows whose maximum is in the logits; None: whole clips."""

    @property
    def weights(self) -> Weights:
        """Its weights without the head."""

    def scaled(self, weight: float, bias: float) -> Self:
        """A network whose logits are `weight` times this one's, plus `bias`."""

    def clip_logits(self, clips: ClipInputs, index: int, n_parts: int | None = None) -> FloatArray:
        """Logits (n_labels,) of a training clip, as training computes them; with `n_parts`, of its first parts."""


@dataclass(frozen=True)
class FrozenNetwork:
    """A network that was not trained, with a trained head on its features in `store`."""

    store: FeatureStore
    head: HeadWeights
    windows: FrameWindows | None = None

    @property
    def weights(self) -> Weights:
        return self.store.network.weights

    def scaled(self, weight: float, bias: float) -> "FrozenNetwork":
        return replace(self, head=self.head.scaled(weight, bias))

    def clip_logits(self, clips: ClipInputs, index: int, n_parts: int | None = None) -> FloatArray:
        parts = self.store.of_parts(clips, index, self.windows).first(n_parts)
        return parts.logits(self.head.logits, self.windows)
