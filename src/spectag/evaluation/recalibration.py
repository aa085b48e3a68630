"""Recalibration: fit the calibration and thresholds of a trained tagger again, or set thresholds by hand."""

from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from spectag.array_types import BoolArray, FloatArray
from spectag.data.manifest import ManifestInput, as_manifest
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import BundleError, ConfigError, did_you_mean
from spectag.evaluation.background_thresholds import BackgroundThresholds, fit_to_background
from spectag.evaluation.calibration_clips import CalibrationClips, predict_manifest_clips, read_stored_clips
from spectag.evaluation.checked_thresholds import CheckedThresholds, fit_to_checked
from spectag.evaluation.recalibrated_bundles import (
    LabelResult,
    Recalibration,
    check_destination,
    with_thresholds,
    write_recalibrated,
)
from spectag.models.bundle import BundleInfo, WindowThresholds, read_info
from spectag.models.pretrained import published_name
from spectag.scoring.bootstrap import Resampling
from spectag.scoring.calibration import DEFAULT_THRESHOLD, Calibration, CalibrationMethod, CrossFitted, fit_calibration
from spectag.scoring.calibration_curves import linear_curve
from spectag.scoring.reliability_diagram import calibration_errors, calibration_metrics
from spectag.scoring.scores import score_predictions
from spectag.scoring.thresholds import ThresholdGoal, fill_thresholds, fit_to_goal
from spectag.system.output import one_line, unicode_text
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent

_SCORES = ("precision", "recall", "f1", "ece_before", "ece_after")


@shows_progress
def calibrate(
    bundle: str | Path,
    *,
    goal: ThresholdGoal | None = None,
    method: CalibrationMethod | None = None,
    thresholds: Mapping[str, float] | None = None,
    manifest: ManifestInput | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
    hierarchy: str | Path | None = None,
    output: str | Path | None = None,
    in_place: bool = False,
    checked: str | Path | None = None,
    width: float = 0.1,
    false_alarms: str | None = None,
    background: str | Path | None = None,
    confidence: float = 0.9,
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
    manifest : path, DataFrame or Manifest, optional
        Clips to fit on instead of the stored ones. Training clips without out-of-fold predictions are ignored. Labels
        with fewer than three clips do not change.
    audio_dir, group_column, corrections, hierarchy
        As in `read_manifest`. By default the hierarchy with which the tagger was trained.
    output : str or Path, optional
        Where to write the new tagger.
    in_place : bool
        Whether the new tagger replaces the old one.
    checked : path, optional
        The decisions.csv of `spectag.check`. With a goal of kind precision, thresholds come from these decisions alone.
    width : float
        For `checked`: it is reported how many more checks make the interval of the precision no wider than this.
    false_alarms : str, optional
        Such as 1/h or 5/day: thresholds are raised until each label has no more false alarms, by `background` alone.
    background : path, optional
        Folder of recordings without any of the labels.
    confidence : float
        Of `false_alarms`. That of a precision or recall is in `goal`.
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
        If a threshold is for an unknown label, or not from 0 to 1, or options exclude each other.
    DataError
        If none of the manifest's clips can be used, the decisions cannot be read, or there is too little background.
    MissingExtraError
        If the calibration changes, and the package onnx, which writes it into model.onnx, is not installed.
    """
    bundle, output = Path(bundle), None if output is None else Path(output)
    _check_sources(goal, checked, false_alarms, background, is_fit=bool(method or thresholds or manifest is not None))
    check_destination(bundle, output, in_place=in_place)
    before = read_info(bundle)
    if checked is not None:
        decided = fit_to_checked(before, checked, goal or before.threshold_goal, width=width, log=log)
        return _with_other_thresholds(bundle, before, decided, output, in_place=in_place)
    if background is not None:
        alarms = fit_to_background(bundle, background, false_alarms or "", confidence, workers, progress, log)
        return _with_other_thresholds(bundle, before, alarms, output, in_place=in_place)
    manual_thresholds = _check_thresholds(thresholds or {}, before)
    if manifest is None:
        clips, on = read_stored_clips(bundle, before.labels), None
    else:
        manifest = as_manifest(
            manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections, hierarchy=hierarchy
        )
        clips = predict_manifest_clips(bundle, manifest, workers, progress, log)
        on = one_line(unicode_text(manifest.source.name))
    refits_calibration = method is not None or manifest is not None or (goal is None and not manual_thresholds)
    new_method = (method or "auto") if refits_calibration else before.calibration_method
    new_goal = goal or before.threshold_goal
    refits_thresholds = refits_calibration or goal is not None
    if refits_thresholds and not clips.labels.any():
        name = published_name(bundle) or bundle
        raise BundleError(
            f"{name}: the tagger has no out-of-fold predictions; give a manifest of clips that it was not "
            f"trained on: spectag calibrate {name} MANIFEST"
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
    info = with_thresholds(info, manual_thresholds)
    if in_place or output is not None:
        new_curves = info.calibration != before.calibration
        stored = clips.manifest_predictions
        write_recalibrated(bundle, output, info, new_curves=new_curves, new_clips=refits_calibration, clips=stored)
    results = _label_results(before, info, clips, cross_fitted, manual_thresholds.keys())
    written_to = bundle if in_place else output
    return Recalibration(
        bundle,
        written_to,
        info,
        len(clips.logits),
        results,
        clips.skipped,
        before.window_thresholds,
        is_unchanged=_is_unchanged(before, info),
    )


def _check_sources(
    goal: ThresholdGoal | None,
    checked: str | Path | None,
    false_alarms: str | None,
    background: str | Path | None,
    *,
    is_fit: bool,
) -> None:
    """Raise a ConfigError if thresholds would be fitted on several things, or without a goal."""
    if (false_alarms is None) != (background is None):
        raise ConfigError(
            "--false-alarms 1/h and --background FOLDER, recordings without any of the labels, go together; give both"
        )
    if checked is None and background is None:
        return
    if is_fit or (checked is not None and background is not None):
        option = "--background" if checked is None else "--checked"
        raise ConfigError(f"{option} sets the thresholds alone: leave out the manifest and other ways of setting them")
    if checked is None and goal is not None:
        raise ConfigError("--false-alarms is a goal for the thresholds itself; leave the other goal out")
    if checked is not None and (goal is None or goal.kind != "precision"):
        raise ConfigError("--checked needs the precision to reach, such as --precision 0.9")
    if goal is not None and goal.below_f1:
        raise ConfigError("--below-f1 has no effect on checked detections, which have no F1; leave it out")


def _with_other_thresholds(
    bundle: Path,
    before: BundleInfo,
    source: CheckedThresholds | BackgroundThresholds,
    output: Path | None,
    *,
    in_place: bool,
) -> Recalibration:
    """The tagger with thresholds that come from something else than labelled clips."""
    checked = source if isinstance(source, CheckedThresholds) else None
    background = source if isinstance(source, BackgroundThresholds) else None
    info = with_thresholds(before, source.thresholds, source.window_thresholds)
    if in_place or output is not None:
        write_recalibrated(bundle, output, info, checked=None if checked is None else checked.to_csv())
    return Recalibration(
        bundle=bundle,
        written_to=bundle if in_place else output,
        info=info,
        n_clips=0,
        labels=(),
        skipped=(),
        old_window_thresholds=before.window_thresholds,
        is_unchanged=_is_unchanged(before, info),
        checked=checked,
        background=background,
    )


def _is_unchanged(before: BundleInfo, after: BundleInfo) -> bool:
    names = ("thresholds", "window_thresholds", "calibration")
    return all(getattr(before, name) == getattr(after, name) for name in names)


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
