"""Upper limits of the numbers in spectag.json and index.json, which may come from a stranger."""

from typing import Annotated

from pydantic import Field

from spectag.audio.front_end import FrontEnd
from spectag.config.base import WindowConfig

MAX_LABELS = 100_000
MAX_MEMBERS = 1_000
MAX_CLIPS = 1_000_000_000
MAX_INPUT_VALUES = 250_000_000
"""Of the input of a network, as float32: 1 GB. Ten seconds of a published tagger are 128,000 values."""

Quantity = Annotated[float, Field(ge=-1e12, le=1e12)]
"""A number of unknown meaning that is not huge."""


def check_input_size(front_end: FrontEnd, window: WindowConfig) -> None:
    """Raise a ValueError if the input of a network for the longest part of a recording would be too large."""
    seconds = max(window.max_clip_seconds, window.window_seconds or 0.0)
    if front_end.image is not None and front_end.image.height and front_end.image.width:
        n_values = front_end.n_channels * front_end.image.height * front_end.image.width
    else:
        n_values = 0
    if front_end.min_samples is not None:
        seconds = max(seconds, front_end.min_samples / front_end.sample_rate)
    if front_end.input == "waveform":
        n_values = round(seconds * front_end.sample_rate)
    elif front_end.mel is not None:
        n_frames = seconds * front_end.mel.sample_rate / front_end.mel.hop_length
        n_values = max(n_values, round(n_frames * front_end.mel.n_mels))
    if n_values > MAX_INPUT_VALUES:
        raise ValueError(
            f"the input of the network would have {n_values:.1e} values for {seconds:g} s, expected at most "
            f"{MAX_INPUT_VALUES:.1e}: hop_length is too small, or n_mels or max_clip_seconds too large"
        )
