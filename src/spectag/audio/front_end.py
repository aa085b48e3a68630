"""The feature extraction: from a waveform, a log_mel or an image to the input of a network."""

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import model_validator

from spectag.array_types import Float32Array, Pixels, Waveform
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import image_to_input, log_mel_to_image, read_png
from spectag.config.base import Channel, Config, ImageConfig, MelConfig
from spectag.errors import DataError


class FrontEnd(Config):
    """Settings and functions that make the input of a network: a log_mel, or an 8-bit image of it.

    `mel` is None for a model that was trained on images with unknown mel settings. Such a model can tag images only.
    """

    mel: MelConfig | None
    image: ImageConfig | None = None
    channel: Channel = "mix"
    """How several channels of a sound become one, in training and by default in tagging."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mel is None and self.image is None:
            raise ValueError("a front end needs mel settings, image settings or both")
        return self

    @property
    def n_channels(self) -> int:
        """1 for log_mels and grey images, 3 for coloured images."""
        return 1 if self.image is None or self.image.colormap == "grey" else 3

    @property
    def sample_rate(self) -> int:
        """Sample rate of its sounds in Hz. A DataError if it takes images only."""
        return self._mel_settings.sample_rate

    def n_frames_in(self, seconds: float) -> int | None:
        """Number of frames in an excerpt of this duration; None for images, which are always whole."""
        if self.image is not None or self.mel is None:
            return None
        return max(1, round(seconds * self.mel.sample_rate / self.mel.hop_length))

    @property
    def _mel_settings(self) -> MelConfig:
        if self.mel is None:
            raise DataError(
                "this tagger was trained on images with unknown mel settings, so it can tag images but not sounds; "
                "to tag sounds, train it with the settings that made its images ([mel] in --config)"
            )
        return self.mel

    def input_of_waveform(self, waveform: Waveform) -> Float32Array:
        """Input (channels, height, width) for a waveform at `sample_rate`."""
        return self.input_of_log_mel(compute_log_mel(waveform, self._mel_settings))

    def input_of_log_mel(self, log_mel: Float32Array) -> Float32Array:
        """Input (channels, height, width) for a log_mel (n_mels, n_frames)."""
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
