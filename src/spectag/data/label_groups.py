"""Groups of AudioSet's labels: "animal sounds" are Animal and all labels below it, such as Dog and Bark."""

import tomllib
from functools import cache
from importlib.resources import files

from spectag.data.label_matching import StemmedWords, stemmed_words
from spectag.data.labels import audioset_labels


@cache
def audioset_groups() -> dict[str, tuple[str, ...]]:
    """The labels of each group, by its name. A name that is a label itself is the first of them."""
    table = tomllib.loads(files("spectag.data").joinpath("audioset_groups.toml").read_text(encoding="utf-8"))
    return {
        name: sum(map(_labels_between, [[name, pieces]] if isinstance(pieces, str) else pieces), ())
        for name, pieces in table.items()
    }


def _labels_between(ends: list[str]) -> tuple[str, ...]:
    labels = audioset_labels()
    return labels[labels.index(ends[0]) : labels.index(ends[-1]) + 1]


def labels_of_group(name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Those of some labels that are in the group with a name, such as "animals" or "cattle".

    Case, endings and words such as "sounds" do not matter, neither in the name nor in the labels. There are none if no
    group has the name, or none of the labels is in it.

    Examples
    --------
    >>> labels_of_group("animal sounds", ("dog", "Rain", "Bark"))
    ('dog', 'Bark')
    """
    group = {stemmed_words(label) for label in _by_words().get(stemmed_words(name), ())}
    return tuple(label for label in labels if stemmed_words(label) in group)


@cache
def _by_words() -> dict[StemmedWords, tuple[str, ...]]:
    """The groups by the words of their names, or of the parts of these between commas."""
    groups = audioset_groups()
    parts = {stemmed_words(part): labels for name, labels in groups.items() for part in name.split(",")}
    parts.pop((), None)
    return parts | {stemmed_words(name): labels for name, labels in groups.items()}
