"""The files of a tagger (bundle): a folder that is complete in itself. No pickle is ever loaded from it.

spectag.json          everything except weights: labels, feature extraction, thresholds, metrics, licences, versions
model.onnx            input (batch, channels, height, width); probabilities and logits (batch, n_labels), features,
                      and novelty (batch,) if `novelty` in spectag.json says so
frames.onnx           input (1, 1, n_mels, n); probabilities (1, n / 8, n_labels) of frames of 80 ms, if `frames` in
                      spectag.json says so
weights.safetensors   the same weights for PyTorch
predictions.csv       the training clips with their out-of-fold predictions
calibration.csv       the clips of another manifest, if calibration and thresholds were fitted on one
recipe.toml           the settings of the training, for `spectag train --config`
README.md             the model card

An ensemble has a model.onnx and weights in each of the folders members/1, members/2, ...
"""

import glob
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Self

from filelock import FileLock, Timeout
from pydantic import BeforeValidator, Field, model_validator

from spectag.audio.front_end import FrontEnd
from spectag.config.base import MAX_SECONDS, Config, WindowConfig
from spectag.data.labels import LabelSet
from spectag.errors import BundleError
from spectag.models.clip_windows import ClipWindows
from spectag.models.frames_info import FramesInfo
from spectag.models.limits import MAX_CLIPS, MAX_LABELS, MAX_MEMBERS, Quantity, check_input_size
from spectag.models.novelty import NoveltyInfo
from spectag.models.training_sounds import TrainingSounds
from spectag.models.versioned_json import read_versioned_json, write_versioned_json
from spectag.scoring.calibration import Calibration, CalibrationMethod
from spectag.scoring.thresholds import ThresholdGoal
from spectag.system.atomic_files import sha256_of
from spectag.system.output import one_line, unicode_text
from spectag.system.regular_files import check_regular_file

FORMAT_VERSION = 2
INFO_FILE, ONNX_FILE, WEIGHTS_FILE = "spectag.json", "model.onnx", "weights.safetensors"
RECIPE_FILE, CARD_FILE = "recipe.toml", "README.md"
MEMBERS_FOLDER = "members"
MAX_NETWORK_BYTES = 4_000_000_000
"""Of a network or its weights."""
_HASHED_SUFFIXES = (".onnx", ".data", ".safetensors")  # model.onnx.data has weights that do not fit into model.onnx
_SHORTEST_CLIP_SECONDS = 0.1  # a stranger's spectag.json may say anything
_NUMBER = "[0-9a-f]" * 8  # of an unfinished folder, as a pattern; .model-* would also be that of a bundle model-2


class BackboneInfo(Config):
    """The network, and how its features were trained."""

    name: str
    features: str
    head: str
    pretrained_on: str
    licence: str
    weights_sha256: str
    clip_windows: ClipWindows | None = None
    """Windows whose maximum is in the logits of a clip; model.onnx makes them of its input. None: whole clips."""


def _storable(name: object) -> object:
    """The name of a file without what spectag.json cannot contain: bytes that are not UTF-8, control characters."""
    return one_line(unicode_text(name)) if isinstance(name, str) else name


class DataInfo(Config):
    """The training data. Only the name is known for published taggers."""

    name: Annotated[str, BeforeValidator(_storable)]
    n_clips: int | None = Field(ge=0, le=MAX_CLIPS)
    n_clips_per_label: tuple[Annotated[int, Field(ge=0, le=MAX_CLIPS)], ...] | None
    fingerprint: str | None
    """Of the content and labels of all clips, in their order."""


class ExtensionInfo(Config):
    """The labels of a published model that a trained one has as well: the last of its labels."""

    model: str
    """Its name, such as audioset-mn04."""
    n_labels: int = Field(ge=1, le=MAX_LABELS)
    data: str
    """What it was trained on."""
    source: str
    """What to cite."""


class MemberInfo(Config):
    """A network of an ensemble."""

    folder: str = Field(pattern=rf"^{MEMBERS_FOLDER}/[1-9][0-9]*$")
    weight: Quantity
    """Of its logits in the weighted sum."""
    front_end: FrontEnd
    backbone: BackboneInfo


class WindowThresholds(Config):
    """Thresholds for windows that are shorter than the training clips."""

    below_seconds: float = Field(gt=0, le=MAX_SECONDS)
    """For windows shorter than this."""
    thresholds: tuple[Quantity, ...]


