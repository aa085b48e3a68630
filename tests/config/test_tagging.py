"""Settings of tagging that fit together, and those that do not."""

import pytest
from pydantic import ValidationError

from spectag.config.base import WindowConfig, read_config
from spectag.config.tagging import FORMAT_NAMES, SEGMENT_WINDOW, TagSettings


def test_recordings_are_tagged_as_a_whole_unless_windows_are_asked_for():
    assert TagSettings().windows is None
    assert TagSettings(window=3.0).windows == WindowConfig(window_seconds=3.0)
    assert TagSettings(window=3.0, overlap=1.0).windows == WindowConfig(window_seconds=3.0, overlap_seconds=1.0)


@pytest.mark.parametrize("name", ["raven", "raven-combined", "audacity", "kaleidoscope", "csv,raven"])
def test_selections_are_segments_unless_told_otherwise(name):
    assert TagSettings(format=name).joins_windows
    assert TagSettings(format=name).windows == SEGMENT_WINDOW
    assert TagSettings(format=name, window=1.0).windows == WindowConfig(window_seconds=1.0)
    assert not TagSettings(format=name, segments=False).joins_windows
    assert not TagSettings(format=name, top=1).joins_windows


def test_tables_have_windows_unless_segments_are_asked_for():
    assert not TagSettings(format="csv", window=1.0).joins_windows
    assert TagSettings(segments=True).joins_windows


def test_formats_are_split_at_commas_each_once():
    assert TagSettings(format="csv, raven,csv").formats == ("csv", "raven")
    assert TagSettings().formats == ("csv",)
    assert TagSettings(template="t.csv").formats == ("submission",)


def test_every_format_can_be_written():
    from spectag.tagging.formats.dispatch import FORMATS

    assert {*FORMATS, "submission"} == set(FORMAT_NAMES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"overlap": 1.0}, "--overlap 1 needs --window"),
        ({"window": 1.0, "overlap": 1.0}, "need overlap < window, got 1 s and 1 s"),
        ({"window": 0.0}, "greater than 0"),
        ({"window": float("inf")}, "finite"),
        ({"min_confidence": float("nan")}, "finite"),
        ({"pool": "max"}, "--pool max needs --window"),
        ({"format": "rawen"}, "unknown format 'rawen'; did you mean 'raven'"),
        ({"format": ""}, "unknown format ''"),
        ({"format": "submission"}, "needs --template"),
        ({"format": "csv", "template": "t.csv"}, "--format csv for another table"),
        ({"template": "t.csv", "top": 1}, "leave out --top"),
        ({"template": "t.csv", "window": 1.0}, "give --window with --pool or not at all"),
        ({"segments": True, "top": 1}, "so --top has no meaning"),
        ({"segments": True, "window": 1.0, "pool": "max"}, "so --pool has no meaning"),
        ({"format": "wide", "top": 1}, "--format wide has all labels' probabilities .*--top has no meaning"),
        ({"format": "wide", "min_confidence": 0.0}, "--min-confidence has no meaning"),
        ({"format": "wide,wide-parquet", "segments": True}, "--segments has no meaning"),
        ({"max_gap_seconds": 1.0}, "--max-gap-seconds belongs to segments"),
        ({"smooth_windows": 2}, "odd number"),
        ({"windw": 2}, "not permitted"),
    ],
)
def test_settings_that_do_not_fit_are_told(values, words):
    with pytest.raises(ValidationError, match=words):
        TagSettings(**values)


def test_submission_may_be_of_pooled_windows():
    assert TagSettings(template="t.csv", window=2.0, pool="mean").windows is not None


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"window": 5.0, "overlap": 2.5, "pool": "max"},
        {"format": "raven"},
        {"format": "csv,raven", "window": 2.0, "overlap": 1.0, "hysteresis": 0.5, "min_confidence": 0.25},
        {"template": "sample submission.csv"},
    ],
)
def test_settings_survive_the_file_that_every_run_writes(tmp_path, values):
    settings = TagSettings(**values)
    (tmp_path / "parameters.toml").write_text(settings.to_toml())
    anew = read_config(tmp_path / "parameters.toml", TagSettings)
    assert (anew.windows, anew.joins_windows) == (settings.windows, settings.joins_windows)
    not_told = {"window", "overlap", "segments"}
    assert anew.model_dump(exclude=not_told) == settings.model_dump(exclude=not_told)
