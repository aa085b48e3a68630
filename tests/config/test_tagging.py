"""Settings of tagging: defaults, validation, and writing and reading."""

import tomllib

import pytest
from pydantic import ValidationError

from helpers.configs import read_config
from spectag.config.base import LongRecordingWindows, SegmentFrames, WindowConfig
from spectag.config.tagging import FORMAT_NAMES, SEGMENT_FRAMES, SEGMENT_WINDOW, TagSettings


def windows_of(**settings):
    """The windows with a model that was trained on clips of 5 s, and takes 60 s at once."""
    return TagSettings(**settings).windows(5.0, 60.0)


def test_only_recordings_longer_than_two_training_clips_have_windows_by_default():
    assert windows_of() == LongRecordingWindows(**SEGMENT_WINDOW.model_dump(), longer_than_seconds=10.0)
    assert windows_of(min_confidence=0.2, max_gap_seconds=1.0, format="csv,jsonl,parquet") == windows_of()


@pytest.mark.parametrize(
    "settings",
    [{"clip_level": "mean"}, {"top": 3}, {"segments": False}, {"template": "t.csv"}]
    + [{"format": name} for name in ("wide", "wide-parquet", "multi-hot", "csv,wide")],
)
def test_options_that_need_a_row_for_each_recording_have_no_windows(settings):
    assert windows_of(**settings) is None
    assert not TagSettings(**settings).joins_windows


def test_windows_of_the_user_hold_for_all_recordings():
    assert windows_of(window=3.0) == WindowConfig(window_seconds=3.0)
    assert windows_of(window=3.0, overlap=1.0) == WindowConfig(window_seconds=3.0, overlap_seconds=1.0)
    assert windows_of(window=3.0, clip_level="max") == WindowConfig(window_seconds=3.0)


def test_maximum_of_a_recording_has_windows_as_long_as_the_training_clips():
    assert windows_of(clip_level="max") == WindowConfig(window_seconds=5.0)
    assert TagSettings(clip_level="max").windows(300.0, 60.0) == WindowConfig(window_seconds=60.0)


@pytest.mark.parametrize("name", ["raven", "raven-combined", "audacity", "kaleidoscope", "csv,raven"])
def test_selection_formats_report_segments_by_default(name):
    assert TagSettings(format=name).joins_windows
    assert windows_of(format=name) == SEGMENT_WINDOW
    assert windows_of(format=name, window=1.0) == WindowConfig(window_seconds=1.0)
    assert not TagSettings(format=name, segments=False).joins_windows
    assert not TagSettings(format=name, top=1).joins_windows


def test_tables_report_windows_by_default():
    assert not TagSettings(format="csv", window=1.0).joins_windows
    assert TagSettings(segments=True).joins_windows


def test_formats_are_split_at_commas_without_duplicates():
    assert TagSettings(format="csv, raven,csv").formats == ("csv", "raven")
    assert TagSettings().formats == ("csv",)
    assert TagSettings(template="t.csv").formats == ("submission",)


def test_every_format_can_be_written():
    from spectag.tagging.formats.dispatch import FORMATS

    assert {*FORMATS, "submission"} == set(FORMAT_NAMES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"overlap": 1.0}, "--overlap 1 needs --window"),
        ({"window": 1.0, "overlap": 1.0}, "need overlap < window, got 1 s and 1 s"),
        ({"window": 0.0}, "greater than 0"),
        ({"window": float("inf")}, "finite"),
        ({"min_confidence": float("nan")}, "finite"),
        ({"format": "rawen"}, "unknown format 'rawen'; did you mean 'raven'"),
        ({"format": ""}, "unknown format ''"),
        ({"format": "submission"}, "needs --template"),
        ({"format": "csv", "template": "t.csv"}, "got --format csv; leave one out"),
        ({"template": "t.csv", "top": 1}, "--format submission contains .*--top has no effect; leave it out"),
        ({"template": "t.csv", "window": 1.0}, "use --window only with --clip-level"),
        ({"segments": True, "top": 1}, "so --top has no effect"),
        ({"segments": True, "window": 1.0, "clip_level": "max"}, "so --clip-level has no effect"),
        ({"format": "wide", "top": 1}, "--format wide contains the probabilities .*--top has no effect"),
        ({"format": "wide", "min_confidence": 0.0}, "--min-confidence has no effect"),
        ({"format": "wide,wide-parquet", "segments": True}, "--segments has no effect"),
        ({"format": "multi-hot,raven"}, "--format multi-hot has a row for each window.*add --no-segments"),
        ({"max_gap_seconds": 1.0, "window": 2.0}, "--max-gap-seconds: only for segments; add --segments"),
        ({"smooth_windows": 2}, "odd number"),
        ({"windw": 2}, "not permitted"),
    ],
)
def test_contradicting_settings_raise_an_error(values, message):
    with pytest.raises(ValidationError, match=message):
        TagSettings(**values)


def test_submission_can_pool_windows():
    settings = TagSettings(template="t.csv", window=2.0, clip_level="mean")
    assert settings.formats == ("submission",)
    assert settings.windows(5.0, 60.0) == WindowConfig(window_seconds=2.0)
    assert not settings.joins_windows


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"max_gap_seconds": 2.0},
        {"clip_level": "max"},
        {"top": 3},
        {"window": 5.0, "overlap": 2.5, "clip_level": "max"},
        {"format": "raven"},
        {"format": "csv,raven", "window": 2.0, "overlap": 1.0, "hysteresis": 0.5, "min_confidence": 0.25},
        {"template": "sample submission.csv"},
    ],
)
def test_settings_are_equal_after_the_file_that_every_run_writes(tmp_path, values):
    settings = TagSettings(**values)
    (tmp_path / "parameters.toml").write_text(settings.to_toml())
    loaded = read_config(tmp_path / "parameters.toml", TagSettings)
    assert loaded.windows(5.0, 60.0) == settings.windows(5.0, 60.0)
    assert loaded.joins_windows == settings.joins_windows
    assert loaded.depends_on_duration == settings.depends_on_duration
    changed = {"window", "overlap", "segments", "hysteresis"}
    assert loaded.model_dump(exclude=changed) == settings.model_dump(exclude=changed)
    assert loaded.hysteresis in (settings.hysteresis, 0.7)


def test_frames_of_a_model_replace_the_default_windows_of_segments():
    def with_frames(**settings):
        return TagSettings(**settings).windows(5.0, 60.0, has_frames=True)

    assert with_frames(segments=True) == with_frames(format="raven") == SEGMENT_FRAMES
    assert with_frames() == SegmentFrames(**SEGMENT_WINDOW.model_dump(), longer_than_seconds=10.0)
    assert with_frames(segments=True, window=1.5, overlap=1.0) == SEGMENT_WINDOW
    assert with_frames(top=3) is None


@pytest.mark.parametrize(("options", "expected"), [({}, None), ({"hysteresis": 0.6, "smooth_windows": 5}, (0.6, 5))])
def test_file_of_a_run_with_frames_leaves_their_joining_to_the_model(options, expected):
    settings = TagSettings(segments=True, **options)
    stored = tomllib.loads(settings.to_toml(has_frames=True))
    assert "window" not in stored
    assert (stored.get("hysteresis"), stored.get("smooth_windows")) == (expected or (None, None))
    assert TagSettings(**stored).windows(5.0, 60.0, has_frames=True) == SEGMENT_FRAMES
