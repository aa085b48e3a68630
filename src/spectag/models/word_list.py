"""The words of clap:"dog barking, rain": labels, and the texts that describe each."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from spectag.config.base import Config, parse_config, read_toml
from spectag.data.labels import LabelSet, split_labels
from spectag.data.readers.delimited_text import read_text, split_lines
from spectag.errors import ConfigError
from spectag.models.limits import MAX_LABELS

_Description = Annotated[str, Field(min_length=1, max_length=1_000)]
_PLACE = "{}"
TEMPLATE = "This is a sound of {}."
"""The sentence that CLAP's authors put a label into (Wu et al., ICASSP 2023)."""


class WordList(Config):
    """Labels with their descriptions, and sentences that these are put into.

    The vector of a label is the mean of those of all its sentences.
    """

    templates: tuple[_Description, ...] = Field((TEMPLATE,), min_length=1, max_length=100)
    """Sentences with {} in place of a description."""
    words: dict[str, tuple[_Description, ...]] = Field(min_length=1, max_length=MAX_LABELS)
    """The descriptions of each label."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if wrong := next((template for template in self.templates if template.count(_PLACE) != 1), None):
            raise ValueError(f"templates: {wrong!r} needs {{}} once, in place of a description")
        if empty := next((label for label, texts in self.words.items() if not texts), None):
            raise ValueError(f"words: {empty!r} has no description")
        LabelSet(tuple(self.words))
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Words between commas; those in a .txt file, one in each line; or a .toml file with templates and [words].

        Raises
        ------
        ConfigError
            If there is no word, a word occurs twice, or the file is not valid.
        DataError
            If a .txt file cannot be read.
        """
        if Path(text).suffix.lower() == ".toml":
            return parse_config(read_toml(Path(text)), cls, source=text)
        labels = read_words(text, separator=",")
        if not labels:
            raise ConfigError(f'"clap:{text}" has no words; write them between commas: clap:"dog barking, rain"')
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise ConfigError(f"clap:{text}: {twice!r} occurs twice")
        return parse_config({"words": {label: (label,) for label in labels}}, cls, source=f"clap:{text}")

    @classmethod
    def parse_one(cls, text: str) -> Self:
        """A single description, which may contain commas."""
        return parse_config({"words": {text: (text,)}}, cls, source=text)

    @property
    def sentences(self) -> dict[str, list[str]]:
        """All sentences of each label."""
        return {
            label: [template.replace(_PLACE, text) for template in self.templates for text in texts]
            for label, texts in self.words.items()
        }


def read_words(text: str, *, separator: str | None = None) -> list[str]:
    """Words between commas, or those in a .txt file, one in each line.

    Without a separator, names of AudioSet that contain commas need no quotes.

    Raises
    ------
    DataError
        If a .txt file cannot be read.
    """
    if Path(text).suffix.lower() == ".txt":
        return [word for line in split_lines(read_text(Path(text))) if (word := line.strip())]
    return list(split_labels(text, separator=separator))
