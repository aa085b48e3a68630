"""From a manifest to a bundle: inputs, features, held-out scores, a head, and files that are checked."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from spectag.bundle import read_info
from spectag.catalogue import backbone_spec, front_end_of
from spectag.clip_inputs import open_clips
from spectag.config import ImageConfig
from spectag.errors import ConfigError, DataError, SpectagError
from spectag.features import FeatureStore
from spectag.front_end import FrontEnd
from spectag.gradient_fit import Epoch, train_head
from spectag.head_fit import (
    DEFAULT_WEIGHT_DECAY,
    WEIGHT_DECAYS,
    LinearHead,
    Standardization,
    fit_heads,
    held_out_logits,
)
from spectag.image import read_png
from spectag.labels import LabelSet
from spectag.manifest import Clip, Manifest, read_manifest
from spectag.manifest.table import some_of
from spectag.metrics import best_thresholds, lwlrap, top1_accuracy
from spectag.packing import FoldScore, Lesson, check_output, pack
from spectag.progress import Progress, Say, silent, tell_nobody
from spectag.recipe import Recipe
from spectag.scores import Scores, score
from spectag.tagger import StandardizedLinear, build_head, load_part
from spectag.validation import HeldOut, hold_out
from spectag.weights import cache_folder

Float32Array = NDArray[np.float32]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


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

    def to_dict(self) -> dict[str, Any]:
        """The scores and what was skipped, for JSON."""
        return {
            "bundle": str(self.bundle),
            "scores": self.scores and self.scores.to_dict(),
            "folds": [dataclasses.asdict(fold) for fold in self.folds],
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "skipped": [{"fname": clip.fname, "reason": reason} for clip, reason in self.skipped],
            "onnx_difference": self.onnx_difference,
        }


@dataclass(frozen=True)
class _Fit:
    """A head, and what its like said of the clips that they did not see (NaN for the others)."""

    head: nn.Module
    logits: FloatArray
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class _Task:
    """What there is to fit."""

    features: Float32Array  # (n_clips, n_features)
    group_sizes: list[int]
    y_true: BoolArray  # (n_clips, n_labels)
    held_out: HeldOut

    @property
    def train_rows(self) -> BoolArray:
        """The clips that the head in the bundle learns from."""
        return ~self.held_out.rows[0] if self.held_out.is_share else np.ones(len(self.y_true), bool)


def train(
    manifest: str | Path | Manifest,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    bank: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    say: Say = tell_nobody,
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
    bank : path, optional
        Where log_mels and features are kept; by default in the user's cache.
    audio_dir, group_column
        As in `read_manifest`.
    workers : int, optional
        Processes that make log_mels; by default one for each core.
    progress, say
        Told how far the work is, and what was found.

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
    front_end = _front_end(recipe, manifest)
    root = Path(bank) if bank else cache_folder() / "bank"
    if recipe.init is not None:
        _check_init(recipe.init, recipe, manifest.labels)
    store = FeatureStore(root, recipe, front_end)
    clips = open_clips(manifest, front_end, root, workers=workers, progress=progress, say=say)
    if not clips.manifest.multi_hot().any():
        raise DataError(f"{manifest.source}: no clip has a label, so there is nothing to learn from")
    held_out = hold_out(clips.manifest, recipe)
    say(f"held out: {held_out.note}")
    task = _Task(
        store.compute(clips.keys, clips.inputs, progress=progress),
        store.group_sizes(clips.inputs(0)),
        clips.manifest.multi_hot(),
        held_out,
    )
    fit = _solve(task, recipe, progress, say) if recipe.optimizer == "lbfgs" else _descend(task, recipe, say)
    predictions = expit(fit.logits)
    scores, folds = _judge(task, predictions, recipe.seed)
    thresholds = _fitted_thresholds(task.y_true, predictions)
    lesson = Lesson(clips.manifest, clips.keys, recipe, front_end, scores, folds, thresholds, fit.epochs)
    say("writing the bundle, and checking model.onnx against torch")
    onnx_difference = pack(output, lesson, store, fit.head, clips.inputs)
    return TrainResult(output, scores, folds, fit.epochs, predictions, clips.skipped, onnx_difference)


def _front_end(recipe: Recipe, manifest: Manifest) -> FrontEnd:
    if not manifest.holds_images and recipe.image is None:
        return FrontEnd(mel=front_end_of(recipe.backbone, recipe.mel))
    if backbone_spec(recipe.backbone).mel_is_fixed:
        raise ConfigError(
            f"backbone {recipe.backbone} hears log_mels and was never shown images; choose one that takes images, "
            "such as --backbone efficientnet_lite0 or convnext_tiny"
        )
    if not manifest.holds_images:
        return FrontEnd(mel=front_end_of(recipe.backbone, recipe.mel), image=recipe.image)
    image = recipe.image or ImageConfig(colormap=_colormap(manifest), height=224, width=224)
    if recipe.image is None and recipe.mel is not None and image.colormap != "grey":
        raise ConfigError(
            f"{manifest.source}: its images are coloured, and to draw sounds as they were drawn their colour map must "
            "be known; give it as image.colormap, such as magma, with image.height and image.width"
        )
    if image.height is None or image.width is None:
        raise ConfigError("images may differ in size, so image.height and image.width are needed, such as 224 and 224")
    return FrontEnd(mel=recipe.mel and front_end_of(recipe.backbone, recipe.mel), image=image)


def _colormap(manifest: Manifest) -> str:
    """Grey for grey images, and for coloured ones the map that the field draws with."""
    for clip in manifest.clips:
        try:
            return "grey" if read_png(clip.path).ndim == 2 else "magma"
        except SpectagError:  # named later, when all are read
            continue
    return "grey"


def _solve(task: _Task, recipe: Recipe, progress: Progress, say: Say) -> _Fit:
    """The linear head at the least of its loss, with the weight decay that is best on the held-out clips."""
    asked = recipe.weight_decay
    if asked is not None:
        decays: tuple[float, ...] = (asked,)
    else:
        decays = WEIGHT_DECAYS if task.held_out.rows else (DEFAULT_WEIGHT_DECAY,)
    logits = held_out_logits(
        task.features, task.y_true, task.group_sizes, task.held_out.rows, decays, progress=progress
    )
    decay = max(decays, key=lambda decay: _lwlrap(task, logits[decay])) if len(decays) > 1 else decays[0]
    if len(decays) > 1:
        say(f"weight decay {decay:g}: the best of {', '.join(f'{d:g}' for d in decays)} on held-out clips")
    rows = task.train_rows
    head = fit_heads(task.features[rows], task.y_true[rows], task.group_sizes, (decay,))[0]
    return _Fit(_as_module(head), logits[decay])


def _lwlrap(task: _Task, logits: FloatArray) -> float:
    seen = ~np.isnan(logits).any(axis=1) & task.y_true.any(axis=1)
    return lwlrap(task.y_true[seen], logits[seen]) if seen.any() else 0.0


def _as_module(head: LinearHead) -> StandardizedLinear:
    module = _standardized_linear(head.standardization, len(head.bias))
    module.linear.weight.data = torch.from_numpy(np.ascontiguousarray(head.weights.T, np.float32))
    module.linear.bias.data = torch.from_numpy(head.bias.astype(np.float32))
    return module


def _standardized_linear(standardization: Standardization, n_labels: int) -> StandardizedLinear:
    module = StandardizedLinear(len(standardization.center), n_labels)
    module.center.copy_(torch.from_numpy(standardization.center))
    module.scale.copy_(torch.from_numpy(standardization.scale))
    return module


def _descend(task: _Task, recipe: Recipe, say: Say) -> _Fit:
    """A head by epochs for each part that is held out and, where that is not a share, one on all clips."""
    logits = np.full(task.y_true.shape, np.nan)
    for name, rows in zip(task.held_out.names, task.held_out.rows, strict=True):
        if not task.held_out.is_share:
            say(f"fold {name}")
        head, epochs = _descend_once(task, rows, recipe, say)
        with torch.inference_mode():
            logits[rows] = head(torch.from_numpy(task.features[rows])).numpy()
    if not task.held_out.is_share:
        say("all clips")
        head, epochs = _descend_once(task, ~task.train_rows, recipe, say)
    return _Fit(head, logits, tuple(epochs))


def _descend_once(task: _Task, valid: BoolArray, recipe: Recipe, say: Say) -> tuple[nn.Module, list[Epoch]]:
    torch.manual_seed(recipe.seed)
    n_labels = task.y_true.shape[1]
    if recipe.head == "linear":
        standardization = Standardization.of(task.features[~valid], task.group_sizes)
        head: nn.Module = _standardized_linear(standardization, n_labels)
    else:
        head = build_head(recipe.head, task.features.shape[1], n_labels)
    if recipe.init is not None:
        load_part(head, "head", recipe.init)
    epochs: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch)
        say(str(epoch))

    train_head(head, task.features, task.y_true, valid, recipe, on_epoch)
    return head, epochs


def _check_init(bundle: Path, recipe: Recipe, labels: LabelSet) -> None:
    """Refuse an earlier bundle whose network or head is built otherwise, or whose labels are others."""
    info = read_info(bundle)
    theirs = (info.backbone.name, info.backbone.features, info.backbone.head)
    own = (recipe.backbone, recipe.features, recipe.head)
    problem = f"{bundle}: it can't be the beginning of this one"
    if theirs != own:
        words = "backbone {}, features {}, head {}"
        raise ConfigError(f"{problem}: it has {words.format(*theirs)}; this one has {words.format(*own)}")
    if info.labels != labels.names:
        different = sorted(set(info.labels) ^ set(labels.names))
        raise ConfigError(f"{problem}: the labels differ: {some_of(different) if different else 'by their order'}")


def _judge(task: _Task, predictions: FloatArray, seed: int) -> tuple[Scores | None, tuple[FoldScore, ...]]:
    """Scores of the held-out clips, all together and part by part."""
    seen = ~np.isnan(predictions).any(axis=1)
    if not (seen & task.y_true.any(axis=1)).any():
        return None, ()
    folds = tuple(
        _judge_fold(name, task.y_true[rows], predictions[rows])
        for name, rows in zip(task.held_out.names, task.held_out.rows, strict=True)
        if task.y_true[rows].any()
    )
    return score(task.y_true[seen], predictions[seen], rng=np.random.default_rng(seed)), folds


def _judge_fold(name: str, y_true: BoolArray, predictions: FloatArray) -> FoldScore:
    is_single = bool((y_true.sum(axis=1) == 1).all())
    accuracy = top1_accuracy(y_true, predictions) if is_single else None
    return FoldScore(name, len(y_true), lwlrap(y_true, predictions), accuracy)


def _fitted_thresholds(y_true: BoolArray, predictions: FloatArray) -> FloatArray:
    """The threshold of best F1 for each label, on held-out clips; NaN where there are too few."""
    seen = ~np.isnan(predictions).any(axis=1)
    return best_thresholds(y_true[seen], predictions[seen]) if seen.any() else np.full(y_true.shape[1], np.nan)
