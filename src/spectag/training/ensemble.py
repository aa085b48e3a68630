"""Train all members of an ensemble within the time budget, and fit the weights of their logits."""

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spectag.array_types import FloatArray
from spectag.config.recipe import Recipe
from spectag.config.training import NoisyConfig
from spectag.data.audio_groups import first_sharing
from spectag.data.clips import Manifest, shares_recording
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import abbreviate
from spectag.data.shared_audio import SharedAudio
from spectag.errors import ConfigError, DataError
from spectag.models.bundle import read_info
from spectag.scoring.blending import EnsembleWeights
from spectag.system.epoch_log import Epoch
from spectag.system.progress import Log, no_log
from spectag.training.bundle_writer import TrainingRecord, write_bundle
from spectag.training.heads.per_fold import FrozenFeatures, WindowLogits, relabel_noisy_clips
from spectag.training.members.bundle_member import BundleMember
from spectag.training.members.member import MemberFit, MemberInputs, fit_frozen, front_end_for, open_inputs
from spectag.training.planning import MemberPlan, cost_of_frozen, rounded
from spectag.training.setup.budget import Budget, affordable
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation, relative_weights
from spectag.training.setup.distributed import Processes
from spectag.training.setup.member_weights import blend, has_logits
from spectag.training.setup.noisy_labels import relabel_report

if TYPE_CHECKING:
    from spectag.training.members.finetuned import FinetuneContext

FINETUNING_VERSION = 3
"""Increased when fine-tuning with the same settings gives other weights, so that no earlier checkpoint is continued."""
_RESERVED_SECONDS = 20.0
"""Part of a budget that is kept for writing the bundle, and again for the export of each fine-tuned member."""
_MAX_RESERVED_FRACTION = 0.1
"""Largest fraction of a budget that is reserved."""
_LATEST_FROZEN_START = 0.5
"""Fraction of the budget after which no further frozen member is started."""
_MAX_FROZEN_FRACTION = 0.3
"""Largest fraction of the remaining time that a further frozen member may take."""
_LATEST_MIXING = 0.4
"""Fraction of the budget after which no further mixed clips are made."""
_N_MIXED_AT_ONCE = 250
"""Number of mixed clips after which the time is compared with the budget."""


@dataclass(frozen=True)
class MemberScore:
    """Held-out score of a member and of the ensemble up to this member; None if no labelled clip is held out.

    `metric` is lwlrap, or mAP where lwlrap is not defined.
    """

    name: str
    metric: str
    score: float | None
    ensemble_score: float | None
    weight: float
    seconds: float

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        duration = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        if self.score is None or self.ensemble_score is None:
            return f"{self.name}: {duration}"
        scores = f"held-out {self.metric} {self.score:.4f}, ensemble so far {self.ensemble_score:.4f}"
        return f"{self.name}: {scores}, {duration}"


