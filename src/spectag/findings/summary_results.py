"""What a summary of detections contains."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from spectag.config.findings import SummarySettings
from spectag.data.checked_detections import Decision, DetectionKey
from spectag.data.detections import DetectedSound
from spectag.findings.activity import Activity
from spectag.findings.label_precision import LabelPrecision
from spectag.findings.recorded_effort import RecordedEffort
from spectag.findings.sun_times import SunriseActivity
from spectag.models.model_labels import ThresholdKind


@dataclass(frozen=True)
class LabelSummary:
    """Where and when a label was detected."""

    label: str
    n_detections: int
    n_sites: int
    n_days: int
    first: datetime | None
    """Local time of the first detection; None: no detection has a known time."""
    last: datetime | None
    per_hour: float | None = None
    """Detections per recorded hour, without those in recordings whose time or length is unknown; None: no hours."""
    threshold: float | None = None
    """Of the model, for recordings as a whole; None: unknown."""
    window_threshold: float | None = None
    """Of the model, for short windows and segments; None: as `threshold`."""
    precision: LabelPrecision | None = None
    """None: not checked."""


@dataclass(frozen=True)
class SiteSummary:
    """What was recorded and detected at a site."""

    site: str
    n_recordings: int
    hours: float
    n_detections: int
    n_labels: int
    first: datetime | None
    """Start of the first recording; None: unknown."""
    last: datetime | None
    """Start of the last recording."""
    latitude: float | None
    """Of its first recording with a known position; None: unknown."""
    longitude: float | None


@dataclass(frozen=True)
class Summary:
    """What occurred where and when."""

    source: Path
    """The table of detections."""
    settings: SummarySettings
    min_probability: float
    detections: tuple[DetectedSound, ...]
    effort: RecordedEffort
    activity: Activity
    labels: tuple[LabelSummary, ...]
    """The most frequent first."""
    sites: tuple[SiteSummary, ...]
    sunrise: SunriseActivity | None
    no_sunrise: str
    """Why there are no times after sunrise; empty if there are."""
    model: str | None
    """Whose thresholds are stated."""
    applied_thresholds: ThresholdKind | None
    """Of these thresholds, those that all counted detections reach; None: they are only stated."""
    checked: Path | None
    """The checked detections."""
    decisions: Mapping[DetectionKey, Decision]
    """Of checked detections."""

    @property
    def n_recordings(self) -> int:
        """Recordings, also those without detections."""
        return len(self.effort.recordings)

    @property
    def hours(self) -> float:
        """Recorded hours at known times."""
        return self.activity.hours

    @property
    def total_hours(self) -> float:
        """Recorded hours, also at unknown times."""
        return sum(recording.seconds or 0.0 for recording in self.effort.recordings) / 3600

    @property
    def skipped(self) -> tuple[str, ...]:
        """Recordings of which something is unknown, each with the reason."""
        return self.effort.skipped

    def decision_about(self, detection: DetectedSound) -> Decision:
        """What a person decided about a detection; empty: nothing."""
        key = DetectionKey(detection.file, *detection.span, detection.label)
        return self.decisions.get(key, "")


def clock_time(moment: datetime) -> datetime:
    """What a clock shows: times with and without zones can be compared so."""
    return moment.replace(tzinfo=None)
