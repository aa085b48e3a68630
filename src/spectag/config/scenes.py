"""Settings of generated soundscapes."""

from typing import Self

from pydantic import Field, model_validator

from spectag.config.base import MAX_SECONDS, Config


class SceneConfig(Config):
    """How sounds are mixed with a background."""

    sounds_per_minute: float = Field(10.0, gt=0, le=100_000)
    """Sounds per minute; fewer if max_at_once is reached or the label is already present."""
    max_at_once: int = Field(2, gt=0, le=1_000)
    """Maximum number of simultaneous sounds."""
    shortest_seconds: float | None = Field(2.0, gt=0, le=MAX_SECONDS)
    """Cut longer sounds to a random length of at least this many seconds; none: do not cut."""
    background_db: float = Field(-50.0, ge=-300, le=0)
    """RMS level of the background in dB relative to full scale."""
    snr_low_db: float = Field(10.0, ge=-300, le=300)
    """Minimum signal-to-noise ratio in dB: RMS of the sound without pauses over RMS of the background."""
    snr_high_db: float = Field(30.0, ge=-300, le=300)
    """Maximum signal-to-noise ratio in dB."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.snr_low_db > self.snr_high_db:
            raise ValueError(f"need snr_low_db <= snr_high_db, got {self.snr_low_db:g} and {self.snr_high_db:g} dB")
        return self
