"""A tagger on disk: a folder that needs nothing else. No pickle is ever loaded from it.

spectag.json          everything that is not a weight: labels, front end, thresholds, metrics, licences, versions
model.onnx            input (batch, channels, height, width) to probabilities and logits (batch, n_labels) and features
weights.safetensors   the same weights for torch
predictions.csv       the training clips, and what networks said of them that were trained without them
calibration.csv       the clips of another manifest, where calibration and thresholds were fitted on such
recipe.toml           the settings that made it, for `spectag train --config`
README.md             the model card

A tagger of several networks, which answer as one, has a model.onnx and its weights in each of members/1, members/2, ...
"""

import json
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from spectag.audio.front_end import FrontEnd
from spectag.config.base import Config, WindowConfig
from spectag.data.labels import LabelSet
from spectag.errors import BundleError
from spectag.scoring.calibration import Calibration, Method
from spectag.scoring.thresholds import ThresholdGoal

FORMAT_VERSION = 1
INFO_FILE, ONNX_FILE, WEIGHTS_FILE = "spectag.json", "model.onnx", "weights.safetensors"
RECIPE_FILE, CARD_FILE = "recipe.toml", "README.md"
MEMBERS_FOLDER = "members"


class BackboneInfo(Config):
    """Which network, and how its features are made."""

    name: str
    features: str
    head: str
    pretrained_on: str
    licence: str
    weights_sha256: str


class DataInfo(Config):
    """What the tagger was trained on. Of a tagger that others published, only the name is known."""

    name: str
    n_clips: int | None
    n_clips_per_label: tuple[int, ...] | None
    fingerprint: str | None
    """Of all clips' contents and labels, in their order."""


class MemberInfo(Config):
    """A network of several that answer as one, and what it hears."""

    folder: str = Field(pattern=rf"^{MEMBERS_FOLDER}/[1-9][0-9]*$")
    weight: float
    """Of its logits in the sum."""
    front_end: FrontEnd
    backbone: BackboneInfo


class BundleInfo(Config):
    """All that a bundle says of itself in spectag.json."""

    format_version: int = FORMAT_VERSION
    labels: tuple[str, ...]
    front_end: FrontEnd
    """Of several members, the first one's; so too the backbone."""
    window: WindowConfig = WindowConfig()
    backbone: BackboneInfo
    members: tuple[MemberInfo, ...] = ()
    """The networks, where there are several."""
    bias: float = 0.0
    """Added to the weighted sum of the members' logits."""
    thresholds: tuple[float, ...]
    """Label by label: the probability from which a label counts as heard."""
    thresholds_fitted: tuple[bool, ...]
    """Whether a label's threshold comes from held-out predictions, or is the plain default or set by hand."""
    threshold_goal: ThresholdGoal = ThresholdGoal()
    """What the fitted thresholds are to reach."""
    calibration: Calibration | None = None
    """From logits to probabilities; none: by the plain sigmoid. A single network's model.onnx has it inside."""
    calibration_method: Method = "none"
    """By which the calibration was sought, so that it can be sought without a clip's own fold."""
    metrics: dict[str, Any]
    """Scores on held-out clips; empty where none were held out."""
    data: DataInfo
    onnx_difference: float | None
    """Greatest difference in probability between model.onnx and torch, on clips of the training data.

    None of a tagger that others published, for torch had no part in its making.
    """
    versions: dict[str, str]

    @model_validator(mode="after")
    def _check(self) -> Self:
        counts = self.labels if self.data.n_clips_per_label is None else self.data.n_clips_per_label
        lengths = len(self.thresholds), len(self.thresholds_fitted), len(counts)
        if not self.labels or len(set(self.labels)) < len(self.labels) or set(lengths) != {len(self.labels)}:
            raise ValueError(
                f"need labels, each once, with a threshold and a number of clips each, got {len(self.labels)} labels "
                f"({len(set(self.labels))} different), {lengths[0]} thresholds ({lengths[1]} told whether fitted) and "
                f"{lengths[2]} numbers of clips"
            )
        return self

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if not self.members:
            if self.bias:
                raise ValueError(f"a bias of {self.bias:g} belongs to several members, and there are none")
            return self
        n_folders = len({member.folder for member in self.members})
        if not 2 <= n_folders == len(self.members):
            raise ValueError(
                f"need two members or more, each in a folder of its own, got {len(self.members)} in {n_folders}"
            )
        first = self.members[0]
        if (self.front_end, self.backbone) != (first.front_end, first.backbone):
            raise ValueError("front_end and backbone are not those of the first member")
        return self

    @property
    def label_set(self) -> LabelSet:
        """The labels in the order of the probabilities."""
        return LabelSet(self.labels)


def read_info(bundle: str | Path) -> BundleInfo:
    """Read a bundle's spectag.json.

    Raises
    ------
    BundleError
        If there is no bundle, or it was written by a later version, or is damaged.
    """
    path = Path(bundle) / INFO_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{bundle}: not a tagger: it has no {INFO_FILE}; expected a folder that `spectag train -o` made"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: can't be read: {error}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format version {version!r}, but this spectag reads version {FORMAT_VERSION}; "
            "update spectag, or train the tagger again"
        )
    try:
        return BundleInfo.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = f" at {'.'.join(map(str, problem['loc']))}" if problem["loc"] else ""
        raise BundleError(f"{path}: damaged{where}: {problem['msg'].removeprefix('Value error, ')}") from error


def write_info(bundle: Path, info: BundleInfo) -> None:
    """Write spectag.json into a bundle's folder."""
    of_several = {"members", "bias"} if not info.members else set()
    text = json.dumps(info.model_dump(mode="json", exclude=of_several), indent=2, ensure_ascii=False)
    (bundle / INFO_FILE).write_text(text + "\n", encoding="utf-8")
