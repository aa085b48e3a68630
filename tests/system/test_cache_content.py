"""spectag cache: sizes by kind, deleting files, and the limit; never while another process uses the cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spectag.audio.files import write_audio
from spectag.config.backbones import BACKBONES
from spectag.config.base import MelConfig
from spectag.data.clips import Clip
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.errors import ConfigError
from spectag.models.pretrained import PUBLISHED, models_folder
from spectag.models.weights import cached_weights
from spectag.system import cache, cache_content
from spectag.system.cache import hold_cache, writable_cache_folder
from spectag.system.cache_content import (
    KINDS,
    apply_cache_limit,
    cache_limit,
    cache_usage,
    cached_files,
    clean_cache,
    link_cached_files,
    parse_size,
    readable_size,
    set_cache_limit,
)

HEX = "0123456789abcdef"
LOG_MEL = f"spectrograms/{HEX}/01/{HEX}{HEX}.npy"
INDEX = f"spectrograms/{HEX}/index.jsonl"
FEATURES = f"spectrograms/features/mn04_audioset-{HEX}/01/{HEX}{HEX}-600s-windows-100-50.npy"
NETWORK = f"onnx/mn04_audioset-{HEX}-all-1x128-graph-01234567.onnx"
JOURNAL = f"journals/{HEX}.journal-2of4/{HEX}.sqlite"
FILES = {
    LOG_MEL: "spectrograms",
    INDEX: "spectrograms",
    FEATURES: "features",
    "spectrograms/fingerprints-1.sqlite": "fingerprints",
    NETWORK: "networks",
    "models/audioset-mn04/model.onnx": "models",
    "weights/mn04_as_mAP_432.pt": "weights",
    "hub/models--me--m/blobs/1": "hub",
    "clap/model/audio.onnx": "clap",
    JOURNAL: "journals",
}
COMMIT = "hub/commits/me/m@"
STRANGERS = (
    "models/my_birds/model.onnx",
    "models/audioset-mn04/notes.txt",
    "weights/thesis.pt",
    "clap/model/notes.txt",
    "onnx/yamnet.onnx",
    "hub/models--openai--whisper/blobs/1",
    "spectrograms/owl.npy",
    "spectrograms/2024/01/owl.npy",
    "spectrograms/features/birds/01/owl.npy",
    "journals/2024.md",
)
HOLD = "from spectag.system.cache import writable_cache_folder; writable_cache_folder(); print(flush=True); input()"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache with a file of 100 bytes of each kind, and two of spectrograms, each older than the next."""
    folder = tmp_path / "cäche"
    monkeypatch.setenv("SPECTAG_CACHE", str(folder))
    for number, name in enumerate(FILES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1_000_000 + number, 1_000_000 + number))
    (folder / "not ours").write_bytes(b"x")
    (folder / COMMIT).parent.mkdir(parents=True)
    (folder / COMMIT).write_bytes(b"")
    return folder


