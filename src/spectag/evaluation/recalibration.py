"""Fit a finished tagger's calibration and thresholds anew, or set thresholds by hand."""

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from spectag.array_types import BoolArray, FloatArray
from spectag.data.clips import Clip, Manifest
from spectag.data.readers.delimited_text import some_of
from spectag.errors import BundleError, ConfigError, MissingExtraError, did_you_mean
from spectag.evaluation.calibration_clips import UnseenClips, kept_clips, predict_manifest_clips
from spectag.models.bundle import CARD_FILE, ONNX_FILE, BundleInfo, read_info, write_info
from spectag.models.model_card import card_of
from spectag.models.out_of_fold import CALIBRATION_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.scoring.calibration import DEFAULT_THRESHOLD, Calibration, CrossFitted, Method, fit_calibration
from spectag.scoring.calibration_curves import line
from spectag.scoring.reliability_diagram import calibration_errors, calibration_metrics
from spectag.scoring.scores import score
from spectag.scoring.thresholds import ThresholdGoal, fit_thresholds
from spectag.system.progress import Log, Progress, no_log, silent

Origin = Literal["fitted", "default", "set"]
"""Of a threshold: fitted to the goal, a default since too few clips have the label, or set by hand just now."""


@dataclass(frozen=True)
class LabelResult:
    """A label's threshold, and how good it is on clips that neither it nor the calibration was fitted on.

    NaN is what nothing tells: no clip has the label, none is given it, or there are no clips to judge by.
    """

    label: str
    n_clips: int  # that have it
    threshold: float
    origin: Origin
    precision: float
    recall: float
    f1: float
    ece_before: float  # expected calibration error, by the plain sigmoid
    ece_after: float
    misses_goal: bool  # no threshold reaches the goal, not even on the clips that it is fitted on


