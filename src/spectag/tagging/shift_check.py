"""Compare the recordings of a run with the training clips: level, bandwidth, duration and novelty."""

import math
from dataclasses import dataclass, field

import numpy as np

from spectag.models.novelty import NoveltyInfo
from spectag.models.training_sounds import Spread, TrainingSounds
from spectag.tagging.parallel import TaggedFile

_MIN_MEASURED = 10  # recordings, or windows of them, below which chance decides
_WINDOW_SECONDS = 1.5  # of a recording with frames that count as a window
_LEVEL_MARGIN_DB = 2.0  # beyond the range of most training clips; 0 gives false warnings for runs of one label
_BANDWIDTH_RATIO = 0.6  # of the recordings with most bandwidth to the median training clip
_DURATION_RATIO = 3.0
_NOVEL_FRACTION = 0.5


@dataclass
class ShiftCheck:
    """Collects what recordings are like, and says how they differ from the training clips.

    Differences count only if chance, or recordings of a single label, can hardly cause them.

    Parameters
    ----------
    training : TrainingSounds, optional
        Without these, only novelty is compared.
    novelty : NoveltyInfo, optional
        Of the model.
    compares_duration : bool
        Whether to compare the durations of recordings that are tagged as a whole, as in training.
    """

    training: TrainingSounds | None
    novelty: NoveltyInfo | None
    compares_duration: bool
    _levels: list[float] = field(default_factory=list)
    _clip_levels: list[float] = field(default_factory=list)
    _bandwidths: list[float] = field(default_factory=list)
    _durations: list[float] = field(default_factory=list)
    _novelties: list[float] = field(default_factory=list)
    _n_windows: int = 0

    def add(self, tagged: TaggedFile) -> None:
        """Add a tagged recording: its loudest window, widest bandwidth and least novel window."""
        if tagged.timeline is None:
            return
        timeline, is_clip = tagged.timeline, len(tagged.timeline.starts) == 1 and tagged.timeline.frames is None
        n_seconds = tagged.duration_seconds or 0.0
        self._n_windows += len(timeline.starts) if timeline.frames is None else math.ceil(n_seconds / _WINDOW_SECONDS)
        if tagged.sound is not None:
            self._levels.append(tagged.sound.level_dbfs)
            if is_clip:
                self._clip_levels.append(tagged.sound.level_dbfs)
            if tagged.sound.bandwidth_hz:
                self._bandwidths.append(tagged.sound.bandwidth_hz)
        if tagged.duration_seconds is not None and is_clip:
            self._durations.append(tagged.duration_seconds)
        if timeline.novelty is not None:
            self._novelties.append(float(timeline.novelty.min()))

    def differences(self) -> list[str]:
        """How the recordings differ from the training clips; empty if they do not, or are too few."""
        if self._n_windows < _MIN_MEASURED:
            return []
        found = [self._novelty_difference()]
        if self.training is not None and self._levels:
            found += [self._level_difference(self.training.level_dbfs)]
            found += [self._bandwidth_difference(self.training.bandwidth_hz)]
            if self.compares_duration:
                found += [self._duration_difference(self.training.duration_seconds)]
        return [text for text in found if text is not None]

    def _level_difference(self, training: Spread) -> str | None:
        """Recordings with several windows may be quieter, not louder: their loudest window exceeds a whole clip."""
        median = float(np.median(self._levels))
        how = "quieter"
        if median >= training.low - _LEVEL_MARGIN_DB:
            how, median = "louder", float(np.median(self._clip_levels or [-np.inf]))
            if median <= training.high + _LEVEL_MARGIN_DB:
                return None
        return (
            f"they are {abs(median - training.median):.0f} dB {how} than the training clips: median {median:.0f} dBFS, "
            f"training {training.median:.0f} ({training.low:.0f} to {training.high:.0f})"
        )

    def _bandwidth_difference(self, training: Spread) -> str | None:
        if not self._bandwidths:
            return None
        widest = float(np.quantile(self._bandwidths, 0.9))
        if widest >= _BANDWIDTH_RATIO * training.median:
            return None
        return (
            f"they have no sound above {_khz(widest)}, training clips have it up to {_khz(training.median)} "
            f"({training.low / 1000:.2g} to {_khz(training.high)}): low sample rate, low-pass or lossy compression"
        )

    def _duration_difference(self, training: Spread) -> str | None:
        if not self._durations:
            return None
        median = float(np.median(self._durations))
        if training.low / _DURATION_RATIO <= median <= training.high * _DURATION_RATIO:
            return None
        hint = "; --segments reports when each sound occurs" if median > training.high else ""
        return (
            f"they are {median:.3g} s long, training clips {training.median:.3g} s ({training.low:.3g} to "
            f"{training.high:.3g}){hint}"
        )

    def _novelty_difference(self) -> str | None:
        if self.novelty is None or not self._novelties:
            return None
        n_novel = sum(value > 1 for value in self._novelties)
        if n_novel <= _NOVEL_FRACTION * len(self._novelties):
            return None
        expected = 1 - self.novelty.kept_fraction
        return (
            f"{n_novel / len(self._novelties):.0%} of them have a novelty above 1, new recordings of the training "
            f"sounds {expected:.0%}"
        )


def _khz(hertz: float) -> str:
    return f"{hertz / 1000:.2g} kHz"
