"""Write a bundle: all files go to a temporary folder beside the output, are checked, and move there in one step."""

import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors import SafetensorError
from scipy.special import expit

from spectag.array_types import FloatArray
from spectag.audio.sound_statistics import SoundStatistics, measure_sound, of_recording
from spectag.config.backbones import backbone_spec
from spectag.config.base import to_toml
from spectag.config.recipe import Recipe
from spectag.config.tagging import SEGMENT_WINDOW
from spectag.data.clips import Manifest
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.errors import AudioError, BundleError, DataError, first_line
from spectag.models.bundle import (
    CARD_FILE,
    INFO_FILE,
    MEMBERS_FOLDER,
    ONNX_FILE,
    RECIPE_FILE,
    BackboneInfo,
    BundleInfo,
    DataInfo,
    MemberInfo,
    WindowThresholds,
    read_info,
    replace_when_complete,
    write_info,
)
from spectag.models.clip_windows import ClipWindows
from spectag.models.frames_info import FRAMES_FILE
from spectag.models.model_card import render_card
from spectag.models.network_session import open_session
from spectag.models.novelty import NoveltyInfo
from spectag.models.out_of_fold import CALIBRATION_FILE, OUT_OF_FOLD_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.tagger import Tagger
from spectag.models.training_sounds import TrainingSounds
from spectag.scoring.blending import ONE_MODEL, EnsembleWeights
from spectag.scoring.calibration import DEFAULT_THRESHOLD, Calibration, CrossFitted, probabilities_of
from spectag.scoring.reliability_diagram import calibration_metrics
from spectag.scoring.scores import Scores
from spectag.scoring.thresholds import fill_thresholds
from spectag.system.environment import library_version
from spectag.system.epoch_log import Epoch, write_history
from spectag.system.output import check_output_folder
from spectag.system.progress import Log, no_log
from spectag.system.worker_pool import n_usable_cores
from spectag.training.curves import save_learning_curves
from spectag.training.heads.frame_head import FrameModel
from spectag.training.members.bundle_member import NETWORK_FILES, BundleMember, network_with_novelty, write_networks
from spectag.training.published_labels import PublishedLabels

MAX_DIFFERENCE = 1e-4
"""Largest difference in probability between the model in the bundle and the networks in training."""
_LOGIT_ERROR = 4 * MAX_DIFFERENCE  # the slope of the sigmoid is at most 1/4
_N_CHECKED_CLIPS = 17  # spread over the training clips
_N_LONGEST_CLIPS = 3  # checked as well
_N_COMPARED = 5  # of the checked clips; PyTorch is slow for many windows
_MAX_CHECKED_SECONDS = 600.0  # the sound in all checked clips together, but at least one clip
_MAX_NOVELTY_DIFFERENCE = 1e-3  # between the novelty by the bundle and that in training
_N_MEASURED_CLIPS = 100  # whose level, bandwidth and duration are stored
HISTORY_FILE = "epochs.csv"
CURVES_FILE = "epochs.png"
BUNDLE_FILES = {
    INFO_FILE,
    OUT_OF_FOLD_FILE,
    CALIBRATION_FILE,
    RECIPE_FILE,
    CARD_FILE,
    HISTORY_FILE,
    CURVES_FILE,
    MEMBERS_FOLDER,
    FRAMES_FILE,
    *NETWORK_FILES,
}


@dataclass(frozen=True)
class FoldScore:
    """Scores on the held-out clips of one fold."""

    name: str
    n_clips: int
    lwlrap: float | None  # None where it is not defined
    top1_accuracy: float | None  # None unless every clip has exactly one label
    mean_average_precision: float | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """The data, settings and results of a training run that are stored in its bundle."""

    manifest: Manifest
    keys: tuple[str, ...]  # hashes of the clips' contents
    recipe: Recipe
    scores: Scores | None
    folds: tuple[FoldScore, ...]
    out_of_fold: OutOfFoldPredictions
    cross_fitted: CrossFitted
    calibration: Calibration | None
    thresholds: FloatArray  # (n_labels,), NaN for labels without one
    epochs: tuple[Epoch, ...]
    all_training_clips: OutOfFoldPredictions  # those of `out_of_fold` and the clips with noisy labels
    window_thresholds: FloatArray | None = None  # (n_labels,), NaN for labels without one
    published: PublishedLabels | None = None  # that the bundle has, too; nothing else in the record is about them
    frames: FrameModel | None = None  # of all labels of the bundle


