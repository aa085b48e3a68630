"""A tagger after recalibration: what changed, and how it is written."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import logit

from spectag.config.tagging import SEGMENT_WINDOW
from spectag.data.clips import Clip
from spectag.errors import BundleError, ConfigError, MissingExtraError
from spectag.evaluation.background_thresholds import BackgroundThresholds
from spectag.evaluation.checked_thresholds import CheckedThresholds
from spectag.models.bundle import (
    CARD_FILE,
    ONNX_FILE,
    BundleInfo,
    WindowThresholds,
    check_network_file,
    clean_up_after_kills,
    read_info,
    replace_when_complete,
    write_info,
)
from spectag.models.frames_info import FRAMES_FILE
from spectag.models.model_card import render_card
from spectag.models.onnx_file import check_frames_file, check_onnx_file
from spectag.models.out_of_fold import CALIBRATION_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.scoring.bootstrap import as_json
from spectag.scoring.calibration import Calibration
from spectag.system.file_errors import reason_of
from spectag.system.regular_files import hidden_or_irregular, irregular
from spectag.system.short_texts import short_repr

ThresholdOrigin = Literal["fitted", "default", "set"]
"""fitted: to the goal. default: too few clips have the label. set: by hand, in this call."""

_LEAST_DISTANCE = 1e-4  # of a threshold from 0 and 1, before it is converted to a logit
CHECKED_FILE = "checked.csv"
"""Precision against threshold of each label, in a tagger whose thresholds come from checked detections."""


@dataclass(frozen=True)
class LabelResult:
    """The threshold of a label, and cross-fitted scores: calibration and threshold are fitted on other clips.

    NaN for scores that are not defined: no clip has the label, or it is detected in none, or all clips are of one
    recording.
    """

    label: str
    n_clips: int  # that have the label
    old_threshold: float
    threshold: float
    origin: ThresholdOrigin
    precision: float
    recall: float
    f1: float
    ece_before: float  # expected calibration error of the plain sigmoid
    ece_after: float
    misses_goal: bool  # no threshold reaches the goal with its confidence: too few recordings, or too many errors
    n_recordings: int  # with such clips: all clips of a recording count as one


@short_repr
@dataclass(frozen=True)
class Recalibration:
    """The result of `calibrate`."""

    bundle: Path
    """The tagger that was calibrated."""
    written_to: Path | None
    """The folder of the new tagger; None if nothing was written."""
    info: BundleInfo
    """Of the new tagger."""
    n_clips: int
    """Clips that calibration and thresholds were fitted on."""
    labels: tuple[LabelResult, ...]
    """Labels that can be fitted on the clips, or whose threshold was set by hand. The others have not changed."""
    skipped: tuple[tuple[Clip, str], ...]
    """Clips of the manifest that cannot be read, each with the reason."""
    old_window_thresholds: WindowThresholds | None = None
    """Of the old tagger. A precision keeps those that are higher than the new thresholds of clips."""
    is_unchanged: bool = False
    """Whether the new tagger has the probabilities and thresholds of the old one."""
    checked: CheckedThresholds | None = None
    """What the thresholds are based on, if they come from checked detections."""
    background: BackgroundThresholds | None = None
    """What the thresholds are based on, if they come from recordings without any of the labels."""

    @property
    def drops_window_thresholds(self) -> bool:
        """Whether windows had thresholds of their own, and now have those of whole clips."""
        return self.old_window_thresholds is not None and self.info.window_thresholds is None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: None instead of NaN."""
        return {
            "model": str(self.bundle),
            "written_to": None if self.written_to is None else str(self.written_to),
            "n_clips": self.n_clips,
            "goal": self.info.threshold_goal.model_dump(),
            "calibration": self.info.calibration and self.info.calibration.method,
            "metrics": self.info.metrics.get("calibration"),
            "labels": as_json(self.labels),
            "checked": None if self.checked is None else self.checked.to_dict(),
            "background": as_json(self.background),
        }


def with_thresholds(
    info: BundleInfo, manual: Mapping[str, float], of_windows: Mapping[str, float] | None = None
) -> BundleInfo:
    """With other thresholds of labels, for clips and for windows, by default the same. They do not count as fitted."""
    rows = list(zip(info.labels, info.thresholds, info.thresholds_fitted, strict=True))
    windows = info.window_thresholds
    if windows is not None:
        new, pairs = manual if of_windows is None else of_windows, zip(info.labels, windows.thresholds, strict=True)
        of_labels = tuple(new.get(label, threshold) for label, threshold in pairs)
        windows = windows.model_copy(update={"thresholds": of_labels})
    return info.model_copy(
        update={
            "window_thresholds": windows,
            "thresholds": tuple(manual.get(label, threshold) for label, threshold, _ in rows),
            "thresholds_fitted": tuple(label not in manual and is_fitted for label, _, is_fitted in rows),
            "labels_missing_goal": tuple(label for label in info.labels_missing_goal if label not in manual),
        }
    )


