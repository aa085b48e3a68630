"""Train all members of an ensemble within the time budget, and fit the weights of their logits."""

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
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
from spectag.data.shared_audio import SharedAudio
from spectag.errors import ConfigError, DataError
from spectag.system.progress import no_log
from spectag.training.bundle_writer import TrainingRecord, write_bundle
from spectag.training.ensemble_fit import EnsembleFit, MemberScore
from spectag.training.heads.frame_head import FrameModel, fit_frames
from spectag.training.heads.per_fold import FrozenFeatures, relabel_noisy_clips
from spectag.training.members.member import MemberFit, MemberInputs, fit_frozen, front_end_for, open_inputs
from spectag.training.planning import (
    N_MIXED_AT_ONCE,
    Cost,
    FinetuneCost,
    FrozenCost,
    MemberPlan,
    allot,
    cost_of_frozen,
    least_seconds,
    rounded,
    seconds_after,
    seconds_beside_networks,
    seconds_of_features,
    seconds_of_writing,
)
from spectag.training.setup.budget import Budget
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation, relative_weights
from spectag.training.setup.data_checks import check_init, check_negatives
from spectag.training.setup.distributed import Processes
from spectag.training.setup.member_weights import blend, has_logits
from spectag.training.setup.noisy_labels import relabel_report

if TYPE_CHECKING:
    from spectag.training.members.finetuned import FinetuneContext

FINETUNING_VERSION = 3
"""Increased when fine-tuning with the same settings gives other weights, so that no earlier checkpoint is continued."""
_LEAST_FRACTION = 0.3
"""Fraction of a budget. If less is left, nothing is measured; only the first frozen member is trained, as it is."""
_SECONDS_OF_FRAMES = 20.0
"""For the network of frames, on two cores."""
_MAX_FRAMES_FRACTION = 0.2
"""Largest fraction of a budget that is kept for it."""
_TOLERATED_DELAY = 1.25
"""Factor of the time planned for mixed clips after which no more are made."""


