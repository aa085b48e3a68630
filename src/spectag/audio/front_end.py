"""The feature extraction: from a waveform, a log_mel or an image to the input of a network."""

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from spectag.array_types import Float32Array, Pixels, Waveform
from spectag.audio.mel import compute_log_mel, n_frames
from spectag.audio.spectrogram_image import image_to_input, log_mel_to_image, read_png
from spectag.config.base import Channel, Config, ImageConfig, MelConfig, WindowConfig
from spectag.config.padding import Padding
from spectag.errors import DataError

MAX_SAMPLES = 200_000_000
"""Upper limit of the length of a waveform that a network takes at once."""
_TOLERATED_SECONDS = 0.01
"""Of a sound that is too long because its length was rounded at another sample rate; it is cut."""
_NEW_FIELDS: dict[str, Any] = {"input": "log_mel", "min_samples": None, "max_samples": None, "padding": "silence"}
"""Left out where they have these values, so that the settings of other networks stay the same."""


class FrontEnd(Config):
    """Settings and functions that make the input of a network: a log_mel, an 8-bit image of it, or a waveform.

    `mel` is None for a model that was trained on images with unknown mel settings. Such a model can tag images only.
    Of a network that takes waveforms, `mel` is only what people see.
    """

    mel: MelConfig | None
    image: ImageConfig | None = None
    channel: Channel = "mix"
    """How several channels of a sound become one, in training and by default in tagging."""
    input: Literal["log_mel", "waveform"] = "log_mel"
    """waveform: the network takes the samples, as an input (1, 1, n_samples)."""
    min_samples: int | None = Field(None, ge=1, le=MAX_SAMPLES)
    """Shortest waveform; shorter ones are made longer."""
    max_samples: int | None = Field(None, ge=1, le=MAX_SAMPLES)
    """Longest waveform."""
    padding: Padding = "silence"
    """How a shorter waveform becomes longer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mel is None and self.image is None:
            raise ValueError("a front end needs mel settings, image settings or both")
        has_limits = self.min_samples is not None or self.max_samples is not None
        if self.image is not None and (self.input == "waveform" or has_limits):
            raise ValueError("a network that takes images has neither waveforms nor limits of samples")
        if self.min_samples is not None and self.min_samples > (self.max_samples or MAX_SAMPLES):
            raise ValueError(f"min_samples {self.min_samples} is above max_samples {self.max_samples}")
        return self

    @model_serializer(mode="wrap")
    def _without_new_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if _NEW_FIELDS.get(name, ...) != value}

    @property
    def n_channels(self) -> int:
        """1 for log_mels and grey images, 3 for coloured images."""
        return 1 if self.image is None or self.image.colormap == "grey" else 3

    @property
    def sample_rate(self) -> int:
        """Sample rate of its sounds in Hz. A DataError if it takes images only."""
        return self._mel_settings.sample_rate

    @property
    def takes_log_mel(self) -> bool:
        """Whether the input is computed from a log_mel, so that parts of it can be replaced."""
        return self.mel is not None and self.input == "log_mel"

    @property
    def has_limits(self) -> bool:
        """Whether the input is not simply a log_mel of any length: a waveform, or one with a least length."""
        return self.input == "waveform" or self.min_samples is not None

    @property
    def part_seconds(self) -> float:
        """Length of the parts in which longer recordings are processed."""
        longest = WindowConfig().max_clip_seconds
        return longest if self.max_samples is None else min(longest, self.max_samples / self.sample_rate)

    @property
    def window(self) -> WindowConfig:
        """The windows of a model: of a network that takes only one length, also of live sound."""
        is_fixed = self.min_samples is not None and self.min_samples == self.max_samples
        return WindowConfig(window_seconds=self.part_seconds if is_fixed else None, max_clip_seconds=self.part_seconds)

    def n_frames_in(self, seconds: float) -> int | None:
        """Number of frames in an excerpt of this duration; None for images and waveforms, which are always whole."""
        if self.image is not None or self.mel is None or self.has_limits:
            return None
        return max(1, round(seconds * self.mel.sample_rate / self.mel.hop_length))

    def width_of(self, seconds: float) -> int | None:
        """Width of an input for an excerpt of this duration, if the network takes it; None for images."""
        if not self.has_limits or self.mel is None:
            return self.n_frames_in(seconds)
        n_samples = max(round(seconds * self.sample_rate), self.min_samples or 1)
        n_samples = n_samples if self.max_samples is None else min(n_samples, self.max_samples)
        return n_samples if self.input == "waveform" else n_frames(n_samples, self.mel)

    @property
    def _mel_settings(self) -> MelConfig:
        if self.mel is None:
            raise DataError(
                "this tagger was trained on images with unknown mel settings, so it can tag images but not sounds; "
                "to tag sounds, train it with the settings that made its images ([mel] in --config)"
            )
        return self.mel

    def input_of_waveform(self, waveform: Waveform) -> Float32Array:
        """Input (channels, height, width) for a waveform at `sample_rate`. A DataError if it is too long."""
        waveform = self.padded(waveform)
        if self.input == "waveform":
            return np.asarray(waveform, np.float32)[None, None]
        return self.input_of_log_mel(compute_log_mel(waveform, self._mel_settings))

    def padded(self, waveform: Waveform) -> Waveform:
        """A waveform, made longer if it is shorter than the network needs. A DataError if it is too long."""
        n_samples = len(waveform)
        if self.max_samples is not None and n_samples > self.max_samples:
            if n_samples > self.max_samples + _TOLERATED_SECONDS * self.sample_rate:
                seconds = n_samples / self.sample_rate
                raise DataError(
                    f"the network takes at most {self.max_samples / self.sample_rate:g} s at once, got {seconds:g} s; "
                    "use shorter windows"
                )
            return waveform[: self.max_samples]
        if self.min_samples is not None and n_samples < self.min_samples:
            if self.padding == "repeat" and n_samples:
                return np.resize(waveform, self.min_samples)
            if self.padding == "repeat_whole" and n_samples:
                waveform = np.tile(waveform, self.min_samples // n_samples)
                n_samples = len(waveform)
            return np.pad(waveform, (0, self.min_samples - n_samples))
        return waveform

    def input_of_log_mel(self, log_mel: Float32Array) -> Float32Array:
        """Input (channels, height, width) for a log_mel (n_mels, n_frames)."""
        if self.input == "waveform":
            raise DataError("this network takes the waveform, not a log-mel spectrogram")
        if self.image is None:
            return np.asarray(log_mel)[None]
        return self._input_of_pixels(log_mel_to_image(log_mel, self.image)[0], self.image)

    def input_of_image(self, path: str | Path) -> Float32Array:
        """Input (channels, height, width) for a PNG or JPEG file."""
        if self.image is None:
            raise DataError(f"{path}: this tagger takes log-mel spectrograms, not images; give it the sound file")
        return self._input_of_pixels(read_png(path), self.image)

    def _input_of_pixels(self, pixels: Pixels, image: ImageConfig) -> Float32Array:
        height, width = image.height or pixels.shape[0], image.width or pixels.shape[1]
        return image_to_input(pixels, height=height, width=width, channels=self.n_channels)
