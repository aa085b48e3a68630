"""A fine-tuned ensemble member: one fine-tuning run for each fold, within the time budget."""

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.audio.files import find_audio
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.spectrograms.clip_inputs import ClipInputs, open_clips
from spectag.errors import AudioError, ConfigError
from spectag.scoring.model_selection import HeldOutLogits
from spectag.system.progress import Log, Progress, no_log, silent, training_step
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, fit_heads
from spectag.training.heads.per_fold import FrozenFeatures
from spectag.training.inputs.batches import Examples
from spectag.training.members.clip_logits import FinetunedNetwork, ValidationClips, logits_of_clips
from spectag.training.members.finetune_loop import (
    EpochPace,
    FineTuned,
    FineTuning,
    SecondsLeft,
    read_checkpoint,
)
from spectag.training.members.head_training import head_module, initial_head, train_fold_head
from spectag.training.members.member import MemberFit, MemberInputs, final_networks
from spectag.training.networks.network import TaggerNetwork, build_head
from spectag.training.networks.weight_averages import average_weights
from spectag.training.setup.budget import ENOUGH_EPOCHS, affordable
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation, Fold
from spectag.training.setup.distributed import Processes
from spectag.training.setup.held_out import N_FOLDS
from spectag.training.setup.requirements import has_pretrained_weights

MIN_FOLDS = 2
"""Fewest folds on which a member is validated beside others."""
MIN_VALIDATED = 1 / 3
"""Smallest fraction of the held-out clips on which a member is validated beside others."""


@dataclass(frozen=True)
class FinetuneContext:
    """Processes, checkpoints and time limit of a member's fine-tuning runs.

    `checkpoints` is the folder of their checkpoints; `fingerprint` is a hash of everything that determines the runs.
    `seconds_left()` is the time for all remaining runs, the same in all processes; None without a limit.
    `budget_note()` says what is left of the whole budget, see `Budget.note`. `seconds_per_epoch` is measured in the
    first run if it is not given.

    With `min_folds`, there are other members, whose held-out clips suffice for the score: a network that is trained on
    all clips is validated on a few folds, and no run starts if there is not even time for this many.
    """

    processes: Processes
    checkpoints: Path
    resume: bool
    fingerprint: str
    seconds_left: SecondsLeft
    root: Path  # of the spectrogram cache
    budget_note: Callable[[], str] = lambda: ""
    seconds_per_epoch: float | None = None
    min_folds: int = 0

    @property
    def accelerator(self) -> Accelerator:
        """The accelerator of the processes."""
        assert self.processes.accelerator is not None
        return self.processes.accelerator

    def clear_stale_checkpoints(self, log: Log) -> None:
        """Delete the checkpoints of a stopped run unless it is to be resumed."""
        exist = self.checkpoints.exists()
        if self.resume and not exist:
            log("no stopped run to resume: fine-tuning starts from the beginning")
        if exist and not self.resume:
            log("fine-tuning starts from the beginning and deletes the checkpoints of a stopped run (no --resume)")
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def read_checkpoint(self, path: Path) -> dict[str, Any] | None:
        """The values of a checkpoint in all processes; None if nothing is to be resumed."""
        if not self.resume:
            return None
        return self.processes.broadcast_from_main(lambda: read_checkpoint(path, self.fingerprint))