class BundleInfo(Config):
    """The content of spectag.json."""

    format_version: int = Field(FORMAT_VERSION, ge=0, le=1_000)
    labels: tuple[str, ...] = Field(max_length=MAX_LABELS)
    front_end: FrontEnd
    """Feature extraction. Of an ensemble, that of the first member; the same applies to the backbone."""
    window: WindowConfig = WindowConfig()
    backbone: BackboneInfo
    members: tuple[MemberInfo, ...] = Field((), max_length=MAX_MEMBERS)
    """The networks of an ensemble."""
    bias: Quantity = 0.0
    """Added to the weighted sum of the members' logits."""
    thresholds: tuple[Quantity, ...]
    """For each label, the probability from which it is reported."""
    thresholds_fitted: tuple[bool, ...]
    """Whether the threshold of a label is fitted on out-of-fold predictions, and not a default or set by hand."""
    window_thresholds: WindowThresholds | None = None
    """Fitted to the best F1 on windows, and raised to those of clips for a precision; None: those of clips hold."""
    threshold_goal: ThresholdGoal = ThresholdGoal()
    """The goal of the fitted thresholds."""
    labels_missing_goal: tuple[str, ...] = ()
    """Labels whose fitted threshold does not reach the precision or recall of the goal with its confidence."""
    calibration: Calibration | None = None
    """From logits to probabilities; None: the plain sigmoid. The model.onnx of a single network contains it."""
    calibration_method: CalibrationMethod = "none"
    """The method of fitting, so that it can be repeated without the fold of a clip."""
    novelty: NoveltyInfo | None = None
    """None if no network computes it, for example if all are fine-tuned or published."""
    frames: FramesInfo | None = None
    """How frames.onnx gives segments; None: there is no such network, and segments are found from windows."""
    training_sounds: TrainingSounds | None = None
    """Level, bandwidth and duration of the training clips; None for images and published taggers."""
    metrics: dict[str, Any]
    """Scores on held-out clips; empty if no clips were held out."""
    data: DataInfo
    parents: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """All labels above a label, if it was trained with a hierarchy: a clip with the label also has these."""
    extends: ExtensionInfo | None = None
    """The published model whose labels come last; its labels have no training clips, scores and predictions here."""
    onnx_difference: Quantity | None
    """Greatest difference in probability between model.onnx and training, on training clips.

    None for a published tagger, which is built without PyTorch.
    """
    versions: dict[str, str]
    sha256: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file with a network or its weights, by its path in the folder. `write_info` computes them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        n_clips = self.own_labels if self.data.n_clips_per_label is None else self.data.n_clips_per_label
        n_published = 0 if self.extends is None else self.extends.n_labels
        if n_published >= len(self.labels) > 0:
            raise ValueError(f"extends: {n_published} of {len(self.labels)} labels are published; expected fewer")
        lengths = len(self.thresholds), len(self.thresholds_fitted), len(n_clips) + n_published
        if self.window_thresholds is not None and len(self.window_thresholds.thresholds) != len(self.labels):
            n_thresholds = len(self.window_thresholds.thresholds)
            raise ValueError(f"need a threshold of windows for each of {len(self.labels)} labels, got {n_thresholds}")
        if not self.labels or len(set(self.labels)) < len(self.labels) or set(lengths) != {len(self.labels)}:
            raise ValueError(
                "need unique labels, each with a threshold and a number of clips, got "
                f"{len(self.labels)} labels ({len(set(self.labels))} different), {lengths[0]} thresholds, "
                f"{lengths[1]} thresholds_fitted and {lengths[2]} numbers of clips"
            )
        return self

    @model_validator(mode="after")
    def _check_parents(self) -> Self:
        named = {*self.parents, *(parent for parents in self.parents.values() for parent in parents)}
        if unknown := named.difference(self.labels):
            raise ValueError(f"parents: {min(unknown)!r} is not one of the labels")
        return self

    @model_validator(mode="after")
    def _check_input_sizes(self) -> Self:
        for front_end in (self.front_end, *(member.front_end for member in self.members)):
            check_input_size(front_end, self.window)
        return self

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if not self.members:
            if self.bias:
                raise ValueError(f"only an ensemble may have a bias, got {self.bias:g} without members")
            return self
        n_folders = len({member.folder for member in self.members})
        if not 2 <= n_folders == len(self.members):
            raise ValueError(f"need two or more members in different folders, got {len(self.members)} in {n_folders}")
        first = self.members[0]
        if (self.front_end, self.backbone) != (first.front_end, first.backbone):
            raise ValueError("front_end and backbone must be those of the first member")
        channels = {member.front_end.channel for member in self.members}
        if len(channels) > 1:
            raise ValueError(f"all members need the same channel of the sounds, got {sorted(map(str, channels))}")
        return self

    @model_validator(mode="after")
    def _check_frames(self) -> Self:
        if self.frames is not None and self.front_end.n_frames_in(1.0) is None:
            raise ValueError("frames: need a front_end with log_mels of any length, not with images or waveforms")
        return self

    @model_validator(mode="after")
    def _check_novelty(self) -> Self:
        n_networks = max(1, len(self.members))
        if self.novelty is not None and self.novelty.network >= n_networks:
            raise ValueError(f"novelty.network must be below {n_networks}, got {self.novelty.network}")
        return self

    @property
    def own_labels(self) -> tuple[str, ...]:
        """The labels of the training clips, without those of the published model that it extends."""
        return self.labels if self.extends is None else self.labels[: -self.extends.n_labels]

    @property
    def clip_seconds(self) -> float:
        """The length of the training clips, of which 5 % are longer; if unknown, the longest part of a clip."""
        if self.training_sounds is None:
            return self.window.max_clip_seconds
        return min(max(self.training_sounds.duration_seconds.high, _SHORTEST_CLIP_SECONDS), MAX_SECONDS)

    def thresholds_for(self, window_seconds: float | None) -> tuple[float, ...]:
        """The threshold of each label for windows of this length; None: for whole clips."""
        of_windows = self.window_thresholds
        if window_seconds is None or of_windows is None or window_seconds >= of_windows.below_seconds:
            return self.thresholds
        return of_windows.thresholds

    @property
    def label_set(self) -> LabelSet:
        """The labels, in the order of the probabilities."""
        return LabelSet(self.labels)


