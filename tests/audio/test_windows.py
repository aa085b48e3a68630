"""Windows of a sound in blocks equal the same parts of the whole sound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.files import resample
from spectag.audio.windows import WindowCutter, window_starts


def noise(n_samples, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples).astype(np.float32)


def cut_windows(blocks, sample_rate, rates, **options):
    return WindowCutter(sample_rate, rates, **options).cut(blocks)


def split_into_blocks(waveform, sizes):
    start = 0
    for size in sizes:
        yield waveform[start : start + size]
        start += size
    yield waveform[start:]


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 44_100])
@pytest.mark.parametrize(("window", "overlap"), [(1.0, 0.0), (0.5, 0.3), (0.25, 0.2)])
def test_windows_equal_the_whole_resampled_sound_bit_for_bit(sample_rate, window, overlap):
    waveform = noise(round(3.7 * sample_rate))
    whole = resample(waveform, sample_rate, 8_000)
    blocks = split_into_blocks(waveform, [1, 7, 5_000, 4_096])
    windows = list(cut_windows(blocks, sample_rate, [8_000], window_seconds=window, overlap_seconds=overlap))
    assert len(windows) > 3
    for cut_window in windows:
        samples = cut_window.waveforms[8_000]
        start = min(round(cut_window.start_seconds * 8_000), len(whole) - len(samples))
        assert len(samples) == round(window * 8_000)
        assert np.array_equal(samples, whole[start : start + len(samples)])


@given(
    n_samples=st.integers(1, 3_000),
    sizes=st.lists(st.integers(0, 900), max_size=8),
    n_window=st.integers(1, 800),
    overlap_fraction=st.floats(0, 0.95),
    least_new=st.sampled_from([0.0, 0.1]),
)
def test_windows_are_the_same_whatever_the_blocks(n_samples, sizes, n_window, overlap_fraction, least_new):
    rate = 1_000
    waveform = noise(n_samples)
    seconds, overlap = n_window / rate, overlap_fraction * n_window / rate
    options = {"window_seconds": seconds, "overlap_seconds": overlap, "least_new": least_new}
    windows = list(cut_windows(split_into_blocks(waveform, sizes), rate, [rate], **options))
    whole = list(cut_windows([waveform], rate, [rate], **options))
    assert len(windows) == len(whole)
    covered = 0
    for cut_window, same in zip(windows, whole, strict=True):
        start, end = round(cut_window.start_seconds * rate), round(cut_window.end_seconds * rate)
        assert np.array_equal(cut_window.waveforms[rate], waveform[start:end])
        assert (cut_window.start_seconds, cut_window.end_seconds) == (same.start_seconds, same.end_seconds)
        assert start <= covered < end
        covered = end
    hop = max(1, round((seconds - overlap) * rate))
    starts = window_starts(n_samples, window=n_window, hop=hop, least_new=least_new)
    assert [round(cut_window.start_seconds * rate) for cut_window in windows] == starts


@given(
    n_samples=st.integers(1, 10_000),
    window=st.integers(1, 500),
    hop=st.integers(1, 500),
    least_new=st.sampled_from([0.0, 0.1]),
)
def test_windows_miss_less_than_a_tenth_of_a_step_and_a_short_clip_gets_one(n_samples, window, hop, least_new):
    starts = window_starts(n_samples, window=window, hop=hop, least_new=least_new)
    n_missed = n_samples - (starts[-1] + window)
    assert starts[0] == 0
    assert n_missed <= 0 or n_missed < least_new * hop
    assert n_samples <= window or starts[-1] + window <= n_samples
    steps = np.diff(starts)
    assert (steps[:-1] == hop).all()
    assert len(steps) == 0 or max(1, least_new * hop) <= steps[-1] <= hop
    assert n_samples >= window or starts == [0]


@pytest.mark.parametrize(
    ("seconds", "overlap", "starts"),
    [(5.001, 0.0, [0]), (5.499, 0.0, [0]), (5.5, 0.0, [0, 0.5]), (5.24, 2.5, [0]), (5.25, 2.5, [0, 0.25])],
)
def test_last_window_needs_a_tenth_of_a_step_of_new_sound(seconds, overlap, starts):
    cutter = WindowCutter(1_000, [1_000], window_seconds=5.0, overlap_seconds=overlap)
    assert [window.start_seconds for window in cutter.cut([noise(round(1_000 * seconds))])] == starts


def test_last_window_has_full_length():
    windows = cut_windows([noise(2_300)], 1_000, [1_000], window_seconds=1.0)
    times = [(cut_window.start_seconds, cut_window.end_seconds) for cut_window in windows]
    assert times == [(0.0, 1.0), (1.0, 2.0), (1.3, 2.3)]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("n_samples", [1, 2, 100, 16_000])
def test_short_sound_gets_one_window(rate, n_samples):
    waveform = noise(n_samples)
    (cut_window,) = cut_windows(split_into_blocks(waveform, [10]), 16_000, [rate], window_seconds=1.0)
    assert np.array_equal(cut_window.waveforms[rate], resample(waveform, 16_000, rate))
    assert cut_window.end_seconds == n_samples / 16_000


def test_sound_of_one_sample_keeps_it_after_resampling():
    (cut_window,) = cut_windows([noise(1)], 250_000, [8_000], window_seconds=1.0)
    assert np.array_equal(cut_window.waveforms[8_000], noise(1))


def test_last_window_has_full_length_if_the_resampler_rounds_down():
    waveform = noise(181)  # 60.3 samples at the new rate; a window of 59.7 becomes 60, and the last begins at 0.7
    whole = resample(waveform, 24_000, 8_000)
    assert len(whole) == 60
    options = {"window_seconds": 179 / 24_000, "overlap_seconds": 146 / 24_000, "least_new": 0.0}
    windows = list(cut_windows([waveform], 24_000, [8_000], **options))
    assert [window.start_seconds for window in windows] == [0.0, 2 / 24_000]
    assert all(np.array_equal(window.waveforms[8_000], whole) for window in windows)


def test_window_contains_every_sample_rate():
    waveform = noise(44_100)
    for cut_window in cut_windows([waveform], 44_100, [32_000, 44_100, 16_000, 32_000], window_seconds=0.25):
        assert {rate: len(samples) for rate, samples in cut_window.waveforms.items()} == {
            32_000: 8_000,
            44_100: 11_025,
            16_000: 4_000,
        }


def test_windows_appear_when_they_are_complete_and_earlier_samples_are_dropped():
    cutter = WindowCutter(1_000, [1_000], window_seconds=0.1, overlap_seconds=0.05)
    n_found = 0
    for _ in range(1_000):
        n_found += len(list(cutter.push(noise(50))))
        assert sum(map(len, cutter._sounds[0]._blocks)) <= 200
    assert n_found == 999
    assert len(list(cutter.finish())) == 0


def test_empty_sound_has_no_window():
    assert list(cut_windows([], 8_000, [8_000], window_seconds=1.0)) == []
    assert list(cut_windows([np.empty(0, np.float32)], 8_000, [8_000], window_seconds=1.0)) == []


def test_overlap_must_be_shorter_than_the_window():
    with pytest.raises(ValueError, match=r"overlap < window, got 1 s and 1 s"):
        WindowCutter(8_000, [8_000], window_seconds=1.0, overlap_seconds=1.0)
