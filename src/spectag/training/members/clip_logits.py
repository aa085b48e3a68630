"""Fine-tuned networks, and their logits of whole clips, computed as the finished model will compute them."""

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.data.spectrograms.clip_inputs import ClipInputs, ClipPart
from spectag.models.clip_windows import FrameWindows
from spectag.models.timeline import cell_seconds, pool_logits
from spectag.training.heads.head_weights import HeadWeights
from spectag.training.members.head_training import head_weights
from spectag.training.networks.feature_network import Weights
from spectag.training.networks.network import TaggerNetwork

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class ValidationClips:
    """Clips to predict: those at `rows` of all clips, with their labels `y_true` (n_clips, n_labels), NaN if unknown.

    `parts(i)` gives the parts of clip i, as `ClipInputs.parts`.
    """

    parts: Callable[[int], Iterable[ClipPart]]
    rows: IntArray
    y_true: BoolArray | FloatArray


def logits_of_clips(network: TaggerNetwork, clips: ValidationClips, accelerator: "Accelerator") -> FloatArray:
    """Logits (n_clips, n_labels) of whole clips in single precision. The processes share the work."""
    from accelerate.utils import gather_object  # frozen training does not need it

    own = range(accelerator.process_index, len(clips.rows), accelerator.num_processes)
    was_training = network.training
    network.eval()
    results = [(i, clip_logits(network, clips.parts(int(clips.rows[i])))) for i in own]
    network.train(was_training)
    logits = np.empty((len(clips.rows), clips.y_true.shape[1]))
    for i, values in gather_object(results):
        logits[i] = values
    return logits


@dataclass(frozen=True)
class FinetunedNetwork:
    """A fine-tuned network of a bundle, on the CPU."""

    network: TaggerNetwork

    @property
    def head(self) -> HeadWeights:
        return head_weights(self.network.head)

    @property
    def windows(self) -> FrameWindows | None:
        return self.network.windows

    @cached_property
    def weights(self) -> Weights:
        return {name: values.numpy() for name, values in self.network.extractor.state_dict().items()}

    def scaled(self, weight: float, bias: float) -> "FinetunedNetwork":
        scaled = copy.deepcopy(self.network)
        last = [module for module in scaled.head.modules() if isinstance(module, nn.Linear)][-1]  # every head ends so
        with torch.no_grad():
            last.weight.mul_(weight)
            last.bias.mul_(weight).add_(bias)
        return FinetunedNetwork(scaled)

    def clip_logits(self, clips: ClipInputs, index: int, n_parts: int | None = None) -> FloatArray:
        return clip_logits(self.network, itertools.islice(clips.parts(index), n_parts))


@torch.inference_mode()
def clip_logits(network: TaggerNetwork, parts: Iterable[ClipPart]) -> FloatArray:
    """Logits (n_labels,) of a clip, pooled from its parts as in `Tagger.tag`."""
    device = next(network.parameters()).device
    logits: list[FloatArray] = []
    starts: list[float] = []
    ends: list[float] = []
    for part in parts:
        inputs = torch.from_numpy(np.array(part.inputs[None], np.float32)).to(device)
        logits.append(network(inputs.to(memory_format=torch.channels_last))[0].cpu().double().numpy())
        starts.append(part.start_seconds)
        ends.append(part.end_seconds)
    return pool_logits(logits, cell_seconds(starts, ends))
