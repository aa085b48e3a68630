"""Settings of tagging: which stretches are looked at, what is told of them, and in which formats."""

from pathlib import Path
from typing import Literal, Self

import tomli_w
from pydantic import Field, model_validator

from spectag.config.base import SegmentConfig, WindowConfig
from spectag.errors import did_you_mean

FORMAT_NAMES = (
    "csv",
    "jsonl",
    "parquet",
    "wide",
    "wide-parquet",
    "raven",
    "raven-combined",
    "audacity",
    "kaleidoscope",
    "submission",
)
_OF_ALL_LABELS = {"wide", "wide-parquet"}
_OF_SELECTIONS = {"raven", "raven-combined", "audacity", "kaleidoscope"}  # what these programs show

SEGMENT_WINDOW = WindowConfig(window_seconds=1.5, overlap_seconds=1.0)
"""The windows that segments are made of where none are asked for: the best of those in benchmarks/events.py."""


class TagSettings(SegmentConfig):
    """What `spectag tag` makes of recordings, and how it tells it."""

    format: str | None = None
    """One or several, with commas. csv, jsonl, parquet: a row for each tag. wide, wide-parquet: a column for each
    label. raven, audacity: a file for each recording. raven-combined, kaleidoscope: one for all. submission: the rows
    and columns of --template. By default as --template or the output's suffix say, else csv."""
    template: Path | None = None
    """A competition's sample_submission.csv: give all labels' probabilities for the clips that it names."""
    window: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Tag each stretch of this many seconds. By default recordings are tagged as a whole."""
    overlap: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Seconds that a window shares with the one before it."""
    top: int | None = Field(None, ge=1)
    """Give this many labels, the most probable ones."""
    min_confidence: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    """Give the labels of at least this probability, from 0 to 1."""
    pool: Literal["max", "mean"] | None = None
    """Give each recording as a whole the greatest or the mean of its windows' probabilities."""
    segments: bool | None = None
    """Join windows into segments where a label is on. By default for Raven, Audacity and Kaleidoscope alone."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that are asked for, each once."""
        if self.format is None:
            return ("csv",) if self.template is None else ("submission",)
        return tuple(dict.fromkeys(name.strip() for name in self.format.split(",")))

    @property
    def joins_windows(self) -> bool:
        """Whether segments are told, and not windows."""
        if self.segments is None:
            return self.pool is None and self.top is None and bool(_OF_SELECTIONS.intersection(self.formats))
        return self.segments

    @property
    def windows(self) -> WindowConfig | None:
        """The windows to look at; None: recordings as a whole."""
        if self.window is None:
            return SEGMENT_WINDOW if self.joins_windows else None
        return WindowConfig(window_seconds=self.window, overlap_seconds=self.overlap or 0.0)

    def to_toml(self) -> str:
        """The settings as TOML, with the windows that were taken: they give the same again when defaults change."""
        unused = set() if self.joins_windows else set(SegmentConfig.model_fields)
        values = self.model_dump(mode="json", exclude_none=True, exclude=unused)
        if self.windows is not None:
            values |= {"window": self.windows.window_seconds, "overlap": self.windows.overlap_seconds}
            values["segments"] = self.joins_windows
        return tomli_w.dumps(values)

    @model_validator(mode="after")
    def _check_formats(self) -> Self:
        for name in self.formats:
            if name not in FORMAT_NAMES:
                nearest = did_you_mean(name, FORMAT_NAMES) or "."
                raise ValueError(f"unknown format {name!r}{nearest} There are {', '.join(FORMAT_NAMES)}")
        if "submission" in self.formats and self.template is None:
            raise ValueError("--format submission needs --template, the competition's sample_submission.csv")
        if "submission" not in self.formats and self.template is not None:
            raise ValueError(f"--template asks for a submission, and --format {self.format} for another table")
        return self

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        if self.window is None and self.overlap is not None:
            raise ValueError(f"--overlap {self.overlap:g} needs --window, the length of what overlaps")
        if self.window is None and self.pool is not None:
            raise ValueError(f"--pool {self.pool} needs --window, the length of what is pooled")
        if self.window is not None and (self.overlap or 0.0) >= self.window:
            raise ValueError(f"need overlap < window, got {self.overlap:g} s and {self.window:g} s")
        return self

    @model_validator(mode="after")
    def _check_segments(self) -> Self:
        if self.segments and (self.top is not None or self.pool is not None):
            other = "--pool" if self.top is None else "--top"
            raise ValueError(f"--segments joins windows where a label reaches its threshold, so {other} has no meaning")
        joining = [name for name in SegmentConfig.model_fields if name in self.model_fields_set]
        if joining and not self.joins_windows:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in joining)
            raise ValueError(f"{options} {'belong' if joining[1:] else 'belongs'} to segments: give --segments with it")
        return self

    @model_validator(mode="after")
    def _check_wide(self) -> Self:
        chosen = {"--top": self.top, "--min-confidence": self.min_confidence, "--segments": self.segments or None}
        given = [option for option, value in chosen.items() if value is not None]
        if given and _OF_ALL_LABELS.issuperset(self.formats):
            raise ValueError(
                f"--format {self.format} has all labels' probabilities for each window, so {given[0]} has no meaning; "
                "leave it out, or give csv with it"
            )
        return self

    @model_validator(mode="after")
    def _check_submission(self) -> Self:
        whole = self.window is None or self.pool is not None
        if self.template is not None and not (
            whole and self.top is None and self.min_confidence is None and not self.segments
        ):
            raise ValueError(
                "a submission has all labels' probabilities for whole clips; leave out --top, --min-confidence and "
                "--segments, and give --window with --pool or not at all"
            )
        return self
