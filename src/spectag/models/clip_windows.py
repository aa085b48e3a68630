"""Short windows of a clip, whose maximum is added to the logits of the whole clip.

Features are means over the input of the network, so that a short sound in a long clip changes them little. In a window
with little else, it is clear. The whole clip is better for long sounds and for noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from spectag.array_types import FloatArray
from spectag.audio.front_end import FrontEnd
from spectag.config.base import MAX_SECONDS, Config
from spectag.models.limits import MAX_LABELS


class ClipWindows(Config):
    """Settings of the windows. Clips shorter than a window and a step have none."""

    seconds: float = Field(1.5, gt=0, le=MAX_SECONDS)
    """Length of a window."""
    hop_seconds: float = Field(0.75, gt=0, le=MAX_SECONDS)
    """Step between the starts of windows."""
    weight: float = Field(0.5, gt=0, le=1)
    """Weight of the maximum over the clip and its windows; the rest is the weight of the whole clip."""
    n_labels: int | None = Field(None, ge=1, le=MAX_LABELS)
    """Only the logits of so many labels, from the first, contain the maximum; None: those of all labels."""

    def in_frames(self, front_end: FrontEnd) -> "FrameWindows | None":
        """The windows in frames of a network's input; None for images, which are always whole."""
        length, hop = front_end.n_frames_in(self.seconds), front_end.n_frames_in(self.hop_seconds)
        return None if length is None or hop is None else FrameWindows(length, hop, self.weight, self.n_labels)


@dataclass(frozen=True)
class FrameWindows:
    """Windows in frames: their length, the step between their starts, and the weight of their maximum."""

    length: int
    hop: int
    weight: float
    n_labels: int | None = None
    """How many labels, from the first, have the maximum in their logits; None: all."""

    def weights_of(self, n_labels: int) -> FloatArray:
        """The weight of the maximum for each of so many labels, (n_labels,)."""
        has_maximum = np.arange(n_labels) < (n_labels if self.n_labels is None else self.n_labels)
        return np.where(has_maximum, self.weight, 0.0)

    def starts(self, n_frames: int) -> list[int]:
        """The first frame of each window of a clip. The last window ends with the clip.

        Examples
        --------
        >>> windows = FrameWindows(length=200, hop=100, weight=0.5)
        >>> windows.starts(450), windows.starts(299)
        ([0, 100, 200, 250], [])
        """
        last = n_frames - self.length
        return [] if last < self.hop else [*range(0, last, self.hop), last]

    def pool(self, whole: ArrayLike, windows: ArrayLike) -> FloatArray:
        """Logits (n_labels,) of a clip, from those of the whole clip (n_labels,) and of its windows (n, n_labels).

        Examples
        --------
        >>> FrameWindows(150, 75, weight=0.5).pool([1.0, 1.0], [[3.0, -2.0], [-1.0, -1.0]])
        array([2., 1.])
        """
        of_clip = np.asarray(whole, np.float64)
        largest = np.max([of_clip, *np.asarray(windows, np.float64)], axis=0)
        weights = self.weights_of(len(of_clip))
        return np.asarray((1 - weights) * of_clip + weights * largest)
