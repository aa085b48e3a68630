"""What is to be judged: taggers and tables of predictions, each with what it says of a manifest's clips."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spectag.data.clips import Manifest
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import some_of
from spectag.errors import DataError, did_you_mean
from spectag.evaluation.prediction_table import is_table, read_predictions
from spectag.evaluation.predictions import Origin, Predictions, predict_out_of_fold
from spectag.models.out_of_fold import PREDICTIONS_FILE
from spectag.models.pretrained import load
from spectag.models.tagger import Tagger
from spectag.system.progress import Log, Progress

Model = Tagger | str | Path
"""A tagger, its folder, the name of a published one, or a table of predictions."""


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A tagger, or a table, with its predictions for the clips and labels that judge it."""

    name: str
    source: Path
    tagger: Tagger | None
    predictions: Predictions
    n_by_origin: dict[Origin, int]
    n_left_out: int
    notes: tuple[str, ...]


def hear(
    models: Sequence[Model],
    manifest: Manifest,
    *,
    common_labels: bool,
    features: bool,
    workers: int | None,
    progress: Progress,
    log: Log,
) -> list[EvaluatedModel]:
    """What each model says of the manifest's clips. The first has to know all labels, unless it need not.

    Raises
    ------
    DataError
        If the first model does not know a label, another none of them, or a table is not to be understood.
    """
    opened = [_opened(model, progress, log) for model in models]
    names = _names([model.folder if isinstance(model, Tagger) else model for model in opened])
    evaluated_models = []
    for number, (model, name) in enumerate(zip(opened, names, strict=True)):
        some_labels = common_labels or number > 0 or (isinstance(model, Tagger) and model.info.data.n_clips is None)
        if isinstance(model, Tagger):
            source, tagger, labels = model.folder, model, _judged_labels(name, model.labels, manifest, some_labels)
            predictions = predict_out_of_fold(
                model, manifest, features=features, workers=workers, progress=progress, log=log
            )
        else:
            source, tagger = model, None
            predictions = read_predictions(model, manifest, log=log)
            labels = _judged_labels(name, predictions.labels, manifest, some_labels)
        evaluated_models.append(_evaluated_model(name, source, tagger, of_labels(predictions, labels), manifest))
    return evaluated_models


def of_labels(predictions: Predictions, labels: Sequence[str]) -> Predictions:
    """The same predictions for some of their labels."""
    columns = [predictions.labels.index(label) for label in labels]
    return replace(
        predictions,
        labels=LabelSet(tuple(labels)),
        y_true=predictions.y_true[:, columns],
        probabilities=predictions.probabilities[:, columns],
        uncalibrated=predictions.uncalibrated[:, columns],
        thresholds=predictions.thresholds[:, columns],
    )


def _opened(model: Model, progress: Progress, log: Log) -> Tagger | Path:
    if isinstance(model, Tagger):
        return model
    return Path(model) if is_table(model) else load(model, progress=progress, log=log)


def _names(sources: Sequence[Path]) -> list[str]:
    """A name for each source: its last part, with more of the path where two would have one name."""
    all_folds = [source.absolute().parts for source in sources]
    names = ["/".join(parts[-_n_telling(parts, all_folds) :]) for parts in all_folds]
    return [
        f"{name} ({names[:number].count(name) + 1})" if name in names[:number] else name
        for number, name in enumerate(names)
    ]


def _n_telling(parts: tuple[str, ...], all_folds: Sequence[tuple[str, ...]]) -> int:
    """How many of its last parts tell a path from the others."""
    others = [other for other in all_folds if other != parts]
    return next((n for n in range(1, len(parts)) if all(parts[-n:] != other[-n:] for other in others)), len(parts))


def _judged_labels(name: str, known: LabelSet, manifest: Manifest, some_labels: bool) -> tuple[str, ...]:
    """All labels of a model, or those that the manifest has, too."""
    unknown = [label for label in manifest.labels.names if label not in known.names]
    if not some_labels:
        if unknown:
            raise DataError(
                f"{manifest.source}: {name} does not know {len(unknown)} of its {len(manifest.labels)} labels: "
                f"{some_of(unknown)}{did_you_mean(unknown[0], known.names) or '.'} "
                "--common-labels judges by the others alone"
            )
        return known.names
    common = tuple(label for label in known.names if label in manifest.labels.names)
    if not common:
        raise DataError(
            f"{manifest.source}: {name} knows none of its {len(manifest.labels)} labels, which are "
            f"{some_of(list(manifest.labels.names))}{did_you_mean(unknown[0], known.names)}"
        )
    return common


def _evaluated_model(
    name: str, source: Path, tagger: Tagger | None, predictions: Predictions, manifest: Manifest
) -> EvaluatedModel:
    """Leave out clips that the tagger learnt from, if there are others: they flatter it."""
    origins = predictions.origins
    n_by_origin = {origin: origins.count(origin) for origin in dict.fromkeys(origins)}
    n_learnt = n_by_origin.get("learnt", 0)
    judging = np.array([origin != "learnt" for origin in origins])
    n_left_out = n_learnt if judging.any() else 0
    judged = predictions.of(judging) if n_left_out else predictions
    notes = [_basis(name, n_by_origin, n_left_out)]
    if tagger is not None and tagger.info.data.n_clips is not None and not (source / PREDICTIONS_FILE).exists():
        notes.append(
            f"{name} came without {PREDICTIONS_FILE}, so it can't be told whether it learnt from these clips; if so, "
            "the scores flatter it"
        )
    if len(predictions.labels) < len(manifest.labels):
        notes.append(
            f"{name} is judged by {len(predictions.labels)} of the {len(manifest.labels)} labels: those that it knows, "
            f"such as {predictions.labels.names[0]}"
        )
    nowhere = [label for label, truth in zip(judged.labels.names, judged.y_true.T, strict=True) if not truth.any()]
    if nowhere:
        notes.append(f"no clip has {some_of(nowhere)}: such labels have no average precision, but count where given")
    return EvaluatedModel(name, source, tagger, judged, n_by_origin, n_left_out, tuple(notes))


_ORIGIN_WORDS = {
    "new": "new to it",
    "held out": "judged by networks that were trained without them",
    "given": "in the table",
    "learnt": "learnt from",
}


def _basis(name: str, n_by_origin: dict[Origin, int], n_left_out: int) -> str:
    """What the scores of a model stand on."""
    judging = {origin: n for origin, n in n_by_origin.items() if origin != "learnt"}
    if not judging:
        return (
            f"WARNING: {name} learnt from all {n_by_origin['learnt']:,} clips, so these scores flatter it; give clips "
            "that it has not seen, or train with --folds"
        )
    n_clips = sum(judging.values())
    told = ", ".join(f"{'all' if n == n_clips else f'{n:,}'} {_ORIGIN_WORDS[origin]}" for origin, n in judging.items())
    left_out = f"; {n_left_out:,} that it learnt from are left out, for they flatter it" if n_left_out else ""
    return f"{name}: {n_clips:,} clips, {told}{left_out}"
