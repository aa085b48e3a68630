"""A trained head as arrays: the same numbers in NumPy, in an ONNX graph, and in a PyTorch module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spectag.array_types import Float32Array, FloatArray
from spectag.training.heads.logistic import LinearHead

HeadKind = Literal["linear", "layer_norm"]
_LAST_LAYER = {"linear": "linear", "layer_norm": "layers.2"}

LAYER_NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class HeadWeights:
    """A head in single precision: features (n, n_features) to logits (n, n_labels).

    Attributes
    ----------
    kind : "linear" or "layer_norm"
        linear: a linear layer on standardised features. layer_norm: on features that are normalised in each clip.
    arrays : mapping of str to arrays
        With the names in the state dict of the PyTorch module of this kind.
    """

    kind: HeadKind
    arrays: Mapping[str, Float32Array]

    @classmethod
    def of_linear(cls, head: LinearHead) -> "HeadWeights":
        """Those of a fitted linear head."""
        values = {
            "center": head.standardization.center,
            "scale": head.standardization.scale,
            "linear.weight": head.weights.T,
            "linear.bias": head.bias,
        }
        return cls("linear", {name: np.ascontiguousarray(array, np.float32) for name, array in values.items()})

    @classmethod
    def zeros(cls, kind: HeadKind, n_features: int, n_labels: int) -> "HeadWeights":
        """A head whose logits are all 0."""
        names = ("center", "scale") if kind == "linear" else ("layers.0.weight", "layers.0.bias")
        last = _LAST_LAYER[kind]
        shapes = dict.fromkeys(names, (n_features,)) | {f"{last}.bias": (n_labels,)}
        arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        return cls(kind, arrays | {f"{last}.weight": np.zeros((n_labels, n_features), np.float32)})

    @property
    def weight(self) -> Float32Array:
        """The weights (n_labels, n_features) of the last layer."""
        return self.arrays[f"{_LAST_LAYER[self.kind]}.weight"]

    @property
    def bias(self) -> Float32Array:
        """The bias (n_labels,) of the last layer."""
        return self.arrays[f"{_LAST_LAYER[self.kind]}.bias"]

    def logits(self, features: Float32Array) -> Float32Array:
        """Logits (n, n_labels) of features (n, n_features)."""
        if self.kind == "linear":
            normalised = (features - self.arrays["center"]) * self.arrays["scale"]
        else:
            centred = features - features.mean(axis=1, keepdims=True)
            deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + LAYER_NORM_EPSILON)
            normalised = centred / deviation * self.arrays["layers.0.weight"] + self.arrays["layers.0.bias"]
        return np.asarray(normalised @ self.weight.T + self.bias, np.float32)

    def scaled(self, weight: float, bias: float) -> "HeadWeights":
        """A head whose logits are `weight` times this one's, plus `bias`."""
        return self._with_last_layer(weight * self.weight, weight * self.bias + bias)

    def _with_last_layer(self, weight: FloatArray | Float32Array, bias: FloatArray | Float32Array) -> "HeadWeights":
        last = {"weight": weight, "bias": bias}
        changed = {f"{_LAST_LAYER[self.kind]}.{name}": np.asarray(array, np.float32) for name, array in last.items()}
        return HeadWeights(self.kind, {**self.arrays, **changed})

    def rebased(self, center: FloatArray, scale: FloatArray) -> "HeadWeights":
        """A linear head with the same logits that standardises features by other values.

        Features with a new scale of 0 are ignored.
        """
        slopes = self.weight.astype(np.float64) * self.arrays["scale"]
        bias = self.bias + slopes @ (center - self.arrays["center"])
        used = scale > 0
        rebased = self._with_last_layer(np.where(used, slopes / np.where(used, scale, 1), 0), bias)
        standardization = {"center": center.astype(np.float32), "scale": scale.astype(np.float32)}
        return HeadWeights(self.kind, {**rebased.arrays, **standardization})


def average_heads(heads: Sequence[HeadWeights]) -> HeadWeights:
    """A head with the mean weights of several heads of one kind. Linear heads first get the same standardisation."""
    if heads[0].kind == "linear":
        center, scale = (_mean(heads, name) for name in ("center", "scale"))
        heads = [head.rebased(center, scale) for head in heads]
    return HeadWeights(heads[0].kind, {name: _mean(heads, name).astype(np.float32) for name in heads[0].arrays})


def _mean(heads: Sequence[HeadWeights], name: str) -> FloatArray:
    return np.asarray(np.mean([head.arrays[name] for head in heads], axis=0, dtype=np.float64))
