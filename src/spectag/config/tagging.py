"""Settings of tagging: the windows, the labels to report and the output formats."""

from pathlib import Path
from typing import Literal, Self

import tomli_w
from pydantic import Field, model_validator

from spectag.config.base import (
    MAX_SECONDS,
    Channel,
    LongRecordingWindows,
    SegmentConfig,
    SegmentFrames,
    WindowConfig,
    check_window_options,
)
from spectag.errors import did_you_mean

_WIDE_FORMATS = ("wide", "wide-parquet")
_SELECTION_FORMATS = (
    *("raven", "raven-combined", "audacity", "kaleidoscope", "reaper", "audition", "sonic-visualiser", "label-studio"),
    "soundevent",
)
_ROW_FORMATS = (*_WIDE_FORMATS, "multi-hot", "submission")  # a row for each recording or window, even without labels
_TAG_FORMATS = ("csv", "tsv", "xlsx", "json", "jsonl", "parquet")
FORMAT_NAMES = (*_TAG_FORMATS, *_WIDE_FORMATS, "multi-hot", *_SELECTION_FORMATS, "submission")

SEGMENT_WINDOW = WindowConfig(window_seconds=1.5, overlap_seconds=1.0)
"""Default windows for segments: the best ones in benchmarks/events.py."""
_OVERLAP = 2 / 3  # of these windows


def segment_window(least_seconds: float) -> WindowConfig:
    """The default windows for segments, or longer ones if a network needs at least so many seconds."""
    if least_seconds <= (SEGMENT_WINDOW.window_seconds or 0):
        return SEGMENT_WINDOW
    return WindowConfig(window_seconds=least_seconds, overlap_seconds=_OVERLAP * least_seconds)


WINDOW_HYSTERESIS = 0.7
"""A segment of windows ends below this fraction of the threshold, if nothing else is set."""
SEGMENT_FRAMES = SegmentFrames(**SEGMENT_WINDOW.model_dump())
"""The frames of a model, with the thresholds of the default windows."""
LONG_RATIO = 2.0
"""A recording longer than this times the training clips is reported in segments by default, a shorter one as a clip."""


