"""Base class of all settings, the mel, image and window settings, and reading and writing of TOML."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from spectag.errors import ConfigError, did_you_mean

Channel = Annotated[int, Field(ge=1, le=1_024)] | Literal["mix", "loudest"]
"""How several channels become one: mix is their mean, loudest the one with the most energy in the first ten minutes,
and a number is that channel, counted from 1."""

MAX_SECONDS = 7 * 86_400.0
"""Upper limit of durations in settings: a week. Settings come from strangers, too, with their models."""
MAX_PIXELS = 16_384
"""Upper limit of the height and width of images."""


class Config(BaseModel):
    """A frozen model that rejects unknown keys, NaN and infinity. The string "none" stands for None, as in TOML."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _none_from_string(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        optional = {key for key, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {key: None if key in optional and value == "none" else value for key, value in values.items()}


class MelConfig(Config):
    """Settings of log-mel spectrograms. They are stored in every bundle, and are part of every cache key.

    The defaults equal librosa: `melspectrogram` with Slaney's scale and norm, then `power_to_db`. For features like
    Kaldi's, set `mel_scale="kaldi"`, `log="ln"` and `pre_emphasis`.
    """

    sample_rate: int = Field(32_000, gt=0, le=1_000_000)
    """Sample rate in Hz."""
    n_fft: int = Field(2048, gt=1, le=2**17)
    """FFT size in samples."""
    win_length: int | None = Field(None, gt=1, le=2**17)
    """Length of the analysis window in samples; none: n_fft."""
    hop_length: int = Field(512, gt=0, le=2**20)
    """Step between frames in samples."""
    window: Literal["hann", "hann_symmetric"] = "hann"
    """Analysis window: hann is periodic, as in librosa; hann_symmetric, as in Kaldi."""
    pad_mode: Literal["constant", "reflect"] = "constant"
    """Padding at both ends of the sound: constant adds silence, reflect adds the mirrored sound."""
    pre_emphasis: float = Field(0.0, ge=0, lt=1)
    """Pre-emphasis coefficient: this fraction of the previous sample is subtracted; 0: off."""
    n_mels: int = Field(128, gt=0, le=4_096)
    """Number of mel bands."""
    f_min: float = Field(20.0, ge=0, le=500_000)
    """Lower limit of the lowest mel band in Hz."""
    f_max: float = Field(16_000.0, le=500_000)
    """Upper limit of the highest mel band in Hz."""
    mel_scale: Literal["slaney", "htk", "kaldi"] = "slaney"
    """Formula that converts Hz to mel."""
    mel_norm: Literal["slaney"] | None = "slaney"
    """slaney divides each band by its width in Hz; none does not."""
    log: Literal["db", "ln"] = "db"
    """Logarithm: db is 10 log10(max(power, amin) / ref), ln is ln(power + amin)."""
    amin: float = Field(1e-10, gt=0, le=1e6)
    """Minimum power."""
    ref: Annotated[float, Field(gt=0, le=1e18)] | Literal["max"] = 1.0
    """Power at 0 dB; max: the maximum of the clip."""
    top_db: float | None = Field(80.0, gt=0, le=10_000)
    """Raise values to at least this many dB below the maximum of the clip; none: off."""
    mean: float = Field(0.0, ge=-1e6, le=1e6)
    """Subtracted from the log-mel spectrogram."""
    std: float = Field(1.0, gt=0, le=1e6)
    """Divisor of the log-mel spectrogram, after the mean is subtracted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            limits = f"f_min={self.f_min:g} and f_max={self.f_max:g}"
            raise ValueError(f"need f_min < f_max <= sample_rate / 2 = {self.sample_rate / 2:g} Hz, got {limits}")
        if self.window_samples > self.n_fft:
            raise ValueError(f"need win_length <= n_fft, got win_length={self.win_length} and n_fft={self.n_fft}")
        if self.mel_scale == "kaldi" and self.mel_norm is not None:
            raise ValueError("Kaldi's mel bands are not normalised by area: set mel_norm to none")
        return self

    @property
    def window_samples(self) -> int:
        """Length of the analysis window in samples."""
        return self.n_fft if self.win_length is None else self.win_length


class ImageConfig(Config):
    """Settings of 8-bit images of log-mel spectrograms, with low frequencies at the bottom."""

    colormap: str = "grey"
    """Colour map: grey, or one of matplotlib, such as magma."""
    height: int | None = Field(None, gt=0, le=MAX_PIXELS)
    """Height in pixels; none: one row per mel band."""
    width: int | None = Field(None, gt=0, le=MAX_PIXELS)
    """Width in pixels; none: one column per frame."""
    low: float | None = Field(None, ge=-1e6, le=1e6)
    """Log-mel value that is black; none: the minimum of the clip."""
    high: float | None = Field(None, ge=-1e6, le=1e6)
    """Log-mel value that is white; none: the maximum of the clip."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"need low < high, got low={self.low:g} and high={self.high:g}")
        return self


