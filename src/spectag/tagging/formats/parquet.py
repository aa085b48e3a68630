"""Tables as Parquet, written one row group at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spectag.data.labels import LabelSet
from spectag.system.output import unicode_text
from spectag.system.parquet import load_pyarrow
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.csv_and_jsonl import columns_of, place_fields
from spectag.tagging.formats.wide import TIME_COLUMNS

_GROUP_ROWS = 65_536  # of a row group, which is in memory until it is complete
_GROUP_PROBABILITIES = 4_000_000  # of a row group of a wide table


def write_parquet(
    files: Iterable[FileEvents], out: BinaryIO, *, has_novelty: bool = False, has_places: bool = False
) -> None:
    """Write a row for each event: file, start, end (seconds, float64), label, probability (float32).

    If the model has novelty, it follows (float32), and `PLACE_COLUMNS` if wanted. The end of an image is null. Bytes of
    a file name that no encoding knows are written as \\udcff.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    """
    arrow, parquet = load_pyarrow()
    columns = columns_of(has_novelty=has_novelty, has_places=has_places)
    text, float64, float32 = arrow.string(), arrow.float64(), arrow.float32()
    types = [text, float64, float64, text, float32, *([float32] * has_novelty), *([text, text] * has_places)]
    schema = arrow.schema(list(zip(columns, types, strict=True)))
    events = (
        (
            *(unicode_text(file.file), *event[:2], unicode_text(event.label), *event[3 : 4 + has_novelty]),
            *(map(unicode_text, place_fields(file, event.start_seconds)) if has_places else ()),
        )
        for file in files
        for event in file.events
    )
    with parquet.ParquetWriter(out, schema) as writer:
        while rows := list(islice(events, _GROUP_ROWS)):
            arrays = [arrow.array(column, type_) for *column, type_ in zip(*rows, types, strict=True)]
            writer.write_table(arrow.table(arrays, schema=schema))


def write_wide_parquet(files: Iterable[FileEvents], out: BinaryIO, *, labels: LabelSet) -> None:
    """Write the table of `write_wide` as Parquet: times as float64, probabilities as float32.

    A label with the name of a time column gets a second column of that name, which not every reader accepts.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    """
    arrow, parquet = load_pyarrow()
    names = [*TIME_COLUMNS, *map(unicode_text, labels.names)]
    types = [arrow.string(), arrow.float64(), arrow.float64(), *[arrow.float32()] * len(labels)]
    schema = arrow.schema(list(zip(names, types, strict=True)))
    n_rows = max(1, _GROUP_PROBABILITIES // max(1, len(labels)))
    with parquet.ParquetWriter(out, schema) as writer:
        for file_names, starts, ends, probabilities in _row_groups(files, n_rows):
            times = arrow.array(starts), arrow.array(ends, mask=np.isnan(ends))
            columns = map(arrow.array, np.ascontiguousarray(probabilities.T))
            writer.write_table(arrow.table([arrow.array(file_names, types[0]), *times, *columns], schema=schema))


def _row_groups(files: Iterable[FileEvents], n_rows: int) -> Iterator[list[NDArray[Any]]]:
    """File names, starts, ends and probabilities (n_windows, n_labels) of the windows of all files.

    At a time, these are at least `n_rows` windows and fewer than twice as many.
    """
    waiting: list[tuple[NDArray[Any], ...]] = []
    n_waiting = 0
    for file in files:
        timeline = file.timeline
        for begin in range(0, len(timeline.starts), n_rows):
            rows = slice(begin, begin + n_rows)
            starts = timeline.starts[rows]
            names = np.full(len(starts), unicode_text(file.file), object)
            waiting.append((names, starts, timeline.ends[rows], timeline.probabilities[rows]))
            n_waiting += len(starts)
            if n_waiting >= n_rows:
                yield [np.concatenate(arrays) for arrays in zip(*waiting, strict=True)]
                waiting, n_waiting = [], 0
    if waiting:
        yield [np.concatenate(arrays) for arrays in zip(*waiting, strict=True)]
