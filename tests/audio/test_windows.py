"""Windows of a sound that comes in pieces are those that one would cut out of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.files import resample
from spectag.audio.windows import WindowCutter, cut
from spectag.models.timeline import window_starts


def noise(n_samples, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples).astype(np.float32)


def pieces(waveform, sizes):
    start = 0
    for size in sizes:
        yield waveform[start : start + size]
        start += size
    yield waveform[start:]


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 44_100])
@pytest.mark.parametrize(("window", "overlap"), [(1.0, 0.0), (0.5, 0.3), (0.25, 0.2)])
def test_windows_are_bit_for_bit_those_of_the_whole_resampled_at_once(sample_rate, window, overlap):
    waveform = noise(round(3.7 * sample_rate))
    whole = resample(waveform, sample_rate, 8_000)
    found = list(
        cut(
            pieces(waveform, [1, 7, 5_000, 4_096]), sample_rate, [8_000], window_seconds=window, overlap_seconds=overlap
        )
    )
    assert len(found) > 3
    for one in found:
        samples = one.waveforms[8_000]
        start = min(round(one.start_seconds * 8_000), len(whole) - len(samples))
        assert len(samples) == round(window * 8_000)
        assert np.array_equal(samples, whole[start : start + len(samples)])


@given(
    n_samples=st.integers(1, 3_000),
    sizes=st.lists(st.integers(0, 900), max_size=8),
    n_window=st.integers(1, 800),
    share=st.floats(0, 0.95),
    keep_tail=st.booleans(),
)
def test_windows_cover_the_sound_however_it_comes(n_samples, sizes, n_window, share, keep_tail):
    rate = 1_000
    waveform = noise(n_samples)
    seconds, overlap = n_window / rate, share * n_window / rate
    options = {"window_seconds": seconds, "overlap_seconds": overlap, "keep_tail": keep_tail}
    found = list(cut(pieces(waveform, sizes), rate, [rate], **options))
    whole = list(cut([waveform], rate, [rate], **options))
    assert len(found) == len(whole)
    covered = 0
    for one, same in zip(found, whole, strict=True):
        start, end = round(one.start_seconds * rate), round(one.end_seconds * rate)
        assert np.array_equal(one.waveforms[rate], waveform[start:end])
        assert (one.start_seconds, one.end_seconds) == (same.start_seconds, same.end_seconds)
        assert start <= covered < end
        covered = end
    assert covered == n_samples
    hop = max(1, round((seconds - overlap) * rate))
    starts = window_starts(n_samples, window=n_window, hop=hop)
    if not keep_tail:
        starts = np.minimum(starts, max(0, n_samples - n_window))
    assert [round(one.start_seconds * rate) for one in found] == list(starts)


def test_last_window_is_as_long_as_the_others_or_what_is_left():
    ends = {}
    for keep_tail in (False, True):
        found = list(cut([noise(2_300)], 1_000, [1_000], window_seconds=1.0, keep_tail=keep_tail))
        ends[keep_tail] = [(one.start_seconds, one.end_seconds) for one in found]
    assert ends[False] == [(0.0, 1.0), (1.0, 2.0), (1.3, 2.3)]
    assert ends[True] == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.3)]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("n_samples", [1, 2, 100, 16_000])
def test_sound_up_to_a_window_is_one_window_and_is_resampled_as_a_whole(rate, n_samples):
    waveform = noise(n_samples)
    (one,) = cut(pieces(waveform, [10]), 16_000, [rate], window_seconds=1.0)
    assert np.array_equal(one.waveforms[rate], resample(waveform, 16_000, rate))
    assert one.end_seconds == n_samples / 16_000


def test_sound_of_which_resampling_leaves_nothing_keeps_a_sample():
    (one,) = cut([noise(1)], 250_000, [8_000], window_seconds=1.0)
    assert np.array_equal(one.waveforms[8_000], noise(1))


def test_last_window_is_as_long_as_the_others_though_the_resampler_rounds_the_end_down():
    waveform = noise(181)  # 60.3 samples at the new rate; a window of 59.7 becomes 60, and the last begins at 0.7
    whole = resample(waveform, 24_000, 8_000)
    assert len(whole) == 60
    windows = list(cut([waveform], 24_000, [8_000], window_seconds=179 / 24_000, overlap_seconds=146 / 24_000))
    assert [window.start_seconds for window in windows] == [0.0, 2 / 24_000]
    assert all(np.array_equal(window.waveforms[8_000], whole) for window in windows)


def test_each_window_comes_at_every_rate():
    waveform = noise(44_100)
    for one in cut([waveform], 44_100, [32_000, 44_100, 16_000, 32_000], window_seconds=0.25):
        assert {rate: len(samples) for rate, samples in one.waveforms.items()} == {
            32_000: 8_000,
            44_100: 11_025,
            16_000: 4_000,
        }


def test_windows_come_as_soon_as_they_are_whole_and_the_past_is_forgotten():
    cutter = WindowCutter(1_000, [1_000], window_seconds=0.1, overlap_seconds=0.05)
    n_found = 0
    for _ in range(1_000):
        n_found += len(list(cutter.push(noise(50))))
        assert sum(map(len, cutter._sounds[0]._pieces)) <= 200
    assert n_found == 999
    assert len(list(cutter.finish())) == 0


def test_nothing_gives_no_window():
    assert list(cut([], 8_000, [8_000], window_seconds=1.0)) == []
    assert list(cut([np.empty(0, np.float32)], 8_000, [8_000], window_seconds=1.0)) == []


def test_overlap_has_to_be_shorter_than_the_window():
    with pytest.raises(ValueError, match=r"overlap < window, got 1 s and 1 s"):
        WindowCutter(8_000, [8_000], window_seconds=1.0, overlap_seconds=1.0)
