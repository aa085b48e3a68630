"""The files of an evaluation: metrics.json, per_label.csv, slices.csv, comparisons.csv, predictions.parquet."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectag.errors import MissingExtraError
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import Comparison, Estimate, Evaluation, ModelEvaluation, Slice
from spectag.models.out_of_fold import label_columns
from spectag.system.output import csv_writer, unicode_text, written, written_bytes

METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.parquet"
PER_LABEL_FILE, SLICES_FILE, COMPARISONS_FILE = "per_label.csv", "slices.csv", "comparisons.csv"


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write the files, each whole or not at all; comparisons.csv only where there are any.

    Raises
    ------
    DataError
        If a file can't be written.
    MissingExtraError
        If pyarrow is not installed: nothing is written then.
    """
    load_pyarrow()
    folder, first = Path(folder), evaluation.models[0]
    with written(folder / METRICS_FILE) as out:
        out.write(json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n")
    _write_csv(folder / PER_LABEL_FILE, _label_rows(first))
    _write_csv(folder / SLICES_FILE, _slice_rows(evaluation.slices, first))
    if evaluation.comparisons:
        _write_csv(folder / COMPARISONS_FILE, _comparison_rows(evaluation.comparisons))
    else:
        (folder / COMPARISONS_FILE).unlink(missing_ok=True)  # of an earlier evaluation
    write_predictions(folder / PREDICTIONS_FILE, first.predictions)


def load_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet; a MissingExtraError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "evaluate", f"writing {PREDICTIONS_FILE}") from error
    return pyarrow, pyarrow.parquet


def write_predictions(path: Path, predictions: Predictions) -> None:
    """A row for each clip: fname, start, end, fold, origin, labels, duration, then each label's probability (float32).

    Start, end and duration are seconds (float64), null where there is none. A label that is named like a
    column of such tables (see `spectag.models.out_of_fold.CLIP_COLUMNS`) has " (label)" after its name.
    """
    arrow, parquet = load_pyarrow()
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
    with written_bytes(path) as out:
        parquet.write_table(arrow.table(columns), out)


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with written(path) as out:
        write_row = csv_writer(out)
        for row in rows:
            write_row(row)


def _label_rows(model: ModelEvaluation) -> Iterable[Sequence[str]]:
    yield ["label", "n_clips", *_columns(model.per_label), "threshold", "ece"]
    for number, (label, n_clips) in enumerate(zip(model.labels.names, model.n_clips_per_label, strict=True)):
        estimates = [of_labels[number] for of_labels in model.per_label.values()]
        ends = model.thresholds[number], float(model.calibration.ece_per_label[number])
        yield [label, str(n_clips), *_numbers(estimates), *map(_text, ends)]


def _slice_rows(slices: Sequence[Slice], model: ModelEvaluation) -> Iterable[Sequence[str]]:
    metrics = slices[0].overall if slices else model.overall
    yield ["by", "value", "n_clips", *_columns(metrics)]
    for one in slices:
        yield [one.by, one.value, str(one.n_clips), *_numbers(one.overall.values())]


def _comparison_rows(comparisons: Sequence[Comparison]) -> Iterable[Sequence[str]]:
    yield [
        "first",
        "other",
        "n_clips",
        "n_labels",
        "metric",
        "of_first",
        "of_other",
        *_columns(["difference"]),
        "p_value",
    ]
    for one in comparisons:
        for metric, found in one.differences.items():
            values = _text(found.first), _text(found.other), *_numbers([found.difference]), _text(found.p_value)
            yield [one.first, one.other, str(one.n_clips), str(len(one.labels)), metric, *values]


def _columns(metrics: Iterable[str]) -> list[str]:
    return [column for metric in metrics for column in (metric, f"{metric}_low", f"{metric}_high")]


def _numbers(estimates: Iterable[Estimate]) -> list[str]:
    return [_text(value) for one in estimates for value in (one.value, one.low, one.high)]


def _text(value: float) -> str:
    """A number with six digits; nothing where it is not defined."""
    return "" if math.isnan(value) else f"{value:.6g}"
