"""Logits of whole clips by a PyTorch network, computed as the finished model will compute them."""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from scipy.special import expit, logit

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.audio.front_end import FrontEnd
from spectag.config.base import WindowConfig
from spectag.training.inputs.batches import Inputs
from spectag.training.networks.network import TaggerNetwork

_TINY = 1e-12  # smallest distance of a mean probability from 0 and 1, which have no finite logit


@dataclass(frozen=True)
class ValidationClips:
    """Clips to predict: those at `rows` of all clips, with their labels `y_true` (n_clips, n_labels)."""

    inputs: Inputs
    rows: IntArray
    y_true: BoolArray


def n_frames_in(seconds: float, front_end: FrontEnd) -> int | None:
    """Number of frames in an excerpt of this duration; None for images, which are always whole."""
    if front_end.image is not None or front_end.mel is None:
        return None
    return max(1, round(seconds * front_end.mel.sample_rate / front_end.mel.hop_length))


def logits_of_clips(
    network: TaggerNetwork, clips: ValidationClips, front_end: FrontEnd, accelerator: Accelerator
) -> FloatArray:
    """Logits (n_clips, n_labels) of whole clips in single precision. The processes share the work."""
    own = range(accelerator.process_index, len(clips.rows), accelerator.num_processes)
    was_training = network.training
    network.eval()
    results = [(i, _clip_logits(network, clips.inputs(int(clips.rows[i])), front_end)) for i in own]
    network.train(was_training)
    logits = np.empty((len(clips.rows), clips.y_true.shape[1]))
    for i, values in gather_object(results):
        logits[i] = values
    return logits


@torch.inference_mode()
def _clip_logits(network: TaggerNetwork, inputs: Float32Array, front_end: FrontEnd) -> FloatArray:
    """Logits (n_labels,) of a clip. A long clip is split, and the probabilities of its chunks are averaged."""
    device = next(network.parameters()).device
    n_frames = inputs.shape[-1]
    longest = n_frames_in(WindowConfig().max_clip_seconds, front_end) or n_frames
    starts = range(0, n_frames, longest)
    logits: list[FloatArray] = []
    for start in starts:
        chunk = torch.from_numpy(np.array(inputs[None, ..., start : start + longest], np.float32)).to(device)
        logits.append(network(chunk.to(memory_format=torch.channels_last))[0].cpu().double().numpy())
    if len(logits) == 1:
        return logits[0]
    mean = np.average(expit(logits), axis=0, weights=[min(longest, n_frames - start) for start in starts])
    return np.asarray(logit(mean.clip(_TINY, 1 - _TINY)))
