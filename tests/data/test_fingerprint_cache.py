"""Cached fingerprints equal computed ones, are used again, and follow the content of the files."""

import sqlite3

import numpy as np
import pytest
import soundfile
from PIL import Image

from spectag.audio.files import write_audio
from spectag.audio.fingerprints import compute_fingerprint
from spectag.data import fingerprint_cache
from spectag.data.clips import Clip
from spectag.data.fingerprint_cache import cached_shared_audio, clip_fingerprint, clip_fingerprints
from spectag.data.shared_audio import find_shared_audio
from spectag.system.worker_pool import map_unordered

RATE = 16_000


@pytest.fixture
def clips(tmp_path, rng) -> list[Clip]:
    for name in ("a.wav", "b.wav"):
        write_audio(tmp_path / name, rng.normal(0, 0.1, 2 * RATE).astype(np.float32), RATE)
    return [Clip(tmp_path / name, name, ()) for name in ("a.wav", "b.wav")]


def peaks(fingerprints) -> list[list[tuple[int, int]] | None]:
    return [found and list(zip(found.frames.tolist(), found.bins.tolist(), strict=True)) for found in fingerprints]


def refuse(clip: Clip) -> None:
    raise AssertionError(f"{clip} was computed again")


def test_cached_fingerprints_equal_computed_ones_and_are_used_again(tmp_path, clips, monkeypatch):
    first = clip_fingerprints(clips, tmp_path / "cache")
    assert peaks(first) == peaks(clip_fingerprint(clip) for clip in clips)
    monkeypatch.setattr(fingerprint_cache, "clip_fingerprint", refuse)
    assert peaks(clip_fingerprints(clips[::-1], tmp_path / "cache", workers=1)) == peaks(first[::-1])


def test_copy_of_a_file_has_the_cached_fingerprint_and_a_changed_file_has_a_new_one(tmp_path, clips, rng, monkeypatch):
    first = clip_fingerprints(clips, tmp_path / "cache")
    (tmp_path / "copy.wav").write_bytes(clips[0].path.read_bytes())
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint_cache, "clip_fingerprint", refuse)
        copied = clip_fingerprints([Clip(tmp_path / "copy.wav", "copy.wav", ())], tmp_path / "cache", workers=1)
    assert peaks(copied) == peaks(first[:1])
    write_audio(clips[0].path, rng.normal(0, 0.1, RATE).astype(np.float32), RATE)
    assert peaks(clip_fingerprints(clips, tmp_path / "cache"))[0] != peaks(first)[0]


