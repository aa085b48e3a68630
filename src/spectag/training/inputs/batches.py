"""Batches for fine-tuning: random excerpts of the clips, all of one length.

An excerpt and its augmentation depend only on the seed, the epoch and the clip's position in the epoch: not on earlier
batches, on the number of processes, or on the step from which a run was resumed.

A clip with noisy labels is in an epoch with a probability in proportion to its weight, so its loss is not multiplied by
this weight again, except for what exceeds a probability of 1. On average over epochs, each of these clips counts by its
weight. The loss of the other clips, which are all in an epoch, is multiplied by their weight.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.audio.front_end import FrontEnd
from spectag.config.training import AugmentConfig, FinetuneConfig
from spectag.errors import DataError
from spectag.system.worker_pool import n_usable_cores
from spectag.training.inputs.augmenter import Augmenter, Draw, draw, level_of_no_power, log_mel_of, power_of

Inputs = Callable[[int], Float32Array]

_N_BATCHES_AHEAD = 4
_TOLERANCE = 1e-3  # above the rounding errors of log_mels


@dataclass(frozen=True)
class Examples:
    """Clips to train on.

    `inputs(i)` is the input (channels, height, width) of clip i. `targets` has shape (n_clips, n_labels); `weights` and
    `is_noisy` (clips with noisy labels) have shape (n_clips,). `backgrounds` are inputs of noise to add.
    """

    inputs: Inputs
    targets: Float32Array
    weights: Float32Array
    is_noisy: BoolArray
    backgrounds: Sequence[Float32Array] = ()

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Batch:
    """Clips of one step, on the CPU and not yet augmented."""

    inputs: Tensor
    others: Tensor | None
    backgrounds: Tensor | None
    targets: Tensor
    other_targets: Tensor | None
    weights: Tensor
    is_noisy: Tensor
    draws: tuple[Draw, ...]
    n_in_step: int
    """Number of clips of this step in all processes together."""

    def augmented(self, augmenter: Augmenter, device: torch.device) -> tuple[Tensor, Tensor]:
        """Augmented inputs and targets, on the device."""

        def moved(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(device, non_blocking=True)

        inputs, targets = self.inputs.to(device, non_blocking=True), self.targets.to(device, non_blocking=True)
        return augmenter(
            inputs, moved(self.others), moved(self.backgrounds), targets, moved(self.other_targets), self.draws
        )


class _LoadedClip(NamedTuple):
    """One clip of a batch: its row and that of the clip to add, their excerpts, and the drawn augmentation."""

    row: int
    other_row: int
    inputs: Float32Array
    other: Float32Array
    background: Float32Array
    draw: Draw


class Batches:
    """The batches of every epoch, loaded by threads during training.

    Parameters
    ----------
    examples : Examples
    front_end : FrontEnd
        Defines the values of silence.
    width : int or None
        Frames or samples of an excerpt; None if all inputs have one width.
    finetune, augment : configs
    batch_size : int
        Clips of one step in all processes together.
    seed : int
    rank, n_ranks : int
        Index of this process, and number of processes that share each batch.

    Raises
    ------
    DataError
        If there are fewer clips than processes.
    """

    def __init__(
        self,
        examples: Examples,
        front_end: FrontEnd,
        width: int | None,
        finetune: FinetuneConfig,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        self._examples, self._front_end, self._width = examples, front_end, width
        self._short, self._augment, self._seed = finetune.short_clips, augment, seed
        self._rank, self._n_ranks = rank, n_ranks
        self._clean = np.flatnonzero(~examples.is_noisy)
        self._noisy = np.flatnonzero(examples.is_noisy & (examples.weights > 0))
        weights = examples.weights[self._noisy].astype(np.float64)
        total = min(round(weights.sum(), 6), len(self._clean))  # rounded: ten times float32(0.3) is not 3
        n_noisy = max(1, int(total)) if len(weights) else 0
        self._noisy_probabilities = np.minimum(weights * (n_noisy / max(weights.sum(), 1e-9)), 1.0)
        self._weights = np.where(examples.is_noisy, total / max(n_noisy, 1), examples.weights).astype(np.float32)
        always = self._noisy_probabilities == 1  # such a clip should be in an epoch more than once
        self._weights[self._noisy[always]] = weights[always] * (total / max(weights.sum(), 1e-9))
        self.n_clips = len(self._clean) + round(self._noisy_probabilities.sum())
        """Clips of an epoch: all clean ones, and as many noisy ones as their weights add up to, at most as many."""
        if self.n_clips < n_ranks:
            raise DataError(f"{self.n_clips} training clips are too few for {n_ranks} processes; launch fewer")
        self.n_steps = min(-(-self.n_clips // batch_size), self.n_clips // n_ranks)  # a clip for each process

    def epoch(self, number: int, *, augmented: bool, first_step: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from `first_step` on; without `augmented`, excerpts without augmentation."""
        rng = np.random.default_rng((self._seed, number))
        chosen = self._noisy[sample_systematically(self._noisy_probabilities, rng)]
        order = rng.permutation(np.concatenate([self._clean, chosen]))
        steps = np.array_split(np.arange(len(order)), self.n_steps)[first_step:]
        pool = ThreadPoolExecutor(n_usable_cores())
        waiting: deque[Future[Batch]] = deque()
        try:
            for positions in steps:
                waiting.append(pool.submit(self._load, number, positions, order, augmented))
                if len(waiting) > _N_BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)  # also after an error, or if the caller stops early

    def _load(self, number: int, positions: IntArray, order: IntArray, augmented: bool) -> Batch:
        examples = self._examples
        own = np.array_split(positions, self._n_ranks)[self._rank]
        clips = [self._load_clip(number, int(position), order, augmented) for position in own]
        rows, other_rows, inputs, others, backgrounds, draws = map(list, zip(*clips, strict=True))
        needs_other = any(drawn.needs_other for drawn in draws)
        return Batch(
            _stacked(inputs),
            _stacked(others) if needs_other else None,
            _stacked(backgrounds) if any(drawn.needs_background for drawn in draws) else None,
            torch.from_numpy(examples.targets[rows]),
            torch.from_numpy(examples.targets[other_rows]) if needs_other else None,
            torch.from_numpy(self._weights[rows]),  # whatever is added, so that each clip counts once
            torch.from_numpy(examples.is_noisy[rows] | examples.is_noisy[other_rows]),
            tuple(draws),
            len(positions),
        )

    def _load_clip(self, number: int, position: int, order: IntArray, augmented: bool) -> _LoadedClip:
        examples, row = self._examples, int(order[position])
        rng = np.random.default_rng((self._seed, number, 1 + position))  # 0 would repeat the stream of the order
        drawn = draw(self._augment, rng) if augmented else Draw()
        inputs = self._excerpt(examples.inputs(row), rng)
        other_row, other, background = row, inputs, inputs
        if drawn.needs_other:
            other_row = int(rng.choice(order))
            other = self._excerpt(examples.inputs(other_row), rng)
        if drawn.needs_background:
            background = self._excerpt(examples.backgrounds[int(rng.integers(len(examples.backgrounds)))], rng)
        return _LoadedClip(row, other_row, inputs, other, background, drawn)

    def _excerpt(self, inputs: Float32Array, rng: np.random.Generator) -> Float32Array:
        if self._width is None:
            return inputs
        return crop_or_pad(inputs, self._width, silence_of(inputs, self._front_end), rng, short=self._short)


