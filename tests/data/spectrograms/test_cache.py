import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.configs import read_config
from spectag.audio.files import read_audio, write_audio
from spectag.audio.mel import compute_log_mel, n_frames
from spectag.config.base import MelConfig
from spectag.data.clips import Clip
from spectag.data.spectrograms import cache as cache_module
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.errors import SpectrogramCacheError
from spectag.system.work_folder import work_folder

CONFIG = MelConfig(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16, f_max=4000)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def write_noise(path, rng, *, seconds=0.2, sample_rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, rng.uniform(-0.5, 0.5, round(seconds * sample_rate)).astype(np.float32), sample_rate)
    return clip_of(path)


def clip_of(path, start_seconds=0.0, end_seconds=None):
    return Clip(path, path.name, (), start_seconds=start_seconds, end_seconds=end_seconds)


@pytest.fixture
def clips(tmp_path, rng):
    return [write_noise(tmp_path / "sounds" / f"{name}.wav", rng) for name in ("a", "b ü", "c", "d", "e", "f")]


def tree(folder):
    """The bytes of all files, and all folders, below a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


# Content of the cache


def test_cached_log_mel_equals_compute_log_mel(tmp_path, clips):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    for clip, key in zip(clips, cache.prepare(clips).keys, strict=True):
        waveform, _ = read_audio(clip.path)
        np.testing.assert_array_equal(cache.log_mel(key), compute_log_mel(waveform, CONFIG))


def test_clips_are_resampled_to_the_configured_rate(tmp_path, rng):
    clip = write_noise(tmp_path / "a.wav", rng, seconds=1.0, sample_rate=22_050)
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    [key] = cache.prepare([clip]).keys
    waveform, _ = read_audio(clip.path, sample_rate=8000)
    np.testing.assert_array_equal(cache.log_mel(key), compute_log_mel(waveform, CONFIG))


def test_log_mels_are_read_only_memory_maps_of_ordinary_npy_files(tmp_path, clips):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    key = cache.prepare(clips).keys[0]
    log_mel = cache.log_mel(key)
    assert isinstance(log_mel, np.memmap)
    assert log_mel.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        log_mel[0, 0] = 0
    [path] = tmp_path.rglob(f"{key}.npy")
    np.testing.assert_array_equal(np.load(path), log_mel)


def test_settings_are_stored_beside_the_log_mels(tmp_path, clips):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    cache.prepare(clips)
    assert read_config(cache.folder / "mel.toml", MelConfig) == CONFIG


@pytest.mark.parametrize("workers", [1, 2])
def test_parts_of_a_file_are_cached_separately(tmp_path, rng, workers):
    path = write_noise(tmp_path / "long.wav", rng, seconds=3.0).path
    segments = [clip_of(path), clip_of(path, 0.5, 1.5), clip_of(path, 1, None), clip_of(path, 1.0, None)]
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    report = cache.prepare(segments, workers=workers)
    assert [cache.log_mel(key).shape[1] for key in report.keys] == [
        n_frames(n, CONFIG) for n in (24000, 8000, 16000, 16000)
    ]
    assert len(set(report.keys)) == 3
    waveform, _ = read_audio(path)
    np.testing.assert_array_equal(cache.log_mel(report.keys[1]), compute_log_mel(waveform[4000:12000], CONFIG))


def test_file_is_hashed_once_for_all_its_parts(tmp_path, rng, monkeypatch):
    path = write_noise(tmp_path / "long.wav", rng, seconds=2.0).path
    digests = []
    file_digest = cache_module.hashlib.file_digest
    monkeypatch.setattr(cache_module.hashlib, "file_digest", lambda *args: digests.append(1) or file_digest(*args))
    SpectrogramCache(tmp_path / "cache", CONFIG).prepare(
        [clip_of(path, start, start + 0.5) for start in (0, 0.5, 1, 1.5)]
    )
    assert len(digests) == 1


def test_equal_audio_with_two_names_is_stored_once(tmp_path, rng):
    first = write_noise(tmp_path / "first.wav", rng)
    second = clip_of(shutil.copy(first.path, tmp_path / "second.wav"))
    report = SpectrogramCache(tmp_path / "cache", CONFIG).prepare([first, second], workers=1)
    assert report.keys[0] == report.keys[1]
    assert (report.n_new, report.n_cached) == (1, 1)
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_several_workers_write_the_same_bytes_as_one(tmp_path, clips):
    stereo = tmp_path / "sounds" / "stereo.wav"
    _write_stereo(stereo)
    for n in (1, 2):
        SpectrogramCache(tmp_path / str(n), CONFIG).prepare([*clips, clip_of(stereo)], workers=n)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def _write_stereo(path):
    import soundfile

    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, (400_000, 2)), 44_100)


# Second runs


def test_second_run_does_nothing_and_reports_so(tmp_path, clips, monkeypatch):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    first = cache.prepare(clips)
    assert (first.n_new, first.n_cached, first.skipped) == (6, 0, ())
    assert str(first).startswith("6 spectrograms computed (5.8 kB) in ")
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    monkeypatch.setattr(cache_module, "_digest", None)  # not even the audio is read
    second = cache.prepare(clips)
    assert (second.n_new, second.n_cached, second.n_bytes, second.keys) == (0, 6, 0, first.keys)
    assert str(second) == "nothing to do: 6 spectrograms are cached"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_only_changed_audio_is_computed_again(tmp_path, clips, rng):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    first = cache.prepare(clips)
    status = clips[2].path.stat()
    write_noise(clips[2].path, rng)
    os.utime(clips[2].path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as careful editors do
    second = cache.prepare(clips)
    assert (second.n_new, second.n_cached) == (1, 5)
    assert [key == new_key for key, new_key in zip(first.keys, second.keys, strict=True)] == [True] * 2 + [False] + [
        True
    ] * 3


def test_touched_or_moved_file_keeps_its_log_mel(tmp_path, clips):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    first = cache.prepare(clips)
    clips[0].path.touch()
    moved = clip_of(clips[1].path.rename(tmp_path / "moved.wav"))
    second = cache.prepare([clips[0], moved, *clips[2:]])
    assert (second.n_new, second.n_cached, second.keys) == (0, 6, first.keys)


def test_other_settings_have_separate_log_mels_in_the_same_folder(tmp_path, clips):
    second = CONFIG.model_copy(update={"n_mels": 8})
    caches = [SpectrogramCache(tmp_path / "cache", config) for config in (CONFIG, second)]
    reports = [cache.prepare(clips) for cache in caches]
    assert [report.n_new for report in reports] == [6, 6]
    assert [cache.log_mel(report.keys[0]).shape[0] for cache, report in zip(caches, reports, strict=True)] == [16, 8]
    assert [cache.prepare(clips).n_cached for cache in caches] == [6, 6]


def test_missing_or_damaged_index_is_rebuilt(tmp_path, clips):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    cache.prepare(clips)
    before = tree(cache.root)
    index = cache.folder / "index.jsonl"
    for content in (None, b"", index.read_bytes()[:333], b"\xff\x00{]\n[1]\n"):
        index.unlink()
        if content is not None:
            index.write_bytes(content)
        assert cache.prepare(clips).n_cached == 6
        assert tree(cache.root) == before


@pytest.mark.parametrize(
    "damage", [b"", b"\x93NUMPY", lambda npy: npy[:-1], lambda npy: npy + b"x", lambda npy: npy[:200]]
)
def test_damaged_log_mel_is_an_error_and_computed_again(tmp_path, clips, damage):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    key = cache.prepare(clips).keys[0]
    [path] = tmp_path.rglob(f"{key}.npy")
    whole = path.read_bytes()
    path.write_bytes(damage(whole) if callable(damage) else damage)
    with pytest.raises(SpectrogramCacheError, match=rf"{key}\.npy.*can't be read.*delete it and run spectag prepare"):
        cache.log_mel(key)
    assert cache.prepare(clips).n_new == 1
    assert path.read_bytes() == whole


def test_missing_key_is_an_error(tmp_path):
    with pytest.raises(SpectrogramCacheError, match=r"abcdef\.npy: no such spectrogram; run spectag prepare"):
        SpectrogramCache(tmp_path, CONFIG).log_mel("abcdef")


# Errors


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_clips_are_skipped_and_listed(tmp_path, clips, workers):
    broken = tmp_path / "empty.wav", tmp_path / "text.wav", tmp_path / "gone.wav", tmp_path
    broken[0].touch()
    broken[1].write_text("no sound")
    beyond = clip_of(clips[0].path, 7.0, 8.0)
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    for n_new in (6, 0):
        report = cache.prepare([*map(clip_of, broken), beyond, *clips], workers=workers)
        assert (report.n_new, report.n_cached) == (n_new, 6 - n_new)
        assert report.keys[:5] == (None,) * 5
        assert [clip.path for clip, _ in report.skipped] == [*broken, beyond.path]
        assert all(str(clip.path) in reason for clip, reason in report.skipped)
        assert "; 5 clips skipped" in str(report)


def test_file_that_changes_while_it_is_read_is_not_cached(tmp_path, rng, monkeypatch):
    clip = write_noise(tmp_path / "recording.wav", rng)
    read = cache_module.read_sound

    def read_while_recording(path, **options):
        write_noise(Path(path), rng, seconds=0.5)
        return read(path, **options)

    monkeypatch.setattr(cache_module, "read_sound", read_while_recording)
    report = SpectrogramCache(tmp_path / "cache", CONFIG).prepare([clip])
    assert "changed while it was read" in report.skipped[0][1]
    assert not list(tmp_path.rglob("*.npy"))


def test_clip_too_long_for_the_memory_is_skipped(tmp_path, clips, monkeypatch):
    def run_out_of_memory(waveform, config):
        raise MemoryError

    monkeypatch.setattr(cache_module, "compute_log_mel", run_out_of_memory)
    report = SpectrogramCache(tmp_path / "cache", CONFIG).prepare(clips[:1])
    assert "too long for the memory" in report.skipped[0][1]


def test_estimate_is_exact_for_missing_clips_of_equal_length(tmp_path, clips):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    cache.prepare(clips[:2])
    lines = []
    cache.prepare(clips, log=lines.append)
    [line] = lines  # 16,384 bytes: a block of the disk for each log_mel
    assert re.fullmatch(r"4 spectrograms to compute: about 16\.4 kB; [1-9]\d*\.\d [kMG]B of disk space is free", line)


def test_estimate_for_many_clips_samples_headers(tmp_path, rng, monkeypatch):
    n_read = []
    audio_info = cache_module.audio_info
    monkeypatch.setattr(cache_module, "audio_info", lambda path: n_read.append(path) or audio_info(path))
    path = write_noise(tmp_path / "long.wav", rng, seconds=60).path
    segments = [clip_of(path, index / 1000, 10 + index % 41) for index in range(2000)]
    config = CONFIG.model_copy(update={"n_mels": 64})
    monkeypatch.setattr(cache_module, "disk_usage", lambda place: SimpleNamespace(free=0))
    with pytest.raises(SpectrogramCacheError, match="2001 clips need about") as error:
        SpectrogramCache(tmp_path / "cache", config).prepare([*segments, clip_of(path)])
    assert len(n_read) <= 250
    seconds = [10 + index % 41 - index / 1000 for index in range(2000)]
    exact = sum(128 + 4 * 64 * n_frames(round(8000 * duration), config) for duration in [*seconds, 60])
    [megabytes] = re.findall(r"about ([\d.]+) MB", str(error.value))
    assert 1e6 * float(megabytes) == pytest.approx(exact, rel=0.1)


def test_too_little_disk_space_is_an_error_before_any_work(tmp_path, clips, monkeypatch):
    monkeypatch.setattr(cache_module, "disk_usage", lambda place: SimpleNamespace(free=5000))
    with pytest.raises(
        SpectrogramCacheError, match=r"6 clips need about 24\.6 kB, but the disk has only 5\.0 kB of free space"
    ):
        SpectrogramCache(tmp_path / "new" / "cache", CONFIG).prepare(clips)
    assert not (tmp_path / "new").exists()


def test_full_disk_leaves_no_unfinished_files(tmp_path, clips, monkeypatch):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    monkeypatch.setattr(Path, "open", _open_on_a_full_disk(n_files=4))
    with pytest.raises(
        SpectrogramCacheError,
        match=r"the spectrogram cache can't be written: No space left on device; completed spectrograms are kept",
    ):
        cache.prepare(clips, workers=1)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.rglob("*") if path.name.startswith(".work")] == []
    assert cache.prepare(clips).n_cached > 0
    SpectrogramCache(tmp_path / "undisturbed", CONFIG).prepare(clips)
    assert tree(cache.root) == tree(tmp_path / "undisturbed")


def _open_on_a_full_disk(n_files):
    opened = []
    path_open = Path.open

    def open_on_a_full_disk(self, *args, **options):
        if self.suffix == ".npy" and "wb" in args:
            opened.append(self)
            if len(opened) > n_files:
                raise OSError(28, "No space left on device")
        return path_open(self, *args, **options)

    return open_on_a_full_disk


def test_cache_path_that_is_a_file_is_an_error(tmp_path, clips):
    (tmp_path / "cache").touch()
    with pytest.raises(SpectrogramCacheError, match=r"the spectrogram cache can't be written: Not a directory"):
        SpectrogramCache(tmp_path / "cache", CONFIG).prepare(clips)


def _die(folder, work, config, channel, excerpt):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_killed_worker_is_a_cache_error_with_advice(tmp_path, clips, monkeypatch):
    monkeypatch.setattr(cache_module, "_store_log_mel", _die)
    with pytest.raises(
        SpectrogramCacheError,
        match=r"a worker process died \(SIGKILL\) while .*a\.wav.*fewer workers; completed spectrograms are kept",
    ):
        SpectrogramCache(tmp_path / "cache", CONFIG).prepare(clips[:1], workers=2)
    monkeypatch.undo()
    assert SpectrogramCache(tmp_path / "cache", CONFIG).prepare(clips).n_new == 6


# Killed and concurrent runs

PREPARE = """
import os, signal, sys
from pathlib import Path
from spectag.config.base import MelConfig
from spectag.data.clips import Clip
from spectag.data.spectrograms.cache import SpectrogramCache

