"""Network cards: TOML files that describe an ONNX network of somebody else, so that spectag can use it.

A card comes from a stranger, as the network does: every number has an upper limit, and paths stay in the card's folder.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from spectag.config.base import Config, MelConfig, parse_config, read_toml
from spectag.config.padding import Padding
from spectag.errors import ConfigError
from spectag.system.cache import cache_folder
from spectag.system.regular_files import check_regular_file

CARD_FILE = "card.toml"
SUFFIX = ".toml"
MAX_CARD_BYTES = 1_000_000
MAX_INPUT_SECONDS = 600.0
"""Longest sound that the network of a card may take at once."""
_MIN_SAMPLE_RATE, _MAX_SAMPLE_RATE = 100, 1_000_000
_MAX_SAMPLES = 100_000_000  # of the input; 50 minutes at 32 kHz
_MIN_SECONDS = 0.01  # shorter parts of long recordings would take too much time
_VIEW_SECONDS = 0.064  # of an FFT
_VIEW_BANDS = 64
_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}[a-z0-9]$"
_HUB_FILE = re.compile(r"hf:(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)/(?P<path>[\w./=+-]+)", re.ASCII)
_WEB_ADDRESS = re.compile(r"https?://[^\s\"'<>\\]+")
_THIS_MACHINE = re.compile(r"http://(127\.0\.0\.1|localhost)[:/]")
_PACKAGED = Path(__file__).parents[1] / "models" / "cards"


def _check_printable(value: str) -> str:
    if not value.isprintable():  # control characters can change a terminal
        raise ValueError(f"expected one line of printable text, got {value[:60]!r}")
    return value


def _check_name(value: str) -> str:
    if value.endswith(SUFFIX):
        raise ValueError(f"expected a name that does not end in {SUFFIX}, as paths of cards do, got {value!r}")
    return value


Text = Annotated[str, Field(max_length=1_000), AfterValidator(_check_printable)]
OutputName = Annotated[str, Field(min_length=1, max_length=500)] | Annotated[int, Field(ge=0, le=1_000)]
"""An output of a network, or any tensor in it, by its name; or an output by its position, counted from 0."""
Axis = Literal["batch", "channel", "samples", "bands", "frames"]


def _check_file(value: str) -> str:
    _check_printable(value)
    if _WEB_ADDRESS.fullmatch(value):
        return value
    if value.startswith("hf:"):
        match = _HUB_FILE.fullmatch(value)
        if match is None or ".." in match["path"].split("/"):
            raise ValueError(f"expected a file on the hub such as hf:user/name/model.onnx, got {value!r}")
        return value
    path = PurePosixPath(value)
    if not value or "\\" in value or ":" in value or "\0" in value or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"expected a path inside the folder of the card, a URL or hf:user/name/file, got {value!r}")
    return value


def _check_web_address(value: str) -> str:
    if not _WEB_ADDRESS.fullmatch(value) or not value.isprintable():
        raise ValueError(f"expected an address that starts with https://, got {value!r}")
    return value


class CardFile(Config):
    """A file that a card refers to."""

    file: Annotated[str, Field(max_length=2_000), AfterValidator(_check_file)]
    """A path relative to the card and inside its folder, a URL, or hf:user/name/path on the Hugging Face Hub."""
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """none: the content of the first download is trusted, and must not change later."""
    revision: str = Field("main", pattern=r"^[A-Za-z0-9][\w.-]{0,199}$")
    """Branch, tag or commit on the hub."""

    @model_validator(mode="after")
    def _check_pinned(self) -> Self:
        if self.sha256 is None and self.file.startswith("http://") and not _THIS_MACHINE.match(self.file):
            raise ValueError(f"{self.file} needs its sha256, because anybody on the way can change it; or use https")
        return self

    @property
    def hub_path(self) -> tuple[str, str] | None:
        """The repository on the hub and the path in it; None for other files."""
        match = _HUB_FILE.fullmatch(self.file)
        return None if match is None else (match["repository"], match["path"])

    @property
    def is_local(self) -> bool:
        """Whether it is beside the card."""
        return not self.file.startswith(("http://", "https://", "hf:"))


class CardInput(Config):
    """What the network takes."""

    kind: Literal["waveform", "log_mel"]
    name: Annotated[str, Field(max_length=500), AfterValidator(_check_printable)] | None = None
    """Of the input; needed only if the network has several."""
    sample_rate: int | None = Field(None, ge=_MIN_SAMPLE_RATE, le=_MAX_SAMPLE_RATE)
    """Of a waveform, in Hz."""
    mel: MelConfig | None = None
    """Settings of a log-mel spectrogram, with `mean` and `std`."""
    window_seconds: float | None = Field(None, ge=_MIN_SECONDS, le=MAX_INPUT_SECONDS)
    """Length of a network that takes only one length."""
    n_frames: int | None = Field(None, ge=1, le=1_000_000)
    """The same for a log-mel spectrogram."""
    min_seconds: float | None = Field(None, ge=_MIN_SECONDS, le=MAX_INPUT_SECONDS)
    """Shortest sound, if the network takes sounds of any length."""
    max_seconds: float | None = Field(None, ge=_MIN_SECONDS, le=MAX_INPUT_SECONDS)
    """Longest sound; longer ones are processed in parts."""
    padding: Padding = "silence"
    """How shorter sounds become long enough: silence follows, or they are repeated."""
    axes: tuple[Axis, ...] | None = Field(None, max_length=4)
    """Of the input, such as ["batch", "frames", "bands"]; none: found from its shape."""
    normalize: Literal["none", "peak", "standard"] = "none"
    """peak: divide by the largest absolute value; standard: subtract the mean, then divide by the deviation."""
    scale: float = Field(1.0, gt=0, le=1e9)
    """Factor after `normalize`, such as 0.25 for a peak of 0.25, or 32768 for samples of 16 bits."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind == "waveform" and (self.sample_rate is None or self.mel is not None or self.n_frames is not None):
            raise ValueError("input: a waveform needs sample_rate, and has neither mel nor n_frames")
        if self.kind == "log_mel" and (self.mel is None or self.sample_rate is not None):
            raise ValueError("input: a log_mel needs the table [input.mel], in which sample_rate is")
        needed = {"samples"} if self.kind == "waveform" else {"bands", "frames"}
        if self.axes is not None and (
            len(set(self.axes)) < len(self.axes) or set(self.axes) - {"batch", "channel"} != needed
        ):
            raise ValueError(f"input: axes of a {self.kind} are {', '.join(sorted(needed))}, batch and channel")
        return self

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        fixed = [name for name in ("window_seconds", "n_frames") if getattr(self, name) is not None]
        ranges = [name for name in ("min_seconds", "max_seconds") if getattr(self, name) is not None]
        if len(fixed) > 1 or (fixed and ranges):
            raise ValueError(f"input: {' and '.join(fixed + ranges)} exclude each other")
        if len(ranges) == 2 and (self.min_seconds or 0) > (self.max_seconds or 0):
            raise ValueError(f"input: min_seconds {self.min_seconds} is above max_seconds {self.max_seconds}")
        if self.n_frames is not None:
            seconds = (self.sample_limits[1] or 0) / self.rate
            if not _MIN_SECONDS <= seconds <= MAX_INPUT_SECONDS:
                limits = f"{_MIN_SECONDS:g} to {MAX_INPUT_SECONDS:g} s"
                raise ValueError(f"input: {self.n_frames} frames are {seconds:g} s, expected {limits}")
        if (n_samples := max(each or 0 for each in self.sample_limits)) > _MAX_SAMPLES:
            raise ValueError(f"input: the length is {n_samples:,} samples, expected at most {_MAX_SAMPLES:,}")
        return self

    @property
    def rate(self) -> int:
        """The sample rate in Hz, of both kinds."""
        rate = self.sample_rate if self.mel is None else self.mel.sample_rate
        assert rate is not None
        return rate

    @property
    def sample_limits(self) -> tuple[int | None, int | None]:
        """The smallest and the largest number of samples; None: no limit."""
        if self.n_frames is not None:
            assert self.mel is not None
            n_samples = max(1, (self.n_frames - 1) * self.mel.hop_length)
            return n_samples, n_samples
        if self.window_seconds is not None:
            n_samples = max(1, round(self.window_seconds * self.rate))
            return n_samples, n_samples
        seconds = self.min_seconds, self.max_seconds
        shortest, longest = (None if value is None else max(1, round(value * self.rate)) for value in seconds)
        return shortest, longest

    @property
    def view(self) -> MelConfig:
        """The settings of the spectrogram: of a waveform, those with which people see it."""
        if self.mel is not None:
            return self.mel
        n_fft = 2 ** min(17, max(9, ceil(log2(_VIEW_SECONDS * self.rate))))
        return MelConfig(
            sample_rate=self.rate,
            n_fft=n_fft,
            hop_length=n_fft // 4,
            n_mels=_VIEW_BANDS,
            f_min=0.0,
            f_max=min(16_000.0, self.rate / 2),
        )


