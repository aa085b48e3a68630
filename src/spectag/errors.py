"""The errors that spectag expects. The command line prints each as one line and exits with status 1.

Exception
├── SpectagError
│   ├── ConfigError             settings that are wrong or contradict each other
│   ├── AudioError              a sound that cannot be read or written
│   │   └── EndOfSoundError     an excerpt that starts after the end of the sound
│   ├── DataError               a manifest, table or image with wrong content
│   ├── SpectrogramCacheError   a spectrogram cache that cannot be read or written
│   ├── WeightsError            pretrained weights that are missing or wrong
│   ├── BundleError             a model bundle that cannot be read
│   ├── MissingExtraError       an optional package that is not installed
│   ├── WorkerDiedError         a worker process that was killed (spectag.system.worker_pool)
│   ├── WorkerStartError        a worker process that the system does not start (spectag.system.worker_pool)
│   └── ClusterError            a Ray cluster that cannot be used (spectag.tagging.ray_engine)
└── OSError
    └── DownloadError           a file that the server does not deliver (spectag.system.download)
"""

import difflib
import re
from collections.abc import Iterable, Iterator


class SpectagError(Exception):
    """Base class. The message names the place, what was found, what was expected and what to do."""


class ConfigError(SpectagError):
    """Settings contradict each other, or a settings file cannot be read."""


class AudioError(SpectagError):
    """A sound cannot be read or written."""


class EndOfSoundError(AudioError):
    """An excerpt starts at or after the end of the sound."""


class DataError(SpectagError):
    """A manifest, a table or an image has the wrong content."""


class DataWarning(UserWarning):
    """Something in a manifest was read in a way that may not be meant. The command line prints it as one line."""


class DeviceWarning(UserWarning):
    """A network, or a part of it, runs on the CPU though another device was to be used."""


class SpectrogramCacheError(SpectagError):
    """A spectrogram cache cannot be read or written."""


class WeightsError(SpectagError):
    """Pretrained weights are missing, or they are not the published ones."""


class BundleError(SpectagError):
    """A model bundle cannot be read."""


class MissingExtraError(SpectagError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        name = "PyTorch" if package == "torch" else f"the package {package}"
        super().__init__(f"{purpose} needs {name}: pip install 'spectag[{extra}]'")
        self._arguments = package, extra, purpose

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str, str]]:
        """Pickle the arguments, so that worker processes can raise this error."""
        return type(self), self._arguments


def closest_in_order(word: str, known: Iterable[str]) -> str | None:
    """The known word that is probably meant; of words that are about equally close, the first. None if none is close.

    Case, punctuation and leading zeros do not count, and a part of a known word may be enough. So with models in the
    order of their size, the smallest of those with a similar name is suggested.

    >>> closest_in_order("mn4", ["audioset-mn04", "audioset-mn40"])
    'audioset-mn04'
    """
    names = {name: _normal(name) for name in known}
    wanted = _normal(word)
    for is_meant in (wanted.__eq__, lambda name: name.endswith(wanted), lambda name: name.startswith(wanted)):
        meant = [name for name, normal in names.items() if wanted and is_meant(normal)]
        if meant:
            return meant[0]
    ratios = {name: difflib.SequenceMatcher(None, wanted, normal).ratio() for name, normal in names.items()}
    best = max(ratios.values(), default=0.0)
    return next((name for name, ratio in ratios.items() if ratio >= max(_LEAST_RATIO, best - _SAME_RATIO)), None)


_LEAST_RATIO, _SAME_RATIO = 0.6, 0.05  # of difflib: to be similar, and to be as similar as another word


def _normal(name: str) -> str:
    """Lower case, without punctuation and leading zeros."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\W_]", "", name.casefold()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the closest known word, or "" if no word is close."""
    closest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {closest[0]!r}?" if closest else ""


def first_line(error: Exception) -> str:
    """The first line of an error's text, for one-line messages; the name of its class if it has no text."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def no_connection(error: BaseException) -> str:
    """For a client of the network: "no connection" if the server was not reached, or "" if it is another error."""
    names = {type(each).__name__ for each in _chain_of(error)}
    return "no connection" if names & _NO_CONNECTION else ""


_NO_CONNECTION = {
    "ConnectError",
    "ConnectionError",
    "ConnectTimeout",
    "OfflineModeIsEnabled",
    "gaierror",
}  # by any client


def _chain_of(error: BaseException) -> Iterator[BaseException]:
    """An error, and the errors that have led to it."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__