@dataclass(frozen=True)
class _Trained:
    """A trained member."""

    name: str
    inputs: MemberInputs
    fit: MemberFit
    n_mixed_clips: int
    seconds: float

    def score(self, cross_validation: CrossValidation, of_ensemble: FloatArray, weight: float) -> MemberScore:
        """Its score, and that of the ensemble by the ensemble's held-out logits."""
        own = cross_validation.score(cross_validation.cross_fitted(self.fit.logits))
        ensemble = cross_validation.score(of_ensemble)
        return MemberScore(self.name, cross_validation.metric, own, ensemble, weight, self.seconds)


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
        self._reserved = 0.0  # seconds for what follows training, and for writing the members that are trained
        self._seconds_of_measuring = 0.0  # of the last member
        self._plans: dict[str, MemberPlan] = {}

    @property
    def seconds_left(self) -> float | None:
        """Time of the budget that is left for training; None without a budget."""
        left = self.budget.left
        return None if left is None else left - self._reserved

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
                check_init(recipe.init, recipe, manifest.labels)
            with self.processes.main_process_first():
                callbacks = dataclasses.replace(self.callbacks, log=no_log) if members else self.callbacks
                front_end = front_end_for(recipe, manifest)
                inputs = open_inputs(manifest, noisy, recipe, front_end, self.root, callbacks, workers=workers)
            if members and inputs.readable_clips != members[0].readable_clips:
                raise DataError(f"{manifest.source}: the members could not all read the same clips; train again")
            members.append(inputs)
        _check_parts(members)
        y_true = members[0].clips.manifest.targets()
        if not (y_true == 1).any():
            raise DataError(f"{manifest.source}: no clip has a label, so there is nothing to train on")
        if noisy is None:
            check_negatives(y_true, manifest, self.callbacks.log)
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

    def plan(self, members: Sequence[MemberInputs], cross_validation: CrossValidation) -> dict[str, MemberPlan]:
        """How long each member is expected to take; it is measured and logged. Empty for one member and no budget."""
        if len(members) == 1 and self.recipe.budget is None:
            return {}
        costs: dict[str, Cost] = {}
        names = _names(members)
        for number in _in_order_of_use(members):
            started = self.budget.elapsed
            if self._is_worth_measuring(costs):
                costs[names[number]] = self._cost(members, number, cross_validation)
                self._seconds_of_measuring = self.budget.elapsed - started
                if len(costs) == 1:
                    self._reserved = seconds_beside_networks(costs[names[number]].writing, self.recipe.budget)
                    self._reserved += self._seconds_of_frames(members)
        allotted = allot({name: costs[name] for name in names if name in costs}, self.seconds_left)
        plans = {name: allotted.get(name) or MemberPlan(name, 0, 0.0) for name in names}
        for plan in plans.values():
            self.callbacks.log(f"plan: {plan}")
        seconds = self.budget.elapsed + sum(plan.seconds_with_writing for plan in plans.values()) + self._reserved
        of_budget = "" if self.recipe.budget is None else f" of {rounded(self.recipe.budget)}"
        what = "with reading the sounds and writing the model"
        self.callbacks.log(f"plan: about {rounded(seconds)}{of_budget} in all, {what}")
        return plans

    def _seconds_of_frames(self, members: Sequence[MemberInputs]) -> float:
        """Seconds to reserve for the network of frames; 0 if there is none, or the budget is too short for it."""
        budget = self.recipe.budget
        is_short = budget is not None and budget * _MAX_FRAMES_FRACTION < _SECONDS_OF_FRAMES
        is_wanted = self.recipe.extend is None and any(inputs.gives_frames for inputs in members)
        return _SECONDS_OF_FRAMES if is_wanted and not is_short else 0.0

    @property
    def _is_late(self) -> bool:
        """Whether so much of the budget is used up that measuring would take too much of the rest."""
        left, budget = self.budget.left, self.recipe.budget
        return left is not None and budget is not None and left < _LEAST_FRACTION * budget

    def _is_worth_measuring(self, costs: Mapping[str, Cost]) -> bool:
        """Whether there may be time for another member: for measuring it, and for as much as the fastest one takes."""
        left = self.seconds_left
        if left is None or not costs:
            return True
        if self._is_late:
            return False
        least = min(map(least_seconds, costs.values()))
        return seconds_after(costs.values(), left) > self._seconds_of_measuring + least

    def _cost(self, members: Sequence[MemberInputs], number: int, cross_validation: CrossValidation) -> Cost:
        inputs, n_heads, from_main = (
            members[number],
            len(cross_validation.trainings),
            self.processes.broadcast_from_main,
        )
        if inputs.recipe.mode == "frozen":
            from_main(lambda: inputs.store.onnx_file(inputs.clips.example))  # made once, which takes seconds
            if self._is_late and not self._plans:  # the first member, which is trained anyway
                return FrozenCost(0.0, 0.0, n_trainings=n_heads)
            n_trained = [int(fold.train.sum()) for fold in cross_validation.trainings]
            cost = from_main(lambda: cost_of_frozen(inputs, cross_validation.targets, n_trained))
            assert cost is not None
            return cost
        from spectag.training.members.finetuned import ordered_trainings, relative_epochs, seconds_per_epoch

        min_folds, has_limit = _min_folds(members, cross_validation), self.recipe.budget is not None
        beside = from_main(lambda: self._cost_beside_epochs(members, number, cross_validation))
        assert beside is not None
        context = self._finetune_context(inputs, cross_validation, number + 1, lambda: None)
        per_epoch = seconds_per_epoch(inputs, cross_validation, context)
        trainings = ordered_trainings(cross_validation, inputs.recipe, has_limit=has_limit, min_folds=min_folds)
        n_beside = sum(not fold.valid.any() for fold in trainings)
        n_needed = n_beside + min_folds if min_folds else 1
        of_each = tuple((per_epoch * relative_epochs(trainings)).tolist())
        return FinetuneCost(of_each, inputs.recipe.epochs, n_needed, *beside, is_beside_others=min_folds > 0)

    @staticmethod
    def _cost_beside_epochs(
        members: Sequence[MemberInputs], number: int, cross_validation: CrossValidation
    ) -> tuple[float, float]:
        """Seconds for the features that fine-tuning starts from, unless a frozen member has them, and for writing."""
        inputs, y_true = members[number], cross_validation.targets
        frozen_stores = [other.store.folder for other in members if other.recipe.mode == "frozen"]
        features = 0.0
        if inputs.store.folder not in frozen_stores:
            features = seconds_of_features(inputs, y_true, with_windows=False)
        return features, seconds_of_writing(inputs, y_true.shape[1])

    def fit(
        self,
        members: Sequence[MemberInputs],
        cross_validation: CrossValidation,
        plans: Mapping[str, MemberPlan] | None = None,
    ) -> EnsembleFit:
        """Train every member for which there is time. `plans` are those of `plan`.

        The time that is left is allotted again before each member. At the end, members and mixed clips for which there
        was no time are reconsidered.

        Raises
        ------
        ConfigError
            If the budget is too short for any member.
        """
        if not plans and self.recipe.budget is not None:
            plans = self.plan(members, cross_validation)
        names, trained = _names(members), dict[int, _Trained]()
        self._plans = dict(plans or {})
        for number in range(len(members)):
            plan = self._allotted(names[number:], must_fit=not trained)
            self._train(members, number, plan, cross_validation, trained)
        for number in range(len(members)) if self.recipe.budget is not None else ():
            if (plan := self._reconsidered(members, number, cross_validation, trained)) is not None:
                self._train(members, number, plan, cross_validation, trained)
        if not trained:
            raise ConfigError(
                f"budget = {self.recipe.budget:g} s is too short to train any member; increase it, or use a smaller "
                "backbone or --mode frozen"
            )
        self._log_left_out(names, trained)
        return self._ensemble([trained[number] for number in sorted(trained)], cross_validation, len(members) > 1)

    def _allotted(self, names: Sequence[str], *, must_fit: bool) -> MemberPlan | None:
        """The plan of the first of the members that wait, by the time that is left now; None without a plan."""
        plan, left = self._plans.get(names[0]), self.seconds_left
        if plan is None or left is None:
            return plan
        costs = {name: cost for name in names if (cost := self._plans[name].cost) is not None}
        if names[0] not in costs:
            return plan
        plans = allot(costs, left, must_fit=must_fit)
        if plans[names[0]].what != plan.what:
            self.callbacks.log(f"plan now: {plans[names[0]]}")
        self._plans.update(plans)
        return plans[names[0]]

    def _reconsidered(
        self,
        members: Sequence[MemberInputs],
        number: int,
        cross_validation: CrossValidation,
        trained: Mapping[int, "_Trained"],
    ) -> MemberPlan | None:
        """The plan of a member that was left out, or of mixed clips that were, if there is time for it after all."""
        name, left = _names(members)[number], self.seconds_left or 0.0
        cost, n_mixed = self._plans[name].cost, 0
        if number in trained:
            n_mixed = trained[number].n_mixed_clips
            if not isinstance(cost, FrozenCost) or n_mixed + N_MIXED_AT_ONCE > cost.n_mixed_clips:
                return None
            cost = dataclasses.replace(cost, features=0.0, writing=0.0)
            left += n_mixed * cost.per_mixed_clip
        elif cost is None:
            known = [least_seconds(plan.cost) for plan in self._plans.values() if plan.cost is not None]
            if not any(known) or left < self._seconds_of_measuring + min(known):
                return None
            cost = self._cost(members, number, cross_validation)
            left = self.seconds_left or 0.0
        plan = allot({name: cost}, left, must_fit=False)[name]
        self._plans[name] = dataclasses.replace(plan, cost=cost)
        is_more = plan.n_mixed_clips >= n_mixed + N_MIXED_AT_ONCE if number in trained else plan.n_trainings > 0
        if not is_more:
            return None
        self.callbacks.log(f"plan now, in the time that is left: {plan}")
        return plan

    def _train(
        self,
        members: Sequence[MemberInputs],
        number: int,
        plan: MemberPlan | None,
        cross_validation: CrossValidation,
        trained: dict[int, "_Trained"],
    ) -> None:
        """Train a member as planned, and log the held-out scores of it and of the ensemble so far."""
        if plan is not None and not plan.n_trainings:
            return
        name, inputs, alone = _names(members)[number], members[number], len(members) == 1
        started, prefix = self.clock(), "" if alone else f"{name}, "
        fit: MemberFit | None
        if inputs.recipe.mode == "frozen":
            fit, n_mixed = self._fit_frozen(inputs, cross_validation, prefix, plan)
        else:
            waiting = [name for later, name in enumerate(_names(members)) if later > number and later not in trained]
            fit, n_mixed = self._fit_finetuned(members, number, cross_validation, prefix, waiting), 0
        if fit is None:
            return
        if number not in trained and plan is not None and plan.cost is not None:
            self._reserved += plan.cost.writing
        trained[number] = _Trained(name, inputs, fit, n_mixed, self.clock() - started)
        if not alone:
            in_order = [trained[earlier] for earlier in sorted(trained)]
            _, logits = blend([member.fit.logits for member in in_order], cross_validation)
            self.callbacks.log(str(trained[number].score(cross_validation, logits, 0.0)))

    def _log_left_out(self, names: Sequence[str], trained: Mapping[int, "_Trained"]) -> None:
        for number, name in enumerate(names):
            if number not in trained:
                self.callbacks.log(f"{name}: left out, because the time is too short for it")
            elif (plan := self._plans.get(name)) is not None and isinstance(plan.cost, FrozenCost):
                n_mixed = trained[number].n_mixed_clips
                if n_mixed < plan.cost.n_mixed_clips:
                    self.callbacks.log(
                        f"{name}: {n_mixed} of {plan.cost.n_mixed_clips} mixed clips, as many as there is time for"
                    )

    def _ensemble(
        self, trained: Sequence["_Trained"], cross_validation: CrossValidation, has_others: bool
    ) -> EnsembleFit:
        """The weights of the trained members, and their scores."""
        fits, scores = [member.fit for member in trained], list[MemberScore]()
        for number, member in enumerate(trained, start=1):
            weights, logits = blend([fit.logits for fit in fits[:number]], cross_validation)
            scores.append(member.score(cross_validation, logits, 0.0))
        scores = [
            dataclasses.replace(score, weight=weight) for score, weight in zip(scores, weights.weights, strict=True)
        ]
        if has_others:
            self._log_weights(scores)
            self._log_missing_logits(scores, fits, cross_validation)
        return EnsembleFit(tuple(member.inputs for member in trained), tuple(fits), weights, logits, tuple(scores))

    def _log_weights(self, scores: Sequence[MemberScore]) -> None:
        self.callbacks.log("weights: " + ", ".join(f"{score.name} {score.weight:.2f}" for score in scores))
        for score in scores:
            if score.weight == 0:
                reason = f"held-out {score.metric} is much better without it"
                self.callbacks.log(f"{score.name}: not in the model, because {reason}")
        in_use = [score.name for score in scores if score.weight]
        if len(in_use) == 1:
            why = "there was no time for another one; increase --budget" if len(scores) == 1 else "no other one helped"
            self.callbacks.log(f"the model is no ensemble but one network, {in_use[0]}: {why}")

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
        self, inputs: MemberInputs, cross_validation: CrossValidation, prefix: str, plan: MemberPlan | None
    ) -> tuple[MemberFit, int]:
        """The fitted member, and the number of its mixed clips."""
        data, n_mixed = self._frozen_features(inputs, cross_validation, plan)
        if prefix or self.budget.note():
            self.callbacks.log(f"{prefix}heads of {len(cross_validation.folds)} folds{self.budget.note()}")
        return fit_frozen(inputs, data, cross_validation, self.callbacks, name=prefix), n_mixed

    def _frozen_features(
        self, inputs: MemberInputs, cross_validation: CrossValidation, plan: MemberPlan | None
    ) -> tuple[FrozenFeatures, int]:
        """The features of a frozen member, and the number of mixed clips: those of the plan, or fewer if it is late."""
        y_true, progress = cross_validation.targets, self.callbacks.progress
        with_windows = inputs.recipe.optimizer == "lbfgs" and cross_validation.n_parts > 0  # compared on held-out clips
        has_limit = self.recipe.budget is not None and plan is not None
        with self.processes.main_process_first():
            data = inputs.frozen_features(
                y_true, progress=progress, with_mixed=not has_limit, with_windows=with_windows
            )
        if plan is None or not has_limit or not isinstance(plan.cost, FrozenCost):
            return data, inputs.recipe.n_mixed_clips
        planned = plan.n_mixed_clips * plan.cost.per_mixed_clip
        latest, n_mixed = self.budget.elapsed + _TOLERATED_DELAY * planned, 0
        while n_mixed < plan.n_mixed_clips and self.budget.elapsed <= latest:
            numbers = range(n_mixed, min(n_mixed + N_MIXED_AT_ONCE, plan.n_mixed_clips))
            with self.processes.main_process_first():
                mixed = inputs.mixed_clips(y_true, numbers, progress=progress)
            data = dataclasses.replace(data, mixed=mixed if data.mixed is None else data.mixed.joined(mixed))
            n_mixed = numbers.stop
        return data, n_mixed

    def _fit_finetuned(
        self,
        members: Sequence[MemberInputs],
        number: int,
        cross_validation: CrossValidation,
        prefix: str,
        waiting: Sequence[str],
    ) -> MemberFit | None:
        """Fine-tune a member in the time that is left without the plans of those that wait."""
        from spectag.training.members.finetuned import fit_finetuned

        left, started, of_others, per_epoch = self.seconds_left, self.clock(), 0.0, None
        plan = self._plans.get(_names(members)[number])
        if plan is not None and isinstance(plan.cost, FinetuneCost):
            per_epoch = plan.cost.per_epoch[0]
            of_others = plan.cost.writing + sum(self._plans[name].seconds_with_writing for name in waiting)
        limit = None if left is None else left - of_others

        def seconds_left() -> float | None:
            return None if limit is None else self.processes.broadcast(limit - (self.clock() - started))

        inputs, min_folds = members[number], _min_folds(members, cross_validation)
        context = self._finetune_context(inputs, cross_validation, number + 1, seconds_left, per_epoch, min_folds)
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

    def fit_frames(self, ensemble: EnsembleFit, cross_validation: CrossValidation) -> FrameModel | None:
        """The network of frames for segments; None if the recipe, the networks, the clips or the time do not allow it.

        The labels of a published model have none, and all labels of a model are found in the same way.
        """
        member, left = ensemble.member_with_frames, self.budget.left
        if member is None or self.recipe.extend is not None or not self.processes.is_main:
            return None
        if left is not None and left < _SECONDS_OF_FRAMES:
            self.callbacks.log("segments are found from windows: no time is left to learn when a sound starts and ends")
            return None
        self.callbacks.log("learning from mixed clips when a sound starts and ends")
        network = member.store.network
        return fit_frames(network, member.front_end, member.clips, cross_validation, self.recipe.seed, self.callbacks)

    def write_bundle(self, output: Path, record: TrainingRecord, ensemble: EnsembleFit) -> float:
        """Write the bundle from the main process, and delete the checkpoints.

        Returns the largest difference in probability between ONNX and training, 0 in the other processes.
        """
        difference = 0.0
        if self.processes.is_main:
            self.callbacks.log("writing the model, and comparing model.onnx with training")
            members, weights = ensemble.bundle_members()
            difference = write_bundle(output, record, members, weights, log=self.callbacks.log)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.processes.wait()
        return difference