def fit_finetuned(
    inputs: MemberInputs,
    cross_validation: CrossValidation,
    context: FinetuneContext,
    callbacks: Callbacks,
    *,
    name: str,
) -> MemberFit | None:
    """Fine-tune the network on the folds; None if there is no time for any, or for too few (see `FinetuneContext`).

    Raises
    ------
    ConfigError
        If a run to resume had other settings, or the learning rate is so large that the loss is not finite.
    BundleError
        If a checkpoint is damaged or cannot be written.
    """
    recipe, y_true, log = inputs.recipe, cross_validation.targets, callbacks.log
    has_limit = context.seconds_left() is not None
    trainings = ordered_trainings(cross_validation, recipe, has_limit=has_limit, min_folds=context.min_folds)
    if recipe.finetune.compile and context.accelerator.device.type != "cuda":
        log("finetune.compile has no effect: there is no GPU")
    with context.processes.main_process_first():
        context.clear_stale_checkpoints(log)
        data = inputs.frozen_features(y_true, progress=callbacks.progress)
        backgrounds = _backgrounds(inputs, context.root, callbacks.progress, log)
    logits = np.full(y_true.shape, np.nan)
    results: list[tuple[Fold, FineTuned]] = []
    pace, n_epochs = _Pace(context, trainings), recipe.epochs
    for number, fold in enumerate(trainings):
        training_name = f"{name}{fold.name}"
        rows = np.flatnonzero(fold.valid)
        valid = ValidationClips(inputs.clips.parts, rows, y_true[rows]) if len(rows) else None
        start = partial(
            FineTuning,
            examples=_examples(inputs, fold, y_true, backgrounds),
            valid=valid,
            recipe=recipe,
            front_end=inputs.front_end,
            accelerator=context.accelerator,
            name=training_name,
            checkpoint=context.checkpoints / f"{_number_of(fold, cross_validation)}.pt",
            fingerprint=context.fingerprint,
        )
        run = pace.start_or_resume(start, _initial_network(inputs, data, fold, y_true), n_epochs, log)
        if run is None:
            break
        if len(trainings) > 1 or context.budget_note():
            log(f"{name}{_position(number, trainings, pace)}{context.budget_note()}")
            callbacks.progress(*training_step(name, number, min(len(trainings), number + pace.n_left)))
        fine_tuned = _run(run, callbacks, pace.limit_of_run(), pace.epoch_pace(n_epochs))
        if valid is not None:
            network = copy.deepcopy(fine_tuned.network).to(context.accelerator.device)
            logits[valid.rows] = logits_of_clips(network, valid, context.accelerator)
        results.append((fold, fine_tuned))
        pace.finish(run)
        if fold is cross_validation.all_clips:
            n_epochs = len(fine_tuned.epochs)  # folds with more epochs would overrate the network that is kept
        del run
        context.accelerator.free_memory()
    n_validated = sum(fold is not cross_validation.all_clips for fold, _ in results)
    if n_validated < min(context.min_folds, MIN_FOLDS):
        return None
    return _member_fit(results, logits, cross_validation, recipe) if results else None


def fewest_folds(cross_validation: CrossValidation) -> int:
    """Fewest folds on which a member is validated beside others: two, and more if they hold out too few clips.

    On fewer clips, its score and its weight would be a matter of luck.
    """
    n_clips = np.cumsum([fold.valid.sum() for fold in cross_validation.folds])
    n_folds = int(np.searchsorted(n_clips, MIN_VALIDATED * n_clips[-1])) + 1 if n_clips[-1] else 0
    return min(max(n_folds, MIN_FOLDS), len(cross_validation.folds)) if n_folds else 0


def ordered_trainings(
    cross_validation: CrossValidation, recipe: Recipe, *, has_limit: bool, min_folds: int = 0
) -> tuple[Fold, ...]:
    """The trainings in their order; with a time limit, the one whose network is kept comes first.

    With `min_folds` (see `FinetuneContext`), the network of all clips has a few folds beside it.
    """
    folds, all_clips = cross_validation.folds, cross_validation.all_clips
    if recipe.final_model != "refit":
        return folds
    if min_folds:
        folds = folds[: max(min_folds, N_FOLDS)]
    if all_clips is None:
        return folds
    return (all_clips, *folds) if has_limit else (*folds, all_clips)


def relative_epochs(trainings: Sequence[Fold]) -> FloatArray:
    """The expected time of an epoch of each training, relative to the first."""
    n_clips = np.array([fold.train.sum() for fold in trainings], np.float64)
    return np.asarray(n_clips / n_clips[0])


def _number_of(fold: Fold, cross_validation: CrossValidation) -> int:
    """The number of a training, which does not depend on the order of trainings."""
    return next(number for number, training in enumerate(cross_validation.trainings) if training is fold)


