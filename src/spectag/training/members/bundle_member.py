"""The networks of a bundle: their files, and their outputs in PyTorch and onnxruntime."""

import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import nn

from spectag.array_types import Float32Array, FloatArray
from spectag.audio.front_end import FrontEnd
from spectag.config.recipe import Recipe
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.models.bundle import ONNX_FILE, WEIGHTS_FILE
from spectag.models.novelty import NoveltyModel
from spectag.scoring.calibration import Calibration
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members.clip_logits import clip_logits
from spectag.training.members.head_training import logits_by
from spectag.training.members.member import MemberInputs
from spectag.training.networks.network import TaggerNetwork, build_head
from spectag.training.networks.onnx_export import Dynamic, export_network, trace, with_weights

OTHER_WEIGHTS = ("best", "last")
NETWORK_FILES = {ONNX_FILE, WEIGHTS_FILE, *(f"{name}.safetensors" for name in OTHER_WEIGHTS)}


@dataclass(frozen=True)
class BundleMember:
    """One network of a bundle, and its inputs."""

    recipe: Recipe  # of this member
    front_end: FrontEnd
    network: TaggerNetwork  # on the CPU
    clips: ClipInputs  # on which it was trained
    store: FeatureStore  # of the network before training
    weights_sha256: str  # of the network before training
    other_weights: Mapping[str, TaggerNetwork] = field(default_factory=dict)  # of other epochs: best, last
    novelty: NoveltyModel | None = None  # of the features in `store`
    is_frozen: bool = True  # whether its head was trained on the features in `store`

    def __post_init__(self) -> None:
        unknown = sorted(set(self.other_weights) - set(OTHER_WEIGHTS))
        if unknown:
            raise ValueError(f"other_weights are {' or '.join(OTHER_WEIGHTS)}, got {', '.join(unknown)}")

    def scaled(self, weight: float, bias: float) -> "BundleMember":
        """A copy whose logits are `weight` times this member's, plus `bias`."""
        other_weights = {name: _scaled(network, weight, bias) for name, network in self.other_weights.items()}
        return replace(self, network=_scaled(self.network, weight, bias), other_weights=other_weights)

    def training_logits(self, index: int) -> FloatArray:
        """Logits (n_labels,) of a training clip, computed as training does: by the head on the stored features."""
        if not self.is_frozen:
            return clip_logits(self.network, self.clips.parts(index))
        windows = self.network.windows
        return self.store.of_parts(self.clips, index, windows).logits(partial(logits_by, self.network.head), windows)

    def training_novelty(self, index: int) -> float | None:
        """The novelty of a training clip, by the stored features; None if this member does not compute it."""
        if self.novelty is None:
            return None
        return float(self.novelty(self.store.of_parts(self.clips, index).features).min())

    def outputs(self, session: Any, index: int) -> tuple[Float32Array, Float32Array, Float32Array]:
        """For the first part of a training clip: probabilities and logits by onnxruntime, and logits by PyTorch."""
        batch = np.array(next(self.clips.parts(index)).inputs[None])
        probabilities, logits = session.run(["probabilities", "logits"], {"inputs": batch})
        with torch.inference_mode():
            return probabilities, logits, self.network(torch.from_numpy(batch)).numpy()


def _scaled(network: TaggerNetwork, weight: float, bias: float) -> TaggerNetwork:
    scaled = copy.deepcopy(network)
    last = [module for module in scaled.head.modules() if isinstance(module, nn.Linear)][-1]  # every head ends in one
    with torch.no_grad():
        last.weight.mul_(weight)
        last.bias.mul_(weight).add_(bias)
    return scaled


def network_with_novelty(members: Sequence[BundleMember]) -> int | None:
    """The index of the network that computes the novelty: the first one that can; None if none can."""
    return next((index for index, member in enumerate(members) if member.novelty is not None), None)


def write_networks(folders: Sequence[Path], members: Sequence[BundleMember], calibration: Calibration | None) -> None:
    """Write model.onnx and the weights of each member into its folder. `calibration` becomes part of model.onnx."""
    with_novelty = network_with_novelty(members)
    for index, (folder, member) in enumerate(zip(folders, members, strict=True)):
        folder.mkdir(parents=True, exist_ok=True)
        novelty = member.novelty if index == with_novelty else None
        _write_onnx(folder / ONNX_FILE, member, calibration, novelty)
        _save_weights(member.network, folder / WEIGHTS_FILE)
        for name, network in member.other_weights.items():
            _save_weights(network, folder / f"{name}.safetensors")


def _write_onnx(
    path: Path, member: BundleMember, calibration: Calibration | None, novelty: NoveltyModel | None
) -> None:
    network, example = member.network, member.clips.example
    if member.is_frozen:
        features = onnx.load(member.store.onnx_file(example))
    else:
        features = with_weights(member.store.graph(example), network.extractor)
    n_features = sum(member.store.group_sizes(example))
    export_network(
        features, network.head, n_features, path, windows=network.windows, calibration=calibration, novelty=novelty
    )


def _save_weights(network: TaggerNetwork, path: Path) -> None:
    save_file(network.state_dict(), path)
    path.chmod(0o644)  # safetensors makes the file readable by its owner only


def seconds_per_export(inputs: MemberInputs, n_labels: int, *, is_frozen: bool) -> float:
    """How long it takes to write the ONNX file of a member's network, by writing one with a random head."""
    _import_exporter()
    store, example = inputs.store, inputs.clips.example
    n_features = sum(store.group_sizes(example))
    head = build_head(inputs.recipe.head, n_features, n_labels)
    member = BundleMember(
        inputs.recipe,
        inputs.front_end,
        TaggerNetwork(store.extractor, head),
        inputs.clips,
        store,
        "",
        is_frozen=is_frozen,
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        _write_onnx(Path(folder) / ONNX_FILE, member, None, None)
        return time.monotonic() - started


@cache
def _import_exporter() -> None:
    """Load what the first export loads, which takes seconds."""
    trace(nn.Linear(1, 1), torch.zeros(2, 1), "inputs", ["outputs"], {0: Dynamic})