def check_destination(bundle: Path, output: Path | None, *, in_place: bool) -> None:
    """Raise an error if a changed tagger cannot be written there, and remove what a killed process left behind."""
    if in_place or output is not None:
        clean_up_after_kills(bundle.resolve() if output is None else output)
    if output is not None and in_place:
        raise ConfigError("give either output, a folder for the new tagger, or in_place, to replace the old one")
    if output is not None and output.exists():
        raise BundleError(f"{output}: already exists; choose another folder, or change {bundle} itself with --in-place")


def write_recalibrated(
    bundle: Path,
    output: Path | None,
    info: BundleInfo,
    *,
    new_curves: bool = False,
    new_clips: bool = False,
    clips: OutOfFoldPredictions | None = None,
    checked: str | None = None,
) -> None:
    """Write the changed tagger to its own folder or to another, completely or not at all.

    The clips of a manifest are stored, so that they can be cross-fitted later; those of an earlier one are deleted. So
    is an earlier table of checked detections, unless `checked` is the content of a new one. With a new calibration, the
    logits of frames are shifted so that those at the old threshold of windows get the probability that windows get.
    """
    bundle = bundle.resolve()
    destination = bundle if output is None else output
    network = frames = None
    if new_curves and info.frames is not None:
        frames = _shifted_frames(bundle, read_info(bundle), info.calibration)
    if new_curves and not info.members:  # the calibration of an ensemble is not in its networks
        check_network_file(bundle, info, ONNX_FILE)
        check_onnx_file(bundle / ONNX_FILE)
        network = _calibrated_network(bundle / ONNX_FILE, info.calibration)
    try:
        with replace_when_complete(destination) as folder:
            ignored = irregular if output is None else hidden_or_irregular
            shutil.copytree(bundle, folder, ignore=ignored, dirs_exist_ok=True)
            if network is not None:
                (folder / ONNX_FILE).write_bytes(network)
            if frames is not None:
                (folder / FRAMES_FILE).write_bytes(frames)
            if clips is not None:
                write_out_of_fold(folder / CALIBRATION_FILE, clips)
            elif new_clips:
                (folder / CALIBRATION_FILE).unlink(missing_ok=True)
            (folder / CHECKED_FILE).unlink(missing_ok=True)
            if checked is not None:
                (folder / CHECKED_FILE).write_text(checked, encoding="utf-8")
            write_info(folder, info)
            (folder / CARD_FILE).write_text(render_card(info, destination.name), encoding="utf-8")
    except OSError as error:
        raise BundleError(f"{output or bundle}: cannot write the tagger: {reason_of(error)}") from error


def _calibrated_network(path: Path, calibration: Calibration | None) -> bytes:
    """A model.onnx with another calibration."""
    model = _load_network(path)
    from spectag.models.onnx_calibration import with_calibration

    return bytes(with_calibration(model, calibration).SerializeToString())


def _shifted_frames(bundle: Path, before: BundleInfo, calibration: Calibration | None) -> bytes:
    """A frames.onnx for another calibration of windows."""
    check_network_file(bundle, before, FRAMES_FILE)
    check_frames_file(bundle / FRAMES_FILE)
    model = _load_network(bundle / FRAMES_FILE)
    from spectag.models.onnx_calibration import with_shifted_frames

    thresholds = np.clip(before.thresholds_for(SEGMENT_WINDOW.window_seconds), _LEAST_DISTANCE, 1 - _LEAST_DISTANCE)
    logits = logit(thresholds)
    raw = logits if before.calibration is None else before.calibration.raw_logits(logits)
    new = raw if calibration is None else calibration.calibrated_logits(raw)
    return bytes(with_shifted_frames(model, new - logits).SerializeToString())


def _load_network(path: Path) -> Any:
    """The onnx.ModelProto in a file."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "train", "calibrating a tagger") from error
    try:
        return onnx.load(path)
    except Exception as error:  # from protobuf; onnx does not document its exceptions
        raise BundleError(f"{path}: cannot be read: {error}") from error
