"""Settings of clips that are cut out of recordings, and of the comparison of detections with annotations."""

from typing import Literal, cast, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from spectag.config.base import MAX_SECONDS, Config

SampleMode = Literal["top", "random", "balanced", "spread"]
ClipFormat = Literal["wav", "flac", "ogg"]


class ClipSettings(Config):
    """Which detections are cut out of their recordings, and how."""

    per_label: int | None = Field(100, ge=1, le=10**9)
    """Clips of each label at most; none: all."""
    mode: SampleMode = "top"
    """Which ones: top are the most probable; random, all with equal chances; balanced, equally many of each recording;
    spread, over score bands, recordings, sites and hours of the day."""
    pad: float = Field(1.0, ge=0, le=MAX_SECONDS)
    """Seconds before and after each detection."""
    format: ClipFormat | None = None
    """File format; none: flac for recordings in flac, otherwise wav."""
    sample_rate: int | None = Field(None, ge=100, le=2_000_000)
    """Sample rate in Hz; none: that of the recording."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Another seed gives another sample."""


class CheckSettings(Config):
    """Which detections people check by ear, and how they hear them."""

    per_label: int | None = Field(96, ge=1, le=10**9)
    """Detections of each label at most; none: all."""
    across: tuple[Literal["scores", "sites", "hours"], ...] = ("scores", "sites", "hours")
    """What the sample is spread over, the most important first: score bands, 0.1 wide; sites; hours of the day."""
    presence: bool = False
    """Whether each label occurred at each site on each day: the most probable detections first, until one is true."""
    context: float = Field(3.0, ge=0, le=60)
    """Seconds before and after each detection."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Another seed gives another sample."""

    @field_validator("across")
    @classmethod
    def _check_across(cls, across: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(across)) < len(across):
            raise ValueError(f"across: {', '.join(across)} contains one twice; give each at most once")
        return across


class EventSettings(Config):
    """How detected sounds are compared with true ones."""

    min_probability: float | None = Field(None, ge=0, le=1)
    """Least probability of a detection for the scores by events and segments; none: all in the table."""
    collar: float = Field(0.2, gt=0, le=MAX_SECONDS)
    """Greatest distance in seconds between the starts, and between the ends, of a right detection and its sound."""
    offset_fraction: float = Field(0.5, ge=0, le=1)
    """The ends may also differ by this fraction of the length of the sound, if that is more."""
    segment: float = Field(1.0, gt=0, le=MAX_SECONDS)
    """Length in seconds of the segments in which labels are compared."""


SummaryKey = Literal["site", "month", "week", "day", "hour"]
SUMMARY_KEYS: tuple[SummaryKey, ...] = get_args(SummaryKey)


class SummarySettings(Config):
    """How detections are counted."""

    by: str = "site,day,hour"
    """What counts.csv has a row for, separated by commas: site, month, week, day, hour (of the day)."""
    timezone: str | None = None
    """Time zone of days and hours, such as Europe/Berlin. Times with a zone are converted to it, others are taken to be
    in it; none: days and hours are those of the recorders' clocks."""
    recorder_timezone: str | None = None
    """What the recorders' clocks show, where a recording states no zone, such as UTC; none: as --timezone."""
    occasion_days: int = Field(1, ge=1, le=3_660)
    """Days of an occasion in detection histories, from the first day with recordings."""

    @property
    def keys(self) -> tuple[SummaryKey, ...]:
        """The content of `by`."""
        return tuple(cast("SummaryKey", key.strip()) for key in self.by.split(","))

    @field_validator("by")
    @classmethod
    def _check_by(cls, by: str) -> str:
        keys = [key.strip() for key in by.split(",")]
        if wrong := [key for key in keys if key not in SUMMARY_KEYS]:
            raise ValueError(f"by: expected some of {', '.join(SUMMARY_KEYS)}, got {wrong[0]!r}")
        if len(set(keys)) < len(keys):
            raise ValueError(f"by: {by} contains one twice; give each at most once")
        return by

    @field_validator("timezone", "recorder_timezone")
    @classmethod
    def _check_zone(cls, zone: str | None) -> str | None:
        try:
            return zone if zone is None else ZoneInfo(zone).key
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ValueError(
                f"unknown time zone {zone!r}; expected a name such as Europe/Berlin or UTC (on Windows, they need: pip "
                "install tzdata)"
            ) from error