def _in_order_of_use(members: Sequence[MemberInputs]) -> list[int]:
    """The members, the most useful ones first: the first frozen one, those that are fine-tuned, other frozen ones."""
    frozen = [number for number, inputs in enumerate(members) if inputs.recipe.mode == "frozen"]
    tuned = [number for number, inputs in enumerate(members) if inputs.recipe.mode != "frozen"]
    return [*frozen[:1], *tuned, *frozen[1:]]


def _min_folds(members: Sequence[MemberInputs], cross_validation: CrossValidation) -> int:
    """Fewest folds on which a fine-tuned member is validated; 0 without a frozen member, which all clips have."""
    from spectag.training.members.finetuned import fewest_folds

    has_frozen = any(inputs.recipe.mode == "frozen" for inputs in members)
    return fewest_folds(cross_validation) if has_frozen else 0


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


def _check_parts(members: Sequence[MemberInputs]) -> None:
    """Raise a ConfigError if the networks of an ensemble process long recordings in parts of different lengths."""
    lengths = {member.front_end.part_seconds for member in members if not member.clips.manifest.holds_images}
    if len(lengths) > 1:
        listed = ", ".join(f"{member.recipe.backbone} {member.front_end.part_seconds:g} s" for member in members)
        raise ConfigError(
            f"the networks of an ensemble need the same longest input, but these take {listed}; set max_seconds or "
            "window_seconds in a network card, or train them one by one"
        )