class _Pace:
    """The time of a member's runs, and how many of them there is time for.

    Attributes
    ----------
    n_left : int
        Number of runs that are still to be finished. Others that were left out start if there is time after all.
    """

    def __init__(self, context: FinetuneContext, trainings: Sequence[Fold]) -> None:
        self._context, self.n_left = context, len(trainings)
        self._relative = relative_epochs(trainings)  # of all runs that are not finished
        n_beside = sum(not fold.valid.any() for fold in trainings)
        self._min_runs = n_beside + context.min_folds if context.min_folds else 1
        self._seconds_per_epoch = context.seconds_per_epoch  # of a run with the relative time 1
        self._left_at_start: float | None = None
        self._n_finished, self._first_epoch, self._is_resumed = 0, 1, False

    def start_or_resume(
        self, start: "partial[FineTuning]", network: TaggerNetwork, n_epochs: int, log: Log
    ) -> FineTuning | None:
        """The next run; None if there is no time for it."""
        context = self._context
        saved = context.read_checkpoint(start.keywords["checkpoint"])
        self._is_resumed = saved is not None
        if saved is not None:
            run = start(network, n_epochs=saved["n_epochs"])
            run.load(saved)
            if run.state.epoch <= run.n_epochs:
                log(f"resuming from epoch {run.state.epoch}, step {run.state.step}")
        elif context.seconds_left() is None:
            run = start(network, n_epochs=n_epochs)
        elif n_affordable := self._affordable(start, network, n_epochs, log):
            run = start(network, n_epochs=n_affordable)
        else:
            return None
        self._left_at_start, self._first_epoch = context.seconds_left(), run.state.epoch
        return run

    def _affordable(self, start: Callable[..., FineTuning], network: TaggerNetwork, n_epochs: int, log: Log) -> int:
        """The number of epochs of this run; 0 if there is no time for it."""
        context = self._context
        if (context.seconds_left() or 0.0) <= 0:
            if self.n_left:
                self._log_no_time("", log)
            return 0
        if self._seconds_per_epoch is None:
            run = start(copy.deepcopy(network), n_epochs=n_epochs)
            self._seconds_per_epoch = context.processes.broadcast(run.seconds_per_epoch())
        seconds = context.seconds_left() or 0.0  # after the measurement, which also takes time
        per_run = self._seconds_per_epoch * self._relative
        n_affordable, n_runs = affordable(seconds, per_run, n_epochs, self._min_runs)
        if not self.n_left and n_affordable < min(ENOUGH_EPOCHS, n_epochs):
            return 0  # it was left out before
        if not n_affordable:
            self._log_no_time(f": an epoch takes {per_run[0]:.0f} s and {max(seconds, 0):.0f} s are left", log)
            return 0
        self.n_left = n_runs
        per_epoch = f"{n_affordable} epochs of about {per_run[0]:.2g} s each"
        log(f"{per_epoch}; trainings left: {n_runs}")
        return n_affordable

    def _log_no_time(self, reason: str, log: Log) -> None:
        what = "for another training" if self._n_finished else "to fine-tune"
        log(f"no time {what}{reason}")

    def epoch_pace(self, max_epochs: int) -> EpochPace:
        """What is expected of the epochs of this run. A resumed run keeps its number of epochs."""
        if self._is_resumed or self._seconds_per_epoch is None:
            return EpochPace()
        return EpochPace((float(self._seconds_per_epoch * self._relative[0]),) * 2, max_epochs)

    def limit_of_run(self) -> SecondsLeft:
        """The time for the rest of this run: what is left without the shares of the runs after it."""
        seconds_left, at_start = self._context.seconds_left, self._left_at_start
        own_share = self._relative[0] / self._relative[: self.n_left].sum()
        of_others = 0.0 if at_start is None else max(at_start, 0) * (1 - own_share)

        def limit() -> float | None:
            left = seconds_left()
            return None if left is None else left - of_others

        return limit

    def finish(self, run: FineTuning) -> None:
        """Note that a run is finished, and how long its epochs took."""
        left, n_epochs = self._context.seconds_left(), run.state.epoch - self._first_epoch
        if left is not None and self._left_at_start is not None and n_epochs:
            seconds = self._left_at_start - left
            if seconds > 0:
                self._seconds_per_epoch = seconds / n_epochs / self._relative[0]
        self._relative, self._min_runs = self._relative[1:], 1
        self._n_finished, self.n_left = self._n_finished + 1, self.n_left - 1


