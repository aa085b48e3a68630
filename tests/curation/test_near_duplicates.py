"""Modified copies of a recording are found; other recordings of the same kind of sound are not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.files import resample, write_audio
from spectag.curation.near_duplicates import MIN_CORRELATION, correlation, find_near_duplicates
from spectag.data.clips import Clip
from spectag.data.fingerprint_cache import clip_fingerprints
from spectag.data.shared_audio import find_shared_audio

RATE = 16_000


def hiss(rng, seconds=1.0):
    """A rising noise like rain. Each call gives another recording of the same kind of sound."""
    n = round(seconds * RATE)
    wave = np.convolve(rng.normal(size=n + 15), np.hanning(16) / 8, mode="valid") * np.linspace(0.2, 1, n)
    return (0.2 * wave).astype(np.float32)


def found(tmp_path, sounds, features=None, **options):
    """The pairs among sounds, each a waveform or (name, waveform, rate)."""
    clips = []
    for number, sound in enumerate(sounds):
        name, wave, rate = sound if isinstance(sound, tuple) else (f"{number}.wav", sound, RATE)
        write_audio(tmp_path / name, wave, rate)
        clips.append(Clip(tmp_path / name, name, ()))
    features = np.zeros((len(clips), 4)) if features is None else features
    shared = find_shared_audio(clip_fingerprints(clips, tmp_path / "cache", workers=1), workers=1)
    pairs = find_near_duplicates(clips, features, shared, workers=1, **options)
    return [(pair.clip, pair.original) for pair in pairs]


def modified_copies(wave, rng):
    """The recording in other formats, rates, levels and lengths."""
    return {
        "ogg": ("a.ogg", wave, RATE),
        "mp3": ("a.mp3", wave, RATE),
        "rate": ("rate.wav", resample(wave, RATE, 44_100), 44_100),
        "quiet": wave * np.float32(0.1),
        "clipped": np.clip(4 * wave, -1, 1),
        "cut at the beginning": wave[1600:],
        "cut at both ends": wave[1600:-1600],
        "noise": wave + rng.normal(0, 0.02, len(wave)).astype(np.float32),
        "inverted": -wave,
    }


@pytest.mark.parametrize("kind", modified_copies(np.zeros(4000, np.float32), np.random.default_rng()))
def test_modified_copies_are_found(tmp_path, rng, kind):
    wave = hiss(rng)
    assert found(tmp_path, [hiss(rng), wave, hiss(rng), modified_copies(wave, rng)[kind]]) == [(3, 1)]


def test_different_recordings_are_not_near_duplicates(rng):
    waves = [hiss(rng).astype(np.float64) for _ in range(6)]
    assert max(correlation(waves[i], waves[j]) for i in range(6) for j in range(i)) < MIN_CORRELATION / 4


@given(gain=st.floats(1e-4, 1e3), start=st.integers(0, 400), seed=st.integers(0, 9))
def test_part_at_another_level_has_correlation_one(gain, start, seed):
    wave = np.random.default_rng(seed).normal(size=1000)
    assert correlation(wave, gain * wave[start:]) == pytest.approx(1, abs=1e-6)
    assert correlation(gain * wave[start:], wave) == pytest.approx(1, abs=1e-6)


def test_correlation_equals_a_loop_over_all_lags(rng):
    first, second = rng.normal(size=40), rng.normal(size=30)
    best = -1.0
    for lag in range(-29, 40):
        a, b = first[max(lag, 0) : lag + 30], second[max(-lag, 0) : 40 - lag]
        enough = len(a) >= 15 and a @ a >= 0.25 * first @ first and b @ b >= 0.25 * second @ second
        best = max(best, abs(a @ b) / np.sqrt(a @ a * (b @ b))) if enough else best
    assert correlation(first, second) == pytest.approx(best, abs=1e-9)


def test_silence_has_correlation_zero():
    assert correlation(np.zeros(10), np.ones(10)) == correlation(np.zeros(10), np.zeros(10)) == 0


def test_equal_quiet_parts_do_not_make_near_duplicates(rng):
    quiet = 0.01 * rng.normal(size=2000)
    first = np.concatenate([rng.normal(size=1000), quiet])
    second = np.concatenate([quiet, rng.normal(size=1000)])
    assert correlation(first, second) < MIN_CORRELATION / 4


def far_apart(n_clips):
    """Features of clips in a row: the first and the last are the most distant."""
    angles = np.linspace(0, 1, n_clips)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_copy_whose_features_are_the_most_distant_is_found_by_its_fingerprint(tmp_path, rng):
    wave = hiss(rng)
    sounds = [wave, *(hiss(rng) for _ in range(10)), wave + rng.normal(0, 0.02, len(wave)).astype(np.float32)]
    assert found(tmp_path, sounds, far_apart(12)) == [(11, 0)]


def test_copy_without_landmarks_is_found_by_its_features(tmp_path, rng):
    tones = [0.3 * np.sin(2 * np.pi * rng.uniform(100, 1000) * np.arange(RATE) / RATE) for _ in range(11)]
    sounds = [wave.astype(np.float32) for wave in (*tones, 0.1 * tones[0])]
    assert found(tmp_path, sounds, far_apart(12)) == []
    near = far_apart(12)
    near[-1] = near[0]
    assert found(tmp_path, sounds, near) == [(11, 0)]


def test_mixtures_that_share_one_of_two_sounds_are_not_near_duplicates(tmp_path, rng):
    common = hiss(rng)
    assert found(tmp_path, [common + hiss(rng), common + hiss(rng)]) == []


def test_parts_of_one_file_are_not_compared(tmp_path, rng):
    wave = hiss(rng)
    write_audio(tmp_path / "a.wav", np.concatenate([wave, wave]), RATE)
    clips = [
        Clip(tmp_path / "a.wav", "a.wav", (), end_seconds=1.0),
        Clip(tmp_path / "a.wav", "a.wav", (), start_seconds=1.0),
    ]
    assert find_near_duplicates(clips, np.zeros((2, 4))) == ()
    write_audio(tmp_path / "b.wav", wave, RATE)
    (pair,) = find_near_duplicates([*clips, Clip(tmp_path / "b.wav", "b.wav", ())], np.zeros((3, 4)))
    assert pair.clip == 2


def test_unreadable_clips_and_images_are_ignored(tmp_path, rng):
    write_audio(tmp_path / "a.wav", hiss(rng), RATE)
    clips = [Clip(tmp_path / name, name, ()) for name in ("a.wav", "gone.wav")]
    assert find_near_duplicates(clips, np.zeros((2, 4))) == ()
    assert find_near_duplicates([Clip(Path(f"{i}.png"), f"{i}.png", ()) for i in range(3)], np.zeros((3, 4))) == ()
    assert find_near_duplicates(clips[:1], np.zeros((1, 4))) == ()


def test_two_processes_give_the_same_result_and_report_progress(tmp_path, rng):
    wave = hiss(rng, 0.3)
    calls = []
    sounds = [wave, hiss(rng, 0.3), wave[800:], wave]
    pairs_of_one_process = found(tmp_path, sounds, progress=lambda *step: calls.append(step))
    assert pairs_of_one_process == [(2, 0), (3, 0)]
    assert calls[0] == ("near-duplicates", 0, 4)
    assert calls[-1] == ("near-duplicates", 4, 4)
    clips = [Clip(tmp_path / f"{i}.wav", f"{i}.wav", ()) for i in range(4)]
    pairs = find_near_duplicates(clips, np.zeros((4, 4)), workers=2)
    assert [(pair.clip, pair.original) for pair in pairs] == pairs_of_one_process