def check_output(output: Path) -> None:
    """Refuse an output that is not a bundle, or that cannot be written, before any work is done.

    Raises
    ------
    BundleError
    """
    if output.is_dir() and any(output.iterdir()) and not (output / INFO_FILE).exists():
        raise BundleError(f"{output}: the folder is not empty and not a spectag model; choose another folder for -o")
    foreign = _foreign_files(output) if output.is_dir() else []
    if foreign:
        raise BundleError(f"{output}: {foreign[0]} is not part of the model and would be lost; move it elsewhere")
    if output.resolve() == Path.cwd():
        raise BundleError(f"{output}: is the current folder, which cannot be replaced; choose another folder for -o")
    if output.exists() and not output.is_dir():
        raise BundleError(f"{output}: is a file, but a model is a folder; choose another path for -o")
    check_output_folder(output)
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise BundleError(f"{output}: cannot write to {parent}; choose another folder for -o")


def _foreign_files(bundle: Path) -> list[str]:
    """Files in a bundle that are not part of it."""
    in_members = list(bundle.glob(f"{MEMBERS_FOLDER}/[!.]*"))
    members = [path for path in in_members if path.is_dir() and path.name.isdigit()]
    foreign = [path for path in bundle.glob("[!.]*") if path.name not in BUNDLE_FILES]
    foreign += [path for path in in_members if path not in members]
    foreign += [path for member in members for path in member.glob("[!.]*") if path.name not in NETWORK_FILES]
    return sorted(path.relative_to(bundle).as_posix() for path in foreign)


def write_bundle(
    output: Path,
    record: TrainingRecord,
    members: Sequence[BundleMember],
    weights: EnsembleWeights = ONE_MODEL,
    *,
    log: Log = no_log,
) -> float:
    """Write a bundle; return the largest difference in probability between its model.onnx and training.

    Members of weight 0 are left out. If one member remains, its weight and the bias become part of its head, and the
    bundle is that of a single network. Before the bundle gets its name, `Tagger.tag` tags some of the training clips,
    the longest ones included, and the probabilities are compared with those in training.

    Raises
    ------
    BundleError
        If a difference is above 1e-4, for a member or the ensemble, a clip cannot be read any more, or the bundle
        cannot be written.
    ValueError
        If the number of weights is not that of the members, or all are 0.
    """
    output = output.resolve()  # the target of a symbolic link is replaced, not the link
    members, weights = _without_unused(members, weights)
    if record.published is not None:
        members = record.published.added_to(members)
        record = dataclasses.replace(record, calibration=record.published.calibration_with(record.calibration))
    with _replaced_when_complete(output) as folder:
        folders = [folder / name for name in _member_folders(len(members))]
        # the calibration of an ensemble is applied to its combined logits, outside of model.onnx
        write_networks(folders, members, record.calibration if len(members) == 1 else None)
        checked = _checked_clips(members[0].clips)
        difference = _onnx_difference(folders, members, weights, record.calibration, checked[:_N_COMPARED])
        info = _info(record, members, weights, difference)
        if record.frames is not None:
            info = info.model_copy(update={"frames": record.frames.info})
            of_windows = np.array(info.thresholds_for(SEGMENT_WINDOW.window_seconds))
            onnx.save(record.frames.onnx(of_windows), folder / FRAMES_FILE)
        write_info(folder, info)
        _check_tagging(folder, record, members, weights, checked)
        info = info.model_copy(update={"training_sounds": _training_sounds(folder, record.manifest)})
        write_info(folder, info)
        write_out_of_fold(folder / OUT_OF_FOLD_FILE, record.all_training_clips)
        (folder / RECIPE_FILE).write_text(to_toml(record.recipe), encoding="utf-8")
        (folder / CARD_FILE).write_text(render_card(info, output.name), encoding="utf-8")
        if record.epochs:
            write_history(folder / HISTORY_FILE, record.epochs)
            save_learning_curves(folder / CURVES_FILE, record.epochs, title=output.name, log=log)
    return difference


def _without_unused(
    members: Sequence[BundleMember], weights: EnsembleWeights
) -> tuple[list[BundleMember], EnsembleWeights]:
    """The members with a weight above 0; a single one gives the logits of the ensemble by itself."""
    if len(weights.weights) != len(members) or not any(weights.weights):
        raise ValueError(f"need a weight for each of {len(members)} members, not all 0, got {weights.weights}")
    used = [(member, weight) for member, weight in zip(members, weights.weights, strict=True) if weight]
    if len(used) > 1:
        return [member for member, _ in used], EnsembleWeights(tuple(weight for _, weight in used), weights.bias)
    [(member, weight)] = used
    if (weight, weights.bias) == (1.0, 0.0):
        return [member], ONE_MODEL
    return [member.scaled(weight, weights.bias)], ONE_MODEL


def _member_folders(n_members: int) -> list[str]:
    """The folders of the networks in a bundle; a single network is in the bundle's own folder."""
    return ["."] if n_members == 1 else [f"{MEMBERS_FOLDER}/{number}" for number in range(1, n_members + 1)]