def test_run_that_was_interrupted_continues(tmp_path, clips, monkeypatch):
    computed = []

    def interrupted(_channel, clip: Clip):
        if len(computed) == 1:
            raise KeyboardInterrupt
        computed.append(clip)
        return clip_fingerprint(clip)

    monkeypatch.setattr(fingerprint_cache, "_COMMIT_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint_cache, "_try_fingerprint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clip_fingerprints(clips, tmp_path / "cache", workers=1)
    with sqlite3.connect(next((tmp_path / "cache").glob("*.sqlite"))) as database:
        assert database.execute("select count(*) from fingerprints").fetchone() == (1,)
    assert peaks(clip_fingerprints(clips, tmp_path / "cache")) == peaks(map(clip_fingerprint, clips))


def test_images_and_unreadable_clips_have_no_fingerprint_and_are_counted(tmp_path, clips):
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    (tmp_path / "text.wav").write_text("no sound")
    others = [Clip(tmp_path / name, name, ()) for name in ("image.png", "text.wav", "missing.wav")]
    lines: list[str] = []
    found = clip_fingerprints([others[0], clips[0], *others[1:]], tmp_path / "cache", log=lines.append)
    assert [one is None for one in found] == [True, False, True, True]
    assert lines == ["2 clips can't be read and have no fingerprint"]


def test_part_of_a_recording_and_blocks_of_a_long_one_have_the_peaks_of_their_samples(tmp_path, rng, monkeypatch):
    waveform = rng.normal(0, 0.1, 6 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", waveform, RATE, subtype="FLOAT")
    part = Clip(tmp_path / "long.wav", "long.wav", (), start_seconds=1.0, end_seconds=3.5)
    whole = Clip(tmp_path / "long.wav", "long.wav", ())
    expected = peaks(
        [compute_fingerprint(waveform[RATE : round(3.5 * RATE)], RATE), compute_fingerprint(waveform, RATE)]
    )
    assert peaks([clip_fingerprint(part)]) == expected[:1]
    monkeypatch.setattr(fingerprint_cache, "_BLOCK_SECONDS", 2.0)
    in_blocks = set(peaks([clip_fingerprint(whole)])[0] or ())
    assert len(in_blocks & set(expected[1] or ())) > 0.85 * len(expected[1] or ())


@pytest.mark.parametrize("content", ["no database, " * 99, None], ids=["damaged", "a folder"])
def test_cache_that_cannot_be_used_is_a_warning_and_changes_no_fingerprint(tmp_path, clips, content, caplog):
    path = tmp_path / "cache" / "fingerprints-1.sqlite"
    path.parent.mkdir()
    path.mkdir() if content is None else path.write_text(content)
    found = clip_fingerprints(clips, path.parent)
    assert peaks(found) == peaks(clip_fingerprints(clips, tmp_path / "other"))
    shared = cached_shared_audio(found, root=path.parent)
    assert shared.n_matches.tolist() == find_shared_audio(found).n_matches.tolist()
    [line] = caplog.messages
    assert "fingerprints-1.sqlite: the fingerprint cache can't be used" in line


def test_few_long_recordings_are_read_by_several_processes_and_a_small_file_by_this_one(tmp_path, monkeypatch):
    used = []

    def one_worker(function, items, *, n_workers):
        used.append(n_workers)
        return map_unordered(function, items, n_workers=1)

    monkeypatch.setattr(fingerprint_cache, "map_unordered", one_worker)
    monkeypatch.setattr(fingerprint_cache, "n_usable_cores", lambda: 16)
    monkeypatch.setattr(fingerprint_cache, "_BYTES_PER_WORKER", 4 * RATE)  # 2 s of 16 bits
    for number, seconds in enumerate((0.5, 3.0, 3.5, 4.0)):
        write_audio(tmp_path / f"{number}.wav", np.zeros(round(RATE * seconds), np.float32), RATE)
    clips = [Clip(tmp_path / f"{number}.wav", "", ()) for number in range(4)]
    clip_fingerprints(clips[:1], tmp_path / "cache")
    clip_fingerprints(clips, tmp_path / "cache")
    assert used == [1, 3]  # one for each of the three long recordings


def test_same_clips_are_compared_once_in_each_order(tmp_path, clips, monkeypatch):
    """Clips 0 and 2 are the same sound; None is a clip that cannot be read."""
    first, other = clip_fingerprints(clips, tmp_path)
    sets = {"within": ([first, other, first],), "moved": ([first, None, first],), "between": ([other, first], [first])}
    found = {
        name: fingerprint_cache.cached_shared_audio(*prints, root=tmp_path, workers=1) for name, prints in sets.items()
    }
    assert {name: shared.pairs.tolist() for name, shared in found.items()} == {
        "within": [[0, 2]],
        "moved": [[0, 2]],
        "between": [[1, 0]],
    }
    for name in ("find_shared_audio", "find_shared_between"):
        monkeypatch.setattr(fingerprint_cache, name, refuse)
    for name, prints in sets.items():
        again = fingerprint_cache.cached_shared_audio(*prints, root=tmp_path)
        for column in ("pairs", "n_matches", "offsets_seconds"):
            np.testing.assert_array_equal(getattr(again, column), getattr(found[name], column))


@pytest.mark.parametrize("change", ["order", "other set", "version"])
def test_other_comparisons_are_not_taken_from_the_cache(tmp_path, clips, monkeypatch, change):
    prints = clip_fingerprints(clips, tmp_path)
    fingerprint_cache.cached_shared_audio(prints, root=tmp_path, workers=1)
    if change == "version":
        monkeypatch.setattr(fingerprint_cache, "COMPARISON_VERSION", -1)
    n_compared = []
    sets = {"order": (prints[::-1],), "other set": (prints[:1], prints[1:]), "version": (prints,)}
    fingerprint_cache.cached_shared_audio(
        *sets[change], root=tmp_path, workers=1, progress=lambda _, n_done, __: n_compared.append(n_done)
    )
    assert n_compared