def progress(step, n_done, n_total):
    if n_done == int(stop_at):
        os.kill(os.getpid(), int(signal_number))

cache, sounds, workers, stop_at, signal_number = sys.argv[1:]
config = MelConfig(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16, f_max=4000)
clips = [Clip(path, path.name, ()) for path in sorted(Path(sounds).iterdir())]
print(SpectrogramCache(cache, config).prepare(clips, workers=int(workers), progress=progress).n_new)
"""


def start_preparing(cache, sounds, *, workers=1, stop_at=0, signal_number=0):
    command = [sys.executable, "-c", PREPARE, cache, sounds, *map(str, (workers, stop_at, signal_number))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def many_clips(tmp_path, rng):
    return [write_noise(tmp_path / "sounds" / f"{index:03}.wav", rng, seconds=0.05) for index in range(80)]


@pytest.fixture
def undisturbed(tmp_path, many_clips):
    SpectrogramCache(tmp_path / "undisturbed", CONFIG).prepare(many_clips, workers=1)
    return tree(tmp_path / "undisturbed")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("workers", "signal_number"), [(1, int(signal.SIGKILL)), (2, int(signal.SIGKILL)), (2, int(signal.SIGINT))]
)
def test_restarted_run_writes_the_same_bytes(tmp_path, many_clips, undisturbed, workers, signal_number):
    with start_preparing(
        tmp_path / "cache", tmp_path / "sounds", workers=workers, stop_at=20, signal_number=signal_number
    ) as killed:
        assert killed.wait(timeout=60) == -signal_number
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    leftovers = list(cache.folder.glob(".work-*"))
    assert bool(leftovers) == (signal_number == signal.SIGKILL)
    assert 20 <= len(list(cache.folder.rglob("??/*.npy"))) < 80
    assert cache.prepare(many_clips, workers=1).n_cached >= 20
    assert tree(cache.root) == undisturbed


KILLED_AT_EVERY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from spectag.config.base import MelConfig
from spectag.data.clips import Clip
from spectag.data.spectrograms.cache import SpectrogramCache

root, sounds = map(Path, sys.argv[1:])
config = MelConfig(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16, f_max=4000)
clips = [Clip(path, path.name, ()) for path in sorted(sounds.iterdir())]
left = 0

def die_after_calls(call):
    def counted(*args, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    return counted

for owner, name in [(os, "open"), (os, "mkdir"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "close")]:
    setattr(owner, name, die_after_calls(getattr(owner, name)))
Path.open = die_after_calls(Path.open)

step, status = 0, 1
while status != 0:
    step += 1
    process = os.fork()
    if process == 0:
        left = step
        SpectrogramCache(root / str(step), config).prepare(clips, workers=1)
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    SpectrogramCache(root / str(step), config).prepare(clips, workers=1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_run_killed_at_any_step_and_restarted_writes_the_same_bytes(tmp_path, clips):
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED_AT_EVERY_STEP, tmp_path / "caches", tmp_path / "sounds"],
        check=True,
        timeout=60,
    )
    trees = [tree(folder) for folder in (tmp_path / "caches").iterdir()]
    assert len(trees) > 20
    assert all(content == trees[0] for content in trees)


def test_two_processes_write_the_same_cache_as_one(tmp_path, many_clips, undisturbed):
    with (
        start_preparing(tmp_path / "cache", tmp_path / "sounds") as first,
        start_preparing(tmp_path / "cache", tmp_path / "sounds", workers=2) as second,
    ):
        assert first.wait(timeout=60) == second.wait(timeout=60) == 0
    assert tree(tmp_path / "cache") == undisturbed


def test_indexes_of_two_processes_are_merged(tmp_path, rng):
    for folder in ("first", "second"):
        for index in range(50):
            write_noise(tmp_path / folder / f"{index}.wav", rng, seconds=0.05)
    with (
        start_preparing(tmp_path / "cache", tmp_path / "first") as first,
        start_preparing(tmp_path / "cache", tmp_path / "second") as second,
    ):
        assert first.wait(timeout=60) == second.wait(timeout=60) == 0
    index = (SpectrogramCache(tmp_path / "cache", CONFIG).folder / "index.jsonl").read_text().splitlines()
    assert len(index) == 100
    assert index == sorted(index)
    assert {Path(json.loads(line)[0]).parent.name for line in index} == {"first", "second"}


def test_running_process_is_not_disturbed_by_another(tmp_path, clips):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    with work_folder(cache.folder) as work:
        cache.prepare(clips)
        assert work.is_dir()
    assert cache.prepare(clips).n_cached == 6
    assert not work.exists()


def test_progress_counts_the_missing_clips(tmp_path, clips):
    cache = SpectrogramCache(tmp_path / "cache", CONFIG)
    cache.prepare(clips[:2])
    calls = []
    cache.prepare(clips, progress=lambda *call: calls.append(call))
    assert calls == [("log-mels", n_done, 4) for n_done in (1, 2, 3, 4)]


def test_empty_bands_cause_one_warning_in_the_parent_process(tmp_path, clips):
    config = MelConfig(sample_rate=8000, n_fft=64, n_mels=64, f_max=4000)
    with pytest.warns(UserWarning, match="mel bands are empty") as warned:
        SpectrogramCache(tmp_path / "cache", config).prepare(clips, workers=1)
    assert len(warned) == 1