@dataclass(frozen=True)
class Recalibration:
    """What a tagger became."""

    bundle: Path
    info: BundleInfo
    n_clips: int  # to fit and to judge by
    labels: tuple[LabelResult, ...]
    """Those that the clips tell of, or whose threshold was set by hand; the others are as they were."""
    skipped: tuple[tuple[Clip, str], ...]
    """Clips of the manifest that can't be read, each with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not defined is None."""
        rows = [dataclasses.asdict(row) for row in self.labels]
        return {
            "model": str(self.bundle),
            "n_clips": self.n_clips,
            "goal": self.info.threshold_goal.model_dump(),
            "calibration": self.info.calibration and self.info.calibration.method,
            "metrics": self.info.metrics.get("calibration"),
            "labels": [
                {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
                for row in rows
            ],
        }


def calibrate(
    bundle: str | Path,
    *,
    goal: ThresholdGoal | None = None,
    method: Method | None = None,
    thresholds: Mapping[str, float] | None = None,
    manifest: Manifest | None = None,
    output: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Recalibration:
    """Fit a tagger's calibration and thresholds on clips that it did not learn from, or set thresholds by hand.

    The clips are the training clips as they were held out in their turn, which a tagger keeps, or those of a manifest.

    Parameters
    ----------
    bundle : str or Path
        Folder of the tagger.
    goal : ThresholdGoal, optional
        What the thresholds are to reach; by default what they were to reach before.
    method : str, optional
        Of the calibration, as for `fit_calibration`. By default auto; but where a goal is given and no manifest, the
        calibration stays as it is.
    thresholds : mapping of label to threshold, optional
        Set by hand. Where nothing else is given, all else stays as it is.
    manifest : Manifest, optional
        Clips to fit on instead of those that the tagger keeps. Those that it learnt from and that were never held out
        do not count. Labels that fewer than three clips have stay as they are.
    output : str or Path, optional
        Where to write the new tagger. By default it takes the old one's place.
    workers, progress, say
        As for `predict_out_of_fold`, by which a manifest's clips are heard.

    Returns
    -------
    Recalibration

    Raises
    ------
    BundleError
        If there is no such tagger, it keeps no clips and there is no manifest, or the new one can't be written.
    ConfigError
        If a threshold is for a label that the tagger does not know, or is not from 0 to 1.
    DataError
        If none of the manifest's clips can be used.
    MissingExtraError
        If the calibration changes, and the package onnx is not there to write it into model.onnx.
    """
    bundle, output = Path(bundle), None if output is None else Path(output)
    before = read_info(bundle)
    by_hand = _checked(thresholds or {}, before)
    _check_place(bundle, output)
    clips = kept_clips(bundle) if manifest is None else predict_manifest_clips(bundle, manifest, workers, progress, log)
    refits_curves = method is not None or manifest is not None or (goal is None and not by_hand)
    goal_now = goal or before.threshold_goal
    method_now = (method or "auto") if refits_curves else before.calibration_method
    cross = None if clips is None else clips.cross_fitted(method_now, goal_now)
    info = before
    if refits_curves or goal is not None:
        if clips is None:
            raise BundleError(
                f"{bundle}: it keeps no clips that were held out in training; give a manifest of clips that it did not "
                f"learn from: spectag calibrate {bundle} MANIFEST"
            )
        calibration = _calibration(clips, method_now, before) if refits_curves else before.calibration
        metrics = _metrics(before, clips, cross, on=None if manifest is None else manifest.source.name)
        info = _with_fitted_thresholds(before, clips, calibration, goal_now).model_copy(
            update={"calibration": calibration, "calibration_method": method_now, "metrics": metrics}
        )
    info = _with_thresholds(info, by_hand)
    of_manifest = None if clips is None else clips.of_manifest
    has_other_curves = info.calibration != before.calibration
    _write(bundle, output, info, of_manifest, has_other_curves=has_other_curves, has_other_clips=refits_curves)
    rows = _label_results(info, clips, cross, by_hand.keys())
    n_clips, skipped = (0, ()) if clips is None else (len(clips.logits), clips.skipped)
    return Recalibration(output or bundle, info, n_clips, rows, skipped)


def _checked(thresholds: Mapping[str, float], info: BundleInfo) -> dict[str, float]:
    for label, threshold in thresholds.items():
        if label not in info.labels:
            raise ConfigError(
                f"the tagger has no label {label!r}{did_you_mean(label, info.labels) or '.'} "
                f"It knows {some_of(list(info.labels))}"
            )
        if not 0 <= threshold <= 1:
            raise ConfigError(f"the threshold of {label} is a probability, from 0 to 1; got {threshold:g}")
    return dict(thresholds)


def _check_place(bundle: Path, output: Path | None) -> None:
    if output is not None and output.exists():
        raise BundleError(
            f"{output}: is there already; choose another place, or leave -o out to change {bundle} itself"
        )


def _calibration(clips: UnseenClips, method: Method, before: BundleInfo) -> Calibration | None:
    """The calibration that the clips call for; labels that they do not tell of keep their curves."""
    fitted = fit_calibration(clips.logits, clips.y_true, method=method, parts=clips.parts)
    if clips.labels.all():
        return fitted
    plain = line(1.0, 0.0)
    n_labels = len(before.labels)
    curves = [plain] * n_labels if before.calibration is None else list(before.calibration.curves)
    for place, label in enumerate(np.flatnonzero(clips.labels)):
        curves[label] = plain if fitted is None else fitted.curves[place]
    if all(curve == plain for curve in curves):
        return None
    return Calibration(method=fitted.method if fitted else "platt", curves=tuple(curves))


def _with_fitted_thresholds(
    before: BundleInfo, clips: UnseenClips, calibration: Calibration | None, goal: ThresholdGoal
) -> BundleInfo:
    """Thresholds of the labels that the clips tell of; of those with too few clips, a default."""
    found = fit_thresholds(clips.y_true, clips.calibrated(calibration), goal)
    thresholds, is_fitted = np.array(before.thresholds), np.array(before.thresholds_fitted)
    # a published tagger has a default of its own, which is one for probabilities that are not calibrated
    has_default = ~is_fitted & (calibration is None)
    default = np.where(has_default, thresholds, DEFAULT_THRESHOLD)[clips.labels]
    thresholds[clips.labels] = np.where(np.isnan(found), default, found)
    is_fitted[clips.labels] = ~np.isnan(found)
    return before.model_copy(
        update={
            "thresholds": tuple(thresholds.tolist()),
            "thresholds_fitted": tuple(is_fitted.tolist()),
            "threshold_goal": goal,
        }
    )


def _with_thresholds(info: BundleInfo, by_hand: Mapping[str, float]) -> BundleInfo:
    rows = zip(info.labels, info.thresholds, info.thresholds_fitted, strict=True)
    pairs = [(by_hand.get(label, threshold), label not in by_hand and fitted) for label, threshold, fitted in rows]
    thresholds, is_fitted = zip(*pairs, strict=True)
    return info.model_copy(update={"thresholds": thresholds, "thresholds_fitted": is_fitted})


def _metrics(before: BundleInfo, clips: UnseenClips, cross: CrossFitted | None, on: str | None) -> dict[str, Any]:
    """The tagger's metrics, with those that calibration changes; `on` is the manifest, where there is one."""
    if cross is None:
        return {name: value for name, value in before.metrics.items() if name != "calibration"}
    found = calibration_metrics(clips.y_true, expit(clips.logits), cross.probabilities)
    if on is not None:
        return {**before.metrics, "calibration": {**found, "on": on}}
    rng = np.random.default_rng(0)
    scores = score(clips.y_true, cross.probabilities, thresholds=cross.thresholds, rng=rng).to_dict()
    return {**before.metrics, **scores, "calibration": found}


def _label_results(
    info: BundleInfo, clips: UnseenClips | None, cross: CrossFitted | None, by_hand: Collection[str]
) -> tuple[LabelResult, ...]:
    """Each label's threshold, and how it does on the clips, where they tell."""
    is_fitted = np.array(info.thresholds_fitted)
    n_clips, misses = np.zeros(len(is_fitted), np.int64), np.zeros_like(is_fitted)
    found = np.full((5, len(is_fitted)), np.nan)  # precision, recall, F1, calibration error before and after
    if clips is not None:
        told, thresholds = clips.labels, np.array(info.thresholds)[clips.labels]
        n_clips[told] = clips.y_true.sum(axis=0)
        given = clips.calibrated(info.calibration) >= thresholds
        misses[told] = is_fitted[told] & _misses(info.threshold_goal, clips.y_true, given)
        if cross is not None:
            given = cross.probabilities >= np.where(is_fitted[told], cross.thresholds, thresholds)
            found[:3, told] = _precision_recall_f1(clips.y_true, given)
            found[3, told] = calibration_errors(clips.y_true, expit(clips.logits))
            found[4, told] = calibration_errors(clips.y_true, cross.probabilities)
    return tuple(
        LabelResult(
            label=label,
            n_clips=int(n_clips[i]),
            threshold=info.thresholds[i],
            origin="set" if label in by_hand else "fitted" if is_fitted[i] else "default",
            precision=float(found[0, i]),
            recall=float(found[1, i]),
            f1=float(found[2, i]),
            ece_before=float(found[3, i]),
            ece_after=float(found[4, i]),
            misses_goal=bool(misses[i]),
        )
        for i, label in enumerate(info.labels)
        if label in by_hand or (clips is not None and clips.labels[i])
    )


def _precision_recall_f1(y_true: BoolArray, given: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1 of each label, NaN where they are not defined."""
    n_hits, n_given, n_true = (y_true & given).sum(axis=0), given.sum(axis=0), y_true.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return n_hits / n_given, n_hits / n_true, 2 * n_hits / (n_given + n_true)


def _misses(goal: ThresholdGoal, y_true: BoolArray, given: BoolArray) -> BoolArray:
    """Where labels do not reach the goal; the best F1 is always reached."""
    if goal.at_least is None:
        return np.zeros(y_true.shape[1], np.bool_)
    precision, recall, _ = _precision_recall_f1(y_true, given)
    missed: BoolArray = (precision if goal.kind == "precision" else recall) < goal.at_least
    return missed


def _write(
    bundle: Path,
    output: Path | None,
    info: BundleInfo,
    of_manifest: OutOfFoldPredictions | None,
    *,
    has_other_curves: bool,
    has_other_clips: bool,
) -> None:
    """Write the tagger with what changes, to its own place or to another: whole or not at all.

    Clips of a manifest are kept, so that they are judged by what others call for; none of an earlier one's stay.
    """
    bundle = bundle.resolve()
    place = bundle if output is None else output
    network = None
    if has_other_curves and not info.members:  # several networks are calibrated together, by the runtime
        network = _calibrated_network(bundle / ONNX_FILE, info.calibration)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as work:
            folder = Path(work) / place.name
            shutil.copytree(bundle, folder, ignore=None if output is None else shutil.ignore_patterns(".*"))
            if network is not None:
                (folder / ONNX_FILE).write_bytes(network)
            if of_manifest is not None:
                write_out_of_fold(folder / CALIBRATION_FILE, of_manifest)
            elif has_other_clips:
                (folder / CALIBRATION_FILE).unlink(missing_ok=True)
            write_info(folder, info)
            (folder / CARD_FILE).write_text(card_of(info, place.name), encoding="utf-8")
            _put(folder, place)
    except OSError as error:
        raise BundleError(f"{output or bundle}: the tagger can't be written: {error.strerror or error}") from error


def _put(folder: Path, place: Path) -> None:
    """Move a new folder to its place; the one that is there goes, but comes back if the new one can't."""
    if not place.exists():
        folder.rename(place)
        return
    replaced = folder.with_name("replaced")
    place.rename(replaced)
    try:
        folder.rename(place)
    finally:
        if not place.exists():
            replaced.rename(place)


def _calibrated_network(path: Path, calibration: Calibration | None) -> bytes:
    """A model.onnx with other curves in it."""
    try:
        import onnx

        from spectag.models.onnx_calibration import with_calibration
    except ImportError as error:
        raise MissingExtraError("onnx", "train", "calibrating a tagger") from error
    try:
        model = onnx.load(path)
    except Exception as error:  # of protobuf, which onnx does not promise
        raise BundleError(f"{path}: can't be read: {error}") from error
    network: bytes = with_calibration(model, calibration).SerializeToString()
    return network
