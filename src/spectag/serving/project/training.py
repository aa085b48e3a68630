"""Jobs that train a new version of the model: from labels, or again after corrections."""

import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from spectag.config.base import parse_config
from spectag.config.data_options import DataOptions
from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.errors import BundleError, ConfigError, DataError, DataWarning
from spectag.models.bundle import read_info
from spectag.models.out_of_fold import portable_clip_names
from spectag.scoring.bootstrap import as_json
from spectag.serving.project.database import ProjectDatabase
from spectag.serving.project.job_kinds import JobContext
from spectag.serving.project.label_file import LABELS_FILE
from spectag.serving.project.time_left import TimeLeft
from spectag.serving.project.versions import VERSION_SCHEMA, ModelVersion, ModelVersions, utc_now
from spectag.serving.train_comparison import HeldOutPredictions, compare_versions
from spectag.serving.train_recipes import TrainQuery, recipe_of
from spectag.system.epoch_log import checkpoint_folder
from spectag.training.pipeline import TrainResult, train

_MODEL = "model"  # the name in the model card
_MAX_SKIPPED = 1_000
_MAX_EPOCHS = 5_000


def train_version(context: JobContext, query: Mapping[str, Any]) -> dict[str, Any]:
    """Train a new version as a `TrainQuery` says, and compare it with its parent.

    A job that was stopped goes on with cached features, and with the last checkpoint of fine-tuning.

    Returns
    -------
    dict
        The number of the version. What is shown about it is in its `results`.

    Raises
    ------
    SpectagError
        As `spectag.training.train`.
    """
    wanted = parse_config(dict(query), TrainQuery, source="the job")
    started, created = time.monotonic(), utc_now()
    with _versions(context.folder) as versions:
        parent = None if wanted.parent is None else versions.get(wanted.parent)
        with _warnings_in_log(context):
            manifest = read_manifest(_manifest_path(context, wanted), group_column=wanted.group_column)
            output = context.job_folder / _MODEL
            result = _train(context, manifest, output, wanted, parent)
        results = _results(result, manifest, wanted) | {"seconds": round(time.monotonic() - started, 1)}
        if parent is not None:
            context.progress(f"comparison with version {parent.number}", 0, 0)
            results["comparison"] = _comparison(output, parent, manifest, result)
        with versions.new(wanted.origin, parent=wanted.parent, created=created) as (folder, stored):
            output.rename(folder)
            stored.update(as_json(results))
        return {"version": int(folder.name)}


@contextmanager
def _versions(folder: Path) -> Iterator[ModelVersions]:
    database = ProjectDatabase(folder, VERSION_SCHEMA)
    try:
        yield ModelVersions(database, folder)
    finally:
        database.close()


@contextmanager
def _warnings_in_log(context: JobContext) -> Iterator[None]:
    """Remarks about the manifest become lines of the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", DataWarning)

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            context.log(f"note: {message}")

        warnings.showwarning = show
        yield


def _manifest_path(context: JobContext, query: TrainQuery) -> Path:
    if query.manifest is not None:
        return Path(query.manifest)
    path = context.folder / LABELS_FILE
    if not path.is_file():
        raise DataError(f"{context.folder}: no clip of the project is labelled yet; label clips in the Review view")
    return path


def _train(
    context: JobContext, manifest: Manifest, output: Path, query: TrainQuery, parent: ModelVersion | None
) -> TrainResult:
    recipe = recipe_of(query, None if parent is None else parent.folder)
    left, checkpoints = TimeLeft(recipe, context.seconds_left), checkpoint_folder(output)
    fit = partial(
        train,
        manifest,
        output,
        recipe,
        data=DataOptions(group_column=query.group_column),
        progress=left.progress(context.progress),
        log=left.log(context.log),
        on_epoch=left.on_epoch(context.on_epoch),
    )
    if checkpoints.exists():
        try:
            return fit(resume=True)
        except (ConfigError, BundleError):  # somebody has changed labels meanwhile, or the checkpoint is damaged
            context.log("the clips or their labels have changed, so fine-tuning starts from the beginning")
            shutil.rmtree(checkpoints, ignore_errors=True)
    return fit()


def _results(result: TrainResult, manifest: Manifest, query: TrainQuery) -> dict[str, Any]:
    """What the page shows of a training."""
    scores = result.scores
    return {
        "query": query.model_dump(mode="json"),
        "n_clips": len(manifest.clips) - len(result.skipped),
        "metric": None if scores is None else scores.main_metric,
        "scores": None if scores is None else {name: vars(one) for name, one in scores.overall.items()},
        "n_scored": 0 if scores is None else scores.n_clips,
        "folds": [vars(fold) for fold in result.folds],
        "labels": [] if scores is None else _per_label(result),
        "learning_curve": result.learning_curve and result.learning_curve.to_dict(),
        "members": [vars(member) for member in result.members],
        "epochs": [vars(epoch) for epoch in result.epochs[:_MAX_EPOCHS]],
        "skipped": [[clip.fname, reason] for clip, reason in result.skipped[:_MAX_SKIPPED]],
        "n_skipped": len(result.skipped),
    }


def _per_label(result: TrainResult) -> list[dict[str, Any]]:
    """The average precision of each label, the lowest first."""
    scores = result.scores
    assert scores is not None
    names, precisions = read_info(result.bundle).own_labels, scores.per_label["average_precision"]
    rows = [
        {"label": name, "n_clips": int(count), **vars(estimate)}
        for name, count, estimate in zip(names, scores.n_clips_per_label, precisions, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["value"] != row["value"], row["value"]))


def _comparison(output: Path, parent: ModelVersion, manifest: Manifest, result: TrainResult) -> dict[str, Any] | None:
    """The comparison with the parent; None if they have no predictions for the same clips."""
    newer, older = HeldOutPredictions.read(output), HeldOutPredictions.read(parent.folder)
    comparison = None if newer is None or older is None else compare_versions(newer, older)
    if comparison is None:
        return None
    found = comparison.to_dict()
    paths = _paths(manifest, result)
    for clip in found["changed"]:
        clip["path"] = paths.get((clip["fname"], clip["start_seconds"], clip["end_seconds"]))
    return found


def _paths(manifest: Manifest, result: TrainResult) -> dict[tuple[str, float, float | None], str]:
    """The file of each clip, by its name in the table of predictions and its span."""
    skipped = {id(clip) for clip, _ in result.skipped}
    clips = tuple(clip for clip in manifest.clips if id(clip) not in skipped)
    names = portable_clip_names(replace(manifest, clips=clips))
    return {
        (name, clip.start_seconds, clip.end_seconds): str(clip.path.absolute())
        for name, clip in zip(names, clips, strict=True)
    }
