"""The network goes on learning: epochs over augmented stretches of clips, on one device or on many.

Accelerate averages gradients over processes; where a run stands is in one checkpoint, from which it goes on to the same
weights bit for bit.
"""

import copy
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from spectag.audio.front_end import FrontEnd
from spectag.config.recipe import Recipe
from spectag.config.training import FinetuneConfig
from spectag.errors import BundleError, ConfigError
from spectag.system.atomic_files import unfinished_file
from spectag.system.epoch_log import Epoch, OnEpoch, epoch_step
from spectag.system.progress import Progress
from spectag.training.inputs.augmenter import Augmenter
from spectag.training.inputs.batches import Batch, Batches, Examples
from spectag.training.members.clip_logits import ValidationClips, logits_of_clips, n_frames_in
from spectag.training.members.schedule import SWA_SHARE, averaging_weight, rate_factor, update_average
from spectag.training.networks.backbones.base import first_line
from spectag.training.networks.losses import clip_losses
from spectag.training.networks.network import Tagger
from spectag.training.networks.parameter_groups import learning_groups
from spectag.training.setup.optimization import WeightedTensors, check_finite, judge, make_optimizer, weights_of_labels


@dataclass(frozen=True)
class FineTuned:
    """A tagger that has learnt. `others` are those of the best or the last epoch, whichever was not taken."""

    tagger: Tagger
    others: dict[str, Tagger]
    epochs: tuple[Epoch, ...]


def precision_on(device: torch.device, config: FinetuneConfig) -> torch.dtype:
    """In what the network computes on a device.

    Raises
    ------
    ConfigError
        If float16 is asked for without a GPU.
    """
    is_gpu = device.type == "cuda"
    if config.precision == "float16" and not is_gpu:
        raise ConfigError("finetune.precision = float16 needs a GPU; take bfloat16, float32 or auto")
    if config.precision == "auto":
        has_bfloat16 = is_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    precision: torch.dtype = getattr(torch, config.precision)
    return precision


def _seed_of_step(*position: int) -> int:
    """For dropout, such that a run that goes on draws what it would have drawn."""
    return int(np.random.SeedSequence(position).generate_state(1)[0])


class _TaggerWithNoisyHead(nn.Module):
    """The tagger while it learns, with a second head for clips of doubtful labels where one is asked for."""

    def __init__(self, tagger: Tagger, *, separate_head: bool) -> None:
        super().__init__()
        self.tagger = tagger
        self.noisy_head = copy.deepcopy(tagger.head) if separate_head else None

    def forward(self, inputs: Tensor, is_noisy: Tensor) -> Tensor:
        features = self.tagger.extractor(inputs)
        logits: Tensor = self.tagger.head(features)
        if self.noisy_head is None:
            return logits
        return torch.where(is_noisy[:, None], self.noisy_head(features), logits)


@dataclass
class _State:
    """Where a run stands, but for weights."""

    epoch: int = 1
    step: int = 0  # of the epoch, that comes next
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_lwlrap: float = -1.0
    n_averaged: int = 0  # steps whose weights are in the average


def has_pretrained_weights(recipe: Recipe) -> bool:
    """Whether the network begins with weights, and statistics of batch normalisation, that it has learnt before."""
    return recipe.init is not None or (recipe.pretrained and recipe.backbone != "scratch")


