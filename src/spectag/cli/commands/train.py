"""spectag train."""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spectag.cli.app import training_packages
from spectag.cli.options import Flag, Json, Output
from spectag.cli.recipe_options import NO_DATA_OPTIONS, NO_RECIPE_OPTIONS, DataGroup, RecipeGroup, check_data_files
from spectag.cli.terminal import (
    new_table,
    print_json,
    print_next_steps,
    print_skipped,
    shell_command,
    stdout_console,
    training_display,
)
from spectag.system.epoch_log import checkpoint_folder
from spectag.system.output import quote_commas

if TYPE_CHECKING:
    from rich.table import Table

    from spectag.config.data_options import DataOptions
    from spectag.scoring.scores import Scores
    from spectag.training.bundle_writer import FoldScore
    from spectag.training.heads.learning_curve import LearningCurve
    from spectag.training.pipeline import TrainResult


_N_WEAKEST = 3
_METRICS = {
    "lwlrap": "lwlrap",
    "top1_accuracy": "top-1 accuracy",
    "mean_average_precision": "mAP",
}


def train_command(
    manifest: Path,
    /,
    *,
    output: Output,
    recipe: RecipeGroup = NO_RECIPE_OPTIONS,
    data: DataGroup = NO_DATA_OPTIONS,
    resume: Flag = False,
    tensorboard: Path | None = None,
    json_output: Json = False,
) -> int:
    """Train a model on a manifest.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        Folder for the model. A model that is already there is replaced once the new one is complete; a message says so
        before the training.
    resume
        Continue fine-tuning that was interrupted.
    tensorboard
        Write TensorBoard event files to this folder, one run per training.
    json_output
        Print the scores as JSON.
    """
    from spectag.data.manifest import read_manifest

    settings = recipe.read()
    check_data_files(data)
    names = ("audio_dir", "group_column", "label_column", "label_separator", "complete_annotations")
    clips = read_manifest(manifest, **{name: getattr(data, name) for name in names})  # before the slow import of torch
    with training_packages("train", "training"):
        from spectag.training.pipeline import train
    with training_display() as (progress, log, on_epoch), _hint_at_resume(output), recipe.named_in_errors():
        result = train(
            clips,
            output,
            settings,
            data=data,
            resume=resume,
            tensorboard=tensorboard,
            progress=progress,
            log=log,
            on_epoch=on_epoch,
        )
    if os.environ.get("RANK", "0") != "0":
        return 0  # the first of several processes prints
    if json_output:
        print_json(result.to_dict())
    else:
        has_negatives = data.background is not None or any(clip.is_negative for clip in clips.clips)
        print_result(result, has_negatives=has_negatives)
    _print_next_steps(result.bundle, manifest, data)
    return print_skipped([reason for _, reason in result.skipped])


def _print_next_steps(model: Path, manifest: Path, data: "DataOptions") -> None:
    names = ("audio_dir", "group_column", "label_column", "label_separator", "corrections")
    options = {name: getattr(data, name) for name in names}
    tag = shell_command("spectag", "tag", model, "FOLDER", "-o", "tags.csv")
    evaluate = shell_command("spectag", "evaluate", model, manifest, "-o", "evaluation", **options)
    print_next_steps(tag, evaluate)


@contextmanager
def _hint_at_resume(output: Path) -> Iterator[None]:
    """After Ctrl-C in fine-tuning, print how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint_folder(output).exists():
            print("to continue fine-tuning, run the same command with --resume", file=sys.stderr)
        raise


def print_result(result: "TrainResult", *, has_negatives: bool = False) -> None:
    """Print the scores of each fold and of all held-out clips, the weakest labels, and where the model is.

    If there are clips without labels (`has_negatives`), also print that lwlrap ignores them.
    """
    if result.scores is not None:
        name, estimate = result.scores.main_metric, result.scores.overall[result.scores.main_metric]
        stdout_console().print(_score_table(result.scores, result.folds))
        if not math.isnan(estimate.low):
            print(f"95 % interval of {_METRICS[name]}: {estimate.low:.4f} to {estimate.high:.4f}")
        if has_negatives and name == "lwlrap" and result.scores.top1_accuracy is None:  # so mAP is in the table
            print("lwlrap ranks labels within labelled clips only; false alarms on clips without labels lower mAP")
        if result.learning_curve is not None:
            print(_learning_curve_text(result.learning_curve, _METRICS[name]))
        if weakest := _weakest_labels(result):
            print(f"weakest labels, with their average precision: {', '.join(weakest)}")
    print(f"model: {result.bundle}")


def _weakest_labels(result: "TrainResult") -> list[str]:
    """Up to three labels with the lowest average precision, each with it; none if there is one label or all are 1.

    Labels with the same number are in the order of the alphabet, and the last item says how many more there are.
    """
    from spectag.models.bundle import read_info

    assert result.scores is not None
    precisions = [estimate.value for estimate in result.scores.per_label["average_precision"]]
    names = read_info(result.bundle).own_labels
    weak = sorted((f"{value:.3f}", name) for value, name in zip(precisions, names, strict=True) if value < 1)
    if len(names) < 2:
        return []
    shown = [f"{quote_commas(name)} {value}" for value, name in weak[:_N_WEAKEST]]
    n_equal = sum(value == weak[_N_WEAKEST - 1][0] for value, _ in weak[_N_WEAKEST:])
    return [*shown, f"and {n_equal:,} more with {weak[_N_WEAKEST - 1][0]}"] if n_equal else shown


def _learning_curve_text(curve: "LearningCurve", metric: str) -> str:
    *fewer, all_recordings = curve.scores
    points = [f"{score:.3f} with {fraction:.0%}" for fraction, score in zip(curve.fractions, fewer, strict=False)]
    return (
        f"learning curve before calibration: {metric} {', '.join(points)}, {all_recordings:.3f} with all recordings; "
        f"with twice as many expect about {curve.expected:.3f}"
    )


_MAX_FOLDS_SHOWN = 10


def _score_table(scores: "Scores", folds: "Sequence[FoldScore]") -> "Table":
    """The scores of each fold, if they fit on a screen, and of all held-out clips; a dash for those not defined."""
    metrics = [scores.main_metric]
    if scores.main_metric == "lwlrap":
        metrics.append("mean_average_precision" if scores.top1_accuracy is None else "top1_accuracy")
    columns = ["clips", *(_METRICS[metric] for metric in metrics)]
    table = new_table("held out", *columns, right=columns)
    rows = [(f"fold {fold.name}", str(fold.n_clips), [getattr(fold, metric) for metric in metrics]) for fold in folds]
    if len(folds) > 1:
        columns_of_scores = zip(*(values for _, _, values in rows), strict=True)
        means = [None if None in values else sum(values) / len(folds) for values in columns_of_scores]
        shown = rows if len(rows) <= _MAX_FOLDS_SHOWN else []
        for name, n_clips, values in [*shown, (f"mean of {len(folds)} folds", "", means)]:
            table.add_row(name, n_clips, *map(_score_text, values))
    totals = scores.to_dict()
    table.add_row("all held out", str(scores.n_clips), *(_score_text(totals[metric]) for metric in metrics))
    return table


def _score_text(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"
