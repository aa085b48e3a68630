"""Fine-tuning of a network: epochs over augmented excerpts of clips, on one device or several.

Accelerate averages gradients over processes. One checkpoint holds the complete state of a run, so that a resumed run
gives bit-identical weights.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from spectag.array_types import FloatArray
from spectag.audio.front_end import FrontEnd
from spectag.config.base import MAX_SECONDS
from spectag.config.recipe import Recipe
from spectag.config.training import FinetuneConfig
from spectag.errors import BundleError, ConfigError, first_line
from spectag.system.atomic_files import unfinished_file
from spectag.system.epoch_log import Epoch, OnEpoch, epoch_step
from spectag.system.progress import Progress
from spectag.training.inputs.augmenter import Augmenter
from spectag.training.inputs.batches import Batch, Batches, Examples
from spectag.training.members.clip_logits import ValidationClips, logits_of_clips
from spectag.training.members.schedule import SWA_FRACTION, averaging_weight, lr_factor, update_average
from spectag.training.networks.losses import clip_losses
from spectag.training.networks.network import TaggerNetwork
from spectag.training.networks.parameter_groups import optimizer_groups
from spectag.training.setup.optimization import (
    check_losses_finite,
    label_weights_for,
    make_optimizer,
    mean_loss_and_lwlrap,
)
from spectag.training.setup.requirements import has_pretrained_weights

SecondsLeft = Callable[[], float | None]


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned network.

    `other_weights` has the network of the best or the last epoch, if it is another one. `valid_logits` are those of the
    held-out clips after each epoch, (n_valid, n_labels) each, if the best epoch is kept.
    """

    network: TaggerNetwork
    other_weights: dict[str, TaggerNetwork]
    epochs: tuple[Epoch, ...]
    valid_logits: tuple[FloatArray, ...]


def precision_on(device: torch.device, config: FinetuneConfig) -> torch.dtype:
    """The number format of the network's computations on a device.

    Raises
    ------
    ConfigError
        If float16 is requested without a GPU.
    """
    is_gpu = device.type == "cuda"
    if config.precision == "float16" and not is_gpu:
        raise ConfigError("finetune.precision = float16 needs a GPU; use bfloat16, float32 or auto")
    if config.precision == "auto":
        has_bfloat16 = is_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    precision: torch.dtype = getattr(torch, config.precision)
    return precision


class _ModelWithNoisyHead(nn.Module):
    """The network in training, with a second head for clips with noisy labels if `separate_head`."""

    def __init__(self, network: TaggerNetwork, *, separate_head: bool) -> None:
        super().__init__()
        self.network = network
        self.noisy_head = copy.deepcopy(network.head) if separate_head else None

    def forward(self, inputs: Tensor, is_noisy: Tensor) -> Tensor:
        features = self.network.extractor(inputs)
        logits: Tensor = self.network.head(features)
        if self.noisy_head is None:
            return logits
        return torch.where(is_noisy[:, None], self.noisy_head(features), logits)


@dataclass
class _State:
    """The position and history of a run, without weights."""

    epoch: int = 1
    step: int = 0  # the next step of the epoch
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_lwlrap: float = -1.0
    n_averaged: int = 0  # steps whose weights are in the average


class EpochPace(NamedTuple):
    """The expected seconds of an epoch, none or more estimates, and the most epochs; None: no more than planned."""

    expected: tuple[float, ...] = ()
    max_epochs: int | None = None


NO_PACE = EpochPace()
_TOLERATED_FRACTION = 0.25
"""Fraction of an epoch by which a run may exceed its time before an epoch is ended."""
_N_TYPICAL = 3


def _typical(durations: Sequence[float]) -> float:
    """The median of the last epochs, so that one slow epoch on a busy machine does not count."""
    return float(np.median(durations[-_N_TYPICAL:]))


