"""Tables as Parquet, written piece by piece."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, BinaryIO

import numpy as np

from spectag.array_types import Float32Array, FloatArray
from spectag.errors import MissingExtraError
from spectag.system.output import unicode_text
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.csv_and_jsonl import TAG_COLUMNS
from spectag.tagging.formats.wide import TIME_COLUMNS

_ROWS = 65_536  # in a row group, which is held in memory until it is whole
_WIDE_VALUES = 4_000_000  # the same, in probabilities


def write_parquet(files: Iterable[FileEvents], out: BinaryIO) -> None:
    """A row for each event: file, start, end (seconds, float64), label, probability (float32).

    An image has no end: null. Bytes of a file name that no encoding knows are written as \\udcff.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    """
    arrow, parquet = load_pyarrow()
    kinds = arrow.string(), arrow.float64(), arrow.float64(), arrow.string(), arrow.float32()
    schema = arrow.schema(list(zip(TAG_COLUMNS, kinds, strict=True)))
    rows = (
        (unicode_text(file.file), event.start_seconds, event.end_seconds, unicode_text(event.label), event.probability)
        for file in files
        for event in file.events
    )
    with parquet.ParquetWriter(out, schema) as writer:
        while some := list(islice(rows, _ROWS)):
            columns = zip(*some, strict=True)
            arrays = [arrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
            writer.write_table(arrow.table(arrays, schema=schema))


def write_wide_parquet(files: Iterable[FileEvents], labels: Sequence[str], out: BinaryIO) -> None:
    """What `write_wide` writes, as Parquet: times as float64, probabilities as float32.

    A label that is named like a column of times makes a second column of that name, which not every reader takes.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    """
    arrow, parquet = load_pyarrow()
    names = [*TIME_COLUMNS, *map(unicode_text, labels)]
    kinds = [arrow.string(), arrow.float64(), arrow.float64(), *[arrow.float32()] * len(labels)]
    schema = arrow.schema(list(zip(names, kinds, strict=True)))
    with parquet.ParquetWriter(out, schema) as writer:
        for file_names, starts, ends, probabilities in _pieces(files, max(1, _WIDE_VALUES // max(1, len(labels)))):
            times = arrow.array(starts), arrow.array(ends, mask=np.isnan(ends))
            columns = map(arrow.array, np.ascontiguousarray(probabilities.T))
            writer.write_table(arrow.table([arrow.array(file_names, kinds[0]), *times, *columns], schema=schema))


_Piece = tuple[list[str], FloatArray, FloatArray, Float32Array]


def _pieces(files: Iterable[FileEvents], n_rows: int) -> Iterator[_Piece]:
    """Windows of all files, about so many at a time: names, starts, ends, probabilities (n_windows, n_labels)."""
    waiting: list[_Piece] = []
    n_waiting = 0
    for file in files:
        name, timeline = unicode_text(file.file), file.timeline
        for begin in range(0, len(timeline.starts), n_rows):
            some = slice(begin, begin + n_rows)
            starts = timeline.starts[some]
            waiting.append(([name] * len(starts), starts, timeline.ends[some], timeline.probabilities[some]))
            n_waiting += len(starts)
            if n_waiting >= n_rows:
                yield _united(waiting)
                waiting, n_waiting = [], 0
    if waiting:
        yield _united(waiting)


def _united(pieces: list[_Piece]) -> _Piece:
    names, starts, ends, probabilities = zip(*pieces, strict=True)
    all_names = list(chain.from_iterable(names))
    return all_names, np.concatenate(starts), np.concatenate(ends), np.concatenate(probabilities)


def load_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet; a MissingExtraError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "writing Parquet") from error
    return pyarrow, pyarrow.parquet