@pytest.fixture
def other_process(folder):
    """Another process that uses the cache, until the test ends it by its stdin."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    yield process
    if process.poll() is None:
        process.communicate("\n")


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"in-use/.gate"}


def test_usage_has_files_and_bytes_of_each_kind(folder):
    usage = {item.kind: (item.n_files, item.n_bytes) for item in cache_usage()}
    assert usage == dict.fromkeys(KINDS, (1, 100)) | {"spectrograms": (2, 200), "hub": (2, 100)}


def test_cache_that_does_not_exist_is_empty(monkeypatch, tmp_path, run):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "gone"))
    assert all(item.n_bytes == 0 for item in cache_usage())
    assert (run("cache").status, clean_cache()) == (0, [])
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_only_files_of_the_kind_are_deleted(folder, kind):
    before = names(folder)
    [deleted] = clean_cache([kind])
    assert deleted.kind == kind
    files = FILES | {COMMIT: "hub"}
    assert before - names(folder) == {name for name, of in files.items() if of == kind}


def test_without_a_kind_everything_but_journals_is_deleted(folder):
    clean_cache()
    assert names(folder) == {JOURNAL, "not ours"}
    assert not (folder / "spectrograms").exists()  # nor any other empty folder


def test_files_of_the_user_in_the_folder_are_neither_counted_nor_deleted(folder):
    size = sum(item.n_bytes for item in cache_usage())
    for name in STRANGERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(100))
    assert sum(item.n_bytes for item in cache_usage()) == size
    set_cache_limit(0)
    clean_cache(tuple(KINDS))
    assert names(folder) == {*STRANGERS, "not ours", "limit"}


def test_all_names_that_spectag_gives_are_known(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path))
    write_audio(tmp_path / "a.wav", np.zeros(16_000, np.float32), 16_000)
    clips = [Clip(tmp_path / "a.wav", "a.wav", ()), Clip(tmp_path / "a.wav", "a.wav", (), end_seconds=0.5)]
    SpectrogramCache(tmp_path / "spectrograms", MelConfig()).prepare(clips, workers=1)
    for name in PUBLISHED:
        (models_folder() / name).mkdir(parents=True)
        (models_folder() / name / "model.onnx").write_bytes(b"")
    for spec in BACKBONES.values():
        if spec.weights:
            for ending in ("", ".part", ".part-version", ".sha256"):
                cached_weights(spec.weights.file_name + ending).parent.mkdir(exist_ok=True)
                cached_weights(spec.weights.file_name + ending).write_bytes(b"")
    known = {file.path.relative_to(tmp_path).as_posix() for file in cached_files()}
    assert {name for name in names(tmp_path) if not name.endswith("/lock")} - known == {"a.wav"}


def test_unknown_kind_is_an_error_and_nothing_is_deleted(folder):
    before = names(folder)
    with pytest.raises(ConfigError, match=r"spectrogram: no such kind of files; did you mean 'spectrograms'\?"):
        clean_cache(["features", "spectrogram"])
    assert names(folder) == before


def test_nothing_is_deleted_while_another_process_uses_the_cache(folder, other_process):
    before = names(folder)
    with pytest.raises(ConfigError, match="another run of spectag uses the cache; wait until it has ended"):
        clean_cache(["features"])
    set_cache_limit(0)
    assert names(folder) == before | {"limit"}
    other_process.communicate("\n")
    clean_cache(["features"])
    assert FEATURES not in names(folder)


def test_lock_of_a_killed_process_is_no_obstacle(folder, other_process):
    other_process.kill()
    other_process.communicate()
    assert len(list((folder / "in-use").glob("*.lock"))) == 1
    clean_cache(["features"])
    assert list((folder / "in-use").glob("*.lock")) == []


def test_next_run_removes_the_lock_of_a_killed_process(folder, other_process):
    (lock,) = (folder / "in-use").glob("*.lock")
    assert writable_cache_folder() == folder
    assert lock.exists(), "the other process still runs"
    other_process.kill()
    other_process.communicate()
    cache._release(folder, os.getpid())
    assert writable_cache_folder() == folder
    assert not lock.exists()


def test_own_use_is_no_obstacle(folder):
    assert writable_cache_folder() == folder
    clean_cache(["features"])
    cache._release(folder, os.getpid())
    assert list((folder / "in-use").glob("*.lock")) == []


def test_cache_that_cannot_be_written_is_held_without_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    hold_cache(tmp_path / "file" / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folder_that_does_not_exist_is_not_created_to_hold_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold_cache(tmp_path / "missing")
    hold_cache(Path("~", ".cache", "spectag"))  # of an unknown home
    assert list(tmp_path.iterdir()) == []


def test_limit_deletes_what_was_not_used_for_the_longest_time(folder):
    os.utime(folder / LOG_MEL, (2_000_000, 1_000_000))  # read later than the others
    assert cache_limit() is None
    deleted = set_cache_limit(250)  # of 500; downloads, journals and the limit itself do not count
    assert {item.kind for item in deleted} == {"spectrograms", "features", "fingerprints"}
    assert set(FILES) - names(folder) == {
        INDEX,
        FEATURES,
        "spectrograms/fingerprints-1.sqlite",
    }
    assert (cache_limit(), apply_cache_limit()) == (250, [])


def test_limit_keeps_or_deletes_a_database_with_its_journal(folder):
    database = folder / "spectrograms/fingerprints-1.sqlite"
    journal = database.with_name(f"{database.name}-journal")
    journal.write_bytes(bytes(50))
    os.utime(journal, (0, 0))
    os.utime(database, (3_000_000, 3_000_000))
    set_cache_limit(150)  # of 550
    assert (database.exists(), journal.exists()) == (True, True)
    os.utime(database, (1, 1))
    (folder / NETWORK).parent.mkdir(exist_ok=True)
    (folder / NETWORK).write_bytes(bytes(100))
    set_cache_limit(200)  # of 250: the journal alone would do
    assert (database.exists(), journal.exists()) == (False, False)


def test_limit_never_deletes_downloads_and_journals(folder):
    set_cache_limit(0)
    left = {name for name, kind in FILES.items() if kind in ("models", "weights", "hub", "clap", "journals")}
    assert names(folder) == left | {COMMIT, "limit", "not ours"}


def test_limit_applies_when_a_process_that_used_the_cache_ends(folder, other_process):
    (folder / "limit").write_text("0\n")
    other_process.communicate("\n")
    assert other_process.returncode == 0
    assert NETWORK not in names(folder)


def test_linked_are_only_complete_files_that_can_be_read(folder, tmp_path, monkeypatch):
    for name in ("weights/mn05_as_mAP_443.pt.part", "spectrograms/fingerprints-1.sqlite-journal", "models/my_birds/a"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(100))
    (folder / "spectrograms/fingerprints-1.sqlite").unlink()
    monkeypatch.setattr(cache_content.os, "access", lambda path, _mode: path != folder / INDEX)
    link_cached_files(tmp_path / "linked")
    expected = {*FILES, COMMIT} - {INDEX, JOURNAL, "spectrograms/fingerprints-1.sqlite"}
    assert names(tmp_path / "linked") == expected
    assert (tmp_path / "linked" / LOG_MEL).read_bytes() == bytes(100)
    assert not (tmp_path / "linked" / COMMIT).is_symlink()


def test_file_of_the_user_with_the_name_of_the_limit_stays(folder):
    (folder / "limit").write_text("my notes")
    for limit in (100, None):
        with pytest.raises(ConfigError, match=r"limit: not a limit that spectag wrote; rename it"):
            set_cache_limit(limit)
    assert (folder / "limit").read_text() == "my notes"


def test_limit_can_be_removed(folder):
    set_cache_limit(10**9)
    set_cache_limit(None)
    assert cache_limit() is None
    assert apply_cache_limit() == []


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("5GB", 5e9), ("500 MB", 5e8), ("1.5tb", 1.5e12), ("20kB", 2e4), ("7", 7), ("8 B", 8)]
)
def test_sizes_are_read_with_their_units(text, n_bytes):
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5 parsec", "1e9", "5GiB", "none"])
def test_other_sizes_are_an_error(text):
    with pytest.raises(ConfigError, match=r"expected a size such as 500MB, 5GB or 1\.5TB"):
        parse_size(text)


@pytest.mark.parametrize(("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")])
def test_sizes_are_shown_with_a_unit(n_bytes, text):
    assert readable_size(n_bytes) == text


def test_command_shows_cleans_and_limits(run, folder):
    table = run("cache").out
    assert ["all", "11", "1.0", "kB"] in [line.split() for line in table.splitlines()]
    assert f"folder: {folder}" in table
    assert "limit: none" in table
    assert json.loads(run("cache", "--json").out)["n_bytes"] == 1000
    assert run("cache", "clean", "features", "hub").out == ("deleted 100 B of features\ndeleted 100 B of hub\n")
    assert run("cache", "clean", "hub").out == "nothing to delete\n"
    assert run("cache", "limit", "1GB").out == "limit: 1.0 GB\n"
    assert "limit: 1.0 GB" in run("cache").out
    assert run("cache", "limit", "none").out == "limit: none\n"
    assert run("cache", "limit", "huge").status == 1