@contextmanager
def replace_when_complete(bundle: Path) -> Iterator[Path]:
    """A new folder that replaces a bundle's folder if the `with` block succeeds, and is removed otherwise.

    Raises
    ------
    OSError
        If the folder cannot be created, or the old one cannot be replaced. The old one stays in this case.
    """
    bundle.parent.mkdir(parents=True, exist_ok=True)
    clean_up_after_kills(bundle)
    folder = bundle.with_name(f".{bundle.name}-{uuid.uuid4().hex[:8]}")
    old, lock = _replaced(folder), folder.with_name(f"{folder.name}-lock")
    with FileLock(lock):  # before the folder exists, so that other processes see that it is in use
        try:
            folder.mkdir()
            yield folder
            if bundle.exists():
                bundle.rename(old)
            folder.rename(bundle)
        finally:
            _remove_unfinished(bundle, folder)
            _unlink(lock)


def clean_up_after_kills(bundle: Path) -> None:
    """Remove what killed runs left beside a bundle. A bundle that one of them was about to replace gets its name back.

    Folders of running processes stay: these hold a lock.
    """
    for lock in bundle.parent.glob(f".{glob.escape(bundle.name)}-{_NUMBER}-lock"):
        with suppress(Timeout, PermissionError), FileLock(lock, timeout=0):
            _remove_unfinished(bundle, lock.with_name(lock.name.removesuffix("-lock")))
            _unlink(lock)


def _unlink(lock: Path) -> None:
    with suppress(PermissionError):  # on Windows, a locked file cannot be deleted; FileLock does it afterwards
        lock.unlink(missing_ok=True)


def _remove_unfinished(bundle: Path, folder: Path) -> None:
    """Remove an unfinished folder, and the old bundle, which gets its name back if there is no new one."""
    old = _replaced(folder)
    if old.exists() and not bundle.exists():
        old.rename(bundle)  # stopped between the two steps
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-replaced")


def read_info(bundle: str | Path) -> BundleInfo:
    """Read the spectag.json of a bundle.

    Raises
    ------
    BundleError
        If there is no bundle, it has another format version, or it is damaged.
    """
    return read_versioned_json(
        Path(bundle) / INFO_FILE,
        BundleInfo,
        version=FORMAT_VERSION,
        missing=f"{bundle}: not a tagger: no file {INFO_FILE}; expected a folder that `spectag train -o` wrote",
        outdated="train the tagger again with this version",
        upgrades={1: f"run spectag upgrade {bundle} --in-place, or train the tagger again with this version"},
        error_type=BundleError,
    )


def check_network_file(bundle: Path, info: BundleInfo, name: str) -> None:
    """Compare the SHA-256 of a file, such as model.onnx, with spectag.json. Older bundles do not contain it.

    Raises
    ------
    BundleError
        If the file is missing, not a regular file, or another one than that with which the bundle was written.
    """
    path, expected = bundle / name, info.sha256.get(name)
    try:
        check_regular_file(path, max_bytes=MAX_NETWORK_BYTES)
        found = sha256_of(path) if expected is not None else None
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read: {error.strerror or error}; copy the complete model again"
        ) from error
    if found != expected:
        raise BundleError(
            f"{path}: not the file that belongs to this model: SHA-256 is {found}, but {INFO_FILE} says {expected}; "
            f"copy the complete model again. If you replaced the file yourself, delete sha256 in {INFO_FILE}"
        )


def _network_files(bundle: Path) -> Iterator[Path]:
    for folder in (bundle, *bundle.glob(f"{MEMBERS_FOLDER}/*")):
        yield from (path for path in folder.glob("*") if path.suffix in _HASHED_SUFFIXES and path.is_file())


def write_info(bundle: Path, info: BundleInfo) -> None:
    """Write spectag.json into the folder of a bundle, with the SHA-256 of the network files that are there now.

    Raises
    ------
    BundleError
        If it would be too large to be read again.
    """
    files = {path.relative_to(bundle).as_posix(): path for path in _network_files(bundle) if path.name[0] != "."}
    info = info.model_copy(update={"sha256": {name: sha256_of(path) for name, path in sorted(files.items())}})
    try:
        unused = {name for name in ("parents", "extends", "frames") if not getattr(info, name)}
        unused |= set() if info.members else {"members", "bias"}
        write_versioned_json(bundle / INFO_FILE, info, exclude=unused)
    except ValueError as error:
        raise BundleError(
            f"{bundle / INFO_FILE}: cannot be written: {error}; train with fewer labels, or with --calibration platt"
        ) from error
