"""The labels to report: those of a list or those that words mean, without those of another list."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Self

import numpy as np

from spectag.array_types import IntArray
from spectag.data.label_groups import labels_of_group
from spectag.data.label_matching import match_labels, stemmed_words
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import read_text, split_lines
from spectag.errors import ConfigError, DataError
from spectag.models.pretrained import audioset_synonyms
from spectag.models.word_list import read_words
from spectag.system.output import quote_commas

_N_SIMILAR, _LEAST_LIKENESS = 5, 0.7
_N_LISTED = 6  # of the labels that a word means
_STEM = 4  # letters of a word that similar labels have, too


@dataclass(frozen=True)
class ChosenLabels:
    """Some of the labels of a model, in its order."""

    labels: LabelSet
    columns: IntArray
    """Their indices among the labels of the model, (n_chosen,)."""
    n_known: int
    """Number of labels of the model."""
    matches: tuple[str, ...] = ()
    """Of each of the words, the labels that it means, for the log."""

    @classmethod
    def read(cls, known: LabelSet, only: Path | None, without: Path | None, *, words: str | None = None) -> Self:
        """The labels in the file `only`, or those that `words` mean, by default all; without those in a file.

        Raises
        ------
        DataError
            If a file cannot be read, or a line is not a label of the model.
        ConfigError
            If no label is left, or a word means none.
        """
        chosen = set(range(len(known))) if only is None else set(_indices(only, known))
        found = {} if words is None else match_words(words, known)
        if words is not None:
            chosen = {known.names.index(name) for names in found.values() for name in names}
        if without is not None:
            chosen -= set(_indices(without, known))
        if not chosen:
            raise ConfigError(f"no label is left to report: {only or words or 'all labels'} without {without or 'any'}")
        columns = np.array(sorted(chosen), np.int64)
        matches = tuple(f"{word} → {_listed(names)}" for word, names in found.items())
        return cls(LabelSet(tuple(known.names[column] for column in columns)), columns, len(known), matches)

    def __str__(self) -> str:
        """Such as 3 of 527."""
        return f"{len(self.labels):,} of {self.n_known:,}"


def match_words(words: str, known: LabelSet) -> dict[str, tuple[str, ...]]:
    """The labels that each of the words between commas, or in the lines of a .txt file, means.

    These are the label with this name and, in groups of AudioSet such as "animal sounds", all labels below it; else
    those that match it by AudioSet's synonyms or by a part of the words; else those that contain all its words.

    Raises
    ------
    ConfigError
        If words mean no label. The message names them all, each with the most similar labels.
    DataError
        If a .txt file cannot be read.
    """
    wanted = read_words(words)
    if not wanted:
        raise ConfigError(f"--words {words!r}: no words; write them between commas")
    found = {word: _meant(word, known.names) for word in wanted}
    if unknown := [f"{word!r}; {_similar(word, known)}" for word, names in found.items() if not names]:
        remedy = "Leave it out" if len(unknown) == 1 else "Leave them out"
        raise ConfigError(
            f"--words: no label of the model means {'. None means '.join(unknown)}. {remedy}, or use CLAP, which needs "
            "no labels: spectag models clap"
        )
    return found


def _meant(word: str, known: tuple[str, ...]) -> tuple[str, ...]:
    stems = stemmed_words(word)
    group = labels_of_group(word, known)
    if named := tuple(name for name in known if name in group or stemmed_words(name) == stems):
        return named
    synonyms = audioset_synonyms()
    if any(stemmed_words(synonym) == stems for synonym, names in synonyms.items() if not names):
        return ()
    in_model = {synonym: tuple(name for name in names if name in known) for synonym, names in synonyms.items()}
    usable = {synonym: names for synonym, names in in_model.items() if names}
    if matched := match_labels([word], known, usable).get(word):
        return matched
    return tuple(name for name in known if stems and set(stems) <= set(stemmed_words(name)))


def _similar(word: str, known: LabelSet) -> str:
    """The labels that share the start of one of the words, or are spelled alike."""
    starts = [part[:_STEM].casefold() for part in word.split() if len(part) >= _STEM]
    alike = get_close_matches(word, known.names, n=_N_SIMILAR, cutoff=_LEAST_LIKENESS)
    related = [name for name in known.names if any(start in name.casefold() for start in starts)]
    similar = list(dict.fromkeys([*related[:_N_SIMILAR], *alike]))[:_N_SIMILAR]
    if similar:
        return f"similar ones are {'; '.join(similar)}"
    return "spectag labels MODEL lists all, perhaps with a broader one, as Insect is for cicadas"


def _listed(names: tuple[str, ...]) -> str:
    """Such as Rain + Raindrop, the number of others if there are many."""
    n_others = len(names) - _N_LISTED if len(names) > _N_LISTED + 1 else 0
    shown = " + ".join(map(quote_commas, names[: len(names) - n_others]))
    return f"{shown} and {n_others} others" if n_others else shown


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
