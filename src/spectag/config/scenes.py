"""Settings of mixed recordings."""

from typing import Self

from pydantic import Field, model_validator

from spectag.config.base import Config


class SceneConfig(Config):
    """How sounds are laid over a background."""

    sounds_per_minute: float = Field(10.0, gt=0)
    """How often a sound comes; fewer do where no more may be heard at once, or the label is heard already."""
    max_at_once: int = Field(2, gt=0)
    """Sounds that are heard at the same time."""
    shortest_seconds: float | None = Field(2.0, gt=0)
    """A longer sound is cut to a length between this and its own; none: sounds are heard whole."""
    background_db: float = Field(-50.0, le=0)
    """Level (RMS) of the background, in dB below full scale."""
    snr_low_db: float = 10.0
    """The least level of a sound over the background's; both are RMS, the sound's without its pauses."""
    snr_high_db: float = 30.0
    """The greatest."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.snr_low_db > self.snr_high_db:
            raise ValueError(f"need snr_low_db <= snr_high_db, got {self.snr_low_db:g} and {self.snr_high_db:g} dB")
        return self
