"""What the training sounds were like: level, bandwidth and duration, to compare recordings with them."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from spectag.array_types import FloatArray
from spectag.audio.sound_statistics import SoundStatistics
from spectag.config.base import Config
from spectag.models.limits import MAX_CLIPS, Quantity

_QUANTILES = (0.05, 0.5, 0.95)


class Spread(Config):
    """The range of a quantity: 5 % of the training clips are below `low`, and 5 % above `high`."""

    low: Quantity
    median: Quantity
    high: Quantity

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"need low <= median <= high, got {self.low:g}, {self.median:g} and {self.high:g}")
        return self

    @classmethod
    def of(cls, values: FloatArray | Sequence[float]) -> Self:
        """The range of some values."""
        return cls(**dict(zip(cls.model_fields, np.quantile(values, _QUANTILES).tolist(), strict=True)))


class TrainingSounds(Config):
    """Level, bandwidth and duration of training clips."""

    n_clips: int = Field(ge=0, le=MAX_CLIPS)
    """Number of clips measured."""
    level_dbfs: Spread
    bandwidth_hz: Spread
    duration_seconds: Spread

    @classmethod
    def of(cls, statistics: Sequence[SoundStatistics], durations: Sequence[float]) -> Self:
        """From the statistics and the durations in seconds of some clips."""
        levels, bandwidths = zip(*statistics, strict=True)
        return cls(
            n_clips=len(statistics),
            level_dbfs=Spread.of(levels),
            bandwidth_hz=Spread.of(bandwidths),
            duration_seconds=Spread.of(durations),
        )
