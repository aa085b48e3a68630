"""Label names: splitting a table's field into labels, and the ordered set of labels of a model."""

import csv
import re
import unicodedata
from ast import literal_eval
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

from spectag.data.readers.text_files import shorten
from spectag.errors import DataError, did_you_mean
from spectag.system.output import quote_commas


@cache
def audioset_labels() -> tuple[str, ...]:
    """The display names of AudioSet's 527 labels, in the order of the networks' outputs."""
    text = files("spectag.data").joinpath("audioset_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


@cache
def _audioset_name_with_comma() -> re.Pattern[str]:
    """A name such as "Chicken, rooster", as a whole item of a list with commas."""
    names = sorted((name for name in audioset_labels() if ", " in name), key=len, reverse=True)
    return re.compile(rf"(?<![^,])\s*({'|'.join(map(re.escape, names))})\s*(?![^,])")


def split_labels(field: str, *, separator: str | None = None) -> tuple[str, ...]:
    """The labels in a field of a table, in their order and without repetitions: "Bark, Knock" → ("Bark", "Knock").

    A label that contains the separator must be quoted. Without a separator, it is the comma, and names of AudioSet
    such as "Chicken, rooster" need no quotes.
    """
    if separator is None:
        separator = ","
        if ", " in field and '"' not in field:
            field = _audioset_name_with_comma().sub(r'"\1"', field)
    names = None
    if '"' in field and len(separator) == 1:
        with suppress(csv.Error):
            names = next(csv.reader([field], delimiter=separator, skipinitialspace=True, strict=True), [])
    return tuple(dict.fromkeys(label for name in names or field.split(separator) if (label := name.strip())))


_N_SHOWN = 5  # labels in the text of a LabelSet
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_NESTED = re.compile(r"""[\[{]\s*[\[{]|\{\s*["']""")
NO_LABEL = frozenset({"", "set()", "nocall"})
"""Texts that say that none of the labels is true."""
MISSING_VALUES = frozenset({"nan", "NaN", "NA", "<NA>", "N/A", "n/a", "None", "none", "NULL", "null"})
"""What programs write into an empty cell."""


def parse_label_list(field: str) -> tuple[str, ...] | None:
    """The labels of a list that a program wrote as text, or None if the field is not a list.

    Lists, sets and tuples of Python, arrays of NumPy and JSON are read, also with a single label or without any.

    >>> parse_label_list("['Dog', 'Cat']"), parse_label_list("[]"), parse_label_list("Sink_(filling)")
    (('Dog', 'Cat'), (), None)
    """
    if len(field) < 2 or _BRACKETS.get(field[0]) != field[-1]:
        return None
    inner = field[1:-1]
    texts = _QUOTED.findall(inner)
    rest = _QUOTED.sub("", inner).replace(",", " ").split()
    if set(rest) <= {"nan", "None", "null"} and (texts or rest or field[0] != "(" or not inner.strip()):
        with suppress(ValueError, SyntaxError):
            labels = [str(literal_eval(text)).strip() for text in texts]
            return tuple(dict.fromkeys(label for label in labels if label))
    if field[0] == "[" and not texts:  # [Dog, Cat]
        return split_labels(inner)
    return None


class LabelSplitter:
    """Splits the fields of a column into labels, each different field once.

    Parameters
    ----------
    separator : str, optional
        What separates labels. By default a comma, or the field is a list that a program wrote as text.
    """

    def __init__(self, separator: str | None = None) -> None:
        if separator == "":
            raise DataError("the separator of labels is empty; expected a text such as ';'")
        self._separator = separator
        self._labels: dict[str, tuple[str, ...]] = dict.fromkeys(NO_LABEL | MISSING_VALUES, ())
        self.possible_separators: dict[str, tuple[int, str]] = {}
        """Number of different fields, and an example, by character that could separate labels, but was not split at."""
        self.n_missing = Counter[str]()
        """Number of rows by text that programs write into an empty cell, counted by the reader of the rows."""

    def __call__(self, field: str) -> tuple[str, ...]:
        """The labels in a field.

        Raises
        ------
        DataError
            If the field contains JSON with more than a list of labels.
        """
        labels = self._labels.get(field)
        if labels is None:
            labels = self._labels[field] = self._split(field)
        return labels

    def _split(self, field: str) -> tuple[str, ...]:
        listed = parse_label_list(field)
        if listed is not None:
            return listed
        if _NESTED.match(field):
            raise DataError(
                f"'{shorten(field)}' is not a list of labels; expected labels separated by commas, or a list such as "
                "['Dog', 'Cat']"
            )
        for separator in ";|" if self._separator is None else "":
            if separator in field:
                n_fields, example = self.possible_separators.get(separator, (0, field))
                self.possible_separators[separator] = n_fields + 1, example
        return split_labels(field, separator=self._separator)


def split_up_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """The labels with the name of AudioSet of which a part between commas is a label too, each with this part."""
    known = dict.fromkeys(names)
    whole = [name for name in known if ", " in name and name in audioset_labels()]
    parts = ((name, part) for name in whole for part in name.split(", "))
    return [(name, part) for name, part in parts if part in known]


def similar_labels(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of labels that differ only by case, spaces, hyphens, underscores, or Unicode form."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(spelling_of(name), {})[name] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def spelling_of(label: str) -> str:
    """A label without what similar labels may differ in: case, spaces, hyphens, underscores, Unicode form."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", label).casefold()) or label


@dataclass(frozen=True, repr=False)
class LabelSet:
    """The labels of a model or a manifest, in the order of the columns of y_true and of the probabilities."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        duplicates = {name for name, count in Counter(self.names).items() if count > 1}
        if duplicates:
            raise DataError(f"the labels {sorted(duplicates)} occur twice; every label needs a unique name")

    @classmethod
    def collect(cls, labels_of_clips: Iterable[Sequence[str]]) -> "LabelSet":
        """All labels that occur, sorted by name."""
        return cls(tuple(sorted({label for labels in labels_of_clips for label in labels})))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, position: int) -> str:
        return self.names[position]

    def __repr__(self) -> str:
        """The first labels and their number."""
        more = f", ... {len(self):,} labels" if len(self) > _N_SHOWN else ""
        return f"LabelSet({', '.join(map(repr, self.names[:_N_SHOWN]))}{more})"

    def __contains__(self, label: str) -> bool:
        return label in self._positions

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
                f"{len(self)} labels are known: {', '.join(map(quote_commas, self.names[:8]))}"
                f"{', ...' if len(self) > 8 else ''}"
            ) from None
