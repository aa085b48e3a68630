"""Slices: the scores of clips that have a property in common, such as their duration, fold or recording site."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from spectag.array_types import FloatArray
from spectag.data.clips import Clip, Manifest
from spectag.data.readers.annotations import is_label_track
from spectag.data.readers.columns import MANIFEST_COLUMNS
from spectag.data.readers.csv_table import extra_columns, open_table_with_layout
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import DataError, did_you_mean
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import Slice
from spectag.scoring.bootstrap import Resampling
from spectag.scoring.scores import score_predictions

SLICE_METRICS = ("lwlrap", "mean_average_precision", "f1_micro", "f1_macro")
"""The scores of a slice."""

_MAX_VALUES = 12  # of a column that was not requested, and of numbers before they are put into bins
_MAX_REQUESTED_VALUES = 30  # of a requested column; the rarer values are put together
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NEARLY_EQUAL = 0.02  # of the longest clip; durations that differ by less are not sliced
_UNKNOWN, _OTHERS = "unknown", "others"

_Value = tuple[float, str]
"""Sort key and name of a slice."""


def score_slices(
    predictions: Predictions, manifest: Manifest, by: Sequence[str], groups: Sequence[str], resampling: Resampling
) -> tuple[Slice, ...]:
    """The scores of each slice, for every property with more than one value.

    Parameters
    ----------
    predictions : Predictions
    manifest : Manifest
        Additional columns of its table are used if they have few values.
    by : sequence of str
        Columns to use in any case. Their slices have the names given here.
    groups : sequence of n_clips names
        The recording of each clip.
    resampling : Resampling

    Raises
    ------
    DataError
        If the manifest does not have a requested column.
    """
    slices = []
    for name, values in _properties(predictions, manifest, by):
        distinct = set(values)
        if len(distinct) < 2 and name not in by:
            continue
        for value in sorted(distinct, key=_sort_key):
            in_slice = np.array([clip_value == value for clip_value in values])
            selected = predictions.select(in_slice)
            scores = score_predictions(
                selected.targets,
                selected.probabilities,
                [group for group, is_in in zip(groups, in_slice, strict=True) if is_in],
                thresholds=selected.thresholds,
                resampling=resampling,
            )
            overall = {metric: scores.overall[metric] for metric in SLICE_METRICS}
            slices.append(Slice(name, value[1], len(selected.clips), overall))
    return tuple(slices)


def check_columns(manifest: Manifest, by: Sequence[str]) -> None:
    """Raise a DataError if the manifest does not have all of these columns."""
    columns = _columns(manifest.clips, manifest) if by else {}
    for name in by:
        _find_column(name, columns, manifest.source)


def are_nearly_equal(durations: FloatArray) -> bool:
    """Whether the known durations differ by at most 2 %, as those of clips that are cut to the same length."""
    known = durations[np.isfinite(durations)]
    return 0 < known.size == durations.size and bool(np.ptp(known) <= _NEARLY_EQUAL * known.max())


def _sort_key(value: _Value) -> tuple[bool, float, int, str]:
    position, name = value
    return name in (_OTHERS, _UNKNOWN), position, len(name) if name.isdecimal() else 0, name


def _properties(predictions: Predictions, manifest: Manifest, by: Sequence[str]) -> Iterator[tuple[str, list[_Value]]]:
    """The name of each property, and its value for each clip."""
    if not are_nearly_equal(predictions.durations):
        yield "duration", _bin_numbers(predictions.durations.tolist(), " s")
    n_labels = [len(clip.labels) for clip in predictions.clips]
    yield "number of labels", [(n, f"{n} {'label' if n == 1 else 'labels'}") for n in n_labels]
    yield "origin", [(0, origin) for origin in predictions.origins]
    columns = _columns(predictions.clips, manifest)
    requested = {_find_column(name, columns, manifest.source): name for name in by}
    for name, fields in columns.items():
        if name in requested or _is_informative(name, fields, predictions.clips):
            yield requested.get(name, name), _values(fields)


def _columns(clips: Sequence[Clip], manifest: Manifest) -> dict[str, list[str]]:
    """The fields of each clip in the manifest, except its labels; "" for an empty field."""
    columns = {
        "fold": [clip.fold or "" for clip in clips],
        "group": [clip.group or "" for clip in clips],
        "folder": [str(PurePosixPath(clip.fname.replace("\\", "/")).parent) for clip in clips],
    }
    text = manifest.read_table()
    opened = open_table_with_layout(manifest.source, text, manifest.label_column) if text else None
    if opened is not None and not is_label_track(text):
        for name, field_of_line in extra_columns(*opened).items():
            columns[name] = [field_of_line.get(clip.line or 0, "") for clip in clips]
    return columns


def _is_informative(name: str, fields: Sequence[str], clips: Sequence[Clip]) -> bool:
    """Whether a column that was not requested is worth slicing by: few values, and not only the labels again."""
    if name == "folder":
        labels = {field: clip.labels for field, clip in zip(fields, clips, strict=True)}
        if all(labels[field] == clip.labels for field, clip in zip(fields, clips, strict=True)):
            return False
    return len(set(fields)) <= (_MAX_REQUESTED_VALUES if name in ("fold", "folder") else _MAX_VALUES)


def _find_column(name: str, columns: Mapping[str, list[str]], source: Path) -> str:
    """The column with this name or alias, whatever the case of its letters."""
    aliases = {
        alias.lower(): column
        for column in ("fold", "group")
        for alias in MANIFEST_COLUMNS[column]
        if any(columns[column])
    }
    known = aliases | {column.lower(): column for column in columns if any(columns[column])}
    if name.lower() not in known:
        raise DataError(
            f"{source}: no column {name!r} to slice by{did_you_mean(name.lower(), known) or '.'} The columns are "
            f"{abbreviate(list(dict.fromkeys(known.values())), 12)}"
        )
    return known[name.lower()]


def _values(fields: Sequence[str]) -> list[_Value]:
    """The fields themselves; bins for many numbers; the most frequent fields if there are many texts."""
    counts = Counter(fields)
    if len(counts) > _MAX_VALUES and all(_NUMBER.fullmatch(field) for field in counts if field):
        return _bin_numbers([float(field.replace(",", ".")) if field else math.nan for field in fields])
    frequent = {field for field, _ in counts.most_common(_MAX_REQUESTED_VALUES)}
    return [(0, (field or _UNKNOWN) if field in frequent else _OTHERS) for field in fields]


def _bin_numbers(numbers: Sequence[float], unit: str = "") -> list[_Value]:
    """Four bins with about as many clips each, with rounded edges."""
    known = np.array([number for number in numbers if not math.isnan(number)])
    quartiles = np.quantile(known, [0.25, 0.5, 0.75]) if known.size else []
    edges = list(dict.fromkeys(float(f"{edge:.2g}") for edge in quartiles))
    if known.size and edges[-1] >= float(f"{known.max():.3g}"):
        edges.pop()  # there is nothing above it
    rounded = [float(f"{number:.3g}") for number in numbers]  # 5.0004 s is 5 s
    bins = np.searchsorted(edges, rounded, side="left").tolist()
    names = _bin_names(edges, unit)
    return [
        (0, _UNKNOWN) if math.isnan(number) else (bin_index, names[bin_index])
        for number, bin_index in zip(numbers, bins, strict=True)
    ]


def _bin_names(edges: Sequence[float], unit: str) -> list[str]:
    if not edges:
        return ["all"]
    texts = [f"{edge:g}" for edge in edges]
    between = [f"{low} to {high}{unit}" for low, high in pairwise(texts)]
    return [f"up to {texts[0]}{unit}", *between, f"over {texts[-1]}{unit}"]
