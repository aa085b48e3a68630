"""Clips on their way into fine-tuning: stretches of one length, drawn anew each time, in batches.

What a clip looks like depends on the seed, the epoch and its place in it alone: not on the batches before it, on how
many processes share the work, or on where a killed run went on.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectag.array_types import BoolArray, Float32Array, IntArray
from spectag.audio.front_end import FrontEnd
from spectag.config.training import AugmentConfig, FinetuneConfig
from spectag.errors import DataError
from spectag.system.worker_pool import n_usable_cores
from spectag.training.inputs.augmenter import Augmenter, Draw, draw, level_of_no_power, log_mel_of, power_of

Inputs = Callable[[int], Float32Array]

_NO_CHANGES = Draw()
_N_BATCHES_AHEAD = 4
_ROUNDING = 1e-3  # of log_mels, and more


@dataclass(frozen=True)
class Examples:
    """Clips to learn from.

    `inputs(i)` is the input (channels, height, width) of clip i. `targets` has shape (n_clips, n_labels); `weights`
    and `is_noisy` (clips whose labels are doubtful) have shape (n_clips,). `backgrounds` are inputs of noise to add.
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
    """Clips on their way to the network, still on the CPU and not yet augmented."""

    inputs: Tensor
    others: Tensor | None
    backgrounds: Tensor | None
    targets: Tensor
    other_targets: Tensor | None
    weights: Tensor
    is_noisy: Tensor
    draws: tuple[Draw, ...]
    n_in_step: int
    """Clips of this step over all processes."""

    def augmented(self, augmenter: Augmenter, device: torch.device) -> tuple[Tensor, Tensor]:
        """Inputs and targets as the network is to see them, on its device."""

        def there(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(device, non_blocking=True)

        inputs, targets = self.inputs.to(device, non_blocking=True), self.targets.to(device, non_blocking=True)
        return augmenter(
            inputs, there(self.others), there(self.backgrounds), targets, there(self.other_targets), self.draws
        )


class _Shown(NamedTuple):
    """One clip as it is shown once: its row and that of the clip to add, their stretches, and what is to happen."""

    row: int
    other_row: int
    inputs: Float32Array
    other: Float32Array
    background: Float32Array
    draw: Draw


class Batches:
    """The batches of every epoch, loaded by threads while the network works.

    Parameters
    ----------
    examples : Examples
    front_end : FrontEnd
        Tells what silence is.
    width : int or None
        Frames of a stretch; None: inputs have one width already.
    finetune, augment : configs
    batch_size : int
        Clips a step, over all processes.
    seed : int
    rank, n_ranks : int
        This process' place among those that share each batch.

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
        self._examples = examples
        self._front_end = front_end
        self._width = width
        self._short = finetune.short_clips
        self._augment = augment
        self._seed = seed
        self._rank, self._n_ranks = rank, n_ranks
        self._doubtful = np.flatnonzero(examples.is_noisy & (examples.weights > 0))
        self._certain = np.flatnonzero(~examples.is_noisy)
        weights = examples.weights[self._doubtful].astype(np.float64)
        self._chances = weights / weights.sum() if len(weights) else weights
        n_doubtful = min(len(self._certain), len(self._doubtful), max(1, round(float(weights.sum()))))
        self.n_clips = len(self._certain) + n_doubtful
        """Clips of an epoch: those with true labels, and of the doubtful as many as they weigh, at most as many."""
        if self.n_clips < n_ranks:
            raise DataError(f"{self.n_clips} clips to learn from are too few for {n_ranks} processes; start fewer")
        n_full = self.n_clips // n_ranks  # steps in which each process has a clip
        self.n_steps = min(-(-self.n_clips // batch_size), n_full)

    def epoch(self, number: int, *, augmented: bool, first_step: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from a step on; without `augmented`, stretches of the clips as they are."""
        rng = np.random.default_rng((self._seed, number))
        n_doubtful = self.n_clips - len(self._certain)
        chosen = self._doubtful  # those that weigh more come more often
        if n_doubtful < len(chosen):
            chosen = rng.choice(chosen, n_doubtful, replace=False, p=self._chances)
        order = rng.permutation(np.concatenate([self._certain, chosen]))
        steps = np.array_split(np.arange(len(order)), self.n_steps)[first_step:]
        pool = ThreadPoolExecutor(n_usable_cores())
        waiting: deque[Future[Batch]] = deque()
        try:
            for places in steps:
                waiting.append(pool.submit(self._load, number, places, order, augmented))
                if len(waiting) > _N_BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, or where nobody asks for more

    def _load(self, number: int, places: IntArray, order: IntArray, augmented: bool) -> Batch:
        examples = self._examples
        own = np.array_split(places, self._n_ranks)[self._rank]
        shown = [self._show(number, int(place), order, augmented) for place in own]
        rows, other_rows, inputs, others, backgrounds, draws = map(list, zip(*shown, strict=True))
        mixes = any(drawn.needs_other for drawn in draws)
        return Batch(
            _stacked(inputs),
            _stacked(others) if mixes else None,
            _stacked(backgrounds) if any(drawn.needs_background for drawn in draws) else None,
            torch.from_numpy(examples.targets[rows]),
            torch.from_numpy(examples.targets[other_rows]) if mixes else None,
            torch.from_numpy(np.minimum(examples.weights[rows], examples.weights[other_rows])),
            torch.from_numpy(examples.is_noisy[rows] | examples.is_noisy[other_rows]),
            tuple(draws),
            len(places),
        )

    def _show(self, number: int, place: int, order: IntArray, augmented: bool) -> _Shown:
        examples, row = self._examples, int(order[place])
        rng = np.random.default_rng((self._seed, number, 1 + place))  # with 0 it would be that of the order
        drawn = draw(self._augment, rng) if augmented else _NO_CHANGES
        inputs = self._stretch(examples.inputs(row), rng)
        other_row, other, background = row, inputs, inputs
        if drawn.needs_other:
            other_row = int(rng.choice(order))
            other = self._stretch(examples.inputs(other_row), rng)
        if drawn.needs_background:
            background = self._stretch(examples.backgrounds[int(rng.integers(len(examples.backgrounds)))], rng)
        return _Shown(row, other_row, inputs, other, background, drawn)

    def _stretch(self, inputs: Float32Array, rng: np.random.Generator) -> Float32Array:
        if self._width is None:
            return inputs
        return stretch(inputs, self._width, silence_of(inputs, self._front_end), rng, short=self._short)


def silence_of(inputs: Float32Array, front_end: FrontEnd) -> float:
    """What a silent frame beside an input (channels, height, width) would hold."""
    lowest, mel = float(inputs.min()), front_end.mel
    if front_end.image is not None or mel is None or (mel.ref == "max" and mel.top_db is None):
        return lowest
    if mel.top_db is None:
        silence = level_of_no_power(mel)
    else:
        loudest = power_of(torch.tensor([[float(inputs.max())]], dtype=torch.float64), mel)
        silence = float(log_mel_of(torch.cat([loudest, torch.zeros_like(loudest)], dim=1), mel).min())
    return lowest if lowest - silence < _ROUNDING else silence  # a silent clip stays all alike


def stretch(
    inputs: Float32Array, width: int, silence: float, rng: np.random.Generator, *, short: str = "pad"
) -> Float32Array:
    """`width` frames of an input (channels, height, frames) from a random place.

    Parameters
    ----------
    inputs : float array
    width : int
    silence : float
        What an input shorter than that is laid into.
    short : "pad", "wrap" or "both"
        Lay a shorter input into silence, repeat it, or the one or the other by chance.
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