class CardOutputs(Config):
    """What the network computes. An output is given by name or by position."""

    embedding: OutputName | None = None
    """(batch, n_features)"""
    frames: OutputName | None = None
    """Embeddings over time, (batch, n_frames, n_features): their mean and deviation are features."""
    logits: OutputName | None = None
    """(batch, n_labels), or (batch, n_frames, n_labels)"""
    probabilities: OutputName | None = None
    """Instead of logits, of the same shapes."""
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    """What turns logits into probabilities."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.logits is not None and self.probabilities is not None:
            raise ValueError("outputs: give logits or probabilities, not both")
        if self.activation != "sigmoid" and self.logits is None:
            raise ValueError("outputs: activation is for logits")
        values = [
            value for value in (self.embedding, self.frames, self.logits, self.probabilities) if value is not None
        ]
        for value in values:
            _check_printable(str(value))
        if not values:
            raise ValueError("outputs: need embedding, frames, logits or probabilities")
        return self

    @property
    def has_labels(self) -> bool:
        """Whether the network has an output for labels."""
        return self.logits is not None or self.probabilities is not None


class CardLabels(Config):
    """The names of the labels, in the order of the logits."""

    names: Literal["audioset"] | None = None
    """audioset: the 527 labels of AudioSet."""
    source: CardFile | None = None
    """A text file with one label in each line, or a CSV."""
    column: str | None = Field(None, max_length=200)
    """Of the CSV; by default display_name, label or name, or the only column."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.names is None) == (self.source is None):
            raise ValueError("labels: give names or source")
        return self


