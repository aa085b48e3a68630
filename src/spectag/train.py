"""From a manifest to a bundle: inputs, held-out scores, networks that have learnt, and files that are checked."""

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from spectag.blend import SINGLE, Blend, fit_blend
from spectag.bundle import read_info
from spectag.errors import ConfigError, DataError
from spectag.frozen_fit import relabel_parts
from spectag.history import Epoch, OnEpoch
from spectag.labels import LabelSet
from spectag.manifest import Clip, Manifest, read_manifest
from spectag.manifest.table import some_of
from spectag.member import Heard, MemberFit, fit_frozen, front_end_for, hear
from spectag.metrics import best_thresholds, lwlrap, top1_accuracy
from spectag.noisy_labels import relabel_report
from spectag.packing import FoldScore, Lesson, Member, check_output, pack
from spectag.processes import Processes
from spectag.progress import Progress, Say, silent, tell_nobody
from spectag.recipe import Recipe
from spectag.scores import Scores, score
from spectag.task import Task
from spectag.validation import HeldOut, hold_out
from spectag.weights import cache_folder

if TYPE_CHECKING:
    from spectag.finetune import FineTuning
    from spectag.tensorboard_log import TensorBoardLog

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_RESERVE_SECONDS = 20.0
"""Of a budget, for writing the bundle; and for each fine-tuned network to be exported as much again."""
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


