"""Slices: the clips in kinds, by what is known of them."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from spectag.data.clips import Clip, Manifest
from spectag.data.readers.annotations import is_annotation
from spectag.data.readers.csv_table import COLUMNS, further_columns
from spectag.data.readers.delimited_text import read_text, some_of
from spectag.errors import DataError, did_you_mean
from spectag.evaluation.intervals import Resampling, scores_on
from spectag.evaluation.predictions import Predictions
from spectag.evaluation.results import Slice

SLICE_METRICS = ("lwlrap", "mean_average_precision", "f1_micro", "f1_macro")
"""The scores of a slice."""

_MOST_KINDS = 12  # of a column that nobody asked for, and of numbers before they are put into bins
_MOST_ASKED_FOR = 30  # of a column that was asked for; the rarer ones are taken together
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_UNKNOWN, _OTHERS = "unknown", "others"


def slices(
    predictions: Predictions, manifest: Manifest, by: Sequence[str], groups: Sequence[str], resampling: Resampling
) -> tuple[Slice, ...]:
    """The scores of each kind of clips, by whatever parts them into more than one kind.

    Parameters
    ----------
    predictions : Predictions
    manifest : Manifest
        Its table may have further columns; those of few values are used.
    by : sequence of str
        Columns to be used whatever they hold. Their slices are called as they are here.
    groups : sequence of n_clips names
    resampling : Resampling

    Raises
    ------
    DataError
        If the manifest has no column that is asked for.
    """
    found = []
    for name, kinds in _all_kinds(predictions, manifest, by):
        present = set(kinds)
        if len(present) < 2 and name not in by:
            continue
        for kind in sorted(present, key=_order):
            rows = np.array([own == kind for own in kinds])
            counts = resampling.counts([group for group, chosen in zip(groups, rows, strict=True) if chosen])
            samples = scores_on(predictions.of(rows), counts).overall
            overall = {metric: resampling.estimate(samples[metric]) for metric in SLICE_METRICS}
            found.append(Slice(name, kind[1], int(rows.sum()), overall))
    return tuple(found)


def check_columns(manifest: Manifest, by: Sequence[str]) -> None:
    """Raise a DataError if the manifest has no column of such a name."""
    columns = _columns(manifest.clips, manifest) if by else {}
    for name in by:
        _column(name, columns, manifest.source)


_Kind = tuple[float, str]
"""A place among the kinds, and the words for it."""


def _order(kind: _Kind) -> tuple[bool, float, int, str]:
    place, words = kind
    return words in (_OTHERS, _UNKNOWN), place, len(words) if words.isdecimal() else 0, words


def _all_kinds(predictions: Predictions, manifest: Manifest, by: Sequence[str]) -> Iterator[tuple[str, list[_Kind]]]:
    """A name, and the kind of each clip."""
    yield "duration", _bins(predictions.durations.tolist(), " s")
    n_labels = [len(clip.labels) for clip in predictions.clips]
    yield "number of labels", [(n, f"{n} {'label' if n == 1 else 'labels'}") for n in n_labels]
    yield "origin", [(0, origin) for origin in predictions.origins]
    columns = _columns(predictions.clips, manifest)
    asked_for = {_column(name, columns, manifest.source): name for name in by}
    for name, values in columns.items():
        if name in asked_for or _tells(name, values, predictions.clips):
            yield asked_for.get(name, name), _kinds(values)


def _columns(clips: Sequence[Clip], manifest: Manifest) -> dict[str, list[str]]:
    """What the manifest says of each clip beside its labels, "" where it says nothing."""
    columns = {
        "fold": [clip.fold or "" for clip in clips],
        "group": [clip.group or "" for clip in clips],
        "folder": [str(PurePosixPath(clip.fname.replace("\\", "/")).parent) for clip in clips],
    }
    text = read_text(manifest.source) if manifest.source.is_file() else ""
    if text and not is_annotation(text):
        for name, of_line in further_columns(manifest.source, text).items():
            columns[name] = [of_line.get(clip.line or 0, "") for clip in clips]
    return columns


def _tells(name: str, values: Sequence[str], clips: Sequence[Clip]) -> bool:
    """Whether a column that nobody asked for is worth a look: few values, and not just the labels again."""
    if name == "folder":
        labels = {value: clip.labels for value, clip in zip(values, clips, strict=True)}
        if all(labels[value] == clip.labels for value, clip in zip(values, clips, strict=True)):
            return False
    return len(set(values)) <= (_MOST_ASKED_FOR if name in ("fold", "folder") else _MOST_KINDS)


def _column(name: str, columns: Mapping[str, list[str]], source: Path) -> str:
    """The column that is asked for by this name, in any case of letters or as the manifest calls what we know."""
    aliases = {alias.lower(): own for own in ("fold", "group") for alias in COLUMNS[own] if any(columns[own])}
    known = aliases | {column.lower(): column for column in columns if any(columns[column])}
    if name.lower() not in known:
        raise DataError(
            f"{source}: no column {name!r} to slice by{did_you_mean(name.lower(), known) or '.'} It has "
            f"{some_of(list(dict.fromkeys(known.values())), 12)}"
        )
    return known[name.lower()]


def _kinds(values: Sequence[str]) -> list[_Kind]:
    """Texts as they are; of many, the frequent ones; of many numbers, bins."""
    counts = Counter(values)
    if len(counts) > _MOST_KINDS and all(_NUMBER.fullmatch(value) for value in counts if value):
        return _bins([float(value.replace(",", ".")) if value else math.nan for value in values])
    kept = {value for value, _ in counts.most_common(_MOST_ASKED_FOR)}
    return [(0, (value or _UNKNOWN) if value in kept else _OTHERS) for value in values]


def _bins(values: Sequence[float], unit: str = "") -> list[_Kind]:
    """Four bins of about as many clips each, at round numbers."""
    known = np.array([value for value in values if not math.isnan(value)])
    quartiles = np.quantile(known, [0.25, 0.5, 0.75]) if known.size else []
    edges = list(dict.fromkeys(float(f"{edge:.2g}") for edge in quartiles))
    if known.size and edges[-1] >= float(f"{known.max():.3g}"):
        edges.pop()  # nothing is beyond
    rounded = [float(f"{value:.3g}") for value in values]  # 5.0004 s is 5 s
    places = np.searchsorted(edges, rounded, side="left").tolist()
    words = _words(edges, unit)
    return [
        (0, _UNKNOWN) if math.isnan(value) else (place, words[place])
        for value, place in zip(values, places, strict=True)
    ]


def _words(edges: Sequence[float], unit: str) -> list[str]:
    if not edges:
        return ["all"]
    texts = [f"{edge:g}" for edge in edges]
    between = [f"{low} to {high}{unit}" for low, high in pairwise(texts)]
    return [f"up to {texts[0]}{unit}", *between, f"over {texts[-1]}{unit}"]
