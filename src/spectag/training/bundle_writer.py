"""Writing a bundle: all files in a folder beside its place, checked, then moved there in one step."""

import copy
import dataclasses
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from scipy.special import expit
from torch import nn

from spectag.array_types import Float32Array, FloatArray
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import backbone_spec
from spectag.config.base import to_toml
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.errors import BundleError
from spectag.models.bundle import (
    CARD_FILE,
    INFO_FILE,
    MEMBERS_FOLDER,
    ONNX_FILE,
    RECIPE_FILE,
    WEIGHTS_FILE,
    BackboneInfo,
    BundleInfo,
    DataInfo,
    MemberInfo,
    read_info,
    write_info,
)
from spectag.models.model_card import model_card
from spectag.models.out_of_fold import CALIBRATION_FILE, PREDICTIONS_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.tagger import open_session
from spectag.scoring.blending import ONE_MODEL, EnsembleWeights
from spectag.scoring.calibration import DEFAULT_THRESHOLD, Calibration, CrossFitted, probabilities_of
from spectag.scoring.reliability_diagram import calibration_metrics
from spectag.scoring.scores import Scores
from spectag.system.epoch_log import Epoch, write_history
from spectag.training.networks.backbones.base import first_line
from spectag.training.networks.network import Tagger
from spectag.training.networks.onnx_export import export_tagger, trace_features, with_weights

MAX_ONNX_DIFFERENCE = 1e-4
N_CHECKED_CLIPS = 20
HISTORY_FILE = "epochs.csv"
CURVES_FILE = "epochs.png"
OTHER_WEIGHTS = ("best", "last")
NETWORK_FILES = {ONNX_FILE, WEIGHTS_FILE, *(f"{name}.safetensors" for name in OTHER_WEIGHTS)}
OWN_FILES = {
    INFO_FILE,
    PREDICTIONS_FILE,
    CALIBRATION_FILE,
    RECIPE_FILE,
    CARD_FILE,
    HISTORY_FILE,
    CURVES_FILE,
    MEMBERS_FOLDER,
    *NETWORK_FILES,
}


@dataclass(frozen=True)
class FoldScore:
    """How good heads were on the clips of one fold, which they did not see."""

    name: str
    n_clips: int
    lwlrap: float
    top1_accuracy: float | None  # None unless every clip has exactly one label


@dataclass(frozen=True)
class TrainingRecord:
    """What was learnt from what, and how well."""

    manifest: Manifest
    keys: tuple[str, ...]  # of the clips' contents
    recipe: Recipe
    scores: Scores | None
    folds: tuple[FoldScore, ...]
    held_out: OutOfFoldPredictions
    judged: CrossFitted
    calibration: Calibration | None
    thresholds: FloatArray  # (n_labels,), NaN where there is none
    epochs: tuple[Epoch, ...]
    learnt: OutOfFoldPredictions  # those of `held_out`, and what else was learnt from


@dataclass(frozen=True)
class Member:
    """One network of a tagger, and what it hears."""

    recipe: Recipe  # of this member
    front_end: FrontEnd
    tagger: Tagger  # on the CPU
    inputs: Callable[[int], Float32Array]  # its input of training clip i
    features_onnx: Path | None  # its extractor as ONNX, where it is there already
    weights_sha256: str  # of the network that it began with
    other_weights: Mapping[str, Tagger] = field(default_factory=dict)  # kept beside its own: best, last

    def __post_init__(self) -> None:
        unknown = sorted(set(self.other_weights) - set(OTHER_WEIGHTS))
        if unknown:
            raise ValueError(f"other weights are {' or '.join(OTHER_WEIGHTS)}, got {', '.join(unknown)}")


def check_output(output: Path) -> None:
    """Refuse a place where something else than a bundle lies, or none can be written, before any work is done.

    Raises
    ------
    BundleError
    """
    if output.is_dir() and any(output.iterdir()) and not (output / INFO_FILE).exists():
        raise BundleError(f"{output}: the folder holds something else than a tagger; choose another place for -o")
    foreign = _foreign_files(output) if output.is_dir() else []
    if foreign:
        raise BundleError(
            f"{output}: {foreign[0]} lies beside the tagger and would be lost when it is replaced; move it elsewhere"
        )
    if output.resolve() == Path.cwd():
        raise BundleError(f"{output}: is the folder you are in, which can't be replaced; name another place for -o")
    if output.exists() and not output.is_dir():
        raise BundleError(f"{output}: is a file; a tagger is a folder, choose another place for -o")
    home = next(folder for folder in output.absolute().parents if folder.exists())
    if not home.is_dir() or not os.access(home, os.W_OK):
        raise BundleError(f"{output}: nothing can be written into {home}; choose another place for -o")