class FineTuning:
    """One fine-tuning run, from its first step or from a checkpoint.

    Parameters
    ----------
    network : TaggerNetwork
        Trained in place.
    examples : Examples
        Clips to train on.
    valid : ValidationClips or None
        Held-out clips, scored after each epoch.
    recipe : Recipe
    front_end : FrontEnd
    accelerator : Accelerator
    n_epochs : int
    name : str
        Name of the training in its epochs.
    checkpoint : Path, optional
        File of the checkpoint.
    fingerprint : str
        Hash of everything that determines the run. A checkpoint with another hash is refused.
    """

    def __init__(
        self,
        network: TaggerNetwork,
        examples: Examples,
        valid: ValidationClips | None,
        recipe: Recipe,
        front_end: FrontEnd,
        *,
        accelerator: Accelerator,
        n_epochs: int,
        name: str = "",
        checkpoint: Path | None = None,
        fingerprint: str = "",
    ) -> None:
        self.recipe, self.config, self.front_end, self.valid = recipe, recipe.finetune, front_end, valid
        self.accelerator, self.n_epochs = accelerator, n_epochs
        self.name, self.checkpoint, self.fingerprint = name, checkpoint, fingerprint
        self.state = _State()
        self.best_weights: dict[str, Tensor] = {}
        self.valid_logits: list[FloatArray] = []  # of each epoch, if the best one is kept
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []  # losses, logits and targets of this epoch's steps
        self.batches = Batches(
            examples,
            front_end,
            _width(examples, front_end, recipe.finetune.crop_seconds),
            recipe.finetune,
            recipe.augment,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            rank=accelerator.process_index,
            n_ranks=accelerator.num_processes,
        )
        self.augmenter = Augmenter(recipe.augment, front_end)
        label_weights = label_weights_for(torch.from_numpy(examples.targets), recipe)
        self.label_weights = None if label_weights is None else label_weights.to(accelerator.device)
        self.n_steps = n_epochs * self.batches.n_steps
        self._make_model(network, examples)
        self.precision = precision_on(accelerator.device, self.config)
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self.precision == torch.float16)

    def _make_model(self, network: TaggerNetwork, examples: Examples) -> None:
        """The model on its device, the average of its weights, the optimizer and the learning-rate schedule."""
        recipe, config, device = self.recipe, self.config, self.accelerator.device
        groups = optimizer_groups(network, _example(examples, self.front_end), recipe.learning_rate, config)
        separate_head = recipe.noisy_labels.separate_head and bool(examples.is_noisy.any())
        self.model = _ModelWithNoisyHead(network, separate_head=separate_head)
        if self.model.noisy_head is not None:
            groups[-1]["params"] += list(self.model.noisy_head.parameters())
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = None if config.weight_averaging == "none" else copy.deepcopy(self.model.network)
        prepared: nn.Module = self.accelerator.prepare_model(self.model)
        self.prepared_model: Any = torch.compile(prepared) if config.compile and device.type == "cuda" else prepared
        self.optimizer = make_optimizer(groups, recipe)
        self.schedule = LambdaLR(self.optimizer, lambda step: lr_factor(step, self.n_steps, config))

    @property
    def _trains_batch_norm(self) -> bool:
        return self.config.batch_norm == "trained" or not has_pretrained_weights(self.recipe)

    def seconds_per_epoch(self, n_steps: int = 4) -> float:
        """Estimated duration of an epoch, from a few steps. Afterwards, the network must not be used any more."""
        self._set_training_mode()
        batches = self.batches.epoch(1, augmented=True)
        n_warmup = min(1, self.batches.n_steps - 1)  # the first step takes longer; it counts only if it is the only one
        for batch in itertools.islice(batches, n_warmup):
            self._train_step(batch)
        started = time.monotonic()
        n_done = sum(1 for _ in map(self._train_step, itertools.islice(batches, n_steps)))
        batches.close()
        per_step = (time.monotonic() - started) / n_done
        validation = 0.0
        if self.valid is not None:
            few = replace(self.valid, rows=self.valid.rows[:4], y_true=self.valid.y_true[:4])
            started = time.monotonic()
            logits_of_clips(self.model.network, few, self.accelerator)
            validation = (time.monotonic() - started) / len(few.rows) * len(self.valid.rows)
        return float(per_step * self.batches.n_steps + validation)

    def losses_at(self, rates: Iterable[float]) -> Iterator[float]:
        """The loss of a batch just before a step, for each learning rate. Do not use the network afterwards.

        Parameters
        ----------
        rates : iterable of float
            Replace the recipe's learning rate; the factors of stages and head remain.
        """
        self._set_training_mode()
        rates = iter(rates)
        for number in itertools.count(1):
            for batch in self.batches.epoch(number, augmented=True):
                rate = next(rates, None)
                if rate is None:
                    return
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["initial_lr"] / self.recipe.learning_rate
                self._train_step(batch)
                losses, _, _ = self._outputs.pop()
                self.state.step += 1
                yield float(losses.mean())

    def run(
        self, on_epoch: OnEpoch, progress: Progress, seconds_left: SecondsLeft = lambda: None, pace: EpochPace = NO_PACE
    ) -> FineTuned:
        """Train to the end. A resumed run first repeats `on_epoch` for its earlier epochs.

        `seconds_left()` is the time for the rest of this run, None without a limit. If epochs take another time than
        expected, the number of epochs changes, and with it the learning rate. An epoch that takes much too long ends
        early, and is the last one.

        Raises
        ------
        ConfigError
            If the learning rate is so large that the loss is not finite.
        """
        state, durations = self.state, list(pace.expected)
        for epoch in state.epochs:
            on_epoch(epoch)
        left = seconds_left()
        while state.epoch <= self.n_epochs and not self._is_out_of_patience():
            epoch = self._train_epoch(progress, self._is_too_late(seconds_left, durations))
            check_losses_finite(epoch, self.recipe)
            before, left = left, seconds_left()
            if before is not None and left is not None and left < before:
                durations.append(before - left)
                self._plan_epochs(left, durations, pace.max_epochs)
            state.epochs.append(epoch)
            if epoch.valid_lwlrap is not None and epoch.valid_lwlrap > state.best_lwlrap:
                state.best_lwlrap, state.best_epoch = epoch.valid_lwlrap, epoch.epoch
                weights = self.current_network().state_dict()
                self.best_weights = {name: values.cpu().clone() for name, values in weights.items()}
            state.epoch, state.step = state.epoch + 1, 0
            self.save()
            on_epoch(epoch)
        return self._result()

    def _plan_epochs(self, seconds: float, durations: Sequence[float], max_epochs: int | None) -> None:
        """Plan as many epochs as fit into the time; the learning rate then falls faster, or more slowly."""
        n_more = math.floor(max(seconds, 0) / max(_typical(durations), 1e-9))
        self.n_epochs = min(max_epochs or self.n_epochs, self.state.epoch + n_more)
        self.n_steps = self.n_epochs * self.batches.n_steps

    def _is_too_late(self, seconds_left: SecondsLeft, durations: Sequence[float]) -> Callable[[], bool]:
        """A function that says whether the time is over, with a part of an epoch to spare."""
        tolerated = _TOLERATED_FRACTION * _typical(durations) if durations else 0.0

        def is_too_late() -> bool:
            left = seconds_left()
            return left is not None and left < -tolerated

        return is_too_late

    def _is_out_of_patience(self) -> bool:
        patience, state = self.config.patience, self.state
        return patience is not None and state.best_epoch > 0 and state.epoch - 1 - state.best_epoch >= patience

    def _train_epoch(self, progress: Progress, is_too_late: Callable[[], bool] = lambda: False) -> Epoch:
        state, started = self.state, time.monotonic()
        first_step = state.step
        augmented = state.epoch <= round(self.n_epochs * (1 - self.recipe.augment.disable_last_fraction))
        self._set_training_mode()
        name = epoch_step(self.name, state.epoch)
        for batch in self.batches.epoch(state.epoch, augmented=augmented, first_step=first_step):
            self._train_step(batch)
            state.step += 1
            progress(name, state.step, self.batches.n_steps)
            if is_too_late():
                break
            if state.step % self.config.checkpoint_steps == 0 and state.step < self.batches.n_steps:
                self.save()
        seconds = max(time.monotonic() - started, 1e-9)
        n_clips = self.batches.n_clips * (state.step - first_step) / self.batches.n_steps
        last_step = max(self.schedule.last_epoch - 1, 0)
        return Epoch(
            state.epoch,
            *self._train_scores(),
            *self._valid_scores(),
            learning_rate=self.recipe.learning_rate * lr_factor(last_step, self.n_steps, self.config),
            clips_per_second=n_clips / seconds,
            seconds_left=(self.n_epochs - state.epoch) * (time.monotonic() - started),
            n_epochs=self.n_epochs,
            part=self.name,
        )

    def _set_training_mode(self) -> None:
        self.prepared_model.train()
        if not self._trains_batch_norm:
            for module in self.prepared_model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        if self.config.unfreeze == 0:
            self.model.network.extractor.eval()  # the features of a frozen network are not random

    def _train_step(self, batch: Batch) -> None:
        state, device = self.state, self.accelerator.device
        torch.manual_seed(_dropout_seed(self.recipe.seed, state.epoch, state.step, self.accelerator.process_index))
        inputs, targets = batch.augmented(self.augmenter, device)
        self.optimizer.zero_grad()
        with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.prepared_model(inputs.to(memory_format=torch.channels_last), batch.is_noisy.to(device))
        losses = self._losses(logits, targets, batch.is_noisy) * batch.weights.to(device)
        loss = losses.sum() / batch.n_in_step * self.accelerator.num_processes  # gradients are then averaged
        self.scaler.scale(loss).backward()
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.prepared_model.parameters(), self.config.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # otherwise float16 overflowed and the step was skipped
            self.schedule.step()
        self._update_average()
        self._outputs.append((losses.detach(), logits.detach().float(), targets))

    def _losses(self, logits: Tensor, targets: Tensor, is_noisy: Tensor) -> Tensor:
        losses = clip_losses(logits, targets, self.recipe.loss, label_weights=self.label_weights)
        kind = self.recipe.noisy_labels.loss
        if kind == "same" or not is_noisy.any():
            return losses
        noisy_loss = self.recipe.loss.model_copy(update={"kind": kind})
        noisy_losses = clip_losses(logits, targets, noisy_loss, label_weights=self.label_weights)
        return torch.where(is_noisy.to(losses.device), noisy_losses, losses)

    def _update_average(self) -> None:
        if self.average is None:
            return
        state = self.state
        n_done = (state.epoch - 1) * self.batches.n_steps + state.step + 1
        if self.config.weight_averaging == "swa" and n_done <= (1 - SWA_FRACTION) * self.n_steps:
            return
        update_average(self.average, self.model.network, averaging_weight(state.n_averaged, self.config))
        state.n_averaged += 1

    def current_network(self) -> TaggerNetwork:
        """The network that would be kept if training ended now: with averaged weights, if there are any."""
        return self.average if self.average is not None and self.state.n_averaged else self.model.network

    def _gathered_outputs(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Losses, logits and targets of the epoch's steps so far, in all processes."""
        self._outputs = [(losses.cpu(), logits.cpu(), targets.cpu()) for losses, logits, targets in self._outputs]
        outputs: list[tuple[Tensor, Tensor, Tensor]] = gather_object(self._outputs)
        return outputs

    def _train_scores(self) -> tuple[float, float | None]:
        """Loss and lwlrap of the epoch's augmented clips, as predicted during training."""
        losses, logits, targets = map(torch.cat, zip(*self._gathered_outputs(), strict=True))
        self._outputs = []
        _, score = mean_loss_and_lwlrap(logits, targets, self.recipe)
        return float(losses.mean()), score

    def _valid_scores(self) -> tuple[float | None, float | None]:
        if self.valid is None:
            return None, None
        network, targets = self.current_network(), torch.from_numpy(self.valid.y_true.astype(np.float64))
        if self._trains_batch_norm:  # each process has the statistics of its own clips
            broadcast(list(network.buffers()))
        logits = logits_of_clips(network, self.valid, self.accelerator)
        if self.config.patience is not None:
            self.valid_logits.append(logits)
        return mean_loss_and_lwlrap(torch.from_numpy(logits), targets, self.recipe)

    def _result(self) -> FineTuned:
        last = _cpu_copy(self.current_network())
        epochs, valid_logits = tuple(self.state.epochs), tuple(self.valid_logits)
        if not self.best_weights or self.state.best_epoch == epochs[-1].epoch:
            return FineTuned(last, {}, epochs, valid_logits)
        best = copy.deepcopy(last)
        best.load_state_dict(self.best_weights)
        if self.config.patience is None:
            return FineTuned(last, {"best": best}, epochs, valid_logits)
        return FineTuned(best, {"last": last}, epochs, valid_logits)

    def save(self) -> None:
        """Write the checkpoint atomically, from the main process only.

        Raises
        ------
        BundleError
            If it cannot be written.
        """
        if self.checkpoint is None:
            return
        outputs = self._gathered_outputs()
        if not self.accelerator.is_main_process:
            return
        values = {
            "fingerprint": self.fingerprint,
            "n_epochs": self.n_epochs,
            "state": asdict(self.state),
            "best_weights": self.best_weights,
            "valid_logits": [torch.from_numpy(logits) for logits in self.valid_logits],
            "outputs": outputs,
            **{name: part.state_dict() for name, part in self._stateful_parts().items()},
        }
        try:
            with unfinished_file(self.checkpoint) as unfinished:
                torch.save(values, unfinished)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            raise BundleError(f"{self.checkpoint}: cannot write the checkpoint: {first_line(error)}") from error

    def _stateful_parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler}
        return parts if self.average is None else {**parts, "average": self.average}

    def load(self, values: dict[str, Any]) -> None:
        """Continue from the values of a checkpoint."""
        state = values["state"]
        self.state = _State(**state | {"epochs": [Epoch(**epoch) for epoch in state["epochs"]]})
        for name, part in self._stateful_parts().items():
            part.load_state_dict(values[name])
        self.best_weights = values["best_weights"]
        self.valid_logits = [logits.numpy() for logits in values["valid_logits"]]
        self._outputs = values["outputs"] if self.accelerator.is_main_process else []


