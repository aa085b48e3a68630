"""The files of an evaluation: metrics.json, per_label.csv, slices.csv, comparisons.csv, predictions.parquet."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from spectag.errors import ConfigError
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import Comparison, Evaluation, ModelEvaluation, Slice
from spectag.models.bundle import INFO_FILE
from spectag.models.out_of_fold import label_columns
from spectag.scoring.bootstrap import Estimate
from spectag.system.output import csv_writer, open_binary_output, open_output, unicode_text
from spectag.system.parquet import load_pyarrow

METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.parquet"
PER_LABEL_FILE, SLICES_FILE, COMPARISONS_FILE = "per_label.csv", "slices.csv", "comparisons.csv"
PYARROW_EXTRA = {"extra": "evaluate", "purpose": f"writing {PREDICTIONS_FILE}"}
"""Arguments of `load_pyarrow`."""


def check_evaluation_folder(folder: Path) -> None:
    """Check that `write_evaluation` can write to this folder.

    Raises
    ------
    ConfigError
        If it is a file, or the folder of a model.
    MissingExtraError
        If pyarrow is not installed.
    """
    load_pyarrow(**PYARROW_EXTRA)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"-o {folder}: this is a file; give a folder")
    if (folder / INFO_FILE).exists():
        raise ConfigError(f"-o {folder}: this is the folder of a model; give another folder")


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write the files of an evaluation; comparisons.csv only if there is a comparison.

    Raises
    ------
    DataError
        If a file cannot be written.
    MissingExtraError
        If pyarrow is not installed. No file is written then.
    """
    load_pyarrow(**PYARROW_EXTRA)
    folder, first = Path(folder), evaluation.models[0]
    with open_output(folder / METRICS_FILE) as out:
        out.write(json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n")
    _write_csv(folder / PER_LABEL_FILE, _label_rows(first))
    _write_csv(folder / SLICES_FILE, _slice_rows(evaluation.slices, first))
    if evaluation.comparisons:
        _write_csv(folder / COMPARISONS_FILE, _comparison_rows(evaluation.comparisons))
    else:
        (folder / COMPARISONS_FILE).unlink(missing_ok=True)  # of an earlier evaluation
    write_predictions(folder / PREDICTIONS_FILE, first.predictions)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a Parquet table with a row for each clip and the probability of each label (float32).

    The columns are fname, start, end, fold, origin, labels, duration, then the labels. Start, end and duration are in
    seconds (float64), or null. " (label)" is appended to a label with the name of another column (see
    `spectag.models.out_of_fold.CLIP_COLUMNS`).
    """
    arrow, parquet = load_pyarrow(**PYARROW_EXTRA)
    clips = predictions.clips
    durations = predictions.durations
    columns = {
        "fname": arrow.array([unicode_text(clip.fname) for clip in clips], arrow.string()),
        "start": arrow.array([clip.start_seconds for clip in clips], arrow.float64()),
        "end": arrow.array([clip.end_seconds for clip in clips], arrow.float64()),
        "fold": arrow.array([clip.fold for clip in clips], arrow.string()),
        "origin": arrow.array(predictions.origins, arrow.string()),
        "labels": arrow.array([list(clip.labels) for clip in clips], arrow.list_(arrow.string())),
        "duration": arrow.array(durations, arrow.float64(), mask=np.isnan(durations)),
    }
    for label, probabilities in zip(label_columns(predictions.labels), predictions.probabilities.T, strict=True):
        columns[label] = arrow.array(np.ascontiguousarray(probabilities))
    with open_binary_output(path) as out:
        parquet.write_table(arrow.table(columns), out)


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with open_output(path) as out:
        write_row = csv_writer(out)
        for row in rows:
            write_row(row)


def _label_rows(model: ModelEvaluation) -> Iterable[Sequence[str]]:
    yield ["label", "n_clips", *_columns(model.per_label), "threshold", "ece"]
    for index, (label, n_clips) in enumerate(zip(model.labels.names, model.n_clips_per_label, strict=True)):
        estimates = [label_estimates[index] for label_estimates in model.per_label.values()]
        last_columns = model.thresholds[index], float(model.calibration.ece_per_label[index])
        yield [label, str(n_clips), *_numbers(estimates), *map(_text, last_columns)]


def _slice_rows(slices: Sequence[Slice], model: ModelEvaluation) -> Iterable[Sequence[str]]:
    metrics = slices[0].overall if slices else model.overall
    yield ["slice", "value", "n_clips", *_columns(metrics)]
    for slice_ in slices:
        yield [slice_.by, slice_.value, str(slice_.n_clips), *_numbers(slice_.overall.values())]


def _comparison_rows(comparisons: Sequence[Comparison]) -> Iterable[Sequence[str]]:
    models = ("first", "other", "n_clips", "n_labels")
    yield [*models, "metric", "score_first", "score_other", *_columns(["difference"]), "p_value"]
    for comparison in comparisons:
        names = comparison.first, comparison.other, str(comparison.n_clips), str(len(comparison.labels))
        for metric, result in comparison.differences.items():
            scores = _text(result.first), _text(result.other)
            yield [*names, metric, *scores, *_numbers([result.difference]), _text(result.p_value)]


def _columns(metrics: Iterable[str]) -> list[str]:
    return [column for metric in metrics for column in (metric, f"{metric}_low", f"{metric}_high")]


def _numbers(estimates: Iterable[Estimate]) -> list[str]:
    return [_text(value) for estimate in estimates for value in (estimate.value, estimate.low, estimate.high)]


def _text(value: float) -> str:
    """A number with six digits; empty if it is not defined."""
    return "" if math.isnan(value) else f"{value:.6g}"
