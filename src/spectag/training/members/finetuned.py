"""A member whose network learns too: a fine-tuning for each part of the task, within the time that there is."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from spectag.array_types import BoolArray, Float32Array
from spectag.audio.files import find_audio
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.spectrograms.clip_inputs import ClipInputs, open_clips
from spectag.errors import AudioError, ConfigError
from spectag.system.epoch_log import OnEpoch
from spectag.system.progress import Log, Progress, no_log
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, fit_heads
from spectag.training.heads.per_fold import FrozenFeatures, as_module, descend_on, new_head
from spectag.training.inputs.batches import Examples
from spectag.training.members.clip_logits import ValidationClips, logits_of_clips
from spectag.training.members.finetune_loop import FineTuned, FineTuning, has_pretrained_weights, read_checkpoint
from spectag.training.members.member import Heard, MemberFit, kept_networks
from spectag.training.networks.network import Tagger, build_head
from spectag.training.setup.distributed import Processes
from spectag.training.setup.task import CrossValidation, Fold

FEWEST_EPOCHS = 3
"""With time for fewer, the schedule has no room to rise and fall."""
ENOUGH_EPOCHS = 8
"""Rather fewer folds than fewer epochs than these, where the time does not suffice for both."""


@dataclass(frozen=True)
class FinetuneContext:
    """Where and how fine-tuning goes on.

    `checkpoints` is the folder in which the member's runs are kept while they last, `fingerprint` tells which runs they
    are, and `seconds_left()` says how long all that are not done may take, in all processes alike; None: any time.
    """

    processes: Processes
    checkpoints: Path
    resume: bool
    fingerprint: str
    seconds_left: Callable[[], float | None]
    root: Path  # of the bank

    @property
    def accelerator(self) -> Accelerator:
        """What moves and shares the work."""
        assert self.processes.accelerator is not None
        return self.processes.accelerator

    def clear_stale_checkpoints(self, log: Log) -> None:
        """Tell what becomes of what a stopped run left; it is cleared away unless it is to be resumed."""
        is_there = self.checkpoints.exists()
        if self.resume and not is_there:
            log("no stopped run to resume: fine-tuning begins anew")
        if is_there and not self.resume:
            log("fine-tuning begins anew, for there is no --resume; what a stopped run left is cleared away")
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def saved(self, checkpoint: Path) -> dict[str, Any] | None:
        """What a killed run left, if it is to be resumed, in all processes."""
        if not self.resume:
            return None
        return self.processes.broadcast_from_main(lambda: read_checkpoint(checkpoint, self.fingerprint))


def fit_finetuned(
    heard: Heard,
    task: CrossValidation,
    place: FinetuneContext,
    *,
    name: str,
    progress: Progress,
    log: Log,
    on_epoch: OnEpoch,
) -> MemberFit | None:
    """Fine-tune the network on each part of a task; None if there is no time for it.

    Raises
    ------
    ConfigError
        If a run to be resumed was another, or steps are so large that the loss is no longer finite.
    BundleError
        If a checkpoint is damaged or can't be written.
    """
    parts = _in_order(task, heard.recipe.final_model, has_limit=place.seconds_left() is not None)
    if heard.recipe.finetune.compile and place.accelerator.device.type != "cuda":
        log("finetune.compile does nothing here: there is no GPU")
    with place.processes.main_process_first():
        place.clear_stale_checkpoints(log)
        data = heard.frozen_features(task.y_true, progress=progress)
        backgrounds = _backgrounds(heard, place.root, progress)
    logits = np.full(task.y_true.shape, np.nan)
    done: list[FineTuned] = []
    for number, part in enumerate(parts):
        label = f"{name}{part.name}"
        if len(parts) > 1:
            log(label)
        rows = np.flatnonzero(part.valid)
        checkpoint = place.checkpoints / f"{number}.pt"
        asked = ValidationClips(heard.clips.inputs, rows, task.y_true[rows]) if len(rows) else None
        begin = partial(
            FineTuning,
            examples=_examples(heard, part, task.y_true, backgrounds),
            valid=asked,
            recipe=heard.recipe,
            front_end=heard.front_end,
            accelerator=place.accelerator,
            label=label,
            checkpoint=checkpoint,
            fingerprint=place.fingerprint,
        )
        tagger = _beginning(heard, data, part, task.y_true)
        saved = place.saved(checkpoint)
        n_epochs, n_left = heard.recipe.epochs, len(parts) - number
        if saved is not None:
            run = _resumed(begin, tagger, saved, log)
        else:
            n_epochs, n_left = _fitting(begin, tagger, n_epochs, n_left, place, log)
            if n_epochs == 0:
                break
            run = begin(tagger, n_epochs=n_epochs)
        fine_tuned = _run(run, on_epoch, progress)
        if asked is not None:
            asked_of = copy.deepcopy(fine_tuned.tagger).to(place.accelerator.device)
            logits[rows] = logits_of_clips(asked_of, asked, heard.front_end, place.accelerator)
        done.append(fine_tuned)
        del run
        place.accelerator.free_memory()
        if n_left == 1:
            break
    if not done:
        return None
    learnt = sorted(zip(parts, done, strict=False), key=lambda pair: pair[0] is task.whole)  # the whole comes last
    kept = kept_networks([fit.tagger for _, fit in learnt], task, heard.recipe)
    epochs = tuple(epoch for fit in done for epoch in fit.epochs)
    return MemberFit(
        tuple(_tagger(network) for network in kept), logits, epochs, done[0].others if len(done) == 1 else {}
    )


def _run(run: FineTuning, on_epoch: OnEpoch, progress: Progress) -> FineTuned:
    try:
        return run.run(on_epoch, progress)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU has too little memory for a batch_size of {run.recipe.batch_size}; give a smaller one, shorter "
            "finetune.crop_seconds, or a smaller backbone"
        ) from error


def _in_order(task: CrossValidation, keep: str, *, has_limit: bool) -> tuple[Fold, ...]:
    """The parts to train on; where time may be short and the whole is what is kept, the whole first."""
    if keep != "refit" or task.whole is None:
        return task.parts
    return (task.whole, *task.parts) if has_limit else task.all_folds


def trial(heard: Heard, task: CrossValidation, processes: Processes, root: Path, *, progress: Progress) -> FineTuning:
    """A fine-tuning on the first part of a task, without held-out clips, to be thrown away."""
    assert processes.accelerator is not None
    part = task.parts[0]
    with processes.main_process_first():
        data = heard.frozen_features(task.y_true, progress=progress)
        backgrounds = _backgrounds(heard, root, progress)
    return FineTuning(
        _beginning(heard, data, part, task.y_true),
        _examples(heard, part, task.y_true, backgrounds),
        None,
        heard.recipe,
        heard.front_end,
        accelerator=processes.accelerator,
        n_epochs=heard.recipe.epochs,
    )


def _tagger(network: nn.Module) -> Tagger:
    assert isinstance(network, Tagger)
    return network


def _resumed(begin: Callable[..., FineTuning], tagger: Tagger, saved: dict[str, Any], log: Log) -> FineTuning:
    """A training that goes on where it was stopped; `begin(tagger, n_epochs=...)` makes one."""
    run = begin(tagger, n_epochs=saved["n_epochs"])
    run.load(saved)
    if run.state.epoch <= run.n_epochs:
        log(f"going on from epoch {run.state.epoch}, step {run.state.step}")
    return run


def _fitting(
    begin: Callable[..., FineTuning], tagger: Tagger, n_epochs: int, n_left: int, place: FinetuneContext, log: Log
) -> tuple[int, int]:
    """How many epochs, and how many trainings with this one, there is time for; no epochs if too little for any.

    `begin(tagger, n_epochs=...)` makes a training.
    """
    if place.seconds_left() is None:
        return n_epochs, n_left
    per_epoch = place.processes.broadcast(begin(copy.deepcopy(tagger), n_epochs=n_epochs).seconds_per_epoch())
    seconds = place.seconds_left() or 0.0  # now that the speed is known, which took some of it
    n_left = min(n_left, max(1, int(seconds / (min(ENOUGH_EPOCHS, n_epochs) * per_epoch))))
    n_fitting = min(n_epochs, int(seconds / (n_left * per_epoch)))
    if n_fitting < min(FEWEST_EPOCHS, n_epochs):
        log(f"no time to fine-tune: an epoch takes {per_epoch:.0f} s and there are {max(seconds, 0):.0f} s")
        return 0, 0
    log(f"{n_fitting} epochs of about {per_epoch:.2g} s each; trainings left: {n_left}")
    return n_fitting, n_left


def _beginning(heard: Heard, data: FrozenFeatures, part: Fold, y_true: BoolArray) -> Tagger:
    """The network as it was published, and a head: fitted on what the network makes of the part's clips, or random."""
    recipe = heard.recipe
    features, targets, weights = data.training_arrays(part, y_true)
    torch.manual_seed(recipe.seed)
    if not has_pretrained_weights(recipe):
        head: nn.Module = build_head(recipe.head, features.shape[1], y_true.shape[1])  # features will be others soon
    elif recipe.init is not None or not recipe.finetune.linear_probe_first:
        head = new_head(features, data.group_sizes, y_true.shape[1], recipe)
    elif recipe.head == "linear":
        head = as_module(
            fit_heads(features, targets, data.group_sizes, (DEFAULT_WEIGHT_DECAY,), clip_weights=weights)[0]
        )
    else:
        by_adam = recipe.model_copy(update={"optimizer": "adam", "learning_rate": 1e-3, "epochs": 20})
        head = descend_on(data, part, y_true, by_adam, lambda _: None, label="")
    return Tagger(copy.deepcopy(heard.store.extractor), head)