class WindowConfig(Config):
    """The windows of a recording that a network gets as input."""

    window_seconds: float | None = Field(None, gt=0, le=MAX_SECONDS)
    """Window length in seconds; none: whole clips."""
    overlap_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    """Overlap with the previous window in seconds."""
    max_clip_seconds: float = Field(60.0, gt=0, le=MAX_SECONDS)
    """Split longer clips into parts of this many seconds, and pool their logits (log-mean-exp)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window_seconds is not None and self.overlap_seconds >= self.window_seconds:
            raise ValueError(f"need overlap < window, got {self.overlap_seconds:g} s and {self.window_seconds:g} s")
        return self


class LongRecordingWindows(WindowConfig):
    """The windows of recordings that are longer than a clip. Shorter recordings are clips, and tagged as a whole."""

    longer_than_seconds: float = Field(gt=0, le=MAX_SECONDS)


class SegmentFrames(WindowConfig):
    """The frames of a model instead of windows, to find segments; their thresholds are those of windows this long."""

    longer_than_seconds: float | None = Field(None, gt=0, le=MAX_SECONDS)
    """Shorter recordings are clips, and tagged as a whole; none: all recordings have frames."""


def check_window_options(window: float | None, overlap: float | None) -> None:
    """Raise a ValueError if the options --window and --overlap (seconds) contradict each other."""
    if window is None and overlap is not None:
        raise ValueError(f"--overlap {overlap:g} needs --window, the length of the windows")
    if window is not None and (overlap or 0.0) >= window:
        raise ValueError(f"need overlap < window, got {overlap:g} s and {window:g} s")


def _check_odd(number: int) -> int:
    if number % 2 == 0:
        raise PydanticCustomError("odd_number", "Input should be an odd number")
    return number


MAX_WINDOWS_HELD = 100_000
"""Largest number of windows in a row for which a label can be required to be on."""
OddNumber = Annotated[int, Field(ge=1, le=99_999), AfterValidator(_check_odd)]


class SegmentConfig(Config):
    """How the windows or frames of a recording become segments; see `spectag.models.timeline.find_segments`."""

    smooth_windows: OddNumber | None = None
    """Median filter over this odd number of windows, or of frames; 1: off; none: for frames as the model says, for
    windows 3 if three in a row overlap, else 1."""
    hysteresis: float | None = Field(None, ge=0, le=1)
    """A segment ends when the probability falls below this fraction of the threshold; none: for frames as the model
    says, for windows 0.7."""
    min_windows: int = Field(1, ge=1, le=MAX_WINDOWS_HELD)
    """A label must be on in this many windows in a row, overlapping or not, or frames, to become a segment."""
    min_duration_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    """Remove segments shorter than this many seconds."""
    max_gap_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    """Merge segments of a label with a gap of up to this many seconds."""


ConfigT = TypeVar("ConfigT", bound=Config)
_MAX_TOML_BYTES = 10_000_000
_MAX_TOML_DEPTH = 16


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a TOML file. A ConfigError if it can't be read."""
    try:
        with path.open("rb") as file:  # may be a pipe: --config <(...)
            content = file.read(_MAX_TOML_BYTES + 1)
        if len(content) > _MAX_TOML_BYTES:
            raise ConfigError(f"{path}: not a file of settings: it has more than {_MAX_TOML_BYTES:,} bytes")
        text = content.decode("utf-8-sig")
        values = tomllib.loads(text.replace("\r\n", "\n"))
        _check_depth(values)
    except OSError as error:
        raise ConfigError(f"{path}: can't read the settings: {error.strerror or error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: not a file of settings: the values are nested too deep") from None
    except ValueError as error:  # from tomllib and from decoding; an integer may have too many digits
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    return values