def read_checkpoint(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The values of a checkpoint; None if there is no file.

    Raises
    ------
    ConfigError
        If it belongs to a run with other settings, clips or labels.
    BundleError
        If it is damaged.
    """
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = values["fingerprint"]
    except Exception as error:  # for a damaged file, torch raises errors without a common class
        problem = f"{path}: the checkpoint is damaged: {first_line(error)}"
        raise BundleError(f"{problem}; leave out --resume to start again") from error
    if found != fingerprint:
        problem = f"{path.parent}: the stopped run had other settings, clips or labels, so it cannot be resumed"
        raise ConfigError(f"{problem}; run the same command as before, or leave out --resume to start again")
    return values


def _width(examples: Examples, front_end: FrontEnd, crop_seconds: float | None) -> int | None:
    """Number of frames or samples of a training excerpt; None for images, which are always whole."""
    if front_end.image is not None:
        return None
    if crop_seconds is not None:
        return front_end.width_of(crop_seconds)
    longest = max(int(examples.inputs(i).shape[-1]) for i in range(len(examples)))
    return min(longest, front_end.width_of(MAX_SECONDS) or longest)


def _example(examples: Examples, front_end: FrontEnd) -> Tensor:
    """An input to find the network's stages with; 100 frames of a sound, or the least number of samples, are enough."""
    inputs = examples.inputs(0)[None]
    if front_end.image is None:
        inputs = inputs[..., : max(100, front_end.width_of(0) or 0)]
    return torch.from_numpy(np.array(inputs, np.float32))


def _dropout_seed(*position: int) -> int:
    """A seed that depends only on the position in the run, so that a resumed run has the same dropout."""
    return int(np.random.SeedSequence(position).generate_state(1)[0])


def _cpu_copy(network: TaggerNetwork) -> TaggerNetwork:
    """A copy for saving and exporting."""
    copied = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)
    result: TaggerNetwork = copied.eval().requires_grad_(False)
    return result
