"""From a manifest to a bundle: inputs, held-out scores, networks that have learnt, and files that are checked."""

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectag.array_types import BoolArray, FloatArray
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.corrections import read_corrections
from spectag.data.manifest import manifest_of, read_manifest
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.errors import ConfigError
from spectag.models.out_of_fold import OutOfFoldPredictions, group_names, names_of_clips
from spectag.scoring.calibration import Calibration, CrossFitted, fit_calibration, probabilities_of
from spectag.scoring.metrics import lwlrap, top1_accuracy
from spectag.scoring.scores import Scores, score
from spectag.scoring.thresholds import fit_thresholds
from spectag.system.cache import cache_folder
from spectag.system.epoch_log import Epoch, OnEpoch
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.training.bundle_writer import FoldScore, TrainingRecord, check_output
from spectag.training.ensemble import MemberScore, TrainingRun
from spectag.training.setup.distributed import Processes
from spectag.training.setup.holdout import HeldOut, hold_out
from spectag.training.setup.task import CrossValidation

if TYPE_CHECKING:
    from spectag.training.members.finetune_loop import FineTuning
    from spectag.training.tensorboard import TensorBoardLog


@dataclass(frozen=True)
class TrainResult:
    """What training made.

    `scores` are those of held-out clips, None where none were held out. `predictions` are their probabilities
    (n_clips, n_labels), calibrated without the clip's own fold, in the order of the clips that could be read; NaN for
    those that were not held out.
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
    cache: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
    workers: int | None = None,
    tensorboard: str | Path | None = None,
    progress: Progress = silent,
    log: Log = no_log,
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
    audio_dir, group_column, corrections
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
    manifest = manifest_of(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    if noisy is not None and not isinstance(noisy, Manifest):
        noisy = read_manifest(noisy, labels=manifest.labels)
    if corrections is not None:
        log(read_corrections(corrections).in_words())
    n_without = sum(not clip.labels for clip in manifest.clips)
    if n_without:
        log(f"clips without labels: {n_without}; they are taken for examples of none of the labels")
    if resume and all(member.mode == "frozen" for member in recipe.member_recipes()):
        log("--resume does nothing here: only fine-tuning is resumed, and frozen features are kept anyhow")
    root = Path(cache) if cache else cache_folder() / "spectrograms"
    if tensorboard is not None:
        _check_epochs(recipe)
    processes = _met(recipe)
    tensorboard_log = None
    if not processes.is_first:
        progress, log, on_epoch = silent, no_log, lambda _: None
    elif tensorboard is not None:
        tensorboard_log = _open_log(Path(tensorboard), output)
        on_epoch = _both(on_epoch, tensorboard_log)
    run = TrainingRun(recipe, output, root, processes, resume, progress, log, on_epoch)
    if processes.note:
        log(processes.note)
    heard = run.hear(manifest, noisy, workers)
    clips = heard[0].clips
    held_out = hold_out(clips.manifest, recipe)
    log(f"held out: {held_out.note}")
    task = run.with_noisy(CrossValidation.of(clips.manifest.multi_hot(), held_out), heard[0])
    with tensorboard_log or nullcontext():
        fits, blend, members = run.fit(heard, task)
    said = _held_out_clips(clips, held_out, task.y_true, blend([fit.logits for fit in fits]))
    judged = said.judged(method=recipe.calibration)
    calibration, thresholds = _adjusted(said, recipe)
    scores, folds = _judge(said, held_out, judged, recipe.seed)
    epochs = tuple(epoch for fit in fits for epoch in fit.epochs)
    learnt = said if heard[0].noisy is None else said.with_training_clips(_never_held_out(heard[0].noisy))
    record = TrainingRecord(
        clips.manifest, clips.keys, recipe, scores, folds, said, judged, calibration, thresholds, epochs, learnt
    )
    onnx_difference = run.pack(record, heard, fits, blend)
    return TrainResult(output, scores, folds, epochs, judged.probabilities, clips.skipped, onnx_difference, members)


def first_fine_tuning(
    manifest: str | Path | Manifest,
    recipe: Recipe,
    *,
    noisy: str | Path | Manifest | None = None,
    cache: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
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
    manifest = manifest_of(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    if noisy is not None and not isinstance(noisy, Manifest):
        noisy = read_manifest(noisy, labels=manifest.labels)
    root = Path(cache) if cache else cache_folder() / "spectrograms"
    processes = _met(tuned)
    run = TrainingRun(tuned, Path(), root, processes, False, progress, log, lambda _: None)
    [heard] = run.hear(manifest, noisy, workers)
    clips = heard.clips.manifest
    task = run.with_noisy(CrossValidation.of(clips.multi_hot(), hold_out(clips, recipe)), heard)
    from spectag.training.members.finetuned import trial

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
    cache: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
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
    root = Path(cache) if cache else cache_folder() / "spectrograms"
    run = TrainingRun(recipe, Path(), root, _met(recipe), resume, progress, log, on_epoch)
    run.checkpoints = checkpoints
    heard = run.hear(manifest, noisy, workers)
    clips = heard[0].clips
    held_out = hold_out(clips.manifest, recipe)
    log(f"held out: {held_out.note}")
    task = dataclasses.replace(CrossValidation.of(clips.manifest.multi_hot(), held_out), whole=None)
    task = run.with_noisy(task, heard[0])
    fits, blend, _ = run.fit(heard, task)
    said = _held_out_clips(clips, held_out, task.y_true, blend([fit.logits for fit in fits]))
    scores, _ = _judge(said, held_out, said.judged(method=recipe.calibration), recipe.seed)
    if scores is None:
        raise ConfigError(
            "no labelled clip is held out, so there is no score; give --validation-fraction 0.2, or --folds 5"
        )
    return HeldOutScore(scores, clips.skipped)


def _met(recipe: Recipe) -> Processes:
    """The processes that train together, once it is sure that their devices can do what the recipe asks for."""
    fine_tuned = [member for member in recipe.member_recipes() if member.mode == "finetune"]
    processes = Processes.started(for_frozen_alone=not fine_tuned)
    if processes.accelerator is not None:
        from spectag.training.members.finetune_loop import precision_on

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
    from spectag.training.tensorboard import TensorBoardLog

    return TensorBoardLog(folder / output.resolve().name)


def _both(first: OnEpoch, second: OnEpoch) -> OnEpoch:
    def on_epoch(epoch: Epoch) -> None:
        first(epoch)
        second(epoch)

    return on_epoch


def _judge(
    said: OutOfFoldPredictions, held_out: HeldOut, judged: CrossFitted, seed: int
) -> tuple[Scores | None, tuple[FoldScore, ...]]:
    """Scores of the held-out clips, all together, with intervals over recordings, and part by part."""
    y_true, predictions = said.y_true, judged.probabilities
    seen = ~np.isnan(predictions).any(axis=1)
    if not (seen & y_true.any(axis=1)).any():
        return None, ()
    folds = tuple(
        _judge_fold(name, y_true[rows], predictions[rows])
        for name, rows in zip(held_out.names, held_out.rows, strict=True)
        if y_true[rows].any() and not np.isnan(predictions[rows]).any()
    )
    rng = np.random.default_rng(seed)
    groups = np.array(said.groups)[seen]
    scores = score(y_true[seen], predictions[seen], thresholds=judged.thresholds[seen], rng=rng, groups=groups)
    return scores, folds


def _judge_fold(name: str, y_true: BoolArray, predictions: FloatArray) -> FoldScore:
    is_single = bool((y_true.sum(axis=1) == 1).all())
    accuracy = top1_accuracy(y_true, predictions) if is_single else None
    return FoldScore(name, len(y_true), lwlrap(y_true, predictions), accuracy)


def _held_out_clips(
    clips: ClipInputs, held_out: HeldOut, y_true: BoolArray, logits: FloatArray
) -> OutOfFoldPredictions:
    """All training clips, with the logits (n_clips, n_labels) of those that were held out."""
    manifest = clips.manifest
    folds = np.full(len(manifest.clips), "", object)
    for name, rows in zip(held_out.names, held_out.rows, strict=True):
        folds[rows] = name
    return OutOfFoldPredictions(
        labels=manifest.labels,
        fnames=names_of_clips(manifest),
        stretches=tuple((clip.start_seconds, clip.end_seconds) for clip in manifest.clips),
        folds=tuple(folds),
        groups=group_names(manifest),
        keys=clips.keys,
        y_true=y_true,
        logits=logits,
    )


def _never_held_out(clips: ClipInputs) -> OutOfFoldPredictions:
    """Clips that are learnt from alone, as those with doubtful labels are."""
    y_true = clips.manifest.multi_hot()
    return _held_out_clips(clips, HeldOut((), (), is_share=False, note=""), y_true, np.full(y_true.shape, np.nan))


def _adjusted(said: OutOfFoldPredictions, recipe: Recipe) -> tuple[Calibration | None, FloatArray]:
    """The calibration, and the thresholds (n_labels,) of best F1, NaN where there are too few clips."""
    if not said.seen.any():
        return None, np.full(len(said.labels), np.nan)
    calibration = fit_calibration(said.logits, said.y_true, method=recipe.calibration, parts=said.parts)
    return calibration, fit_thresholds(said.y_true[said.seen], probabilities_of(said.logits[said.seen], calibration))