def _foreign_files(bundle: Path) -> list[str]:
    """What lies in a bundle and is no part of it."""
    in_members = list(bundle.glob(f"{MEMBERS_FOLDER}/[!.]*"))
    members = [path for path in in_members if path.is_dir() and path.name.isdigit()]
    foreign = [path for path in bundle.glob("[!.]*") if path.name not in OWN_FILES]
    foreign += [path for path in in_members if path not in members]
    foreign += [path for member in members for path in member.glob("[!.]*") if path.name not in NETWORK_FILES]
    return sorted(path.relative_to(bundle).as_posix() for path in foreign)


def pack(output: Path, record: TrainingRecord, members: Sequence[Member], blend: EnsembleWeights = ONE_MODEL) -> float:
    """Write a bundle, and give the greatest difference in probability between its model.onnx and torch.

    Members of weight 0 are left out. Where one is left, its weight and the bias go into its head, and the bundle is
    that of a single tagger.

    Raises
    ------
    BundleError
        If the difference is above 1e-4, of a member or of all together, or the bundle can't be written.
    ValueError
        If the number of weights is not that of the members, or all are 0.
    """
    output = output.resolve()  # of a link, what it points to is replaced
    members, blend = _without_idle(members, blend)
    with _replaced_when_whole(output) as folder:
        places = _places(len(members))
        # several networks are calibrated when they have been blended, by the runtime
        inside = record.calibration if len(members) == 1 else None
        _write_networks([folder / place for place in places], members, inside)
        paths = [folder / place / ONNX_FILE for place in places]
        difference = _onnx_difference(paths, members, blend, record.calibration, len(record.keys))
        info = _info(record, members, blend, difference)
        write_info(folder, info)
        write_out_of_fold(folder / PREDICTIONS_FILE, record.learnt)
        (folder / RECIPE_FILE).write_text(to_toml(record.recipe), encoding="utf-8")
        (folder / CARD_FILE).write_text(model_card(info, output.name), encoding="utf-8")
        if record.epochs:
            write_history(folder / HISTORY_FILE, record.epochs)
    return difference


def _without_idle(members: Sequence[Member], blend: EnsembleWeights) -> tuple[list[Member], EnsembleWeights]:
    """The members that have a weight; one that is left alone says itself what the blend would say."""
    if len(blend.weights) != len(members) or not any(blend.weights):
        raise ValueError(f"need a weight for each of {len(members)} members, not all 0, got {blend.weights}")
    kept = [(member, weight) for member, weight in zip(members, blend.weights, strict=True) if weight]
    if len(kept) > 1:
        return [member for member, _ in kept], EnsembleWeights(tuple(weight for _, weight in kept), blend.bias)
    [(member, weight)] = kept
    if (weight, blend.bias) == (1.0, 0.0):
        return [member], ONE_MODEL
    others = {name: _scaled(other, weight, blend.bias) for name, other in member.other_weights.items()}
    return [replace(member, tagger=_scaled(member.tagger, weight, blend.bias), other_weights=others)], ONE_MODEL


def _scaled(tagger: Tagger, weight: float, bias: float) -> Tagger:
    """A copy whose logits are `weight` times the tagger's, plus `bias`."""
    scaled = copy.deepcopy(tagger)
    last = [module for module in scaled.head.modules() if isinstance(module, nn.Linear)][-1]  # heads end in one
    with torch.no_grad():
        last.weight.mul_(weight)
        last.bias.mul_(weight).add_(bias)
    return scaled


def _places(n_members: int) -> list[str]:
    """The folders of the networks in a bundle; the only one lies in the bundle's own."""
    return ["."] if n_members == 1 else [f"{MEMBERS_FOLDER}/{number}" for number in range(1, n_members + 1)]