def _position(number: int, trainings: Sequence[Fold], pace: _Pace) -> str:
    """The position of a training, such as "fold 2 of 5", as far as there is time for all of them."""
    name = trainings[number].name
    if not name.startswith("fold "):
        return name
    n_folds = sum(fold.name.startswith("fold ") for fold in trainings[: number + pace.n_left])
    position = sum(fold.name.startswith("fold ") for fold in trainings[: number + 1])
    own_name = "" if name == f"fold {position}" else f" ({name})"
    return f"fold {position} of {n_folds}{own_name}"


def _run(run: FineTuning, callbacks: Callbacks, seconds_left: SecondsLeft, pace: EpochPace) -> FineTuned:
    try:
        return run.run(callbacks.on_epoch, callbacks.progress, seconds_left, pace)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU has too little memory for batch_size {run.recipe.batch_size}; reduce it, crop_seconds or backbone"
        ) from error


def _member_fit(
    results: list[tuple[Fold, FineTuned]], logits: FloatArray, cross_validation: CrossValidation, recipe: Recipe
) -> MemberFit:
    in_order = sorted(results, key=lambda result: result[0] is cross_validation.all_clips)  # all clips last
    trained = [fine_tuned.network for _, fine_tuned in in_order]
    networks = final_networks(trained, cross_validation, recipe, average_weights)
    other_weights = results[0][1].other_weights if len(results) == 1 else {}
    return MemberFit(
        tuple(map(FinetunedNetwork, networks)),
        HeldOutLogits(logits, logits_without_parts(results, logits, cross_validation)),
        tuple(epoch for _, fine_tuned in results for epoch in fine_tuned.epochs),
        {name: FinetunedNetwork(network) for name, network in other_weights.items()},
    )


def logits_without_parts(
    results: list[tuple[Fold, FineTuned]], logits: FloatArray, cross_validation: CrossValidation
) -> tuple[FloatArray, ...]:
    """For each part of the held-out clips, all held-out logits after the epoch that is the best without this part.

    Empty if the epoch was not chosen (without patience). `logits` are those of the networks that are kept.
    """
    validated = [(fold, fine_tuned.valid_logits) for fold, fine_tuned in results if fine_tuned.valid_logits]
    if not validated:
        return ()
    candidates = [logits.copy() for _ in range(max(len(of_epochs) for _, of_epochs in validated))]
    for fold, of_epochs in validated:
        for epoch, candidate in enumerate(candidates):
            candidate[fold.valid] = of_epochs[min(epoch, len(of_epochs) - 1)]  # some folds stopped earlier
    return cross_validation.choose(candidates).logits_of(candidates).without


def first_run(
    inputs: MemberInputs, cross_validation: CrossValidation, processes: Processes, root: Path, *, progress: Progress
) -> FineTuning:
    """The run on the first fold, without validation or checkpoint, for experiments such as the learning-rate finder."""
    assert processes.accelerator is not None
    fold, y_true = cross_validation.folds[0], cross_validation.targets
    with processes.main_process_first():
        data = inputs.frozen_features(y_true, progress=progress)
        backgrounds = _backgrounds(inputs, root, progress, no_log)
    return FineTuning(
        _initial_network(inputs, data, fold, y_true),
        _examples(inputs, fold, y_true, backgrounds),
        None,
        inputs.recipe,
        inputs.front_end,
        accelerator=processes.accelerator,
        n_epochs=inputs.recipe.epochs,
    )