@dataclass(frozen=True)
class TrainResult:
    """What training made.

    `scores` are those of held-out clips, None where none were held out. `predictions` are their probabilities
    (n_clips, n_labels) in the order of the clips that could be read, NaN for those that were not held out.
    """

    bundle: Path
    scores: Scores | None
    folds: tuple[FoldScore, ...]
    epochs: tuple[Epoch, ...]
    predictions: FloatArray
    skipped: tuple[tuple[Clip, str], ...]
    onnx_difference: float
    members: tuple[MemberScore, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The scores and what was skipped, for JSON."""
        return {
            "bundle": str(self.bundle),
            "scores": self.scores and self.scores.to_dict(),
            "folds": [dataclasses.asdict(fold) for fold in self.folds],
            "members": [dataclasses.asdict(member) for member in self.members],
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "skipped": [{"fname": clip.fname, "reason": reason} for clip, reason in self.skipped],
            "onnx_difference": self.onnx_difference,
        }


def train(
    manifest: str | Path | Manifest,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    noisy: str | Path | Manifest | None = None,
    resume: bool = False,
    bank: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    workers: int | None = None,
    tensorboard: str | Path | None = None,
    progress: Progress = silent,
    say: Say = tell_nobody,
    on_epoch: OnEpoch = lambda _: None,
) -> TrainResult:
    """Train a tagger and write its bundle, whole or not at all.

    Parameters
    ----------
    manifest : path or Manifest
        Sounds, or images of spectrograms, and their labels.
    output : path
        Folder of the bundle; an earlier bundle there is replaced.
    recipe : Recipe, optional
        How to train. The default freezes `mn04_audioset` and fits a linear head.
    noisy : path or Manifest, optional
        Clips whose labels may be wrong. They are never just added: see `Recipe.noisy_labels`.
    resume : bool
        Go on with fine-tuning that was killed, to the same weights. What it left lies beside the output.
    bank : path, optional
        Where log_mels and features are kept; by default in the user's cache.
    audio_dir, group_column
        As in `read_manifest`.
    workers : int, optional
        Processes that make log_mels; by default one for each core.
    tensorboard : path, optional
        Folder for TensorBoard: gets a folder named like the output, and in it a run for each training by epochs.
    progress, say, on_epoch
        Told how far the work is, what was found, and of each epoch.

    Raises
    ------
    SpectagError
        If the manifest, the settings, the weights or the disk do not allow it. Clips that can't be read are skipped
        and named in the result.
    """
    recipe = recipe or Recipe()
    output = Path(output)
    check_output(output)
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(manifest, audio_dir=audio_dir, group_column=group_column)
    if noisy is not None and not isinstance(noisy, Manifest):
        noisy = read_manifest(noisy, labels=manifest.labels)
    root = Path(bank) if bank else cache_folder() / "bank"
    if tensorboard is not None:
        _check_epochs(recipe)
    processes = _met(recipe)
    log = None
    if not processes.is_first:
        progress, say, on_epoch = silent, tell_nobody, lambda _: None
    elif tensorboard is not None:
        log = _open_log(Path(tensorboard), output)
    run = _Run(recipe, output, root, processes, resume, progress, say, _both(on_epoch, log) if log else on_epoch)
    if processes.note:
        say(processes.note)
    heard = run.hear(manifest, noisy, workers)
    clips = heard[0].clips
    held_out = hold_out(clips.manifest, recipe)
    say(f"held out: {held_out.note}")
    task = run.with_noisy(Task.of(clips.manifest.multi_hot(), held_out), heard[0])
    with log or nullcontext():
        fits, blend, members = run.fit(heard, task)
    predictions = expit(blend([fit.logits for fit in fits]))
    scores, folds = _judge(task.y_true, held_out, predictions, recipe.seed)
    epochs = tuple(epoch for fit in fits for epoch in fit.epochs)
    thresholds = _fitted_thresholds(task.y_true, predictions)
    lesson = Lesson(clips.manifest, clips.keys, recipe, scores, folds, thresholds, epochs)
    onnx_difference = run.pack(lesson, heard, fits, blend)
    return TrainResult(output, scores, folds, epochs, predictions, clips.skipped, onnx_difference, members)


def first_fine_tuning(
    manifest: str | Path | Manifest,
    recipe: Recipe,
    *,
    noisy: str | Path | Manifest | None = None,
    bank: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    say: Say = tell_nobody,
) -> "FineTuning":
    """The first fine-tuning that `train` would begin with the same arguments, to try something on and throw away.

    Raises
    ------
    ConfigError
        If no member of the recipe is fine-tuned.
    """
    tuned = next((member for member in recipe.member_recipes() if member.mode == "finetune"), None)
    if tuned is None:
        raise ConfigError("no network of this recipe is fine-tuned; give --mode finetune")
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(manifest, audio_dir=audio_dir, group_column=group_column)
    if noisy is not None and not isinstance(noisy, Manifest):
        noisy = read_manifest(noisy, labels=manifest.labels)
    root = Path(bank) if bank else cache_folder() / "bank"
    processes = _met(tuned)
    run = _Run(tuned, Path(), root, processes, False, progress, say, lambda _: None)
    [heard] = run.hear(manifest, noisy, workers)
    clips = heard.clips.manifest
    task = run.with_noisy(Task.of(clips.multi_hot(), hold_out(clips, recipe)), heard)
    from spectag.finetune_member import trial

    return trial(heard, task, processes, root, progress=progress)


@dataclass(frozen=True)
class HeldOutScore:
    """How good held-out clips find a recipe, and the clips that could not be read."""

    scores: Scores
    skipped: tuple[tuple[Clip, str], ...]


def held_out_score(
    manifest: Manifest,
    recipe: Recipe,
    *,
    checkpoints: Path,
    noisy: Manifest | None = None,
    resume: bool = False,
    bank: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    say: Say = tell_nobody,
    on_epoch: OnEpoch = lambda _: None,
) -> HeldOutScore:
    """The scores that `train` would give with the same arguments, but no bundle and no training on all clips.

    Parameters
    ----------
    checkpoints : Path
        Folder where fine-tuning is kept while it lasts, to be resumed. It is the caller's to remove.

    Raises
    ------
    ConfigError
        If the recipe holds no clips out. Else as `train`.
    """
    root = Path(bank) if bank else cache_folder() / "bank"
    run = _Run(recipe, Path(), root, _met(recipe), resume, progress, say, on_epoch)
    run.checkpoints = checkpoints
    heard = run.hear(manifest, noisy, workers)
    clips = heard[0].clips
    held_out = hold_out(clips.manifest, recipe)
    say(f"held out: {held_out.note}")
    task = dataclasses.replace(Task.of(clips.manifest.multi_hot(), held_out), whole=None)
    task = run.with_noisy(task, heard[0])
    fits, blend, _ = run.fit(heard, task)
    scores, _ = _judge(task.y_true, held_out, expit(blend([fit.logits for fit in fits])), recipe.seed)
    if scores is None:
        raise ConfigError("no labelled clip is held out, so there is no score; give --valid-share 0.2, or --folds 5")
    return HeldOutScore(scores, clips.skipped)


def _met(recipe: Recipe) -> Processes:
    """The processes that train together, once it is sure that their devices can do what the recipe asks for."""
    fine_tuned = [member for member in recipe.member_recipes() if member.mode == "finetune"]
    processes = Processes.started(for_frozen_alone=not fine_tuned)
    if processes.accelerator is not None:
        from spectag.finetune import precision_on

        for member in fine_tuned:
            precision_on(processes.accelerator.device, member.finetune)
    return processes


def _check_epochs(recipe: Recipe) -> None:
    if all(member.optimizer == "lbfgs" for member in recipe.member_recipes()):
        raise ConfigError(
            "TensorBoard shows epochs, and optimizer lbfgs solves the head without any; leave --tensorboard out, or "
            "take another optimizer or --mode finetune"
        )


def _open_log(folder: Path, output: Path) -> "TensorBoardLog":
    from spectag.tensorboard_log import TensorBoardLog

    return TensorBoardLog(folder / output.resolve().name)


def _both(first: OnEpoch, second: OnEpoch) -> OnEpoch:
    def on_epoch(epoch: Epoch) -> None:
        first(epoch)
        second(epoch)

    return on_epoch


class _Run:
    """One call of `train`: what its steps share."""

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        root: Path,
        processes: Processes,
        resume: bool,
        progress: Progress,
        say: Say,
        on_epoch: OnEpoch,
    ) -> None:
        self.recipe, self.output, self.root, self.processes, self.resume = recipe, output, root, processes, resume
        self.progress, self.say, self.on_epoch = progress, say, on_epoch
        self.started = time.monotonic()
        self.checkpoints = output.absolute().parent / f".{output.absolute().name}-checkpoints"

    @property
    def seconds_left(self) -> float | None:
        """What is left of the budget for learning, by the first process' clock."""
        if self.recipe.budget is None:
            return None
        return self.processes.agreed(self.recipe.budget - _RESERVE_SECONDS - (time.monotonic() - self.started))

    def hear(self, manifest: Manifest, noisy: Manifest | None, workers: int | None) -> list[Heard]:
        """The inputs of every member."""
        n_clips = len(manifest.clips)
        manifest = manifest.without(self.recipe.leave_out)
        noisy = noisy and noisy.without(self.recipe.leave_out)
        if len(manifest.clips) < n_clips:
            self.say(f"{n_clips - len(manifest.clips)} clips are left out, as the recipe says")
        heard: list[Heard] = []
        for member in self.recipe.member_recipes():
            if member.init is not None:
                _check_init(member.init, member, manifest.labels)
            with self.processes.first_alone():
                opened = hear(
                    manifest,
                    noisy,
                    member,
                    front_end_for(member, manifest),
                    self.root,
                    workers=workers,
                    progress=self.progress,
                    say=self.say if not heard else tell_nobody,
                )
            if heard and opened.clips.manifest.clips != heard[0].clips.manifest.clips:
                raise DataError(f"{manifest.source}: not all members could read the same clips; train again")
            heard.append(opened)
        if not heard[0].clips.manifest.multi_hot().any():
            raise DataError(f"{manifest.source}: no clip has a label, so there is nothing to learn from")
        return heard

    def with_noisy(self, task: Task, heard: Heard) -> Task:
        """The task with what its parts may learn from doubtful labels, in the opinion of the first member."""
        if heard.noisy is None:
            return task
        given = heard.noisy.manifest.multi_hot()
        with self.processes.first_alone():
            data = heard.frozen_features(task.y_true, progress=self.progress, with_mixes=False)
        relabelled = relabel_parts(data, given, task, heard.recipe)
        copies = np.isin(heard.noisy.keys, heard.clips.keys)
        if copies.any():
            self.say(f"{copies.sum()} noisy clips are copies of others in the manifest, and are left out")
            relabelled = [
                dataclasses.replace(noisy, weights=np.where(copies, 0, noisy.weights)) for noisy in relabelled
            ]
        for line in relabel_report(relabelled[-1], given, heard.noisy.manifest.labels.names):
            self.say(line)
        return task.with_noisy(relabelled)

    def fit(self, heard: list[Heard], task: Task) -> tuple[list[MemberFit], Blend, tuple[MemberScore, ...]]:
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
                self.say(f"{name}: left out, for the budget is used up")
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
                self.say(_in_words(scores[-1]))
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
            self.say("weights: " + ", ".join(f"{member.name} {member.weight:.2f}" for member in weighted))
        return fits, blend, tuple(weighted)

    def _fit_member(
        self, member: Heard, task: Task, number: int, label: str, *, n_waiting: int, is_first: bool
    ) -> MemberFit | None:
        if member.recipe.mode == "frozen":
            left, budget = self.seconds_left, self.recipe.budget
            if left is not None and budget is not None and not is_first and left < budget * _LATEST_FROZEN:
                return None
            with self.processes.first_alone():
                data = member.frozen_features(task.y_true, progress=self.progress)
            return fit_frozen(
                member, data, task, name=label, progress=self.progress, say=self.say, on_epoch=self.on_epoch
            )
        from spectag.finetune_member import Place, fit_finetuned

        def seconds_for(n_trainings: int) -> float | None:
            left = self.seconds_left
            if left is None:
                return None
            return (left - _RESERVE_SECONDS * n_waiting) / (n_trainings * n_waiting)

        place = Place(
            self.processes,
            self.checkpoints / f"member-{number}",
            self.resume,
            _fingerprint(member, task),
            seconds_for,
            self.root,
        )
        return fit_finetuned(
            member, task, place, name=label, progress=self.progress, say=self.say, on_epoch=self.on_epoch
        )

    def pack(self, lesson: Lesson, heard: Sequence[Heard], fits: Sequence[MemberFit], blend: Blend) -> float:
        """Write the bundle from the first process, and clear away what was kept for resuming."""
        difference = 0.0
        if self.processes.is_first:
            self.say("writing the bundle, and checking model.onnx against torch")
            members, weights = _members(heard, fits, blend)
            difference = pack(self.output, lesson, members, Blend(weights, blend.bias) if len(members) > 1 else blend)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.processes.wait()
        return difference


def _members(heard: Sequence[Heard], fits: Sequence[MemberFit], blend: Blend) -> tuple[list[Member], tuple[float, ...]]:
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


def _blend(fits: Sequence[MemberFit], task: Task) -> Blend:
    """Weights of the members, fitted on held-out clips; all alike where there are none."""
    if len(fits) == 1:
        return SINGLE
    seen = ~np.isnan([fit.logits for fit in fits]).any(axis=(0, 2))
    if not seen.any():
        return Blend(tuple(1 / len(fits) for _ in fits))
    return fit_blend([fit.logits[seen] for fit in fits], task.y_true[seen])


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


def _fingerprint(member: Heard, task: Task) -> str:
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
    for part in task.all_parts:
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


def _judge(
    y_true: BoolArray, held_out: HeldOut, predictions: FloatArray, seed: int
) -> tuple[Scores | None, tuple[FoldScore, ...]]:
    """Scores of the held-out clips, all together and part by part."""
    seen = ~np.isnan(predictions).any(axis=1)
    if not (seen & y_true.any(axis=1)).any():
        return None, ()
    folds = tuple(
        _judge_fold(name, y_true[rows], predictions[rows])
        for name, rows in zip(held_out.names, held_out.rows, strict=True)
        if y_true[rows].any() and not np.isnan(predictions[rows]).any()
    )
    return score(y_true[seen], predictions[seen], rng=np.random.default_rng(seed)), folds


def _judge_fold(name: str, y_true: BoolArray, predictions: FloatArray) -> FoldScore:
    is_single = bool((y_true.sum(axis=1) == 1).all())
    accuracy = top1_accuracy(y_true, predictions) if is_single else None
    return FoldScore(name, len(y_true), lwlrap(y_true, predictions), accuracy)


def _fitted_thresholds(y_true: BoolArray, predictions: FloatArray) -> FloatArray:
    """The threshold of best F1 for each label, on held-out clips; NaN where there are too few."""
    seen = ~np.isnan(predictions).any(axis=1)
    return best_thresholds(y_true[seen], predictions[seen]) if seen.any() else np.full(y_true.shape[1], np.nan)