@contextmanager
def _replaced_when_complete(output: Path) -> Iterator[Path]:
    """A new folder that replaces `output` if the `with` block succeeds, and is removed otherwise."""
    try:
        with replace_when_complete(output) as folder:
            yield folder
            check_output(output)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{output}: cannot write the model: {first_line(error)}") from error


def _onnx_difference(
    folders: Sequence[Path],
    members: Sequence[BundleMember],
    weights: EnsembleWeights,
    calibration: Calibration | None,
    checked: Sequence[int],
) -> float:
    """The largest difference in probability between ONNX and training, of any member or of the ensemble."""
    sessions = [open_session(folder / ONNX_FILE, n_threads=1) for folder in folders]
    member_calibration = calibration if len(members) == 1 else None
    largest = 0.0
    for index in checked:
        outputs = [member.outputs(session, index) for session, member in zip(sessions, members, strict=True)]
        probabilities, onnx_logits, logits_in_training = zip(*outputs, strict=True)
        expected = [probabilities_of(logits, member_calibration) for logits in logits_in_training]
        ensembles = [probabilities_of(weights(logits), calibration) for logits in (onnx_logits, logits_in_training)]
        for by_onnx, in_training in (*zip(probabilities, expected, strict=True), ensembles):
            largest = float(np.maximum(largest, np.abs(by_onnx - in_training).max()))  # unlike max, keeps a NaN
    if not largest <= MAX_DIFFERENCE:
        raise BundleError(
            f"model.onnx differs from training by {largest:.1e} in probability, more than {MAX_DIFFERENCE:g}; "
            "please report this with the versions of onnxruntime, and of torch if it is installed"
        )
    return largest


def _check_tagging(
    bundle: Path,
    record: TrainingRecord,
    members: Sequence[BundleMember],
    weights: EnsembleWeights,
    checked: Sequence[int],
) -> None:
    """Refuse a bundle that tags the files of training clips with other probabilities than those in training."""
    tagger = Tagger(bundle, device="cpu")
    for index in checked:
        clip = record.manifest.clips[index]
        try:
            tags = tagger.tag(clip.path, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds)
        except (AudioError, DataError) as error:
            raise BundleError(f"the model cannot be compared with its training: {error}") from error
        tagged = tags.probabilities
        logits = weights([member.training_logits(index) for member in members])
        # a calibration may be steep, so rounding errors are allowed before it, too
        lowest, highest = (
            probabilities_of(logits + shift, record.calibration) for shift in (-_LOGIT_ERROR, _LOGIT_ERROR)
        )
        differences = np.maximum(lowest - tagged, tagged - highest)
        if not differences.max() <= MAX_DIFFERENCE:
            label = int(differences.argmax())
            expected = probabilities_of(logits, record.calibration)[label]
            raise BundleError(
                f"{clip.path}: the model tags this training clip with {tagger.labels.names[label]} "
                f"{tagged[label]:.4f}, but {expected:.4f} was computed in training; if the file was not changed in the "
                "meantime, please report this"
            )
        if tagger.info.novelty is not None:
            novelty = members[tagger.info.novelty.network].training_novelty(index)
            if novelty is None or tags.novelty is None or not abs(novelty - tags.novelty) <= _MAX_NOVELTY_DIFFERENCE:
                raise BundleError(
                    f"{clip.path}: the model gives this training clip the novelty {tags.novelty}, but {novelty} was "
                    "computed in training; if the file was not changed in the meantime, please report this"
                )


def _training_sounds(bundle: Path, manifest: Manifest) -> TrainingSounds | None:
    """What the training clips are like, by up to a hundred of them; None for images."""
    if manifest.holds_images:
        return None
    tagger = Tagger(bundle)
    rows = np.unique(np.linspace(0, len(manifest.clips) - 1, _N_MEASURED_CLIPS).astype(int))

    def measure(row: int) -> tuple[SoundStatistics, float]:
        clip = manifest.clips[row]
        rate = tagger.sample_rates[0]
        with tagger.open_windows(clip.path, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds) as parts:
            measured = [(measure_sound(part.waveforms[rate], rate), part.end_seconds) for part in parts]
        return of_recording(statistics for statistics, _ in measured), measured[-1][1]

    try:
        with ThreadPoolExecutor(n_usable_cores()) as pool:
            statistics, durations = zip(*pool.map(measure, rows.tolist()), strict=True)
    except AudioError as error:
        raise BundleError(f"the training clips cannot be measured: {error}") from error
    return TrainingSounds.of(statistics, durations)


def _checked_clips(clips: ClipInputs) -> list[int]:
    """The indices of the training clips that are compared: the longest ones, and others from start to end."""
    seconds = np.array(clips.seconds)
    spread = np.linspace(0, len(seconds) - 1, _N_CHECKED_CLIPS).astype(int)
    longest = np.argsort(-seconds, kind="stable")[:_N_LONGEST_CLIPS]
    rows = list(dict.fromkeys([*longest.tolist(), *spread.tolist()]))
    seconds_before = np.cumsum(seconds[rows]) - seconds[rows]
    return [row for row, before in zip(rows, seconds_before, strict=True) if before < _MAX_CHECKED_SECONDS]


