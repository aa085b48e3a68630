"""How good a tagger is on a manifest's clips, and how sure that is: overall, label by label, slice by slice.

Intervals are percentile intervals of the bootstrap. Recordings are drawn, and with each all its clips: clips of one
recording are alike, and drawn one by one would make a score look surer than it is.
"""

from collections.abc import Sequence
from pathlib import Path

from spectag.data.clips import Manifest
from spectag.data.manifest import manifest_of
from spectag.errors import ConfigError
from spectag.evaluation.comparison import compare as compare_models
from spectag.evaluation.comparison import stretch
from spectag.evaluation.evaluated_models import EvaluatedModel, Model, hear
from spectag.evaluation.intervals import Resampling, scores_on
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import (
    CalibrationCheck,
    Evaluation,
    ModelEvaluation,
)
from spectag.evaluation.slices import check_columns, slices
from spectag.scoring.reliability_diagram import calibration_errors, expected_calibration_error, reliability
from spectag.system.progress import Log, Progress, no_log, silent


def evaluate(
    model: Model,
    manifest: str | Path | Manifest,
    *,
    compare: Sequence[Model] = (),
    by: Sequence[str] = (),
    common_labels: bool = False,
    corrections: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    features: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Evaluation:
    """Judge a tagger, or a table of predictions, by a manifest's clips.

    Clips that the tagger learnt from are judged by what networks said of them that were trained without them. Those
    that were never held out are left out, unless there are no others.

    Parameters
    ----------
    model : Tagger or path or name
        A tagger, its folder, the name of a published one, or a table of predictions (see `read_predictions`).
    manifest : path or Manifest
        The clips and what is true in them.
    compare : sequence of the same
        Others to hold against it, on the clips and labels that both are judged by.
    by : sequence of str
        Columns of the manifest to slice by, beside those that are used anyhow.
    common_labels : bool
        Judge by the labels alone that both the tagger and the manifest have, as is done of published taggers. Else a
        label that the tagger does not know is an error.
    corrections, audio_dir, group_column
        As in `read_manifest`.
    n_resamples : int
        0 gives no intervals.
    confidence : float
    seed : int
        Of the resamples: they are the same for all models.
    features : bool
        Keep the features of the clips in the predictions.
    workers : int, optional
        Number of cores to tag with.
    progress, say
        Told how far the work is, and what was found.

    Raises
    ------
    SpectagError
        If the manifest, a tagger or a table can't be read or they do not belong together. Clips that can't be read
        are skipped and named in the result.
    """
    if n_resamples < 0 or not 0 < confidence < 1:
        raise ConfigError(
            f"need 0 resamples or more and a confidence between 0 and 1, got {n_resamples} and {confidence:g}"
        )
    manifest = manifest_of(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    check_columns(manifest, by)
    evaluated_models = hear(
        [model, *compare],
        manifest,
        common_labels=common_labels,
        features=features,
        workers=workers,
        progress=progress,
        log=log,
    )
    group_of = dict(zip(map(stretch, manifest.clips), manifest.groups, strict=True))
    groups = [[group_of[stretch(clip)] for clip in one.predictions.clips] for one in evaluated_models]
    first = evaluated_models[0]
    log(f"scoring {len(groups[0]):,} clips")
    resampling = Resampling(n_resamples, confidence, seed)
    return Evaluation(
        manifest=manifest,
        models=tuple(_judged(one, own, resampling) for one, own in zip(evaluated_models, groups, strict=True)),
        slices=slices(first.predictions, manifest, by, groups[0], resampling),
        comparisons=tuple(compare_models(first, other, group_of, resampling) for other in evaluated_models[1:]),
        confidence=confidence,
        n_resamples=n_resamples,
        seed=seed,
        n_groups=len(set(groups[0])),
    )


def _judged(evaluated_model: EvaluatedModel, groups: Sequence[str], resampling: Resampling) -> ModelEvaluation:
    scores = scores_on(evaluated_model.predictions, resampling.counts(groups))
    return ModelEvaluation(
        name=evaluated_model.name,
        source=evaluated_model.source,
        tagger=evaluated_model.tagger,
        predictions=evaluated_model.predictions,
        overall={metric: resampling.estimate(samples) for metric, samples in scores.overall.items()},
        per_label={metric: tuple(resampling.estimates(samples)) for metric, samples in scores.per_label.items()},
        calibration=_calibration(evaluated_model),
        n_by_origin=evaluated_model.n_by_origin,
        n_left_out=evaluated_model.n_left_out,
        notes=evaluated_model.notes,
    )


def _calibration(evaluated_model: EvaluatedModel) -> CalibrationCheck:
    said: Predictions = evaluated_model.predictions
    return CalibrationCheck(
        is_calibrated=evaluated_model.tagger is not None and evaluated_model.tagger.info.calibration is not None,
        reliability_before=reliability(said.y_true, said.uncalibrated),
        reliability_after=reliability(said.y_true, said.probabilities),
        ece_before=expected_calibration_error(said.y_true, said.uncalibrated),
        ece_after=expected_calibration_error(said.y_true, said.probabilities),
        ece_per_label=calibration_errors(said.y_true, said.probabilities),
    )