class TagSettings(SegmentConfig):
    """Settings of `spectag tag`."""

    format: str | None = None
    """One or more formats, separated by commas. csv, tsv, xlsx, parquet: one row per tag. json, jsonl: one object per
    recording, window or segment. wide, wide-parquet: one column per label, with its probability. multi-hot: the same
    with 1 for reported labels, else 0. raven, audacity, reaper, audition, sonic-visualiser: one file per recording.
    raven-combined, kaleidoscope, label-studio, soundevent: one file for all. submission: the rows and columns of
    --template. By default, chosen by --template or the suffix of the output, else csv."""
    template: Path | None = None
    """sample_submission.csv of a competition: write the probabilities of all labels for its clips."""
    window: float | None = Field(None, gt=0, le=MAX_SECONDS)
    """Report each window of this length in seconds."""
    overlap: float | None = Field(None, ge=0, le=MAX_SECONDS)
    """Overlap with the previous window in seconds."""
    top: int | None = Field(None, ge=1, le=1_000_000)
    """Report this many labels, the most probable ones."""
    min_confidence: float | None = Field(None, ge=0, le=1)
    """Report labels with at least this probability, from 0 to 1."""
    max_novelty: float | None = Field(None, gt=0, le=1e6)
    """Report no labels where the sound is more novel than this; 1 keeps 97 % of the training sounds. By default, all
    labels are reported."""
    labels: Path | None = None
    """Report only the labels in this file, which has one label in each line."""
    not_labels: Path | None = None
    """Do not report the labels in this file, which has one label in each line."""
    words: str | None = Field(None, min_length=1, max_length=100_000)
    """Report only the labels of the model that these words, or those in the lines of a .txt file, mean, such as "dog
    barking, animal sounds". The name of a label of AudioSet means those below it, too. The labels that were found for
    each are printed."""
    names: Path | None = None
    """Report other names: ucs, which gives labels of AudioSet their CatID of the Universal Category System for sound
    effects; or a CSV with the columns old and new, as for spectag relabel. Overlapping segments that get one name are
    joined."""
    recorded: bool | None = None
    """Add the columns recorded, the time at which the sound was recorded, and site, as far as recordings, their names
    and --deployments state them."""
    site_from: str | None = None
    """Regular expression that finds the site in the path of a recording; implies --recorded. By default the site is
    what comes before the date in the file name, or the folder."""
    deployments: Path | None = None
    """Table with site, latitude, longitude, start and end of each deployment; implies --recorded."""
    prior: Path | None = None
    """Table with the columns label and prior, a factor of the odds of a label, and optionally site, latitude, longitude
    and weeks: where and when it applies. 0 hides a label there."""
    clip_level: Literal["max", "mean"] | None = None
    """Report each recording as a whole, whatever its length: mean averages over time as training and evaluation do, max
    takes the maximum of its windows, which are as long as the training clips unless you set --window."""
    segments: bool | None = None
    """Report segments with an onset and an offset. By default for recordings longer than two training clips, and in the
    formats of audio and annotation programs, such as raven. --top, wide tables, multi-hot and submission report whole
    recordings instead."""
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
    def has_places(self) -> bool:
        """Whether tables have the columns recorded and site."""
        return bool(self.recorded) or self.site_from is not None or self.deployments is not None

    @property
    def joins_windows(self) -> bool:
        """Whether to report segments, whatever the length of a recording."""
        if self.segments is None:
            has_selections = any(name in _SELECTION_FORMATS for name in self.formats)
            return has_selections and self.clip_level is None and self.top is None
        return self.segments

    @property
    def depends_on_duration(self) -> bool:
        """Whether to report segments of long recordings, and short ones as a whole."""
        choices = (self.segments, self.window, self.clip_level, self.top)
        has_other_rows = any(name in (*_SELECTION_FORMATS, *_ROW_FORMATS) for name in self.formats)
        return all(choice is None for choice in choices) and not has_other_rows

    @property
    def needs_rows_of_recordings(self) -> str:
        """The option because of which recordings of any length are tagged as a whole; "" if none is, or on purpose."""
        if any(choice is not None for choice in (self.segments, self.window, self.clip_level, self.template)):
            return ""
        formats = [name for name in self.formats if name in _ROW_FORMATS]
        return f"--format {formats[0]}" if formats else "--top" if self.top is not None else ""

    def windows(
        self, clip_seconds: float, part_seconds: float, least_seconds: float = 0.0, *, has_frames: bool = False
    ) -> WindowConfig | None:
        """The windows or frames to tag with a model; None: recordings as a whole.

        Parameters
        ----------
        clip_seconds : float
            Length of the training clips.
        part_seconds : float
            Longest sound that the network takes at once.
        least_seconds : float
            Shortest sound that it takes without silence after it.
        has_frames : bool
            Whether segments come from frames, if no window is set.
        """
        if self.window is not None:
            return WindowConfig(window_seconds=self.window, overlap_seconds=self.overlap or 0.0)
        if self.depends_on_duration:
            longest = min(LONG_RATIO * clip_seconds, MAX_SECONDS)
            if has_frames:
                return SEGMENT_FRAMES.model_copy(update={"longer_than_seconds": longest})
            return LongRecordingWindows(**segment_window(least_seconds).model_dump(), longer_than_seconds=longest)
        if self.clip_level == "max":
            return WindowConfig(window_seconds=min(clip_seconds, part_seconds))
        if not self.joins_windows:
            return None
        return SEGMENT_FRAMES if has_frames else segment_window(least_seconds)

    def to_toml(self, *, has_frames: bool = False) -> str:
        """The settings as TOML, with the default windows of segments, so that later defaults do not change the result.

        The windows of a model, which depend on its training clips, are not in it, nor are those of a model that finds
        segments from its frames (`has_frames`), which says itself how frames are joined.
        """
        unused = set() if self.joins_windows or self.depends_on_duration else set(SegmentConfig.model_fields)
        values = self.model_dump(mode="json", exclude_none=True, exclude=unused)
        if not unused and not (has_frames and self.window is None):
            values.setdefault("hysteresis", WINDOW_HYSTERESIS)
        if self.joins_windows and self.window is None and not has_frames:
            values |= {"window": SEGMENT_WINDOW.window_seconds, "overlap": SEGMENT_WINDOW.overlap_seconds}
        if self.window is not None or self.joins_windows:
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
    def _check_names(self) -> Self:
        wrong = [name for name in self.formats if name in _ROW_FORMATS]
        if self.names is not None and wrong:
            raise ValueError(f"--format {wrong[0]} has the labels of the model; leave --names out")
        return self

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        if self.has_places and not set(self.formats) & set(_TAG_FORMATS) and (self.prior is None or self.recorded):
            options = {"--site-from": self.site_from, "--deployments": self.deployments, "--recorded": self.recorded}
            option = next(name for name, value in options.items() if value)
            raise ValueError(f"{option} adds columns to {', '.join(_TAG_FORMATS)}, not to {', '.join(self.formats)}")
        return self

    @model_validator(mode="after")
    def _check_windows_and_segments(self) -> Self:
        check_window_options(self.window, self.overlap)
        if self.segments and (self.top is not None or self.clip_level is not None):
            other = "--clip-level" if self.top is None else "--top"
            raise ValueError(f"--segments merges windows above the threshold of a label, so {other} has no effect")
        if self.joins_windows and "multi-hot" in self.formats:
            raise ValueError("--format multi-hot has a row for each window, not for segments; add --no-segments")
        segment_settings = [name for name in SegmentConfig.model_fields if name in self.model_fields_set]
        if segment_settings and not self.joins_windows and not self.depends_on_duration:
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
        if self.template is not None and (self.labels or self.not_labels or self.words):
            raise ValueError("a submission has the labels of --template; leave out --labels, --not-labels and --words")
        if self.labels and self.words:
            raise ValueError("--labels and --words both say which labels to report; give one of them")
        if unused and (self.template is not None or set(self.formats).issubset(_WIDE_FORMATS)):
            content = f"--format {','.join(self.formats)} contains the probabilities of all labels"
            raise ValueError(f"{content}, so {unused[0]} has no effect; leave it out, or use --format csv")
        if self.template is not None and self.window is not None and self.clip_level is None:
            raise ValueError(
                "a submission contains the probabilities of whole clips; use --window only with --clip-level"
            )
        return self
