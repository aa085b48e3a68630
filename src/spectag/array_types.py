"""Type aliases for arrays in signatures. Docstrings give the shapes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
AnyFloatArray = NDArray[np.floating[Any]]
"""Floats of any precision."""
Waveform = NDArray[np.float32]
"""Mono samples in [-1, 1], of shape (n_samples,)."""
Pixels = NDArray[np.uint8]
"""Grey or RGB pixels, of shape (height, width) or (height, width, 3)."""
