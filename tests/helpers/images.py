"""Spectrogram images."""

import numpy as np


def image_to_log_mel(image, *, low, high):
    """The log_mel of a grey image (height, width) with the range from `low` (black) to `high` (white)."""
    return (low + image[::-1] * ((high - low) / 255)).astype(np.float32)
