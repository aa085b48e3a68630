"""Which stretches of a recording are looked at, one after another."""

import numpy as np
from numpy.typing import NDArray


def window_starts(n_samples: int, *, window: int, hop: int) -> NDArray[np.int64]:
    """First sample of each window: 0, hop, 2 hop, ... until a window reaches the last sample.

    The last window may run past the end: the caller pads it. A clip shorter than a window gets one window. Only where
    windows leave gaps (hop > window) can the last one fall wholly behind the end; it is then moved back to end there.

    Parameters
    ----------
    n_samples : int
        Length of the recording, at least 1.
    window, hop : int
        Length of a window and step between windows, in samples, at least 1.

    Returns
    -------
    int array of shape (n_windows,)

    Raises
    ------
    ValueError
        If an argument is below 1.

    Examples
    --------
    >>> window_starts(10, window=4, hop=4)
    array([0, 4, 8])
    >>> window_starts(3, window=4, hop=4)
    array([0])
    """
    if min(n_samples, window, hop) < 1:
        raise ValueError(f"need n_samples, window and hop of at least 1 sample, got {n_samples}, {window} and {hop}")
    starts = np.arange(0, max(n_samples - window, 0) + hop, hop, dtype=np.int64)
    if starts[-1] >= n_samples:
        starts[-1] = n_samples - window
    return starts
