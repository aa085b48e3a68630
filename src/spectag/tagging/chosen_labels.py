"""The labels to report: those of one list, without those of another."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from spectag.array_types import IntArray
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import read_text, split_lines
from spectag.errors import ConfigError, DataError


@dataclass(frozen=True)
class ChosenLabels:
    """Some of the labels of a model, in its order."""

    labels: LabelSet
    columns: IntArray
    """Their indices among the labels of the model, (n_chosen,)."""
    n_known: int
    """Number of labels of the model."""

    @classmethod
    def read(cls, known: LabelSet, only: Path | None, without: Path | None) -> Self:
        """The labels in the file `only`, by default all, except for those in the file `without`.

        Raises
        ------
        DataError
            If a file cannot be read, or a line is not a label of the model.
        ConfigError
            If no label is left.
        """
        chosen = set(range(len(known))) if only is None else set(_indices(only, known))
        if without is not None:
            chosen -= set(_indices(without, known))
        if not chosen:
            raise ConfigError(f"no label is left to report: {only or 'all labels'} without {without or 'any'}")
        columns = np.array(sorted(chosen), np.int64)
        return cls(LabelSet(tuple(known.names[column] for column in columns)), columns, len(known))

    def __str__(self) -> str:
        """Such as 3 of 527."""
        return f"{len(self.labels):,} of {self.n_known:,}"


def _indices(path: Path, known: LabelSet) -> Iterator[int]:
    """The index of the label in each line of a file; quotes around a label are allowed, as in a CSV."""
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        label = line.strip()
        if not label:
            continue
        fields = [label]
        if label not in known:
            with suppress(csv.Error):
                fields = [field.strip() for field in next(csv.reader([label], skipinitialspace=True, strict=True))]
        if len(fields) > 1 and label not in known and all(field in known for field in fields):
            raise DataError(f"{path}, line {number}: {len(fields)} labels ({label}); write each on a line of its own")
        yield known.index(fields[0] if len(fields) == 1 else label, where=f"{path}, line {number}")
