"""What a person should know about a sound: silence, clipping, channels that cancel, a missing end, a short length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectag.array_types import Waveform

SILENT_PEAK_DB = -60.0  # dBFS; a sound is silent if all samples are below
FULL_SCALE = 32767 / 32768  # the largest 16-bit sample
_N_NAMES = 3  # shown of truncated files
CLIPPED_FRACTION = 0.001  # a sound is clipped if more of its samples are at full scale
VERY_SHORT_SECONDS = 0.5  # probabilities of shorter recordings mean little


@dataclass
class SoundFaults:
    """The faults of a sound. Silence and clipping are those of the mean of its channels."""

    is_silent: bool = False
    """Whether no sample reaches -60 dBFS."""
    clipped_fraction: float = 0.0
    """The part of the samples at 16-bit full scale or beyond."""
    channels_cancel: bool = False
    """Whether the channels are inverse to each other, so that little is left of their mean."""
    is_truncated: bool = False
    """Whether the end is missing."""
    expected_seconds: float | None = None
    """The length in the header of a truncated file; None if it is not known."""
    short_seconds: float | None = None
    """The length of a recording below half a second; None if it is not that short."""

    def descriptions(self) -> list[str]:
        """Each fault as a short text."""
        texts = []
        if self.is_truncated and self.expected_seconds is not None:
            texts.append(f"truncated (its header announces {self.expected_seconds:.3f} s)")
        elif self.is_truncated:
            texts.append("truncated")
        if self.channels_cancel:
            texts.append("the channels cancel each other in their mean; use --channel loudest")
        elif self.is_silent:
            texts.append(f"silent (peak below {SILENT_PEAK_DB:g} dBFS)")
        if self.clipped_fraction > CLIPPED_FRACTION:
            texts.append(f"clipped ({self.clipped_fraction:.1%} of the samples at full scale)")
        if self.short_seconds is not None:
            texts.append(f"very short ({self.short_seconds:.2f} s)")
        return texts


def truncation_warning(names: Sequence[str]) -> str:
    """One line about truncated files: their number, and the first names.

    Examples
    --------
    >>> truncation_warning(["a.wav", "b.wav"])
    'WARNING: 2 files are truncated, so only a part of each is used: a.wav, b.wav'
    """
    files = (
        "1 file is truncated, so only a part of it"
        if len(names) == 1
        else f"{len(names):,} files are truncated, so only a part of each"
    )
    more = f" and {len(names) - _N_NAMES:,} more" if len(names) > _N_NAMES else ""
    return f"WARNING: {files} is used: {', '.join(names[:_N_NAMES])}{more}"


class SoundLevels:
    """The peak of a sound and its samples at full scale, counted block by block."""

    def __init__(self) -> None:
        self.n_samples = 0
        self.peak = 0.0
        self._n_full_scale = 0

    def add(self, block: Waveform) -> None:
        """Count the samples of a block, of shape (n_samples,)."""
        if not block.size:
            return
        peak = max(float(block.max()), -float(block.min()))
        self.peak = max(self.peak, peak)
        if peak >= FULL_SCALE:
            self._n_full_scale += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        self.n_samples += len(block)

    @property
    def is_silent(self) -> bool:
        """Whether no sample reaches -60 dBFS."""
        return self.peak < 10 ** (SILENT_PEAK_DB / 20)

    @property
    def clipped_fraction(self) -> float:
        """The part of the samples at 16-bit full scale or beyond."""
        return self._n_full_scale / max(1, self.n_samples)
