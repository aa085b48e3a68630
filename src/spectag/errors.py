"""Foreseen errors: each becomes one line for the user and exit status 1, never a traceback."""

import difflib
from collections.abc import Iterable


class SpectagError(Exception):
    """A foreseen error. Its message says where, what came, what was expected and what to do."""


class ConfigError(SpectagError):
    """Settings that do not fit together, or a settings file that can't be read."""


class AudioError(SpectagError):
    """A sound that can't be read."""


class EndOfSoundError(AudioError):
    """A stretch that begins where the sound has ended."""


class DataError(SpectagError):
    """A manifest, a table or an image that does not say what it should."""


class SpectrogramCacheError(SpectagError):
    """A bank that can't be written or read."""


class WeightsError(SpectagError):
    """Pretrained weights that can't be had or are not what they should be."""


class BundleError(SpectagError):
    """A tagger on disk that can't be read."""


class MissingExtraError(SpectagError):
    """A package that belongs to an extra which is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'spectag[{extra}]'")
        self._arguments = package, extra, purpose

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str, str]]:
        """Let it come through from worker processes."""
        return type(self), self._arguments


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word nearest to `word`, or "" when none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