def seconds_per_epoch(inputs: MemberInputs, cross_validation: CrossValidation, context: FinetuneContext) -> float:
    """The expected time of an epoch of the first training, by a few steps of a network with a random head."""
    y_true, recipe = cross_validation.targets, inputs.recipe
    fold = ordered_trainings(cross_validation, recipe, has_limit=True)[0]
    n_features = sum(inputs.store.group_sizes(inputs.clips.example))
    network = TaggerNetwork(copy.deepcopy(inputs.store.extractor), build_head(recipe.head, n_features, y_true.shape[1]))
    with context.processes.main_process_first():
        backgrounds = _backgrounds(inputs, context.root, silent, no_log)
    rows = np.flatnonzero(fold.valid)
    run = FineTuning(
        network,
        _examples(inputs, fold, y_true, backgrounds),
        ValidationClips(inputs.clips.parts, rows, y_true[rows]) if len(rows) else None,
        recipe,
        inputs.front_end,
        accelerator=context.accelerator,
        n_epochs=recipe.epochs,
    )
    return context.processes.broadcast(run.seconds_per_epoch())


def _initial_network(
    inputs: MemberInputs, data: FrozenFeatures, fold: Fold, y_true: BoolArray | FloatArray
) -> TaggerNetwork:
    """The network with its initial weights, and a head that is random or fitted on the features of the fold's clips."""
    recipe = inputs.recipe
    features, targets, weights = data.training_arrays(fold, y_true)
    torch.manual_seed(recipe.seed)
    if not has_pretrained_weights(recipe):
        head: nn.Module = build_head(recipe.head, features.shape[1], y_true.shape[1])  # the features will change soon
    elif recipe.init is not None or not recipe.finetune.linear_probe_first:
        head = initial_head(features, data.group_sizes, y_true.shape[1], recipe)
    elif recipe.head == "linear":
        [fitted] = fit_heads(features, targets, data.group_sizes, (DEFAULT_WEIGHT_DECAY,), clip_weights=weights)
        head = head_module(fitted)
    else:
        by_adam = recipe.model_copy(update={"optimizer": "adam", "learning_rate": 1e-3, "epochs": 20})
        head = train_fold_head(data, fold, y_true, by_adam, lambda _: None, name="")
    return TaggerNetwork(copy.deepcopy(inputs.store.extractor), head)


def _examples(
    inputs: MemberInputs, fold: Fold, y_true: BoolArray | FloatArray, backgrounds: list[Float32Array]
) -> Examples:
    """The training clips of a fold, followed by its clips with noisy labels."""
    rows = np.flatnonzero(fold.train)
    targets, weights = [y_true[rows].astype(np.float32)], [fold.weights_of(rows).astype(np.float32)]
    sources: list[tuple[ClipInputs, int]] = [(inputs.clips, int(row)) for row in rows]
    if fold.noisy is not None and inputs.noisy is not None:
        kept = np.flatnonzero(fold.noisy.weights > 0)
        sources += [(inputs.noisy, int(row)) for row in kept]
        targets.append(fold.noisy.targets[kept].astype(np.float32))
        weights.append(fold.noisy.weights[kept].astype(np.float32))

    def read(index: int) -> Float32Array:
        clips, row = sources[index]
        return clips.inputs(row)

    is_noisy = np.arange(len(sources)) >= len(rows)
    return Examples(read, np.concatenate(targets), np.concatenate(weights), is_noisy, backgrounds)


def _backgrounds(inputs: MemberInputs, root: Path, progress: Progress, log: Log) -> list[Float32Array]:
    """Inputs of the sounds in the folder `augment.background`."""
    folder = inputs.recipe.augment.background
    if folder is None:
        return []
    try:
        paths = find_audio([folder])
    except AudioError as error:
        raise ConfigError(f"augment.background: {error}") from error
    clips = tuple(Clip(path, path.name, ()) for path in paths)
    manifest = Manifest(Path(folder), clips, LabelSet(("background",)))
    opened = open_clips(manifest, inputs.front_end, root, workers=None, progress=progress, log=no_log)
    for _, reason in opened.skipped:
        log(f"augment.background: skipped: {reason}")
    return [np.array(opened.inputs(index)) for index in range(len(opened.keys))]
