"""Errors of one file are a reason to skip it; errors of the whole run are raised again."""

import errno
import logging
import shutil
from pathlib import Path

import pytest

from spectag.errors import AudioError, BundleError, DataError, MissingExtraError, SpectrogramCacheError
from spectag.system.file_errors import path_with_spaces, reason_of, similar_file, skip_reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AudioError("a.wav: empty"), "a.wav: empty"),
        (DataError("a.png: no image"), "a.png: no image"),
        (PermissionError(errno.EACCES, "Permission denied"), "a.wav: the file can't be read: Permission denied"),
        (ValueError("bad header\nin two lines"), "a.wav: unexpected ValueError: bad header"),
        (ZeroDivisionError(), "a.wav: unexpected ZeroDivisionError"),
        (OSError("short read"), "a.wav: unexpected OSError: short read"),
    ],
)
def test_error_of_one_file_is_a_reason_in_one_line(error, expected):
    assert skip_reason("a.wav", error) == expected


def test_missing_package_for_a_file_is_a_reason():
    assert "pip install 'spectag[av]'" in skip_reason("a.m4a", MissingExtraError("av", "av", "a.m4a: reading it"))


@pytest.mark.parametrize(
    "error",
    [
        BundleError("model.onnx: damaged"),
        SpectrogramCacheError("cache: can't be written"),
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
    ],
)
def test_error_of_the_whole_run_is_raised_again(error):
    with pytest.raises(type(error)) as caught:
        skip_reason("a.wav", error)
    assert caught.value is error


def test_unexpected_error_is_logged_with_its_traceback(caplog):
    with caplog.at_level(logging.INFO, logger="spectag"):
        skip_reason("a.wav", AudioError("a.wav: empty"))
        assert not caplog.records
        skip_reason("a.wav", KeyError("codec"))
    [record] = caplog.records
    assert record.getMessage() == "a.wav: unexpected KeyError: 'codec'"
    assert record.exc_info is not None


def test_reason_of_many_copies_that_failed_is_that_of_the_first(tmp_path):
    (tmp_path / "a").mkdir()
    for name in "bc":
        (tmp_path / "a" / name).symlink_to("missing")
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert reason_of(caught.value) == "[Errno 2] No such file or directory"
    assert reason_of(PermissionError(errno.EACCES, "Permission denied", "a.wav")) == "Permission denied"


@pytest.mark.parametrize(
    ("missing", "meant"),
    [("brak.wav", "bark.wav"), ("bark.flac", "bark.wav"), ("Bark.wav", "bark.wav"), ("rain.txt", "rain.txt.csv")],
)
def test_missing_file_is_compared_with_those_in_its_folder(tmp_path, missing, meant):
    for name in ("bark.wav", "m.csv", "rain.txt.csv"):
        (tmp_path / name).touch()
    assert similar_file(tmp_path / missing) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize("missing", ["none.csv", "no folder/bark.wav"])
def test_no_file_is_suggested_if_none_is_similar(tmp_path, missing):
    (tmp_path / "m.csv").touch()
    assert similar_file(tmp_path / missing) == ""


def test_file_with_the_same_suffix_is_suggested_first(tmp_path, monkeypatch):
    for name in ("bark.csv", "bark.wav", "bark.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert similar_file(Path("brak.wav")) == "; did you mean 'bark.wav'?"


def test_words_that_are_a_path_with_spaces_together(tmp_path, monkeypatch):
    (tmp_path / "My Recordings").mkdir()
    (tmp_path / "My Recordings" / "a b.wav").touch()
    monkeypatch.chdir(tmp_path)
    assert path_with_spaces(["My", "Recordings/a", "b.wav", "c.wav"]) == "My Recordings/a b.wav"
    assert path_with_spaces(["My", "Recordings"]) == "My Recordings"
    assert path_with_spaces(["Recordings/a", "b.wav"]) is None
