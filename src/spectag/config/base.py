"""Settings: frozen models that check themselves, read from TOML and stored in every bundle and bank."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spectag.errors import ConfigError, did_you_mean


class Config(BaseModel):
    """A frozen model that takes no unknown key, NaN or infinity. TOML has no null: the word "none" stands for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        may_be_none = {key for key, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {key: None if key in may_be_none and value == "none" else value for key, value in values.items()}


class MelConfig(Config):
    """How a waveform becomes a log_mel; part of every bundle and of every key in a bank.

    The defaults are librosa's (`melspectrogram` with Slaney's scale and norm, then `power_to_db`).
    `mel_scale="kaldi"`, `log="ln"` and `pre_emphasis` make Kaldi's family.
    """

    sample_rate: int = Field(32_000, gt=0)
    """Hz."""
    n_fft: int = Field(2048, gt=1)
    """Size of the FFT in samples."""
    win_length: int | None = Field(None, gt=1)
    """Length of the analysis window in samples; none: n_fft."""
    hop_length: int = Field(512, gt=0)
    """Samples from frame to frame."""
    window: Literal["hann", "hann_symmetric"] = "hann"
    """hann is periodic, as librosa's; hann_symmetric is as Kaldi's."""
    pad_mode: Literal["constant", "reflect"] = "constant"
    """What lies beyond both ends of the sound: silence, or its mirror image."""
    pre_emphasis: float = Field(0.0, ge=0, lt=1)
    """Share of the sample before that is taken off each sample; 0: none."""
    n_mels: int = Field(128, gt=0)
    """Mel bands."""
    f_min: float = Field(20.0, ge=0)
    """Hz, where the lowest band begins."""
    f_max: float = 16_000.0
    """Hz, where the highest band ends."""
    mel_scale: Literal["slaney", "htk", "kaldi"] = "slaney"
    """How Hz become mels."""
    mel_norm: Literal["slaney"] | None = "slaney"
    """Divide each band by its width in Hz (slaney), or not (none)."""
    log: Literal["db", "ln"] = "db"
    """db: 10 log10(max(power, amin) / ref); ln: ln(power + amin)."""
    amin: float = Field(1e-10, gt=0)
    """Least power."""
    ref: Annotated[float, Field(gt=0)] | Literal["max"] = 1.0
    """Power at 0 dB; max: the clip's loudest."""
    top_db: float | None = Field(80.0, gt=0)
    """dB below the clip's loudest where the log_mel is cut off; none: nowhere."""
    mean: float = 0.0
    """Taken off the log_mel."""
    std: float = Field(1.0, gt=0)
    """What the log_mel is then divided by."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"need f_min < f_max <= sample_rate / 2 = {self.sample_rate / 2:g} Hz, "
                f"got f_min={self.f_min:g} and f_max={self.f_max:g}"
            )
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
    """How a log_mel becomes an 8-bit image, low frequencies at the bottom."""

    colormap: str = "grey"
    """grey, or one of matplotlib's, such as magma."""
    height: int | None = Field(None, gt=0)
    """Pixels; none: a row for each mel band."""
    width: int | None = Field(None, gt=0)
    """Pixels; none: a column for each frame."""
    low: float | None = None
    """The log_mel that is black; none: the clip's least."""
    high: float | None = None
    """The log_mel that is white; none: the clip's greatest."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"need low < high, got low={self.low:g} and high={self.high:g}")
        return self


class WindowConfig(Config):
    """Which stretches of a recording the network sees."""

    window_seconds: float | None = Field(None, gt=0)
    """Length of a window; none: whole clips."""
    overlap_seconds: float = Field(0.0, ge=0)
    """What a window shares with the one before it."""
    max_clip_seconds: float = Field(60.0, gt=0)
    """A longer clip is seen in parts of this length, and its probabilities are the mean of theirs."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window_seconds is not None and self.overlap_seconds >= self.window_seconds:
            raise ValueError(f"need overlap < window, got {self.overlap_seconds:g} s and {self.window_seconds:g} s")
        return self


class SegmentConfig(Config):
    """How the windows of a recording become stretches where a label is on; see `spectag.models.timeline.segments`."""

    smooth_windows: int | None = Field(None, ge=1)
    """A window's probability is the median of this many windows around it, an odd number; 1: its own; none: 3 where
    three windows in a row share a moment, else 1. Where they share none, a median of 3 loses many sounds."""
    hysteresis: float = Field(0.7, ge=0, le=1)
    """Share of its threshold below which a label that is on goes off; 1: the threshold itself. 0.7 did best on mixed
    recordings (benchmarks/events.py)."""
    min_duration_seconds: float = Field(0.0, ge=0)
    """Shorter segments are left out."""
    max_gap_seconds: float = Field(0.0, ge=0)
    """Segments of a label that are no further apart become one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.smooth_windows is not None and self.smooth_windows % 2 == 0:
            raise ValueError(
                "need an odd number of smooth_windows, as many before a window as after it, got "
                f"{self.smooth_windows}; take {self.smooth_windows - 1} or {self.smooth_windows + 1}"
            )
        return self


ConfigT = TypeVar("ConfigT", bound=Config)


def read_config(path: str | Path, model: type[ConfigT]) -> ConfigT:
    """Read a TOML file as a config; unknown keys and wrong values are a ConfigError that names file and key."""
    return parse_config(read_toml(Path(path)), model, source=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; one that can't be read is a ConfigError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: can't read the settings: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def parse_config(values: dict[str, Any], model: type[ConfigT], *, source: str) -> ConfigT:
    """Check values against a config model; `source` begins the message when they do not fit."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explanations(error, model, source))) from error


def _explanations(error: ValidationError, model: type[BaseModel], source: str) -> list[str]:
    """What is wrong with each setting that does not fit."""
    keys = _all_keys(model)
    reasons: dict[str, list[str]] = {}
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            reason = f"unknown setting{did_you_mean(parts[-1], keys)}"
        elif problem["type"] == "value_error":  # one of ours, which tells what came
            reason = problem["msg"].removeprefix("Value error, ")
        else:
            parts = [part for part in parts if part in keys]  # a setting of several types has a problem with each
            reason = f"{problem['msg']} (got {problem['input']!r})"
        reasons.setdefault(": ".join([source, ".".join(parts)]).removesuffix(": "), []).append(reason)
    return [f"{where}: {', or: '.join(several)}" for where, several in reasons.items()]


def _all_keys(model: type[BaseModel]) -> list[str]:
    keys = list(model.model_fields)
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += kind.model_fields
    return keys


def to_toml(config: Config) -> str:
    """The config as TOML; reading it back gives an equal config."""
    return tomli_w.dumps(_without_null(config, config.model_dump(mode="json")))


def _without_null(config: Config, values: dict[str, Any]) -> dict[str, Any]:
    """What is None is left out where that is the default, and else the word "none"."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        part = getattr(config, key)
        if isinstance(part, Config):
            result[key] = _without_null(part, value)
        elif value is not None:
            result[key] = value
        elif type(config).model_fields[key].default is not None:
            result[key] = "none"
    return result
