"""The models of an evaluation, taggers and tables, with their predictions for the clips that are scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectag.config.devices import Device
from spectag.config.tagging import LONG_RATIO
from spectag.data.clips import Manifest
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import DataError, did_you_mean
from spectag.evaluation.prediction_table import is_table, read_predictions
from spectag.evaluation.predictions import PredictionOrigin, Predictions, predict_out_of_fold
from spectag.models.out_of_fold import OUT_OF_FOLD_FILE
from spectag.models.pretrained import load
from spectag.models.tagger import Tagger
from spectag.system.progress import Log, Progress

Model = Tagger | str | Path
"""A tagger, its folder, the name of a published one, or a table of predictions."""

_ORIGIN_PHRASES: dict[PredictionOrigin, str] = {
    "unseen": "not used in training",
    "out_of_fold": "scored with out-of-fold predictions",
    "table": "from the table",
}


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A tagger or a table, with its predictions for the clips and labels that are scored."""

    name: str
    """Of its folder or file, unique in an evaluation."""
    source: Path
    tagger: Tagger | None
    """None for a table."""
    predictions: Predictions
    """For the clips and labels that are scored."""
    n_by_origin: dict[PredictionOrigin, int]
    """The number of predictions of each origin, including clips that are left out of the scores."""
    n_left_out: int
    """The number of training clips that are left out of the scores, because there are other clips."""
    notes: tuple[str, ...]
    """What the scores are based on, in sentences for a person."""


def predict_all(
    models: Sequence[Model],
    manifest: Manifest,
    workers: int | None,
    progress: Progress,
    log: Log,
    *,
    common_labels: bool,
    features: bool,
) -> list[EvaluatedModel]:
    """The predictions of each model for the clips of a manifest.

    The first model must know all labels of the manifest, unless `common_labels` is set or it is a published tagger.

    Raises
    ------
    DataError
        If the first model does not know a label, another model knows none, or a table cannot be read.
    """
    opened = [open_model(model, progress, log) for model in models]
    names = _unique_names([model.folder if isinstance(model, Tagger) else model for model in opened])
    evaluated_models = []
    for index, (model, name) in enumerate(zip(opened, names, strict=True)):
        only_common = common_labels or index > 0
        if isinstance(model, Tagger):
            source, tagger = model.folder, model
            only_common |= model.info.data.n_clips is None  # a published tagger
            labels = _scored_labels(name, model.labels, manifest, only_common=only_common)  # before the long work
            if model.info.extends is not None:  # detections of its other labels are not false, because nobody asked
                wanted = {*model.info.own_labels, *manifest.labels.names}
                labels = tuple(label for label in labels if label in wanted)
            predictions = predict_out_of_fold(
                model, manifest, features=features, workers=workers, progress=progress, log=log
            )
        else:
            source, tagger = model, None
            predictions = read_predictions(model, manifest, log=log)
            labels = _scored_labels(name, predictions.labels, manifest, only_common=only_common)
        scored = predictions.select_labels(labels)
        evaluated_models.append(_leave_out_training_clips(name, source, tagger, scored, manifest))
    return evaluated_models


def open_model(model: Model, progress: Progress, log: Log, device: Device = "auto") -> Tagger | Path:
    """A tagger, or the path of a table of predictions."""
    if isinstance(model, Tagger):
        return model
    return Path(model) if is_table(model) else load(model, device=device, progress=progress, log=log)


def _unique_names(sources: Sequence[Path]) -> list[str]:
    """A name for each source: the last parts of its path, as many as needed to be unique."""
    paths = [source.absolute().parts for source in sources]
    names = ["/".join(path[-_n_unique_parts(path, paths) :]) for path in paths]
    return [
        f"{name} ({names[:index].count(name) + 1})" if name in names[:index] else name
        for index, name in enumerate(names)
    ]


def _n_unique_parts(path: tuple[str, ...], paths: Sequence[tuple[str, ...]]) -> int:
    """How many of its last parts distinguish a path from the others."""
    others = [other for other in paths if other != path]
    return next((n for n in range(1, len(path)) if all(path[-n:] != other[-n:] for other in others)), len(path))


