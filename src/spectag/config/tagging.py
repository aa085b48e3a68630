"""Settings of tagging: the windows, the labels to report and the output formats."""

from pathlib import Path
from typing import Literal, Self

import tomli_w
from pydantic import Field, model_validator

from spectag.config.base import MAX_SECONDS, Channel, SegmentConfig, WindowConfig, check_window_options
from spectag.errors import did_you_mean

_WIDE_FORMATS = ("wide", "wide-parquet")
_SELECTION_FORMATS = ("raven", "raven-combined", "audacity", "kaleidoscope")
FORMAT_NAMES = ("csv", "jsonl", "parquet", *_WIDE_FORMATS, "multi-hot", *_SELECTION_FORMATS, "submission")

SEGMENT_WINDOW = WindowConfig(window_seconds=1.5, overlap_seconds=1.0)
"""Default windows for segments: the best ones in benchmarks/events.py."""


class TagSettings(SegmentConfig):
    """Settings of `spectag tag`."""

    format: str | None = None
    """One or more formats, separated by commas. csv, jsonl, parquet: one row per tag. wide, wide-parquet: one column
    per label, with its probability. multi-hot: the same with 1 for reported labels, else 0. raven, audacity: one file
    per recording. raven-combined, kaleidoscope: one file for all. submission: the rows and columns of --template. By
    default, chosen by --template or the suffix of the output, else csv."""
    template: Path | None = None
    """sample_submission.csv of a competition: write the probabilities of all labels for its clips."""
    window: float | None = Field(None, gt=0, le=MAX_SECONDS)
    """Window length in seconds. By default, recordings are tagged as a whole."""
    overlap: float | None = Field(None, ge=0, le=MAX_SECONDS)
    """Overlap with the previous window in seconds."""
    top: int | None = Field(None, ge=1, le=1_000_000)
    """Report this many labels, the most probable ones."""
    min_confidence: float | None = Field(None, ge=0, le=1)
    """Report labels with at least this probability, from 0 to 1."""
    max_novelty: float | None = Field(None, gt=0, le=1e6)
    """Report no labels where the sound is more novel than this; 1 keeps 97 % of the training sounds. By default, all
    labels are reported."""
    pool: Literal["max", "mean"] | None = None
    """Report each recording as a whole, with the maximum or the mean of its windows."""
    segments: bool | None = None
    """Merge windows into segments with an onset and an offset. The default for Raven, Audacity and Kaleidoscope."""
    channel: Channel | None = None
    """How several channels become one: their mean (mix), the loudest one of the first ten minutes (loudest), or the one
    with this number, from 1. By default as in training."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The requested formats, without duplicates."""
        if self.format is None:
            return ("csv",) if self.template is None else ("submission",)
        return tuple(dict.fromkeys(name.strip() for name in self.format.split(",")))

    @property
    def joins_windows(self) -> bool:
        """Whether to report segments instead of windows."""
        if self.segments is None:
            has_selections = any(name in _SELECTION_FORMATS for name in self.formats)
            return has_selections and self.pool is None and self.top is None
        return self.segments

    @property
    def windows(self) -> WindowConfig | None:
        """The windows to tag; None: recordings as a whole."""
        if self.window is None:
            return SEGMENT_WINDOW if self.joins_windows else None
        return WindowConfig(window_seconds=self.window, overlap_seconds=self.overlap or 0.0)

    def to_toml(self) -> str:
        """The settings as TOML, with the windows in use, so that later defaults do not change the result."""
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
                hint = did_you_mean(name, FORMAT_NAMES) or "."
                raise ValueError(f"unknown format {name!r}{hint} The formats are {', '.join(FORMAT_NAMES)}")
        if "submission" in self.formats and self.template is None:
            raise ValueError("--format submission needs --template, the competition's sample_submission.csv")
        if "submission" not in self.formats and self.template is not None:
            raise ValueError(f"--template is for --format submission, got --format {self.format}; leave one out")
        return self

    @model_validator(mode="after")
    def _check_windows_and_segments(self) -> Self:
        check_window_options(self.window, self.overlap)
        if self.window is None and self.pool is not None:
            raise ValueError(f"--pool {self.pool} needs --window, the length of the windows")
        if self.segments and (self.top is not None or self.pool is not None):
            other = "--pool" if self.top is None else "--top"
            raise ValueError(f"--segments merges windows above the threshold of a label, so {other} has no effect")
        if self.joins_windows and "multi-hot" in self.formats:
            raise ValueError("--format multi-hot has a row for each window, not for segments; add --no-segments")
        segment_settings = [name for name in SegmentConfig.model_fields if name in self.model_fields_set]
        if segment_settings and not self.joins_windows:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in segment_settings)
            raise ValueError(f"{options}: only for segments; add --segments")
        return self

    @model_validator(mode="after")
    def _check_tables_of_all_labels(self) -> Self:
        options = {
            "--top": self.top,
            "--min-confidence": self.min_confidence,
            "--max-novelty": self.max_novelty,
            "--segments": self.segments or None,
        }
        unused = [option for option, value in options.items() if value is not None]
        if unused and (self.template is not None or set(self.formats).issubset(_WIDE_FORMATS)):
            content = f"--format {','.join(self.formats)} contains the probabilities of all labels"
            raise ValueError(f"{content}, so {unused[0]} has no effect; leave it out, or use --format csv")
        if self.template is not None and self.window is not None and self.pool is None:
            raise ValueError("a submission contains the probabilities of whole clips; use --window only with --pool")
        return self