class FineTuning:
    """One training of a tagger, from its first step or from where a killed one stood.

    Parameters
    ----------
    tagger : Tagger
        Learns in place.
    examples : Examples
    valid : Asked or None
        Held-out clips, looked at after each epoch.
    recipe : Recipe
    front_end : FrontEnd
    accelerator : Accelerator
    n_epochs : int
    label : str
        What the epochs are told to belong to.
    checkpoint : Path, optional
        Where the run is kept while it lasts.
    fingerprint : str
        Of all that decides what a checkpoint's run was.
    """

    def __init__(
        self,
        tagger: Tagger,
        examples: Examples,
        valid: ValidationClips | None,
        recipe: Recipe,
        front_end: FrontEnd,
        *,
        accelerator: Accelerator,
        n_epochs: int,
        label: str = "",
        checkpoint: Path | None = None,
        fingerprint: str = "",
    ) -> None:
        config = recipe.finetune
        self.recipe, self.config, self.front_end = recipe, config, front_end
        self.accelerator = accelerator
        self.label, self.checkpoint, self.fingerprint = label, checkpoint, fingerprint
        self.n_epochs = n_epochs
        self.valid = valid
        self.state = _State()
        self.batches = Batches(
            examples,
            front_end,
            _width(examples, front_end, config.crop_seconds),
            config,
            recipe.augment,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            rank=accelerator.process_index,
            n_ranks=accelerator.num_processes,
        )
        self.augmenter = Augmenter(recipe.augment, front_end)
        self.has_separate_head = recipe.noisy_labels.separate_head and bool(examples.is_noisy.any())
        training_arrays = WeightedTensors(
            *map(torch.from_numpy, (examples.targets, examples.targets, examples.weights))
        )
        label_weights = weights_of_labels(training_arrays, recipe)
        self.label_weights = None if label_weights is None else label_weights.to(accelerator.device)
        groups = learning_groups(tagger, _example(examples, front_end), recipe.learning_rate, config)
        self.network_with_noisy_head = _TaggerWithNoisyHead(tagger, separate_head=self.has_separate_head)
        if self.network_with_noisy_head.noisy_head is not None:
            groups[-1]["params"] += list(self.network_with_noisy_head.noisy_head.parameters())
        self.network_with_noisy_head.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = None if config.weight_averaging == "none" else copy.deepcopy(self.network_with_noisy_head.tagger)
        network: nn.Module = accelerator.prepare_model(self.network_with_noisy_head)
        is_compiled = config.compile and accelerator.device.type == "cuda"
        self.network: Any = torch.compile(network) if is_compiled else network
        self.optimizer = make_optimizer(groups, recipe)
        self.n_steps = n_epochs * self.batches.n_steps
        self.schedule = LambdaLR(self.optimizer, lambda step: rate_factor(step, self.n_steps, config))
        self.precision = precision_on(accelerator.device, config)
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self.precision == torch.float16)
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []
        self.best_weights: dict[str, Tensor] = {}

    @property
    def _learns_statistics(self) -> bool:
        return self.config.batch_norm == "trained" or not has_pretrained_weights(self.recipe)

    def seconds_per_epoch(self, n_steps: int = 4) -> float:
        """How long an epoch would take, by a few steps; the tagger is spoilt by them."""
        self._begin_learning()
        batches = self.batches.epoch(1, augmented=True)
        n_first = min(1, self.batches.n_steps - 1)  # the first one takes longer, and counts only if there is no other
        for batch in itertools.islice(batches, n_first):
            self._learn(batch)
        started = time.monotonic()
        n_done = sum(1 for _ in map(self._learn, itertools.islice(batches, n_steps)))
        batches.close()
        step = (time.monotonic() - started) / n_done
        asked = 0.0
        if self.valid is not None:
            few = replace(self.valid, rows=self.valid.rows[:4], y_true=self.valid.y_true[:4])
            started = time.monotonic()
            logits_of_clips(self.network_with_noisy_head.tagger, few, self.front_end, self.accelerator)
            asked = (time.monotonic() - started) / len(few.rows) * len(self.valid.rows)
        return step * self.batches.n_steps + asked

    def losses_at(self, rates: Iterable[float]) -> Iterator[float]:
        """The loss of a batch for each learning rate, just before a step at that rate; the tagger is spoilt by them.

        Parameters
        ----------
        rates : iterable of float
            In the place of the recipe's learning rate; parts of the network keep their shares of it.
        """
        self._begin_learning()
        rates = iter(rates)
        for number in itertools.count(1):
            for batch in self.batches.epoch(number, augmented=True):
                rate = next(rates, None)
                if rate is None:
                    return
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["initial_lr"] / self.recipe.learning_rate
                self._learn(batch)
                losses, _, _ = self._seen.pop()
                self.state.step += 1
                yield float(losses.mean())

    def run(self, on_epoch: OnEpoch, progress: Progress) -> FineTuned:
        """Learn to the end. Of a run that goes on, the epochs before are told again.

        Raises
        ------
        ConfigError
            If the steps are so large that the loss is no longer finite.
        """
        state = self.state
        for epoch in state.epochs:
            on_epoch(epoch)
        while state.epoch <= self.n_epochs and not self._is_stopped():
            epoch = self._learn_epoch(progress)
            check_finite(epoch, self.recipe)
            state.epochs.append(epoch)
            if epoch.valid_lwlrap is not None and epoch.valid_lwlrap > state.best_lwlrap:
                state.best_lwlrap, state.best_epoch = epoch.valid_lwlrap, epoch.epoch
                self.best_weights = _copied(self._taken())
            state.epoch, state.step = state.epoch + 1, 0
            self.save()
            on_epoch(epoch)
        return self._finished()

    def _is_stopped(self) -> bool:
        patience, state = self.config.patience, self.state
        return patience is not None and state.best_epoch > 0 and state.epoch - 1 - state.best_epoch >= patience

    def _learn_epoch(self, progress: Progress) -> Epoch:
        state, started = self.state, time.monotonic()
        first_step = state.step
        augmented = state.epoch <= round(self.n_epochs * (1 - self.recipe.augment.disable_last_fraction))
        self._begin_learning()
        name = epoch_step(self.label, state.epoch)
        for batch in self.batches.epoch(state.epoch, augmented=augmented, first_step=first_step):
            self._learn(batch)
            state.step += 1
            progress(name, state.step, self.batches.n_steps)
            if state.step % self.config.checkpoint_steps == 0 and state.step < self.batches.n_steps:
                self.save()
        seconds = max(time.monotonic() - started, 1e-9)
        n_clips = self.batches.n_clips * (self.batches.n_steps - first_step) / self.batches.n_steps
        last_step = max(self.schedule.last_epoch - 1, 0)
        rate = self.recipe.learning_rate * rate_factor(last_step, self.n_steps, self.config)
        train_loss, train_lwlrap = self._judge_seen()
        valid_loss, valid_lwlrap = self._judge_valid()
        return Epoch(
            state.epoch,
            train_loss,
            train_lwlrap,
            valid_loss,
            valid_lwlrap,
            learning_rate=rate,
            clips_per_second=n_clips / seconds,
            seconds_left=(self.n_epochs - state.epoch) * (time.monotonic() - started),
            n_epochs=self.n_epochs,
            part=self.label,
        )

    def _begin_learning(self) -> None:
        self.network.train()
        if not self._learns_statistics:
            _freeze_statistics(self.network)

    def _learn(self, batch: Batch) -> None:
        state, device = self.state, self.accelerator.device
        torch.manual_seed(_seed_of_step(self.recipe.seed, state.epoch, state.step, self.accelerator.process_index))
        inputs, targets = batch.augmented(self.augmenter, device)
        self.optimizer.zero_grad()
        with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.network(inputs.to(memory_format=torch.channels_last), batch.is_noisy.to(device))
        losses = self._losses(logits, targets, batch.is_noisy) * batch.weights.to(device)
        loss = losses.sum() / batch.n_in_step * self.accelerator.num_processes  # gradients are then averaged
        self.scaler.scale(loss).backward()
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # or float16 overflowed, and there was no step
            self.schedule.step()
        self._update_average()
        self._seen.append((losses.detach(), logits.detach().float(), targets))

    def _losses(self, logits: Tensor, targets: Tensor, is_noisy: Tensor) -> Tensor:
        losses = clip_losses(logits, targets, self.recipe.loss, label_weights=self.label_weights)
        kind = self.recipe.noisy_labels.loss
        if kind == "same" or not is_noisy.any():
            return losses
        forgiving = self.recipe.loss.model_copy(update={"kind": kind})
        others = clip_losses(logits, targets, forgiving, label_weights=self.label_weights)
        return torch.where(is_noisy.to(losses.device), others, losses)

    def _update_average(self) -> None:
        state, n_per_epoch = self.state, self.batches.n_steps
        n_done = (state.epoch - 1) * n_per_epoch + state.step + 1
        if self.average is None or (self.config.weight_averaging == "swa" and n_done <= (1 - SWA_SHARE) * self.n_steps):
            return
        update_average(
            self.average, self.network_with_noisy_head.tagger, averaging_weight(state.n_averaged, self.config)
        )
        state.n_averaged += 1

    def _taken(self) -> Tagger:
        """The tagger as it would be kept now."""
        return (
            self.average if self.average is not None and self.state.n_averaged else self.network_with_noisy_head.tagger
        )

    def _seen_everywhere(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Losses, logits and targets of the epoch's steps so far, of all processes."""
        self._seen = [(losses.cpu(), logits.cpu(), targets.cpu()) for losses, logits, targets in self._seen]
        seen: list[tuple[Tensor, Tensor, Tensor]] = gather_object(self._seen)
        return seen

    def _judge_seen(self) -> tuple[float, float | None]:
        """Loss and lwlrap of the epoch's augmented clips as the network saw them."""
        losses, logits, targets = map(torch.cat, zip(*self._seen_everywhere(), strict=True))
        self._seen = []
        _, score = judge(logits, targets, self.recipe)
        return float(losses.mean()), score

    def _judge_valid(self) -> tuple[float | None, float | None]:
        if self.valid is None:
            return None, None
        taken = self._taken()
        if self._learns_statistics:  # of its own clips, in each process
            broadcast(list(taken.buffers()))
        logits = torch.from_numpy(logits_of_clips(taken, self.valid, self.front_end, self.accelerator))
        return judge(logits, torch.from_numpy(self.valid.y_true.astype(np.float64)), self.recipe)

    def _finished(self) -> FineTuned:
        last = _on_cpu(self._taken())
        epochs = tuple(self.state.epochs)
        if not self.best_weights or self.state.best_epoch == epochs[-1].epoch:
            return FineTuned(last, {}, epochs)
        best = copy.deepcopy(last)
        best.load_state_dict(self.best_weights)
        if self.config.patience is None:
            return FineTuned(last, {"best": best}, epochs)
        return FineTuned(best, {"last": last}, epochs)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, from the first process alone.

        Raises
        ------
        BundleError
            If it can't be written.
        """
        if self.checkpoint is None:
            return
        seen = self._seen_everywhere()
        if not self.accelerator.is_main_process:
            return
        values = {
            "fingerprint": self.fingerprint,
            "n_epochs": self.n_epochs,
            "state": asdict(self.state),
            "pupil": self.network_with_noisy_head.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_weights": self.best_weights,
            "seen": seen,
        }
        try:
            with unfinished_file(self.checkpoint) as unfinished:
                torch.save(values, unfinished)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's, where the disk is full
            raise BundleError(f"{self.checkpoint}: the checkpoint can't be written: {first_line(error)}") from error

    def load(self, values: dict[str, Any]) -> None:
        """Go on from where a checkpoint stands."""
        state = values["state"]
        self.state = _State(**state | {"epochs": [Epoch(**epoch) for epoch in state["epochs"]]})
        self.network_with_noisy_head.load_state_dict(values["pupil"])
        if self.average is not None:
            self.average.load_state_dict(values["average"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.schedule.load_state_dict(values["schedule"])
        self.scaler.load_state_dict(values["scaler"])
        self.best_weights = values["best_weights"]
        self._seen = values["seen"] if self.accelerator.is_main_process else []


def read_checkpoint(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """What a killed run left, None where there is nothing.

    Raises
    ------
    ConfigError
        If it was another run: other settings, clips or labels.
    BundleError
        If it is damaged.
    """
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        theirs = values["fingerprint"]
    except Exception as error:  # of a damaged file, torch raises errors that share no class
        raise BundleError(
            f"{path}: the checkpoint is damaged: {first_line(error)}; leave --resume out to begin anew"
        ) from error
    if theirs != fingerprint:
        raise ConfigError(
            f"{path.parent}: the run that was stopped had other settings, clips or labels, so it can't be resumed; "
            "give the same command, or leave --resume out to begin anew"
        )
    return values


def _width(examples: Examples, front_end: FrontEnd, crop_seconds: float | None) -> int | None:
    """Frames that the network sees of a clip in training; None for images, which it sees whole."""
    if front_end.image is not None:
        return None
    if crop_seconds is None:
        return max(int(examples.inputs(i).shape[-1]) for i in range(len(examples)))
    return n_frames_in(crop_seconds, front_end)


def _example(examples: Examples, front_end: FrontEnd) -> Tensor:
    """An input by which the network's stages can be told apart: of a sound, a short one is enough."""
    inputs = examples.inputs(0)[None]
    return torch.from_numpy(np.array(inputs if front_end.image is not None else inputs[..., :100], np.float32))


def _freeze_statistics(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _copied(tagger: Tagger) -> dict[str, Tensor]:
    return {name: values.detach().cpu().clone() for name, values in tagger.state_dict().items()}


def _on_cpu(tagger: Tagger) -> Tagger:
    """A copy for saving and exporting."""
    copied = copy.deepcopy(tagger).cpu().to(memory_format=torch.contiguous_format)
    result: Tagger = copied.eval().requires_grad_(False)
    return result