class NetworkCard(Config):
    """A network card."""

    version: Literal[1] = 1
    """Of the format."""
    name: Annotated[str, Field(pattern=_NAME), AfterValidator(_check_name)]
    """By which the network is used after `spectag models add`: lower case, digits, dots and hyphens."""
    title: Text = ""
    trained_on: Text
    licence: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_printable)]
    """Of the weights, as an SPDX identifier if there is one."""
    homepage: Annotated[str, Field(max_length=2_000), AfterValidator(_check_web_address)]
    citation: Text = ""
    note: Text = ""
    """What else a user should know."""
    network: CardFile
    input: CardInput
    outputs: CardOutputs
    labels: CardLabels | None = None
    threshold: float = Field(0.5, gt=0, lt=1)
    """Of all labels, until they are calibrated."""

    @property
    def is_model(self) -> bool:
        """Whether it can tag without training."""
        return self.outputs.has_labels and self.labels is not None


@dataclass(frozen=True)
class StoredCard:
    """A card and where it is."""

    card: NetworkCard
    path: Path
    is_packaged: bool = False
    """Part of spectag; without a SHA-256, nobody has compared its network with the original yet."""

    @property
    def is_verified(self) -> bool:
        """Whether the SHA-256 of the network is known; cards that a user has added are pinned."""
        return self.card.network.sha256 is not None

    @property
    def warning(self) -> str | None:
        """What to say when an unverified card is used; None for others."""
        if not self.is_packaged or self.is_verified:
            return None
        return (
            f"{self.card.name} is an unverified network card: nobody has compared the network with the original yet; "
            f"spectag models check {self.card.name} runs it"
        )


def added_cards_folder() -> Path:
    """The folder of the cards that the user has added."""
    return cache_folder() / "cards"


def is_card(reference: object) -> bool:
    """Whether this names a network card: a path that ends in .toml, or the name of a known card."""
    return _card_path(str(reference)) is not None


def open_card(reference: str | Path) -> StoredCard:
    """Read and check a card, by its path or name.

    Raises
    ------
    ConfigError
        If there is no such card, or it is not valid.
    """
    path = _card_path(str(reference))
    if path is None:
        names = ", ".join(card.card.name for card in known_cards()) or "none"
        raise ConfigError(f"{reference}: no network card; give a file that ends in .toml, or one of {names}")
    return _read(path)


def known_cards() -> Iterator[StoredCard]:
    """The cards that the user has added, then those of spectag that are not among them; damaged ones are left out."""
    names = set()
    for path in (*sorted(added_cards_folder().glob(f"*/{CARD_FILE}")), *sorted(_PACKAGED.glob(f"*{SUFFIX}"))):
        try:
            stored = _read(path)
        except ConfigError:
            continue
        if stored.card.name not in names:
            names.add(stored.card.name)
            yield stored


def _card_path(reference: str) -> Path | None:
    if reference.lower().endswith(SUFFIX):
        return Path(reference)
    if not re.fullmatch(_NAME, reference):
        return None
    paths = added_cards_folder() / reference / CARD_FILE, _PACKAGED / f"{reference}{SUFFIX}"
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path) -> StoredCard:
    try:
        check_regular_file(path, max_bytes=MAX_CARD_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the network card: {error.strerror or error}") from error
    return StoredCard(parse_config(read_toml(path), NetworkCard, source=str(path)), path, path.parent == _PACKAGED)
