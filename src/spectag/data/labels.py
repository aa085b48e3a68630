"""Labels: the names that a tagger knows, in a fixed order."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from spectag.errors import DataError, did_you_mean


def split_labels(field: str, *, separator: str = ",") -> tuple[str, ...]:
    """The labels in a table's field, in their order, each once: "Bark, Knock" → ("Bark", "Knock").

    A label that holds the separator stands in quotation marks.
    """
    parts = next(csv.reader([field], delimiter=separator, skipinitialspace=True)) if '"' in field else None
    return tuple(dict.fromkeys(label for part in parts or field.split(separator) if (label := part.strip())))


@dataclass(frozen=True)
class LabelSet:
    """The labels of a tagger, in the order of its probabilities."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise DataError(f"the labels {sorted(twice)} are named twice; each label needs a name of its own")

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
        """Position of a label; an unknown one is a DataError that begins with `where` and names the nearest."""
        try:
            return self._positions[label]
        except KeyError:
            raise DataError(
                f"{where + ': ' if where else ''}unknown label {label!r}{did_you_mean(label, self.names) or '.'} "
                f"{len(self)} labels are known: {', '.join(self.names[:8])}{', ...' if len(self) > 8 else ''}"
            ) from None
