"""Settings of live tagging: the windows, and when a label switches on and off."""

from typing import Literal, Self

from pydantic import Field, model_validator

from spectag.config.base import MAX_SECONDS, MAX_WINDOWS_HELD, Config, OddNumber, WindowConfig, check_window_options
from spectag.config.tagging import SEGMENT_WINDOW

Encoding = Literal["s16le", "s24le", "s32le", "f32le"]
"""Encoding of raw samples, with the names of FFmpeg."""

DEFAULT_STEP_SECONDS = 0.5
"""Default step between windows; at most half a window."""


class ListenSettings(Config):
    """Settings of `spectag listen`."""

    window: float | None = Field(None, gt=0, le=MAX_SECONDS)
    """Window length in seconds. By default, the length that the model was trained on, or 1.5."""
    overlap: float | None = Field(None, ge=0, le=MAX_SECONDS)
    """Overlap with the previous window in seconds. By default, a window starts every 0.5 s."""
    min_confidence: float | None = Field(None, ge=0, le=1)
    """Switch a label on at this probability, from 0 to 1. By default, the model's threshold for each label."""
    hysteresis: float = Field(0.7, ge=0, le=1)
    """Switch a label off when its probability falls below this fraction of its threshold."""
    smooth_windows: OddNumber = 1
    """Median filter over this odd number of windows. Every two more windows delay a change by one window."""
    min_windows: int = Field(1, ge=1, le=MAX_WINDOWS_HELD)
    """Report a label only when it is on in this many windows in a row; its onset is reported so much later."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_window_options(self.window, self.overlap)
        return self

    def windows(self, trained_on: WindowConfig) -> WindowConfig:
        """The windows to tag; `trained_on` are the windows of the bundle."""
        window = self.window or trained_on.window_seconds or SEGMENT_WINDOW.window_seconds
        assert window is not None
        overlap = window - min(DEFAULT_STEP_SECONDS, window / 2) if self.overlap is None else self.overlap
        return WindowConfig(window_seconds=window, overlap_seconds=overlap)
