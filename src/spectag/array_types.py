"""Names for the types of arrays in signatures; docstrings give their shapes."""

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
Waveform = NDArray[np.float32]
"""Mono samples in [-1, 1], of shape (n_samples,)."""
Pixels = NDArray[np.uint8]
"""Grey or RGB pixels, of shape (height, width) or (height, width, 3)."""
