"""Fingerprints survive what happens to recordings, and sounds without events have none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from spectag.audio.files import resample
from spectag.audio.fingerprints import HASH_BITS, Fingerprint, _maximum_nearby, compute_fingerprint, landmarks
from spectag.audio.synthesis import chirp

RATE = 16_000


@pytest.mark.parametrize(
    "waveform",
    [np.zeros(5 * RATE), np.full(5 * RATE, 0.25), np.zeros(1), np.full(480, 0.1)],
    ids=["silence", "constant", "one sample", "constant for 30 ms"],
)
def test_sounds_in_which_nothing_happens_have_an_empty_fingerprint(waveform):
    assert len(compute_fingerprint(waveform.astype(np.float32), RATE)) == 0
    assert len(landmarks(compute_fingerprint(waveform.astype(np.float32), RATE)).hashes) == 0


def test_30_ms_of_noise_have_no_landmarks_that_fail(rng):
    short = compute_fingerprint(rng.normal(0, 0.1, 480).astype(np.float32), RATE)
    assert len(landmarks(short).hashes) == 0  # all peaks are in one frame


def test_peaks_of_a_tone_burst_are_at_its_time_and_frequency():
    time = np.arange(2 * RATE) / RATE
    burst = np.sin(2 * np.pi * 1500 * time) * np.exp(-(((time - 1.2) / 0.05) ** 2))
    found = compute_fingerprint(burst.astype(np.float32), RATE)
    loudest = np.flatnonzero(found.bins == round(1500 / (RATE / 1024)))
    assert pytest.approx(found.frames[loudest[0]] * 128 / RATE + 512 / RATE, abs=0.02) == 1.2


@given(gain=st.floats(0.01, 1.0))
def test_fingerprint_does_not_depend_on_the_level(gain):
    sound = chirp(np.random.default_rng(3), 1.0, RATE)
    first, second = compute_fingerprint(sound, RATE), compute_fingerprint((gain * sound).astype(np.float32), RATE)
    n_equal = len(set(zip(first.frames, first.bins, strict=True)) & set(zip(second.frames, second.bins, strict=True)))
    assert n_equal >= 0.97 * len(first)


def test_landmarks_of_a_sound_played_faster_equal_those_of_its_fingerprint_at_that_speed(rng):
    sound = rng.normal(0, 0.1, 4 * RATE).astype(np.float32)
    faster = resample(sound, round(RATE * 1.02), RATE)
    expected, predicted = (
        landmarks(compute_fingerprint(faster, RATE)),
        landmarks(compute_fingerprint(sound, RATE), speed=1.02),
    )
    unchanged = landmarks(compute_fingerprint(sound, RATE))
    n_equal = len(np.intersect1d(expected.hashes, predicted.hashes))
    assert n_equal > 3 * len(np.intersect1d(expected.hashes, unchanged.hashes))


def test_hum_has_no_landmarks_because_they_would_match_at_every_offset():
    time = np.arange(5 * RATE) / RATE
    hum = np.sum([np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 40)], axis=0)
    assert len(landmarks(compute_fingerprint((0.1 * hum).astype(np.float32), RATE)).hashes) < 50


@given(seed=st.integers(0, 100), n_samples=st.integers(1, RATE))
def test_hashes_are_sorted_and_fit_into_their_bits(seed, n_samples):
    noise = np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)
    hashes = landmarks(compute_fingerprint(noise, RATE)).hashes
    assert np.all(hashes[1:] >= hashes[:-1])
    assert np.all(hashes < 1 << HASH_BITS)


@settings(max_examples=20)
@given(seed=st.integers(0, 100), n_peaks=st.integers(0, 300), n_frames=st.integers(1, 2000))
def test_each_peak_is_paired_with_the_next_eight_within_half_a_second_and_one_kilohertz(seed, n_peaks, n_frames):
    rng = np.random.default_rng(seed)
    peaks = sorted({(int(rng.integers(n_frames)), int(rng.integers(1, 512))) for _ in range(n_peaks)})
    frames, bins = np.array(peaks, np.int64).reshape(-1, 2).T
    pairs = []
    for number, (frame, bin_) in enumerate(peaks):
        later = peaks[number + 1 : number + 65]
        near = [(time, other) for time, other in later if 0 < time - frame <= 63 and abs(other - bin_) <= 63]
        pairs += [(bin_ << 13 | other - bin_ + 63 << 6 | time - frame, frame) for time, other in near[:8]]
    repeated = {pair for pair in pairs for other in pairs if pair[0] == other[0] and 0 < abs(pair[1] - other[1]) <= 125}
    found = landmarks(Fingerprint(frames.astype(np.int32), bins.astype(np.int16)))
    pairs_found = zip(found.hashes.tolist(), found.frames.tolist(), strict=True)
    assert list(pairs_found) == sorted(set(pairs) - repeated)


@pytest.mark.parametrize("n_frames", [1, 4, 100])
def test_maximum_nearby_equals_scipys_maximum_filter(rng, n_frames):
    magnitudes = rng.random((n_frames, 50), np.float32)
    np.testing.assert_array_equal(_maximum_nearby(magnitudes), maximum_filter(magnitudes, (17, 15)))
