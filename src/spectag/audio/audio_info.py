"""The properties of a sound file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AudioInfo:
    """The properties of a sound file."""

    sample_rate: int  # Hz
    n_channels: int
    n_samples: int  # per channel
    format: str  # the container by libsndfile, such as WAV, or the codec by FFmpeg, such as AAC
    expected_samples: int | None = None
    """Samples per channel that the header announces: more than `n_samples` if the file is truncated; None: unknown."""

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate
