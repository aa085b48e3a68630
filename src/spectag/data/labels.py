"""Label names: splitting a table's field into labels, and the ordered set of labels of a model."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from spectag.errors import DataError, did_you_mean


def split_labels(field: str, *, separator: str = ",") -> tuple[str, ...]:
    """The labels in a field of a table, in their order and without repetitions: "Bark, Knock" → ("Bark", "Knock").

    A label that contains the separator must be quoted.
    """
    names = next(csv.reader([field], delimiter=separator, skipinitialspace=True)) if '"' in field else None
    return tuple(dict.fromkeys(label for name in names or field.split(separator) if (label := name.strip())))


@dataclass(frozen=True)
class LabelSet:
    """The labels of a model or a manifest, in the order of the columns of y_true and of the probabilities."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        duplicates = {name for name in self.names if self.names.count(name) > 1}
        if duplicates:
            raise DataError(f"the labels {sorted(duplicates)} occur twice; every label needs a unique name")

    @classmethod
    def collect(cls, labels_of_clips: Iterable[Sequence[str]]) -> "LabelSet":
        """All labels that occur, sorted by name."""
        return cls(tuple(sorted({label for labels in labels_of_clips for label in labels})))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def index(self, label: str, *, where: str = "") -> int:
        """Index of a label.

        Raises
        ------
        DataError
            If the label is unknown. The message begins with `where` and suggests the most similar label.
        """
        try:
            return self._positions[label]
        except KeyError:
            raise DataError(
                f"{where + ': ' if where else ''}unknown label {label!r}{did_you_mean(label, self.names) or '.'} "
                f"{len(self)} labels are known: {', '.join(self.names[:8])}{', ...' if len(self) > 8 else ''}"
            ) from None
