"""What a network says of whole clips, in torch as the packed tagger will say it."""

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
from spectag.training.networks.network import Tagger

_TINY = 1e-12  # least distance of a mean probability from 0 and 1, which have no logit


@dataclass(frozen=True)
class ValidationClips:
    """Clips that the network is asked about: `y_true` (n_clips, n_labels) of those at `rows`."""

    inputs: Inputs
    rows: IntArray
    y_true: BoolArray


def n_frames_in(seconds: float, front_end: FrontEnd) -> int | None:
    """Frames of a stretch of so many seconds; None for images, which are seen whole."""
    if front_end.image is not None or front_end.mel is None:
        return None
    return max(1, round(seconds * front_end.mel.sample_rate / front_end.mel.hop_length))


def logits_of_clips(
    tagger: Tagger, asked: ValidationClips, front_end: FrontEnd, accelerator: Accelerator
) -> FloatArray:
    """Logits (n_clips, n_labels) of whole clips, in single precision as in tagging; processes share the clips."""
    own = range(accelerator.process_index, len(asked.rows), accelerator.num_processes)
    was_training = tagger.training
    tagger.eval()
    results = [(i, _clip_logits(tagger, asked.inputs(int(asked.rows[i])), front_end)) for i in own]
    tagger.train(was_training)
    logits = np.empty((len(asked.rows), asked.y_true.shape[1]))
    for i, values in gather_object(results):
        logits[i] = values
    return logits


@torch.inference_mode()
def _clip_logits(tagger: Tagger, inputs: Float32Array, front_end: FrontEnd) -> FloatArray:
    """Logits (n_labels,) of a clip, a long one seen in parts."""
    device = next(tagger.parameters()).device
    n_frames = inputs.shape[-1]
    longest = n_frames_in(WindowConfig().max_clip_seconds, front_end) or n_frames
    starts = range(0, n_frames, longest)
    logits: list[FloatArray] = []
    for start in starts:
        part = torch.from_numpy(np.array(inputs[None, ..., start : start + longest], np.float32)).to(device)
        logits.append(tagger(part.to(memory_format=torch.channels_last))[0].cpu().double().numpy())
    if len(logits) == 1:
        return logits[0]
    lengths = [min(longest, n_frames - start) for start in starts]
    mean = np.average(expit(logits), axis=0, weights=lengths)
    result: FloatArray = logit(mean.clip(_TINY, 1 - _TINY))
    return result