def _scored_labels(name: str, known: LabelSet, manifest: Manifest, *, only_common: bool) -> tuple[str, ...]:
    """All labels of a model, or those that the manifest has as well."""
    unknown = [label for label in manifest.labels.names if label not in known.names]
    if not only_common:
        if unknown:
            raise DataError(
                f"{manifest.source}: {name} does not know {len(unknown)} of the {len(manifest.labels)} labels: "
                f"{abbreviate(unknown)}{did_you_mean(unknown[0], known.names) or '.'} "
                "Use --common-labels to score the other labels only"
            )
        return known.names
    common = tuple(label for label in known.names if label in manifest.labels.names)
    if not common:
        raise DataError(
            f"{manifest.source}: {name} knows none of the {len(manifest.labels)} labels "
            f"({abbreviate(list(manifest.labels.names))}){did_you_mean(unknown[0], known.names)}"
        )
    return common


def _leave_out_training_clips(
    name: str, source: Path, tagger: Tagger | None, predictions: Predictions, manifest: Manifest
) -> EvaluatedModel:
    """The model without its training clips, whose scores are too optimistic, unless there are no other clips."""
    origins = predictions.origins
    n_by_origin = {origin: origins.count(origin) for origin in dict.fromkeys(origins)}
    is_unbiased = np.array([origin != "train" for origin in origins])
    n_left_out = n_by_origin.get("train", 0) if is_unbiased.any() else 0
    scored = predictions.select(is_unbiased) if n_left_out else predictions
    notes = [_basis(name, n_by_origin, n_left_out)]
    if tagger is not None and tagger.info.data.n_clips is not None and not (source / OUT_OF_FOLD_FILE).exists():
        notes.append(
            f"{name} has no {OUT_OF_FOLD_FILE}, so it is unknown whether it was trained on these clips; if it was, the "
            "scores are too optimistic"
        )
    if tagger is not None and (extends := tagger.info.extends) is not None:
        n_scored = len(set(predictions.labels.names) - set(tagger.info.own_labels))
        notes.append(
            f"{name}: {extends.n_labels} of its labels are those of {extends.model}, which have no out-of-fold "
            f"predictions; {n_scored} of them are labels of the manifest, and scored as the model predicts them"
        )
    if len(predictions.labels) < len(manifest.labels):
        notes.append(
            f"{name} is scored on {len(predictions.labels)} of the {len(manifest.labels)} labels: those that it knows, "
            f"such as {predictions.labels.names[0]}"
        )
    if unused := [label for label, truth in zip(scored.labels.names, scored.y_true.T, strict=True) if not truth.any()]:
        notes.append(
            f"no clip has {abbreviate(unused)}: such labels have no average precision, but detections of them count "
            "as false, except where they are unknown"
        )
    if tagger is not None:
        notes.append(_mode(tagger, scored))
    return EvaluatedModel(name, source, tagger, scored, n_by_origin, n_left_out, tuple(notes))


def _mode(tagger: Tagger, scored: Predictions) -> str:
    """For which mode of tagging the scores hold."""
    limit = LONG_RATIO * tagger.info.clip_seconds
    n_long = int((scored.durations > limit).sum())
    mode = "the scores hold for whole clips, as from spectag tag --clip-level mean"
    if not n_long:
        return mode
    return f"{mode}; by default, spectag tag reports the {n_long:,} longer than {limit:.3g} s in segments instead"


def _basis(name: str, n_by_origin: dict[PredictionOrigin, int], n_left_out: int) -> str:
    """Which clips the scores of a model are based on."""
    scored = {origin: n for origin, n in n_by_origin.items() if origin != "train"}
    if not scored:
        return (
            f"WARNING: {name} was trained on all {n_by_origin['train']:,} clips, so these scores are too optimistic; "
            "evaluate it on other clips, or train with --folds"
        )
    n_clips = sum(scored.values())
    phrases = ", ".join(
        f"{'all' if n == n_clips else f'{n:,}'} {_ORIGIN_PHRASES[origin]}" for origin, n in scored.items()
    )
    left_out = f"; {n_left_out:,} training clips without out-of-fold predictions are left out" if n_left_out else ""
    return f"{name}: {n_clips:,} clips, {phrases}{left_out}"
