"""Settings of listening: which stretches are looked at as they come, and when a label goes on and off."""

from typing import Literal, Self

from pydantic import Field, model_validator

from spectag.config.base import Config, WindowConfig
from spectag.config.tagging import SEGMENT_WINDOW

Encoding = Literal["s16le", "s24le", "s32le", "f32le"]
"""How a sample is written in bytes, by ffmpeg's names."""

STEP_SECONDS = 0.5
"""From one window to the next, where no overlap is asked for; half a window, where that is less."""


class ListenSettings(Config):
    """What `spectag listen` looks at, and what it tells."""

    window: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Tag each stretch of this many seconds. By default as long as the tagger was trained on, if it is set, or else as
    spectag tag takes for segments."""
    overlap: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Seconds that a window shares with the one before it. By default a window begins every half second."""
    min_confidence: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    """A label goes on at this probability, from 0 to 1. By default at the tagger's own threshold for it."""
    hysteresis: float = Field(0.7, ge=0, le=1)
    """A label that is on goes off below this share of its threshold; 1: the threshold itself."""
    smooth_windows: int = Field(1, ge=1)
    """Take the median of this many windows, an odd number. Each two more tell of a change one window later."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window is None and self.overlap is not None:
            raise ValueError(f"--overlap {self.overlap:g} needs --window, the length of what overlaps")
        if self.window is not None and (self.overlap or 0.0) >= self.window:
            raise ValueError(f"need overlap < window, got {self.overlap:g} s and {self.window:g} s")
        if self.smooth_windows % 2 == 0:
            raise ValueError(f"need the median of an odd number of windows, got --smooth-windows {self.smooth_windows}")
        return self

    def windows(self, trained_on: WindowConfig) -> WindowConfig:
        """The windows to look at; `trained_on` are the bundle's."""
        window = self.window or trained_on.window_seconds or SEGMENT_WINDOW.window_seconds
        assert window is not None
        overlap = window - min(STEP_SECONDS, window / 2) if self.overlap is None else self.overlap
        return WindowConfig(window_seconds=window, overlap_seconds=overlap)
