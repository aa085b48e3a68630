"""Match the labels of one data set with the names that another one has for the same sounds."""

import re
from collections.abc import Mapping, Sequence

StemmedWords = tuple[str, ...]

_IGNORED = {"a", "an", "and", "etc", "in", "of", "on", "or", "sound", "sounds", "the", "to", "with"}
_TOO_GENERAL = {"nois"}  # noise, as a part of a label
_NEGATIONS = {"absent", "no", "non", "not", "off", "without"}
_ENDINGS = ("ings", "ing", "ies", "es", "ed", "s")
_SHORTEST_STEM = 3


def match_labels(
    labels: Sequence[str], names: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """The names that mean the same as each label; labels without any are left out.

    Case, punctuation and endings such as -ing and -s do not matter. A label matches the name with the same words; else
    the names of its entry in the synonyms; else the names that have the same words in any order, or in one of their
    parts between commas; else the names or parts with the most words that are all in the label, unless the label has a
    word such as "no".

    Parameters
    ----------
    labels, names : sequences of str
    synonyms : mapping of str to sequences of str, optional
        Names for further labels. An empty sequence says that no name means the same.

    Examples
    --------
    >>> match_labels(["Rooster", "dog_barking", "Zither"], ["Chicken, rooster", "Bark", "Dog", "Cat"])
    {'Rooster': ('Chicken, rooster',), 'dog_barking': ('Bark', 'Dog')}
    """
    words_of_synonyms = {stemmed_words(label): tuple(meanings) for label, meanings in (synonyms or {}).items()}
    full_names = [(name, stemmed_words(name)) for name in names]
    parts = full_names + [(name, stemmed_words(part)) for name in names for part in name.split(",")]
    matches = {label: _match(stemmed_words(label), full_names, parts, words_of_synonyms) for label in labels}
    return {label: found for label, found in matches.items() if found}


def _match(
    label: StemmedWords,
    full_names: Sequence[tuple[str, StemmedWords]],
    parts: Sequence[tuple[str, StemmedWords]],
    synonyms: Mapping[StemmedWords, tuple[str, ...]],
) -> tuple[str, ...]:
    if not label:
        return ()
    if equal := [name for name, words in full_names if words == label]:
        return tuple(equal)
    if label in synonyms:
        return synonyms[label]
    if _NEGATIONS & set(label):
        return ()
    within = [(name, words) for name, words in parts if set(words) <= set(label) and set(words) - _TOO_GENERAL]
    most = max((len(words) for _, words in within), default=0)
    return tuple(dict.fromkeys(name for name, words in within if len(words) == most))


def stemmed_words(text: str) -> StemmedWords:
    """The stems of the words that matter."""
    return tuple(_stem(word) for word in re.findall(r"[^\W_]+", text.lower()) if word not in _IGNORED)


def _stem(word: str) -> str:
    """The word without its ending; not always a stem of the language, but the same for all forms of most words."""
    ending = next((ending for ending in _ENDINGS if word.endswith(ending)), "")
    stem = word.removesuffix(ending) if len(word) - len(ending) >= _SHORTEST_STEM else word
    if len(stem) > _SHORTEST_STEM and stem[-1] == stem[-2]:
        stem = stem[:-1]  # clapping, clap
    return stem[:-1] if len(stem) > _SHORTEST_STEM and stem[-1] in "ey" else stem