def sample_systematically(probabilities: FloatArray, rng: np.random.Generator) -> IntArray:
    """Indices of a random sample that contains each item with exactly its probability.

    Parameters
    ----------
    probabilities : float array of shape (n_items,)
        From 0 to 1. Their sum, rounded, is the number of sampled items.
    rng : Generator

    References
    ----------
    Madow, "On the theory of systematic sampling, II", Annals of Mathematical Statistics 1949.
    """
    if not len(probabilities):
        return np.arange(0)
    order = rng.permutation(len(probabilities))
    ends = np.cumsum(probabilities[order])
    n_items = round(ends[-1])
    return order[np.searchsorted(ends * (n_items / ends[-1]), rng.random() + np.arange(n_items), side="right")]


def silence_of(inputs: Float32Array, front_end: FrontEnd) -> float:
    """The value of a silent frame (or sample) next to an input (channels, height, width)."""
    if front_end.input == "waveform":
        return 0.0
    lowest, mel = float(inputs.min()), front_end.mel
    if front_end.image is not None or mel is None or (mel.ref == "max" and mel.top_db is None):
        return lowest
    if mel.top_db is None:
        silence = level_of_no_power(mel)
    else:
        loudest = power_of(torch.tensor([[float(inputs.max())]], dtype=torch.float64), mel)
        silence = float(log_mel_of(torch.cat([loudest, torch.zeros_like(loudest)], dim=1), mel).min())
    return lowest if lowest - silence < _TOLERANCE else silence  # a silent clip stays constant


def crop_or_pad(
    inputs: Float32Array, width: int, silence: float, rng: np.random.Generator, *, short: str = "pad"
) -> Float32Array:
    """`width` frames of an input (channels, height, n_frames) from a random position.

    Parameters
    ----------
    inputs : float array
    width : int
    silence : float
        Value that fills up a shorter input.
    short : "pad", "wrap" or "both"
        Pad a shorter input with silence at a random position, repeat it, or do either at random.
    """
    n_frames = inputs.shape[-1]
    if n_frames >= width:
        start = rng.integers(n_frames - width + 1)
        return inputs[..., start : start + width]
    if short == "wrap" or (short == "both" and rng.random() < 0.5):
        return np.tile(inputs, -(-width // n_frames))[..., :width]
    start = rng.integers(width - n_frames + 1)
    padded = np.full((*inputs.shape[:-1], width), silence, np.float32)
    padded[..., start : start + n_frames] = inputs
    return padded


def _stacked(inputs: Sequence[Float32Array]) -> Tensor:
    return torch.from_numpy(np.stack(inputs).astype(np.float32, copy=False))