def _check_depth(value: Any, depth: int = 0) -> None:
    """Raise a RecursionError if tables and lists are nested deeper than settings ever are."""
    if depth > _MAX_TOML_DEPTH:
        raise RecursionError
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            _check_depth(child, depth + 1)


def parse_config(values: dict[str, Any], model: type[ConfigT], *, source: str) -> ConfigT:
    """Validate values. The message of a ConfigError starts with `source` and names each wrong setting."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explanations(error, model, source))) from error


def window_config(window: WindowConfig | float) -> WindowConfig:
    """The windows of a length in seconds, without overlap; a `WindowConfig` as it is. Otherwise a ConfigError."""
    if isinstance(window, WindowConfig):
        return window
    return parse_config({"window_seconds": window}, WindowConfig, source="window")


_EXPECTED = {  # by the start of pydantic's type of an error
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "greater_than_equal": "a number greater than or equal to {ge:g}",
    "greater_than": "a number greater than {gt:g}",
    "less_than_equal": "a number less than or equal to {le:g}",
    "less_than": "a number less than {lt:g}",
    "finite_number": "a finite number",
    "odd_number": "an odd number",
    "literal_error": "{expected}",
    "list": "a list",
    "dict": "a table of settings",
    "model": "a table of settings",
}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?", re.IGNORECASE)


def plain_reason(problem: Mapping[str, Any]) -> str:
    """What is wrong with a setting, in words for a person, from an entry of pydantic's `ValidationError.errors()`.

    >>> plain_reason({"type": "greater_than", "ctx": {"gt": 0}, "input": "-1", "msg": "..."})
    'expected a number greater than 0 (got -1)'
    """
    if problem["type"] == "value_error":  # from our validators: contains the value
        return str(problem["msg"]).removeprefix("Value error, ")
    templates = (text for start, text in _EXPECTED.items() if problem["type"].startswith(start))
    template = next(templates, None)
    reason = str(problem["msg"]) if template is None else "expected " + template.format(**problem.get("ctx", {}))
    value = problem["input"]
    shown = value if isinstance(value, str) and _NUMBER.fullmatch(value) else repr(value)
    return f"{reason} (got {shown}){decimal_point_hint(value)}"


def decimal_point_hint(value: object) -> str:
    """What to write instead of a number with a decimal comma; nothing for other values.

    >>> decimal_point_hint("0,2")
    '; write a decimal point: 0.2'
    """
    has_comma = isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value)
    return f"; write a decimal point: {str(value).replace(',', '.')}" if has_comma else ""


def _explanations(error: ValidationError, model: type[BaseModel], source: str) -> list[str]:
    """One message for each wrong setting."""
    keys = _all_keys(model)
    reasons: dict[str, list[str]] = {}
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            reason = f"unknown setting{did_you_mean(path[-1], keys)}"
        else:
            if problem["type"] != "value_error":
                path = [part for part in path if part in keys]  # a setting with several types has an error for each
            reason = plain_reason(problem)
        reasons.setdefault(": ".join([source, ".".join(path)]).removesuffix(": "), []).append(reason)
    return [f"{where}: {', or: '.join(alternatives)}" for where, alternatives in reasons.items()]


def _all_keys(model: type[BaseModel]) -> list[str]:
    keys = list(model.model_fields)
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += kind.model_fields
    return keys


def to_toml(config: Config) -> str:
    """The settings as TOML. Reading it gives equal settings."""
    return tomli_w.dumps(_without_none(config, config.model_dump(mode="json")))


def _without_none(config: Config, values: dict[str, Any]) -> dict[str, Any]:
    """Settings for TOML: None is left out if it is the default, otherwise it becomes "none"."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        setting = getattr(config, key)
        if isinstance(setting, Config):
            result[key] = _without_none(setting, value)
        elif value is not None:
            result[key] = value
        elif type(config).model_fields[key].default is not None:
            result[key] = "none"
    return result