@dataclass(frozen=True)
class EnsembleFit:
    """The trained members, their inputs and scores, and the weights of their logits.

    `logits` (n_clips, n_labels) are held-out logits of the ensemble, with all settings and weights chosen without the
    part of the clip; NaN for clips that were never held out.
    """

    inputs: tuple[MemberInputs, ...]
    fits: tuple[MemberFit, ...]
    weights: EnsembleWeights
    logits: FloatArray
    scores: tuple[MemberScore, ...]

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The epochs of all members."""
        return tuple(epoch for fit in self.fits for epoch in fit.epochs)

    @property
    def window_logits(self) -> WindowLogits | None:
        """Held-out logits of windows; None if one of the networks does not have them, or has other windows."""
        weights = self.weights.weights
        used = [fit.window_logits for fit, weight in zip(self.fits, weights, strict=True) if weight]
        known = [windows for windows in used if windows is not None]
        if len(known) < len(used) or any(not np.array_equal(windows.clips, known[0].clips) for windows in known):
            return None
        combined = EnsembleWeights(tuple(weight for weight in weights if weight), self.weights.bias)
        return WindowLogits(known[0].clips, combined([windows.logits for windows in known]))

    def bundle_members(self) -> tuple[list[BundleMember], EnsembleWeights]:
        """All networks and their weights. The networks of one member share its weight equally."""
        members, weights = [], []
        for inputs, fit, weight in zip(self.inputs, self.fits, self.weights.weights, strict=True):
            for network in fit.networks:
                is_frozen = network.extractor is inputs.store.extractor
                members.append(
                    BundleMember(
                        recipe=inputs.recipe,
                        front_end=inputs.front_end,
                        network=network,
                        clips=inputs.clips,
                        store=inputs.store,
                        weights_sha256=inputs.store.weights_sha256,
                        other_weights=fit.other_weights,
                        novelty=fit.novelty,
                        is_frozen=is_frozen,
                    )
                )
                weights.append(weight / len(fit.networks))
        return members, EnsembleWeights(tuple(weights), self.weights.bias)


@dataclass
class TrainingRun:
    """The settings and callbacks that all steps of one training share."""

    recipe: Recipe
    root: Path  # of the spectrogram cache
    checkpoints: Path
    processes: Processes
    resume: bool
    callbacks: Callbacks
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.budget = Budget(self.recipe.budget, self.processes, self.clock)

    @property
    def seconds_left(self) -> float | None:
        """Time of the budget that is left for training; None without a budget."""
        left = self.budget.left
        return None if left is None else left - self._reserved

    @property
    def _reserved(self) -> float:
        """Seconds that are kept for writing the bundle, and again for each fine-tuned member."""
        return min(_RESERVED_SECONDS, _MAX_RESERVED_FRACTION * (self.recipe.budget or 0.0))

    def _is_after(self, fraction: float, seconds: float = 0.0) -> bool:
        """Whether this fraction of the budget is used up in some seconds; never without a budget."""
        left, budget = self.seconds_left, self.recipe.budget
        return left is not None and budget is not None and left - seconds < budget * (1 - fraction)

    def open_inputs(self, manifest: Manifest, noisy: Manifest | None, workers: int | None) -> list[MemberInputs]:
        """The inputs of every member, without the clips of `leave_out`."""
        n_clips = len(manifest.clips)
        manifest = manifest.without(self.recipe.leave_out)
        noisy = noisy and noisy.without(self.recipe.leave_out)
        if self.recipe.leave_out:
            n_left_out, n_listed = n_clips - len(manifest.clips), len(self.recipe.leave_out)
            self.callbacks.log(
                f"leave_out: {n_left_out} clips of the manifest are left out; the recipe lists {n_listed}"
            )
        if noisy is None and self.recipe.noisy_labels != NoisyConfig():
            self.callbacks.log("noisy_labels settings have no effect without a manifest of noisy labels (--noisy)")
        members: list[MemberInputs] = []
        for recipe in self.recipe.member_recipes():
            if recipe.init is not None:
                _check_init(recipe.init, recipe, manifest.labels)
            with self.processes.main_process_first():
                callbacks = dataclasses.replace(self.callbacks, log=no_log) if members else self.callbacks
                front_end = front_end_for(recipe, manifest)
                inputs = open_inputs(manifest, noisy, recipe, front_end, self.root, callbacks, workers=workers)
            if members and inputs.readable_clips != members[0].readable_clips:
                raise DataError(f"{manifest.source}: the members could not all read the same clips; train again")
            members.append(inputs)
        y_true = members[0].clips.manifest.targets()
        if not (y_true == 1).any():
            raise DataError(f"{manifest.source}: no clip has a label, so there is nothing to train on")
        if noisy is None:
            _check_negatives(y_true, manifest, self.callbacks.log)
        return members

    def with_noisy(
        self, cross_validation: CrossValidation, inputs: MemberInputs, shared: SharedAudio | None = None
    ) -> CrossValidation:
        """Add clips with noisy labels to each training, with targets and weights by the first member's predictions.

        `shared` are pairs of a noisy clip and a clip of the manifest that share audio.
        """
        if inputs.noisy is None:
            return cross_validation
        labels, weights = inputs.noisy.manifest.multi_hot(), relative_weights(inputs.noisy.manifest.weights)
        with self.processes.main_process_first():
            data = inputs.frozen_features(cross_validation.targets, progress=self.callbacks.progress, with_mixed=False)
        targets = inputs.noisy.manifest.targets()
        relabelled = relabel_noisy_clips(data, targets, cross_validation, inputs.recipe, weights)
        is_copy = np.isin(inputs.noisy.keys, inputs.clips.keys)
        if is_copy.any():
            self.callbacks.log(f"{is_copy.sum()} noisy clips are copies of clips in the manifest, and are left out")
        shares_held_out = [
            shares_recording(inputs.noisy.manifest, inputs.clips.manifest, fold.valid)
            for fold in cross_validation.trainings
        ]
        if shared is not None:
            shares_held_out = [
                shares | first_sharing(shared.pairs, fold.valid, len(labels))
                for shares, fold in zip(shares_held_out, cross_validation.trainings, strict=True)
            ]
        if np.any(shares_held_out):
            self.callbacks.log(
                f"{np.any(shares_held_out, axis=0).sum()} noisy clips share a recording or group with clips of the "
                "manifest; they are left out where those clips are held out"
            )
        relabelled = [
            dataclasses.replace(noisy, weights=np.where(is_copy | is_left_out, 0, noisy.weights))
            for noisy, is_left_out in zip(relabelled, shares_held_out, strict=True)
        ]
        for line in relabel_report(relabelled[-1], labels, inputs.noisy.manifest.labels.names):
            self.callbacks.log(line)
        return cross_validation.with_noisy(relabelled)

    def plan(self, members: Sequence[MemberInputs], cross_validation: CrossValidation) -> tuple[MemberPlan, ...]:
        """How long each member is expected to take; it is measured and logged. Empty for one member and no budget."""
        if len(members) == 1 and self.recipe.budget is None:
            return ()
        plans: list[MemberPlan] = []
        for number, (name, inputs) in enumerate(zip(_names(members), members, strict=True), start=1):
            seconds_before = sum(plan.seconds for plan in plans)
            if inputs.recipe.mode == "finetune":
                min_folds = _min_folds(members, cross_validation)
                plan = self._plan_finetuned(name, inputs, cross_validation, number, seconds_before, min_folds)
            else:
                plan = self._plan_frozen(name, inputs, cross_validation, is_first=not plans)
            self.callbacks.log(f"plan: {plan}")
            plans.append(plan)
        seconds = self.budget.elapsed + sum(plan.seconds for plan in plans) + self._reserved
        of_budget = "" if self.recipe.budget is None else f" of {rounded(self.recipe.budget)}"
        what = "with reading the sounds and writing the model"
        self.callbacks.log(f"plan: about {rounded(seconds)}{of_budget} in all, {what}")
        return tuple(plans)

    def _plan_frozen(
        self, name: str, inputs: MemberInputs, cross_validation: CrossValidation, *, is_first: bool
    ) -> MemberPlan:
        if not is_first and self._is_after(_LATEST_FROZEN_START):
            return MemberPlan(name, 0, 0.0)
        n_heads, n_mixed = len(cross_validation.trainings), inputs.recipe.n_mixed_clips
        with self.processes.main_process_first():
            cost = self.processes.broadcast(cost_of_frozen(inputs, cross_validation.targets, n_heads))
        left, budget = self.seconds_left, self.recipe.budget
        if left is not None and budget is not None:
            if not is_first and cost.seconds > left * _MAX_FROZEN_FRACTION:
                return MemberPlan(name, 0, 0.0)
            for_mixed = max(0.0, left - cost.seconds - budget * (1 - _LATEST_MIXING))
            n_mixed = min(n_mixed, int(for_mixed / max(cost.seconds_per_mixed_clip, 1e-9)))
            n_mixed -= n_mixed % _N_MIXED_AT_ONCE if n_mixed < inputs.recipe.n_mixed_clips else 0
        return MemberPlan(name, n_heads, cost.seconds + n_mixed * cost.seconds_per_mixed_clip, n_mixed)

    def _plan_finetuned(
        self,
        name: str,
        inputs: MemberInputs,
        cross_validation: CrossValidation,
        number: int,
        seconds_before: float,
        min_folds: int,
    ) -> MemberPlan:
        from spectag.training.members.finetuned import ordered_trainings, relative_epochs, seconds_per_epoch

        n_epochs, left = inputs.recipe.epochs, self.seconds_left
        if left is not None and left - seconds_before <= self._reserved:
            return MemberPlan(name, 0, 0.0)
        context = self._finetune_context(inputs, cross_validation, number, lambda: None)
        per_epoch = seconds_per_epoch(inputs, cross_validation, context)
        trainings = ordered_trainings(cross_validation, inputs.recipe, has_limit=left is not None, min_folds=min_folds)
        per_training, n_trainings = per_epoch * relative_epochs(trainings), len(trainings)
        if (left := self.seconds_left) is not None:
            seconds = left - seconds_before - self._reserved
            n_beside = sum(not fold.valid.any() for fold in trainings)
            n_epochs, n_trainings = affordable(
                seconds, per_training, n_epochs, n_beside + min_folds if min_folds else 1
            )
        seconds = n_epochs * float(per_training[:n_trainings].sum())
        return MemberPlan(name, n_trainings, seconds, n_epochs=n_epochs, seconds_per_epoch=per_epoch)

    def fit(
        self, members: Sequence[MemberInputs], cross_validation: CrossValidation, plans: Sequence[MemberPlan] = ()
    ) -> EnsembleFit:
        """Train every member for which there is time. `plans` are those of `plan`.

        Raises
        ------
        ConfigError
            If the budget is too short for any member.
        """
        trained: list[MemberInputs] = []
        fits: list[MemberFit] = []
        scores: list[MemberScore] = []
        alone = len(members) == 1
        for number, (name, inputs) in enumerate(zip(_names(members), members, strict=True), start=1):
            started = self.clock()
            plan = plans[number - 1] if plans else None
            n_waiting = max(1, sum(waiting.recipe.mode == "finetune" for waiting in members[number - 1 :]))
            prefix = "" if alone else f"{name}, "
            if inputs.recipe.mode == "frozen":
                fit = self._fit_frozen(inputs, cross_validation, prefix, plan, must_fit=not fits)
            else:
                min_folds = _min_folds(members, cross_validation)
                fit = self._fit_finetuned(inputs, cross_validation, prefix, plan, number, n_waiting, min_folds)
            if fit is None:
                self.callbacks.log(f"{name}: left out, because the time is too short for it")
                continue
            trained.append(inputs)
            fits.append(fit)
            weights, logits = blend([fit.logits for fit in fits], cross_validation)
            own_score = cross_validation.score(cross_validation.cross_fitted(fit.logits))
            seconds = self.clock() - started
            of_ensemble = cross_validation.score(logits)
            scores.append(MemberScore(name, cross_validation.metric, own_score, of_ensemble, 0.0, seconds))
            if not alone:
                self.callbacks.log(str(scores[-1]))
        if not fits:
            raise ConfigError(
                f"budget = {self.recipe.budget:g} s is too short to train any member; increase it, or use a smaller "
                "backbone or --mode frozen"
            )
        scores = [
            dataclasses.replace(score, weight=weight) for score, weight in zip(scores, weights.weights, strict=True)
        ]
        if not alone:
            self._log_weights(scores)
            self._log_missing_logits(scores, fits, cross_validation)
        return EnsembleFit(tuple(trained), tuple(fits), weights, logits, tuple(scores))

    def _log_weights(self, scores: Sequence[MemberScore]) -> None:
        self.callbacks.log("weights: " + ", ".join(f"{score.name} {score.weight:.2f}" for score in scores))
        for score in scores:
            if score.weight == 0:
                reason = f"held-out {score.metric} is much better without it"
                self.callbacks.log(f"{score.name}: not in the model, because {reason}")

    def _log_missing_logits(
        self, scores: Sequence[MemberScore], fits: Sequence[MemberFit], cross_validation: CrossValidation
    ) -> None:
        """Log which members are not part of the scores of some clips."""
        n_held_out = (cross_validation.parts >= 0).sum()
        for score, fit in zip(scores, fits, strict=True):
            n_missing = n_held_out - has_logits(fit.logits.chosen).sum()
            if score.weight and n_missing:
                self.callbacks.log(
                    f"{score.name}: validated on {n_held_out - n_missing} of {n_held_out} held-out clips; the scores "
                    f"of the other {n_missing} are those of the other members"
                )

    def _fit_frozen(
        self,
        inputs: MemberInputs,
        cross_validation: CrossValidation,
        prefix: str,
        plan: MemberPlan | None,
        *,
        must_fit: bool,
    ) -> MemberFit | None:
        is_left_out = plan is not None and not plan.n_trainings
        if not must_fit and (is_left_out or self._is_after(_LATEST_FROZEN_START)):
            return None
        data = self._frozen_features(inputs, cross_validation)
        if prefix:
            self.callbacks.log(f"{prefix}heads of {len(cross_validation.folds)} folds{self.budget.note()}")
        return fit_frozen(inputs, data, cross_validation, self.callbacks, name=prefix)

    def _frozen_features(self, inputs: MemberInputs, cross_validation: CrossValidation) -> FrozenFeatures:
        """The features of a frozen member; with a budget, as many mixed clips as there is time for."""
        recipe, n_mixed = inputs.recipe, 0 if self.recipe.budget is not None else inputs.recipe.n_mixed_clips
        with_windows = recipe.optimizer == "lbfgs" and cross_validation.n_parts > 0  # compared on held-out clips
        while True:
            started = self.budget.elapsed
            limited = dataclasses.replace(inputs, recipe=recipe.model_copy(update={"n_mixed_clips": n_mixed}))
            with self.processes.main_process_first():
                data = limited.frozen_features(
                    cross_validation.targets, progress=self.callbacks.progress, with_windows=with_windows
                )
            if n_mixed == recipe.n_mixed_clips:
                return data
            seconds = self.budget.elapsed - started if n_mixed else 0.0  # for the next ones, too
            if self._is_after(_LATEST_MIXING, seconds):
                self.callbacks.log(f"mixed clips: {n_mixed} of {recipe.n_mixed_clips}, as many as there is time for")
                return data
            n_mixed = min(n_mixed + _N_MIXED_AT_ONCE, recipe.n_mixed_clips)

    def _fit_finetuned(
        self,
        inputs: MemberInputs,
        cross_validation: CrossValidation,
        prefix: str,
        plan: MemberPlan | None,
        number: int,
        n_waiting: int,
        min_folds: int,
    ) -> MemberFit | None:
        """Fine-tune a member in its share of the time for the `n_waiting` members that are still to be fine-tuned."""
        from spectag.training.members.finetuned import fit_finetuned

        left, started = self.seconds_left, self.clock()
        limit = None if left is None else (left - self._reserved * n_waiting) / n_waiting

        def seconds_left() -> float | None:
            return None if limit is None else self.processes.broadcast(limit - (self.clock() - started))

        per_epoch = None if plan is None else plan.seconds_per_epoch
        context = self._finetune_context(inputs, cross_validation, number, seconds_left, per_epoch, min_folds)
        return fit_finetuned(inputs, cross_validation, context, self.callbacks, name=prefix)

    def _finetune_context(
        self,
        inputs: MemberInputs,
        cross_validation: CrossValidation,
        number: int,
        seconds_left: Callable[[], float | None],
        seconds_per_epoch: float | None = None,
        min_folds: int = 0,
    ) -> "FinetuneContext":
        from spectag.training.members.finetuned import FinetuneContext

        return FinetuneContext(
            self.processes,
            self.checkpoints / f"member-{number}",
            self.resume,
            _fingerprint(inputs, cross_validation),
            seconds_left,
            self.root,
            self.budget.note,
            seconds_per_epoch,
            min_folds,
        )

    def write_bundle(self, output: Path, record: TrainingRecord, ensemble: EnsembleFit) -> float:
        """Write the bundle from the main process, and delete the checkpoints.

        Returns the largest difference in probability between ONNX and PyTorch, 0 in the other processes.
        """
        difference = 0.0
        if self.processes.is_main:
            self.callbacks.log("writing the model, and comparing model.onnx with torch")
            members, weights = ensemble.bundle_members()
            difference = write_bundle(output, record, members, weights)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.processes.wait()
        return difference


def _min_folds(members: Sequence[MemberInputs], cross_validation: CrossValidation) -> int:
    """Fewest folds on which a fine-tuned member is validated; 0 without a frozen member, which all clips have."""
    from spectag.training.members.finetuned import fewest_folds

    has_frozen = any(inputs.recipe.mode == "frozen" for inputs in members)
    return fewest_folds(cross_validation) if has_frozen else 0


def _check_negatives(y_true: FloatArray, manifest: Manifest, log: Log) -> None:
    """Refuse clips that all have all labels, and warn about labels that every clip has where it is known."""
    has_negatives = (y_true == 0).any(axis=0)
    names = [manifest.labels.names[label] for label in np.flatnonzero(~has_negatives & (y_true == 1).any(axis=0))]
    if_known = " where it is known" if np.isnan(y_true).any() else ""
    if not has_negatives.any():
        raise DataError(
            f"{manifest.source}: all {len(y_true)} clips have {abbreviate(names)}{if_known}, so a model would report "
            "it for every sound, and for silence; add clips without it: other sounds, background noise, silence"
        )
    if names:
        log(
            f"WARNING: all {len(y_true)} clips have {abbreviate(names)}{if_known}: the model will report it for every "
            "sound; add clips without it"
        )


def _names(members: Sequence[MemberInputs]) -> list[str]:
    """A name for each member, such as "mn04_audioset fine-tuned"."""
    names: list[str] = []
    for recipe in (inputs.recipe for inputs in members):
        is_frozen = recipe.mode == "frozen" or recipe.finetune.unfreeze == 0
        name = f"{recipe.backbone} {'frozen' if is_frozen else 'fine-tuned'}"
        n_before = sum(earlier.startswith(name) for earlier in names)
        names.append(f"{name} {n_before + 1}" if n_before else name)
    return names


def _fingerprint(inputs: MemberInputs, cross_validation: CrossValidation) -> str:
    """A hash of everything that determines the fine-tuning of a member, except the time budget."""
    recipe = inputs.recipe.model_copy(update={"budget": None})
    digest = hashlib.blake2b(digest_size=16)
    for text in (
        f"{version('spectag')} {FINETUNING_VERSION}",
        recipe.model_dump_json(),
        inputs.front_end.model_dump_json(),
        inputs.store.weights_sha256,
        *inputs.clips.keys,
    ):
        digest.update(f"{text}\n".encode())
    digest.update(cross_validation.targets.tobytes())
    for fold in cross_validation.trainings:
        digest.update(
            fold.train.tobytes() + fold.valid.tobytes() + fold.weights_of(np.flatnonzero(fold.train)).tobytes()
        )
        if fold.noisy is not None and inputs.noisy is not None:
            digest.update(" ".join(inputs.noisy.keys).encode())
            digest.update(fold.noisy.targets.tobytes() + fold.noisy.weights.tobytes())
    return digest.hexdigest()


def _check_init(bundle: Path, recipe: Recipe, labels: LabelSet) -> None:
    """Refuse an initial bundle with another architecture, head or labels."""
    info = read_info(bundle)
    found = (info.backbone.name, info.backbone.features, info.backbone.head)
    needed = (recipe.backbone, recipe.features, recipe.head)
    problem = f"{bundle}: training cannot start from this model"
    if info.members:
        raise ConfigError(f"{problem}: it is an ensemble; use a model with one network")
    if found != needed:
        text = "backbone {}, features {}, head {}"
        raise ConfigError(f"{problem}: it has {text.format(*found)}; this training has {text.format(*needed)}")
    if info.labels != labels.names:
        different = sorted(set(info.labels) ^ set(labels.names))
        raise ConfigError(f"{problem}: its labels differ: {abbreviate(different) if different else 'another order'}")
