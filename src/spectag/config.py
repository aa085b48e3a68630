"""Settings: frozen models that check themselves, read from TOML and stored in every bundle and bank."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spectag.errors import ConfigError, did_you_mean


class Config(BaseModel):
    """A frozen model that takes no unknown key. TOML has no null, so the word "none" stands for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _none(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: None if value == "none" else value for key, value in values.items()}


class MelConfig(Config):
    """How a waveform becomes a log_mel; part of every bundle and of every key in a bank.

    The defaults are librosa's (`melspectrogram` with Slaney's scale and norm, then `power_to_db`).
    `mel_scale="kaldi"`, `log="ln"` and `pre_emphasis` make Kaldi's family.
    """

    sample_rate: int = Field(32_000, gt=0)  # Hz
    n_fft: int = Field(2048, gt=1)  # samples
    win_length: int | None = Field(None, gt=1)  # samples; None: n_fft
    hop_length: int = Field(512, gt=0)  # samples
    window: Literal["hann", "hann_symmetric"] = "hann"  # "hann" is periodic, as librosa's
    pad_mode: Literal["constant", "reflect"] = "constant"  # at both ends, by n_fft // 2
    pre_emphasis: float = Field(0.0, ge=0, lt=1)  # x[t] - pre_emphasis * x[t - 1], one sample shorter
    n_mels: int = Field(128, gt=0)
    f_min: float = Field(20.0, ge=0)  # Hz
    f_max: float = 16_000.0  # Hz
    mel_scale: Literal["slaney", "htk", "kaldi"] = "slaney"
    mel_norm: Literal["slaney"] | None = "slaney"
    log: Literal["db", "ln"] = "db"  # db: 10 log10(max(power, amin) / ref); ln: ln(power + amin)
    amin: float = Field(1e-10, gt=0)
    ref: float | Literal["max"] = 1.0  # power at 0 dB; "max": the clip's loudest
    top_db: float | None = Field(80.0, gt=0)  # dB below the clip's loudest where log_mel is cut off
    mean: float = 0.0  # log_mel is given as (log_mel - mean) / std
    std: float = Field(1.0, gt=0)

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

    colormap: str = "grey"  # or any of matplotlib's, such as magma
    height: int | None = Field(None, gt=0)  # pixels; None: a row per mel band
    width: int | None = Field(None, gt=0)  # pixels; None: a column per frame
    low: float | None = None  # the log_mel that is black; None: the clip's least
    high: float | None = None  # the log_mel that is white; None: the clip's greatest

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"need low < high, got low={self.low:g} and high={self.high:g}")
        return self


class WindowConfig(Config):
    """Which stretches of a recording the network sees."""

    window_seconds: float | None = Field(None, gt=0)  # None: whole clips
    overlap_seconds: float = Field(0.0, ge=0)
    max_clip_seconds: float = Field(60.0, gt=0)  # a longer clip is seen in parts, and its parts' probabilities averaged

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window_seconds is not None and self.overlap_seconds >= self.window_seconds:
            raise ValueError(
                f"need overlap < window, got {self.overlap_seconds:g} s and {self.window_seconds:g} s"
            )
        return self


ConfigT = TypeVar("ConfigT", bound=Config)


def read_config(path: str | Path, model: type[ConfigT]) -> ConfigT:
    """Read a TOML file as a config; unknown keys and wrong values are a ConfigError that names file and key."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't read the settings: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    return parse_config(values, model, source=str(path))


def parse_config(values: dict[str, Any], model: type[ConfigT], *, source: str) -> ConfigT:
    """Check values against a config model; `source` begins the message when they do not fit."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(problem, model, source) for problem in error.errors())) from error


def _explain(problem: Any, model: type[BaseModel], source: str) -> str:
    *parents, key = [str(part) for part in problem["loc"]] or [""]
    where = f"{source}: {'.'.join([*parents, key])}".removesuffix(": ")
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})" if key else (
            f"{where}: {problem['msg'].removeprefix('Value error, ')}"
        )
    return f"{where}: unknown setting{did_you_mean(key, _all_keys(model))}"


def _all_keys(model: type[BaseModel]) -> list[str]:
    keys = list(model.model_fields)
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += kind.model_fields
    return keys


def to_toml(config: Config) -> str:
    """The config as TOML; reading it back gives an equal config."""
    return tomli_w.dumps(_with_none_as_word(config.model_dump(mode="json")))


def _with_none_as_word(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _with_none_as_word(value) if isinstance(value, dict) else "none" if value is None else value
        for key, value in values.items()
    }
