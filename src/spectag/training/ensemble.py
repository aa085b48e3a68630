"""The members of a tagger: what they hear, how much time each gets to learn, and what each says beside the others."""

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from spectag.array_types import BoolArray, FloatArray
from spectag.config.recipe import Recipe
from spectag.config.training import NoisyConfig
from spectag.data.clips import Manifest, shares_recording
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import some_of
from spectag.errors import ConfigError, DataError
from spectag.models.bundle import read_info
from spectag.scoring.blending import ONE_MODEL, EnsembleWeights, fit_ensemble_weights
from spectag.scoring.metrics import lwlrap
from spectag.system.epoch_log import OnEpoch, checkpoints_of
from spectag.system.progress import Log, Progress, no_log
from spectag.training.bundle_writer import Member, TrainingRecord, pack
from spectag.training.heads.per_fold import relabel_parts
from spectag.training.members.member import Heard, MemberFit, fit_frozen, front_end_for, hear
from spectag.training.setup.distributed import Processes
from spectag.training.setup.noisy_labels import relabel_report
from spectag.training.setup.task import CrossValidation

_RESERVE_SECONDS = 20.0
"""Of a budget, for writing the bundle; and for each fine-tuned network to be exported as much again."""
_RESERVE_SHARE = 0.1
"""Of a budget at most."""
_HARM = 0.01
"""Held-out lwlrap that a blend may lose by a member before the member is left out."""
_LATEST_FROZEN = 0.5
"""Share of the budget after which no further frozen member is begun."""


@dataclass(frozen=True)
class MemberScore:
    """How good a member is on held-out clips, alone and blended with those before it; None where none are held out."""

    name: str
    lwlrap: float | None
    blended: float | None
    weight: float
    seconds: float