def _info(
    record: TrainingRecord, members: Sequence[BundleMember], weights: EnsembleWeights, onnx_difference: float
) -> BundleInfo:
    is_fitted = ~np.isnan(record.thresholds)
    thresholds = np.where(is_fitted, record.thresholds, DEFAULT_THRESHOLD)
    labels, window_thresholds = record.manifest.labels.names, record.window_thresholds
    if record.published is not None:
        labels = (*labels, *record.published.names)
        thresholds, is_fitted, window_thresholds = record.published.with_thresholds(
            thresholds, is_fitted, window_thresholds
        )
    return BundleInfo(
        labels=labels,
        front_end=members[0].front_end,
        window=members[0].front_end.window,
        backbone=_backbone_info(members[0]),
        members=_member_infos(members, weights) if len(members) > 1 else (),
        bias=weights.bias,
        novelty=_novelty_info(members),
        thresholds=tuple(thresholds.tolist()),
        thresholds_fitted=tuple(is_fitted.tolist()),
        window_thresholds=_window_thresholds(window_thresholds, thresholds),
        calibration=record.calibration,
        calibration_method=record.recipe.calibration,
        metrics=_metrics(record),
        data=DataInfo(
            name=record.manifest.source.name,
            n_clips=len(record.keys),
            n_clips_per_label=tuple(record.manifest.multi_hot().sum(axis=0).tolist()),
            fingerprint=_data_fingerprint(record),
        ),
        parents={name: above for name, above in record.manifest.parents.items() if {name, *above} <= set(labels)},
        extends=record.published and record.published.info,
        onnx_difference=onnx_difference,
        versions={
            "python": sys.version.split()[0],
            **{name: library_version(name) for name in ("spectag", *_torch_if_used(), "onnxruntime", "numpy")},
        },
    )


def _torch_if_used() -> list[str]:
    return ["torch"] if "torch" in sys.modules else []


def _novelty_info(members: Sequence[BundleMember]) -> NoveltyInfo | None:
    network = network_with_novelty(members)
    if network is None:
        return None
    novelty = members[network].novelty
    assert novelty is not None
    return NoveltyInfo(network=network, n_held_out=novelty.n_held_out)


def _window_thresholds(fitted: FloatArray | None, of_clips: FloatArray) -> WindowThresholds | None:
    """Those of a bundle: of the whole clips where a label has none for windows."""
    if fitted is None:
        return None
    windows = ClipWindows()
    return WindowThresholds(
        below_seconds=windows.seconds + windows.hop_seconds,
        thresholds=tuple(fill_thresholds(fitted, of_clips).tolist()),
    )


def _member_infos(members: Sequence[BundleMember], weights: EnsembleWeights) -> tuple[MemberInfo, ...]:
    return tuple(
        MemberInfo(folder=folder, weight=weight, front_end=member.front_end, backbone=_backbone_info(member))
        for folder, weight, member in zip(_member_folders(len(members)), weights.weights, members, strict=True)
    )


def _backbone_info(member: BundleMember) -> BackboneInfo:
    recipe = member.recipe
    spec, windows = backbone_spec(recipe.backbone), member.network.windows
    initial = recipe.init and read_info(recipe.init).backbone
    pretrained_on = spec.pretrained_on if recipe.pretrained else "nothing"
    return BackboneInfo(
        name=spec.name,
        features=recipe.features,
        head=recipe.head,
        pretrained_on=initial.pretrained_on if initial else pretrained_on,
        licence=spec.licence,
        weights_sha256=member.weights_sha256,
        clip_windows=None if windows is None else ClipWindows(n_labels=windows.n_labels),
    )


def _metrics(record: TrainingRecord) -> dict[str, Any]:
    if record.scores is None:
        return {}
    rows = record.out_of_fold.has_prediction
    uncalibrated = expit(record.out_of_fold.logits[rows])
    return {
        **record.scores.to_dict(),
        "folds": [dataclasses.asdict(fold) for fold in record.folds],
        "calibration": calibration_metrics(
            record.out_of_fold.targets[rows], uncalibrated, record.cross_fitted.probabilities[rows]
        ),
    }


def _data_fingerprint(record: TrainingRecord) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key, clip in zip(record.keys, record.manifest.clips, strict=True):
        unknown = f" unknown {','.join(sorted(clip.unknown))}" if clip.unknown else ""
        weight = "" if clip.weight == 1 else f" weight {clip.weight}"
        digest.update(f"{key} {','.join(sorted(clip.labels))}{unknown}{weight}\n".encode())
    return digest.hexdigest()
