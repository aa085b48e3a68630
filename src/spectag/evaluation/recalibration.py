"""Recalibration: fit the calibration and thresholds of a trained tagger again, or set thresholds by hand."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from spectag.array_types import BoolArray, FloatArray
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import as_manifest
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import BundleError, ConfigError, MissingExtraError, did_you_mean
from spectag.evaluation.calibration_clips import CalibrationClips, predict_manifest_clips, read_stored_clips
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
from spectag.models.model_card import render_card
from spectag.models.onnx_file import check_onnx_file
from spectag.models.out_of_fold import CALIBRATION_FILE, write_out_of_fold
from spectag.scoring.bootstrap import Resampling, as_json
from spectag.scoring.calibration import DEFAULT_THRESHOLD, Calibration, CalibrationMethod, CrossFitted, fit_calibration
from spectag.scoring.calibration_curves import linear_curve
from spectag.scoring.reliability_diagram import calibration_errors, calibration_metrics
from spectag.scoring.scores import score_predictions
from spectag.scoring.thresholds import ThresholdGoal, fill_thresholds, fit_to_goal
from spectag.system.file_errors import reason_of
from spectag.system.output import one_line, unicode_text
from spectag.system.progress import Log, Progress, no_log, silent

ThresholdOrigin = Literal["fitted", "default", "set"]
"""fitted: to the goal. default: too few clips have the label. set: by hand, in this call."""

_SCORES = ("precision", "recall", "f1", "ece_before", "ece_after")


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
        }


def calibrate(
    bundle: str | Path,
    *,
    goal: ThresholdGoal | None = None,
    method: CalibrationMethod | None = None,
    thresholds: Mapping[str, float] | None = None,
    manifest: str | Path | Manifest | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
    output: str | Path | None = None,
    in_place: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Recalibration:
    """Fit the calibration and thresholds of a tagger on clips it was not trained on, or set thresholds by hand.

    The clips are the training clips, with the out-of-fold predictions that are stored with the tagger, or those of a
    manifest. Without `output` and `in_place`, nothing is written.

    Parameters
    ----------
    bundle : str or Path
        Folder of the tagger.
    goal : ThresholdGoal, optional
        The goal of the thresholds. By default the previous goal.
    method : str, optional
        Of the calibration, as for `fit_calibration`. By default auto; but the calibration does not change if a goal is
        given and no manifest.
    thresholds : mapping of label to threshold, optional
        Thresholds to set by hand. If nothing else is given, nothing else changes.
    manifest : path or Manifest, optional
        Clips to fit on instead of the stored ones. Training clips without out-of-fold predictions are ignored. Labels
        with fewer than three clips do not change.
    audio_dir, group_column, corrections
        As in `read_manifest`.
    output : str or Path, optional
        Where to write the new tagger.
    in_place : bool
        Whether the new tagger replaces the old one.
    workers, progress, log
        As for `predict_out_of_fold`, which tags the clips of a manifest.

    Returns
    -------
    Recalibration

    Raises
    ------
    BundleError
        If the tagger does not exist, it stores no clips and there is no manifest, or the new tagger cannot be written.
    ConfigError
        If a threshold is for an unknown label, or not from 0 to 1, or both `output` and `in_place` are given.
    DataError
        If none of the manifest's clips can be used.
    MissingExtraError
        If the calibration changes, and the package onnx, which writes it into model.onnx, is not installed.
    """
    bundle, output = Path(bundle), None if output is None else Path(output)
    if in_place or output is not None:
        clean_up_after_kills(bundle.resolve() if output is None else output)
    before = read_info(bundle)
    manual_thresholds = _check_thresholds(thresholds or {}, before)
    if output is not None and in_place:
        raise ConfigError("give either output, a folder for the new tagger, or in_place, to replace the old one")
    if output is not None and output.exists():
        raise BundleError(f"{output}: already exists; choose another folder, or change {bundle} itself with --in-place")
    if manifest is None:
        clips, on = read_stored_clips(bundle, len(before.labels)), None
    else:
        manifest = as_manifest(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
        clips = predict_manifest_clips(bundle, manifest, workers, progress, log)
        on = one_line(unicode_text(manifest.source.name))
    refits_calibration = method is not None or manifest is not None or (goal is None and not manual_thresholds)
    new_method = (method or "auto") if refits_calibration else before.calibration_method
    new_goal = goal or before.threshold_goal
    refits_thresholds = refits_calibration or goal is not None
    if refits_thresholds and not clips.labels.any():
        raise BundleError(
            f"{bundle}: the tagger has no out-of-fold predictions; give a manifest of clips that it was not "
            f"trained on: spectag calibrate {bundle} MANIFEST"
        )
    calibration = _fit_calibration(clips, new_method, before) if refits_calibration else before.calibration
    cross_fitted = clips.cross_fitted(new_method, new_goal)
    info = before
    if refits_thresholds:
        changes = {
            "threshold_goal": new_goal,
            "calibration": calibration,
            "calibration_method": new_method,
            "metrics": _metrics(before, clips, cross_fitted, on=on),
        }
        info = before.model_copy(update=changes | _fitted_thresholds(before, clips, calibration, new_goal))
    info = _with_manual_thresholds(info, manual_thresholds)
    if in_place or output is not None:
        new_curves = info.calibration != before.calibration
        _write(bundle, output, info, clips, new_curves=new_curves, new_clips=refits_calibration)
    results = _label_results(before, info, clips, cross_fitted, manual_thresholds.keys())
    written_to = bundle if in_place else output
    old_windows = before.window_thresholds
    return Recalibration(bundle, written_to, info, len(clips.logits), results, clips.skipped, old_windows)


def _check_thresholds(thresholds: Mapping[str, float], info: BundleInfo) -> dict[str, float]:
    for label, threshold in thresholds.items():
        if label not in info.labels:
            raise ConfigError(
                f"the tagger has no label {label!r}{did_you_mean(label, info.labels) or '.'} "
                f"Its labels are {abbreviate(list(info.labels))}"
            )
        if not 0 <= threshold <= 1:
            raise ConfigError(f"the threshold of {label} must be a probability, from 0 to 1; got {threshold:g}")
    return dict(thresholds)


def _fit_calibration(clips: CalibrationClips, method: CalibrationMethod, before: BundleInfo) -> Calibration | None:
    """The calibration fitted on the clips. Labels that cannot be fitted on them keep their curves."""
    fitted = fit_calibration(clips.logits, clips.y_true, method=method, folds=clips.fold_indices)
    if clips.labels.all():
        return fitted
    identity = linear_curve(1.0, 0.0)
    curves = [identity] * len(before.labels) if before.calibration is None else list(before.calibration.curves)
    for column, label in enumerate(np.flatnonzero(clips.labels)):
        curves[label] = identity if fitted is None else fitted.curves[column]
    if all(curve == identity for curve in curves):
        return None
    return Calibration(method=fitted.method if fitted else "platt", curves=tuple(curves))


def _fitted_thresholds(
    before: BundleInfo, clips: CalibrationClips, calibration: Calibration | None, goal: ThresholdGoal
) -> dict[str, Any]:
    """The thresholds after fitting on the clips, and what is known of them; a default for labels with too few clips."""
    fitted = fit_to_goal(clips.y_true, clips.calibrated(calibration), goal, groups=clips.groups)
    thresholds, is_fitted = np.array(before.thresholds), np.array(before.thresholds_fitted)
    # a published tagger has its own default, for probabilities that are not calibrated
    keeps_default = ~is_fitted & (calibration is None)
    defaults = np.where(keeps_default, thresholds, DEFAULT_THRESHOLD)[clips.labels]
    thresholds[clips.labels] = fill_thresholds(fitted.thresholds, defaults)
    is_fitted[clips.labels] = ~np.isnan(fitted.thresholds)
    misses_goal = np.isin(before.labels, before.labels_missing_goal)
    misses_goal[clips.labels] = is_fitted[clips.labels] & ~fitted.reaches_goal
    return {
        "window_thresholds": _window_thresholds(before, thresholds, clips.labels, calibration, goal),
        "thresholds": tuple(thresholds.tolist()),
        "thresholds_fitted": tuple(is_fitted.tolist()),
        "labels_missing_goal": tuple(compress(before.labels, misses_goal)),
    }


def _window_thresholds(
    before: BundleInfo,
    thresholds: FloatArray,
    is_new: BoolArray,
    calibration: Calibration | None,
    goal: ThresholdGoal,
) -> WindowThresholds | None:
    """For a precision, the former ones, or the new thresholds of clips (n_labels,) where these are higher.

    None otherwise: they are for the former calibration and goal.
    """
    windows = before.window_thresholds
    if windows is None or goal.kind != "precision" or calibration != before.calibration:
        return None
    higher = np.where(is_new, np.maximum(windows.thresholds, thresholds), windows.thresholds)
    return windows.model_copy(update={"thresholds": tuple(higher.tolist())})


def _with_manual_thresholds(info: BundleInfo, manual: Mapping[str, float]) -> BundleInfo:
    rows = list(zip(info.labels, info.thresholds, info.thresholds_fitted, strict=True))
    windows = info.window_thresholds
    if windows is not None:
        pairs = zip(info.labels, windows.thresholds, strict=True)
        of_labels = tuple(manual.get(label, threshold) for label, threshold in pairs)
        windows = windows.model_copy(update={"thresholds": of_labels})
    return info.model_copy(
        update={
            "window_thresholds": windows,
            "thresholds": tuple(manual.get(label, threshold) for label, threshold, _ in rows),
            "thresholds_fitted": tuple(label not in manual and is_fitted for label, _, is_fitted in rows),
            "labels_missing_goal": tuple(label for label in info.labels_missing_goal if label not in manual),
        }
    )


def _metrics(
    before: BundleInfo, clips: CalibrationClips, cross_fitted: CrossFitted | None, on: str | None
) -> dict[str, Any]:
    """The metrics of the tagger after calibration; `on` is the name of the manifest, if there is one."""
    if cross_fitted is None:
        return {name: value for name, value in before.metrics.items() if name != "calibration"}
    calibration = calibration_metrics(clips.y_true, expit(clips.logits), cross_fitted.probabilities)
    if on is not None:
        return {**before.metrics, "calibration": {**calibration, "on": on}}
    scores = score_predictions(
        clips.y_true, cross_fitted.probabilities, clips.groups, thresholds=cross_fitted.thresholds
    )
    return {**before.metrics, **scores.to_dict(), "calibration": calibration}


def _label_results(
    before: BundleInfo,
    info: BundleInfo,
    clips: CalibrationClips,
    cross_fitted: CrossFitted | None,
    manual: Collection[str],
) -> tuple[LabelResult, ...]:
    """The threshold of each label that changed, and its cross-fitted scores if there are clips to compute them."""
    is_fitted, thresholds = np.array(info.thresholds_fitted), np.array(info.thresholds)
    n_clips, n_recordings = np.zeros((2, len(is_fitted)), np.int64)
    scores = np.full((len(_SCORES), len(is_fitted)), np.nan)
    labels = clips.labels
    if labels.any():
        n_clips[labels] = (clips.y_true == 1).sum(axis=0)
        groups = np.array(clips.groups)
        n_recordings[labels] = [len(set(groups[rows])) for rows in (clips.y_true == 1).T]
        if cross_fitted is not None:
            cross_fitted = cross_fitted.with_fixed_thresholds(thresholds[labels], is_fitted[labels])
            scores[:, labels] = [
                *_label_scores(clips, cross_fitted.probabilities, cross_fitted.thresholds, _SCORES[:3]),
                calibration_errors(clips.y_true, expit(clips.logits)),
                calibration_errors(clips.y_true, cross_fitted.probabilities),
            ]
    return tuple(
        LabelResult(
            label=label,
            n_clips=int(n_clips[index]),
            old_threshold=before.thresholds[index],
            threshold=info.thresholds[index],
            origin="set" if label in manual else "fitted" if is_fitted[index] else "default",
            misses_goal=label in info.labels_missing_goal,
            n_recordings=int(n_recordings[index]),
            **dict(zip(_SCORES, scores[:, index].tolist(), strict=True)),
        )
        for index, label in enumerate(info.labels)
        if label in manual or labels[index]
    )


def _label_scores(
    clips: CalibrationClips, probabilities: FloatArray, thresholds: FloatArray, metrics: Sequence[str]
) -> list[list[float]]:
    """These scores of each label, without intervals, (n_metrics, n_labels)."""
    scores = score_predictions(
        clips.y_true, probabilities, clips.groups, thresholds=thresholds, resampling=Resampling(n_resamples=0)
    )
    return [[estimate.value for estimate in scores.per_label[metric]] for metric in metrics]


def _write(
    bundle: Path, output: Path | None, info: BundleInfo, clips: CalibrationClips, *, new_curves: bool, new_clips: bool
) -> None:
    """Write the changed tagger to its own folder or to another, completely or not at all.

    The clips of a manifest are stored, so that they can be cross-fitted later; those of an earlier one are deleted.
    """
    bundle = bundle.resolve()
    destination = bundle if output is None else output
    network = None
    if new_curves and not info.members:  # the calibration of an ensemble is not in its networks
        check_network_file(bundle, info, ONNX_FILE)
        check_onnx_file(bundle / ONNX_FILE)
        network = _calibrated_network(bundle / ONNX_FILE, info.calibration)
    try:
        with replace_when_complete(destination) as folder:
            is_ignored = _is_irregular if output is None else _is_irregular_or_hidden
            shutil.copytree(bundle, folder, ignore=is_ignored, dirs_exist_ok=True)
            if network is not None:
                (folder / ONNX_FILE).write_bytes(network)
            if clips.manifest_predictions is not None:
                write_out_of_fold(folder / CALIBRATION_FILE, clips.manifest_predictions)
            elif new_clips:
                (folder / CALIBRATION_FILE).unlink(missing_ok=True)
            write_info(folder, info)
            (folder / CARD_FILE).write_text(render_card(info, destination.name), encoding="utf-8")
    except OSError as error:
        raise BundleError(f"{output or bundle}: cannot write the tagger: {reason_of(error)}") from error


def _is_irregular(folder: str, names: list[str]) -> set[str]:
    """The pipes and devices among the files of a folder, whose copy would never end."""
    return {name for name in names if not ((path := Path(folder, name)).is_file() or path.is_dir())}


def _is_irregular_or_hidden(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name.startswith(".")} | _is_irregular(folder, names)


def _calibrated_network(path: Path, calibration: Calibration | None) -> bytes:
    """A model.onnx with another calibration."""
    try:
        import onnx

        from spectag.models.onnx_calibration import with_calibration
    except ImportError as error:
        raise MissingExtraError("onnx", "train", "calibrating a tagger") from error
    try:
        model = onnx.load(path)
    except Exception as error:  # from protobuf; onnx does not document its exceptions
        raise BundleError(f"{path}: cannot be read: {error}") from error
    return bytes(with_calibration(model, calibration).SerializeToString())
