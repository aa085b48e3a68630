import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from spectag.audio.sound_statistics import SoundStatistics, measure_sound, of_recording

RATE = 32_000


@pytest.mark.parametrize(("amplitude", "expected"), [(1.0, -3.01), (0.1, -23.01), (1e-4, -83.01)])
def test_level_of_a_sine_is_its_root_mean_square(amplitude, expected):
    t = np.arange(RATE) / RATE
    statistics = measure_sound((amplitude * np.sin(2 * np.pi * 440 * t)).astype(np.float32), RATE)
    assert statistics.level_dbfs == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("limit", [1000, 4000, 8000])
def test_bandwidth_is_the_limit_of_a_low_pass(rng, limit):
    noise = rng.normal(0, 0.1, 5 * RATE)
    filtered = sosfilt(butter(20, limit, fs=RATE, output="sos"), noise).astype(np.float32)
    assert limit <= measure_sound(filtered, RATE).bandwidth_hz <= 1.5 * limit
    assert measure_sound(noise.astype(np.float32), RATE).bandwidth_hz > 15_900


def test_bandwidth_is_that_of_the_loudest_frames(rng):
    sound = np.zeros(30 * RATE, np.float32)
    sound[10 * RATE : 11 * RATE] = rng.normal(0, 0.1, RATE)
    assert measure_sound(sound, RATE).bandwidth_hz > 15_900


@pytest.mark.parametrize("n_samples", [1, 100, 2047, 2048, 2049, 4095])
def test_short_sound_is_measured(rng, n_samples):
    statistics = measure_sound(rng.normal(0, 0.1, n_samples).astype(np.float32), RATE)
    assert statistics.level_dbfs == pytest.approx(-20, abs=20)
    assert statistics.bandwidth_hz > 0 or n_samples == 1


def test_silence_has_the_lowest_level_and_no_bandwidth():
    assert measure_sound(np.zeros(RATE, np.float32), RATE) == SoundStatistics(-120.0, 0.0)


def test_recording_is_as_loud_as_its_loudest_window_and_as_wide_as_its_widest():
    assert of_recording([SoundStatistics(-20, 4000), SoundStatistics(-50, 9000)]) == SoundStatistics(-20, 9000)
