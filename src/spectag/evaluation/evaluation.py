"""Evaluation of models on labelled clips: scores with intervals, overall, for each label and for each slice.

Intervals are over recordings: the clips of one recording resemble each other, so intervals over single clips would be
too narrow. See `spectag.scoring.bootstrap`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spectag.config.devices import Device
from spectag.data.hierarchy import close_as_trained
from spectag.data.manifest import ManifestInput, as_manifest
from spectag.errors import ConfigError
from spectag.evaluation.comparison import ClipId, clip_id, compare_models
from spectag.evaluation.evaluated_models import EvaluatedModel, Model, open_model, predict_all
from spectag.evaluation.results import CalibrationCheck, Evaluation, ModelEvaluation
from spectag.evaluation.slices import check_columns, score_slices
from spectag.models.tagger import Tagger
from spectag.scoring.bootstrap import Resampling
from spectag.scoring.reliability_diagram import calibration_errors, reliability
from spectag.scoring.scores import score_predictions
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent


@shows_progress
def evaluate(
    model: Model,
    manifest: ManifestInput,
    *,
    compare: Sequence[Model] = (),
    by: Sequence[str] = (),
    common_labels: bool = False,
    corrections: str | Path | None = None,
    hierarchy: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    features: bool = False,
    workers: int | None = None,
    device: Device = "auto",
    progress: Progress = silent,
    log: Log = no_log,
) -> Evaluation:
    """Score a tagger, or a table of predictions, on the clips of a manifest.

    Training clips are scored with out-of-fold predictions. Training clips without them are left out, unless there are
    no other clips.

    Parameters
    ----------
    model : Tagger or path or name
        A tagger, its folder, the name of a published one, or a table of predictions (see `read_predictions`).
    manifest : path, DataFrame or Manifest
        The clips and their true labels.
    compare : sequence of models
        Other models to compare it with, on the clips and labels for which both are scored.
    by : sequence of str
        Columns of the manifest by which to slice the clips, in addition to those that are always used.
    common_labels : bool
        Score only the labels that the model and the manifest have in common, as is always done for published taggers.
        By default, a label that the model does not know is an error.
    corrections, hierarchy, audio_dir, group_column, label_column, label_separator
        As in `read_manifest`. By default the hierarchy with which the model was trained.
    n_resamples : int
        Number of bootstrap resamples. 0 gives no intervals.
    confidence : float
        Of the intervals, between 0 and 1.
    seed : int
        Of the resamples, which are the same for all models.
    features : bool
        Keep the features of the clips in the predictions.
    workers : int, optional
        Number of cores to use.
    device : str
        Where the networks run, as in `spectag.load`; of an open tagger, the device with which it was opened.
    progress, log
        `progress=True` shows progress bars, `log=print` prints messages; or functions that receive them.

    Raises
    ------
    SpectagError
        If the manifest, a tagger or a table cannot be read, or they do not fit together. Clips that cannot be read are
        skipped and listed in the result.
    """
    if n_resamples < 0 or not 0 < confidence < 1:
        raise ConfigError(f"need resamples >= 0 and a confidence between 0 and 1, got {n_resamples} and {confidence:g}")
    manifest = as_manifest(
        manifest,
        audio_dir=audio_dir,
        group_column=group_column,
        label_column=label_column,
        label_separator=label_separator,
        corrections=corrections,
        hierarchy=hierarchy,
    )
    check_columns(manifest, by)
    models = [open_model(each, progress, log, device) for each in (model, *compare)]
    if isinstance(models[0], Tagger):
        manifest = close_as_trained(manifest, models[0].info.parents, log)
    evaluated_models = predict_all(
        models, manifest, workers, progress, log, common_labels=common_labels, features=features
    )
    first, *others = evaluated_models
    log(f"scoring {len(first.predictions.clips):,} clips")
    group_of = dict(zip(map(clip_id, manifest.clips), manifest.groups, strict=True))
    groups = [group_of[clip_id(clip)] for clip in first.predictions.clips]
    resampling = Resampling(n_resamples, confidence, seed)
    return Evaluation(
        manifest=manifest,
        models=tuple(_score_model(evaluated, group_of, resampling) for evaluated in evaluated_models),
        slices=score_slices(first.predictions, manifest, by, groups, resampling),
        comparisons=tuple(compare_models(first, other, group_of, resampling) for other in others),
        confidence=confidence,
        n_resamples=n_resamples,
        seed=seed,
        n_groups=len(set(groups)),
    )


def _score_model(evaluated: EvaluatedModel, group_of: Mapping[ClipId, str], resampling: Resampling) -> ModelEvaluation:
    predictions = evaluated.predictions
    groups = [group_of[clip_id(clip)] for clip in predictions.clips]
    y_true, probabilities = predictions.targets, predictions.probabilities
    scores = score_predictions(y_true, probabilities, groups, thresholds=predictions.thresholds, resampling=resampling)
    calibration = CalibrationCheck(
        is_calibrated=evaluated.tagger is not None and evaluated.tagger.info.calibration is not None,
        reliability_before=reliability(y_true, predictions.uncalibrated),
        reliability_after=reliability(y_true, probabilities),
        ece_per_label=calibration_errors(y_true, probabilities),
    )
    return ModelEvaluation(
        **vars(evaluated), overall=scores.overall, per_label=scores.per_label, calibration=calibration
    )
