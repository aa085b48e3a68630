"""The files of an evaluation: metrics.json, per_label.csv, slices.csv, comparisons.csv, predictions."""

import json
import math
from pathlib import Path

import numpy as np

from spectag.data.corrections import join_labels
from spectag.errors import ConfigError, MissingExtraError
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import Evaluation
from spectag.evaluation.tables import Table, comparison_columns, per_label_columns, prediction_columns, slice_columns
from spectag.models.bundle import INFO_FILE
from spectag.system.output import check_output_folder, csv_writer, open_binary_output, open_output
from spectag.system.parquet import load_pyarrow

METRICS_FILE = "metrics.json"
PREDICTIONS_FILES = "predictions.parquet", "predictions.csv"
"""The first one if pyarrow is installed, otherwise the second one."""
PER_LABEL_FILE, SLICES_FILE, COMPARISONS_FILE = "per_label.csv", "slices.csv", "comparisons.csv"


def check_evaluation_folder(folder: Path) -> None:
    """Check that `write_evaluation` can write to this folder.

    Raises
    ------
    ConfigError
        If it is a file, or the folder of a model.
    """
    check_output_folder(folder)
    if (folder / INFO_FILE).exists():
        raise ConfigError(f"-o {folder}: this is the folder of a model; give another folder")


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write the files of an evaluation; comparisons.csv only if there is a comparison.

    Raises
    ------
    DataError
        If a file cannot be written.
    """
    folder, first = Path(folder), evaluation.models[0]
    with open_output(folder / METRICS_FILE) as out:
        out.write(json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n")
    _write_csv(folder / PER_LABEL_FILE, per_label_columns(first))
    _write_csv(folder / SLICES_FILE, slice_columns(evaluation.slices, first))
    if evaluation.comparisons:
        _write_csv(folder / COMPARISONS_FILE, comparison_columns(evaluation.comparisons))
    else:
        (folder / COMPARISONS_FILE).unlink(missing_ok=True)  # of an earlier evaluation
    _write_predictions(folder, first.predictions)


def _write_predictions(folder: Path, predictions: Predictions) -> None:
    """Write one of `PREDICTIONS_FILES`, and remove the other one of an earlier evaluation."""
    as_parquet, as_csv = (folder / name for name in PREDICTIONS_FILES)
    try:
        write_predictions(as_parquet, predictions)
    except MissingExtraError:
        _write_csv(as_csv, prediction_columns(predictions))
        as_parquet.unlink(missing_ok=True)
    else:
        as_csv.unlink(missing_ok=True)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a Parquet table with a row for each clip and the probability of each label (float32).

    The columns are fname, start, end, fold, origin, labels, unknown_labels, duration, then the labels. Start, end and
    duration are in seconds (float64), or null. The columns of labels contain lists: those that are true, and those of
    which nobody knows whether they are true; all others are false. " (label)" is appended to a label with the name of
    another column (see `spectag.models.out_of_fold.CLIP_COLUMNS`).
    """
    arrow, parquet = load_pyarrow(purpose=f"writing {path.name}")
    types = {name: arrow.string() for name in ("fname", "fold", "origin")}
    types |= {"start": arrow.float64(), "end": arrow.float64()}
    types |= dict.fromkeys(("labels", "unknown_labels"), arrow.list_(arrow.string()))
    columns = {name: arrow.array(values, types.get(name)) for name, values in prediction_columns(predictions).items()}
    durations = predictions.durations
    columns["duration"] = arrow.array(durations, arrow.float64(), mask=np.isnan(durations))
    with open_binary_output(path) as out:
        parquet.write_table(arrow.table(columns), out)


def _write_csv(path: Path, table: Table) -> None:
    with open_output(path) as out:
        write_row = csv_writer(out)
        write_row(list(table))
        for row in zip(*table.values(), strict=True):
            write_row([_text(value) for value in row])


def _text(value: object) -> str:
    """A value, numbers with six digits, and a list of labels; empty if it is not defined."""
    if isinstance(value, list):
        return join_labels(value)
    if not isinstance(value, float | np.floating):
        return "" if value is None else str(value)
    return "" if math.isnan(value) else f"{value:.6g}"