def _examples(heard: Heard, part: Fold, y_true: BoolArray, backgrounds: list[Float32Array]) -> Examples:
    """The clips of a part, and after them those with doubtful labels that it may learn from."""
    rows = np.flatnonzero(part.train)
    targets, weights = [y_true[rows].astype(np.float32)], [np.ones(len(rows), np.float32)]
    sources: list[tuple[ClipInputs, int]] = [(heard.clips, int(i)) for i in rows]
    if part.noisy is not None and heard.noisy is not None:
        kept = np.flatnonzero(part.noisy.weights > 0)
        sources += [(heard.noisy, int(i)) for i in kept]
        targets.append(part.noisy.targets[kept].astype(np.float32))
        weights.append(part.noisy.weights[kept].astype(np.float32))

    def inputs(i: int) -> Float32Array:
        clips, position = sources[i]
        return clips.inputs(position)

    is_noisy = np.arange(len(sources)) >= len(rows)
    return Examples(inputs, np.concatenate(targets), np.concatenate(weights), is_noisy, backgrounds)


def _backgrounds(heard: Heard, root: Path, progress: Progress) -> list[Float32Array]:
    """Inputs of the sounds in the folder of background noise."""
    folder = heard.recipe.augment.background
    if folder is None:
        return []
    try:
        paths = find_audio([folder])
    except AudioError as error:
        raise ConfigError(f"augment.background: {error}") from error
    clips = tuple(Clip(path, path.name, ()) for path in paths)
    manifest = Manifest(Path(folder), clips, LabelSet(("background",)))
    opened = open_clips(manifest, heard.front_end, root, workers=None, progress=progress, log=no_log)
    return [np.array(opened.inputs(i)) for i in range(len(opened.keys))]