class TrainingRun:
    """One call of `train`: what its steps share."""

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        root: Path,
        processes: Processes,
        resume: bool,
        progress: Progress,
        log: Log,
        on_epoch: OnEpoch,
    ) -> None:
        self.recipe, self.output, self.root, self.processes, self.resume = recipe, output, root, processes, resume
        self.progress, self.log, self.on_epoch = progress, log, on_epoch
        self.started = time.monotonic()
        self.checkpoints = checkpoints_of(output)

    @property
    def seconds_left(self) -> float | None:
        """What is left of the budget for learning, by the first process' clock."""
        if self.recipe.budget is None:
            return None
        return self.processes.broadcast(self.recipe.budget - self._reserve - (time.monotonic() - self.started))

    @property
    def _reserve(self) -> float:
        """Seconds of the budget that are kept for writing the bundle, and again for each fine-tuned member."""
        return min(_RESERVE_SECONDS, _RESERVE_SHARE * (self.recipe.budget or 0.0))

    def hear(self, manifest: Manifest, noisy: Manifest | None, workers: int | None) -> list[Heard]:
        """The inputs of every member."""
        n_clips = len(manifest.clips)
        manifest = manifest.without(self.recipe.leave_out)
        noisy = noisy and noisy.without(self.recipe.leave_out)
        if self.recipe.leave_out:
            n_left_out, n_named = n_clips - len(manifest.clips), len(self.recipe.leave_out)
            self.log(f"leave_out: {n_left_out} clips of the manifest are left out; the recipe names {n_named}")
        if noisy is None and self.recipe.noisy_labels != NoisyConfig():
            self.log("noisy_labels settings do nothing, for there is no manifest of noisy labels (--noisy)")
        heard: list[Heard] = []
        for member in self.recipe.member_recipes():
            if member.init is not None:
                _check_init(member.init, member, manifest.labels)
            with self.processes.main_process_first():
                opened = hear(
                    manifest,
                    noisy,
                    member,
                    front_end_for(member, manifest),
                    self.root,
                    workers=workers,
                    progress=self.progress,
                    log=self.log if not heard else no_log,
                )
            if heard and opened.read_clips != heard[0].read_clips:
                raise DataError(f"{manifest.source}: not all members could read the same clips; train again")
            heard.append(opened)
        if not heard[0].clips.manifest.multi_hot().any():
            raise DataError(f"{manifest.source}: no clip has a label, so there is nothing to learn from")
        return heard

    def with_noisy(self, task: CrossValidation, heard: Heard) -> CrossValidation:
        """The task with what its parts may learn from doubtful labels, in the opinion of the first member."""
        if heard.noisy is None:
            return task
        given = heard.noisy.manifest.multi_hot()
        with self.processes.main_process_first():
            data = heard.frozen_features(task.y_true, progress=self.progress, with_mixes=False)
        relabelled = relabel_parts(data, given, task, heard.recipe)
        copies = np.isin(heard.noisy.keys, heard.clips.keys)
        if copies.any():
            self.log(f"{copies.sum()} noisy clips are copies of others in the manifest, and are left out")
        relatives = [
            shares_recording(heard.noisy.manifest, heard.clips.manifest, part.valid) for part in task.all_folds
        ]
        if np.any(relatives):
            self.log(
                f"{np.any(relatives, axis=0).sum()} noisy clips are of the manifest's own recordings or groups; where "
                "those are held out, they are left out"
            )
        relabelled = [
            dataclasses.replace(noisy, weights=np.where(copies | kin, 0, noisy.weights))
            for noisy, kin in zip(relabelled, relatives, strict=True)
        ]
        for line in relabel_report(relabelled[-1], given, heard.noisy.manifest.labels.names):
            self.log(line)
        return task.with_noisy(relabelled)

    def fit(
        self, heard: list[Heard], task: CrossValidation
    ) -> tuple[list[MemberFit], EnsembleWeights, tuple[MemberScore, ...]]:
        """Let every member learn that there is time for; `heard` keeps those that did."""
        fits: list[MemberFit] = []
        scores: list[MemberScore] = []
        names = _names([member.recipe for member in heard])
        alone = len(heard) == 1
        for number, (name, member) in enumerate(zip(names, list(heard), strict=True), start=1):
            started = time.monotonic()
            label = "" if alone else f"{name}, "
            n_waiting = _n_fine_tuned(heard[len(fits) :])
            fit = self._fit_member(member, task, number, label, n_waiting=n_waiting, is_first=not fits)
            if fit is None:
                self.log(f"{name}: left out, for the budget is used up")
                heard.remove(member)
                continue
            fits.append(fit)
            blend = _blend(fits, task)
            scores.append(
                MemberScore(
                    name,
                    task.score(fit.logits),
                    task.score(blend([fit.logits for fit in fits])),
                    0.0,
                    time.monotonic() - started,
                )
            )
            if not alone:
                self.log(_in_words(scores[-1]))
        if not fits:
            raise ConfigError(
                f"budget = {self.recipe.budget:g} s is too short for any of the training; give more, or take a smaller "
                "backbone or --mode frozen"
            )
        blend = _blend(fits, task)
        weighted = [
            dataclasses.replace(member, weight=weight) for member, weight in zip(scores, blend.weights, strict=True)
        ]
        if not alone:
            self.log("weights: " + ", ".join(f"{member.name} {member.weight:.2f}" for member in weighted))
            for idle in (member.name for member in weighted if member.weight == 0):
                self.log(f"{idle}: not in the tagger, for held-out clips are ranked much better without it")
        return fits, blend, tuple(weighted)

    def _fit_member(
        self, member: Heard, task: CrossValidation, number: int, label: str, *, n_waiting: int, is_first: bool
    ) -> MemberFit | None:
        if member.recipe.mode == "frozen":
            left, budget = self.seconds_left, self.recipe.budget
            if left is not None and budget is not None and not is_first and left < budget * _LATEST_FROZEN:
                return None
            with self.processes.main_process_first():
                data = member.frozen_features(task.y_true, progress=self.progress)
            return fit_frozen(
                member, data, task, name=label, progress=self.progress, log=self.log, on_epoch=self.on_epoch
            )
        from spectag.training.members.finetuned import FinetuneContext, fit_finetuned

        left, started = self.seconds_left, time.monotonic()
        share = None if left is None else (left - self._reserve * n_waiting) / n_waiting

        def seconds_left() -> float | None:
            return None if share is None else self.processes.broadcast(share - (time.monotonic() - started))

        place = FinetuneContext(
            self.processes,
            self.checkpoints / f"member-{number}",
            self.resume,
            _fingerprint(member, task),
            seconds_left,
            self.root,
        )
        return fit_finetuned(
            member, task, place, name=label, progress=self.progress, log=self.log, on_epoch=self.on_epoch
        )

    def pack(
        self, record: TrainingRecord, heard: Sequence[Heard], fits: Sequence[MemberFit], blend: EnsembleWeights
    ) -> float:
        """Write the bundle from the first process, and clear away what was kept for resuming."""
        difference = 0.0
        if self.processes.is_first:
            self.log("writing the bundle, and checking model.onnx against torch")
            members, weights = _members(heard, fits, blend)
            difference = pack(
                self.output, record, members, EnsembleWeights(weights, blend.bias) if len(members) > 1 else blend
            )
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.processes.wait()
        return difference


