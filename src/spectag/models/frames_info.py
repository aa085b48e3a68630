"""Frames: probabilities for every 80 ms of a recording, from one pass of the network `frames.onnx` of a bundle."""

from typing import Self

from pydantic import Field, model_validator

from spectag.config.base import Config, MelConfig, OddNumber

FRAMES_FILE = "frames.onnx"
FRAME_SECONDS = 0.08
"""Step between frames, for which the settings of `FramesInfo` were chosen."""
FRAMES_OFFSET = "frames/offset"
"""The constant in it that is added to the logits (1, n_labels, 1, n)."""


class FramesInfo(Config):
    """How a recording becomes frames, and how frames become segments."""

    hop_length: int = Field(8, ge=1, le=256)
    """Step between frames, in frames of the log_mel."""
    context: int = Field(64, ge=0, le=4_096)
    """Frames of the log_mel at both ends of a block that are not used, except at the ends of the recording."""
    block: int = Field(1_024, ge=1, le=16_384)
    """Frames of the log_mel that the network gets at once."""
    closed_frames: OddNumber = 13
    """Shorter gaps in the probability of a label are filled (grey closing over this odd number of frames); 1: off."""
    smooth_frames: OddNumber = 9
    """Median filter over this odd number of frames; 1: off."""
    hysteresis: float = Field(0.5, ge=0, le=1)
    """A segment ends when the probability falls below this fraction of the threshold."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.block % self.hop_length or self.context % self.hop_length or self.block <= 2 * self.context:
            raise ValueError(
                f"need block > 2 context, both multiples of hop_length, got block={self.block}, "
                f"context={self.context} and hop_length={self.hop_length}"
            )
        return self

    def frame_seconds(self, mel: MelConfig) -> float:
        """The step between frames in seconds.

        Examples
        --------
        >>> FramesInfo(hop_length=8).frame_seconds(MelConfig(sample_rate=32_000, hop_length=320))
        0.08
        """
        return self.hop_length * mel.hop_length / mel.sample_rate
