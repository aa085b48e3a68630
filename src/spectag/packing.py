"""Writing a bundle: all files in a folder beside its place, checked, then moved there in one step."""

import csv
import dataclasses
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from spectag.backbones.base import first_line
from spectag.bundle import (
    CARD_FILE,
    INFO_FILE,
    ONNX_FILE,
    RECIPE_FILE,
    WEIGHTS_FILE,
    BackboneInfo,
    BundleInfo,
    DataInfo,
    read_info,
    write_info,
)
from spectag.card import model_card
from spectag.catalogue import backbone_spec
from spectag.config import to_toml
from spectag.errors import BundleError
from spectag.export import export_tagger
from spectag.features import FeatureStore
from spectag.front_end import FrontEnd
from spectag.gradient_fit import Epoch
from spectag.manifest import Manifest
from spectag.recipe import Recipe
from spectag.runtime import open_session
from spectag.scores import Scores
from spectag.tagger import Tagger

Float32Array = NDArray[np.float32]
FloatArray = NDArray[np.float64]

DEFAULT_THRESHOLD = 0.5
MAX_ONNX_DIFFERENCE = 1e-4
N_CHECKED_CLIPS = 20
HISTORY_FILE = "epochs.csv"
OWN_FILES = {INFO_FILE, ONNX_FILE, WEIGHTS_FILE, RECIPE_FILE, CARD_FILE, HISTORY_FILE}


@dataclass(frozen=True)
class FoldScore:
    """How good heads were on the clips of one fold, which they did not see."""

    name: str
    n_clips: int
    lwlrap: float
    top1_accuracy: float | None  # None unless every clip has exactly one label


@dataclass(frozen=True)
class Lesson:
    """What was learnt from what, and how well."""

    manifest: Manifest
    keys: tuple[str, ...]  # of the clips' contents
    recipe: Recipe
    front_end: FrontEnd
    scores: Scores | None
    folds: tuple[FoldScore, ...]
    thresholds: FloatArray  # (n_labels,), NaN where there is none
    epochs: tuple[Epoch, ...]


def check_output(output: Path) -> None:
    """Refuse a place where something else than a bundle lies, or none can be written, before any work is done.

    Raises
    ------
    BundleError
    """
    if output.is_dir() and any(output.iterdir()) and not (output / INFO_FILE).exists():
        raise BundleError(f"{output}: the folder holds something else than a tagger; choose another place for -o")
    foreign = (
        sorted(path.name for path in output.glob("[!.]*") if path.name not in OWN_FILES) if output.is_dir() else []
    )
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


def pack(
    output: Path, lesson: Lesson, store: FeatureStore, head: nn.Module, inputs: Callable[[int], Float32Array]
) -> float:
    """Write a bundle, and give the greatest difference in probability between its model.onnx and torch.

    Raises
    ------
    BundleError
        If the difference is above 1e-4, or the bundle can't be written.
    """
    output = output.resolve()  # of a link, what it points to is replaced
    n_features = sum(store.group_sizes(inputs(0)))
    with _replaced_when_whole(output) as folder:
        export_tagger(store.onnx_file(inputs(0)), head, n_features, folder / ONNX_FILE)
        tagger = Tagger(store.extractor, head).eval()
        save_file(tagger.state_dict(), folder / WEIGHTS_FILE)
        (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors keeps it to its owner
        difference = _onnx_difference(folder / ONNX_FILE, tagger, inputs, len(lesson.keys))
        info = _info(lesson, store, difference)
        write_info(folder, info)
        (folder / RECIPE_FILE).write_text(to_toml(lesson.recipe), encoding="utf-8")
        (folder / CARD_FILE).write_text(model_card(info, output.name), encoding="utf-8")
        if lesson.epochs:
            _write_history(folder / HISTORY_FILE, lesson.epochs)
    return difference


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


def _onnx_difference(path: Path, tagger: Tagger, inputs: Callable[[int], Float32Array], n_clips: int) -> float:
    session = open_session(path, n_threads=1)
    greatest = 0.0
    for i in np.unique(np.linspace(0, n_clips - 1, N_CHECKED_CLIPS).astype(int)):
        batch = np.array(inputs(int(i))[None])
        exported = session.run(["probabilities"], {"inputs": batch})[0]
        with torch.inference_mode():
            expected = torch.sigmoid(tagger(torch.from_numpy(batch))).numpy()
        greatest = float(np.maximum(greatest, np.abs(exported - expected).max()))  # unlike max, keeps a NaN
    if not greatest <= MAX_ONNX_DIFFERENCE:
        raise BundleError(
            f"model.onnx differs from torch by {greatest:.1e} in probability, more than {MAX_ONNX_DIFFERENCE:g}; "
            "please report it with the versions of torch and onnxruntime"
        )
    return greatest


def _info(lesson: Lesson, store: FeatureStore, onnx_difference: float) -> BundleInfo:
    spec = backbone_spec(lesson.recipe.backbone)
    earlier = lesson.recipe.init and read_info(lesson.recipe.init).backbone
    pretrained_on = spec.pretrained_on if lesson.recipe.pretrained else "nothing"
    fitted = ~np.isnan(lesson.thresholds)
    return BundleInfo(
        labels=lesson.manifest.labels.names,
        front_end=lesson.front_end,
        backbone=BackboneInfo(
            name=spec.name,
            features=lesson.recipe.features,
            head=lesson.recipe.head,
            pretrained_on=earlier.pretrained_on if earlier else pretrained_on,
            licence=spec.licence,
            weights_sha256=store.weights_sha256,
        ),
        thresholds=tuple(np.where(fitted, lesson.thresholds, DEFAULT_THRESHOLD).tolist()),
        thresholds_fitted=tuple(fitted.tolist()),
        metrics=_metrics(lesson),
        data=DataInfo(
            name=lesson.manifest.source.name,
            n_clips=len(lesson.keys),
            n_clips_per_label=tuple(lesson.manifest.multi_hot().sum(axis=0).tolist()),
            fingerprint=_data_fingerprint(lesson),
        ),
        onnx_difference=onnx_difference,
        versions={
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("spectag", "torch", "onnxruntime", "numpy")},
        },
    )


def _metrics(lesson: Lesson) -> dict[str, Any]:
    if lesson.scores is None:
        return {}
    return {**lesson.scores.to_dict(), "folds": [dataclasses.asdict(fold) for fold in lesson.folds]}


def _data_fingerprint(lesson: Lesson) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key, clip in zip(lesson.keys, lesson.manifest.clips, strict=True):
        digest.update(f"{key} {','.join(sorted(clip.labels))}\n".encode())
    return digest.hexdigest()


def _write_history(path: Path, epochs: tuple[Epoch, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Epoch)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(epoch) for epoch in epochs)
