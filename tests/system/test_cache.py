"""The cache folder: where it is, and what takes its place if it cannot be written."""

import logging
import shutil
import sqlite3
from collections import namedtuple
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from helpers.command import python
from spectag.audio.files import write_audio
from spectag.config.base import MelConfig
from spectag.data.clips import Clip
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.errors import ConfigError
from spectag.system import cache
from spectag.system.cache import cache_folder, permanent_cache_folder, writable_cache_folder


@pytest.fixture(autouse=True)
def no_earlier_replacement(monkeypatch, tmp_path):
    cache._temporary_folder.cache_clear()
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    yield
    cache._temporary_folder.cache_clear()


def test_folder_that_can_be_written_is_used_without_a_warning(tmp_path, caplog):
    assert writable_cache_folder() == cache_folder() == tmp_path / "cache"
    assert caplog.messages == []


def test_folder_that_cannot_be_created_is_replaced_with_one_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        first, second = writable_cache_folder(), writable_cache_folder()
    assert first == second == cache_folder()
    assert first.is_dir()
    assert first.name.startswith("spectag-cache-")
    assert permanent_cache_folder() == first
    [message] = caplog.messages
    assert "file/cache cannot be written (Not a directory); this run uses a temporary one" in message


def test_folder_on_a_full_disk_is_replaced_only_if_the_temporary_one_has_space(tmp_path, monkeypatch, caplog):
    usage = namedtuple("usage", "free")
    free = {"cache": 1_000_000}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free.get(Path(path).name, 1 << 40)))
    assert writable_cache_folder().name.startswith("spectag-cache-")
    assert "has only 1 MB of free space" in caplog.messages[0]
    cache._temporary_folder.cache_clear()
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000))
    assert writable_cache_folder() == tmp_path / "cache"


def test_files_of_a_folder_that_cannot_be_written_are_read_and_new_ones_go_elsewhere(tmp_path, monkeypatch):
    write_audio(tmp_path / "a.wav", np.zeros(16_000, np.float32), 16_000)
    write_audio(tmp_path / "b.wav", np.ones(16_000, np.float32), 16_000)
    first, second = (Clip(tmp_path / name, name, ()) for name in ("a.wav", "b.wav"))
    old = writable_cache_folder()
    SpectrogramCache(old / "spectrograms", MelConfig()).prepare([first], workers=1)
    with closing(sqlite3.connect(old / "spectrograms" / "fingerprints-1.sqlite")) as database:
        database.execute("create table clips (path)")
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    monkeypatch.setattr(cache, "cache_problem", lambda folder: "cannot be written" if folder == old else None)
    new = writable_cache_folder()
    assert new != old
    report = SpectrogramCache(new / "spectrograms", MelConfig()).prepare([first, second], workers=1)
    assert (report.n_cached, report.n_new) == (1, 1)
    with closing(sqlite3.connect(new / "spectrograms" / "fingerprints-1.sqlite")) as database:
        database.execute("insert into clips values ('b')")
        database.commit()
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before


def test_home_that_does_not_exist_is_not_created(tmp_path, monkeypatch):
    monkeypatch.delenv("SPECTAG_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    assert writable_cache_folder().name.startswith("spectag-cache-")
    assert not (tmp_path / "missing").exists()


def test_unknown_user_without_a_home_gets_a_temporary_folder(monkeypatch, tmp_path):
    def no_home(_name):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("SPECTAG_CACHE")
    monkeypatch.setattr(cache.platformdirs, "user_cache_path", no_home)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="set SPECTAG_CACHE"):
        permanent_cache_folder()
    assert writable_cache_folder().name.startswith("spectag-cache-")
    assert not Path("~").exists()


def test_temporary_folder_is_deleted_when_the_process_ends(tmp_path):
    (tmp_path / "file").write_text("")
    done = python(
        f"import os, tempfile; tempfile.tempdir = {str(tmp_path)!r}\n"
        f"os.environ['SPECTAG_CACHE'] = {str(tmp_path / 'file' / 'cache')!r}\n"
        "from spectag.system.cache import writable_cache_folder; print(writable_cache_folder().is_dir())"
    )
    assert done.out == "True\n"
    assert len(done.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_home_of_an_unknown_user_in_the_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", "~no-such-user/cache")
    with pytest.raises(ConfigError, match=r"SPECTAG_CACHE: ~no-such-user/cache: .*write the path in full"):
        cache_folder()
