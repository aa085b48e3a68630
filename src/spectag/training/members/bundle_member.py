"""The networks of a bundle: their files, and their outputs in training and in onnxruntime."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from spectag.array_types import Float32Array, FloatArray
from spectag.audio.front_end import FrontEnd
from spectag.config.recipe import Recipe
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.models.bundle import ONNX_FILE, WEIGHTS_FILE
from spectag.models.novelty import NoveltyModel
from spectag.scoring.calibration import Calibration
from spectag.training.heads.head_weights import HeadWeights
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members.bundle_network import BundleNetwork, FrozenNetwork
from spectag.training.members.member import MemberInputs
from spectag.training.networks.onnx_composition import write_network

OTHER_WEIGHTS = ("best", "last")
NETWORK_FILES = {ONNX_FILE, WEIGHTS_FILE, *(f"{name}.safetensors" for name in OTHER_WEIGHTS)}


@dataclass(frozen=True)
class BundleMember:
    """One network of a bundle, and its inputs."""

    recipe: Recipe  # of this member
    front_end: FrontEnd
    network: BundleNetwork
    clips: ClipInputs  # on which it was trained
    store: FeatureStore  # of the network before training
    weights_sha256: str  # of the network before training
    other_weights: Mapping[str, BundleNetwork] = field(default_factory=dict)  # of other epochs: best, last
    novelty: NoveltyModel | None = None  # of the features in `store`

    def __post_init__(self) -> None:
        unknown = sorted(set(self.other_weights) - set(OTHER_WEIGHTS))
        if unknown:
            raise ValueError(f"other_weights are {' or '.join(OTHER_WEIGHTS)}, got {', '.join(unknown)}")

    def scaled(self, weight: float, bias: float) -> "BundleMember":
        """A copy whose logits are `weight` times this member's, plus `bias`."""
        other_weights = {name: network.scaled(weight, bias) for name, network in self.other_weights.items()}
        return replace(self, network=self.network.scaled(weight, bias), other_weights=other_weights)

    def training_logits(self, index: int) -> FloatArray:
        """Logits (n_labels,) of a training clip, as training computes them."""
        return self.network.clip_logits(self.clips, index)

    def training_novelty(self, index: int) -> float | None:
        """The novelty of a training clip, by the stored features; None if this member does not compute it."""
        if self.novelty is None:
            return None
        return float(self.novelty(self.store.of_parts(self.clips, index).features).min())

    def outputs(self, session: Any, index: int) -> tuple[Float32Array, Float32Array, FloatArray]:
        """For the first part of a training clip: probabilities and logits by onnxruntime, and logits in training."""
        batch = np.array(next(self.clips.parts(index)).inputs[None])
        probabilities, logits = session.run(["probabilities", "logits"], {"inputs": batch})
        return probabilities, logits, self.network.clip_logits(self.clips, index, n_parts=1)[None]


def network_with_novelty(members: Sequence[BundleMember]) -> int | None:
    """The index of the network that computes the novelty: the first one that can; None if none can."""
    return next((index for index, member in enumerate(members) if member.novelty is not None), None)


def write_networks(folders: Sequence[Path], members: Sequence[BundleMember], calibration: Calibration | None) -> None:
    """Write model.onnx and the weights of each member into its folder. `calibration` becomes part of model.onnx."""
    with_novelty = network_with_novelty(members)
    for index, (folder, member) in enumerate(zip(folders, members, strict=True)):
        folder.mkdir(parents=True, exist_ok=True)
        novelty = member.novelty if index == with_novelty else None
        path, example = folder / ONNX_FILE, member.clips.example
        _write_onnx(path, member.store, example, member.network, calibration=calibration, novelty=novelty)
        _save_weights(member.network, folder / WEIGHTS_FILE)
        for name, network in member.other_weights.items():
            _save_weights(network, folder / f"{name}.safetensors")


def _write_onnx(
    path: Path,
    store: FeatureStore,
    example: Float32Array,
    network: BundleNetwork,
    *,
    calibration: Calibration | None = None,
    novelty: NoveltyModel | None = None,
) -> None:
    features = store.features_graph(example, network.weights)
    write_network(features, network.head, path, windows=network.windows, calibration=calibration, novelty=novelty)


def _save_weights(network: BundleNetwork, path: Path) -> None:
    parts = {"extractor": network.weights, "head": network.head.arrays}
    arrays = {f"{part}.{name}": values for part, weights in parts.items() for name, values in weights.items()}
    save_file({name: np.ascontiguousarray(values).reshape(values.shape) for name, values in arrays.items()}, path)
    path.chmod(0o644)  # safetensors makes the file readable by its owner only


def seconds_per_export(inputs: MemberInputs, n_labels: int) -> float:
    """How long it takes to write the ONNX file of a member's network, by writing one with another head."""
    store, example = inputs.store, inputs.clips.example
    head = HeadWeights.zeros(inputs.recipe.head, sum(store.group_sizes(example)), n_labels)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        _write_onnx(Path(folder) / ONNX_FILE, store, example, FrozenNetwork(store, head))
        return time.monotonic() - started
