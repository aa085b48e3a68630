"""From a manifest to a model: inputs, held-out clips, training, scores, and the bundle."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectag.array_types import FloatArray
from spectag.audio.fingerprints import Fingerprint
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.audio_groups import SharingClips
from spectag.data.background import with_background
from spectag.data.clips import Clip, Manifest
from spectag.data.corrections import read_corrections
from spectag.data.fingerprint_cache import cached_shared_audio, clip_fingerprints
from spectag.data.manifest import ManifestInput, as_manifest, read_manifest
from spectag.data.readers.delimited_text import abbreviate
from spectag.data.shared_audio import SharedAudio
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.errors import BundleError, ConfigError, did_you_mean
from spectag.models.bundle import read_info
from spectag.models.nearby_models import is_model
from spectag.models.out_of_fold import OutOfFoldPredictions, portable_clip_names, portable_group_names
from spectag.scoring.bootstrap import Resampling
from spectag.scoring.calibration import Calibration, CrossFitted, fit_calibration, probabilities_of
from spectag.scoring.metrics import lwlrap
from spectag.scoring.scores import Scores, score_predictions
from spectag.scoring.thresholds import fit_thresholds, fit_window_thresholds
from spectag.system.cache import writable_cache_folder
from spectag.system.epoch_log import Epoch, OnEpoch, checkpoint_folder
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.training.bundle_writer import FoldScore, TrainingRecord, check_output
from spectag.training.ensemble import TrainingRun
from spectag.training.ensemble_fit import EnsembleFit, MemberScore
from spectag.training.heads.learning_curve import LearningCurve
from spectag.training.heads.per_fold import WindowLogits
from spectag.training.members.member import MemberInputs
from spectag.training.published_labels import PublishedLabels
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation
from spectag.training.setup.distributed import Processes
from spectag.training.setup.held_out import MIN_GROUPS, HeldOut, hold_out, is_given
from spectag.training.setup.requirements import check_requirements, has_pretrained_weights

if TYPE_CHECKING:
    from spectag.training.members.finetune_loop import FineTuning

MAX_COMPARED = 10_000
"""Most clips that are compared with each other only to say how optimistic the score is; the time is quadratic."""
_NOTABLE_OPTIMISM = 0.005  # of lwlrap; a few clips seem to share audio by chance


@dataclass(frozen=True, repr=False)
class TrainResult:
    """The result of a training.

    `scores` are those of held-out clips, None if no clips were held out. `predictions` are their probabilities
    (n_clips, n_labels), calibrated without the clip's own fold, in the order of the readable clips; NaN for clips that
    were not held out. `learning_curve` has the scores after training on fewer recordings, of a single frozen network
    with a head that is fitted exactly; None otherwise.
    """

    bundle: Path
    scores: Scores | None
    folds: tuple[FoldScore, ...]
    epochs: tuple[Epoch, ...]
    predictions: FloatArray
    skipped: tuple[tuple[Clip, str], ...]
    onnx_difference: float
    members: tuple[MemberScore, ...] = ()
    learning_curve: LearningCurve | None = None

    def __repr__(self) -> str:
        """The folder of the model, and its scores."""
        skipped = f", {len(self.skipped):,} clips skipped" if self.skipped else ""
        return f"TrainResult({str(self.bundle)!r}, scores={self.scores}{skipped})"

    def to_dict(self) -> dict[str, Any]:
        """The scores and the skipped clips, for JSON."""
        return {
            "bundle": str(self.bundle),
            "scores": self.scores and self.scores.to_dict(),
            "folds": [dataclasses.asdict(fold) for fold in self.folds],
            "members": [dataclasses.asdict(member) for member in self.members],
            "learning_curve": self.learning_curve and self.learning_curve.to_dict(),
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "skipped": [{"fname": clip.fname, "reason": reason} for clip, reason in self.skipped],
            "onnx_difference": self.onnx_difference,
        }


@shows_progress
def train(
    manifest: ManifestInput,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    data: DataOptions | None = None,
    resume: bool = False,
    tensorboard: str | Path | None = None,
    progress: Progress = silent,
    log: Log = no_log,
    on_epoch: OnEpoch = lambda _: None,
) -> TrainResult:
    """Train a model and write its bundle. The bundle appears only when it is complete.

    Parameters
    ----------
    manifest : path, DataFrame or Manifest
        Sounds, or images of spectrograms, and their labels.
    output : path
        Folder of the bundle; an earlier bundle there is replaced.
    recipe : Recipe, optional
        How to train. The default is a linear head on the frozen backbone `mn04_audioset`.
    data : DataOptions, optional
        Further options of the data: clips with noisy labels, corrections, folders, groups and worker processes.
    resume : bool
        Resume fine-tuning that was stopped, with the same weights as without the stop. Its checkpoints are beside the
        output.
    tensorboard : path, optional
        Folder for TensorBoard: gets a subfolder with the name of the output, with a run for each training by epochs.
    progress, log, on_epoch
        `progress=True` shows progress bars, `log=print` prints messages; or functions that receive the progress of each
        step, the messages, and each epoch.

    Raises
    ------
    SpectagError
        If the manifest, the settings, the pretrained weights or the disk do not allow it. Clips that cannot be read
        are skipped and listed in the result.
    """
    recipe, data, output = recipe or Recipe(), data or DataOptions(), Path(output)
    check_requirements(recipe)
    check_output(output)
    if is_model(output):
        log(_note_about(output))
    manifest, noisy = read_training_data(manifest, data, log)
    if data.corrections is not None:
        log(read_corrections(data.corrections).summary())
    if tensorboard is not None:
        _check_has_epochs(recipe)
    processes, callbacks = _connect_processes(recipe), Callbacks(progress, log, on_epoch)
    if not processes.is_main:
        tensorboard, callbacks = None, Callbacks()
    _log_notes(manifest, recipe, resume, callbacks.log)
    with _with_tensorboard(callbacks, tensorboard, output) as callbacks:
        run = TrainingRun(recipe, _cache_root(data.cache), checkpoint_folder(output), processes, resume, callbacks)
        if processes.note:
            callbacks.log(processes.note)
        return _train(run, run.open_inputs(manifest, noisy, data.workers), output, data.workers)


def _train(run: TrainingRun, inputs: list[MemberInputs], output: Path, workers: int | None) -> TrainResult:
    recipe, clips, noisy = run.recipe, inputs[0].clips, inputs[0].noisy
    held_out, cross_validation = _folds(run, inputs[0], workers)
    ensemble = run.fit(inputs, cross_validation, run.plan(inputs, cross_validation))
    out_of_fold = _out_of_fold(clips, held_out, ensemble.logits)
    cross_fitted = out_of_fold.cross_fitted(method=recipe.calibration)
    calibration, thresholds = _fit_calibration_and_thresholds(out_of_fold, recipe)
    scores, folds = _score(out_of_fold, held_out, cross_fitted, Resampling(seed=recipe.seed))
    if (message := _optimism(out_of_fold, held_out, cross_fitted)) is not None:
        run.callbacks.log(message)
    record = TrainingRecord(
        clips.manifest,
        clips.keys,
        recipe,
        scores,
        folds,
        out_of_fold,
        cross_fitted,
        calibration,
        thresholds,
        ensemble.epochs,
        out_of_fold.with_training_clips(_out_of_fold(noisy, None, None)) if noisy else out_of_fold,
        _fit_window_thresholds(out_of_fold, ensemble.window_logits, calibration),
        None if recipe.extend is None else PublishedLabels.beside(clips.manifest.labels, recipe.extend),
        run.fit_frames(ensemble, cross_validation),
    )
    onnx_difference = run.write_bundle(output, record, ensemble)
    return TrainResult(
        output,
        scores,
        folds,
        ensemble.epochs,
        cross_fitted.probabilities,
        clips.skipped,
        onnx_difference,
        ensemble.scores,
        _learning_curve(ensemble),
    )


def _learning_curve(ensemble: EnsembleFit) -> LearningCurve | None:
    """The learning curve of a single frozen network."""
    compute = ensemble.fits[0].learning_curve if len(ensemble.fits) == 1 else None
    return compute and compute()


def first_fine_tuning(
    manifest: Manifest,
    noisy: Manifest | None,
    recipe: Recipe,
    callbacks: Callbacks,
    data: DataOptions,
) -> "FineTuning":
    """The first fine-tuning run that `train` would start with the same arguments, for experiments.

    Raises
    ------
    ConfigError
        If no member of the recipe is fine-tuned.
    """
    member = next((member for member in recipe.member_recipes() if member.mode == "finetune"), None)
    if member is None:
        raise ConfigError("this recipe fine-tunes no network (lbfgs has no learning rate); set --mode finetune")
    check_requirements(member)
    processes, root = _connect_processes(member), _cache_root(data.cache)
    run = TrainingRun(member, root, Path(), processes, False, callbacks)
    [inputs] = run.open_inputs(manifest, noisy, data.workers)
    _, cross_validation = _folds(run, inputs, data.workers)
    from spectag.training.members.finetuned import first_run

    return first_run(inputs, cross_validation, processes, root, progress=callbacks.progress)


@dataclass(frozen=True)
class RecipeScore:
    """The scores of a recipe on held-out clips, and the clips that cannot be read."""

    scores: Scores
    skipped: tuple[tuple[Clip, str], ...]


def score_recipe(
    manifest: Manifest,
    noisy: Manifest | None,
    recipe: Recipe,
    callbacks: Callbacks,
    data: DataOptions,
    checkpoints: Path,
) -> RecipeScore:
    """The scores that `train` would give with the same arguments, without a bundle and without training on all clips.

    Parameters
    ----------
    checkpoints : Path
        Folder of the checkpoints of fine-tuning, which is resumed from them. The caller deletes it.

    Raises
    ------
    ConfigError
        If the recipe holds out no clips. Other errors are those of `train`.
    """
    check_requirements(recipe)
    run = TrainingRun(recipe, _cache_root(data.cache), checkpoints, _connect_processes(recipe), True, callbacks)
    inputs = run.open_inputs(manifest, noisy, data.workers)
    held_out, cross_validation = _folds(run, inputs[0], data.workers, train_on_all=False)
    ensemble = run.fit(inputs, cross_validation, run.plan(inputs, cross_validation))
    out_of_fold = _out_of_fold(inputs[0].clips, held_out, ensemble.logits)
    cross_fitted = out_of_fold.cross_fitted(method=recipe.calibration)
    scores, _ = _score(out_of_fold, held_out, cross_fitted, Resampling(n_resamples=0))
    if scores is None:
        raise ConfigError("no labelled clip is held out for a score; set --validation-fraction 0.2 or --folds 5")
    return RecipeScore(scores, inputs[0].clips.skipped)


def read_training_data(
    manifest: ManifestInput, options: DataOptions, log: Log = no_log
) -> tuple[Manifest, Manifest | None]:
    """The manifest with the background, and that of clips with noisy labels, which must have the same labels."""
    manifest = as_manifest(
        manifest,
        audio_dir=options.audio_dir,
        group_column=options.group_column,
        label_column=options.label_column,
        label_separator=options.label_separator,
        corrections=options.corrections,
        hierarchy=options.hierarchy,
        complete_annotations=options.complete_annotations,
    )
    if options.background is not None:
        manifest = with_background(manifest, options.background, log=log)
    if options.noisy is None:
        return manifest, None
    return manifest, read_manifest(
        options.noisy,
        labels=manifest.labels,
        label_column=options.label_column,
        label_separator=options.label_separator,
        hierarchy=options.hierarchy,
    )


def _cache_root(cache: str | Path | None) -> Path:
    return Path(cache) if cache else writable_cache_folder() / "spectrograms"


def _log_notes(manifest: Manifest, recipe: Recipe, resume: bool, log: Log) -> None:
    n_unlabelled = sum(clip.is_negative for clip in manifest.clips)
    if n_unlabelled:
        log(f"clips without labels: {n_unlabelled}; they are negative examples of every label")
    _log_weights_and_unknown_labels(manifest, log)
    if recipe.extend is not None:
        log(str(PublishedLabels.beside(manifest.labels, recipe.extend)))
    if any(member.mode == "finetune" and member.finetune.unfreeze == 0 for member in recipe.member_recipes()):
        log("the frozen network processes every clip in every epoch, because its inputs change; this takes longer")
    frozen = [member for member in recipe.member_recipes() if member.mode == "frozen"]
    if names := [member.backbone for member in frozen if not has_pretrained_weights(member)]:
        log(
            f"WARNING: the head is trained on the random weights of {abbreviate(names)}, which learn nothing: the "
            "model will be poor. Add --mode finetune, or use a backbone with its pretrained weights"
        )
    if resume and all(member.mode == "frozen" for member in recipe.member_recipes()):
        log("--resume has no effect: only fine-tuning can be resumed; features of frozen networks are cached anyway")


def _note_about(output: Path) -> str:
    """That a model will be replaced: nobody should lose one by a name that was used before."""
    with suppress(BundleError):
        info = read_info(output)
        trained_on = f" of {info.data.name}" if info.data.name else ""
        return (
            f"{output}: there is a model already ({len(info.labels)} labels{trained_on}); it is replaced when this "
            "training is complete. To keep it, stop, and choose another folder for -o"
        )
    return f"{output}: there is a model already; it is replaced when this training is complete"


def _log_weights_and_unknown_labels(manifest: Manifest, log: Log) -> None:
    n_unknown, weights = int(np.isnan(manifest.targets()).sum()), manifest.weights
    if n_unknown:
        n_clips = sum(bool(clip.unknown) for clip in manifest.clips)
        log(f"unknown labels: {n_unknown} in {n_clips} clips; they are neither trained on nor scored")
    nowhere = sorted({label for clip in manifest.clips for label in clip.unknown} - set(manifest.labels.names))
    if nowhere:
        hint = did_you_mean(nowhere[0], manifest.labels.names)
        log(f"WARNING: no clip has these unknown labels, so they are ignored: {abbreviate(nowhere)}{hint}")
    if (weights != 1).any():
        left_out = f"; {n_zero} clips of weight 0 are not trained on" if (n_zero := (weights == 0).sum()) else ""
        log(f"weights of clips: {weights.min():g} to {weights.max():g}{left_out}; scores are not weighted")


def _connect_processes(recipe: Recipe) -> Processes:
    """Connect to the processes that train together, and check that their devices support the recipe."""
    fine_tuned = [member for member in recipe.member_recipes() if member.mode == "finetune"]
    processes = Processes.connect(frozen_only=not fine_tuned)
    if processes.accelerator is not None:
        from spectag.training.members.finetune_loop import precision_on

        for member in fine_tuned:
            precision_on(processes.accelerator.device, member.finetune)
    return processes


def _check_has_epochs(recipe: Recipe) -> None:
    if all(member.optimizer == "lbfgs" for member in recipe.member_recipes()):
        raise ConfigError(
            "TensorBoard shows epochs; leave out --tensorboard, use an optimizer other than lbfgs, or --mode finetune"
        )


@contextmanager
def _with_tensorboard(callbacks: Callbacks, folder: str | Path | None, output: Path) -> Iterator[Callbacks]:
    """The callbacks; if there is a folder, each epoch is also written for TensorBoard."""
    if folder is None:
        yield callbacks
        return
    from spectag.training.setup.tensorboard import TensorBoardLog

    with TensorBoardLog(Path(folder) / output.resolve().name) as tensorboard:

        def on_epoch(epoch: Epoch) -> None:
            callbacks.on_epoch(epoch)
            tensorboard(epoch)

        yield dataclasses.replace(callbacks, on_epoch=on_epoch)


def _folds(
    run: TrainingRun, inputs: MemberInputs, workers: int | None, *, train_on_all: bool = True
) -> tuple[HeldOut, CrossValidation]:
    """The held-out clips, and the trainings with their clips with noisy labels."""
    manifest, recipe, log = inputs.clips.manifest, run.recipe, run.callbacks.log
    shared = shared_with_noisy = sharing = None
    holds_out = recipe.folds != "none" or recipe.validation_fraction is not None
    if recipe.find_shared_audio and holds_out and not manifest.holds_images:
        with run.processes.main_process_first():
            shared, shared_with_noisy = _shared_audio(run, inputs, workers)
    if shared is not None:
        sharing = SharingClips.of(manifest, shared)
        if len(sharing.pairs):
            log(f"shared audio: {sharing}")
    held_out = hold_out(manifest, recipe, sharing)
    log(f"held out: {held_out.note}")
    for warning in held_out.warnings:
        log(warning)
    if (message := _few_recordings(manifest, held_out)) is not None:
        log(message)
    weights = manifest.weights if (manifest.weights != 1).any() else None
    cross_validation = CrossValidation.of(manifest.targets(), held_out, weights)
    if not train_on_all:
        cross_validation = dataclasses.replace(cross_validation, all_clips=None)
    return held_out, run.with_noisy(cross_validation, inputs, shared_with_noisy)


def _few_recordings(manifest: Manifest, held_out: HeldOut) -> str | None:
    """A message about labels with too few recordings for scores and thresholds; None without such labels."""
    y_true, groups = manifest.multi_hot(), np.array(held_out.groups or manifest.groups)
    counts = {name: len(np.unique(groups[rows])) for name, rows in zip(manifest.labels.names, y_true.T, strict=True)}
    few = {name: count for name, count in counts.items() if count < MIN_GROUPS}
    if not few:
        return None
    if len(few) == len(counts):
        which = f"each of the {len(few)} labels has fewer than {MIN_GROUPS} recordings"
    else:
        listed = abbreviate([f"{name} ({count})" for name, count in few.items()])
        which = f"labels with fewer than {MIN_GROUPS} recordings: {listed}"
    return f"{which}; their scores and thresholds say little; record more, or find more with spectag suggest"


def _shared_audio(
    run: TrainingRun, inputs: MemberInputs, workers: int | None
) -> tuple[SharedAudio | None, SharedAudio | None]:
    """Pairs of clips that share audio, and pairs of a clip with noisy labels and a clip; None if not compared."""
    manifest, progress = inputs.clips.manifest, run.callbacks.progress
    n_clips = len(manifest.clips)
    is_compared = n_clips <= MAX_COMPARED or not is_given(manifest, run.recipe)
    if not is_compared:
        run.callbacks.log(
            f"shared audio: the {n_clips} clips are not compared with each other, because the held-out clips or their "
            "groups are given and it takes long; to compare them, use spectag inspect"
        )
        if inputs.noisy is None:
            return None, None

    def fingerprints(clips: ClipInputs) -> list[Fingerprint | None]:
        return clip_fingerprints(
            clips.manifest.clips, run.root, channel=run.recipe.channel, workers=workers, progress=progress
        )

    compare = partial(cached_shared_audio, root=run.root, workers=workers, progress=progress)
    of_clips = fingerprints(inputs.clips)
    shared = compare(of_clips) if is_compared else None
    return shared, None if inputs.noisy is None else compare(fingerprints(inputs.noisy), of_clips)


def _optimism(out_of_fold: OutOfFoldPredictions, held_out: HeldOut, cross_fitted: CrossFitted) -> str | None:
    """A message about held-out clips that share audio with training clips of their fold; None if there are none."""
    y_true, predictions = out_of_fold.targets, cross_fitted.probabilities
    rows = ~np.isnan(predictions).any(axis=1) & out_of_fold.y_true.any(axis=1)
    if held_out.optimistic is None or not (n_optimistic := (rows & held_out.optimistic).sum()):
        return None
    others = rows & ~held_out.optimistic
    message = f"{n_optimistic} of {rows.sum()} held-out clips share audio with clips that the network was trained on"
    if not others.any() or np.isnan(of_others := lwlrap(y_true[others], predictions[others])):
        return f"the score is optimistic: {message}"
    of_all = lwlrap(y_true[rows], predictions[rows])
    message += f"; lwlrap of the other {others.sum()} is {of_others:.4f}, that of all {of_all:.4f}"
    return f"the score is optimistic: {message}" if of_all - of_others > _NOTABLE_OPTIMISM else message


def _score(
    out_of_fold: OutOfFoldPredictions, held_out: HeldOut, cross_fitted: CrossFitted, resampling: Resampling
) -> tuple[Scores | None, tuple[FoldScore, ...]]:
    """Scores of all held-out clips, with intervals over recordings, and of each fold; None without labelled clips."""
    y_true, predictions = out_of_fold.targets, cross_fitted.probabilities
    rows = ~np.isnan(predictions).any(axis=1)
    if not (y_true[rows] == 1).any():
        return None, ()
    folds = tuple(
        _score_fold(name, y_true[in_fold], predictions[in_fold])
        for name, in_fold in zip(held_out.names, held_out.rows, strict=True)
        if (y_true[in_fold] == 1).any() and not np.isnan(predictions[in_fold]).any()
    )
    groups = np.array(out_of_fold.groups)[rows].tolist()
    scores = score_predictions(
        y_true[rows], predictions[rows], groups, thresholds=cross_fitted.thresholds[rows], resampling=resampling
    )
    return scores, folds


def _score_fold(name: str, y_true: FloatArray, predictions: FloatArray) -> FoldScore:
    scores = score_predictions(y_true, predictions, range(len(y_true)), resampling=Resampling(n_resamples=0)).to_dict()
    metrics = ("lwlrap", "top1_accuracy", "mean_average_precision")
    return FoldScore(name, len(y_true), *(scores[metric] for metric in metrics))


def _out_of_fold(clips: ClipInputs, held_out: HeldOut | None, logits: FloatArray | None) -> OutOfFoldPredictions:
    """All training clips, with the logits (n_clips, n_labels) of those that were held out."""
    manifest = clips.manifest
    y_true, folds = manifest.multi_hot(), np.full(len(manifest.clips), "", object)
    if held_out is not None:
        for name, rows in zip(held_out.names, held_out.rows, strict=True):
            folds[rows] = name
    return OutOfFoldPredictions(
        labels=manifest.labels,
        fnames=portable_clip_names(manifest),
        spans=tuple((clip.start_seconds, clip.end_seconds) for clip in manifest.clips),
        folds=tuple(folds),
        groups=portable_group_names(manifest) if held_out is None or held_out.groups is None else held_out.groups,
        keys=clips.keys,
        y_true=y_true,
        logits=np.full(y_true.shape, np.nan) if logits is None else logits,
        known=~np.isnan(manifest.targets()),
    )


def _fit_calibration_and_thresholds(
    out_of_fold: OutOfFoldPredictions, recipe: Recipe
) -> tuple[Calibration | None, FloatArray]:
    """The calibration, and the thresholds (n_labels,) of the best F1, NaN for labels with too few clips."""
    rows = out_of_fold.has_prediction
    if not rows.any():
        return None, np.full(len(out_of_fold.labels), np.nan)
    calibration = fit_calibration(
        out_of_fold.logits, out_of_fold.targets, method=recipe.calibration, folds=out_of_fold.fold_indices
    )
    probabilities = probabilities_of(out_of_fold.logits[rows], calibration)
    return calibration, fit_thresholds(out_of_fold.targets[rows], probabilities)


def _fit_window_thresholds(
    out_of_fold: OutOfFoldPredictions, windows: WindowLogits | None, calibration: Calibration | None
) -> FloatArray | None:
    """Thresholds (n_labels,) for windows that are shorter than the clips; None without windows."""
    if windows is None:
        return None
    return fit_window_thresholds(out_of_fold.targets, probabilities_of(windows.logits, calibration), windows.clips)