def _write_networks(folders: Sequence[Path], members: Sequence[Member], calibration: Calibration | None) -> None:
    """Write each member's model.onnx and weights into its folder."""
    graphs: dict[tuple[object, ...], onnx.ModelProto] = {}  # by architecture: tracing takes seconds
    for folder, member in zip(folders, members, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        _write_onnx(folder / ONNX_FILE, member, calibration, graphs)
        _save_weights(member.tagger, folder / WEIGHTS_FILE)
        for name, other in member.other_weights.items():
            _save_weights(other, folder / f"{name}.safetensors")


def _write_onnx(
    path: Path, member: Member, calibration: Calibration | None, graphs: dict[tuple[object, ...], onnx.ModelProto]
) -> None:
    extractor, example = member.tagger.extractor, torch.zeros(2, *member.inputs(0).shape)
    if member.features_onnx is not None:
        features = onnx.load(member.features_onnx)
    else:
        architecture = (member.recipe.backbone, member.recipe.features, example.shape)
        if architecture not in graphs:
            graphs[architecture] = trace_features(extractor, example)
        features = with_weights(graphs[architecture], extractor)
    with torch.inference_mode():
        n_features = extractor(example).shape[1]
    export_tagger(features, member.tagger.head, n_features, path, calibration=calibration)


def _save_weights(tagger: Tagger, path: Path) -> None:
    save_file(tagger.state_dict(), path)
    path.chmod(0o644)  # safetensors keeps it to its owner


@contextmanager
def _replaced_when_whole(output: Path) -> Iterator[Path]:
    """A new folder that takes the place of `output` if the `with` block ends well, and is removed if not."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
        work.chmod(0o755)
        replaced = work.with_name(f"{work.name}-replaced")
        try:
            yield work
            check_output(output)
            if output.exists():
                output.rename(replaced)
            work.rename(output)
        finally:
            if replaced.exists() and not output.exists():
                replaced.rename(output)  # stopped between the two steps
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{output}: the tagger can't be written: {first_line(error)}") from error


def _onnx_difference(
    paths: Sequence[Path],
    members: Sequence[Member],
    blend: EnsembleWeights,
    calibration: Calibration | None,
    n_clips: int,
) -> float:
    """The greatest difference in probability, of a network or of all together."""
    sessions = [open_session(path, n_threads=1) for path in paths]
    greatest = 0.0
    for i in np.unique(np.linspace(0, n_clips - 1, N_CHECKED_CLIPS).astype(int)):
        answers = [_answers(session, member, int(i)) for session, member in zip(sessions, members, strict=True)]
        probabilities, exported, expected = zip(*answers, strict=True)
        inside = calibration if len(members) == 1 else None
        pairs = [
            (found, probabilities_of(logits, inside)) for found, logits in zip(probabilities, expected, strict=True)
        ]
        pairs.append((probabilities_of(blend(exported), calibration), probabilities_of(blend(expected), calibration)))
        for found, wanted in pairs:
            greatest = float(np.maximum(greatest, np.abs(found - wanted).max()))  # unlike max, keeps a NaN
    if not greatest <= MAX_ONNX_DIFFERENCE:
        raise BundleError(
            f"model.onnx differs from torch by {greatest:.1e} in probability, more than {MAX_ONNX_DIFFERENCE:g}; "
            "please report it with the versions of torch and onnxruntime"
        )
    return greatest


def _answers(session: Any, member: Member, i: int) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Of a member and a clip: probabilities and logits by onnxruntime, and logits by torch."""
    batch = np.array(member.inputs(i)[None])
    probabilities, logits = session.run(["probabilities", "logits"], {"inputs": batch})
    with torch.inference_mode():
        return probabilities, logits, member.tagger(torch.from_numpy(batch)).numpy()


def _info(
    record: TrainingRecord, members: Sequence[Member], blend: EnsembleWeights, onnx_difference: float
) -> BundleInfo:
    fitted = ~np.isnan(record.thresholds)
    return BundleInfo(
        labels=record.manifest.labels.names,
        front_end=members[0].front_end,
        backbone=_backbone_info(members[0]),
        members=_member_infos(members, blend) if len(members) > 1 else (),
        bias=blend.bias,
        thresholds=tuple(np.where(fitted, record.thresholds, DEFAULT_THRESHOLD).tolist()),
        thresholds_fitted=tuple(fitted.tolist()),
        calibration=record.calibration,
        calibration_method=record.recipe.calibration,
        metrics=_metrics(record),
        data=DataInfo(
            name=record.manifest.source.name,
            n_clips=len(record.keys),
            n_clips_per_label=tuple(record.manifest.multi_hot().sum(axis=0).tolist()),
            fingerprint=_data_fingerprint(record),
        ),
        onnx_difference=onnx_difference,
        versions={
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("spectag", "torch", "onnxruntime", "numpy")},
        },
    )


def _member_infos(members: Sequence[Member], blend: EnsembleWeights) -> tuple[MemberInfo, ...]:
    return tuple(
        MemberInfo(folder=place, weight=weight, front_end=member.front_end, backbone=_backbone_info(member))
        for place, weight, member in zip(_places(len(members)), blend.weights, members, strict=True)
    )


def _backbone_info(member: Member) -> BackboneInfo:
    recipe = member.recipe
    spec = backbone_spec(recipe.backbone)
    earlier = recipe.init and read_info(recipe.init).backbone
    pretrained_on = spec.pretrained_on if recipe.pretrained else "nothing"
    return BackboneInfo(
        name=spec.name,
        features=recipe.features,
        head=recipe.head,
        pretrained_on=earlier.pretrained_on if earlier else pretrained_on,
        licence=spec.licence,
        weights_sha256=member.weights_sha256,
    )


def _metrics(record: TrainingRecord) -> dict[str, Any]:
    if record.scores is None:
        return {}
    seen = record.held_out.seen
    plain = expit(record.held_out.logits[seen])
    return {
        **record.scores.to_dict(),
        "folds": [dataclasses.asdict(fold) for fold in record.folds],
        "calibration": calibration_metrics(record.held_out.y_true[seen], plain, record.judged.probabilities[seen]),
    }


def _data_fingerprint(record: TrainingRecord) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key, clip in zip(record.keys, record.manifest.clips, strict=True):
        digest.update(f"{key} {','.join(sorted(clip.labels))}\n".encode())
    return digest.hexdigest()