def _members(
    heard: Sequence[Heard], fits: Sequence[MemberFit], blend: EnsembleWeights
) -> tuple[list[Member], tuple[float, ...]]:
    """The networks of the bundle and their weights: those of a member share its weight."""
    members, weights = [], []
    for member, fit, weight in zip(heard, fits, blend.weights, strict=True):
        for tagger in fit.taggers:
            is_frozen = tagger.extractor is member.store.extractor
            members.append(
                Member(
                    recipe=member.recipe,
                    front_end=member.front_end,
                    tagger=tagger,
                    inputs=member.clips.inputs,
                    features_onnx=member.store.onnx_file(member.clips.inputs(0)) if is_frozen else None,
                    weights_sha256=member.store.weights_sha256,
                    other_weights=fit.others,
                )
            )
            weights.append(weight / len(fit.taggers))
    return members, tuple(weights)


def _blend(fits: Sequence[MemberFit], task: CrossValidation) -> EnsembleWeights:
    """Weights of the members, fitted on held-out clips; all alike where there are none.

    A member without which held-out clips are ranked much better has no weight. A little does not count: held-out scores
    may flatter one member, and on other recordings the blend is then better than they say.
    """
    seen = ~np.isnan([fit.logits for fit in fits]).any(axis=(0, 2)) & task.y_true.any(axis=1)
    if len(fits) == 1 or not seen.any():
        return ONE_MODEL if len(fits) == 1 else EnsembleWeights(tuple(1 / len(fits) for _ in fits))
    logits, y_true = [fit.logits[seen] for fit in fits], task.y_true[seen]
    best: tuple[int, ...] = (0,)
    for newest in range(1, len(fits)):
        choices = ((*best, newest), best, (newest,))
        found = [lwlrap(y_true, _blend_of(members, logits, y_true)(logits)) for members in choices]
        best = choices[next(i for i, value in enumerate(found) if value >= max(found) - _HARM)]
    return _blend_of(best, logits, y_true)


def _blend_of(members: Sequence[int], logits: Sequence[FloatArray], y_true: BoolArray) -> EnsembleWeights:
    """The fitted blend of some members; the others have no weight."""
    fitted = ONE_MODEL if len(members) == 1 else fit_ensemble_weights([logits[i] for i in members], y_true)
    weights = np.zeros(len(logits))
    weights[list(members)] = fitted.weights
    return EnsembleWeights(tuple(weights.tolist()), fitted.bias)


def _n_fine_tuned(heard: Sequence[Heard]) -> int:
    return max(1, sum(member.recipe.mode == "finetune" for member in heard))


def _names(recipes: Sequence[Recipe]) -> list[str]:
    """What each member is called, such as "mn04_audioset fine-tuned"."""
    names: list[str] = []
    for recipe in recipes:
        name = f"{recipe.backbone} {'frozen' if recipe.mode == 'frozen' else 'fine-tuned'}"
        n_before = sum(earlier.startswith(name) for earlier in names)
        names.append(f"{name} {n_before + 1}" if n_before else name)
    return names


def _in_words(member: MemberScore) -> str:
    minutes, seconds = divmod(round(member.seconds), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    if member.lwlrap is None or member.blended is None:
        return f"{member.name}: {took}"
    return f"{member.name}: held-out lwlrap {member.lwlrap:.4f}, blended so far {member.blended:.4f}, {took}"


def _fingerprint(member: Heard, task: CrossValidation) -> str:
    """Of all that decides how fine-tuning goes, but for the time that there is."""
    recipe = member.recipe.model_copy(update={"budget": None})
    digest = hashlib.blake2b(digest_size=16)
    for words in (
        version("spectag"),
        recipe.model_dump_json(),
        member.front_end.model_dump_json(),
        member.store.weights_sha256,
        *member.clips.keys,
    ):
        digest.update(f"{words}\n".encode())
    digest.update(task.y_true.tobytes())
    for part in task.all_folds:
        digest.update(part.valid.tobytes())
        if part.noisy is not None and member.noisy is not None:
            digest.update(" ".join(member.noisy.keys).encode())
            digest.update(part.noisy.targets.tobytes() + part.noisy.weights.tobytes())
    return digest.hexdigest()


def _check_init(bundle: Path, recipe: Recipe, labels: LabelSet) -> None:
    """Refuse an earlier bundle whose network or head is built otherwise, or whose labels are others."""
    info = read_info(bundle)
    theirs = (info.backbone.name, info.backbone.features, info.backbone.head)
    own = (recipe.backbone, recipe.features, recipe.head)
    problem = f"{bundle}: it can't be the beginning of this one"
    if info.members:
        raise ConfigError(f"{problem}: it is an ensemble; give a tagger of one network")
    if theirs != own:
        words = "backbone {}, features {}, head {}"
        raise ConfigError(f"{problem}: it has {words.format(*theirs)}; this one has {words.format(*own)}")
    if info.labels != labels.names:
        different = sorted(set(info.labels) ^ set(labels.names))
        raise ConfigError(f"{problem}: the labels differ: {some_of(different) if different else 'by their order'}")
